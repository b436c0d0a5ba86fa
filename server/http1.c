#include "server/http1_private.h"

#include <stdlib.h>
#include <string.h>

#include "lib/net/metrics.h"
#include "lib/net/refusal.h"
#include "lib/wire/error.h"

#define WAITING_MAX                                                                                          \
    (64 * 1024) /* bytes behind a request that wait for its response; then reading stops (T04) */

/* What one read of a tunnel brings must be copied when its target stalls: little, until it is known to read
 * (T76). */
#define FIRST_READS (48 * 1024)

static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";

/* Before the answer a pause holds bytes back in `in` and reading goes on: only so is the peer's end seen
 * while its target is looked for (T28). */
void relay_http1_update_reading(struct relay_http1 *h)
{
    if (h->state == RELAY_HTTP1_AT_END)
        return;
    size_t most = h->super.limits->head_bytes > WAITING_MAX ? h->super.limits->head_bytes + 1 : WAITING_MAX;
    h->stream->read_max = h->state == RELAY_HTTP1_AT_TUNNEL && h->tunnel.is_unproven ? FIRST_READS : 0;
    if ((h->user_paused && h->state != RELAY_HTTP1_AT_ANSWER) || h->in.len >= most)
        relay_stream_pause(h->stream);
    else
        relay_stream_resume(h->stream);
}

/* ---- the end ---- */

/* After the stream has had its ending. on_close comes from the task, behind the tunnel's. */
static void ended(struct relay_http1 *h, int error)
{
    h->state = RELAY_HTTP1_AT_END;
    h->stream = NULL;
    h->error = error;
    relay_timer_stop(h->super.loop, &h->timer);
    relay_buffer_dispose(&h->in);
    if (h->has_tunnel)
        relay_tunnel_closed(&h->tunnel, error);
    else
        relay_task_queue(h->super.loop, &h->task);
}

void relay_http1_end(struct relay_http1 *h, int error)
{
    if (h->state == RELAY_HTTP1_AT_END)
        return;
    relay_stream_release(h->stream);
    ended(h, error);
}

void relay_http1_reset(struct relay_http1 *h, int error)
{
    if (h->state == RELAY_HTTP1_AT_END)
        return;
    relay_stream_reset(h->stream);
    ended(h, error);
}

/* What Proxy-Status says of a refusal of ours. Nothing of 400: who framed the request so that it is
 * ambiguous may be another than who reads the answer. */
static int proxy_error(int status)
{
    switch (status) {
    case 408:
        return RELAY_ERR_INCOMPLETE;
    case 431:
        return RELAY_ERR_TOO_BIG;
    case 505:
        return RELAY_ERR_UNSUPPORTED;
    default:
        return RELAY_OK;
    }
}

static void refuse(struct relay_http1 *h, int status, int error)
{
    struct relay_response response = {.status = status, .content_length = -1, .ends = true};
    struct relay_refusal_field proxy_status;
    bool is_tunnel = h->state == RELAY_HTTP1_AT_HEAD &&
                     relay_http1_head_is_tunnel((char *)relay_buffer_bytes(&h->in), h->in.len);
    if (is_tunnel)
        response.num_fields = relay_refusal_write(&proxy_status, h->super.proxy_name, proxy_error(status));
    response.fields = &proxy_status.field;
    struct relay_http1_context context = {.kind = RELAY_KIND_MESSAGE, .minor_version = 1};
    enum relay_http1_framing framing;
    struct relay_buffer out = {0};
    if (status != 408)
        relay_count(h->super.loop->metrics->malformed, 1);
    if (relay_http1_response_write(&out, &response, &context, &framing) == RELAY_OK)
        relay_stream_send(h->stream, relay_buffer_bytes(&out), out.len);
    relay_buffer_dispose(&out);
    relay_http1_end(h, error);
}

/* Bytes that break the protocol while a request is open: an answer is still possible only before the response
 * began. */
static void fail(struct relay_http1 *h, int error)
{
    if (h->responded)
        relay_http1_reset(h, error);
    else
        refuse(h, 400, error);
}

bool relay_http1_is_last(const struct relay_http1 *h)
{
    return h->fin_seen && h->in.len <= h->told;
}

/* Both directions of a tunnel, or the response of a message, have ended. */
void relay_http1_finish_if_done(struct relay_http1 *h)
{
    if (h->state == RELAY_HTTP1_AT_END || !h->has_tunnel || !h->out_done)
        return;
    if (h->state == RELAY_HTTP1_AT_TUNNEL && !h->in_done)
        return;
    if (h->state == RELAY_HTTP1_AT_TUNNEL || !h->in_done || !h->context.keep_alive)
        relay_http1_end(h, RELAY_OK); /* a body that nobody waits for is discarded with the connection */
    else
        relay_tunnel_closed(&h->tunnel, RELAY_OK);
}

