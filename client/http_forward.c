#include "client/http_forward.h"

#include <stdlib.h>
#include <string.h>

#include "client/abandoned.h"
#include "lib/wire/error.h"

static struct relay_stream *stream_of(const struct relay_http_forward *forward)
{
    return forward->connection->stream;
}

/* ---- ends ---- */

static void forget_head(struct relay_http_forward *forward)
{
    forward->may_repeat = false;
    free(forward->head);
    forward->head = NULL;
}

static void forget_request(struct relay_http_forward *forward)
{
    forget_head(forward);
    free(forward->got);
    forward->got = NULL;
    forward->got_len = forward->got_size = 0;
}

static void drop_tunnel(struct relay_http_forward *forward, bool is_in_order)
{
    struct relay_tunnel *tunnel = forward->tunnel;
    forward->tunnel = NULL;
    if (tunnel == NULL)
        return;
    if (is_in_order) {
        relay_abandoned_finish(tunnel);
        return;
    }
    relay_tunnel_attach(tunnel, NULL, NULL);
    relay_tunnel_abort(tunnel, RELAY_ERR_CANCELLED);
}

void relay_http_forward_dispose(struct relay_http_forward *forward)
{
    forget_request(forward);
    drop_tunnel(forward, true);
}

/* The local connection ends, in one of the stream's ways, in the middle of an exchange. */
static void end(struct relay_http_forward *forward, void (*ending)(struct relay_stream *stream))
{
    relay_opening_cancel(&forward->opening);
    forget_request(forward);
    drop_tunnel(forward, false);
    forward->state = RELAY_HTTP_FORWARD_IDLE;
    ending(stream_of(forward));
    forward->cb->on_end(forward->connection);
}

static void refuse(struct relay_http_forward *forward, const struct relay_failure *failure)
{
    relay_opening_cancel(&forward->opening);
    forget_request(forward);
    drop_tunnel(forward, false);
    forward->state = RELAY_HTTP_FORWARD_IDLE;
    relay_http_forward_refuse(stream_of(forward), failure);
    forward->cb->on_end(forward->connection);
}

static void refuse_because(struct relay_http_forward *forward, const char *text)
{
    struct relay_failure failure = {.error = RELAY_ERR_PROTOCOL};
    memccpy(failure.text, text, '\0', sizeof(failure.text));
    refuse(forward, &failure);
}

/* The answer is through, and what the application is to read of it fits. */
static void done(struct relay_http_forward *forward)
{
    forward->state = RELAY_HTTP_FORWARD_IDLE;
    if (forward->tunnel != NULL)
        relay_tunnel_resume(forward->tunnel);
    if (forward->keeps_alive) {
        forward->cb->on_done(forward->connection);
        return;
    }
    relay_stream_resume(stream_of(forward));
    relay_stream_release(stream_of(forward));
    forward->cb->on_end(forward->connection);
}

/* `is_clean`: nothing followed the answer. */
static void finish_answer(struct relay_http_forward *forward, bool is_clean)
{
    bool is_whole = forward->request.is_complete;
    forget_request(forward);
    if (!forward->server_keeps_alive || !is_whole || !is_clean)
        drop_tunnel(forward, is_whole);
    forward->keeps_alive = forward->keeps_alive && is_whole;
    forward->state = RELAY_HTTP_FORWARD_FULL;
    if (!forward->keeps_alive || relay_stream_room(stream_of(forward)) > 0)
        done(forward);
}

/* ---- the request ---- */

/* Sends what of the connection's buffer belongs to the body. Bad chunks end everything. */
static void send_body(struct relay_http_forward *forward)
{
    struct relay_front_connection *connection = forward->connection;
    ssize_t own = relay_http_body_take(&forward->request, connection->bytes, connection->len);
    if (own < 0) {
        end(forward, relay_stream_close);
        return;
    }
    bool more = own == 0 || relay_tunnel_send(forward->tunnel, connection->bytes, (size_t)own);
    relay_front_connection_drop(connection, (size_t)own);
    if (!more || forward->request.is_complete)
        relay_stream_pause(connection->stream);
    else
        relay_stream_resume(connection->stream);
}

