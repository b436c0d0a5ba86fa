#include "lib/net/http2_private.h"

#include <stdlib.h>
#include <string.h>

#include "lib/net/refusal.h"
#include "lib/wire/error.h"

#define WRITABLE_BELOW HTTP2_DATA_MAX /* a user that waits is told when no more than this is queued */

/* What an ordinary message may queue beyond the peer's window: with its frame head a block of 16 KiB. */
#define MESSAGE_ROOM HTTP2_DATA_MAX

static struct http2_session *session_of(const struct http2_stream *stream)
{
    return relay_http2_session_of(stream->tunnel.session);
}

/* ---- life ---- */

static const struct relay_tunnel_ops tunnel_ops;

struct http2_stream *relay_http2_stream_new(struct http2_session *session, enum relay_kind kind)
{
    struct http2_stream *stream = calloc(1, sizeof(*stream));
    if (stream == NULL)
        return NULL;
    relay_tunnel_init(&stream->tunnel, &tunnel_ops, &session->super, session->super.loop, kind);
    relay_window_init(&stream->window, session->budget, session->super.limits);
    stream->next = session->streams;
    if (stream->next != NULL)
        stream->next->prev = stream;
    session->streams = stream;
    session->super.num_tunnels++;
    session->num_live++;
    return stream;
}

void relay_http2_stream_watch(struct http2_stream *stream)
{
    struct http2_session *session = session_of(stream);
    stream->progress_at = relay_loop_now(session->super.loop);
    if (session->message_at == 0)
        session->message_at = stream->progress_at + session->super.limits->idle_timeout;
}

static void drop_queue(struct http2_stream *stream)
{
    free(stream->queue);
    stream->queue = NULL;
    stream->queue_at = stream->queue_len = stream->queue_size = 0;
}

void relay_http2_stream_free(struct http2_stream *stream)
{
    struct http2_session *session = session_of(stream);
    if (stream->is_in_nghttp)
        nghttp2_session_set_stream_user_data(session->nghttp, stream->id, NULL);
    if (session->head != NULL && session->head->stream == stream) {
        free(session->head);
        session->head = NULL;
    }
    if (stream->prev != NULL)
        stream->prev->next = stream->next;
    else
        session->streams = stream->next;
    if (stream->next != NULL)
        stream->next->prev = stream->prev;
    if (!stream->is_ended)
        session->num_live--;
    session->super.num_tunnels--;
    relay_window_dispose(&stream->window);
    relay_tunnel_dispose(&stream->tunnel);
    drop_queue(stream);
    free(stream);
}

void relay_http2_stream_end(struct http2_stream *stream, int error)
{
    if (stream->is_ended)
        return;
    stream->is_ended = true;
    session_of(stream)->num_live--;
    relay_tunnel_closed(&stream->tunnel, error);
}

static void on_release(struct relay_tunnel *tunnel)
{
    struct http2_stream *stream = (struct http2_stream *)tunnel;
    struct http2_session *session = session_of(stream);
    relay_http2_stream_free(stream);
    if (session->super.num_tunnels == 0 && (session->dead || session->draining))
        relay_task_queue(session->super.loop, &session->event);
}

/* ---- what goes out ---- */

/* Appends, with room for a frame head before the first byte. False: out of memory. */
static bool enqueue(struct http2_stream *stream, const uint8_t *bytes, size_t len)
{
    if (stream->queue_at + stream->queue_len + len > stream->queue_size) {
        size_t need = HTTP2_FRAME_HEAD + stream->queue_len + len, size = 2048;
        while (size < need)
            size *= 2;
        uint8_t *queue = malloc(size);
        if (queue == NULL)
            return false;
        if (stream->queue_len > 0)
            memcpy(queue + HTTP2_FRAME_HEAD, stream->queue + stream->queue_at, stream->queue_len);
        free(stream->queue);
        stream->queue = queue;
        stream->queue_at = HTTP2_FRAME_HEAD;
        stream->queue_size = size;
    }
    memcpy(stream->queue + stream->queue_at + stream->queue_len, bytes, len);
    stream->queue_len += len;
    return true;
}

static void resume(struct http2_stream *stream)
{
    if (!stream->is_deferred || !stream->is_in_nghttp)
        return;
    stream->is_deferred = false;
    nghttp2_session_resume_data(session_of(stream)->nghttp, stream->id);
}

static ssize_t on_read_data(nghttp2_session *nghttp, int32_t id, uint8_t *buffer, size_t len, uint32_t *flags,
                            nghttp2_data_source *source, void *user)
{
    struct http2_stream *stream = nghttp2_session_get_stream_user_data(nghttp, id);
    if (stream == NULL || session_of(stream)->failing)
        return NGHTTP2_ERR_DEFERRED; /* released: its RST_STREAM goes first; failing: GOAWAY is the last frame
                                      */
    size_t waiting = stream->queue_len > 0 ? stream->queue_len : stream->direct_len;
    if (waiting == 0 && !stream->is_fin_out) {
        stream->is_deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (waiting > len)
        return (ssize_t)len;
    if (stream->is_fin_out)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)waiting;
}

