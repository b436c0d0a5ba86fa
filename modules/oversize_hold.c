#include "modules/oversize_hold.h"

#include <stdlib.h>
#include <string.h>

#include "lib/net/metrics.h"

#define RETRY_EVERY (10 * RELAY_MS)

struct relay_oversize_item {
    uint64_t until;
    size_t len;
    uint8_t bytes[RELAY_OVERSIZE_HOLD_MAX];
};

/* Whether the item is done with: sent, or out of time. */
static bool try_again(struct relay_oversize_hold *hold, const struct relay_oversize_item *item, uint64_t now)
{
    struct relay_metrics *metrics = hold->tunnel->loop->metrics;
    struct relay_run run = {.base = item->bytes, .len = item->len, .segment = item->len};
    enum relay_sent sent = relay_tunnel_send_datagrams(hold->tunnel, &run);
    if (sent == RELAY_SENT) {
        relay_count(metrics->datagrams_out, 1);
        relay_count(metrics->udp_bytes_out, item->len);
    } else if (sent == RELAY_GONE) {
        relay_count(metrics->drop_closed, 1);
    } else if (now >= item->until) {
        relay_count(metrics->drop_too_big, 1);
    }
    return sent == RELAY_SENT || sent == RELAY_GONE || now >= item->until;
}

static void on_timer(struct relay_timer *timer)
{
    struct relay_oversize_hold *hold =
        (struct relay_oversize_hold *)((char *)timer - offsetof(struct relay_oversize_hold, timer));
    uint64_t now = relay_loop_now(hold->tunnel->loop);
    size_t kept = 0;
    for (size_t i = 0; i < hold->count; i++) {
        if (try_again(hold, &hold->items[i], now))
            continue;
        if (kept < i)
            hold->items[kept] = hold->items[i];
        kept++;
    }
    hold->count = kept;
    if (kept > 0) {
        relay_timer_set_after(hold->tunnel->loop, &hold->timer, RETRY_EVERY);
        return;
    }
    free(hold->items);
    hold->items = NULL;
}

void relay_oversize_hold_init(struct relay_oversize_hold *hold, struct relay_tunnel *tunnel)
{
    memset(hold, 0, sizeof(*hold));
    hold->tunnel = tunnel;
    relay_timer_init(&hold->timer, on_timer);
}

void relay_oversize_hold_dispose(struct relay_oversize_hold *hold)
{
    if (hold->tunnel == NULL)
        return;
    relay_timer_stop(hold->tunnel->loop, &hold->timer);
    relay_count(hold->tunnel->loop->metrics->drop_closed, hold->count);
    free(hold->items);
    hold->items = NULL;
    hold->count = 0;
}

void relay_oversize_hold_take(struct relay_oversize_hold *hold, const struct relay_run *run)
{
    struct relay_loop *loop = hold->tunnel->loop;
    size_t len = run->len < run->segment ? run->len : run->segment;
    bool fits = len <= RELAY_OVERSIZE_HOLD_MAX && hold->count < RELAY_OVERSIZE_HOLD_DATAGRAMS;
    if (fits && hold->items == NULL)
        hold->items = malloc(RELAY_OVERSIZE_HOLD_DATAGRAMS * sizeof(*hold->items));
    if (!fits || hold->items == NULL) {
        relay_count(loop->metrics->drop_too_big, 1);
        return;
    }
    struct relay_oversize_item *item = &hold->items[hold->count++];
    item->until = relay_loop_now(loop) + RELAY_OVERSIZE_HOLD_TIME;
    item->len = len;
    memcpy(item->bytes, run->base, len);
    if (!relay_timer_is_set(&hold->timer))
        relay_timer_set_after(loop, &hold->timer, RETRY_EVERY);
}
