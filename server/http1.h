/* An HTTP/1.1 connection (RFC 9112) as a session (session.h) in the server's role. One request at a time;
 * pipelined ones wait. A tunnel (CONNECT, or an upgrade to connect-udp) is the connection's last request; its
 * abort is a TCP RST. */
#ifndef RELAY_SERVER_HTTP1_H
#define RELAY_SERVER_HTTP1_H

#include "lib/net/session.h"

struct relay_stream;

/* Takes the stream, which is started and ready, and becomes its user. `early` are bytes of it that were
 * already read. NULL: out of memory (the stream is closed then). */
struct relay_session *relay_http1_server(struct relay_stream *stream, const struct relay_limits *limits,
                                         const struct relay_session_user *cb, void *user,
                                         const uint8_t *early, size_t early_len);

#endif
