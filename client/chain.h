/* The chain of hops, kept up: it connects hop after hop, each through the one before, opens tunnels through
 * the last one for the fronts, and connects anew with back-off when something dies.
 *
 * When this machine goes to another network, hop 1's QUIC connection goes on from its new address; when hop 1 dies or goes
 * silent, hop 2's moves to another ingress. No tunnel is lost by either. What cannot move (HTTP/2) stays on a silent one,
 * in case it comes back, and new tunnels go through another.
 * When the last hop dies its tunnels are lost and told so; when it goes away with a GOAWAY they live on beside
 * the chain, on the hops that carry them. Nothing ever goes to a target past the chain.
 *
 * While it is not up, tunnels to be opened wait (at most RELAY_CHAIN_WAITING_MAX, for RELAY_OPENING_TIMEOUT; when
 * there are so many, those whose application has gone make room);
 * an attempt that has failed, at every ingress where that can help, fails them with its reason. The next
 * attempt comes after a back-off, or with the first opening a second after the last one. After five failures
 * in a row an opening within that second fails at once. A relay that goes away (GOAWAY) before it has answered or
 * carried anything, or closes as soon as it is there, counts as such a failure.
 */
#ifndef RELAY_CLIENT_CHAIN_H
#define RELAY_CLIENT_CHAIN_H

#include "client/hop.h"

#define RELAY_CHAIN_WAITING_MAX 256
#define RELAY_OPENING_TIMEOUT   (15 * RELAY_SECOND)

struct relay_chain;

/* NULL with the reason in `text`: a CA file is bad, or out of memory. The environment and the configuration
 * are the caller's and outlive the hops (environment->num_hops == 0). */
struct relay_chain *relay_chain_new(struct relay_hop_environment *environment,
                                    const struct relay_client_config *config, char *text, size_t size);
/* Closes every hop, which the loop does in its next turns (until environment->num_hops is 0); openings fail
 * from now on. */
void relay_chain_stop(struct relay_chain *chain);
/* Stops. Every opening must have been told or cancelled. */
void relay_chain_free(struct relay_chain *chain);
/* Reads the files of the authorities again, for connections to come. RELAY_OK, or an error with the reason in `text`:
 * those that were read before stay. */
int relay_chain_renew_trust(struct relay_chain *chain, char *text, size_t size);
/* Connects now; otherwise the first opening does. */
void relay_chain_start(struct relay_chain *chain);
/* Every hop is ready. */
bool relay_chain_is_up(const struct relay_chain *chain);
/* Hop `number` (from 1) if it is ready, else NULL; for tests and the log. */
struct relay_hop *relay_chain_hop(const struct relay_chain *chain, unsigned number);

/* One tunnel to a target being opened. Embedded by a front; zeroed before its first use; one use at a time.
 */
struct relay_opening {
    /* The last hop has answered 2xx: attach to the tunnel before returning. */
    void (*on_open)(struct relay_opening *opening, struct relay_tunnel *tunnel);
    void (*on_failed)(struct relay_opening *opening, const struct relay_failure *failure);
    /* Whether nobody wants it any more. Asked when the line is full; yes: on_failed comes. NULL: not known. */
    bool (*is_deserted)(struct relay_opening *opening);
    /* private */
    struct relay_chain *chain; /* NULL: not in use */
    struct relay_opening *prev, *next;
    struct relay_tunnel *tunnel; /* NULL: waiting */
    struct relay_timer deadline;
    struct relay_task task; /* tells `failure`, or asks again */
    struct relay_failure failure;
    struct relay_host host;
    uint16_t port;
    const char *asked;  /* who was, as the configuration names it; NULL: nobody yet */
    unsigned tokenless; /* relay_hop_tokenless of that hop */
    bool is_udp;
    bool asks_again;  /* the task is to: the last hop shuts down, its successor may be there */
    bool asked_again; /* once is enough */
};

/* Exactly one of the two callbacks comes, never from inside this call. The name travels unresolved. */
void relay_chain_open(struct relay_chain *chain, struct relay_opening *opening, bool is_udp,
                      const struct relay_host *host, uint16_t port);
/* No callback comes after. Fine on one that was told, or never used. */
void relay_opening_cancel(struct relay_opening *opening);

#endif