static void send_request(struct relay_http_forward *forward)
{
    forward->state = RELAY_HTTP_FORWARD_ASKED;
    relay_tunnel_send(forward->tunnel, forward->head, forward->head_len);
    if (!forward->may_repeat)
        forget_head(forward);
    send_body(forward);
}

static void open_tunnel(struct relay_http_forward *forward)
{
    forward->state = RELAY_HTTP_FORWARD_OPENING;
    forward->may_repeat = false;
    relay_chain_open(forward->connection->front->chain, &forward->opening, false, &forward->host,
                     forward->port);
}

/* The server has closed, or the tunnel has died, before an answer. */
static void on_no_answer(struct relay_http_forward *forward, bool is_in_order)
{
    drop_tunnel(forward, is_in_order && forward->request.is_complete);
    if (forward->may_repeat)
        open_tunnel(forward);
    else
        refuse_because(forward, "the server closed the connection before it had answered");
}

/* ---- the stream ---- */

static void on_nothing(void *user)
{
    (void)user;
}

/* Only while the body is wanted: all of the buffer was the body's, and it is empty. */
static void on_stream_bytes(void *user, uint8_t *bytes, size_t len)
{
    struct relay_http_forward *forward = user;
    struct relay_front_connection *connection = forward->connection;
    memcpy(connection->bytes, bytes, len);
    connection->len = len;
    send_body(forward);
}

static void on_stream_close(void *user, int error)
{
    (void)error;
    end(user, relay_stream_close);
}

/* In the middle of a body it has given up; behind a whole request the stream is paused and this is not told. */
static void on_stream_fin(void *user)
{
    end(user, relay_stream_close);
}

static void on_stream_writable(void *user)
{
    struct relay_http_forward *forward = user;
    if (forward->state == RELAY_HTTP_FORWARD_FULL)
        done(forward);
    else if (forward->tunnel != NULL)
        relay_tunnel_resume(forward->tunnel);
}

static const struct relay_stream_user stream_cb = {on_nothing, on_stream_bytes, on_stream_fin,
                                                   on_stream_writable, on_stream_close};

/* ---- the answer ---- */

/* False: everything has ended. */
static bool send_head(struct relay_http_forward *forward, const struct relay_http_answer *answer)
{
    uint8_t *out = malloc(relay_http_answer_size(answer));
    if (out == NULL) {
        end(forward, relay_stream_reset);
        return false;
    }
    bool is_interim = answer->status / 100 == 1;
    if (!is_interim) {
        forward->state = RELAY_HTTP_FORWARD_ANSWER;
        forward->server_keeps_alive = answer->keep_alive;
        forward->keeps_alive = forward->keeps_alive && answer->framing != RELAY_HTTP_UNTIL_CLOSE;
        relay_http_body_init(&forward->answer, answer->framing, answer->length);
    }
    size_t len = relay_http_answer_write(out, answer, forward->keeps_alive);
    if ((!is_interim || forward->is_interim_welcome) && !relay_stream_send(stream_of(forward), out, len))
        relay_tunnel_pause(forward->tunnel);
    free(out);
    return true;
}

/* How many of the bytes were heads; less than 0: everything has ended. */
static ssize_t take_heads(struct relay_http_forward *forward, const uint8_t *bytes, size_t len)
{
    size_t used = 0;
    while (forward->state == RELAY_HTTP_FORWARD_ASKED && used < len) {
        struct relay_http_answer answer;
        int error =
            relay_http_answer_parse(&answer, (const char *)bytes + used, len - used, forward->is_to_head);
        if (error == RELAY_ERR_INCOMPLETE)
            break;
        if (error != RELAY_OK) {
            refuse_because(forward, error == RELAY_ERR_TOO_BIG ? "the head of the server's answer is too long"
                                                               : "the server's answer is malformed");
            return -1;
        }
        if (!send_head(forward, &answer))
            return -1;
        used += answer.len;
    }
    return (ssize_t)used;
}