/* ---- the request ---- */

void relay_http1_await_request(struct relay_http1 *h)
{
    h->state = RELAY_HTTP1_AT_HEAD;
    relay_timer_set_after(h->super.loop, &h->timer,
                          h->in.len > 0 ? h->super.limits->head_timeout : h->super.limits->idle_timeout);
}

static void end_of_request(struct relay_http1 *h)
{
    h->in_done = true;
    h->state = RELAY_HTTP1_AT_ANSWER;
    if (!h->responded)
        relay_timer_stop(h->super.loop, &h->timer);
    relay_tunnel_deliver_fin(&h->tunnel);
    relay_http1_finish_if_done(h);
}

/* A client that has read the challenge sends its CONNECT again, with credentials. Anything else was on its way when the
 * challenge was, to a target (T04). */
static bool is_repetition(const struct relay_request *request)
{
    bool has_credentials = false;
    for (size_t i = 0; i < request->num_fields; i++)
        has_credentials |= relay_slice_is(request->fields[i].name, "proxy-authorization") ||
                           relay_slice_is(request->fields[i].name, "authorization");
    return request->kind == RELAY_KIND_BYTES && has_credentials;
}

static void begin_request(struct relay_http1 *h, const struct relay_http1_head *head)
{
    enum relay_kind kind = head->request.kind;
    if (h->is_challenged && !is_repetition(&head->request)) {
        relay_http1_end(h, RELAY_ERR_PROTOCOL);
        return;
    }
    h->is_challenged = false;
    if (kind == RELAY_KIND_BYTES && h->in.len > head->len) {
        refuse(h, 400,
               RELAY_ERR_PROTOCOL); /* they would be read as a request if the CONNECT were refused (T04) */
        return;
    }
    h->context = (struct relay_http1_context){.kind = kind,
                                              .is_head = relay_slice_is(head->request.method, "HEAD"),
                                              .minor_version = head->minor_version,
                                              .keep_alive = head->keep_alive && !h->is_shutdown};
    h->responded = h->out_done = h->user_paused = false;
    h->in_done = head->request.ends;
    h->body = head->body;
    h->chunked = (struct relay_http1_chunked){0};
    h->body_left = head->body == RELAY_HTTP1_LENGTH ? (uint64_t)head->request.content_length : 0;
    h->state = head->body == RELAY_HTTP1_NO_BODY ? RELAY_HTTP1_AT_ANSWER : RELAY_HTTP1_AT_BODY;
    h->has_tunnel = true;
    h->super.num_tunnels = 1;
    relay_count(h->super.loop->metrics->requests_h1, 1);
    relay_tunnel_init(&h->tunnel, &relay_http1_tunnel_ops, &h->super, h->super.loop, kind);
    if (h->state == RELAY_HTTP1_AT_ANSWER)
        relay_timer_stop(h->super.loop, &h->timer);
    else
        relay_timer_set_after(h->super.loop, &h->timer, h->super.limits->idle_timeout);
    h->told = head->len;
    h->super.cb->on_request(h->super.user, &h->tunnel, &head->request);
    h->told = 0;
    if (h->state == RELAY_HTTP1_AT_END)
        return;
    if (head->expects_continue && h->in.len == head->len && !h->responded)
        relay_stream_send(h->stream, (const uint8_t *)go_on, sizeof(go_on) - 1);
    relay_buffer_consume(&h->in, head->len);
    if (kind == RELAY_KIND_MESSAGE && h->state == RELAY_HTTP1_AT_ANSWER)
        end_of_request(h);
}

/* Whether the next request waits until the peer has read answers: it must not have us keep what it does not read (T76). */
static bool must_wait(struct relay_http1 *h)
{
    const bool is_full = relay_stream_room(h->stream) == 0; /* then on_writable comes */
    if (is_full && !h->is_waiting)
        relay_timer_set_after(h->super.loop, &h->timer, h->super.limits->idle_timeout);
    h->is_waiting = is_full;
    return is_full;
}

/* True when a request has begun. */
static bool parse_head(struct relay_http1 *h)
{
    if (h->in.len == 0 || must_wait(h))
        return false;
    struct relay_http1_head head; /* not in the session: an idle one is to be small */
    int error = relay_http1_head_parse(&head, (char *)relay_buffer_bytes(&h->in), h->in.len,
                                       h->super.is_clear ? "http" : "https", h->super.limits);
    if (error == RELAY_ERR_INCOMPLETE)
        return false;
    if (error != RELAY_OK && h->is_challenged)
        relay_http1_end(h, error); /* as in begin_request */
    else if (error != RELAY_OK)
        refuse(h, head.status, error);
    else
        begin_request(h, &head);
    return error == RELAY_OK;
}

