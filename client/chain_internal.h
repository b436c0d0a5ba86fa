/* What chain.c and opening.c share; nobody else includes this. */
#ifndef RELAY_CLIENT_CHAIN_INTERNAL_H
#define RELAY_CLIENT_CHAIN_INTERNAL_H

#include "client/abandoned.h"
#include "client/chain.h"

#define RELAY_CHAIN_RETIRED_MAX 4

/* The place of a hop in the chain. */
struct relay_link {
    struct relay_chain *chain;
    struct relay_hop *hop; /* NULL: none */
    unsigned index;        /* from 0 */
    bool ready;
    bool needs_path;       /* its carrier has gone; since `since` */
    bool moved;            /* it is not on the path it was made on; since `since` */
    bool draining;         /* GOAWAY came */
    uint64_t since;        /* ready, moved, or without a path */
    uint64_t silent_since; /* 0: it is not */
};

struct relay_chain {
    struct relay_hop_environment *environment;
    const struct relay_client_config *config;
    struct relay_loop *loop;
    struct relay_hop_trust trusts[RELAY_HOPS_MAX];
    struct relay_link links[RELAY_HOPS_MAX];
    struct relay_link standby;                          /* another hop 1, while the one in use is in doubt */
    struct relay_link retired[RELAY_CHAIN_RETIRED_MAX]; /* last hops that take no new tunnels */
    size_t place, standby_place;
    bool is_stopped;
    unsigned failures;     /* attempts in a row that did not bring the chain up */
    uint64_t retry_at;     /* ns */
    uint64_t last_used;    /* ns; of an opening */
    uint64_t last_standby; /* ns */
    struct relay_timer retry, watch;
    struct relay_task advance; /* connect what is missing */
    struct relay_failure last_failure;
    struct relay_opening *waiting, **waiting_end; /* first come, first served */
    size_t num_waiting;
    struct relay_opening *opening; /* asked for, not answered */
    struct relay_abandoned abandoned;
};

/* ---- opening.c ---- */

/* The chain is up: sends the requests that wait. */
void relay_chain_serve(struct relay_chain *chain);
/* Fails all that wait. */
void relay_chain_refuse(struct relay_chain *chain, const struct relay_failure *failure);

#endif
