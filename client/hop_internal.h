/* What hop.c, hop_path.c and hop_attempt.c share; nobody else includes this. */
#ifndef RELAY_CLIENT_HOP_INTERNAL_H
#define RELAY_CLIENT_HOP_INTERNAL_H

#include "client/hop.h"
#include "lib/net/stream.h"
#include "lib/net/tcp_dial.h"

#define RELAY_HOP_HEDGE (300 * RELAY_MS) /* of silence before the other way is tried beside the first */
#define RELAY_HOP_NEXT_ADDRESS                                                                               \
    (200 * RELAY_MS)          /* of silence before HTTP/3 is tried at the next one as well */
#define RELAY_HOP_HTTP3_MAX 4 /* addresses at which it is tried */
#define RELAY_HOP_TIMEOUT   (10 * RELAY_SECOND)

/* One try with one HTTP version. */
struct relay_attempt {
    struct relay_hop *hop;
    bool is_http3;
    bool started, failed, stopped;
    bool is_heard;                 /* HTTP/3: packets have come, which anybody on the way may have written */
    struct relay_tcp_dial *dial;   /* HTTP/2, hop 1: while connecting */
    struct relay_stream *stream;   /* HTTP/2: TLS, until the session takes it */
    struct relay_session *session; /* until its on_close */
    int error;
    char text[160]; /* why it failed, if more is known than the error's text */
    bool is_carrier_fault;
    struct relay_failure closed; /* a relay's refusal to carry, as the failure it makes */
};

/* HTTP/2 finds its address itself (tcp_dial.h); HTTP/3 has an attempt for each. */
/* HTTP/3 stands first, one for each address: what it was told is what the user is told. */
enum { RELAY_ATTEMPT_HTTP3, RELAY_ATTEMPT_HTTP2 = RELAY_HOP_HTTP3_MAX, RELAY_ATTEMPTS };

enum relay_hop_state { RELAY_HOP_CONNECTING, RELAY_HOP_READY, RELAY_HOP_DEAD };

struct relay_hop {
    struct relay_hop_params params;
    const struct relay_hop_place *place;
    const struct relay_hop_user *cb; /* NULL after on_close or relay_hop_close */
    void *user;
    enum relay_hop_state state;
    struct relay_loop *loop;
    struct relay_task task; /* tells what is due, and frees */
    struct relay_timer hedge, next_address, deadline;
    struct relay_lookup lookup;
    struct relay_address addresses[RELAY_RESOLVER_ADDRESSES_MAX]; /* hop 1; the families take turns */
    size_t num_addresses;
    bool more_follow;           /* the other family's addresses are to come */
    size_t num_http3;           /* attempts begun, at the first so many addresses */
    struct relay_address local; /* for the memory */
    struct relay_attempt attempts[RELAY_ATTEMPTS];
    struct relay_attempt *winner;
    bool may_http3;                   /* the configuration and the carrier allow it */
    uint64_t look_at, doubt_at;       /* ns, of relay_hop_doubt_network: the next time */
    struct relay_address other_local; /* what it found last */
    bool ready_due, goaway_due, path_lost_due, close_due;
    struct relay_failure failure;
};

/* ---- hop_attempt.c ---- */

/* Starts it; a failure is told through relay_hop_attempt_failed, maybe at once. `address` only for hop 1's
 * HTTP/3. */
void relay_attempt_start_http3(struct relay_attempt *attempt, const struct relay_address *address);
void relay_attempt_start_http2(struct relay_attempt *attempt);
/* Late addresses of hop 1, for an attempt with HTTP/2 that was begun with hop->more_follow. */
void relay_attempt_add_addresses(struct relay_attempt *attempt, const struct relay_address *addresses,
                                 size_t num);
/* Ends whatever it has; the session's memory stays until its on_close. */
void relay_attempt_stop(struct relay_attempt *attempt);
/* A new path to this hop through a carrier. NULL: it takes no more. */
struct relay_packet_path *relay_hop_open_path(struct relay_hop *hop, struct relay_hop *carrier,
                                              struct relay_attempt *attempt);

/* ---- hop.c: what attempts tell ---- */

void relay_hop_attempt_ready(struct relay_attempt *attempt);
void relay_hop_attempt_failed(struct relay_attempt *attempt, int error);
void relay_hop_attempt_goaway(struct relay_attempt *attempt);
void relay_hop_attempt_path_lost(struct relay_attempt *attempt);
/* The attempt has lost its session: the hop's memory may go. */
void relay_hop_attempt_gone(struct relay_attempt *attempt);

#endif