/* Without a pointer of ours: the stream is found by its ID, so a released one is not touched. */
nghttp2_data_provider relay_http2_stream_provider(void)
{
    return (nghttp2_data_provider){.read_callback = on_read_data};
}

int relay_http2_stream_send_data(struct http2_stream *stream, const uint8_t *frame_head, size_t len)
{
    struct http2_session *session = session_of(stream);
    stream->taken += len;
    if (stream->taken >= RELAY_PROGRESS_MIN) {
        stream->taken = 0;
        stream->progress_at = relay_loop_now(session->super.loop);
    }
    if (stream->queue_len > 0) {
        relay_http2_session_write_data(session, frame_head, stream->queue + stream->queue_at, len, false);
        stream->queue_at += len;
        stream->queue_len -= len;
        if (stream->queue_len == 0)
            drop_queue(stream); /* an idle tunnel owns no buffer */
        if (stream->queue_len <=
            (stream->tunnel.kind == RELAY_KIND_MESSAGE ? MESSAGE_ROOM / 2 : WRITABLE_BELOW))
            relay_tunnel_writable(&stream->tunnel);
    } else if (len == 0) {
        relay_http2_session_write_data(session, frame_head, NULL, 0, false);
    } else {
        relay_http2_session_write_data(session, frame_head, (uint8_t *)stream->direct, len, true);
        stream->direct += len;
        stream->direct_len -= len;
    }
    return session->blocked && !session->failing ? NGHTTP2_ERR_PAUSE : 0;
}

/* What the peer's windows and the transport take at once: so much may be read at a time. A stalled stream's
 * queue stays at the initial window (T76), an ordinary message's, which costs its reader no token, at far less. */
static size_t on_room(struct relay_tunnel *tunnel)
{
    struct http2_stream *stream = (struct http2_stream *)tunnel;
    struct http2_session *session = session_of(stream);
    size_t limit = tunnel->kind == RELAY_KIND_MESSAGE ? MESSAGE_ROOM : session->super.limits->window_initial;
    if (stream->is_ended || session->dead)
        return 0;
    if (stream->is_in_nghttp && !session->blocked) {
        int32_t window = nghttp2_session_get_stream_remote_window_size(session->nghttp, stream->id);
        int32_t connection = nghttp2_session_get_remote_window_size(session->nghttp);
        size_t open = window < connection ? (window > 0 ? (size_t)window : 0)
                                          : (connection > 0 ? (size_t)connection : 0);
        size_t room = relay_stream_room(session->transport);
        open = open < room ? open : room;
        open = open < session->super.limits->window_max ? open : session->super.limits->window_max;
        limit = open > limit ? open : limit;
    }
    return stream->queue_len < limit ? limit - stream->queue_len : 0;
}

/* Borrowed bytes go straight into frames, as many as are taken now; returns the rest. */
static size_t send_direct(struct http2_stream *stream, const uint8_t *bytes, size_t len)
{
    stream->direct = bytes;
    stream->direct_len = len;
    resume(stream);
    relay_http2_session_drain(session_of(stream));
    size_t rest = stream->direct_len;
    stream->direct = NULL;
    stream->direct_len = 0;
    return rest;
}

static bool on_send(struct relay_tunnel *tunnel, const uint8_t *bytes, size_t len)
{
    struct http2_stream *stream = (struct http2_stream *)tunnel;
    struct http2_session *session = session_of(stream);
    size_t rest = len;
    if (len == 0 || stream->is_ended || session->dead)
        return true;
    if (stream->queue_len == 0 && stream->is_in_nghttp && !session->busy && !session->blocked &&
        relay_loop_is_borrowable(tunnel->loop, bytes))
        rest = send_direct(stream, bytes, len);
    if (rest > 0 && !stream->is_ended) {
        if (!enqueue(stream, bytes + (len - rest), rest)) {
            relay_tunnel_abort(tunnel, RELAY_ERR_NO_MEMORY);
            return true;
        }
        resume(stream);
        relay_http2_session_flush_later(session);
    }
    return on_room(tunnel) > 0;
}

static void on_send_fin(struct relay_tunnel *tunnel)
{
    struct http2_stream *stream = (struct http2_stream *)tunnel;
    stream->is_fin_out = true;
    if (stream->is_ended)
        return;
    resume(stream);
    relay_http2_session_flush_later(session_of(stream));
}

/* ---- heads ---- */

static int submit_response(struct http2_stream *stream, const struct relay_response *response)
{
    struct http2_session *session = session_of(stream);
    nghttp2_data_provider provider = relay_http2_stream_provider();
    bool is_tunnel = stream->tunnel.kind != RELAY_KIND_MESSAGE && response->status / 100 == 2;
    bool ends = response->ends && !is_tunnel;
    size_t count;
    nghttp2_nv *nv = relay_http2_head_write_response(response, is_tunnel, &count);
    if (nv == NULL)
        return RELAY_ERR_NO_MEMORY;
    int failed = nghttp2_submit_response(session->nghttp, stream->id, nv, count, ends ? NULL : &provider);
    free(nv);
    if (failed)
        return failed == NGHTTP2_ERR_NOMEM ? RELAY_ERR_NO_MEMORY : RELAY_ERR_CLOSED;
    stream->is_answered = true;
    stream->is_tunnel = is_tunnel;
    if (!is_tunnel) {
        relay_http2_stream_watch(stream);
        int32_t window = nghttp2_session_get_stream_local_window_size(session->nghttp, stream->id);
        relay_http2_guard_forgive(&session->guard, window > 0 ? (size_t)window : 0);
    }
    relay_http2_session_flush_later(session);
    return 0;
}

