/* The HTTP proxy: CONNECT becomes a tunnel; a request for an http:// URL is sent on through one
 * (client/http_forward.h). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/front.h"
#include "client/http_forward.h"
#include "client/join.h"
#include "lib/net/http1_head.h"
#include "lib/wire/error.h"

#define HEAD_TIMEOUT (30 * RELAY_SECOND)
#define HEAD_MAX     16384

struct connection {
    struct relay_front *front;
    struct relay_stream *stream;
    struct relay_timer timer; /* until the head is there */
    size_t len;
    char head[HEAD_MAX + 1];
};

static void end(struct connection *connection)
{
    relay_timer_stop(connection->front->loop, &connection->timer);
    connection->front->num_connections--;
    free(connection);
}

/* `text` is one sentence for the person in front of it. */
static void answer(struct relay_stream *stream, const char *status, const char *text)
{
    char message[1024];
    size_t body = strlen("twohop-client: ") + strlen(text) + 2;
    int len = snprintf(message, sizeof(message),
                       "HTTP/1.1 %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %zu\r\n"
                       "Connection: close\r\nCache-Control: no-store\r\n\r\ntwohop-client: %s.\n",
                       status, body, text);
    relay_stream_send(stream, (const uint8_t *)message,
                      (size_t)len < sizeof(message) ? (size_t)len : sizeof(message) - 1);
    relay_stream_resume(stream);
    relay_stream_release(stream);
}

void relay_http_forward_refuse(struct relay_stream *stream, const struct relay_failure *failure)
{
    answer(stream, "502 Bad Gateway", failure->text);
}

static void refuse(struct connection *connection, const char *status, const char *text)
{
    answer(connection->stream, status, text);
    end(connection);
}

/* ---- CONNECT ---- */

static void on_join_open(void *user, struct relay_stream *stream)
{
    static const char established[] = "HTTP/1.1 200 Connection established\r\n\r\n";
    (void)user;
    relay_stream_send(stream, (const uint8_t *)established, sizeof(established) - 1);
}

static void on_join_failed(void *user, struct relay_stream *stream, const struct relay_failure *failure)
{
    (void)user;
    relay_http_forward_refuse(stream, failure);
}

static void on_join_end(void *user)
{
    end(user);
}

static const struct relay_join_user join_cb = {on_join_open, on_join_failed, on_join_end};

static void start_connect(struct connection *connection, const struct relay_http1_head *head)
{
    struct relay_host host;
    uint16_t port;
    struct relay_slice authority = head->request.authority;
    if (relay_authority_parse(&host, &port, authority.base, authority.len) != 0)
        refuse(connection, "400 Bad Request", "CONNECT needs HOST:PORT");
    else if (relay_join(connection->front->chain, connection->stream, &host, port,
                        (const uint8_t *)connection->head + head->len, connection->len - head->len, &join_cb,
                        connection) != 0)
        refuse(connection, "503 Service Unavailable", "out of memory");
}

/* ---- the head ---- */

static void on_forward_end(void *user)
{
    end(user);
}

static void start_forward(struct connection *connection, const struct relay_http1_head *head)
{
    int error = relay_http_forward(connection->front->chain, connection->stream, head,
                                   (const uint8_t *)connection->head + head->len, connection->len - head->len,
                                   on_forward_end, connection);
    if (error == RELAY_ERR_NO_MEMORY)
        refuse(connection, "503 Service Unavailable", "out of memory");
    else if (error != 0)
        refuse(connection, "400 Bad Request", "the URL or a field of the request is not acceptable");
}

static void start_request(struct connection *connection, const struct relay_http1_head *head)
{
    relay_timer_stop(connection->front->loop, &connection->timer);
    relay_stream_pause(connection->stream);
    if (head->request.kind == RELAY_KIND_BYTES)
        start_connect(connection, head);
    else if (head->request.is_absolute && relay_slice_is(head->request.scheme, "http"))
        start_forward(connection, head);
    else
        refuse(connection, "400 Bad Request", "this is a proxy: it takes CONNECT and http:// URLs");
}

static void on_bytes(void *user, uint8_t *bytes, size_t len)
{
    struct connection *connection = user;
    struct relay_http1_head head;
    struct relay_limits limits = RELAY_LIMITS_DEFAULT;
    limits.head_bytes = HEAD_MAX;
    if (len > sizeof(connection->head) - connection->len) {
        refuse(connection, "431 Request Header Fields Too Large", "the head of the request is too long");
        return;
    }
    memcpy(connection->head + connection->len, bytes, len);
    connection->len += len;
    int error = relay_http1_head_parse(&head, connection->head, connection->len, "http", &limits);
    if (error == 0)
        start_request(connection, &head);
    else if (error == RELAY_ERR_TOO_BIG)
        refuse(connection, "431 Request Header Fields Too Large", "the head of the request is too long");
    else if (error != RELAY_ERR_INCOMPLETE)
        refuse(connection, "400 Bad Request", "the request is malformed");
}

static void on_close(void *user, int error)
{
    struct connection *connection = user;
    (void)error;
    relay_stream_close(connection->stream);
    end(connection);
}

static void on_fin(void *user)
{
    on_close(user, RELAY_ERR_CLOSED);
}

static void on_nothing(void *user)
{
    (void)user;
}

static const struct relay_stream_user stream_cb = {on_nothing, on_bytes, on_fin, on_nothing, on_close};

static void on_timer(struct relay_timer *timer)
{
    struct connection *connection = (struct connection *)((char *)timer - offsetof(struct connection, timer));
    on_close(connection, RELAY_ERR_TIMEOUT);
}

static void on_accept(struct relay_front *front, int fd, const struct sockaddr_storage *peer)
{
    struct connection *connection = malloc(sizeof(*connection));
    if (connection == NULL) {
        close(fd);
        return;
    }
    connection->front = front;
    connection->len = 0;
    connection->stream = relay_stream_tcp(front->loop, fd, (const struct sockaddr *)peer);
    if (connection->stream == NULL) {
        free(connection);
        return;
    }
    front->num_connections++;
    relay_timer_init(&connection->timer, on_timer);
    relay_timer_set_after(front->loop, &connection->timer, HEAD_TIMEOUT);
    /* One read brings no more than the buffer holds. */
    connection->stream->read_max = HEAD_MAX;
    relay_stream_start(connection->stream, &stream_cb, connection);
}

int relay_front_http_listen(struct relay_front *front, struct relay_loop *loop, struct relay_chain *chain,
                            const struct sockaddr_storage *address, char *text, size_t size)
{
    front->on_accept = on_accept;
    return relay_front_listen(front, loop, chain, address, text, size);
}
