/* nghttp2's callbacks. They mark, queue, submit and hand bytes on; they never flush, close or free. */
#include "lib/net/http2_private.h"

#include <stdlib.h>

#include "lib/net/limit_log.h"
#include "lib/net/metrics.h"
#include "lib/wire/error.h"

#define SETTINGS_MAX 32              /* entries of one SETTINGS frame (T15) */
#define RTT_MIN      (10 * RELAY_MS) /* below it the turns of both loops tell more than the path */

static struct http2_stream *stream_of(nghttp2_session *nghttp, int32_t id)
{
    return nghttp2_session_get_stream_user_data(nghttp, id);
}

static struct relay_slice rcbuf_slice(nghttp2_rcbuf *rcbuf)
{
    nghttp2_vec vec = nghttp2_rcbuf_get_buf(rcbuf);
    return (struct relay_slice){(const char *)vec.base, vec.len};
}

/* ---- heads ---- */

static struct http2_stream *accept_stream(struct http2_session *session, int32_t id)
{
    struct http2_stream *stream = relay_http2_stream_new(session, RELAY_KIND_MESSAGE);
    if (stream == NULL)
        return NULL;
    stream->id = id;
    stream->is_in_nghttp = true;
    nghttp2_session_set_stream_user_data(session->nghttp, id, stream);
    /* All alike and in turns, whatever the client would like: one tunnel must not starve another (T77). */
    nghttp2_extpri priority = {.urgency = NGHTTP2_EXTPRI_DEFAULT_URGENCY, .inc = 1};
    nghttp2_session_change_extpri_stream_priority(session->nghttp, id, &priority, 1);
    return stream;
}