static void take_answer_body(struct relay_http_forward *forward, uint8_t *bytes, size_t len)
{
    ssize_t own = relay_http_body_take(&forward->answer, bytes, len);
    if (own < 0) {
        end(forward, relay_stream_reset);
        return;
    }
    if (own > 0 && !relay_stream_send(stream_of(forward), bytes, (size_t)own))
        relay_tunnel_pause(forward->tunnel);
    if (forward->answer.is_complete)
        finish_answer(forward, (size_t)own == len);
}

/* Keeps what came of a head. False: out of memory, and everything has ended. */
static bool keep(struct relay_http_forward *forward, const uint8_t *bytes, size_t len)
{
    if (len == 0)
        return true;
    if (forward->got_len + len > forward->got_size) {
        size_t size = forward->got_len + len + 2048;
        uint8_t *got = realloc(forward->got, size);
        if (got == NULL) {
            end(forward, relay_stream_reset);
            return false;
        }
        forward->got = got;
        forward->got_size = size;
    }
    memcpy(forward->got + forward->got_len, bytes, len);
    forward->got_len += len;
    return true;
}

/* A head that comes in pieces. The last read may have brought some of the body. */
static void take_pieces(struct relay_http_forward *forward, uint8_t *bytes, size_t len)
{
    bool has_line = memchr(bytes, '\n', len) != NULL || forward->got_len + len > RELAY_HTTP_ANSWER_HEAD_MAX;
    if (!keep(forward, bytes, len) || !has_line)
        return;
    ssize_t used = take_heads(forward, forward->got, forward->got_len);
    if (used < 0)
        return;
    forward->got_len -= (size_t)used;
    memmove(forward->got, forward->got + used, forward->got_len);
    if (forward->state == RELAY_HTTP_FORWARD_ANSWER) {
        uint8_t *rest = forward->got;
        size_t rest_len = forward->got_len;
        forward->got = NULL;
        forward->got_len = forward->got_size = 0;
        take_answer_body(forward, rest, rest_len);
        free(rest);
    }
}

static void take_answer(struct relay_http_forward *forward, uint8_t *bytes, size_t len)
{
    if (forward->got_len > 0) {
        take_pieces(forward, bytes, len);
        return;
    }
    ssize_t used = take_heads(forward, bytes, len);
    if (used < 0)
        return;
    if (forward->state == RELAY_HTTP_FORWARD_ANSWER)
        take_answer_body(forward, bytes + used, len - (size_t)used);
    else
        keep(forward, bytes + used, len - (size_t)used);
}

/* ---- the tunnel ---- */

static void on_tunnel_bytes(void *user, uint8_t *bytes, size_t len)
{
    struct relay_http_forward *forward = user;
    if (len == 0)
        return;
    forget_head(forward);
    if (forward->state == RELAY_HTTP_FORWARD_ASKED)
        take_answer(forward, bytes, len);
    else if (forward->state == RELAY_HTTP_FORWARD_ANSWER)
        take_answer_body(forward, bytes, len);
    else
        drop_tunnel(forward, false); /* nobody has asked */
}

static void on_tunnel_fin(void *user)
{
    struct relay_http_forward *forward = user;
    if (forward->state == RELAY_HTTP_FORWARD_ASKED)
        on_no_answer(forward, true);
    else if (forward->state != RELAY_HTTP_FORWARD_ANSWER)
        drop_tunnel(forward, true);
    else if (forward->answer.framing == RELAY_HTTP_UNTIL_CLOSE)
        finish_answer(forward, true);
    else
        end(forward, relay_stream_reset);
}

