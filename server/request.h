/* One request at the server: an h2o_req_t around a tunnel, the same for HTTP/1.1, 2 and 3. Right of it
 * everything is h2o: one handler module serves all three versions.
 *
 * It is an allocation of its own and the tunnel's host: it dies when the response has been handed over, when
 * a handler has accepted the tunnel (design.md: a pool chunk is 4 KiB, an idle tunnel must not hold one), or
 * when the tunnel ends.
 */
#ifndef RELAY_SERVER_REQUEST_H
#define RELAY_SERVER_REQUEST_H

#include "lib/net/tunnel.h"
#include "server/connection.h"

/* Wraps the tunnel, which has just been shown by its session, and runs the handler chain: at once, or when an
 * ordinary request's body, which nobody is given, has come: its deadline is the session's. 413 when it is over 64 KiB. */
void relay_server_request_begin(struct relay_connection *conn, struct relay_tunnel *tunnel,
                                const struct relay_request *head);

/* For struct relay_conn_callbacks (modules/env.h). */
struct relay_tunnel *relay_server_request_tunnel(h2o_req_t *req);
const struct relay_request *relay_server_request_head(h2o_req_t *req);

#endif
