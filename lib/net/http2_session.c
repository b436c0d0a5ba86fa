#include "lib/net/http2_private.h"

#include <stdlib.h>
#include <string.h>

#include "lib/net/limit_log.h"
#include "lib/net/metrics.h"
#include "lib/wire/error.h"

/* Of each stream that the peer may have: an answer's head, a reset, and WINDOW_UPDATEs, of which the connection's
 * window sets how many there are. */
#define ANSWERS_PER_STREAM 4

/* Of one connection's frames so many are taken in every turn, and so many more between two looks at the clock. Full
 * ones of a tunnel fill no read with them. */
#define FRAMES_AT_ONCE 64
/* What one read takes of a peer that sends more frames than a turn has time for. */
#define READ_AT_ONCE (64 * 1024)

static struct http2_session *session_of_task(struct relay_task *task, size_t offset)
{
    return (struct http2_session *)((char *)task - offset);
}

/* ---- the end ---- */

static uint32_t goaway_code(int error)
{
    switch (error) {
    case RELAY_OK:
    case RELAY_ERR_IDLE:
    case RELAY_ERR_SHUTDOWN:
    case RELAY_ERR_CANCELLED:
    case RELAY_ERR_CLOSED:
        return NGHTTP2_NO_ERROR;
    case RELAY_ERR_EXCESSIVE_LOAD:
    case RELAY_ERR_LIMIT:
        return NGHTTP2_ENHANCE_YOUR_CALM;
    case RELAY_ERR_TIMEOUT:
        return NGHTTP2_SETTINGS_TIMEOUT;
    case RELAY_ERR_NO_MEMORY:
    case RELAY_ERR_INTERNAL:
        return NGHTTP2_INTERNAL_ERROR;
    default:
        return NGHTTP2_PROTOCOL_ERROR;
    }
}

void relay_http2_session_fail(struct http2_session *session, int error)
{
    if (session->failing || session->dead)
        return;
    session->failing = true;
    session->error = error;
    nghttp2_session_terminate_session(session->nghttp, goaway_code(error));
    relay_task_queue(session->super.loop, &session->flush);
}

void relay_http2_session_limit(struct http2_session *session, enum relay_limit limit)
{
    if (session->failing || session->dead)
        return;
    if (session->super.is_server)
        relay_limit_log(session->super.loop, limit);
    relay_http2_session_fail(session, RELAY_ERR_EXCESSIVE_LOAD);
}

static void end(struct http2_session *session, int error, void (*ending)(struct relay_stream *))
{
    if (session->dead)
        return;
    session->dead = true;
    session->error = error;
    relay_timer_stop(session->super.loop, &session->timer);
    relay_task_cancel(&session->flush);
    ending(session->transport);
    session->transport = NULL;
    for (struct http2_stream *stream = session->streams; stream != NULL; stream = stream->next)
        relay_http2_stream_end(stream, error != RELAY_OK ? error : RELAY_ERR_RESET);
    relay_task_queue(session->super.loop, &session->event);
}

void relay_http2_session_end(struct http2_session *session, int error)
{
    end(session, error, relay_stream_release);
}

void relay_http2_session_free(struct http2_session *session)
{
    relay_task_cancel(&session->event);
    relay_task_cancel(&session->flush);
    relay_timer_stop(session->super.loop, &session->timer);
    while (session->streams != NULL)
        relay_http2_stream_free(session->streams);
    free(session->head);
    free(session->kept);
    nghttp2_session_del(session->nghttp);
    free(session);
}

/* ---- what goes out ---- */

static void write_bytes(struct http2_session *session, const uint8_t *bytes, size_t len)
{
    if (relay_stream_send(session->transport, bytes, len) || session->blocked)
        return;
    session->blocked = true;
    session->blocked_at = relay_loop_now(session->super.loop);
}

void relay_http2_session_write_data(struct http2_session *session, const uint8_t *frame_head, uint8_t *bytes,
                                    size_t len, bool borrowed)
{
    if (len == 0 || (borrowed && session->super.is_clear)) {
        /* A clear stream may itself have borrowed the bytes before ours. */
        write_bytes(session, frame_head, HTTP2_FRAME_HEAD);
        if (len > 0)
            write_bytes(session, bytes, len);
        return;
    }
    /* Head and payload in one piece make one TLS record. TLS has read the bytes when send returns, so what
     * stood before them comes back and whoever else looks at them sees no change. */
    uint8_t *piece = bytes - HTTP2_FRAME_HEAD, saved[HTTP2_FRAME_HEAD];
    memcpy(saved, piece, HTTP2_FRAME_HEAD);
    memcpy(piece, frame_head, HTTP2_FRAME_HEAD);
    write_bytes(session, piece, HTTP2_FRAME_HEAD + len);
    memcpy(piece, saved, HTTP2_FRAME_HEAD);
}

