#include "server/source_limit.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/random.h>

#define FIRST_SIZE 64

void relay_source_limit_init(struct relay_source_limit *limit)
{
    *limit = (struct relay_source_limit){.lock = PTHREAD_MUTEX_INITIALIZER};
    if (getrandom(&limit->seed, sizeof(limit->seed), 0) != sizeof(limit->seed))
        limit->seed = (uint64_t)(uintptr_t)limit;
}

void relay_source_limit_dispose(struct relay_source_limit *limit)
{
    free(limit->table);
    pthread_mutex_destroy(&limit->lock);
    *limit = (struct relay_source_limit){0};
}

static struct relay_prefix key_of(const struct relay_address *source)
{
    return relay_prefix_of(source, 32, 64);
}

static size_t home(const struct relay_source_limit *limit, const struct relay_prefix *prefix)
{
    return (size_t)relay_prefix_hash(prefix, limit->seed) & (limit->size - 1);
}

/* Its entry, or the free one where it belongs. */
static struct relay_source_count *find(struct relay_source_limit *limit, const struct relay_prefix *prefix)
{
    size_t at = home(limit, prefix);
    while (limit->table[at].count != 0 && !relay_prefix_equal(&limit->table[at].prefix, prefix))
        at = (at + 1) & (limit->size - 1);
    return &limit->table[at];
}

static bool grow(struct relay_source_limit *limit)
{
    struct relay_source_count *old = limit->table;
    size_t old_size = limit->size;
    struct relay_source_count *table = calloc(old_size ? old_size * 2 : FIRST_SIZE, sizeof(*table));
    if (table == NULL)
        return false;
    limit->table = table;
    limit->size = old_size ? old_size * 2 : FIRST_SIZE;
    for (size_t i = 0; i < old_size; i++)
        if (old[i].count != 0)
            *find(limit, &old[i].prefix) = old[i];
    free(old);
    return true;
}

static bool take(struct relay_source_limit *limit, const struct relay_prefix *prefix, uint32_t max)
{
    if (limit->used * 2 >= limit->size && !grow(limit))
        return false;
    struct relay_source_count *entry = find(limit, prefix);
    if (entry->count >= max)
        return false;
    if (entry->count == 0) {
        entry->prefix = *prefix;
        limit->used++;
    }
    entry->count++;
    return true;
}

bool relay_source_limit_take(struct relay_source_limit *limit, const struct relay_address *source,
                             uint32_t max)
{
    struct relay_prefix prefix = key_of(source);
    pthread_mutex_lock(&limit->lock);
    bool is_taken = take(limit, &prefix, max);
    pthread_mutex_unlock(&limit->lock);
    return is_taken;
}

/* Open addressing without tombstones: what stands behind the hole and may move into it, does. */
static void remove_at(struct relay_source_limit *limit, size_t hole)
{
    size_t mask = limit->size - 1;
    limit->used--;
    limit->table[hole] = (struct relay_source_count){0};
    for (size_t at = (hole + 1) & mask; limit->table[at].count != 0; at = (at + 1) & mask) {
        size_t wanted = home(limit, &limit->table[at].prefix);
        if (((at - wanted) & mask) < ((at - hole) & mask))
            continue;
        limit->table[hole] = limit->table[at];
        limit->table[at] = (struct relay_source_count){0};
        hole = at;
    }
}

void relay_source_limit_release(struct relay_source_limit *limit, const struct relay_address *source)
{
    struct relay_prefix prefix = key_of(source);
    pthread_mutex_lock(&limit->lock);
    assert(limit->size > 0);
    struct relay_source_count *entry = find(limit, &prefix);
    assert(entry->count > 0);
    if (--entry->count == 0)
        remove_at(limit, (size_t)(entry - limit->table));
    pthread_mutex_unlock(&limit->lock);
}
