/* What the files of the chain share; nobody else includes this. */
#ifndef RELAY_CLIENT_CHAIN_INTERNAL_H
#define RELAY_CLIENT_CHAIN_INTERNAL_H

#include "client/abandoned.h"
#include "client/chain.h"

#define RELAY_CHAIN_RETIRED_MAX  4
#define RELAY_CHAIN_SILENT_LOOKS 3 /* of the watch: a processor that was away for a moment is no silence */

/* The place of a hop in the chain, or beside it. */
struct relay_link {
    struct relay_chain *chain;
    struct relay_hop *hop; /* NULL: none */
    unsigned index;        /* from 0 */
    bool ready;
    bool needs_path; /* its carrier has gone; since `since` */
    bool moved;      /* it is not on the path it was made on; since `since` */
    bool draining;   /* GOAWAY came */
    bool has_served; /* the hop behind it was connected through it; the last one has answered a request */
    uint64_t since;  /* ready, moved, or without a path */
    uint64_t silent_since; /* it alone; 0: it is not */
    unsigned silent_looks; /* hop 1: how often in a row the watch found it silent */
    unsigned unanswered;   /* moves in a row that ended at a living carrier before anything came from it */
};

struct relay_chain {
    struct relay_hop_environment *environment;
    const struct relay_client_config *config;
    struct relay_loop *loop;
    struct relay_hop_trust trusts[RELAY_HOPS_MAX];
    struct relay_link links[RELAY_HOPS_MAX];
    struct relay_link standby;                          /* another hop 1, while the one in use is in doubt */
    struct relay_link retired[RELAY_CHAIN_RETIRED_MAX]; /* last hops that take no new tunnels */
    struct relay_link kept[RELAY_CHAIN_RETIRED_MAX];    /* hops that left the chain and carry such */
    size_t place, standby_place;
    bool is_stopped;
    uint64_t stop_until; /* ns; then no hop waits any more for those inside it to have said good-bye */
    bool stays;          /* at this ingress: what is wrong with the hops behind it, another sees too */
    unsigned tried;      /* ingresses, in this round */
    /* Rounds in a row that did not bring the chain up, or not for long enough to be of use. */
    unsigned failures;
    uint64_t failed_at;    /* ns; the last attempt */
    uint64_t retry_at;     /* ns */
    uint64_t last_used;    /* ns; of an opening */
    uint64_t last_standby; /* ns */
    unsigned short_lived;  /* hop 1s in a row that were told to go soon after they came into use */
    struct relay_timer retry, watch;
    struct relay_task advance; /* connect what is missing */
    struct relay_failure last_failure;
    struct relay_opening *waiting, **waiting_end; /* first come, first served */
    size_t num_waiting;
    struct relay_opening *opening; /* asked for, not answered */
    struct relay_abandoned abandoned;
};

/* ---- chain.c ---- */

void relay_link_clear(struct relay_link *link);
void relay_link_close(struct relay_link *link);
/* To be asked at every look: whether it has been silent for too long. Over HTTP/2 it never is: that ends by itself. */
bool relay_link_is_silent_long(struct relay_link *link, bool is_silent);
/* The hop at `index` and those behind it. */
void relay_chain_close_from(struct relay_chain *chain, size_t index);
/* False: not now, for want of memory, or because the hop before has died and its end is still to be told. */
bool relay_chain_connect(struct relay_link *link, size_t place);
/* To the hop before it in the chain. 0, or relay_hop_move's error. */
int relay_link_try_move(struct relay_link *link, const char **why);
/* The same; what cannot move is closed, with what stands on it. */
void relay_chain_move(struct relay_link *link);

/* ---- chain_standby.c: another hop 1 beside the one in doubt, which drains or has fallen silent ---- */

/* If there is a doubt, and something to gain. From the watch. */
void relay_chain_start_standby(struct relay_chain *chain);
/* It is ready, and takes over if there still is a reason. What cannot move stays on the old one and is retired. */
void relay_chain_adopt_standby(struct relay_chain *chain);