/* A body's or tunnel's bytes to its user. Returns how many were of it; the rest belongs to the next one. */
static size_t deliver(struct relay_http1 *h, uint8_t *bytes, size_t len)
{
    size_t at = 0;
    while (at < len && (h->state == RELAY_HTTP1_AT_BODY || h->state == RELAY_HTTP1_AT_TUNNEL)) {
        uint8_t *data = bytes + at;
        size_t used = len - at, data_len = used;
        int result = 0;
        if (h->state == RELAY_HTTP1_AT_BODY && h->body == RELAY_HTTP1_CHUNKED) {
            result = relay_http1_chunked_next(&h->chunked, data, used, &used, &data, &data_len);
        } else if (h->state == RELAY_HTTP1_AT_BODY) {
            used = data_len = used < h->body_left ? used : (size_t)h->body_left;
            h->body_left -= used;
            result = h->body_left == 0;
        }
        at += used;
        h->told = at;
        if (data_len > 0)
            relay_tunnel_deliver(&h->tunnel, data, data_len);
        if (h->state == RELAY_HTTP1_AT_END)
            return len;
        if (result < 0) {
            fail(h, result);
            return len;
        }
        if (result > 0)
            end_of_request(h);
    }
    return at;
}

/* Bytes in `in` go through scratch, so that whoever gets them may lay a head before them and borrow them. */
static bool deliver_waiting(struct relay_http1 *h)
{
    uint8_t *scratch = h->in.len > 0 ? relay_loop_take_scratch(h->super.loop) : NULL;
    if (scratch == NULL)
        return false;
    size_t len = h->in.len < RELAY_SCRATCH_SIZE ? h->in.len : RELAY_SCRATCH_SIZE;
    memcpy(scratch, relay_buffer_bytes(&h->in), len);
    size_t used = deliver(h, scratch, len);
    h->told = 0;
    relay_loop_return_scratch(h->super.loop);
    if (h->state != RELAY_HTTP1_AT_END)
        relay_buffer_consume(&h->in, used);
    return h->state != RELAY_HTTP1_AT_END;
}

/* The peer's FIN, once everything before it has been dealt with: whoever closes one direction after the last of
 * pipelined requests gets all answers (RFC 9112 section 9.3.2). */
static void take_fin(struct relay_http1 *h)
{
    if (!h->fin_seen || h->state == RELAY_HTTP1_AT_END || h->in_done)
        return;
    if (h->state == RELAY_HTTP1_AT_TUNNEL) {
        h->in_done = true;
        relay_tunnel_deliver_fin(&h->tunnel);
        relay_http1_finish_if_done(h);
    } else if (h->state == RELAY_HTTP1_AT_HEAD) {
        relay_http1_end(h, RELAY_OK);
    } else { /* inside a body, or a tunnel that is being opened */
        relay_http1_end(h, h->state == RELAY_HTTP1_AT_BODY ? RELAY_ERR_INCOMPLETE : RELAY_ERR_CLOSED);
    }
}

/* Goes on as far as `in` and the state allow. */
static void advance(struct relay_http1 *h)
{
    bool more = true;
    while (more) {
        switch (h->state) {
        case RELAY_HTTP1_AT_HEAD:
            more = parse_head(h);
            break;
        case RELAY_HTTP1_AT_BODY:
        case RELAY_HTTP1_AT_TUNNEL:
            more = !h->user_paused && deliver_waiting(h);
            break;
        case RELAY_HTTP1_AT_ANSWER:
            more = false;
            if (h->context.kind == RELAY_KIND_BYTES && h->in.len > 0 && !h->responded)
                fail(h, RELAY_ERR_PROTOCOL); /* nothing may come before the 200: it would be read as a request
                                                if refused */
            break;
        default:
            return;
        }
    }
    if (h->state != RELAY_HTTP1_AT_END && !h->is_waiting &&
        (h->in.len == 0 || h->state == RELAY_HTTP1_AT_HEAD))
        take_fin(h);
    relay_http1_update_reading(h);
}

/* ---- the stream ---- */

static void on_bytes(void *user, uint8_t *bytes, size_t len)
{
    struct relay_http1 *h = user;
    if (h->state == RELAY_HTTP1_AT_HEAD && h->in.len == 0)
        relay_timer_set_after(h->super.loop, &h->timer, h->super.limits->head_timeout);
    size_t used = h->in.len == 0 ? deliver(h, bytes, len) : 0;
    h->told = 0;
    if (h->state == RELAY_HTTP1_AT_END)
        return;
    if (relay_buffer_append(&h->in, bytes + used, len - used) != RELAY_OK)
        relay_http1_reset(h, RELAY_ERR_NO_MEMORY);
    else
        advance(h);
}