void relay_http2_session_drain(struct http2_session *session)
{
    if (session->busy)
        return;
    while (!session->dead && (!session->blocked || session->failing)) {
        const uint8_t *bytes;
        session->busy = true;
        ssize_t len = nghttp2_session_mem_send(session->nghttp, &bytes);
        session->busy = false;
        if (len < 0)
            end(session, RELAY_ERR_NO_MEMORY, relay_stream_close);
        if (len <= 0)
            return;
        write_bytes(session, bytes, (size_t)len);
    }
}

void relay_http2_session_flush_later(struct http2_session *session)
{
    if (!session->dead)
        relay_task_queue(session->super.loop, &session->flush);
}

static void on_flush(struct relay_task *task)
{
    struct http2_session *session = session_of_task(task, offsetof(struct http2_session, flush));
    relay_http2_session_drain(session);
    if (session->dead)
        return;
    if (session->failing)
        relay_http2_session_end(session, session->error);
    else if (!nghttp2_session_want_read(session->nghttp) && !nghttp2_session_want_write(session->nghttp))
        relay_http2_session_end(session, session->goaway_code != 0 ? RELAY_ERR_PROTOCOL : RELAY_OK);
}

/* ---- timers: one, looked at lazily ---- */

/* Something is under way that has a timer of its own further up: a dial, a tunnel, a request at its handler.
 */
static bool is_busy_stream(const struct http2_stream *stream)
{
    if (stream->is_ended)
        return false;
    return stream->tunnel.kind == RELAY_KIND_MESSAGE ? stream->is_fin_in && !stream->is_answered
                                                     : stream->is_tunnel || !stream->is_answered;
}

static bool has_busy_stream(const struct http2_session *session)
{
    for (const struct http2_stream *stream = session->streams; stream != NULL; stream = stream->next)
        if (is_busy_stream(stream))
            return true;
    return false;
}

static uint64_t next_deadline(const struct http2_session *session)
{
    const struct relay_limits *limits = session->super.limits;
    uint64_t at = session->active_at + limits->idle_timeout;
    if (session->partial_at != 0 && session->partial_at + limits->head_timeout < at)
        at = session->partial_at + limits->head_timeout;
    if (session->settings_at != 0 && session->settings_at + limits->idle_timeout < at)
        at = session->settings_at + limits->idle_timeout;
    if (session->blocked_at != 0 && session->blocked_at + limits->idle_timeout < at)
        at = session->blocked_at + limits->idle_timeout;
    if (session->final_at != 0 && session->final_at < at)
        at = session->final_at;
    if (session->message_at != 0 && session->message_at < at)
        at = session->message_at;
    uint64_t watched = relay_http2_watch_due(session);
    return watched < at ? watched : at;
}

void relay_http2_session_arm(struct http2_session *session)
{
    if (!session->dead)
        relay_timer_set(session->super.loop, &session->timer, next_deadline(session));
}

void relay_http2_session_goaway(struct http2_session *session)
{
    session->final_at = 0;
    nghttp2_submit_goaway(session->nghttp, NGHTTP2_FLAG_NONE,
                          nghttp2_session_get_last_proc_stream_id(session->nghttp), NGHTTP2_NO_ERROR, NULL,
                          0);
    relay_task_queue(session->super.loop, &session->event);
    relay_http2_session_flush_later(session);
}

/* A request whose end does not come, however busy the rest of the connection is, and an answer that is not read. */
static void expire_messages(struct http2_session *session, uint64_t now)
{
    session->message_at = 0;
    for (struct http2_stream *stream = session->streams; stream != NULL; stream = stream->next) {
        uint64_t at = stream->progress_at + session->super.limits->idle_timeout;
        if (!stream->is_shown || stream->is_ended || is_busy_stream(stream))
            continue;
        if (at <= now)
            relay_tunnel_abort(&stream->tunnel, RELAY_ERR_IDLE);
        else if (session->message_at == 0 || at < session->message_at)
            session->message_at = at;
    }
}

