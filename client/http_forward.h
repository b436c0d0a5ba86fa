/* A request for an http:// URL, sent through a tunnel of its own to the server it names (RFC 9112
 * section 3.2.2).
 *
 * It is rewritten to origin-form with `Connection: close`, and exactly its body is passed on: what follows it
 * on the local connection is another request, perhaps for somebody else, and must not reach this server. The
 * response passes unread, and the local connection ends with it.
 */
#ifndef RELAY_CLIENT_HTTP_FORWARD_H
#define RELAY_CLIENT_HTTP_FORWARD_H

#include "client/chain.h"
#include "lib/net/http1_head.h"
#include "lib/net/stream.h"

/* Takes the running, paused stream. `early` is what came behind the head. 0, and on_end comes once; or
 * RELAY_ERR_INVALID, RELAY_ERR_TOO_BIG or RELAY_ERR_NO_MEMORY, and the stream is still the caller's. The head
 * is copied. */
int relay_http_forward(struct relay_chain *chain, struct relay_stream *stream,
                       const struct relay_http1_head *head, const uint8_t *early, size_t early_len,
                       void (*on_end)(void *user), void *user);

/* Answers 502 with the failure's sentence, and ends the stream (front_http.c). */
void relay_http_forward_refuse(struct relay_stream *stream, const struct relay_failure *failure);

#endif
