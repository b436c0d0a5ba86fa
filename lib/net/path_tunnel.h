/* A packet path (packet_path.h) through one CONNECT-UDP tunnel of the hop before: what carries hop 2's QUIC
 * inside hop 1.
 *
 * It may be used from the moment it is made: packets sent before the 2xx leave with the request, and copies
 * of the first eight are sent again at the 2xx when nothing has come back yet, because relays drop what comes
 * before they have opened their socket (RFC 9298 section 3.1) and the QUIC above would wait for a probe
 * timeout.
 *
 * A tunnel that cannot carry 1200 bytes yet (the hop below has not found its path MTU) tells on_mtu when it
 * can.
 *
 * Back-pressure instead of loss: when the hop below is blocked by its congestion window, `send` takes less
 * and `room` is 0 until on_writable; a dropped packet here costs the connection above most of its speed.
 */
#ifndef RELAY_NET_PATH_TUNNEL_H
#define RELAY_NET_PATH_TUNNEL_H

#include "lib/net/packet_path.h"
#include "lib/net/refusal.h"
#include "lib/net/session.h"

/* The largest packet that makes sense: more is never probed for. */
#define RELAY_PATH_TUNNEL_MTU_MAX 1500

struct relay_path_tunnel_config {
    struct relay_session *session;       /* the hop before, ready for requests */
    const struct relay_request *request; /* CONNECT-UDP; borrowed during the call */
    /* How many bytes the hop below takes now (relay_quic_conn_room of its connection); NULL: ask the tunnel.
     * Not called once the tunnel has ended. */
    size_t (*room)(void *carrier);
    void *carrier;
    /* The relay's answer was not a 2xx; on_close of the path follows with refusal->error. May be NULL. */
    void (*on_refused)(void *user, const struct relay_refusal *refusal);
    /* The tunnel has ended, for whoever could bring the connection above another path: told right after the
     * path's on_close, of which the connection above keeps silent. Not after close or detach. May be NULL. */
    void (*on_lost)(void *user, int error);
    void *user;
};

/* NULL: the session takes no more requests, or out of memory. `local` of the path is made up and new each
 * time, so that moving a connection to another path is a migration (RFC 9000 section 9). */
struct relay_packet_path *relay_path_tunnel_open(const struct relay_path_tunnel_config *config);

#endif
