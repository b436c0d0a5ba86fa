/* One HTTP connection at the server: the h2o_conn_t that handlers see, and the session below it. It belongs
 * to its worker's list and dies with its session's on_close. */
#ifndef RELAY_SERVER_CONNECTION_H
#define RELAY_SERVER_CONNECTION_H

#include <h2o.h>

#include "lib/net/session.h"
#include "modules/env.h"
#include "server/place.h"

struct relay_worker;
struct relay_stream;
struct relay_quic_conn;

struct relay_connection {
    h2o_conn_t h2o; /* first */
    struct relay_worker *worker;
    struct relay_session *session;
    struct relay_snapshot *snapshot; /* its limits are the session's */
    /* QUIC: as counted at accept, since a client's address may change. AF_UNSPEC: the socket is counted. */
    struct sockaddr_storage source;
    struct relay_places places; /* of its ordinary requests */
    struct relay_slice alt_svc; /* the listener's; empty: none */
    struct relay_connection *prev, *next;
};

/* Takes the ready stream. `early`: what was read of it while looking for the HTTP/2 preface. */
void relay_connection_stream(struct relay_worker *worker, struct relay_stream *stream, bool is_http2,
                             struct relay_slice alt_svc, const uint8_t *early, size_t early_len);
/* A QUIC connection whose address is validated. */
void relay_connection_quic(struct relay_worker *worker, struct relay_quic_conn *quic);

#endif