static void on_tunnel_writable(void *user)
{
    struct relay_http_forward *forward = user;
    bool is_asking =
        forward->state == RELAY_HTTP_FORWARD_ASKED || forward->state == RELAY_HTTP_FORWARD_ANSWER;
    if (is_asking && !forward->request.is_complete)
        relay_stream_resume(stream_of(forward));
}

static void on_tunnel_close(void *user, int error)
{
    struct relay_http_forward *forward = user;
    (void)error;
    forward->tunnel = NULL;
    if (forward->state == RELAY_HTTP_FORWARD_ASKED)
        on_no_answer(forward, false);
    else if (forward->state == RELAY_HTTP_FORWARD_ANSWER)
        end(forward, relay_stream_reset);
}

static const struct relay_tunnel_user tunnel_cb = {.on_bytes = on_tunnel_bytes,
                                                   .on_fin = on_tunnel_fin,
                                                   .on_writable = on_tunnel_writable,
                                                   .on_close = on_tunnel_close};

static void on_open(struct relay_opening *opening, struct relay_tunnel *tunnel)
{
    struct relay_http_forward *forward = (struct relay_http_forward *)opening;
    forward->tunnel = tunnel;
    relay_tunnel_attach(tunnel, &tunnel_cb, forward);
    send_request(forward);
}

/* A FIN behind the request: nobody waits for the answer. */
static bool is_deserted(struct relay_opening *opening)
{
    struct relay_http_forward *forward = (struct relay_http_forward *)opening;
    return relay_stream_look(stream_of(forward)) != RELAY_PEER_THERE;
}

static void on_failed(struct relay_opening *opening, const struct relay_failure *failure)
{
    refuse((struct relay_http_forward *)opening, failure);
}

/* ---- a request ---- */

static bool is_same_host(const struct relay_host *a, const struct relay_host *b)
{
    return a->kind == b->kind && strcmp(a->name, b->name) == 0;
}

static void set_request(struct relay_http_forward *forward, const struct relay_http1_head *head)
{
    enum relay_http_framing framing = head->body == RELAY_HTTP1_CHUNKED  ? RELAY_HTTP_CHUNKED
                                      : head->body == RELAY_HTTP1_LENGTH ? RELAY_HTTP_LENGTH
                                                                         : RELAY_HTTP_NO_BODY;
    uint64_t length = framing == RELAY_HTTP_LENGTH ? (uint64_t)head->request.content_length : 0;
    relay_http_body_init(&forward->request, framing, length);
    forward->is_to_head = relay_slice_is(head->request.method, "HEAD");
    forward->is_interim_welcome = head->minor_version > 0;
    forward->keeps_alive = relay_http_request_keeps_alive(head);
    forward->may_repeat = relay_http_request_may_repeat(head);
    forward->head_len = relay_http_request_write(forward->head, head);
}

int relay_http_forward_begin(struct relay_http_forward *forward, struct relay_front_connection *connection,
                             const struct relay_http1_head *head, const struct relay_http_forward_user *cb)
{
    struct relay_host host;
    uint16_t port;
    struct relay_slice authority = head->request.authority;
    if (relay_authority_parse_default(&host, &port, authority.base, authority.len, 80) != 0)
        return RELAY_ERR_INVALID;
    forward->head = malloc(relay_http_request_size(head));
    if (forward->head == NULL)
        return RELAY_ERR_NO_MEMORY;
    forward->opening.on_open = on_open;
    forward->opening.on_failed = on_failed;
    forward->opening.is_deserted = is_deserted;
    forward->connection = connection;
    forward->cb = cb;
    set_request(forward, head);
    relay_front_connection_drop(connection, head->len);
    relay_stream_set_user(connection->stream, &stream_cb, forward);
    if (forward->tunnel != NULL && (port != forward->port || !is_same_host(&host, &forward->host)))
        drop_tunnel(forward, true);
    forward->host = host;
    forward->port = port;
    if (forward->tunnel != NULL)
        send_request(forward);
    else
        open_tunnel(forward);
    return 0;
}
