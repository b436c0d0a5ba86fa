/* An HTTP/3 connection (RFC 9114, 9220, 9297) as a session (session.h), as a server or as a client. nghttp3
 * is behind it. */
#ifndef RELAY_NET_HTTP3_H
#define RELAY_NET_HTTP3_H

#include "lib/net/session.h"

struct relay_quic_conn;

/* The control stream's beginning with SETTINGS, for quic_endpoint.h. 0 or RELAY_ERR_NO_MEMORY. */
struct relay_quic_preface;
int relay_http3_preface(const struct relay_limits *limits, struct relay_quic_preface *preface);

/* Becomes the connection's user; the connection is closed when the session ends. NULL: out of memory (the
 * caller closes the connection). */
struct relay_session *relay_http3_server(struct relay_quic_conn *conn, const struct relay_limits *limits,
                                         struct relay_budget *budget, const struct relay_session_user *cb,
                                         void *user);
/* Before or after the connection is ready; on_ready tells. Make the connection with relay_http3_connect,
 * which sets this as its user from the first moment. */
struct relay_quic_client_config;
struct relay_packet_path;
struct relay_session *relay_http3_connect(struct relay_loop *loop, struct relay_packet_path *path,
                                          const struct relay_quic_client_config *config,
                                          const struct relay_session_user *cb, void *user);
/* The connection below, for migration and its figures. */
struct relay_quic_conn *relay_http3_conn(struct relay_session *session);

#endif
