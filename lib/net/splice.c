#include "lib/net/splice.h"

#include <stdlib.h>

#include "lib/net/metrics.h"
#include "lib/net/session.h"
#include "lib/wire/error.h"

/* A target that never reads lets its kernel acknowledge less than this; ours would take megabytes more. */
#define PROVEN_AFTER ((size_t)256 << 10)
#define PROVEN_STEP  ((size_t)32 << 10) /* between two looks */

struct splice {
    struct relay_tunnel *tunnel;
    struct relay_stream *stream; /* NULL: ended */
    struct relay_timer timer;
    uint64_t idle, active_at;
    size_t sent, look_at; /* to the stream, while the tunnel is unproven */
    relay_splice_cb on_end;
    void *user;
};

static void note_activity(struct splice *splice)
{
    splice->active_at = relay_loop_now(splice->tunnel->loop);
}

static void end_stream(struct splice *splice, void (*end)(struct relay_stream *stream))
{
    struct relay_stream *stream = splice->stream;
    splice->stream = NULL;
    if (stream != NULL)
        end(stream);
}

/* ---- from the stream ---- */

/* No read may bring more than the tunnel takes: what it does not take it must copy. */
static void set_reading(struct splice *splice)
{
    size_t room = relay_tunnel_room(splice->tunnel);
    if (room == 0) {
        relay_stream_pause(splice->stream);
    } else {
        splice->stream->read_max = room;
        relay_stream_resume(splice->stream);
    }
}

static void on_stream_ready(void *user)
{
}

static void on_stream_bytes(void *user, uint8_t *bytes, size_t len)
{
    struct splice *splice = user;
    note_activity(splice);
    relay_count(splice->tunnel->loop->metrics->bytes_out, len);
    if (relay_tunnel_send(splice->tunnel, bytes, len))
        set_reading(splice);
    else
        relay_stream_pause(splice->stream);
}

static void on_stream_fin(void *user)
{
    struct splice *splice = user;
    note_activity(splice);
    relay_tunnel_send_fin(splice->tunnel);
}

static void on_stream_writable(void *user)
{
    struct splice *splice = user;
    note_activity(splice);
    relay_tunnel_resume(splice->tunnel);
}

static void on_stream_close(void *user, int error)
{
    struct splice *splice = user;
    end_stream(splice, relay_stream_close);
    relay_tunnel_abort(splice->tunnel, error == RELAY_OK ? RELAY_ERR_RESET : error);
}

static const struct relay_stream_user stream_user = {
    .on_ready = on_stream_ready,
    .on_bytes = on_stream_bytes,
    .on_fin = on_stream_fin,
    .on_writable = on_stream_writable,
    .on_close = on_stream_close,
};

/* ---- from the tunnel ---- */

/* `len` bytes are about to be sent. */
static void look_for_proof(struct splice *splice, size_t len)
{
    if (splice->sent >= splice->look_at) {
        splice->look_at = splice->sent + PROVEN_STEP;
        splice->tunnel->is_unproven =
            splice->sent < PROVEN_AFTER + relay_stream_unacknowledged(splice->stream);
    }
    splice->sent += len;
}

static void on_tunnel_bytes(void *user, uint8_t *bytes, size_t len)
{
    struct splice *splice = user;
    note_activity(splice);
    relay_count(splice->tunnel->loop->metrics->bytes_in, len);
    if (splice->stream == NULL)
        return;
    if (splice->tunnel->is_unproven)
        look_for_proof(splice, len);
    if (!relay_stream_send(splice->stream, bytes, len))
        relay_tunnel_pause(splice->tunnel);
}

static void on_tunnel_fin(void *user)
{
    struct splice *splice = user;
    note_activity(splice);
    if (splice->stream != NULL)
        relay_stream_fin(splice->stream);
}

static void on_tunnel_writable(void *user)
{
    struct splice *splice = user;
    note_activity(splice);
    if (splice->stream != NULL)
        set_reading(splice);
}

static void on_tunnel_close(void *user, int error)
{
    struct splice *splice = user;
    end_stream(splice, error == RELAY_OK ? relay_stream_release : relay_stream_reset);
    relay_timer_stop(splice->tunnel->loop, &splice->timer);
    relay_splice_cb on_end = splice->on_end;
    void *end_user = splice->user;
    free(splice);
    on_end(end_user, error);
}

static const struct relay_tunnel_user tunnel_user = {
    .on_bytes = on_tunnel_bytes,
    .on_fin = on_tunnel_fin,
    .on_writable = on_tunnel_writable,
    .on_close = on_tunnel_close,
};

/* ---- life ---- */

static void on_timer(struct relay_timer *timer)
{
    struct splice *splice = (struct splice *)((char *)timer - offsetof(struct splice, timer));
    struct relay_loop *loop = splice->tunnel->loop;
    if (relay_loop_now(loop) < splice->active_at + splice->idle) {
        relay_timer_set(loop, timer, splice->active_at + splice->idle);
        return;
    }
    end_stream(splice, relay_stream_reset);
    relay_tunnel_abort(splice->tunnel, RELAY_ERR_IDLE);
}

int relay_splice(struct relay_tunnel *tunnel, struct relay_stream *stream, uint64_t idle,
                 relay_splice_cb on_end, void *user)
{
    struct splice *splice = calloc(1, sizeof(*splice));
    if (splice == NULL)
        return RELAY_ERR_NO_MEMORY;
    splice->tunnel = tunnel;
    splice->stream = stream;
    splice->idle = idle;
    splice->on_end = on_end;
    splice->user = user;
    splice->look_at = PROVEN_AFTER;
    tunnel->is_unproven = tunnel->session->is_server; /* a client's application reads, and waits for it */
    note_activity(splice);
    relay_timer_init(&splice->timer, on_timer);
    relay_timer_set_after(tunnel->loop, &splice->timer, idle);
    relay_tunnel_attach(tunnel, &tunnel_user, splice);
    if (stream->cb == NULL)
        relay_stream_start(stream, &stream_user, splice);
    else
        relay_stream_set_user(stream, &stream_user, splice);
    relay_stream_guard(stream);
    set_reading(splice);
    relay_tunnel_resume(tunnel);
    return RELAY_OK;
}
