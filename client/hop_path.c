/* The way a hop's connection takes, and whether it leads anywhere. */
#include <netinet/in.h>

#include "client/hop_internal.h"
#include "lib/net/http2.h"
#include "lib/net/http3.h"
#include "lib/net/path_socket.h"
#include "lib/net/quic_conn.h"
#include "lib/wire/error.h"

#define LOOK_EVERY    (500 * RELAY_MS)
#define ANSWER_WITHIN (2 * RELAY_SECOND)
#define DOUBT_EVERY   (5 * RELAY_SECOND) /* while it lives although another address would be taken now */

static struct relay_quic_conn *conn_of(const struct relay_hop *hop)
{
    return hop->state == RELAY_HOP_READY && hop->winner->is_http3 && hop->winner->session != NULL
               ? relay_http3_conn(hop->winner->session)
               : NULL;
}

bool relay_hop_can_move(const struct relay_hop *hop)
{
    return hop->params.number > 1 && conn_of(hop) != NULL;
}

static const char *why_not_migrated(int error)
{
    switch (error) {
    case RELAY_ERR_DENIED:
        return "its relay lets no QUIC connection move";
    case RELAY_ERR_LIMIT:
        return "its relay has given no spare connection ID";
    case RELAY_ERR_UNSUPPORTED:
        return "its handshake is not confirmed yet";
    default:
        return relay_error_text(error);
    }
}

int relay_hop_move(struct relay_hop *hop, struct relay_hop *carrier, const char **why)
{
    struct relay_quic_conn *conn = conn_of(hop);
    struct relay_session *session = relay_hop_session(carrier);
    if (conn == NULL) {
        *why = relay_hop_session(hop) != NULL ? "it speaks HTTP/2" : "its connection has ended";
        return RELAY_ERR_CLOSED;
    }
    if (session != NULL && session->version != RELAY_HTTP_3) {
        *why = "that way speaks HTTP/2, which carries no QUIC connection";
        return RELAY_ERR_UNSUPPORTED;
    }
    struct relay_packet_path *path = relay_hop_open_path(hop, carrier, hop->winner);
    if (path == NULL) {
        *why = "that way takes no new requests";
        return RELAY_ERR_LIMIT;
    }
    int error = relay_quic_conn_migrate(conn, path);
    if (error == 0) {
        hop->path_lost_due = false;
        hop->params.carrier = carrier;
    } else {
        *why = why_not_migrated(error);
    }
    return error;
}

/* Whatever the port is. */
static bool is_same_host(const struct sockaddr *a, const struct sockaddr *b)
{
    if (a->sa_family != b->sa_family)
        return false;
    if (a->sa_family == AF_INET6)
        return IN6_ARE_ADDR_EQUAL(&((const struct sockaddr_in6 *)a)->sin6_addr,
                                  &((const struct sockaddr_in6 *)b)->sin6_addr);
    return ((const struct sockaddr_in *)a)->sin_addr.s_addr ==
           ((const struct sockaddr_in *)b)->sin_addr.s_addr;
}

bool relay_hop_follow_network(struct relay_hop *hop)
{
    struct relay_quic_conn *conn = conn_of(hop);
    struct relay_packet_path *path;
    if (conn == NULL || hop->params.number > 1 ||
        relay_path_socket_new(hop->loop, relay_quic_conn_peer(conn), NULL, &path) != 0)
        return false;
    if (is_same_host(relay_quic_conn_local(conn), (const struct sockaddr *)&path->local)) {
        path->ops->close(path);
        return false;
    }
    relay_path_socket_trust(path); /* the new network may need a moment more */
    return relay_quic_conn_migrate(conn, path) == 0;
}

bool relay_hop_doubt_network(struct relay_hop *hop)
{
    struct relay_session *session = relay_hop_session(hop);
    struct relay_address now_local, local, peer;
    uint64_t now = relay_loop_now(hop->loop);
    uint16_t port;
    if (session == NULL || session->version != RELAY_HTTP_2 || hop->params.number > 1 || now < hop->look_at ||
        relay_address_from_sockaddr(&peer, &port, &session->peer) != 0 ||
        relay_address_from_sockaddr(&local, NULL, &session->local) != 0)
        return false;
    hop->look_at = now + LOOK_EVERY;
    now_local = relay_hop_memory_local(&peer, port);
    if (now_local.family == 0) /* no network: what comes next tells */
        return false;
    bool is_known = relay_address_equal(&now_local, &hop->other_local);
    hop->other_local = now_local;
    if (relay_address_equal(&now_local, &local) || (is_known && now < hop->doubt_at))
        return false;
    hop->doubt_at = now + DOUBT_EVERY;
    relay_http2_doubt(session, ANSWER_WITHIN);
    return !is_known;
}

bool relay_hop_is_silent(const struct relay_hop *hop)
{
    struct relay_quic_conn *conn = conn_of(hop);
    struct relay_session *session = relay_hop_session(hop);
    if (conn != NULL)
        return relay_quic_conn_is_silent(conn);
    return session != NULL && session->version == RELAY_HTTP_2 && relay_http2_is_silent(session);
}

bool relay_hop_was_heard(const struct relay_hop *hop, uint64_t since)
{
    struct relay_quic_conn *conn = conn_of(hop);
    return conn != NULL && relay_quic_conn_last_received(conn) > since;
}
