/* A tunnel's place in the books: the limits it counts against, the metrics and the log lines of its life. The
 * same for TCP and UDP tunnels.
 *
 * Limits (snapshot->caps): tunnels per connection, tunnels per token over all workers, over all workers too the share of
 * the descriptors of a token, or with auth off of a source (modules/token_account.h), and dials in flight per
 * connection and, on a worker, per token; a dial over the last one waits its turn, so that a burst of requests
 * neither fails nor floods the resolver. A name that is still asked of DNS when its dial is over, or its client
 * gone, keeps the token's place until it has ended (relay_ticket_payer).
 *
 * Order of calls: relay_ticket_take; relay_ticket_dial, then relay_ticket_dialled when name and address have
 * been tried; after the tunnel was accepted relay_ticket_opened; relay_ticket_release at the end in any case,
 * also on a zeroed ticket.
 */
#ifndef RELAY_MODULES_ADMISSION_H
#define RELAY_MODULES_ADMISSION_H

#include "lib/wire/authority.h"
#include "modules/env.h"

/* What one connection has open, and what one token, or with auth off one source, dials on this worker. */
struct relay_account;
struct relay_run;
struct relay_token_account;

/* Embedded in the tunnel's object. */
struct relay_ticket {
    /* private */
    struct relay_env *env;
    struct relay_tunnel *tunnel;
    struct relay_account *connection, *dialler;
    struct relay_token_account *payer_account;  /* the token's or source's, and so is dialler */
    struct relay_token_account *token;          /* the same; NULL without one */
    struct relay_account *queue;                /* where it waits to dial; NULL: it does not */
    struct relay_ticket *prev, *next;           /* in that */
    struct relay_ticket *prev_held, *next_held; /* in the list of those that have a token */
    void (*on_turn)(struct relay_ticket *ticket);
    struct relay_task task;
    bool is_dialling, is_open, is_udp;
    /* public: relay_ticket_meter must be asked before datagrams go to the target */
    bool is_metered;
    enum relay_http_version version; /* private; once it is open */
};

/* Counts the tunnel. 0, or RELAY_ERR_SHUTDOWN (draining), RELAY_ERR_LIMIT (counted in limit_tunnels),
 * RELAY_ERR_NO_MEMORY; the ticket is then zeroed. Reads the request's token (relay_auth_token_of). */
int relay_ticket_take(struct relay_ticket *ticket, h2o_req_t *req, struct relay_tunnel *tunnel,
                      const struct relay_snapshot *snapshot);

/* on_turn comes once, from a task: at the end of this turn, or when another dial of the connection, or of the
 * token, is over. */
void relay_ticket_dial(struct relay_ticket *ticket, void (*on_turn)(struct relay_ticket *ticket));
/* The dial is over, well or badly: the lookup has been cancelled before. Fine when there was none. */
void relay_ticket_dialled(struct relay_ticket *ticket);
/* For the dial's lookup: so that no token, and with auth off no source, takes all of the resolver. */
struct relay_lookup_payer *relay_ticket_payer(const struct relay_ticket *ticket);

/* The 2xx is out: counts the tunnel as open and, until snapshot->observe_until, logs who reaches what. That is the
 * only line that names a client or a target. */
void relay_ticket_opened(struct relay_ticket *ticket, bool is_udp, const struct relay_snapshot *snapshot,
                         const struct relay_host *host, uint16_t port);
/* Only of a ticket that is_metered. Takes the run's datagrams, which are about to go to the target, from what the token may send per second
 * (caps.udp_packets_per_token, caps.udp_bytes_per_token). The run is shortened to those that may go, the rest
 * counted in drop_token_rate; false: none may. */
bool relay_ticket_meter(struct relay_ticket *ticket, const struct relay_snapshot *snapshot,
                        struct relay_run *run);
/* The tunnel's on_close(error) has come (the tunnel's counters are read a last time), or it was refused. */
void relay_ticket_release(struct relay_ticket *ticket, int error);

/* After the worker has another snapshot: aborts the tunnels whose token is not in its file any more
 * (relay_token_accounts_judge), with RELAY_ERR_UNAUTHORIZED. */
void relay_admission_revoke(struct relay_env *env);

/* At the end of a worker, when no ticket is left and the resolver has been freed. */
void relay_admission_free(struct relay_admission *admission);

#endif
