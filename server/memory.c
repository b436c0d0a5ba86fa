#include "server/memory.h"

#include <malloc.h>
#include <stddef.h>

bool relay_memory_is_due(struct relay_memory *memory, int64_t open)
{
    if (open > memory->peak)
        memory->peak = open;
    if (memory->peak < RELAY_MEMORY_CROWD || open > memory->peak / 2)
        return false;
    memory->peak = open;
    return true;
}

static void on_timer(struct relay_timer *timer)
{
    struct relay_memory *memory =
        (struct relay_memory *)((char *)timer - offsetof(struct relay_memory, timer));
    int64_t open = 0;
    for (unsigned i = 0; i < memory->num_workers; i++)
        open += __atomic_load_n(&memory->workers[i].metrics.open_connections, __ATOMIC_RELAXED);
    if (relay_memory_is_due(memory, open))
        malloc_trim(0);
    relay_timer_set_after(memory->loop, timer, RELAY_MEMORY_INTERVAL);
}

void relay_memory_init(struct relay_memory *memory, struct relay_loop *loop,
                       const struct relay_worker *workers, unsigned num_workers)
{
    *memory = (struct relay_memory){.loop = loop, .workers = workers, .num_workers = num_workers};
    relay_timer_init(&memory->timer, on_timer);
    relay_timer_set_after(loop, &memory->timer, RELAY_MEMORY_INTERVAL);
}
