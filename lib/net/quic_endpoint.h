/* A worker's QUIC server: its sockets, the connections that came over them, and what is answered without a
 * connection (Version Negotiation, Retry, stateless reset, refusal).
 *
 * One group is shared by the workers of a role: the secrets, and the way to hand a packet to the worker whose
 * connection ID it carries. Order of calls: group_new; relay_quic_group_bind per address; per worker, on its
 * thread: endpoint_new, endpoint_add_socket per address; later endpoint_shutdown, endpoint_close,
 * endpoint_free.
 *
 * A connection belongs to the endpoint until its on_close was told; a closed one answers with its
 * CONNECTION_CLOSE for three PTO (RFC 9000 section 10.2.1), rate-limited.
 */
#ifndef RELAY_NET_QUIC_ENDPOINT_H
#define RELAY_NET_QUIC_ENDPOINT_H

#include <stdint.h>
#include <sys/socket.h>

#include "lib/net/limits.h"
#include "lib/net/quic_conn.h"
#include "lib/net/quic_tls.h"

struct relay_quic_group;
struct relay_quic_endpoint;

struct relay_quic_endpoint_user {
    /* A client has proved its address: its first packet carried a good Retry token, and the handshake goes on; or
     * the handshake is complete (then it comes from inside ngtcp2, see struct relay_quic_user). Until then only the
     * limits of half-open handshakes hold, since anybody can write an Initial in anybody's name (T20). The user calls
     * relay_quic_conn_set_user at once (relay_http3_server does); without a user the connection is refused. */
    void (*on_connection)(void *user, struct relay_quic_conn *conn);
};

/* Referenced by its endpoints. NULL: out of memory. */
struct relay_quic_group *relay_quic_group_new(unsigned workers);
void relay_quic_group_unref(struct relay_quic_group *group); /* NULL is fine */
/* Opens the SO_REUSEPORT sockets of one address, one per worker: relay_quic_steering_bind says the answers.
 */
int relay_quic_group_bind(struct relay_quic_group *group, struct sockaddr_storage *address, int *fds);

struct relay_quic_endpoint_config {
    struct relay_loop *loop;
    struct relay_quic_group *group;
    unsigned worker; /* 0 to the group's number of workers - 1 */
    struct relay_quic_credentials *credentials;
    const struct relay_limits *limits; /* outlives the endpoint */
    struct relay_quic_preface preface; /* len 0: none */
    const struct relay_quic_endpoint_user *cb;
    void *user;
};
/* 0 or RELAY_ERR_NO_MEMORY. */
int relay_quic_endpoint_new(const struct relay_quic_endpoint_config *config,
                            struct relay_quic_endpoint **endpoint);
/* Takes the descriptor (also when it fails). 0 or RELAY_ERR_NO_MEMORY. */
int relay_quic_endpoint_add_socket(struct relay_quic_endpoint *endpoint, int fd);
/* New connections get these; living ones keep theirs. */
void relay_quic_endpoint_set_credentials(struct relay_quic_endpoint *endpoint,
                                         struct relay_quic_credentials *credentials);
/* Connections in being, half-open ones too, tombstones not. */
size_t relay_quic_endpoint_num_connections(const struct relay_quic_endpoint *endpoint);
/* No new connections from now on, and an end of those that have not been told yet (CONNECTION_REFUSED); the others go
 * on. */
void relay_quic_endpoint_shutdown(struct relay_quic_endpoint *endpoint);
/* Closes all connections with this H3 error code; their on_close comes from tasks of this turn. */
void relay_quic_endpoint_close(struct relay_quic_endpoint *endpoint, uint64_t code);
/* Connections that still live vanish without a word to their users: close first and let a turn pass. */
void relay_quic_endpoint_free(struct relay_quic_endpoint *endpoint);

#endif