static int on_respond(struct relay_tunnel *tunnel, const struct relay_response *response)
{
    struct http2_stream *stream = (struct http2_stream *)tunnel;
    if (stream->is_ended || !stream->is_in_nghttp || session_of(stream)->dead)
        return RELAY_ERR_CLOSED;
    return submit_response(stream, response);
}

void relay_http2_stream_refuse(struct http2_stream *stream, int error, bool is_tunnel)
{
    struct relay_refusal_field proxy_status;
    struct relay_response response = {
        .status = relay_error_status(error),
        .fields = &proxy_status.field,
        .content_length = 0,
        .ends = true,
    };
    if (is_tunnel)
        response.num_fields = relay_refusal_write(&proxy_status, stream->tunnel.session->proxy_name, error);
    if (submit_response(stream, &response) != 0)
        relay_http2_stream_reset(stream, NGHTTP2_INTERNAL_ERROR);
}

/* ---- credit and endings ---- */

static void give_credit(struct http2_stream *stream, size_t len)
{
    struct http2_session *session = session_of(stream);
    if (stream->is_ended || stream->is_fin_in || !stream->is_in_nghttp || session->dead)
        return;
    size_t credit =
        relay_window_consume(&stream->window, session->super.limits, len, relay_loop_now(session->super.loop),
                             session->rtt, !stream->tunnel.is_unproven);
    if (credit == 0)
        return;
    nghttp2_submit_window_update(session->nghttp, NGHTTP2_FLAG_NONE, stream->id, (int32_t)credit);
    relay_http2_session_flush_later(session);
}

void relay_http2_stream_credit(struct http2_stream *stream, size_t len)
{
    give_credit(stream, len);
}

static void on_consume(struct relay_tunnel *tunnel, size_t len)
{
    give_credit((struct http2_stream *)tunnel, len);
}

static void on_set_reading(struct relay_tunnel *tunnel, bool reading)
{
    /* The stream's window does it: a paused tunnel is given no credit. */
}

static size_t on_max_datagram(struct relay_tunnel *tunnel, uint64_t context_id)
{
    return 0;
}

/* RFC 9113 section 7; CONNECT_ERROR is for the target's connection (section 8.5). */
static uint32_t reset_code(const struct http2_stream *stream, int error)
{
    switch (error) {
    case RELAY_ERR_RESET:
    case RELAY_ERR_CLOSED:
    case RELAY_ERR_TIMEOUT:
    case RELAY_ERR_IDLE:
    case RELAY_ERR_REFUSED:
    case RELAY_ERR_UNREACHABLE:
        return stream->tunnel.kind == RELAY_KIND_MESSAGE ? NGHTTP2_CANCEL : NGHTTP2_CONNECT_ERROR;
    case RELAY_ERR_INVALID:
    case RELAY_ERR_INCOMPLETE:
    case RELAY_ERR_TOO_BIG:
    case RELAY_ERR_PROTOCOL:
        return NGHTTP2_PROTOCOL_ERROR;
    case RELAY_ERR_LIMIT:
    case RELAY_ERR_SHUTDOWN:
        return stream->is_answered ? NGHTTP2_CANCEL : NGHTTP2_REFUSED_STREAM;
    case RELAY_ERR_EXCESSIVE_LOAD:
        return NGHTTP2_ENHANCE_YOUR_CALM;
    case RELAY_ERR_NO_MEMORY:
    case RELAY_ERR_NO_DESCRIPTORS:
    case RELAY_ERR_INTERNAL:
        return NGHTTP2_INTERNAL_ERROR;
    default:
        return NGHTTP2_CANCEL;
    }
}

void relay_http2_stream_reset(struct http2_stream *stream, uint32_t code)
{
    struct http2_session *session = session_of(stream);
    drop_queue(stream);
    if (!stream->is_in_nghttp || session->dead)
        return;
    nghttp2_submit_rst_stream(session->nghttp, NGHTTP2_FLAG_NONE, stream->id, code);
    relay_http2_session_flush_later(session);
}

static void on_abort(struct relay_tunnel *tunnel, int error)
{
    struct http2_stream *stream = (struct http2_stream *)tunnel;
    relay_http2_stream_reset(stream, reset_code(stream, error));
    relay_http2_stream_end(stream, error);
}

static const struct relay_tunnel_ops tunnel_ops = {
    .respond = on_respond,
    .room = on_room,
    .send = on_send,
    .send_fin = on_send_fin,
    .max_datagram = on_max_datagram,
    .consume = on_consume,
    .set_reading = on_set_reading,
    .abort = on_abort,
    .release = on_release,
};
