#include "lib/net/limit_log.h"

#include <stdatomic.h>
#include <stddef.h>

#include "lib/net/log.h"
#include "lib/net/metrics.h"

static const struct {
    const char *name;
    size_t counter; /* where it is in struct relay_metrics */
} limits[RELAY_LIMITS] = {
    [RELAY_LIMIT_RESETS] = {"limits.reset-burst", offsetof(struct relay_metrics, limit_resets)},
    [RELAY_LIMIT_OWN_RESETS] = {"limits.own-reset-burst", offsetof(struct relay_metrics, limit_resets)},
    [RELAY_LIMIT_CONTROL_FRAMES] = {"limits.control-frames", offsetof(struct relay_metrics, limit_control)},
    [RELAY_LIMIT_CONNECTIONS] = {"limits.connections", offsetof(struct relay_metrics, limit_connections)},
    [RELAY_LIMIT_SOURCE] = {"limits.connections-per-source",
                            offsetof(struct relay_metrics, limit_connections)},
};

static struct {
    atomic_ullong next_at; /* ns; before it nothing is said */
    atomic_uint closed;    /* and not told yet */
} states[RELAY_LIMITS];

void relay_limit_log(struct relay_loop *loop, enum relay_limit limit)
{
    unsigned long long now = relay_loop_now(loop), next_at = atomic_load(&states[limit].next_at);
    relay_count(*(uint64_t *)((char *)loop->metrics + limits[limit].counter), 1);
    atomic_fetch_add(&states[limit].closed, 1);
    /* Of several workers one says it. */
    if (now < next_at ||
        !atomic_compare_exchange_strong(&states[limit].next_at, &next_at, now + RELAY_LIMIT_LOG_EVERY))
        return;
    relay_log(RELAY_LOG_INFO, "connections_closed", "s:s, s:i", "limit", limits[limit].name, "count",
              (int)atomic_exchange(&states[limit].closed, 0));
}
