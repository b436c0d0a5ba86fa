#include "lib/net/quic_ring.h"

#include <stdatomic.h>
#include <stdlib.h>

#define MASK (RELAY_QUIC_RING_SIZE - 1) /* the size is a power of two */

/* Places are numbered without end; place n is packets[n & MASK]. Its turn says whose it is: n: free for whoever
 * claims n; n + 1: published; n + RELAY_QUIC_RING_SIZE: free for the next round. The turns stand apart from the packets, whose
 * memory is not touched before it is used. */
struct relay_quic_ring {
    atomic_size_t head; /* the place that is claimed next */
    size_t tail;        /* the place that is read next; the worker's alone */
    atomic_bool is_awake;
    atomic_size_t turns[RELAY_QUIC_RING_SIZE];
    struct relay_quic_ring_packet packets[RELAY_QUIC_RING_SIZE];
};

struct relay_quic_ring *relay_quic_ring_new(void)
{
    struct relay_quic_ring *ring = calloc(1, sizeof(*ring));
    if (ring == NULL)
        return NULL;
    for (size_t i = 0; i < RELAY_QUIC_RING_SIZE; i++)
        atomic_init(&ring->turns[i], i);
    return ring;
}

void relay_quic_ring_free(struct relay_quic_ring *ring)
{
    free(ring);
}

struct relay_quic_ring_packet *relay_quic_ring_claim(struct relay_quic_ring *ring)
{
    size_t place = atomic_load_explicit(&ring->head, memory_order_relaxed);
    for (;;) {
        size_t turn = atomic_load_explicit(&ring->turns[place & MASK], memory_order_acquire);
        if (turn == place) {
            if (atomic_compare_exchange_weak_explicit(&ring->head, &place, place + 1, memory_order_relaxed,
                                                      memory_order_relaxed))
                return &ring->packets[place & MASK];
        } else if (turn < place) {
            return NULL; /* still of the round before */
        } else {
            place = atomic_load_explicit(&ring->head, memory_order_relaxed);
        }
    }
}

bool relay_quic_ring_publish(struct relay_quic_ring *ring, struct relay_quic_ring_packet *packet)
{
    atomic_size_t *turn = &ring->turns[packet - ring->packets];
    size_t place = atomic_load_explicit(turn, memory_order_relaxed);
    atomic_store_explicit(turn, place + 1, memory_order_release);
    /* Together with the exchange in rest: either the worker sees the packet, or we see that it rests. */
    return !atomic_exchange(&ring->is_awake, true);
}

void relay_quic_ring_rest(struct relay_quic_ring *ring)
{
    (void)atomic_exchange(&ring->is_awake, false);
}

struct relay_quic_ring_packet *relay_quic_ring_first(struct relay_quic_ring *ring)
{
    size_t turn = atomic_load_explicit(&ring->turns[ring->tail & MASK], memory_order_acquire);
    return turn == ring->tail + 1 ? &ring->packets[ring->tail & MASK] : NULL;
}

void relay_quic_ring_drop_first(struct relay_quic_ring *ring)
{
    atomic_store_explicit(&ring->turns[ring->tail & MASK], ring->tail + RELAY_QUIC_RING_SIZE,
                          memory_order_release);
    ring->tail++;
}
