/* How a request for a tunnel is refused: one answer for every module, so that no refusal tells more than
 * another.
 *
 * It has a head and never a body: the client's library may hand a body to the application as if the target
 * had sent it. The head has the error's status, Proxy-Status with its type (RFC 9209) and what goes with the
 * status:
 *
 *   UNAUTHORIZED  a classic CONNECT 407 with Proxy-Authenticate, a templated request 401 with
 * WWW-Authenticate (RFC 9110 sections 11.6 and 11.7) 429, 503      Retry-After
 *
 * It goes past h2o's response filters, as an accepted tunnel's head does: an errordoc would add a body.
 */
#ifndef RELAY_MODULES_REFUSAL_H
#define RELAY_MODULES_REFUSAL_H

#include <h2o.h>

struct relay_tunnel;

/* Detaches from the tunnel whoever is attached (no on_close comes to it) and answers. `error` is a
 * RELAY_ERR_*; `rcode` the response code of a DNS error or -1. Call it at most once, before the tunnel was
 * accepted and while it lives. Returns 0, what an h2o handler returns that has taken the request. */
int relay_refuse(h2o_req_t *req, struct relay_tunnel *tunnel, int error, int rcode);

#endif
