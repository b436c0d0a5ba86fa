#include "modules/failure_limit.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/random.h>

#include "lib/net/limits.h"

#define SETS 1024 /* a power of two */
#define WAYS 4

struct entry {
    uint64_t key; /* 0: free */
    struct relay_bucket bucket;
};

struct relay_failure_limit {
    pthread_mutex_t lock; /* all but the seed */
    uint64_t seed;
    struct relay_bucket all;
    struct entry sets[SETS][WAYS];
};

struct relay_failure_limit *relay_failure_limit_new(void)
{
    struct relay_failure_limit *limit = calloc(1, sizeof(*limit));
    if (limit != NULL && getrandom(&limit->seed, sizeof(limit->seed), 0) != sizeof(limit->seed)) {
        free(limit);
        limit = NULL;
    }
    if (limit != NULL)
        pthread_mutex_init(&limit->lock, NULL);
    return limit;
}

void relay_failure_limit_free(struct relay_failure_limit *limit)
{
    if (limit != NULL)
        pthread_mutex_destroy(&limit->lock);
    free(limit);
}

static bool take(struct relay_bucket *bucket, uint32_t per_minute, uint64_t now)
{
    return per_minute == 0 || relay_bucket_take(bucket, 1, per_minute, per_minute / 60.0, now);
}

/* The key's bucket: its own, or the place of the one that failed longest ago. */
static struct relay_bucket *bucket_of(struct relay_failure_limit *limit, uint64_t key)
{
    key |= 1; /* never 0 */
    struct entry *set = limit->sets[(key >> 32) & (SETS - 1)], *oldest = set;
    for (size_t i = 0; i < WAYS; i++) {
        if (set[i].key == key)
            return &set[i].bucket;
        if (oldest->key != 0 && (set[i].key == 0 || set[i].bucket.at < oldest->bucket.at))
            oldest = &set[i];
    }
    *oldest = (struct entry){.key = key};
    return &oldest->bucket;
}

static bool take_keyed(struct relay_failure_limit *limit, uint64_t key, uint32_t per_minute, uint64_t now)
{
    pthread_mutex_lock(&limit->lock);
    bool is_within = take(bucket_of(limit, key), per_minute, now);
    pthread_mutex_unlock(&limit->lock);
    return is_within;
}

bool relay_failure_limit_source(struct relay_failure_limit *limit, const struct relay_address *source,
                                uint32_t per_minute, uint64_t now)
{
    struct relay_prefix prefix = relay_prefix_of(source, 32, 64);
    return take_keyed(limit, relay_prefix_hash(&prefix, limit->seed), per_minute, now);
}

/* A keyed hash of the bytes; a collision costs a guesser a few attempts. */
static uint64_t hash(const char *text, size_t len, uint64_t seed)
{
    uint64_t state = seed ^ 0x6e616d65;
    for (size_t i = 0; i < len; i++) {
        state = (state ^ (uint8_t)text[i]) * 0x9e3779b97f4a7c15;
        state ^= state >> 29;
    }
    return state;
}

bool relay_failure_limit_name(struct relay_failure_limit *limit, const char *name, size_t len,
                              uint32_t per_minute, uint64_t now)
{
    return take_keyed(limit, hash(name, len, limit->seed), per_minute, now);
}

bool relay_failure_limit_all(struct relay_failure_limit *limit, uint32_t per_minute, uint64_t now)
{
    pthread_mutex_lock(&limit->lock);
    bool is_within = take(&limit->all, per_minute, now);
    pthread_mutex_unlock(&limit->lock);
    return is_within;
}
