#include "lib/net/name_cache.h"

#include <stdlib.h>
#include <string.h>

#include "lib/wire/error.h"

uint64_t relay_name_hash(const char *name, uint64_t seed)
{
    uint64_t hash = seed;
    for (; *name != '\0'; name++) {
        hash ^= (uint8_t)*name;
        hash *= 0x9e3779b97f4a7c15ull;
        hash ^= hash >> 29;
    }
    return hash;
}

static struct relay_cached_name **slot_of(struct relay_name_cache *cache, const char *name)
{
    struct relay_cached_name **slot =
        &cache->buckets[relay_name_hash(name, cache->seed) & (cache->num_buckets - 1)];
    while (*slot != NULL && strcmp((*slot)->name, name) != 0)
        slot = &(*slot)->next_in_bucket;
    return slot;
}

static void unlink_age(struct relay_name_cache *cache, struct relay_cached_name *entry)
{
    *(entry->newer != NULL ? &entry->newer->older : &cache->newest) = entry->older;
    *(entry->older != NULL ? &entry->older->newer : &cache->oldest) = entry->newer;
}

static void link_newest(struct relay_name_cache *cache, struct relay_cached_name *entry)
{
    entry->newer = NULL;
    entry->older = cache->newest;
    *(cache->newest != NULL ? &cache->newest->newer : &cache->oldest) = entry;
    cache->newest = entry;
}

static void remove_at(struct relay_name_cache *cache, struct relay_cached_name **slot)
{
    struct relay_cached_name *entry = *slot;
    *slot = entry->next_in_bucket;
    unlink_age(cache, entry);
    cache->count--;
    free(entry);
}

int relay_name_cache_init(struct relay_name_cache *cache, size_t limit, uint64_t seed)
{
    *cache = (struct relay_name_cache){.limit = limit, .seed = seed, .num_buckets = 16};
    while (cache->num_buckets < limit)
        cache->num_buckets *= 2;
    cache->buckets = calloc(cache->num_buckets, sizeof(struct relay_cached_name *));
    return cache->buckets != NULL ? RELAY_OK : RELAY_ERR_NO_MEMORY;
}

void relay_name_cache_dispose(struct relay_name_cache *cache)
{
    while (cache->oldest != NULL)
        remove_at(cache, slot_of(cache, cache->oldest->name));
    free(cache->buckets);
    *cache = (struct relay_name_cache){0};
}

const struct relay_cached_name *relay_name_cache_get(struct relay_name_cache *cache, const char *name,
                                                     uint64_t now)
{
    struct relay_cached_name **slot = slot_of(cache, name), *entry = *slot;
    if (entry == NULL)
        return NULL;
    if (entry->expires <= now) {
        remove_at(cache, slot);
        return NULL;
    }
    unlink_age(cache, entry);
    link_newest(cache, entry);
    return entry;
}

void relay_name_cache_put(struct relay_name_cache *cache, const char *name, uint64_t expires, int error,
                          int rcode, const struct relay_address *addresses, size_t num_addresses)
{
    struct relay_cached_name **slot = slot_of(cache, name);
    if (*slot != NULL)
        remove_at(cache, slot);
    if (cache->limit == 0)
        return;
    while (cache->count >= cache->limit)
        remove_at(cache, slot_of(cache, cache->oldest->name));
    size_t name_size = strlen(name) + 1, size = num_addresses * sizeof(*addresses);
    struct relay_cached_name *entry = malloc(sizeof(*entry) + name_size + size);
    if (entry == NULL)
        return;
    memcpy(entry->name, name, name_size);
    entry->addresses = (struct relay_address *)(entry->name + name_size); /* bytes only: no alignment */
    if (num_addresses > 0)
        memcpy(entry->addresses, addresses, size);
    entry->num_addresses = num_addresses;
    entry->expires = expires;
    entry->error = error;
    entry->rcode = rcode;
    slot = slot_of(cache, name); /* the oldest may have been in its chain */
    entry->next_in_bucket = *slot;
    *slot = entry;
    link_newest(cache, entry);
    cache->count++;
}
