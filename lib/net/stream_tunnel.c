#include "lib/net/stream_tunnel.h"

#include <stdlib.h>
#include <string.h>

#include "lib/wire/error.h"

/* How long a released stream waits for the peer's end. */
#define LINGER (2 * RELAY_SECOND)

struct stream {
    struct relay_stream head;    /* first */
    struct relay_tunnel *tunnel; /* NULL after its on_close */
    void (*on_refused)(void *user, const struct relay_refusal *refusal);
    void *user;
    struct relay_task task; /* tells on_ready or on_close, or frees */
    struct relay_timer linger;
    int error; /* why it was refused, then why it ended */
    bool started, opened, ready_told, ended;
};

static struct stream *stream_of(struct relay_stream *head)
{
    return (struct stream *)head;
}

static void run_task(struct relay_task *task)
{
    struct stream *stream = (struct stream *)((char *)task - offsetof(struct stream, task));
    if (stream->ended) {
        if (stream->tunnel == NULL)
            free(stream);
    } else if (stream->tunnel == NULL) {
        stream->head.cb->on_close(stream->head.user, stream->error);
    } else if (stream->started && stream->opened && !stream->ready_told) {
        stream->ready_told = true;
        relay_tunnel_resume(stream->tunnel);
        stream->head.cb->on_ready(stream->head.user);
    }
}

static void on_linger(struct relay_timer *timer)
{
    struct stream *stream = (struct stream *)((char *)timer - offsetof(struct stream, linger));
    if (stream->tunnel != NULL)
        relay_tunnel_abort(stream->tunnel, RELAY_ERR_CANCELLED);
}

/* ---- the stream's operations ---- */

static void stream_start(struct relay_stream *head)
{
    struct stream *stream = stream_of(head);
    stream->started = true;
    if (stream->opened || stream->tunnel == NULL)
        relay_task_queue(head->loop, &stream->task);
}

static size_t stream_room(struct relay_stream *head)
{
    struct stream *stream = stream_of(head);
    return stream->tunnel != NULL ? relay_tunnel_room(stream->tunnel) : 0;
}

static bool stream_send(struct relay_stream *head, const uint8_t *bytes, size_t len)
{
    struct stream *stream = stream_of(head);
    return stream->tunnel == NULL || relay_tunnel_send(stream->tunnel, bytes, len);
}

static void stream_fin(struct relay_stream *head)
{
    struct stream *stream = stream_of(head);
    if (stream->tunnel != NULL)
        relay_tunnel_send_fin(stream->tunnel);
}

static void stream_pause(struct relay_stream *head)
{
    struct stream *stream = stream_of(head);
    if (stream->tunnel != NULL)
        relay_tunnel_pause(stream->tunnel);
}

static void stream_resume(struct relay_stream *head)
{
    struct stream *stream = stream_of(head);
    if (stream->tunnel != NULL && stream->ready_told)
        relay_tunnel_resume(stream->tunnel);
}

static void end(struct stream *stream)
{
    stream->ended = true;
    stream->head.cb = NULL;
    if (stream->tunnel == NULL)
        relay_task_queue(stream->head.loop, &stream->task);
}

static void abort_with(struct relay_stream *head, int error)
{
    struct stream *stream = stream_of(head);
    end(stream);
    if (stream->tunnel != NULL)
        relay_tunnel_abort(stream->tunnel, error);
}

static void stream_close(struct relay_stream *head)
{
    abort_with(head, RELAY_ERR_CANCELLED);
}

static void stream_reset(struct relay_stream *head)
{
    abort_with(head, RELAY_ERR_RESET);
}

static void stream_release(struct relay_stream *head)
{
    struct stream *stream = stream_of(head);
    if (!stream->opened) {
        stream_close(head); /* nothing was ever promised to arrive */
        return;
    }
    end(stream);
    if (stream->tunnel == NULL)
        return;
    relay_tunnel_send_fin(stream->tunnel);
    relay_tunnel_resume(stream->tunnel);
    relay_timer_set_after(head->loop, &stream->linger, LINGER);
}

static const struct relay_stream_ops stream_ops = {
    .start = stream_start,
    .room = stream_room,
    .send = stream_send,
    .fin = stream_fin,
    .pause = stream_pause,
    .resume = stream_resume,
    .release = stream_release,
    .close = stream_close,
    .reset = stream_reset,
};

/* ---- the tunnel's callbacks ---- */

static void on_response(void *user, const struct relay_response *response)
{
    struct stream *stream = user;
    if (response->status < 200 || stream->ended)
        return;
    if (response->status >= 300) {
        struct relay_refusal refusal;
        relay_refusal_read(&refusal, response);
        stream->error = refusal.error;
        if (stream->on_refused != NULL)
            stream->on_refused(stream->user, &refusal);
        relay_tunnel_abort(stream->tunnel, RELAY_ERR_CANCELLED);
        return;
    }
    stream->opened = true;
    if (stream->started)
        relay_task_queue(stream->head.loop, &stream->task);
}

static void on_bytes(void *user, uint8_t *bytes, size_t len)
{
    struct stream *stream = user;
    if (!stream->ended)
        stream->head.cb->on_bytes(stream->head.user, bytes, len);
}

static void on_fin(void *user)
{
    struct stream *stream = user;
    if (!stream->ended)
        stream->head.cb->on_fin(stream->head.user);
}

static void on_writable(void *user)
{
    struct stream *stream = user;
    if (!stream->ended && stream->started)
        stream->head.cb->on_writable(stream->head.user);
}

static void on_close(void *user, int error)
{
    struct stream *stream = user;
    stream->tunnel = NULL;
    relay_timer_stop(stream->head.loop, &stream->linger);
    relay_task_cancel(&stream->task);
    if (stream->ended) {
        free(stream);
        return;
    }
    if (stream->error == RELAY_OK)
        stream->error = error;
    if (stream->error == RELAY_OK && stream->ready_told)
        return; /* both directions have ended, and the user knows */
    if (stream->error == RELAY_OK)
        stream->error = RELAY_ERR_CLOSED;
    if (stream->head.cb != NULL)
        stream->head.cb->on_close(stream->head.user, stream->error);
}

static const struct relay_tunnel_user tunnel_cb = {
    .on_response = on_response,
    .on_bytes = on_bytes,
    .on_fin = on_fin,
    .on_writable = on_writable,
    .on_close = on_close,
};

struct relay_stream *
relay_stream_tunnel_open(struct relay_session *session, const struct relay_request *request,
                         void (*on_refused)(void *user, const struct relay_refusal *refusal), void *user)
{
    struct stream *stream = calloc(1, sizeof(*stream));
    if (stream == NULL)
        return NULL;
    stream->head.ops = &stream_ops;
    stream->head.loop = session->loop;
    stream->head.peer.ss_family = AF_UNSPEC;
    stream->on_refused = on_refused;
    stream->user = user;
    relay_task_init(&stream->task, RELAY_LEVEL_EVENT, run_task);
    relay_timer_init(&stream->linger, on_linger);
    stream->tunnel = relay_session_open(session, request, &tunnel_cb, stream);
    if (stream->tunnel == NULL) {
        free(stream);
        return NULL;
    }
    relay_tunnel_pause(stream->tunnel); /* until it has a user */
    return &stream->head;
}
