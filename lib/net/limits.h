/* What a peer may cost us. One set per listener side; the numbers are the defaults of threats B to D. */
#ifndef RELAY_NET_LIMITS_H
#define RELAY_NET_LIMITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/net/loop.h"

struct relay_limits {
    uint32_t max_streams;               /* per connection before its first accepted token */
    uint32_t max_streams_authenticated; /* and after it */
    uint32_t head_fields;               /* fields of a head, cookie crumbs counted each */
    uint32_t head_bytes;                /* decoded, names and values */
    uint64_t handshake_timeout;         /* ns, from accept to the end of the TLS or QUIC handshake */
    uint64_t head_timeout;              /* ns, from a head's first byte to its last (T02) */
    uint64_t idle_timeout;              /* ns, a connection without open request streams */
    uint64_t quic_idle_timeout;         /* ns, offered as max_idle_timeout (T82) */
    uint32_t reset_burst;               /* request streams the peer may reset early: bucket size (T10) */
    uint32_t reset_rate;                /* and refill per second */
    uint32_t own_reset_burst;           /* stream errors of the peer's making, our RST_STREAMs (T11) */
    uint32_t own_reset_rate;
    uint32_t
        control_frames; /* PING, SETTINGS, PRIORITY, empty DATA ... per second above which we close (T13) */
    size_t window_initial;    /* stream window before anything flowed: also the memory of a stalled tunnel */
    size_t window_max;        /* a flowing tunnel's window and send buffer grow up to this */
    uint32_t half_open_retry; /* QUIC handshakes in progress above which Retry is sent */
    uint32_t half_open_max;   /* and above which one of them makes room for another */
};

#define RELAY_LIMITS_DEFAULT                                                                                 \
    ((struct relay_limits){                                                                                  \
        .max_streams = 100,                                                                                  \
        .max_streams_authenticated = 1000,                                                                   \
        .head_fields = 100,                                                                                  \
        .head_bytes = 16384,                                                                                 \
        .handshake_timeout = 10 * RELAY_SECOND,                                                              \
        .head_timeout = 10 * RELAY_SECOND,                                                                   \
        .idle_timeout = 30 * RELAY_SECOND,                                                                   \
        .quic_idle_timeout = 120 * RELAY_SECOND,                                                             \
        .reset_burst = 400,                                                                                  \
        .reset_rate = 33,                                                                                    \
        .own_reset_burst = 100,                                                                              \
        .own_reset_rate = 10,                                                                                \
        .control_frames = 1000,                                                                              \
        .window_initial = 128 * 1024,                                                                        \
        .window_max = 6 * 1024 * 1024,                                                                       \
        .half_open_retry = 100,                                                                              \
        .half_open_max = 1000,                                                                               \
    })

/* Bytes of an ordinary response that its reader takes at least in idle_timeout: fewer are no progress. */
#define RELAY_PROGRESS_MIN 1024

/* A token bucket: `burst` at once, `rate` more each second. Time is CLOCK_MONOTONIC ns. */
struct relay_bucket {
    double level;
    uint64_t at;
    bool started;
};

/* Takes `n` from the bucket; false (and nothing taken) when it does not hold that much. */
bool relay_bucket_take(struct relay_bucket *bucket, double n, double burst, double rate, uint64_t now);

/* The worker's budget of flow-control credit beyond each tunnel's initial window, so that many flowing
 * tunnels cannot together promise more memory than the machine has. Credit once granted cannot be taken
 * back: it is charged when it is granted and returned when the stream ends. */
struct relay_budget {
    size_t limit, used;
};

/* A stream's receive window, RFC 9113 section 5.2 and RFC 9000 section 4. It starts at window_initial and
 * doubles up to window_max when the peer used half of it within two round trips, as far as the budget has room; once a
 * half took longer, only when two halves in a row took one round trip each. */
struct relay_window {
    struct relay_budget *budget;
    size_t size, charged;
    size_t consumed; /* since the last grant */
    size_t epoch_bytes;
    uint64_t epoch_at, consumed_at;
    size_t passed_over; /* so many bytes more say nothing of the path */
    bool was_quick;     /* the half before this one; it did not make the window grow */
    bool is_settled;    /* it has grown, and then a half took longer than two round trips */
};

void relay_window_init(struct relay_window *window, struct relay_budget *budget,
                       const struct relay_limits *limits);
/* `len` more bytes were taken by the consumer. Returns how much credit to grant to the peer now (0: not
 * yet; it comes in pieces of at least a quarter of the window). `rtt` in ns. */
size_t relay_window_consume(struct relay_window *window, const struct relay_limits *limits, size_t len,
                            uint64_t now, uint64_t rtt, bool may_grow);
void relay_window_dispose(struct relay_window *window);

#endif
