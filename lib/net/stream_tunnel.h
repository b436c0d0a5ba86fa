/* A CONNECT tunnel of the hop before seen as a stream (stream.h), so that TLS and HTTP/2 of the next hop run
 * inside it.
 *
 * on_ready comes with the relay's 2xx; what is sent before waits in the tunnel. FIN, reset and back-pressure
 * are passed both ways. `peer` is AF_UNSPEC.
 */
#ifndef RELAY_NET_STREAM_TUNNEL_H
#define RELAY_NET_STREAM_TUNNEL_H

#include "lib/net/refusal.h"
#include "lib/net/session.h"
#include "lib/net/stream.h"

/* Sends the CONNECT. NULL: the session takes no more requests, or out of memory. `on_refused` (may be NULL)
 * is told of an answer outside 2xx; on_close of the stream follows with refusal->error. Neither comes after
 * an ending. */
struct relay_stream *
relay_stream_tunnel_open(struct relay_session *session, const struct relay_request *request,
                         void (*on_refused)(void *user, const struct relay_refusal *refusal), void *user);

#endif
