/* A worker without sockets: a test plays the HTTP peer of the handler modules, through the server's own
 * request adapter.
 *
 *   loopback_init; change loopback.snapshot; register handlers on loopback.path; loopback_start;
 *   loopback_request for each stream; loopback_deliver_*, loopback_wait; loopback_dispose
 *
 * A stream collects what the peer would receive and stays readable until loopback_dispose, also when the
 * tunnel is gone. */
#ifndef RELAY_TESTS_LOOPBACK_H
#define RELAY_TESTS_LOOPBACK_H

#include <h2o.h>

#include "lib/net/metrics.h"
#include "modules/env.h"
#include "server/connection.h"

#define LOOPBACK_STREAMS   256
#define LOOPBACK_DATAGRAMS 64

struct loopback_datagram {
    uint64_t context_id;
    uint8_t *bytes;
    size_t len;
};

struct loopback_stream {
    struct relay_tunnel tunnel; /* first */
    struct loopback *loopback;
    /* What the peer has received. */
    int status;      /* 0: no head yet */
    char head[2048]; /* "name: value\n" for each field */
    int64_t content_length;
    bool has_ended; /* the clean end of our direction */
    uint8_t bytes[262144];
    size_t len;
    struct loopback_datagram datagrams[LOOPBACK_DATAGRAMS];
    size_t num_datagrams;
    bool is_reset;
    int reset_error; /* what the module aborted with */
    bool is_gone;    /* the tunnel's memory is no longer in use */
    /* How the peer and its connection behave. */
    size_t room;         /* bytes that the stream still takes; SIZE_MAX at first */
    size_t max_datagram; /* 0: no DATAGRAM frames; 1200 at first */
    bool is_blocked;     /* DATAGRAM frames do not fit now */
    bool peer_has_ended;
    bool is_reading;
    size_t consumed;
};

struct loopback {
    struct relay_env env; /* first */
    struct relay_loop loop;
    struct relay_metrics metrics;
    struct relay_budget budget;
    struct relay_snapshot *snapshot;
    h2o_globalconf_t conf;
    h2o_pathconf_t *path;
    struct relay_connection *conn;
    struct relay_session session;
    bool is_shut_down;
    uint32_t max_streams;
    struct loopback_stream *streams[LOOPBACK_STREAMS];
    size_t num_streams;
};

void loopback_init(struct loopback *loopback);
void loopback_start(struct loopback *loopback);
void loopback_dispose(struct loopback *loopback);

/* The HTTP peer's address and the version of the streams opened from now on. */
void loopback_set_peer(struct loopback *loopback, const char *address);

/* Opens a stream and runs the handlers. `protocol` NULL: a classic CONNECT to `target`, else an extended
 * CONNECT with the path `target`; "GET" as protocol: an ordinary request. `fields`: "name: value\n" for each,
 * NULL for none. */
struct loopback_stream *loopback_request(struct loopback *loopback, const char *protocol, const char *target,
                                         const char *fields);
void loopback_deliver(struct loopback_stream *stream, const void *bytes, size_t len);
void loopback_deliver_fin(struct loopback_stream *stream);
void loopback_deliver_datagram(struct loopback_stream *stream, uint64_t context_id, const void *bytes,
                               size_t len);
void loopback_deliver_capsule(struct loopback_stream *stream, uint64_t type, const void *value, size_t len);
/* The peer resets the stream, or is gone. */
void loopback_vanish(struct loopback_stream *stream);
void loopback_writable(struct loopback_stream *stream);

/* Runs turns until the condition holds, at most some seconds; it may have side effects. */
#define loopback_wait(loopback, condition)                                                                   \
    do {                                                                                                     \
        bool holds_ = (condition);                                                                           \
        for (int turn_ = 0; turn_ < 5000 && !holds_; turn_++) {                                              \
            loopback_turn(loopback);                                                                         \
            holds_ = (condition);                                                                            \
        }                                                                                                    \
        if (!holds_)                                                                                         \
            fail_msg("never: %s", #condition);                                                               \
    } while (0)
/* One turn of the loop, a millisecond at most. */
void loopback_turn(struct loopback *loopback);
/* Some turns, for what must not happen. */
void loopback_turns(struct loopback *loopback, int turns);

/* The first value of the field in the response's head, in a static buffer; NULL: not there. */
const char *loopback_field(const struct loopback_stream *stream, const char *name);

#endif
