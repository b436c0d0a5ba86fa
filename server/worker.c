#include "server/worker.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/net/http3.h"
#include "lib/net/limit_log.h"
#include "lib/net/log.h"
#include "lib/net/quic_endpoint.h"
#include "lib/wire/error.h"
#include "modules/admission.h"
#include "server/connection.h"
#include "server/listener.h"

#define CLOCK_TICK RELAY_SECOND
#define DRAIN_TICK (10 * RELAY_MS)
/* A CONNECTION_CLOSE that got lost is sent again, as an answer to what still comes. */
#define FAREWELL (200 * RELAY_MS)

static struct relay_worker *of_drain(struct relay_timer *timer)
{
    return (struct relay_worker *)((char *)timer - offsetof(struct relay_worker, drain_timer));
}

/* Draining: the end has come when no connection is left and no socket of one still sends, at any worker. Until then the
 * kernel gives this one packets of new QUIC clients, which are to be refused, and of other workers' connections. */
static void stop_when_drained(struct relay_worker *self)
{
    if (self->is_drain_over)
        relay_loop_cut_lingering(&self->loop);
    if (!self->is_drained && self->connections == NULL && !relay_loop_has_lingering(&self->loop) &&
        relay_loop_now(&self->loop) >= self->leave_at) {
        self->is_drained = true;
        __atomic_fetch_sub(self->undrained, 1, __ATOMIC_RELAXED);
    }
    if (__atomic_load_n(self->undrained, __ATOMIC_RELAXED) == 0)
        relay_loop_stop(&self->loop);
}

static void on_tick(struct relay_timer *timer)
{
    struct relay_worker *self = (struct relay_worker *)((char *)timer - offsetof(struct relay_worker, clock));
    relay_timer_set_after(&self->loop, &self->clock, self->env.is_draining ? DRAIN_TICK : CLOCK_TICK);
    if (self->env.is_draining)
        stop_when_drained(self);
}

/* ---- connections ---- */

void relay_worker_add(struct relay_worker *self, struct relay_connection *conn)
{
    conn->prev = NULL;
    conn->next = self->connections;
    if (conn->next != NULL)
        conn->next->prev = conn;
    self->connections = conn;
    relay_count(self->metrics.open_connections, 1);
}

void relay_worker_remove(struct relay_worker *self, struct relay_connection *conn)
{
    if (conn->prev != NULL)
        conn->prev->next = conn->next;
    else
        self->connections = conn->next;
    if (conn->next != NULL)
        conn->next->prev = conn->prev;
    relay_count(self->metrics.open_connections, -1);
}

bool relay_worker_take_source(struct relay_worker *self, const struct sockaddr_storage *peer)
{
    const struct relay_snapshot *snapshot = self->env.snapshot;
    struct relay_address source;
    relay_address_from_sockaddr(&source, NULL, peer);
    uint32_t max = relay_prefix_set_contains(&snapshot->peers, &source)
                       ? UINT32_MAX
                       : snapshot->caps.connections_per_source;
    if (!relay_source_limit_take(self->sources, &source, max)) {
        relay_limit_log(&self->loop, RELAY_LIMIT_SOURCE);
        return false;
    }
    if (self->num_taken >= snapshot->caps.connections && !relay_listener_drop_oldest(self)) {
        relay_source_limit_release(self->sources, &source);
        relay_limit_log(&self->loop, RELAY_LIMIT_CONNECTIONS);
        return false;
    }
    self->num_taken++;
    return true;
}

void relay_worker_release_source(struct relay_worker *self, const struct sockaddr_storage *peer)
{
    struct relay_address source;
    relay_address_from_sockaddr(&source, NULL, peer);
    relay_source_limit_release(self->sources, &source);
    self->num_taken--;
}

/* ---- listeners ---- */

int relay_worker_listen(struct relay_worker *self, int fd, SSL_CTX *tls, struct relay_slice alt_svc)
{
    if (self->num_listeners == RELAY_WORKER_LISTENERS_MAX) {
        close(fd);
        return RELAY_ERR_LIMIT;
    }
    struct relay_listener *listener = relay_listener_new(self, fd, tls, alt_svc);
    if (listener == NULL)
        return RELAY_ERR_NO_MEMORY;
    self->listeners[self->num_listeners++] = listener;
    return 0;
}

static void on_quic_connection(void *user, struct relay_quic_conn *conn)
{
    relay_connection_quic(user, conn);
}

static const struct relay_quic_endpoint_user endpoint_cb = {on_quic_connection};

int relay_worker_listen_quic(struct relay_worker *self, int fd, struct relay_quic_group *group,
                             struct relay_quic_credentials *credentials)
{
    struct relay_quic_endpoint *endpoint = NULL;
    struct relay_quic_endpoint_config config = {
        .loop = &self->loop,
        .group = group,
        .worker = self->index,
        .credentials = credentials,
        .limits = &self->limits,
        .cb = &endpoint_cb,
        .user = self,
    };
    int error = self->num_endpoints < RELAY_WORKER_LISTENERS_MAX ? 0 : RELAY_ERR_LIMIT;
    if (error == 0)
        error = relay_http3_preface(&self->limits, &config.preface);
    if (error == 0)
        error = relay_quic_endpoint_new(&config, &endpoint);
    if (error != 0) {
        close(fd);
        return error;
    }
    self->endpoints[self->num_endpoints++] = endpoint;
    return relay_quic_endpoint_add_socket(endpoint, fd);
}

