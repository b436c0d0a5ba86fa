/* A listening TCP socket of one worker: accepts, does the TLS handshake, tells HTTP/2 from HTTP/1.1 (by
 * HTTP/2's preface, unless ALPN chose "http/1.1": a real client writes it without negotiating, another negotiates
 * "h2" and writes an HTTP/1.1 CONNECT), and hands the stream to relay_connection_stream. Until then the socket is
 * half-open: at most limits.half-open-max of a worker's are, the oldest makes room for a new one, so that sockets which
 * say nothing shut nobody out.
 */
#ifndef RELAY_SERVER_LISTENER_H
#define RELAY_SERVER_LISTENER_H

#include <sys/socket.h>

#include "lib/wire/slice.h"
#include "server/worker.h"

struct relay_listener;

/* Takes `fd` and a reference of `tls` (NULL: clear text). NULL: out of memory or descriptors. */
struct relay_listener *relay_listener_new(struct relay_worker *worker, int fd, SSL_CTX *tls,
                                          struct relay_slice alt_svc);
/* New handshakes use this context from now on; takes a reference. */
void relay_listener_set_tls(struct relay_listener *listener, SSL_CTX *tls);
/* Stops accepting; handshakes in progress are dropped. Frees it. */
void relay_listener_close(struct relay_listener *listener);

/* Closes the oldest of the worker's half-open sockets and counts that; false: there is none. */
bool relay_listener_drop_oldest(struct relay_worker *worker);

#endif