/* Nothing goes on, or nothing of it is read (T13): its requests alone do not keep a connection. A tunnel may stall. */
static void expire_idle(struct http2_session *session, uint64_t now)
{
    uint64_t timeout = session->super.limits->idle_timeout;
    bool is_blocked = session->blocked_at != 0 && now >= session->blocked_at + timeout;
    if (!is_blocked && now < session->active_at + timeout)
        return;
    if (!has_busy_stream(session)) {
        relay_http2_session_fail(session, RELAY_ERR_IDLE);
        return;
    }
    session->active_at = now;
    if (is_blocked)
        session->blocked_at = now;
}

static void on_timer(struct relay_timer *timer)
{
    struct http2_session *session =
        (struct http2_session *)((char *)timer - offsetof(struct http2_session, timer));
    const struct relay_limits *limits = session->super.limits;
    uint64_t now = relay_loop_now(session->super.loop);
    if (session->partial_at != 0 && now >= session->partial_at + limits->head_timeout)
        relay_http2_session_fail(session, RELAY_ERR_TIMEOUT);
    else if (session->settings_at != 0 && now >= session->settings_at + limits->idle_timeout)
        relay_http2_session_fail(session, RELAY_ERR_TIMEOUT);
    else
        expire_idle(session, now);
    if (session->final_at != 0 && now >= session->final_at)
        relay_http2_session_goaway(session);
    if (session->message_at != 0 && now >= session->message_at && !session->failing)
        expire_messages(session, now);
    if (!session->failing && !relay_http2_watch(session, now))
        end(session, RELAY_ERR_IDLE, relay_stream_close);
    relay_http2_session_arm(session);
}

/* ---- what comes in ---- */

static void show_request(struct http2_session *session, struct http2_head *head)
{
    struct http2_stream *stream = head->stream;
    struct relay_metrics *metrics = session->super.loop->metrics;
    struct relay_request request;
    int error = relay_http2_head_request(head, session->super.is_clear, &request);
    relay_count(metrics->requests_h2, 1);
    stream->is_fin_in = head->ends;
    if (error != 0)
        relay_count(metrics->malformed, 1);
    if (error == RELAY_ERR_TOO_BIG) {
        relay_http2_stream_refuse(stream, error, relay_slice_is(head->method, "CONNECT"));
        if (!relay_http2_guard_own_reset(&session->guard, session->super.limits,
                                         relay_loop_now(session->super.loop)))
            relay_http2_session_limit(session, RELAY_LIMIT_OWN_RESETS);
        return;
    }
    if (error != 0) {
        relay_http2_stream_reset(stream, NGHTTP2_PROTOCOL_ERROR);
        return;
    }
    stream->tunnel.kind = request.kind;
    stream->is_shown = true;
    if (request.kind == RELAY_KIND_MESSAGE)
        relay_http2_stream_watch(stream);
    session->super.cb->on_request(session->super.user, &stream->tunnel, &request);
    if (request.ends)
        relay_tunnel_deliver_fin(&stream->tunnel);
}

static void show_response(struct http2_session *session, struct http2_head *head)
{
    struct http2_stream *stream = head->stream;
    struct relay_response response;
    int error = relay_http2_head_response(head, stream->tunnel.kind, &response);
    if (error != 0) {
        relay_http2_stream_reset(stream, NGHTTP2_PROTOCOL_ERROR);
        relay_http2_stream_end(stream, error == RELAY_ERR_TOO_BIG ? error : RELAY_ERR_PROTOCOL);
        return;
    }
    if (response.status / 100 == 1)
        return;
    stream->is_answered = true;
    stream->is_tunnel = stream->tunnel.kind != RELAY_KIND_MESSAGE && response.status / 100 == 2;
    if (!stream->is_tunnel)
        stream->tunnel.kind = RELAY_KIND_MESSAGE; /* what follows is a body, no capsules */
    stream->is_fin_in = response.ends;
    relay_tunnel_deliver_response(&stream->tunnel, &response);
    if (response.ends)
        relay_tunnel_deliver_fin(&stream->tunnel);
}

/* Frames wait that the peer's frames have made (heads, RST_STREAM, WINDOW_UPDATE, ACKs), more than a peer that reads
 * can bring about (T13). nghttp2 makes many of them itself and has no limit of its own but for the ACKs. */
