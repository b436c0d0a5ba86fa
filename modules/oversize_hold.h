/* Datagrams from a target that do not fit the path to the HTTP peer yet. A QUIC path begins with small
 * packets and is probed upward; an inner handshake's first flight (1280 bytes and more with some peers) comes
 * before the first probe is acknowledged, and lost it costs the inner connection a second. So a few are kept
 * for about one round trip and tried again.
 *
 * Bounded: 8 datagrams of at most 1500 bytes, 100 ms each. What does not fit then, or does not fit in here,
 * is dropped and counted in drop_too_big; what is kept when the tunnel ends in drop_closed. */
#ifndef RELAY_MODULES_OVERSIZE_HOLD_H
#define RELAY_MODULES_OVERSIZE_HOLD_H

#include "lib/net/tunnel.h"

#define RELAY_OVERSIZE_HOLD_DATAGRAMS 8
#define RELAY_OVERSIZE_HOLD_MAX       1500 /* what is longer fits no path */
#define RELAY_OVERSIZE_HOLD_TIME      (100 * RELAY_MS)

/* Embedded in the tunnel's object, small while it is empty. Zeroed it is not ready: init; dispose before the
 * tunnel is gone. */
struct relay_oversize_hold {
    struct relay_tunnel *tunnel;
    struct relay_oversize_item *items; /* NULL: empty */
    size_t count;
    struct relay_timer timer;
};

void relay_oversize_hold_init(struct relay_oversize_hold *hold, struct relay_tunnel *tunnel);
void relay_oversize_hold_dispose(struct relay_oversize_hold *hold); /* fine on a zeroed one */
/* Copies the run's first datagram (context 0), or drops and counts it. */
void relay_oversize_hold_take(struct relay_oversize_hold *hold, const struct relay_run *run);

#endif
