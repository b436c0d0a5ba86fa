#include "client/abandoned.h"

#include <stddef.h>
#include <stdlib.h>

#include "lib/wire/error.h"

struct waiting {
    struct relay_tunnel *tunnel;
    struct relay_timer timer;
};

static void on_response(void *user, const struct relay_response *response)
{
    struct waiting *waiting = user;
    if (response->status >= 200)
        relay_tunnel_abort(waiting->tunnel, RELAY_ERR_CANCELLED);
}

static void on_close(void *user, int error)
{
    struct waiting *waiting = user;
    (void)error;
    relay_timer_stop(waiting->tunnel->loop, &waiting->timer);
    free(waiting);
}

static const struct relay_tunnel_user tunnel_cb = {.on_response = on_response, .on_close = on_close};

static void on_timer(struct relay_timer *timer)
{
    struct waiting *waiting = (struct waiting *)((char *)timer - offsetof(struct waiting, timer));
    relay_tunnel_abort(waiting->tunnel, RELAY_ERR_CANCELLED);
}

static void reset(struct relay_tunnel *tunnel)
{
    relay_tunnel_attach(tunnel, NULL, NULL);
    relay_tunnel_abort(tunnel, RELAY_ERR_CANCELLED);
}

static void wait_for(struct relay_tunnel *tunnel)
{
    struct waiting *waiting = calloc(1, sizeof(*waiting));
    if (waiting == NULL) {
        reset(tunnel);
        return;
    }
    waiting->tunnel = tunnel;
    relay_timer_init(&waiting->timer, on_timer);
    relay_timer_set_after(tunnel->loop, &waiting->timer, RELAY_ABANDONED_PATIENCE);
    relay_tunnel_attach(tunnel, &tunnel_cb, waiting);
}

void relay_abandoned_add(struct relay_abandoned *abandoned, struct relay_tunnel *tunnel)
{
    uint64_t now = relay_loop_now(tunnel->loop);
    if (relay_bucket_take(&abandoned->resets, 1, RELAY_ABANDONED_BURST, RELAY_ABANDONED_RATE, now))
        reset(tunnel);
    else
        wait_for(tunnel);
}

void relay_abandoned_finish(struct relay_tunnel *tunnel)
{
    relay_tunnel_send_fin(tunnel);
    relay_tunnel_resume(tunnel);
    wait_for(tunnel);
}
