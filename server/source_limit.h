/* How many connections each source (an IPv4 address or an IPv6 /64) has open. A hash table of exactly the sources that
 * have some: it is as large as the connections are many.
 *
 * One for all workers; any thread may take and release: once per connection each, under a lock. */
#ifndef RELAY_SERVER_SOURCE_LIMIT_H
#define RELAY_SERVER_SOURCE_LIMIT_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/wire/address.h"

struct relay_source_count {
    struct relay_prefix prefix; /* family 0: free */
    uint32_t count;
};

struct relay_source_limit {
    pthread_mutex_t lock;             /* the table */
    struct relay_source_count *table; /* open addressing, a power of two */
    size_t size, used;
    uint64_t seed;
};

void relay_source_limit_init(struct relay_source_limit *limit); /* the seed is random */
void relay_source_limit_dispose(struct relay_source_limit *limit);
/* One more; false when it would be over `max` or memory is out. */
bool relay_source_limit_take(struct relay_source_limit *limit, const struct relay_address *source,
                             uint32_t max);
void relay_source_limit_release(struct relay_source_limit *limit, const struct relay_address *source);

#endif
