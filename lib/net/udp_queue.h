/* What is on its way out of a UDP socket to one peer: datagrams gathered into batches of equal ones, each of
 * which leaves as one UDP_SEGMENT send. Part of a UDP flow, which owns the socket and says when to flush.
 */
#ifndef RELAY_NET_UDP_QUEUE_H
#define RELAY_NET_UDP_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "lib/net/metrics.h"
#include "lib/net/tunnel.h"

struct relay_udp_queue {
    struct relay_metrics *metrics; /* datagrams_in and udp_bytes_in; drop_socket, _target_too_big, _closed */
    int fd;
    const struct sockaddr *peer; /* the owner's; NULL: the socket is connected */
    bool gso;                    /* the socket's route takes UDP_SEGMENT */
    bool is_blocked;             /* the socket is full: flush when it is writable */
    uint8_t *bytes;              /* NULL while nothing waits */
    size_t begin, end, size;
    size_t last; /* where the batch stands that may still grow */
    size_t num_batches;
    bool last_is_open;
};

void relay_udp_queue_init(struct relay_udp_queue *queue, struct relay_metrics *metrics, int fd);
void relay_udp_queue_dispose(struct relay_udp_queue *queue); /* drops what waits */
/* Copies the run. Full batches are sent at once, while their bytes are in the core's cache, and many small ones too, so
 * that whoever shares out the turn sees what they cost; what neither the socket nor the queue (256 KiB) takes is dropped
 * and counted. */
void relay_udp_queue_add(struct relay_udp_queue *queue, const struct relay_run *run);
/* Sends what waits; is_blocked says whether all of it is gone. */
void relay_udp_queue_flush(struct relay_udp_queue *queue);
/* What waits is dropped and counted (drop_closed). */
void relay_udp_queue_drop(struct relay_udp_queue *queue);

static inline bool relay_udp_queue_is_empty(const struct relay_udp_queue *queue)
{
    return queue->begin == queue->end;
}

#endif
