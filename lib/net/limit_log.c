#include "lib/net/limit_log.h"

#include <stdatomic.h>

#include "lib/net/log.h"
#include "lib/net/metrics.h"

static const char *const names[RELAY_LIMITS] = {"limits.reset-burst", "limits.own-reset-burst",
                                                "limits.control-frames"};

static struct {
    atomic_ullong next_at; /* ns; before it nothing is said */
    atomic_uint closed;    /* and not told yet */
} states[RELAY_LIMITS];

void relay_limit_log(struct relay_loop *loop, enum relay_limit limit)
{
    unsigned long long now = relay_loop_now(loop), next_at = atomic_load(&states[limit].next_at);
    if (limit == RELAY_LIMIT_CONTROL_FRAMES)
        relay_count(loop->metrics->limit_control, 1);
    else
        relay_count(loop->metrics->limit_resets, 1);
    atomic_fetch_add(&states[limit].closed, 1);
    /* Of several workers one says it. */
    if (now < next_at ||
        !atomic_compare_exchange_strong(&states[limit].next_at, &next_at, now + RELAY_LIMIT_LOG_EVERY))
        return;
    relay_log(RELAY_LOG_INFO, "connections_closed", "s:s, s:i", "limit", names[limit], "count",
              (int)atomic_exchange(&states[limit].closed, 0));
}
