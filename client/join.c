#include "client/join.h"

#include <stdlib.h>
#include <string.h>

#include "lib/net/splice.h"
#include "lib/wire/error.h"

struct join {
    struct relay_opening opening; /* first */
    struct relay_stream *stream;
    const struct relay_join_user *cb;
    void *user;
    size_t early_len;
    uint8_t early[];
};

static void finish(struct join *join)
{
    const struct relay_join_user *cb = join->cb;
    void *user = join->user;
    free(join);
    cb->on_end(user);
}

/* ---- the stream while the tunnel is being opened: it is paused, so only its death is told ---- */

static void on_nothing(void *user)
{
    (void)user;
}

static void on_bytes(void *user, uint8_t *bytes, size_t len)
{
    (void)user;
    (void)bytes;
    (void)len;
}

static void on_stream_close(void *user, int error)
{
    struct join *join = user;
    (void)error;
    relay_opening_cancel(&join->opening);
    relay_stream_close(join->stream);
    finish(join);
}

static const struct relay_stream_user stream_cb = {on_nothing, on_bytes, on_nothing, on_nothing,
                                                   on_stream_close};

/* ---- the opening ---- */

static void on_splice_end(void *user, int error)
{
    (void)error;
    finish(user);
}

static void on_tunnel_close(void *user, int error)
{
    (void)error;
    finish(user);
}

/* For a tunnel that could not be spliced. */
static const struct relay_tunnel_user dropped_cb = {.on_close = on_tunnel_close};

static void on_open(struct relay_opening *opening, struct relay_tunnel *tunnel)
{
    struct join *join = (struct join *)opening;
    if (join->cb->on_open != NULL)
        join->cb->on_open(join->user, join->stream);
    if (join->early_len > 0)
        relay_tunnel_send(tunnel, join->early, join->early_len);
    if (relay_splice(tunnel, join->stream, RELAY_JOIN_IDLE, on_splice_end, join) == 0) {
        return;
    }
    relay_stream_reset(join->stream);
    relay_tunnel_attach(tunnel, &dropped_cb, join);
    relay_tunnel_abort(tunnel, RELAY_ERR_NO_MEMORY);
}

static bool is_deserted(struct relay_opening *opening)
{
    struct join *join = (struct join *)opening;
    enum relay_stream_peer peer = relay_stream_look(join->stream);
    return peer == RELAY_PEER_SAID_ALL ? !join->cb->may_end_early : peer != RELAY_PEER_THERE;
}

static void on_failed(struct relay_opening *opening, const struct relay_failure *failure)
{
    struct join *join = (struct join *)opening;
    join->cb->on_failed(join->user, join->stream, failure);
    finish(join);
}

int relay_join(struct relay_chain *chain, struct relay_stream *stream, const struct relay_host *host,
               uint16_t port, const uint8_t *early, size_t early_len, const struct relay_join_user *cb,
               void *user)
{
    struct join *join = calloc(1, sizeof(*join) + early_len);
    if (join == NULL)
        return RELAY_ERR_NO_MEMORY;
    join->opening.on_open = on_open;
    join->opening.on_failed = on_failed;
    join->opening.is_deserted = is_deserted;
    join->stream = stream;
    join->cb = cb;
    join->user = user;
    join->early_len = early_len;
    if (early_len > 0)
        memcpy(join->early, early, early_len);
    if (stream->cb == NULL)
        relay_stream_start(stream, &stream_cb, join);
    else
        relay_stream_set_user(stream, &stream_cb, join);
    relay_stream_pause(stream);
    relay_chain_open(chain, &join->opening, false, host, port);
    return 0;
}