void relay_worker_set_tls(struct relay_worker *self, size_t slot, SSL_CTX *tls)
{
    if (slot < self->num_listeners)
        relay_listener_set_tls(self->listeners[slot], tls);
}

void relay_worker_set_credentials(struct relay_worker *self, size_t slot,
                                  struct relay_quic_credentials *credentials)
{
    if (slot < self->num_endpoints)
        relay_quic_endpoint_set_credentials(self->endpoints[slot], credentials);
}

/* The endpoints' sockets stay: living connections need them until the end. */
static void stop_accepting(struct relay_worker *self)
{
    while (self->num_listeners > 0)
        relay_listener_close(self->listeners[--self->num_listeners]);
    for (size_t i = 0; i < self->num_endpoints; i++)
        relay_quic_endpoint_shutdown(self->endpoints[i]);
}

/* ---- messages ---- */

static void end_drain(void *arg)
{
    struct relay_worker *self = arg;
    if (self->is_drain_over)
        return;
    relay_timer_stop(&self->loop, &self->drain_timer);
    self->is_drain_over = true; /* their on_close comes from tasks; a tick stops the loop */
    for (struct relay_connection *conn = self->connections, *next; conn != NULL; conn = next) {
        next = conn->next;
        if (conn->session->version == RELAY_HTTP_3)
            self->leave_at = relay_loop_now(&self->loop) + FAREWELL;
        relay_session_close(conn->session, RELAY_ERR_SHUTDOWN);
    }
}

static void on_drain_over(struct relay_timer *timer)
{
    struct relay_worker *self = of_drain(timer);
    relay_log(RELAY_LOG_WARNING, "drain_over", "s:i, s:i", "worker", (int)self->index, "connections_left",
              (int)self->metrics.open_connections);
    end_drain(self);
}

static void drain(void *arg)
{
    struct relay_worker *self = arg;
    if (self->env.is_draining)
        return;
    self->env.is_draining = true;
    stop_accepting(self);
    for (struct relay_connection *conn = self->connections, *next; conn != NULL; conn = next) {
        next = conn->next;
        relay_session_shutdown(conn->session);
    }
    relay_timer_set_after(&self->loop, &self->drain_timer,
                          self->env.snapshot->caps.drain_seconds * RELAY_SECOND);
    relay_timer_set_after(&self->loop, &self->clock, DRAIN_TICK);
}

void relay_worker_drain(struct relay_worker *self)
{
    relay_loop_post(&self->loop, drain, self);
}

void relay_worker_end_drain(struct relay_worker *self)
{
    relay_loop_post(&self->loop, end_drain, self);
}

struct snapshot_message {
    struct relay_worker *worker;
    struct relay_snapshot *snapshot;
};

static void set_snapshot(void *arg)
{
    struct snapshot_message *message = arg;
    struct relay_snapshot *old = message->worker->env.snapshot;
    message->worker->env.snapshot = message->snapshot;
    message->worker->budget.limit = message->snapshot->caps.tunnel_credit;
    message->worker->limits = message->snapshot->limits;
    relay_snapshot_retire(old);
    relay_admission_revoke(&message->worker->env);
    free(message);
}

int relay_worker_set_snapshot(struct relay_worker *self, struct relay_snapshot *snapshot)
{
    struct snapshot_message *message = malloc(sizeof(*message));
    if (message == NULL)
        return RELAY_ERR_NO_MEMORY;
    *message = (struct snapshot_message){self, relay_snapshot_adopt(snapshot)};
    int error = relay_loop_post(&self->loop, set_snapshot, message);
    if (error != 0) {
        relay_snapshot_retire(snapshot);
        free(message);
    }
    return error;
}

/* ---- life ---- */

int relay_worker_init(struct relay_worker *self, unsigned index, h2o_globalconf_t *conf,
                      struct relay_snapshot *snapshot, const struct relay_resolver_config *resolver)
{
    memset(self, 0, sizeof(*self));
    int error = relay_loop_init(&self->loop, &self->metrics);
    if (error != 0)
        return error;
    self->index = index;
    self->budget.limit = snapshot->caps.tunnel_credit;
    self->limits = snapshot->limits;
    self->env.worker = index;
    self->env.loop = &self->loop;
    self->env.metrics = &self->metrics;
    self->env.budget = &self->budget;
    self->env.snapshot = relay_snapshot_adopt(snapshot);
    relay_timer_init(&self->drain_timer, on_drain_over);
    relay_timer_init(&self->clock, on_tick);
    relay_timer_set_after(&self->loop, &self->clock, CLOCK_TICK);
    self->env.resolver = relay_resolver_new(&self->loop, resolver);
    if (self->env.resolver == NULL)
        return RELAY_ERR_NO_MEMORY;
    h2o_context_init(&self->env.h2o, &self->loop.uv, conf);
    return 0;
}

static void run(void *arg)
{
    struct relay_worker *self = arg;
    relay_loop_run(&self->loop);
}

int relay_worker_start(struct relay_worker *self)
{
    return uv_thread_create(&self->thread, run, self) == 0 ? 0 : RELAY_ERR_NO_MEMORY;
}

void relay_worker_join(struct relay_worker *self)
{
    uv_thread_join(&self->thread);
}
