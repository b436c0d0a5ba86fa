/* The SOCKS5 proxy (RFC 1928): CONNECT and UDP ASSOCIATE, without a password; names are passed on unresolved.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/front.h"
#include "client/join.h"
#include "client/udp_front.h"
#include "lib/net/log.h"
#include "lib/wire/error.h"
#include "lib/wire/socks5.h"

#define HANDSHAKE_TIMEOUT (30 * RELAY_SECOND)
#define EARLY_MAX         16384

enum state { GREETING, REQUEST, ASSOCIATED };

struct connection {
    struct relay_front *front;
    struct relay_stream *stream;
    struct relay_timer timer;
    struct relay_udp_front *udp; /* ASSOCIATED: lives as long as this connection */
    struct sockaddr_storage local, peer;
    enum state state;
    size_t len;
    uint8_t bytes[EARLY_MAX]; /* the handshake, and what comes right behind it */
};

static void end(struct connection *connection)
{
    relay_timer_stop(connection->front->loop, &connection->timer);
    if (connection->udp != NULL)
        relay_udp_front_close(connection->udp);
    connection->front->num_connections--;
    free(connection);
}

static void send_reply(struct relay_stream *stream, enum relay_socks5_reply reply)
{
    uint8_t out[RELAY_SOCKS5_REPLY_MAX];
    relay_stream_send(stream, out, relay_socks5_write_reply(out, reply, NULL, 0));
}

static void refuse(struct connection *connection, enum relay_socks5_reply reply)
{
    send_reply(connection->stream, reply);
    relay_stream_release(connection->stream);
    end(connection);
}

static void drop(struct connection *connection, size_t len)
{
    connection->len -= len;
    memmove(connection->bytes, connection->bytes + len, connection->len);
}

/* ---- CONNECT ---- */

static void on_join_open(void *user, struct relay_stream *stream)
{
    (void)user;
    send_reply(stream, RELAY_SOCKS5_SUCCEEDED);
}

static void on_join_failed(void *user, struct relay_stream *stream, const struct relay_failure *failure)
{
    (void)user;
    relay_log(RELAY_LOG_INFO, "tcp_tunnel_failed", "s:s", "text", failure->text);
    send_reply(stream, relay_socks5_reply_of(failure->error));
    relay_stream_resume(stream);
    relay_stream_release(stream);
}

static void on_join_end(void *user)
{
    end(user);
}

static const struct relay_join_user join_cb = {on_join_open, on_join_failed, on_join_end};

/* ---- UDP ASSOCIATE ---- */

static void associate(struct connection *connection)
{
    uint8_t out[RELAY_SOCKS5_REPLY_MAX];
    struct sockaddr_storage local;
    struct relay_address bound;
    uint16_t port;
    struct relay_udp_front_config config = {
        .loop = connection->front->loop, .chain = connection->front->chain, .is_socks = true};
    relay_address_from_sockaddr(&bound, &port, &connection->local);
    relay_address_to_sockaddr(&bound, 0, &config.local);
    relay_address_from_sockaddr(&config.source, NULL, &connection->peer);
    connection->udp = relay_udp_front_new(&config, &local);
    if (connection->udp == NULL) {
        refuse(connection, RELAY_SOCKS5_FAILURE);
        return;
    }
    connection->state = ASSOCIATED;
    relay_address_from_sockaddr(&bound, &port, &local);
    relay_stream_send(connection->stream, out,
                      relay_socks5_write_reply(out, RELAY_SOCKS5_SUCCEEDED, &bound, port));
}

/* ---- the handshake ---- */

static void take_request(struct connection *connection)
{
    struct relay_socks5_request request;
    int used = relay_socks5_read_request(connection->bytes, connection->len, &request);
    if (used == RELAY_ERR_INCOMPLETE)
        return;
    if (used < 0) {
        refuse(connection,
               used == RELAY_ERR_UNSUPPORTED ? RELAY_SOCKS5_BAD_ADDRESS_TYPE : RELAY_SOCKS5_FAILURE);
        return;
    }
    drop(connection, (size_t)used);
    relay_timer_stop(connection->front->loop, &connection->timer);
    if (request.command == RELAY_SOCKS5_UDP_ASSOCIATE)
        associate(connection);
    else if (request.command != RELAY_SOCKS5_CONNECT)
        refuse(connection, RELAY_SOCKS5_BAD_COMMAND);
    else if (relay_join(connection->front->chain, connection->stream, &request.host, request.port,
                        connection->bytes, connection->len, &join_cb, connection) != 0)
        refuse(connection, RELAY_SOCKS5_FAILURE);
}

static void take_greeting(struct connection *connection)
{
    uint8_t method[2];
    bool offers_no_password;
    int used = relay_socks5_read_greeting(connection->bytes, connection->len, &offers_no_password);
    if (used == RELAY_ERR_INCOMPLETE)
        return;
    if (used > 0) {
        relay_socks5_write_method(method, offers_no_password);
        relay_stream_send(connection->stream, method, sizeof(method));
    }
    if (used < 0 || !offers_no_password) {
        relay_stream_release(connection->stream);
        end(connection);
        return;
    }
    drop(connection, (size_t)used);
    connection->state = REQUEST;
    take_request(connection);
}

static void on_bytes(void *user, uint8_t *bytes, size_t len)
{
    struct connection *connection = user;
    if (connection->state == ASSOCIATED)
        return; /* nothing is said there any more */
    if (len > sizeof(connection->bytes) - connection->len) {
        refuse(connection, RELAY_SOCKS5_FAILURE);
        return;
    }
    memcpy(connection->bytes + connection->len, bytes, len);
    connection->len += len;
    if (connection->state == GREETING)
        take_greeting(connection);
    else
        take_request(connection);
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
    socklen_t len = sizeof(connection->local);
    if (connection == NULL || getsockname(fd, (struct sockaddr *)&connection->local, &len) != 0) {
        free(connection);
        close(fd);
        return;
    }
    connection->front = front;
    connection->peer = *peer;
    connection->udp = NULL;
    connection->state = GREETING;
    connection->len = 0;
    connection->stream = relay_stream_tcp(front->loop, fd, (const struct sockaddr *)peer);
    if (connection->stream == NULL) {
        free(connection);
        return;
    }
    front->num_connections++;
    relay_timer_init(&connection->timer, on_timer);
    relay_timer_set_after(front->loop, &connection->timer, HANDSHAKE_TIMEOUT);
    connection->stream->read_max = EARLY_MAX / 2;
    relay_stream_start(connection->stream, &stream_cb, connection);
}

int relay_front_socks_listen(struct relay_front *front, struct relay_loop *loop, struct relay_chain *chain,
                             const struct sockaddr_storage *address, char *text, size_t size)
{
    front->on_accept = on_accept;
    return relay_front_listen(front, loop, chain, address, text, size);
}