static int on_begin_headers(nghttp2_session *nghttp, const nghttp2_frame *frame, void *user)
{
    struct http2_session *session = user;
    bool is_request = frame->headers.cat == NGHTTP2_HCAT_REQUEST;
    struct http2_stream *stream =
        is_request ? accept_stream(session, frame->hd.stream_id) : stream_of(nghttp, frame->hd.stream_id);
    free(session->head); /* of a block that nghttp2 has refused */
    session->head = NULL;
    if (stream == NULL)
        return is_request ? NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE : 0;
    bool is_trailer = session->super.is_server ? !is_request : stream->is_answered;
    if (is_trailer || stream->is_ended)
        return 0; /* nghttp2 validates trailers; nobody needs them */
    session->head = relay_http2_head_new(stream, session->super.limits);
    return session->head != NULL ? 0 : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static int on_header(nghttp2_session *nghttp, const nghttp2_frame *frame, nghttp2_rcbuf *name,
                     nghttp2_rcbuf *value, uint8_t flags, void *user)
{
    struct http2_session *session = user;
    struct http2_head *head = session->head;
    if (head != NULL && head->stream->id == frame->hd.stream_id)
        relay_http2_head_add(head, rcbuf_slice(name), rcbuf_slice(value));
    return 0;
}

/* Without it nghttp2 would drop the field and go on. */
static int on_invalid_header(nghttp2_session *nghttp, const nghttp2_frame *frame, nghttp2_rcbuf *name,
                             nghttp2_rcbuf *value, uint8_t flags, void *user)
{
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static int on_invalid_frame(nghttp2_session *nghttp, const nghttp2_frame *frame, int error, void *user)
{
    struct http2_session *session = user;
    if (frame->hd.type == NGHTTP2_HEADERS && session->super.is_server)
        relay_count(session->super.loop->metrics->malformed, 1);
    return 0;
}

/* ---- what comes ---- */

static void on_fin_in(struct http2_stream *stream)
{
    stream->is_fin_in = true;
    if (stream->is_shown)
        relay_tunnel_deliver_fin(&stream->tunnel);
}

static void on_headers_recv(struct http2_session *session, const nghttp2_frame *frame)
{
    bool ends = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    struct http2_stream *stream = stream_of(session->nghttp, frame->hd.stream_id);
    session->active_at = relay_loop_now(session->super.loop);
    if (!session->super.is_server)
        relay_http2_watch_used(session, false);
    if (session->head != NULL && session->head->stream == stream) {
        session->head->ends = ends; /* shown with it, after nghttp2 has returned */
        session->head->is_complete = true;
    } else if (stream != NULL && ends) {
        on_fin_in(stream);
    }
}

static void on_data_recv(struct http2_session *session, const nghttp2_frame *frame)
{
    struct http2_stream *stream = stream_of(session->nghttp, frame->hd.stream_id);
    bool ends = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    if (frame->data.padlen > 0 && frame->hd.length == frame->data.padlen && !ends &&
        !relay_http2_guard_control(&session->guard, session->super.limits,
                                   relay_loop_now(session->super.loop)))
        relay_http2_session_limit(session, RELAY_LIMIT_CONTROL_FRAMES);
    if (stream == NULL)
        return;
    if (frame->data.padlen > 0)
        relay_http2_stream_credit(stream, frame->data.padlen);
    if (ends)
        on_fin_in(stream);
}

/* Rapid is only what the client did not wait for (T10): an answered request has cost its dial and its place as one
 * that ends in order, and other limits count those. One that has ended already is a frame without use. */
static void on_reset_recv(struct http2_session *session, const nghttp2_frame *frame)
{
    struct http2_stream *stream = stream_of(session->nghttp, frame->hd.stream_id);
    const struct relay_limits *limits = session->super.limits;
    uint64_t now = relay_loop_now(session->super.loop);
    if (stream != NULL)
        stream->is_reset_in = true;
    if (!session->super.is_server)
        return;
    if (stream == NULL && !relay_http2_guard_control(&session->guard, limits, now))
        relay_http2_session_limit(session, RELAY_LIMIT_CONTROL_FRAMES);
    else if (stream != NULL && !stream->is_head_sent &&
             !relay_http2_guard_reset(&session->guard, limits, now))
        relay_http2_session_limit(session, RELAY_LIMIT_RESETS);
}

static void on_settings_recv(struct http2_session *session, const nghttp2_frame *frame)
{
    if (!(frame->hd.flags & NGHTTP2_FLAG_ACK)) {
        session->is_settings_in = true;
        session->super.has_no_capsules = nghttp2_session_get_remote_settings(
                                             session->nghttp, NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL) != 1;
    } else if (session->settings_at != 0) {
        uint64_t rtt = relay_loop_now(session->super.loop) - session->settings_at;
        session->rtt = rtt > RTT_MIN ? rtt : RTT_MIN;
        session->settings_at = 0;
    }
}

static int on_frame_recv(nghttp2_session *nghttp, const nghttp2_frame *frame, void *user)
{
    struct http2_session *session = user;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        on_headers_recv(session, frame);
        break;
    case NGHTTP2_DATA:
        on_data_recv(session, frame);
        break;
    case NGHTTP2_RST_STREAM:
        on_reset_recv(session, frame);
        break;
    case NGHTTP2_SETTINGS:
        on_settings_recv(session, frame);
        break;
    case NGHTTP2_GOAWAY:
        session->is_goaway_in = true;
        session->super.peer_code = frame->goaway.error_code;
        break;
    default:
        break;
    }
    return 0;
}

static int on_data_chunk(nghttp2_session *nghttp, uint8_t flags, int32_t id, const uint8_t *bytes, size_t len,
                         void *user)
{
    struct http2_session *session = user;
    struct http2_stream *stream = stream_of(nghttp, id);
    if (!session->super.is_server) {
        session->active_at = relay_loop_now(session->super.loop);
        relay_http2_watch_used(session, false);
    }
    /* The connection's window is never what holds a peer back: else one stalled tunnel would stop the others.
     */
    nghttp2_session_consume_connection(nghttp, len);
    if (stream == NULL)
        return 0;
    bool is_refused = session->super.is_server && stream->is_answered && !stream->is_tunnel &&
                      stream->tunnel.kind != RELAY_KIND_MESSAGE;
    if (stream->is_shown && !is_refused)
        relay_tunnel_deliver(&stream->tunnel, (uint8_t *)bytes, len);
    else
        relay_http2_stream_credit(stream, len);
    return 0;
}

/* ---- what went ---- */

/* A stream error of the peer's making, by the code that we answered (T11). */
static bool is_peers_fault(uint32_t code)
{
    return code != NGHTTP2_NO_ERROR && code != NGHTTP2_CANCEL && code != NGHTTP2_CONNECT_ERROR &&
           code != NGHTTP2_INTERNAL_ERROR;
}

static void on_reset_sent(struct http2_session *session, int32_t id, uint32_t code)
{
    int32_t window = nghttp2_session_get_stream_local_window_size(session->nghttp, id);
    relay_http2_guard_forgive(&session->guard,
                              window >= 0 ? (size_t)window : session->super.limits->window_initial);
    if (!session->super.is_server || !is_peers_fault(code) ||
        relay_http2_guard_own_reset(&session->guard, session->super.limits,
                                    relay_loop_now(session->super.loop)))
        return;
    relay_http2_session_limit(session, RELAY_LIMIT_OWN_RESETS);
}

static void on_head_sent(struct http2_session *session, int32_t id)
{
    struct http2_stream *stream = stream_of(session->nghttp, id);
    if (stream != NULL)
        stream->is_head_sent = true;
}

static void on_fin_sent(struct http2_session *session, int32_t id)
{
    struct http2_stream *stream = stream_of(session->nghttp, id);
    if (stream == NULL)
        return;
    stream->is_fin_sent = true;
    /* The response is complete and the request is not: the peer need not send the rest (RFC 9113
     * section 8.1). */
    if (session->super.is_server && !stream->is_fin_in && !stream->is_tunnel)
        nghttp2_submit_rst_stream(session->nghttp, NGHTTP2_FLAG_NONE, id, NGHTTP2_NO_ERROR);
}

static int on_frame_send(nghttp2_session *nghttp, const nghttp2_frame *frame, void *user)
{
    struct http2_session *session = user;
    bool is_data = frame->hd.type == NGHTTP2_DATA;
    if (frame->hd.type == NGHTTP2_RST_STREAM)
        on_reset_sent(session, frame->hd.stream_id, frame->rst_stream.error_code);
    else if (frame->hd.type == NGHTTP2_GOAWAY)
        session->goaway_code = frame->goaway.error_code;
    if (frame->hd.type == NGHTTP2_HEADERS)
        on_head_sent(session, frame->hd.stream_id);
    if ((is_data || frame->hd.type == NGHTTP2_HEADERS) && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
        on_fin_sent(session, frame->hd.stream_id);
    if (!session->super.is_server && (is_data || frame->hd.type == NGHTTP2_HEADERS))
        relay_http2_watch_used(session, true);
    if (is_data && frame->hd.length > 0) {
        session->active_at = relay_loop_now(session->super.loop);
        relay_http2_guard_sent_data(&session->guard, frame->hd.length);
    }
    return 0;
}

static int close_error(const struct http2_stream *stream, uint32_t code)
{
    bool is_server = stream->tunnel.session->is_server;
    bool is_whole = stream->is_fin_in && stream->is_fin_sent;
    /* NO_ERROR behind a complete response of an ordinary message (RFC 9113 section 8.1). */
    bool is_answer_whole = !stream->is_tunnel && (is_server ? stream->is_fin_sent : stream->is_fin_in);
    if (code == NGHTTP2_NO_ERROR && (is_whole || is_answer_whole))
        return RELAY_OK;
    if (code == NGHTTP2_REFUSED_STREAM)
        return RELAY_ERR_LIMIT;
    if (stream->is_reset_in || code == NGHTTP2_NO_ERROR)
        return RELAY_ERR_RESET;
    return RELAY_ERR_PROTOCOL;
}

static int on_stream_close(nghttp2_session *nghttp, int32_t id, uint32_t code, void *user)
{
    struct http2_session *session = user;
    struct http2_stream *stream = stream_of(nghttp, id);
    if (stream == NULL)
        return 0;
    stream->is_in_nghttp = false;
    session->active_at = relay_loop_now(session->super.loop);
    if (session->head != NULL && session->head->stream == stream && session->head->is_complete) {
        stream->is_fin_in = session->head->ends; /* the head is the last frame: shown first */
        session->head->is_last = true;
        session->head->close_error = close_error(stream, code);
    } else {
        relay_http2_stream_end(stream, close_error(stream, code));
    }
    return 0;
}

static int on_send_data(nghttp2_session *nghttp, nghttp2_frame *frame, const uint8_t *frame_head, size_t len,
                        nghttp2_data_source *source, void *user)
{
    struct http2_stream *stream = stream_of(nghttp, frame->hd.stream_id);
    return stream != NULL ? relay_http2_stream_send_data(stream, frame_head, len)
                          : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static ssize_t on_data_length(nghttp2_session *nghttp, uint8_t type, int32_t id, int32_t connection_window,
                              int32_t stream_window, uint32_t max_frame, void *user)
{
    int32_t len = connection_window < stream_window ? connection_window : stream_window;
    if (len > HTTP2_DATA_MAX)
        len = HTTP2_DATA_MAX;
    return (uint32_t)len < max_frame ? len : (ssize_t)max_frame;
}

/* ---- making it ---- */

static void set_callbacks(nghttp2_session_callbacks *callbacks)
{
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback2(callbacks, on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback2(callbacks, on_invalid_header);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_session_callbacks_set_send_data_callback(callbacks, on_send_data);
    nghttp2_session_callbacks_set_data_source_read_length_callback(callbacks, on_data_length);
}

static void set_options(nghttp2_option *option)
{
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_option_set_max_outbound_ack(option, HTTP2_ACKS_MAX);
    nghttp2_option_set_max_settings(option, SETTINGS_MAX);
}

nghttp2_session *relay_http2_frames_new(struct http2_session *session)
{
    nghttp2_session *nghttp = NULL;
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_option *option = NULL;
    if (nghttp2_session_callbacks_new(&callbacks) != 0 || nghttp2_option_new(&option) != 0)
        goto Exit;
    set_callbacks(callbacks);
    set_options(option);
    int failed = session->super.is_server ? nghttp2_session_server_new2(&nghttp, callbacks, session, option)
                                          : nghttp2_session_client_new2(&nghttp, callbacks, session, option);
    if (failed)
        nghttp = NULL;
Exit:
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    return nghttp;
}
