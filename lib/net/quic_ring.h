/* Packets on their way to one worker from all others: a bounded ring, allocated once, that any thread fills and the
 * worker's own empties. Nobody waits for a lock; what finds it full is dropped by whoever brought it.
 *
 * Order of calls, any thread: claim, fill, publish. The worker's thread: rest, then first and drop_first until first
 * is NULL. `rest` comes before reading, so that what is published after the last look wakes it again.
 */
#ifndef RELAY_NET_QUIC_RING_H
#define RELAY_NET_QUIC_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <netinet/in.h>

#define RELAY_QUIC_RING_SIZE   1024
#define RELAY_QUIC_RING_PACKET 1500 /* larger ones do not come over an interface of 1500 */

struct relay_quic_ring_packet {
    struct sockaddr_in6 local, peer; /* or a sockaddr_in in its place */
    size_t len, too_big;             /* as in relay_quic_packet */
    uint8_t ecn;
    uint8_t bytes[RELAY_QUIC_RING_PACKET];
};

struct relay_quic_ring;

struct relay_quic_ring *relay_quic_ring_new(void);       /* NULL: out of memory */
void relay_quic_ring_free(struct relay_quic_ring *ring); /* NULL is fine */

/* A place to fill; publish it in any case. NULL: the ring is full. */
struct relay_quic_ring_packet *relay_quic_ring_claim(struct relay_quic_ring *ring);
/* True: the worker rests, and the caller wakes it. */
bool relay_quic_ring_publish(struct relay_quic_ring *ring, struct relay_quic_ring_packet *packet);

void relay_quic_ring_rest(struct relay_quic_ring *ring);
/* The oldest packet, until it is dropped; NULL: there is none. */
struct relay_quic_ring_packet *relay_quic_ring_first(struct relay_quic_ring *ring);
void relay_quic_ring_drop_first(struct relay_quic_ring *ring);

#endif
