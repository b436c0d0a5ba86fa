#include "lib/net/metrics.h"

void relay_histogram_add(struct relay_histogram *histogram, uint64_t ns)
{
    int bucket = 0;
    for (uint64_t bound = 1000000; bucket < RELAY_HISTOGRAM_BUCKETS && ns > bound; bound *= 2)
        bucket++;
    relay_count(histogram->buckets[bucket], 1);
    relay_count(histogram->sum_ns, ns);
}
