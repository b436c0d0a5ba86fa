/* A local TCP connection joined to a target through the chain: opens the tunnel, lets the front say its word
 * to the application, and splices both (splice.h). What the application sends meanwhile stays in its socket.
 */
#ifndef RELAY_CLIENT_JOIN_H
#define RELAY_CLIENT_JOIN_H

#include "client/chain.h"
#include "lib/net/stream.h"

#define RELAY_JOIN_IDLE (7200 * RELAY_SECOND) /* nothing passes for so long: the egress has long given up */

struct relay_join_user {
    /* The application may send all it has to say, and its FIN, before it hears that the tunnel is open. Else a FIN
     * until then says that it has gone. */
    bool may_end_early;
    /* The tunnel is open: write to the stream what the application waits for. May be NULL. */
    void (*on_open)(void *user, struct relay_stream *stream);
    /* The stream is the user's again, paused: answer and end it. on_end follows. */
    void (*on_failed)(void *user, struct relay_stream *stream, const struct relay_failure *failure);
    /* Once, last: everything has ended. */
    void (*on_end)(void *user);
};

/* Takes the stream (started or not). `early` is what the application sent already for the target, at most 16
 * KiB; copied. 0 or RELAY_ERR_NO_MEMORY: the stream is still the caller's. */
int relay_join(struct relay_chain *chain, struct relay_stream *stream, const struct relay_host *host,
               uint16_t port, const uint8_t *early, size_t early_len, const struct relay_join_user *cb,
               void *user);

#endif
