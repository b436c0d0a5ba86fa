/* What the error queue of an endpoint's sockets tells: a router's packet-too-big toward a client makes the
 * packets of that client's connection smaller (RFC 9000 section 14.2.1). Everything else is ignored: who
 * refuses, or cannot be reached, is left to QUIC's own timers, because anybody can forge ICMP.
 *
 * The kernel gives an error to a socket of the SO_REUSEPORT group by address, not by connection ID: what is
 * nobody's here goes to the other workers.
 */
#include "lib/net/quic_endpoint_internal.h"

#include <netinet/in.h>
#include <string.h>

#include "lib/net/metrics.h"

#define ERRORS_PER_TURN 64
#define SEARCHES_BURST  50 /* the search goes through all connections: bucket size */
#define SEARCHES_RATE   50 /* and refill per second; what is lost comes again, or is found as a black hole */
#define LONG_HEADER     0x80
#define LONG_OFFSET     6 /* of the Destination Connection ID, RFC 8999 section 5.1 */
#define SHORT_OFFSET    1

static bool is_same(const struct sockaddr *a, const struct sockaddr *b, bool with_port)
{
    const struct sockaddr_in *a4 = (const struct sockaddr_in *)a, *b4 = (const struct sockaddr_in *)b;
    const struct sockaddr_in6 *a6 = (const struct sockaddr_in6 *)a, *b6 = (const struct sockaddr_in6 *)b;
    /* The port is at the same place in both families. */
    if (a->sa_family != b->sa_family || (with_port && a4->sin_port != b4->sin_port))
        return false;
    if (a->sa_family == AF_INET6)
        return memcmp(&a6->sin6_addr, &b6->sin6_addr, sizeof(a6->sin6_addr)) == 0;
    return a4->sin_addr.s_addr == b4->sin_addr.s_addr;
}

/* The quoted packet names the peer's connection ID, which only the path knows. Where the peer chose an empty
 * one the addresses must do. */
static bool is_quoted(const struct relay_quic_peer *peer, const struct relay_quic_packet *quote)
{
    const ngtcp2_cid *dcid = ngtcp2_conn_get_dcid(peer->conn->qc);
    if (quote->len == 0)
        return false;
    size_t at = quote->bytes[0] & LONG_HEADER ? LONG_OFFSET : SHORT_OFFSET;
    return quote->len >= at + dcid->datalen && memcmp(quote->bytes + at, dcid->data, dcid->datalen) == 0;
}

bool relay_quic_icmp_too_big(struct relay_quic_endpoint *endpoint, const struct relay_quic_packet *quote)
{
    for (struct relay_quic_peer *peer = endpoint->peers; peer != NULL; peer = peer->next) {
        if (peer->socket != quote->socket ||
            !is_same((const struct sockaddr *)&peer->path.peer, quote->peer, true) ||
            !is_same((const struct sockaddr *)&peer->path.local, quote->local, false) ||
            !is_quoted(peer, quote))
            continue;
        size_t mtu =
            quote->too_big < NGTCP2_MAX_UDP_PAYLOAD_SIZE ? NGTCP2_MAX_UDP_PAYLOAD_SIZE : quote->too_big;
        if (mtu < peer->mtu) {
            peer->mtu = mtu;
            relay_count(endpoint->loop->metrics->quic_mtu_told, 1);
            relay_quic_conn_mark_dirty(peer->conn);
        }
        return true;
    }
    return false;
}

void relay_quic_icmp_read(struct relay_quic_socket *socket)
{
    struct relay_quic_endpoint *endpoint = socket->endpoint;
    struct relay_udp_error error;
    for (int i = 0; i < ERRORS_PER_TURN && relay_udp_read_error(socket->fd, &error); i++) {
        if (!error.is_icmp || error.mtu == 0 || error.quote_len == 0 ||
            !relay_bucket_take(&endpoint->icmp, 1, SEARCHES_BURST, SEARCHES_RATE,
                               relay_loop_now(endpoint->loop)))
            continue;
        struct relay_quic_packet quote = {.socket = socket,
                                          .local = (const struct sockaddr *)&socket->bound,
                                          .peer = (const struct sockaddr *)&error.peer,
                                          .bytes = error.quote,
                                          .len = error.quote_len,
                                          .too_big = error.mtu};
        if (socket->is_wildcard && error.local.ss_family == socket->bound.ss_family) {
            ((struct sockaddr_in *)&error.local)->sin_port = ((struct sockaddr_in *)&socket->bound)->sin_port;
            quote.local = (const struct sockaddr *)&error.local;
        }
        if (!relay_quic_icmp_too_big(endpoint, &quote))
            relay_quic_endpoint_hand_to_others(endpoint, &quote);
    }
}