static bool is_flooded(const struct http2_session *session)
{
    return session->super.is_server && nghttp2_session_get_outbound_queue_size(session->nghttp) >
                                           HTTP2_ACKS_MAX + (size_t)ANSWERS_PER_STREAM * session->max_streams;
}

/* nghttp2 has returned from one frame: tell what it brought. */
static void after_frame(struct http2_session *session)
{
    struct http2_head *head = session->head;
    if (head != NULL && head->is_complete) {
        session->head = NULL;
        if (session->failing || head->stream->is_ended)
            ; /* nobody is told any more */
        else if (session->super.is_server)
            show_request(session, head);
        else
            show_response(session, head);
        if (head->is_last)
            relay_http2_stream_end(head->stream, head->close_error);
        free(head);
    }
    if (session->is_settings_in && !session->is_ready_told && !session->dead) {
        session->is_ready_told = true;
        if (!session->super.is_server)
            session->super.cb->on_ready(session->super.user);
    }
    if (session->is_goaway_in && !session->is_goaway_told && !session->dead) {
        session->is_goaway_told = true;
        if (!session->super.is_server && session->super.cb->on_goaway != NULL)
            session->super.cb->on_goaway(session->super.user);
    }
}

static void feed_frame(struct http2_session *session, const uint8_t *bytes, size_t len)
{
    session->busy = true;
    ssize_t taken = nghttp2_session_mem_recv(session->nghttp, bytes, len);
    session->busy = false;
    if (taken == NGHTTP2_ERR_FLOODED) {
        if (session->super.is_server)
            relay_limit_log(session->super.loop, RELAY_LIMIT_CONTROL_FRAMES);
        end(session, RELAY_ERR_EXCESSIVE_LOAD, relay_stream_close);
    } else if (taken < 0) {
        end(session, taken == NGHTTP2_ERR_NOMEM ? RELAY_ERR_NO_MEMORY : RELAY_ERR_PROTOCOL,
            relay_stream_close);
    } else {
        after_frame(session);
    }
}

/* Server: nothing is wanted any more of what comes on this stream: it has ended, or its request is answered. */
static bool is_late(const struct http2_session *session, const struct http2_stream *stream, uint32_t id)
{
    if (stream != NULL)
        return stream->is_ended || !stream->is_shown || (stream->is_answered && !stream->is_tunnel);
    return session->guard.head[3] != NGHTTP2_HEADERS || id <= session->past.last; /* else a new one */
}

/* False: the frame that begins here ends the connection. */
static bool judge_stream(struct http2_session *session, uint64_t now)
{
    const uint8_t *head = session->guard.head;
    if (!session->super.is_server || !session->guard.has_begun)
        return true;
    uint32_t id = (uint32_t)head[5] << 24 | (uint32_t)head[6] << 16 | (uint32_t)head[7] << 8 | head[8];
    id &= INT32_MAX; /* the first bit is reserved */
    const struct http2_stream *stream = nghttp2_session_get_stream_user_data(session->nghttp, (int32_t)id);
    if (!relay_http2_guard_late(&session->guard, session->super.limits, is_late(session, stream, id), now)) {
        relay_http2_session_limit(session, RELAY_LIMIT_CONTROL_FRAMES);
        return false;
    }
    uint32_t code = relay_http2_past_judge(&session->past, head, id, stream != NULL);
    if (code == NGHTTP2_NO_ERROR)
        return true;
    nghttp2_session_terminate_session(session->nghttp, code); /* the first code is the one that is sent */
    relay_http2_session_fail(session, RELAY_ERR_PROTOCOL);
    return false;
}

/* Frame by frame, so that a request is shown before its DATA comes, and so that nothing is parsed behind a
 * frame too many. Returns how much it took: a connection of many small frames waits for the next turn when this one
 * has taken its time, and the others' bytes are looked at. */
static size_t feed(struct http2_session *session, const uint8_t *bytes, size_t len)
{
    uint64_t now = relay_loop_now(session->super.loop);
    size_t at = 0;
    for (unsigned frames = 1; at < len && !session->dead && !session->failing; frames++) {
        size_t taken;
        if (relay_http2_guard_walk(&session->guard, session->super.limits, bytes + at, len - at, now,
                                   &taken) != 0) {
            relay_http2_session_limit(session, RELAY_LIMIT_CONTROL_FRAMES);
            break;
        }
        if (!judge_stream(session, now))
            break;
        feed_frame(session, bytes + at, taken);
        at += taken;
        if (!session->dead && is_flooded(session))
            relay_http2_session_limit(session, RELAY_LIMIT_CONTROL_FRAMES);
        if (frames % FRAMES_AT_ONCE == 0 && session->super.is_server &&
            !relay_loop_has_time(session->super.loop))
            break;
    }
    if (session->dead)
        return len;
    bool is_partial = relay_http2_guard_is_partial(&session->guard);
    if (!is_partial || session->partial_at == 0)
        session->partial_at = is_partial ? now : 0;
    if (nghttp2_session_want_write(session->nghttp) || !nghttp2_session_want_read(session->nghttp))
        relay_http2_session_flush_later(session);
    relay_http2_session_arm(session);
    return session->failing ? len : at;
}

