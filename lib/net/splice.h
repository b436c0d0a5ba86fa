/* A tunnel and a stream joined: a CONNECT tunnel and its target's TCP connection, or a client's local
 * connection and its tunnel. Bytes, ends and resets pass both ways, and so does back-pressure: nothing is
 * buffered here.
 *
 * A server's tunnel is unproven (tunnel.h) until the target has acknowledged 256 KiB.
 *
 *   tunnel                     stream
 *   bytes, FIN          ->     send, fin;    full: the tunnel is paused
 *   send, send_fin      <-     bytes, FIN;   full: the stream is paused, and never reads more than the tunnel
 * has room for a reset or any error ->    a RST abort               <-     a RST or any error, with that
 * error
 */
#ifndef RELAY_NET_SPLICE_H
#define RELAY_NET_SPLICE_H

#include "lib/net/stream.h"
#include "lib/net/tunnel.h"

/* Once: the tunnel's on_close(error) has come and the stream is ended; the splice's memory is gone after the
 * call. */
typedef void (*relay_splice_cb)(void *user, int error);

/* Becomes the user of both and resumes the tunnel; a stream that was not started is. `idle`: ns in which
 * nothing passes either way, after which the tunnel is aborted with RELAY_ERR_IDLE. RELAY_ERR_NO_MEMORY:
 * nothing was changed. From then on both belong to the splice; whoever wants it to end aborts the tunnel. */
int relay_splice(struct relay_tunnel *tunnel, struct relay_stream *stream, uint64_t idle,
                 relay_splice_cb on_end, void *user);

#endif
