/* What DNS said about names, for as long as it may be believed: a hash of bounded size, the least recently
 * used name leaves first. Owned by one resolver; no entry is ever older than its TTL. */
#ifndef RELAY_NET_NAME_CACHE_H
#define RELAY_NET_NAME_CACHE_H

#include <stddef.h>
#include <stdint.h>

#include "lib/wire/address.h"

struct relay_cached_name {
    struct relay_cached_name *next_in_bucket;
    struct relay_cached_name *newer, *older;
    uint64_t expires; /* ns */
    int error, rcode; /* as in struct relay_resolution */
    size_t num_addresses;
    struct relay_address *addresses; /* behind the name, in the same allocation */
    char name[];
};

struct relay_name_cache {
    struct relay_cached_name **buckets;
    size_t num_buckets, count, limit;
    struct relay_cached_name *newest, *oldest;
    uint64_t seed;
};

/* Keeps at most `limit` names; 0: none. RELAY_ERR_NO_MEMORY. */
int relay_name_cache_init(struct relay_name_cache *cache, size_t limit, uint64_t seed);
void relay_name_cache_dispose(struct relay_name_cache *cache); /* zeroed memory is fine */

/* NULL: not there, or too old. The entry lives until the next put. */
const struct relay_cached_name *relay_name_cache_get(struct relay_name_cache *cache, const char *name,
                                                     uint64_t now);
/* Replaces what is there. Without memory the name is just not kept. */
void relay_name_cache_put(struct relay_name_cache *cache, const char *name, uint64_t expires, int error,
                          int rcode, const struct relay_address *addresses, size_t num_addresses);

/* The keyed hash of names: `seed` is random per process, so that nobody chooses names that collide. */
uint64_t relay_name_hash(const char *name, uint64_t seed);

#endif
