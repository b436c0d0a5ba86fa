/* The closing period of a client's connection (RFC 9000 section 10.2.1): its CONNECTION_CLOSE is sent once and nobody
 * acknowledges it, so when the queue before the uplink is full it is lost, and the relay would keep the connection and
 * its tunnels until an idle timeout.
 *
 * It is sent again for the first, second, fourth, eighth ... packet that comes, and each PTO until nothing has come for
 * one: that is one PTO when all is quiet, three at most, and never more than half a second. A path that was blocked, as
 * one through a hop that waits for its congestion window, takes it when it can.
 *
 * Lifetime: it frees itself when it is over or the path is dead; relay_loop_cut_lingering ends it at once.
 */
#ifndef RELAY_NET_QUIC_FAREWELL_H
#define RELAY_NET_QUIC_FAREWELL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/net/loop.h"
#include "lib/net/packet_path.h"

struct relay_quic_farewell_params {
    struct relay_loop *loop;
    struct relay_packet_path *path; /* taken, also when memory is out */
    enum relay_level level;         /* at which the connection was flushed */
    const uint8_t *packet;          /* copied: the packet with the CONNECTION_CLOSE */
    size_t len;
    bool is_sent;  /* once already */
    uint64_t pto;  /* ns */
    size_t *count; /* one more while it lasts; outlives it */
};

void relay_quic_farewell_begin(const struct relay_quic_farewell_params *params);

#endif
