/* One hop's connection: HTTP/3 first, HTTP/2 beside it when that is silent or refused, over real sockets (hop
 * 1) or through tunnels of the hop before (its carrier).
 *
 * Over a carrier that speaks HTTP/3 this hop's QUIC runs inside its CONNECT-UDP; over one that speaks HTTP/2
 * it is TLS and HTTP/2 inside its CONNECT, never QUIC over TCP. Only the name of hop 1 is resolved here;
 * later names travel to the carrier.
 *
 * Order of calls: relay_hop_new; on_ready; then session, open, move; on_close at the end, or relay_hop_close.
 * It frees itself afterwards. No callback comes from inside a call, nor after relay_hop_close.
 */
#ifndef RELAY_CLIENT_HOP_H
#define RELAY_CLIENT_HOP_H

#include <openssl/types.h>

#include "client/config.h"
#include "client/failure.h"
#include "client/hop_memory.h"
#include "lib/net/resolver.h"
#include "lib/net/session.h"

struct relay_hop;
struct relay_quic_credentials;
struct relay_quic_memory;

/* What all hops of a client share; the caller's, and outlives them. */
struct relay_hop_environment {
    struct relay_loop *loop;
    struct relay_resolver *resolver;
    struct relay_limits limits;
    struct relay_budget budget;
    struct relay_hop_memory memory;
    size_t num_hops; /* alive, also those that are being closed, and connections that repeat their farewell */
};

/* Whom a hop's configuration trusts at each of its places, for both kinds of TLS. Zeroed memory is fine for
 * dispose. */
struct relay_hop_trust {
    struct {
        SSL_CTX *tls;
        struct relay_quic_credentials *quic;
        struct relay_quic_memory *memory; /* between two QUIC connections to this place */
    } places[RELAY_HOP_PLACES_MAX];
};
/* 0, or an error and the reason in *failure. */
int relay_hop_trust_init(struct relay_hop_trust *trust, const struct relay_hop_config *config,
                         unsigned number, struct relay_failure *failure);
void relay_hop_trust_dispose(struct relay_hop_trust *trust);

struct relay_hop_user {
    void (*on_ready)(void *user);
    /* The way through the carrier has ended, but this hop's QUIC connection lives: call relay_hop_move, or
     * relay_hop_close. `failure`: why the carrier would not carry it; NULL: it said nothing, or has gone. */
    void (*on_path_lost)(void *user, const struct relay_failure *failure);
    /* No new tunnels; the open ones live on. `failure`: why, if the relay blames us; NULL: all is in order. */
    void (*on_goaway)(void *user, const struct relay_failure *failure);
    void (*on_close)(void *user, const struct relay_failure *failure);
};

struct relay_hop_params {
    struct relay_hop_environment *environment;
    const struct relay_hop_config *config;
    const struct relay_hop_trust *trust;
    size_t place;              /* which of config->places */
    unsigned number;           /* from 1 */
    bool is_last;              /* it sends the keep-alives that keep the hops below alive too */
    struct relay_hop *carrier; /* the hop before, ready; NULL for hop 1 */
};

/* NULL: out of memory. */
struct relay_hop *relay_hop_new(const struct relay_hop_params *params, const struct relay_hop_user *cb,
                                void *user);
void relay_hop_close(struct relay_hop *hop);
void relay_hop_set_user(struct relay_hop *hop, void *user);

/* NULL until on_ready. */
struct relay_session *relay_hop_session(const struct relay_hop *hop);
/* Whether another hop can be connected through it: it is ready, and its connection has not died, which may be told
 * some turns later. */
bool relay_hop_can_carry(const struct relay_hop *hop);
const char *relay_hop_authority(const struct relay_hop *hop);
unsigned relay_hop_number(const struct relay_hop *hop);
/* Its number when no token is configured for it, else 0 (relay_refusal_print). */
unsigned relay_hop_tokenless(const struct relay_hop *hop);
/* The hop that it goes through now; to compare with. NULL: hop 1, or it waits for a path. */
const struct relay_hop *relay_hop_carrier(const struct relay_hop *hop);

/* Opens a tunnel to `host` through this hop. NULL: the connection takes no more (or is not ready). */
struct relay_tunnel *relay_hop_open(struct relay_hop *hop, bool is_udp, const struct relay_host *host,
                                    uint16_t port, const struct relay_tunnel_user *cb, void *user);

/* Whether it could go on over another carrier: it is ready, nested and speaks HTTP/3. */
bool relay_hop_can_move(const struct relay_hop *hop);
/* Moves the living connection to a tunnel of another carrier (QUIC migration): no tunnel of this hop is lost.
 * 0, or an error with *why in words: it goes on as before, or waits for a path as before. */
int relay_hop_move(struct relay_hop *hop, struct relay_hop *carrier, const char **why);
/* Hop 1 over HTTP/3, when packets to its relay would leave from another address now, because this machine has changed its
 * network: the connection goes on from there (QUIC migration), and no tunnel is lost. False: it stays where it is. */
bool relay_hop_follow_network(struct relay_hop *hop);
/* To be called often. Hop 1 over HTTP/2, whose TCP connection cannot follow: when packets to its relay would leave from
 * another address now, it is asked for a sign of life, and without one it closes in 2 s. Another network that was merely
 * added harms no living connection. True: there is a new such address. */
bool relay_hop_doubt_network(struct relay_hop *hop);
/* HTTP/3: nothing has come for 3 PTO while something is in flight. HTTP/2: nothing for 2 s since a PING. */
bool relay_hop_is_silent(const struct relay_hop *hop);
/* Whether anything has come from it after `since` (ns), that it itself has written. Always false for HTTP/2. */
bool relay_hop_was_heard(const struct relay_hop *hop, uint64_t since);

#endif
