/* The packets of a connection that wait to be sent, in runs: packets of one size for one path lie one behind
 * the other, only the last of a run may be shorter, which is what UDP_SEGMENT takes. One buffer holds a few
 * runs, because a longer packet may follow a run that the path did not take.
 *
 * Order of calls: `room` says where the next packet may be written (ngtcp2 commits a packet when it writes
 * it, so there must be a place first), `append` adds it, `send` passes what is there to the path. The buffer
 * is borrowed from a pool of the thread while something is in it: an idle connection holds none.
 */
#ifndef RELAY_NET_QUIC_RUN_H
#define RELAY_NET_QUIC_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <ngtcp2/ngtcp2.h>

#include "lib/net/packet_path.h"

#define RELAY_QUIC_PACKET_MAX 1500 /* the largest packet we ever write */
#define RELAY_QUIC_RUNS       4

struct relay_quic_run {
    size_t at, len, segment, count;
    bool is_full; /* its last packet was shorter, or a limit of the kernel's is reached */
    ngtcp2_path_storage path;
};

struct relay_quic_runs {
    uint8_t *buffer;
    size_t end;                                  /* of what is in the buffer */
    struct relay_quic_run runs[RELAY_QUIC_RUNS]; /* the first `num_runs` */
    size_t num_runs;
    size_t bytes; /* waiting */
};

/* The room a user of the pool registers for, once per connection; the last one to leave frees the pool's
 * buffers. */
void relay_quic_runs_init(struct relay_quic_runs *runs);
void relay_quic_runs_dispose(struct relay_quic_runs *runs);

/* Where RELAY_QUIC_PACKET_MAX bytes may be written; NULL: full (send first) or out of memory. */
uint8_t *relay_quic_runs_room(struct relay_quic_runs *runs);
/* The packet of `len` bytes written there goes over `path`. */
void relay_quic_runs_append(struct relay_quic_runs *runs, const ngtcp2_path *path, size_t len);
/* Sends in order over the path. A client's run whose local address is not the path's any more is dropped; a
 * server's path is told where each run goes (`follow`). True: all is gone; false: the path is blocked, the
 * rest is kept. */
bool relay_quic_runs_send(struct relay_quic_runs *runs, struct relay_packet_path *path, bool follow);
/* Whether a whole run is complete, so that it is time to send. */
bool relay_quic_runs_is_due(const struct relay_quic_runs *runs);

#endif
