/* The inside of an endpoint: what quic_endpoint.c (sockets, routing), quic_peer.c (a connection's side),
 * quic_stateless.c (answers without a connection) and quic_icmp.c (the error queue) share. */
#ifndef RELAY_NET_QUIC_ENDPOINT_INTERNAL_H
#define RELAY_NET_QUIC_ENDPOINT_INTERNAL_H

#include <ngtcp2/ngtcp2.h>

#include "lib/net/quic_cid.h"
#include "lib/net/quic_conn_internal.h"
#include "lib/net/quic_endpoint.h"
#include "lib/net/quic_half_open.h"
#include "lib/net/quic_steering.h"
#include "lib/net/udp_batch.h"

/* One bound socket of the endpoint. Connections hold its address, so it lives as long as the endpoint. */
struct relay_quic_socket {
    struct relay_quic_endpoint *endpoint;
    struct relay_quic_socket *next;
    struct relay_io *io;
    struct relay_udp_gso gso;
    struct sockaddr_storage bound;
    int fd;
    bool is_wildcard, is_blocked;
};

/* A packet and where it came from; or, with `too_big`, the beginning of one of ours to `peer`, as ICMP quotes
 * it: the path carries only that many bytes. */
struct relay_quic_packet {
    struct relay_quic_socket *socket;
    const struct sockaddr *local, *peer;
    uint8_t *bytes;
    size_t len, too_big;
    uint8_t ecn;
};

/* What the endpoint keeps per connection. It outlives the connection as a tombstone (conn == NULL) that
 * answers with the farewell, or with nothing, until `timer`. */
struct relay_quic_peer {
    struct relay_packet_path path; /* first: the connection's */
    struct relay_quic_endpoint *endpoint;
    struct relay_quic_socket *socket;
    struct relay_quic_conn *conn;
    struct relay_quic_peer *prev, *next;
    struct relay_timer timer;
    struct relay_quic_handshake handshake; /* counted while the connection is half-open */
    ngtcp2_cid *cids;                      /* registered in the endpoint's table */
    size_t num_cids, cids_size;
    uint8_t *farewell;
    size_t farewell_len;
    uint64_t came,
        answer_at; /* packets that came for the tombstone, and the count at which it answers next */
    size_t mtu;
    bool is_blocked;
};

#define RELAY_QUIC_ANSWER_BUCKETS 256

struct relay_quic_endpoint {
    struct relay_loop *loop;
    struct relay_quic_group *group;
    unsigned worker;
    struct relay_quic_credentials *credentials;
    const struct relay_limits *limits;
    struct relay_quic_preface preface;
    const struct relay_quic_endpoint_user *cb;
    void *user;
    struct relay_quic_socket *sockets;
    struct relay_quic_cids cids;
    struct relay_quic_peer *peers, *tombstones; /* lists */
    size_t num_peers, num_tombstones;
    struct relay_quic_half_open half_open;
    /* Version Negotiation, stateless reset, refusal: packets per second, to each source (whose hash says which
     * bucket is its own) and to all. */
    struct relay_bucket source_answers[RELAY_QUIC_ANSWER_BUCKETS], answers;
    uint64_t source_seed;
    struct relay_bucket icmp; /* searches for the connection that an ICMP message is about */
    bool is_shut;
};

/* ---- quic_endpoint.c: the group's secrets ---- */

#define RELAY_QUIC_RETRY_SIZE 32
const uint8_t *relay_quic_group_retry_secret(const struct relay_quic_group *group);
const struct relay_quic_steering *relay_quic_group_steering(const struct relay_quic_group *group);
/* One datagram back to where a packet came from; lost when the socket is full. */
void relay_quic_socket_answer(const struct relay_quic_packet *packet, const uint8_t *bytes, size_t len);
/* To every other worker of the group: nobody knows whose it is. */
void relay_quic_endpoint_hand_to_others(struct relay_quic_endpoint *endpoint,
                                        const struct relay_quic_packet *packet);

/* ---- quic_peer.c ---- */

/* A new connection for an acceptable Initial; `original_dcid` from its Retry token or NULL; `is_known`: with a good
 * token of an earlier connection. Of too many half-open ones another one makes room. */
void relay_quic_peer_accept(struct relay_quic_endpoint *endpoint, const struct relay_quic_packet *packet,
                            const ngtcp2_pkt_hd *initial, const ngtcp2_cid *original_dcid, bool is_known);
/* A packet for a connection or a tombstone. */
void relay_quic_peer_read(struct relay_quic_peer *peer, const struct relay_quic_packet *packet);
/* The socket takes packets again. */
void relay_quic_peer_unblock(struct relay_quic_peer *peer);
/* CONNECTION_REFUSED, unless it has a user or is ending already. */
void relay_quic_peer_refuse(struct relay_quic_peer *peer);
/* Frees it, and its connection without a word. */
void relay_quic_peer_free(struct relay_quic_peer *peer);

/* ---- quic_icmp.c ---- */

/* Reads what the error queue holds, as far as one turn allows. */
void relay_quic_icmp_read(struct relay_quic_socket *socket);
/* Whether it is about a connection of this endpoint, which then sends smaller packets, never below 1200. */
bool relay_quic_icmp_too_big(struct relay_quic_endpoint *endpoint, const struct relay_quic_packet *quote);

/* ---- quic_stateless.c ---- */

/* A version that we do not speak (RFC 9000 section 6). */
void relay_quic_stateless_version(struct relay_quic_endpoint *endpoint,
                                  const struct relay_quic_packet *packet, const ngtcp2_version_cid *ids);
/* A short header whose connection ID nobody knows (RFC 9000 section 10.3). */
void relay_quic_stateless_reset(struct relay_quic_endpoint *endpoint, const struct relay_quic_packet *packet,
                                const uint8_t *cid, size_t len);
/* A long header that no connection knows: an Initial may make one, with a Retry first when many are half-open. */
void relay_quic_stateless_initial(struct relay_quic_endpoint *endpoint,
                                  const struct relay_quic_packet *packet);

#endif
