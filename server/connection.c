#include "server/connection.h"

#include <stdlib.h>
#include <string.h>

#include "lib/net/http2.h"
#include "lib/net/http3.h"
#include "lib/net/metrics.h"
#include "lib/net/quic_conn.h"
#include "lib/net/stream.h"
#include "lib/wire/error.h"
#include "server/http1.h"
#include "server/request.h"
#include "server/worker.h"

static socklen_t copy_address(const struct sockaddr_storage *from, struct sockaddr *to)
{
    socklen_t len = from->ss_family == AF_INET    ? sizeof(struct sockaddr_in)
                    : from->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                                  : 0;
    memcpy(to, from, len);
    return len;
}

static socklen_t get_sockname(h2o_conn_t *conn, struct sockaddr *sa)
{
    return copy_address(&((struct relay_connection *)conn)->session->local, sa);
}

static socklen_t get_peername(h2o_conn_t *conn, struct sockaddr *sa)
{
    return copy_address(&((struct relay_connection *)conn)->session->peer, sa);
}

static h2o_socket_t *get_socket(h2o_conn_t *conn)
{
    return NULL;
}

static const struct relay_conn_callbacks conn_callbacks = {
    .h2o = {.get_sockname = get_sockname, .get_peername = get_peername, .get_socket = get_socket},
    .magic = RELAY_CONN_MAGIC,
    .tunnel_of = relay_server_request_tunnel,
    .request_of = relay_server_request_head,
};

static void on_request(void *user, struct relay_tunnel *tunnel, const struct relay_request *request)
{
    relay_server_request_begin(user, tunnel, request);
}

static void unlink_and_free(struct relay_connection *self)
{
    if (self->source.ss_family != AF_UNSPEC)
        relay_worker_release_source(self->worker, &self->source);
    relay_worker_remove(self->worker, self);
    relay_places_dispose(&self->places);
    relay_snapshot_unref(self->snapshot);
    free(self);
}

static void on_close(void *user, int error)
{
    unlink_and_free(user);
}

static const struct relay_session_user session_cb = {.on_request = on_request, .on_close = on_close};

/* `source` has been counted (relay_worker_take_source) and is released with the connection; NULL: with its socket, which
 * may live longer (listener.c). */
static struct relay_connection *new_connection(struct relay_worker *worker,
                                               const struct sockaddr_storage *source)
{
    struct timeval *now = h2o_get_timestamp(&worker->env.h2o, NULL, NULL);
    struct relay_connection *self = (struct relay_connection *)h2o_create_connection(
        sizeof(*self), &worker->env.h2o, worker->env.h2o.globalconf->hosts, *now, &conn_callbacks.h2o);
    memset((char *)self + sizeof(self->h2o), 0, sizeof(*self) - sizeof(self->h2o));
    self->worker = worker;
    if (source != NULL)
        self->source = *source;
    self->snapshot = relay_snapshot_ref(worker->env.snapshot);
    relay_places_init(&self->places, &worker->loop, worker->env.budget);
    relay_worker_add(worker, self);
    return self;
}

void relay_connection_stream(struct relay_worker *worker, struct relay_stream *stream, bool is_http2,
                             struct relay_slice alt_svc, const uint8_t *early, size_t early_len)
{
    struct relay_connection *self = new_connection(worker, NULL);
    const struct relay_limits *limits = &self->snapshot->limits;
    self->alt_svc = alt_svc;
    self->session =
        is_http2 ? relay_http2_server(stream, limits, worker->env.budget, &session_cb, self, early, early_len)
                 : relay_http1_server(stream, limits, &session_cb, self, early, early_len);
    if (self->session == NULL) {
        unlink_and_free(self);
        return;
    }
    self->session->proxy_name = self->snapshot->proxy_name;
    if (is_http2)
        relay_count(worker->metrics.connections_h2, 1);
    else
        relay_count(worker->metrics.connections_h1, 1);
}

void relay_connection_quic(struct relay_worker *worker, struct relay_quic_conn *quic)
{
    struct sockaddr_storage peer = {0};
    const struct sockaddr *from = relay_quic_conn_peer(quic);
    memcpy(&peer, from,
           from->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in));
    if (!relay_worker_take_source(worker, &peer)) {
        relay_quic_conn_close(quic, 0x107 /* H3_EXCESSIVE_LOAD */, RELAY_ERR_LIMIT);
        return;
    }
    struct relay_connection *self = new_connection(worker, &peer);
    self->session = relay_http3_server(quic, &self->snapshot->limits, worker->env.budget, &session_cb, self);
    if (self->session == NULL) {
        relay_quic_conn_close(quic, 0x102 /* H3_INTERNAL_ERROR */, RELAY_ERR_NO_MEMORY);
        unlink_and_free(self);
        return;
    }
    self->session->proxy_name = self->snapshot->proxy_name;
    relay_count(worker->metrics.connections_h3, 1);
}
