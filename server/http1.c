#include "server/http1.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/net/buffer.h"
#include "lib/net/http1_head.h"
#include "lib/net/metrics.h"
#include "lib/net/refusal.h"
#include "lib/net/stream.h"
#include "lib/wire/error.h"
#include "server/http1_response.h"

#define WAITING_MAX                                                                                          \
    (64 * 1024) /* bytes behind a request that wait for its response; then reading stops (T04) */

/* What one read of a tunnel brings must be copied when its target stalls: little, until it is known to read
 * (T76). */
#define FIRST_READS (48 * 1024)

enum state {
    HEAD,   /* between requests, or inside a head */
    BODY,   /* the request's body comes */
    ANSWER, /* the request is complete; a CONNECT or upgrade waits for its response */
    TUNNEL, /* opened */
    ENDED   /* the stream has had its ending */
};

struct http1 {
    struct relay_session super;
    struct relay_stream *stream;
    struct relay_tunnel tunnel; /* of the current request; valid while has_tunnel */
    struct relay_buffer in;     /* not yet parsed or delivered */
    enum relay_http1_body body;
    struct relay_http1_chunked chunked;
    uint64_t body_left;
    struct relay_http1_context context;
    enum relay_http1_framing framing;
    enum state state;
    struct relay_task task; /* goes on with `in`, or tells on_close */
    struct relay_timer timer;
    int error;
    bool has_tunnel, responded;
    bool in_done;  /* the request, or the tunnel's way in, has ended */
    bool out_done; /* the response, or the tunnel's way out, has ended */
    bool fin_seen; /* the peer's */
    bool user_paused, is_shutdown;
    bool is_challenged; /* a CONNECT was refused, and the connection is open for its repetition */
};

static struct http1 *of_tunnel(struct relay_tunnel *tunnel)
{
    return (struct http1 *)tunnel->session;
}

static void send_text(struct http1 *h, const char *text)
{
    relay_stream_send(h->stream, (const uint8_t *)text, strlen(text));
}

/* Before the answer a pause holds bytes back in `in` and reading goes on: only so is the peer's end seen
 * while its target is looked for (T28). */
static void update_reading(struct http1 *h)
{
    if (h->state == ENDED)
        return;
    size_t most = h->super.limits->head_bytes > WAITING_MAX ? h->super.limits->head_bytes + 1 : WAITING_MAX;
    h->stream->read_max = h->state == TUNNEL && h->tunnel.is_unproven ? FIRST_READS : 0;
    if ((h->user_paused && h->state != ANSWER) || h->in.len >= most)
        relay_stream_pause(h->stream);
    else
        relay_stream_resume(h->stream);
}

/* ---- the end ---- */

/* After the stream has had its ending. on_close comes from the task, behind the tunnel's. */
static void ended(struct http1 *h, int error)
{
    h->state = ENDED;
    h->stream = NULL;
    h->error = error;
    relay_timer_stop(h->super.loop, &h->timer);
    relay_buffer_dispose(&h->in);
    if (h->has_tunnel)
        relay_tunnel_closed(&h->tunnel, error);
    else
        relay_task_queue(h->super.loop, &h->task);
}

static void end_cleanly(struct http1 *h, int error)
{
    if (h->state == ENDED)
        return;
    relay_stream_release(h->stream);
    ended(h, error);
}

