/* The HTTP proxy: CONNECT becomes a tunnel; a request for an http:// URL is sent on through one
 * (client/http_forward.h). */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "client/front_connection.h"
#include "client/http_forward.h"
#include "client/join.h"
#include "lib/net/http1_head.h"
#include "lib/wire/error.h"

#define HEAD_MAX 16384

struct http_connection {
    struct relay_front_connection super; /* first */
    struct relay_http_forward forward;
};

static struct http_connection *http_of(struct relay_front_connection *connection)
{
    return (struct http_connection *)connection;
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

static void refuse(struct relay_front_connection *connection, const char *status, const char *text)
{
    answer(connection->stream, status, text);
    relay_front_connection_end(connection);
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

static void on_handed_end(void *user)
{
    relay_front_connection_end(user);
}

static const struct relay_join_user join_cb = {
    .on_open = on_join_open, .on_failed = on_join_failed, .on_end = on_handed_end};

static void start_connect(struct relay_front_connection *connection, const struct relay_http1_head *head)
{
    struct relay_host host;
    uint16_t port;
    struct relay_slice authority = head->request.authority;
    if (relay_authority_parse(&host, &port, authority.base, authority.len) != 0)
        refuse(connection, "400 Bad Request", "CONNECT needs HOST:PORT");
    else if (relay_join(connection->front->chain, connection->stream, &host, port,
                        connection->bytes + head->len, connection->len - head->len, &join_cb,
                        connection) != 0)
        refuse(connection, "503 Service Unavailable", "out of memory");
}

/* ---- the head ---- */

static const char carried[] = "this is a proxy: it carries CONNECT and http:// URLs only";

/* Whether the target is a URL that does not begin with http://, the request malformed or not. */
static bool is_other_url(const char *bytes, size_t len)
{
    const char *space = memchr(bytes, ' ', len), *target = space != NULL ? space + 1 : bytes + len;
    size_t left = len - (size_t)(target - bytes), scheme = 0;
    while (scheme < left && isalnum((unsigned char)target[scheme]))
        scheme++;
    return scheme > 0 && left - scheme >= 3 && memcmp(target + scheme, "://", 3) == 0 &&
           !(scheme == 4 && strncasecmp(target, "http", 4) == 0);
}

static void on_forwarded(struct relay_front_connection *connection)
{
    relay_front_connection_again(connection);
}

static const struct relay_http_forward_user forward_cb = {on_forwarded, relay_front_connection_end};

static void start_forward(struct relay_front_connection *connection, const struct relay_http1_head *head)
{
    int error = relay_http_forward_begin(&http_of(connection)->forward, connection, head, &forward_cb);
    if (error == RELAY_ERR_NO_MEMORY)
        refuse(connection, "503 Service Unavailable", "out of memory");
    else if (error != 0)
        refuse(connection, "400 Bad Request", "the URL or a field of the request is not acceptable");
}

static void start_request(struct relay_front_connection *connection, const struct relay_http1_head *head)
{
    relay_front_connection_understood(connection);
    relay_stream_pause(connection->stream);
    if (head->request.kind == RELAY_KIND_BYTES) {
        relay_http_forward_dispose(&http_of(connection)->forward);
        start_connect(connection, head);
    } else if (head->request.kind == RELAY_KIND_MESSAGE && head->request.is_absolute &&
               relay_slice_is(head->request.scheme, "http")) {
        start_forward(connection, head);
    } else {
        refuse(connection, "400 Bad Request", carried);
    }
}

static void on_full(struct relay_front_connection *connection)
{
    refuse(connection, "431 Request Header Fields Too Large", "the head of the request is too long");
}

static void on_bytes(struct relay_front_connection *connection)
{
    struct relay_http1_head head;
    struct relay_limits limits = RELAY_LIMITS_DEFAULT;
    limits.head_bytes = HEAD_MAX;
    int error = relay_http1_head_parse(&head, (char *)connection->bytes, connection->len, "http", &limits);
    if (error == 0)
        start_request(connection, &head);
    else if (error == RELAY_ERR_TOO_BIG)
        on_full(connection);
    else if (error != RELAY_ERR_INCOMPLETE)
        refuse(connection, "400 Bad Request",
               is_other_url((const char *)connection->bytes, connection->len) ? carried
                                                                              : "the request is malformed");
}

static void on_end(struct relay_front_connection *connection)
{
    relay_http_forward_dispose(&http_of(connection)->forward);
}

static void on_accept(struct relay_front *front, int fd, const struct sockaddr_storage *peer)
{
    static const struct relay_front_connection_user cb = {.object_size = sizeof(struct http_connection),
                                                          .buffer_size = HEAD_MAX + 1,
                                                          .on_bytes = on_bytes,
                                                          .on_full = on_full,
                                                          .on_end = on_end};
    relay_front_connection_accept(front, fd, peer, &cb);
}

int relay_front_http_listen(struct relay_front *front, struct relay_loop *loop, struct relay_chain *chain,
                            const struct sockaddr_storage *address, char *text, size_t size)
{
    front->on_accept = on_accept;
    return relay_front_listen(front, loop, chain, address, text, size);
}