static void on_fin(void *user)
{
    struct relay_http1 *h = user;
    h->fin_seen = true;
    advance(h);
}

static void on_writable(void *user)
{
    struct relay_http1 *h = user;
    if (h->is_waiting) {
        h->is_waiting = false;
        relay_http1_await_request(h);
        advance(h);
        return;
    }
    if (h->responded && h->has_tunnel && h->state != RELAY_HTTP1_AT_TUNNEL)
        relay_timer_set_after(h->super.loop, &h->timer, h->super.limits->idle_timeout);
    if (h->has_tunnel)
        relay_tunnel_writable(&h->tunnel);
}

static void on_stream_close(void *user, int error)
{
    struct relay_http1 *h = user;
    if (h->state == RELAY_HTTP1_AT_END)
        return;
    relay_stream_close(h->stream);
    ended(h, error);
}

static const struct relay_stream_user stream_user = {
    .on_bytes = on_bytes, .on_fin = on_fin, .on_writable = on_writable, .on_close = on_stream_close};

/* ---- the session ---- */

static struct relay_tunnel *session_open(struct relay_session *session, const struct relay_request *request,
                                         const struct relay_tunnel_user *cb, void *user)
{
    return NULL; /* a server opens none */
}

static void session_shutdown(struct relay_session *session)
{
    struct relay_http1 *h = (struct relay_http1 *)session;
    h->is_shutdown = true;
    h->context.keep_alive = false;
    if (!h->has_tunnel)
        relay_http1_end(h, RELAY_OK);
}

static void session_close(struct relay_session *session, int error)
{
    struct relay_http1 *h = (struct relay_http1 *)session;
    if (h->state == RELAY_HTTP1_AT_END)
        return;
    if (h->has_tunnel && !(h->in_done && h->out_done)) {
        relay_http1_reset(h, error); /* what is cut off must not look complete */
        return;
    }
    relay_stream_close(h->stream);
    ended(h, error);
}

static void session_set_max_streams(struct relay_session *session, uint32_t max_streams)
{
    /* There is one request at a time. */
}

static const struct relay_session_ops session_ops = {session_open, session_shutdown, session_close,
                                                     session_set_max_streams};

static void on_task(struct relay_task *task)
{
    struct relay_http1 *h = (struct relay_http1 *)((char *)task - offsetof(struct relay_http1, task));
    if (h->state != RELAY_HTTP1_AT_END) {
        advance(h);
    } else if (!h->has_tunnel) {
        relay_buffer_dispose(&h->in);
        h->super.cb->on_close(h->super.user, h->error);
        free(h);
    }
}

/* Nothing came, a head came too slowly, a body stands still (T02), or answers are not read. */
static void on_timer(struct relay_timer *timer)
{
    struct relay_http1 *h = (struct relay_http1 *)((char *)timer - offsetof(struct relay_http1, timer));
    if (h->state == RELAY_HTTP1_AT_HEAD && h->in.len == 0)
        relay_http1_end(h, RELAY_OK);
    else if (h->is_waiting || (h->responded && h->has_tunnel))
        relay_http1_reset(h, RELAY_ERR_IDLE);
    else
        refuse(h, 408, RELAY_ERR_IDLE);
}

struct relay_session *relay_http1_server(struct relay_stream *stream, const struct relay_limits *limits,
                                         const struct relay_session_user *cb, void *user,
                                         const uint8_t *early, size_t early_len)
{
    struct relay_http1 *h = calloc(1, sizeof(*h));
    if (h == NULL || relay_buffer_append(&h->in, early, early_len) != RELAY_OK) {
        free(h);
        relay_stream_close(stream);
        return NULL;
    }
    h->super = (struct relay_session){.ops = &session_ops,
                                      .cb = cb,
                                      .user = user,
                                      .loop = stream->loop,
                                      .limits = limits,
                                      .version = RELAY_HTTP_1_1,
                                      .is_server = true,
                                      .is_clear = !relay_stream_is_tls(stream),
                                      .peer = stream->peer};
    h->stream = stream;
    relay_task_init(&h->task, RELAY_LEVEL_EVENT, on_task);
    relay_timer_init(&h->timer, on_timer);
    relay_stream_set_user(stream, &stream_user, h);
    relay_http1_await_request(h);
    relay_task_queue(stream->loop, &h->task);
    return &h->super;
}
