/* Requests that nobody wants any more before they were answered: the application has closed its connection, a scan
 * goes on to the next port.
 *
 * Each is reset, which ends its dial at once. A relay closes a connection with too many of these resets (rapid reset;
 * ours after 400, and 33 more each second), and every tunnel on it dies: so of a crowd the rest is left to be
 * answered, and ended then.
 *
 * And tunnels whose exchange is over before the other side has ended it: they end in order.
 */
#ifndef RELAY_CLIENT_ABANDONED_H
#define RELAY_CLIENT_ABANDONED_H

#include "lib/net/limits.h"
#include "lib/net/tunnel.h"

/* Half of what our relays bear: the connection may be older than the bucket. */
#define RELAY_ABANDONED_BURST 200
#define RELAY_ABANDONED_RATE  16
/* A relay gives up its own dial before; then the tunnel is reset. */
#define RELAY_ABANDONED_PATIENCE (15 * RELAY_SECOND)

/* One for a chain. Zeroed is ready. */
struct relay_abandoned {
    struct relay_bucket resets;
};

/* Takes the tunnel, whose answer has not come, from its user. From anywhere a user may call. */
void relay_abandoned_add(struct relay_abandoned *abandoned, struct relay_tunnel *tunnel);
/* Takes the open tunnel, of which all was said and heard: ends it, and waits for the other side's end. */
void relay_abandoned_finish(struct relay_tunnel *tunnel);

#endif