static void end_with_reset(struct http1 *h, int error)
{
    if (h->state == ENDED)
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

static void refuse(struct http1 *h, int status, int error)
{
    struct relay_response response = {.status = status, .content_length = -1, .ends = true};
    struct relay_refusal_field proxy_status;
    bool is_tunnel =
        h->state == HEAD && relay_http1_head_is_tunnel((char *)relay_buffer_bytes(&h->in), h->in.len);
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
    end_cleanly(h, error);
}

/* Bytes that break the protocol while a request is open: an answer is still possible only before the response
 * began. */
static void fail(struct http1 *h, int error)
{
    if (h->responded)
        end_with_reset(h, error);
    else
        refuse(h, 400, error);
}

/* Both directions of a tunnel, or the response of a message, have ended. */
static void finish_if_done(struct http1 *h)
{
    if (h->state == ENDED || !h->has_tunnel || !h->out_done)
        return;
    if (h->state == TUNNEL && !h->in_done)
        return;
    if (h->state == TUNNEL || !h->in_done || !h->context.keep_alive)
        end_cleanly(h, RELAY_OK); /* a body that nobody waits for is discarded with the connection */
    else
        relay_tunnel_closed(&h->tunnel, RELAY_OK);
}

/* ---- the request ---- */

static void begin_waiting(struct http1 *h)
{
    h->state = HEAD;
    relay_timer_set_after(h->super.loop, &h->timer,
                          h->in.len > 0 ? h->super.limits->head_timeout : h->super.limits->idle_timeout);
}

static void end_of_request(struct http1 *h)
{
    h->in_done = true;
    h->state = ANSWER;
    if (!h->responded)
        relay_timer_stop(h->super.loop, &h->timer);
    relay_tunnel_deliver_fin(&h->tunnel);
    finish_if_done(h);
}

static const struct relay_tunnel_ops tunnel_ops;

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

static void begin_request(struct http1 *h, const struct relay_http1_head *head)
{
    enum relay_kind kind = head->request.kind;
    if (h->is_challenged && !is_repetition(&head->request)) {
        end_cleanly(h, RELAY_ERR_PROTOCOL);
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
    h->state = head->body == RELAY_HTTP1_NO_BODY ? ANSWER : BODY;
    h->has_tunnel = true;
    h->super.num_tunnels = 1;
    relay_count(h->super.loop->metrics->requests_h1, 1);
    relay_tunnel_init(&h->tunnel, &tunnel_ops, &h->super, h->super.loop, kind);
    if (h->state == ANSWER)
        relay_timer_stop(h->super.loop, &h->timer);
    else
        relay_timer_set_after(h->super.loop, &h->timer, h->super.limits->idle_timeout);
    h->super.cb->on_request(h->super.user, &h->tunnel, &head->request);
    if (h->state == ENDED)
        return;
    if (head->expects_continue && h->in.len == head->len && !h->responded)
        send_text(h, "HTTP/1.1 100 Continue\r\n\r\n");
    relay_buffer_consume(&h->in, head->len);
    if (kind == RELAY_KIND_MESSAGE && h->state == ANSWER)
        end_of_request(h);
}

/* True when a request has begun. */
static bool parse_head(struct http1 *h)
{
    if (h->in.len == 0)
        return false;
    struct relay_http1_head head; /* not in the session: an idle one is to be small */
    int error = relay_http1_head_parse(&head, (char *)relay_buffer_bytes(&h->in), h->in.len,
                                       h->super.is_clear ? "http" : "https", h->super.limits);
    if (error == RELAY_ERR_INCOMPLETE)
        return false;
    if (error != RELAY_OK && h->is_challenged)
        end_cleanly(h, error); /* as in begin_request */
    else if (error != RELAY_OK)
        refuse(h, head.status, error);
    else
        begin_request(h, &head);
    return error == RELAY_OK;
}

/* A body's or tunnel's bytes to its user. Returns how many were of it; the rest belongs to the next one. */
static size_t deliver(struct http1 *h, uint8_t *bytes, size_t len)
{
    size_t at = 0;
    while (at < len && (h->state == BODY || h->state == TUNNEL)) {
        uint8_t *data = bytes + at;
        size_t used = len - at, data_len = used;
        int result = 0;
        if (h->state == BODY && h->body == RELAY_HTTP1_CHUNKED) {
            result = relay_http1_chunked_next(&h->chunked, data, used, &used, &data, &data_len);
        } else if (h->state == BODY) {
            used = data_len = used < h->body_left ? used : (size_t)h->body_left;
            h->body_left -= used;
            result = h->body_left == 0;
        }
        at += used;
        if (data_len > 0)
            relay_tunnel_deliver(&h->tunnel, data, data_len);
        if (h->state == ENDED)
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
static bool deliver_waiting(struct http1 *h)
{
    uint8_t *scratch = h->in.len > 0 ? relay_loop_take_scratch(h->super.loop) : NULL;
    if (scratch == NULL)
        return false;
    size_t len = h->in.len < RELAY_SCRATCH_SIZE ? h->in.len : RELAY_SCRATCH_SIZE;
    memcpy(scratch, relay_buffer_bytes(&h->in), len);
    size_t used = deliver(h, scratch, len);
    relay_loop_return_scratch(h->super.loop);
    if (h->state != ENDED)
        relay_buffer_consume(&h->in, used);
    return h->state != ENDED;
}

/* The peer's FIN, once everything before it has been dealt with. */
static void take_fin(struct http1 *h)
{
    if (!h->fin_seen || h->state == ENDED || h->in_done)
        return;
    if (h->state == TUNNEL) {
        h->in_done = true;
        relay_tunnel_deliver_fin(&h->tunnel);
        finish_if_done(h);
    } else if (h->state == HEAD) {
        end_cleanly(h, RELAY_OK);
    } else { /* inside a body, or a tunnel that is being opened */
        end_cleanly(h, h->state == BODY ? RELAY_ERR_INCOMPLETE : RELAY_ERR_CLOSED);
    }
}

/* Goes on as far as `in` and the state allow. */
static void advance(struct http1 *h)
{
    bool more = true;
    while (more) {
        switch (h->state) {
        case HEAD:
            more = parse_head(h);
            break;
        case BODY:
        case TUNNEL:
            more = !h->user_paused && deliver_waiting(h);
            break;
        case ANSWER:
            more = false;
            if (h->context.kind == RELAY_KIND_BYTES && h->in.len > 0 && !h->responded)
                fail(h, RELAY_ERR_PROTOCOL); /* nothing may come before the 200: it would be read as a request
                                                if refused */
            break;
        default:
            return;
        }
    }
    if (h->state != ENDED && (h->in.len == 0 || h->state == HEAD))
        take_fin(h);
    update_reading(h);
}

/* ---- the stream ---- */

static void on_bytes(void *user, uint8_t *bytes, size_t len)
{
    struct http1 *h = user;
    if (h->state == HEAD && h->in.len == 0)
        relay_timer_set_after(h->super.loop, &h->timer, h->super.limits->head_timeout);
    size_t used = h->in.len == 0 ? deliver(h, bytes, len) : 0;
    if (h->state == ENDED)
        return;
    if (relay_buffer_append(&h->in, bytes + used, len - used) != RELAY_OK)
        end_with_reset(h, RELAY_ERR_NO_MEMORY);
    else
        advance(h);
}

static void on_fin(void *user)
{
    struct http1 *h = user;
    h->fin_seen = true;
    h->context.keep_alive = false;
    advance(h);
}

static void on_writable(void *user)
{
    struct http1 *h = user;
    if (h->responded && h->has_tunnel && h->state != TUNNEL)
        relay_timer_set_after(h->super.loop, &h->timer, h->super.limits->idle_timeout);
    if (h->has_tunnel)
        relay_tunnel_writable(&h->tunnel);
}

static void on_stream_close(void *user, int error)
{
    struct http1 *h = user;
    if (h->state == ENDED)
        return;
    relay_stream_close(h->stream);
    ended(h, error);
}

static const struct relay_stream_user stream_user = {
    .on_bytes = on_bytes, .on_fin = on_fin, .on_writable = on_writable, .on_close = on_stream_close};

/* ---- the tunnel ---- */

static int tunnel_respond(struct relay_tunnel *tunnel, const struct relay_response *response)
{
    struct http1 *h = of_tunnel(tunnel);
    if (h->state == ENDED)
        return RELAY_ERR_CLOSED;
    struct relay_buffer out = {0};
    /* After a refused CONNECT only the challenge leaves the connection open, because clients answer it there, and only
     * for that: what an optimistic client sent for its tunnel must not be read as a request (T04). */
    bool is_refused = h->context.kind == RELAY_KIND_BYTES && response->status / 100 != 2;
    if (h->is_shutdown || h->fin_seen || h->state == BODY || (is_refused && response->status != 407))
        h->context.keep_alive = false;
    h->is_challenged = is_refused;
    int error = relay_http1_response_write(&out, response, &h->context, &h->framing);
    if (error != RELAY_OK) {
        relay_buffer_dispose(&out);
        end_with_reset(h, error);
        return RELAY_ERR_CLOSED;
    }
    h->responded = true;
    relay_stream_send(h->stream, relay_buffer_bytes(&out), out.len);
    relay_buffer_dispose(&out);
    if (h->framing == RELAY_HTTP1_SEND_TUNNEL) {
        h->state = TUNNEL;
        relay_task_queue(h->super.loop, &h->task); /* early bytes are told from there */
        if (response->ends) {
            relay_stream_fin(h->stream);
            h->out_done = true;
        }
        return RELAY_OK;
    }
    if (h->context.kind != RELAY_KIND_MESSAGE)
        h->in_done = true; /* a refused tunnel is a message without a body */
    h->out_done = response->ends;
    relay_timer_set_after(h->super.loop, &h->timer,
                          h->super.limits->idle_timeout); /* for the peer to read it */
    finish_if_done(h);
    return RELAY_OK;
}

static size_t tunnel_room(struct relay_tunnel *tunnel)
{
    struct http1 *h = of_tunnel(tunnel);
    return h->state == ENDED ? 0 : relay_stream_room(h->stream);
}

static bool tunnel_send(struct relay_tunnel *tunnel, const uint8_t *bytes, size_t len)
{
    struct http1 *h = of_tunnel(tunnel);
    if (h->state == ENDED || h->out_done || h->framing == RELAY_HTTP1_SEND_NOTHING || len == 0)
        return true;
    if (h->framing != RELAY_HTTP1_SEND_CHUNKED)
        return relay_stream_send(h->stream, bytes, len);
    char size[24];
    snprintf(size, sizeof(size), "%zx\r\n", len);
    send_text(h, size);
    relay_stream_send(h->stream, bytes, len);
    return relay_stream_send(h->stream, (const uint8_t *)"\r\n", 2);
}

static void tunnel_send_fin(struct relay_tunnel *tunnel)
{
    struct http1 *h = of_tunnel(tunnel);
    if (h->state == ENDED || h->out_done)
        return;
    if (h->framing == RELAY_HTTP1_SEND_TUNNEL)
        relay_stream_fin(h->stream);
    else if (h->framing == RELAY_HTTP1_SEND_CHUNKED)
        send_text(h, "0\r\n\r\n");
    h->out_done = true;
    finish_if_done(h);
}

static enum relay_sent tunnel_send_datagrams(struct relay_tunnel *tunnel, struct relay_run *run)
{
    return RELAY_GONE; /* never called: there are no DATAGRAM frames here */
}

static size_t tunnel_max_datagram(struct relay_tunnel *tunnel, uint64_t context_id)
{
    return 0;
}

static void tunnel_consume(struct relay_tunnel *tunnel, size_t len)
{
    /* The kernel's window is the credit. */
}

static void tunnel_set_reading(struct relay_tunnel *tunnel, bool reading)
{
    struct http1 *h = of_tunnel(tunnel);
    h->user_paused = !reading;
    update_reading(h);
    if (reading && h->state != ENDED)
        relay_task_queue(h->super.loop, &h->task);
}

static void tunnel_abort(struct relay_tunnel *tunnel, int error)
{
    end_with_reset(of_tunnel(tunnel), error);
}

/* on_close has been told. Either the connection has ended too, or the next request may come. */
static void tunnel_release(struct relay_tunnel *tunnel)
{
    struct http1 *h = of_tunnel(tunnel);
    relay_tunnel_dispose(tunnel);
    h->has_tunnel = false;
    h->super.num_tunnels = 0;
    if (h->state != ENDED) {
        h->in_done = h->user_paused = false;
        begin_waiting(h);
        if (h->is_shutdown)
            end_cleanly(h, RELAY_OK);
    }
    relay_task_queue(h->super.loop, &h->task);
}

static const struct relay_tunnel_ops tunnel_ops = {
    .respond = tunnel_respond,
    .room = tunnel_room,
    .send = tunnel_send,
    .send_fin = tunnel_send_fin,
    .send_datagrams = tunnel_send_datagrams,
    .max_datagram = tunnel_max_datagram,
    .consume = tunnel_consume,
    .set_reading = tunnel_set_reading,
    .abort = tunnel_abort,
    .release = tunnel_release,
};

/* ---- the session ---- */

static struct relay_tunnel *session_open(struct relay_session *session, const struct relay_request *request,
                                         const struct relay_tunnel_user *cb, void *user)
{
    return NULL; /* a server opens none */
}

static void session_shutdown(struct relay_session *session)
{
    struct http1 *h = (struct http1 *)session;
    h->is_shutdown = true;
    h->context.keep_alive = false;
    if (!h->has_tunnel)
        end_cleanly(h, RELAY_OK);
}

static void session_close(struct relay_session *session, int error)
{
    struct http1 *h = (struct http1 *)session;
    if (h->state == ENDED)
        return;
    if (h->has_tunnel && !(h->in_done && h->out_done)) {
        end_with_reset(h, error); /* what is cut off must not look complete */
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
    struct http1 *h = (struct http1 *)((char *)task - offsetof(struct http1, task));
    if (h->state != ENDED) {
        advance(h);
    } else if (!h->has_tunnel) {
        relay_buffer_dispose(&h->in);
        h->super.cb->on_close(h->super.user, h->error);
        free(h);
    }
}

/* Nothing came, a head came too slowly, or a body stands still (T02). */
static void on_timer(struct relay_timer *timer)
{
    struct http1 *h = (struct http1 *)((char *)timer - offsetof(struct http1, timer));
    if (h->state == HEAD && h->in.len == 0)
        end_cleanly(h, RELAY_OK);
    else if (h->responded && h->has_tunnel)
        end_with_reset(h, RELAY_ERR_IDLE);
    else
        refuse(h, 408, RELAY_ERR_IDLE);
}

struct relay_session *relay_http1_server(struct relay_stream *stream, const struct relay_limits *limits,
                                         const struct relay_session_user *cb, void *user,
                                         const uint8_t *early, size_t early_len)
{
    struct http1 *h = calloc(1, sizeof(*h));
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
    begin_waiting(h);
    relay_task_queue(stream->loop, &h->task);
    return &h->super;
}
