/* An HTTP/2 connection (RFC 9113, 8441) as a session (session.h), as a server or as a client. nghttp2 is
 * behind it. */
#ifndef RELAY_NET_HTTP2_H
#define RELAY_NET_HTTP2_H

#include "lib/net/session.h"

struct relay_stream;

/* Takes the stream, which is started and ready, and becomes its user. `early` are bytes of it that were
 * already read. NULL: out of memory (the stream is closed then). */
struct relay_session *relay_http2_server(struct relay_stream *stream, const struct relay_limits *limits,
                                         struct relay_budget *budget, const struct relay_session_user *cb,
                                         void *user, const uint8_t *early, size_t early_len);
struct relay_session *relay_http2_client(struct relay_stream *stream, const struct relay_limits *limits,
                                         struct relay_budget *budget, enum relay_level level,
                                         const struct relay_session_user *cb, void *user);
/* Client: while it has tunnels, the first PING of a silence goes 1 s after the last DATA, the next after as long again, up to
 * half of the idle timeout. For the last hop: the connections that carry it are asked when nothing comes back through them. */
void relay_http2_ask_soon(struct relay_session *session);
/* Client: it was asked for a sign of life (PING) 2 s ago, and nothing has come. A hint to try a second way; the session
 * ends by itself after the idle timeout. */
bool relay_http2_is_silent(const struct relay_session *session);
/* Client: asks for a sign of life at once. Without any within `timeout` (ns), not even TCP's acknowledgement, the session
 * ends with RELAY_ERR_IDLE. Nothing while it is being asked so already. */
void relay_http2_doubt(struct relay_session *session, uint64_t timeout);

#endif