int relay_http2_session_keep(struct http2_session *session, const uint8_t *bytes, size_t len)
{
    uint8_t *kept = malloc(RELAY_HEADROOM + session->kept_len + len);
    if (kept == NULL)
        return RELAY_ERR_NO_MEMORY;
    if (session->kept_len > 0)
        memcpy(kept + RELAY_HEADROOM, session->kept + RELAY_HEADROOM + session->kept_at, session->kept_len);
    memcpy(kept + RELAY_HEADROOM + session->kept_len, bytes, len);
    free(session->kept);
    session->kept = kept;
    session->kept_at = 0;
    session->kept_len += len;
    return RELAY_OK;
}

/* What is kept is fed in the next turns, and until then the peer waits. */
static void wait_turn(struct http2_session *session)
{
    session->transport->read_max = READ_AT_ONCE;
    relay_stream_pause(session->transport);
    relay_task_defer(session->super.loop, &session->event);
}

static void feed_kept(struct http2_session *session)
{
    if (session->kept == NULL)
        return;
    size_t taken = feed(session, session->kept + RELAY_HEADROOM + session->kept_at, session->kept_len);
    session->kept_at += taken;
    session->kept_len -= taken;
    if (session->kept_len > 0) {
        wait_turn(session);
        return;
    }
    free(session->kept);
    session->kept = NULL;
    if (!session->dead)
        relay_stream_resume(session->transport);
}

static void on_bytes(void *user, uint8_t *bytes, size_t len)
{
    struct http2_session *session = user;
    relay_http2_watch_heard(session);
    feed_kept(session);
    size_t taken = session->kept == NULL ? feed(session, bytes, len) : 0;
    if (session->dead)
        return;
    if (taken == len) {
        if (session->transport->read_max != 0) {
            session->transport->read_max = 0;
            relay_stream_resume(session->transport); /* under TLS it counts from here on */
        }
        return;
    }
    if (relay_http2_session_keep(session, bytes + taken, len - taken) == 0)
        wait_turn(session);
    else
        end(session, RELAY_ERR_NO_MEMORY, relay_stream_close);
}

static void on_fin(void *user)
{
    struct http2_session *session = user;
    while (session->kept != NULL)
        feed_kept(session);
    relay_http2_session_end(session, session->num_live > 0 ? RELAY_ERR_RESET : RELAY_OK);
}

static void on_writable(void *user)
{
    struct http2_session *session = user;
    session->blocked = false;
    session->blocked_at = 0;
    relay_http2_session_flush_later(session);
}

static void on_transport_close(void *user, int error)
{
    end(user, error, relay_stream_close);
}

static void on_transport_ready(void *user)
{
    /* It was ready before we came. */
}

const struct relay_stream_user relay_http2_transport_user = {
    .on_ready = on_transport_ready,
    .on_bytes = on_bytes,
    .on_fin = on_fin,
    .on_writable = on_writable,
    .on_close = on_transport_close,
};

static void on_event(struct relay_task *task)
{
    struct http2_session *session = session_of_task(task, offsetof(struct http2_session, event));
    feed_kept(session);
    if (session->draining && !session->dead && session->final_at == 0 && session->streams == NULL)
        relay_http2_session_fail(session, RELAY_OK);
    if (!session->dead || session->streams != NULL)
        return;
    const struct relay_session_user *cb = session->super.cb;
    void *user = session->super.user;
    int error = session->error;
    cb->on_close(user, error);
    relay_http2_session_free(session);
}

void relay_http2_session_init_tasks(struct http2_session *session, enum relay_level level)
{
    relay_task_init(&session->event, RELAY_LEVEL_EVENT, on_event);
    relay_task_init(&session->flush, level, on_flush);
    relay_timer_init(&session->timer, on_timer);
}
