/* The SOCKS5 proxy (RFC 1928): CONNECT and UDP ASSOCIATE, without a password; names are passed on unresolved.
 */
#include <string.h>

#include "client/front_connection.h"
#include "client/join.h"
#include "client/udp_front.h"
#include "lib/net/log.h"
#include "lib/wire/error.h"
#include "lib/wire/socks5.h"

#define EARLY_MAX 16384 /* the handshake, and what comes right behind it */

enum state { GREETING, REQUEST, ASSOCIATED };

struct connection {
    struct relay_front_connection base; /* first */
    struct relay_udp_front *udp;        /* ASSOCIATED: lives as long as this connection */
    enum state state;
};

static void on_end(struct relay_front_connection *connection)
{
    struct connection *own = (struct connection *)connection;
    if (own->udp != NULL)
        relay_udp_front_close(own->udp);
}

static void send_reply(struct relay_stream *stream, enum relay_socks5_reply reply)
{
    uint8_t out[RELAY_SOCKS5_REPLY_MAX];
    relay_stream_send(stream, out, relay_socks5_write_reply(out, reply, NULL, 0));
}

static void refuse(struct connection *connection, enum relay_socks5_reply reply)
{
    send_reply(connection->base.stream, reply);
    relay_stream_release(connection->base.stream);
    relay_front_connection_end(&connection->base);
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
    /* A hop that refuses connections says nothing of the target. */
    send_reply(stream, failure->is_answer ? relay_socks5_reply_of(failure->error) : RELAY_SOCKS5_FAILURE);
    relay_stream_resume(stream);
    relay_stream_release(stream);
}

static void on_join_end(void *user)
{
    relay_front_connection_end(user);
}

static const struct relay_join_user join_cb = {
    .on_open = on_join_open, .on_failed = on_join_failed, .on_end = on_join_end};

/* ---- UDP ASSOCIATE ---- */

static void associate(struct connection *connection)
{
    uint8_t out[RELAY_SOCKS5_REPLY_MAX];
    struct sockaddr_storage local;
    struct relay_address bound;
    uint16_t port;
    struct relay_front *front = connection->base.front;
    struct relay_udp_front_config config = {.loop = front->loop, .chain = front->chain, .is_socks = true};
    relay_address_from_sockaddr(&bound, &port, &connection->base.local);
    relay_address_to_sockaddr(&bound, 0, &config.local);
    relay_address_from_sockaddr(&config.source, NULL, &connection->base.peer);
    connection->udp = relay_udp_front_new(&config, &local);
    if (connection->udp == NULL) {
        refuse(connection, RELAY_SOCKS5_FAILURE);
        return;
    }
    connection->state = ASSOCIATED;
    relay_address_from_sockaddr(&bound, &port, &local);
    relay_stream_send(connection->base.stream, out,
                      relay_socks5_write_reply(out, RELAY_SOCKS5_SUCCEEDED, &bound, port));
}

/* ---- the handshake ---- */

static void take_request(struct connection *connection)
{
    struct relay_socks5_request request;
    int used = relay_socks5_read_request(connection->base.bytes, connection->base.len, &request);
    if (used == RELAY_ERR_INCOMPLETE)
        return;
    if (used < 0) {
        refuse(connection,
               used == RELAY_ERR_UNSUPPORTED ? RELAY_SOCKS5_BAD_ADDRESS_TYPE : RELAY_SOCKS5_FAILURE);
        return;
    }
    relay_front_connection_drop(&connection->base, (size_t)used);
    relay_front_connection_understood(&connection->base);
    if (request.command == RELAY_SOCKS5_UDP_ASSOCIATE)
        associate(connection);
    else if (request.command != RELAY_SOCKS5_CONNECT)
        refuse(connection, RELAY_SOCKS5_BAD_COMMAND);
    else if (relay_join(connection->base.front->chain, connection->base.stream, &request.host, request.port,
                        connection->base.bytes, connection->base.len, &join_cb, connection) != 0)
        refuse(connection, RELAY_SOCKS5_FAILURE);
}

static void take_greeting(struct connection *connection)
{
    uint8_t method[2], refusal[RELAY_SOCKS4_REPLY_SIZE];
    bool offers_no_password;
    int used = relay_socks5_read_greeting(connection->base.bytes, connection->base.len, &offers_no_password);
    if (used == RELAY_ERR_INCOMPLETE)
        return;
    if (used > 0) {
        relay_socks5_write_method(method, offers_no_password);
        relay_stream_send(connection->base.stream, method, sizeof(method));
    }
    if (used == RELAY_ERR_UNSUPPORTED) {
        relay_socks5_refuse_version4(refusal);
        relay_stream_send(connection->base.stream, refusal, sizeof(refusal));
    }
    if (used < 0 || !offers_no_password) {
        relay_stream_release(connection->base.stream);
        relay_front_connection_end(&connection->base);
        return;
    }
    relay_front_connection_drop(&connection->base, (size_t)used);
    connection->state = REQUEST;
    take_request(connection);
}

static void on_full(struct relay_front_connection *connection)
{
    refuse((struct connection *)connection, RELAY_SOCKS5_FAILURE);
}

static void on_bytes(struct relay_front_connection *connection)
{
    struct connection *own = (struct connection *)connection;
    if (own->state == ASSOCIATED)
        relay_front_connection_drop(connection, connection->len); /* nothing is said there any more */
    else if (own->state == GREETING)
        take_greeting(own);
    else
        take_request(own);
}

static void on_accept(struct relay_front *front, int fd, const struct sockaddr_storage *peer)
{
    static const struct relay_front_connection_user cb = {.object_size = sizeof(struct connection),
                                                          .buffer_size = EARLY_MAX,
                                                          .on_bytes = on_bytes,
                                                          .on_full = on_full,
                                                          .on_end = on_end};
    relay_front_connection_accept(front, fd, peer, &cb);
}

int relay_front_socks_listen(struct relay_front *front, struct relay_loop *loop, struct relay_chain *chain,
                             const struct sockaddr_storage *address, char *text, size_t size)
{
    front->on_accept = on_accept;
    return relay_front_listen(front, loop, chain, address, text, size);
}
