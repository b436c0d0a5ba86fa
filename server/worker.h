/* One worker: a thread, its loop, its h2o context, its SO_REUSEPORT listeners and QUIC endpoints, its
 * resolver and its shard of metrics. Workers share no locks on the data path.
 *
 * Order of calls, all by the main thread: init every worker, listen on each, start them; later
 * relay_loop_post to a worker's loop is the only way in (relay_worker_drain, relay_worker_end_drain and
 * relay_worker_set_snapshot are such messages). A worker that has drained stops its loop; join waits for that. Workers
 * are never disposed of: the process ends (h2o_context_dispose is not safe while requests live).
 */
#ifndef RELAY_SERVER_WORKER_H
#define RELAY_SERVER_WORKER_H

#include <uv.h>

#include "lib/net/metrics.h"
#include "modules/env.h"
#include "server/source_limit.h"

struct relay_connection;
struct relay_greeting;
struct relay_listener;
struct relay_quic_credentials;
struct relay_quic_endpoint;
struct relay_quic_group;

#define RELAY_WORKER_LISTENERS_MAX 64

struct relay_worker {
    struct relay_env env; /* first: h2o handlers find it */
    struct relay_loop loop;
    struct relay_metrics metrics;
    struct relay_budget budget;
    unsigned index;
    uv_thread_t thread;
    struct relay_listener *listeners[RELAY_WORKER_LISTENERS_MAX];
    size_t num_listeners;
    struct relay_quic_endpoint *endpoints[RELAY_WORKER_LISTENERS_MAX];
    size_t num_endpoints;
    struct relay_connection *connections;
    uint32_t num_taken;                 /* relay_worker_take_source: what limits.connections counts */
    struct relay_source_limit *sources; /* of all workers; the caller's */
    unsigned *undrained;                /* atomic: how many of all workers are not drained; the caller's */
    struct relay_greeting *newest_greeting, *oldest_greeting; /* half-open TCP sockets (listener.h) */
    uint32_t num_greetings;
    struct relay_limits limits; /* the snapshot's, where an object outlives a snapshot: the QUIC endpoints */
    struct relay_timer drain_timer;
    bool is_drain_over, is_drained;
    uint64_t leave_at;        /* the loop runs until then, when the drain is over */
    struct relay_timer clock; /* refreshes what h2o caches of the time */
};

/* 0 or RELAY_ERR_*. Takes a reference of the snapshot. The caller then sets what the workers share
 * (modules/env.h, `sources`, `undrained`). */
int relay_worker_init(struct relay_worker *worker, unsigned index, h2o_globalconf_t *conf,
                      struct relay_snapshot *snapshot, const struct relay_resolver_config *resolver);
/* Serves the listening descriptor, which it takes; `tls` as for relay_listener_new. */
int relay_worker_listen(struct relay_worker *worker, int fd, SSL_CTX *tls, struct relay_slice alt_svc);
int relay_worker_listen_quic(struct relay_worker *worker, int fd, struct relay_quic_group *group,
                             struct relay_quic_credentials *credentials);
int relay_worker_start(struct relay_worker *worker);
void relay_worker_join(struct relay_worker *worker);

/* Messages; from any thread. drain: stop accepting, GOAWAY, stop the loop when the last connection of all workers
 * has ended or the snapshot's drain time is over. end_drain, after drain: it is over now, what is open is reset.
 * set_snapshot takes a reference for the worker; RELAY_ERR_NO_MEMORY: it keeps the one it has. */
void relay_worker_drain(struct relay_worker *worker);
void relay_worker_end_drain(struct relay_worker *worker);
int relay_worker_set_snapshot(struct relay_worker *worker, struct relay_snapshot *snapshot);

/* On the worker's own thread: new certificates for listener or endpoint number `slot`, in the order of the
 * listen calls. */
void relay_worker_set_tls(struct relay_worker *worker, size_t slot, SSL_CTX *tls);
void relay_worker_set_credentials(struct relay_worker *worker, size_t slot,
                                  struct relay_quic_credentials *credentials);

/* For connections. */
void relay_worker_add(struct relay_worker *worker, struct relay_connection *conn);
void relay_worker_remove(struct relay_worker *worker, struct relay_connection *conn);
/* Counts one more connection of this source: a TCP socket from accept until it is closed at last, a QUIC connection from
 * when its address is validated. At limits.connections a half-open TCP socket is closed for it. False: over a limit
 * (relay_limit_log), nothing taken. */
bool relay_worker_take_source(struct relay_worker *worker, const struct sockaddr_storage *peer);
void relay_worker_release_source(struct relay_worker *worker, const struct sockaddr_storage *peer);

#endif