/* ---- chain_failures.c: failures and back-off ---- */

void relay_chain_log_failure(const struct relay_failure *failure);
/* The next attempt is made at the next ingress. */
void relay_chain_next_place(struct relay_chain *chain);
/* An attempt to bring the chain up has failed. The next ingress is tried at once, if it can help; those who wait
 * are told when all have failed. */
void relay_chain_count_failure(struct relay_chain *chain, const struct relay_failure *failure,
                               bool another_helps);
/* The chain has been of use. */
void relay_chain_forget_failures(struct relay_chain *chain);
/* It closes as soon as it was there, and had carried or answered nothing. */
bool relay_link_was_in_vain(const struct relay_link *link);
/* The hop at `index` was there, but has gone or takes no more before it was of use: a failed attempt, or a relay that says
 * good-bye each time would be connected without a pause. After the first one those who wait are not told: it may have been
 * a relay's last moment, and its successor is there. */
void relay_chain_count_vain(struct relay_chain *chain, const struct relay_failure *failure, unsigned index);
/* What ends as soon as it is there is not connected again at once. Else a lost hop 1 is, whatever the hops behind it
 * do: there may be tunnels that wait for it. */
void relay_link_set_retry(const struct relay_link *link);
/* Hop 1 was told to go: another one is looked for less and less often when each is as soon as it has taken over
 * (chain->short_lived doublings of the pause). */
void relay_chain_count_short_life(const struct relay_link *first);
/* Somebody asks while the chain is not up: it is tried at once when the last attempt is old enough. False:
 * there was one just now, and several before it. */
bool relay_chain_hurry(struct relay_chain *chain);

/* ---- chain_retired.c: last hops that take no new tunnels, and the hops that carry them. Whatever becomes of
 * the chain, they live until their tunnels have ended ---- */

/* Takes the last hop out of the chain. */
void relay_chain_retire(struct relay_link *link);
/* A hop leaves the chain: it is kept while retired ones are on it, else closed. */
void relay_chain_put_aside(struct relay_link *link);
/* Whether a retired one is on the way through `hop` and could go another. */
bool relay_chain_has_retired_on(const struct relay_chain *chain, const struct relay_hop *hop);
/* Whether a retired one waits for a path through the hop at `index`, or one before it. */
bool relay_chain_retired_wait(const struct relay_chain *chain, size_t index);
/* Moves those that wait for a path, and those on the way through `from` (may be NULL), to the chain's. */
void relay_chain_move_retired(struct relay_chain *chain, const struct relay_hop *from);
/* It is one of them, or one of the kept; its carrier has gone. */
void relay_chain_retired_path_lost(struct relay_link *link);
/* Closes what has no tunnels any more, or was kept and is not needed. True: there still are some of either kind. */
bool relay_chain_watch_retired(struct relay_chain *chain);
void relay_chain_close_retired(struct relay_chain *chain);
/* Those that carry no other one, whose farewell leaves through it. True: some are left. */
bool relay_chain_close_kept(struct relay_chain *chain);

/* ---- chain_stop.c ---- */

/* A stopped chain's next step; it queues `advance`, or sets `retry`, until no hop is left. */
void relay_chain_close_innermost(struct relay_chain *chain);

/* ---- chain_trust.c ---- */

/* Of every hop. RELAY_OK, or an error with the reason in `text`; then there is nothing to dispose of. */
int relay_chain_init_trusts(struct relay_hop_trust trusts[RELAY_HOPS_MAX],
                            const struct relay_client_config *config, char *text, size_t size);

/* ---- opening.c ---- */

/* The chain is up: sends the requests that wait. */
void relay_chain_serve(struct relay_chain *chain);
/* Requests to which no answer has come are made anew, through what is the chain now. */
void relay_chain_ask_again(struct relay_chain *chain);
/* Fails all that wait. */
void relay_chain_refuse(struct relay_chain *chain, const struct relay_failure *failure);

#endif
