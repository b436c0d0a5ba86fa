/* What a worker lends to the handler modules, found from any request. server/worker embeds it; its
 * h2o_context_t is the one that h2o gives to handlers, so that no global state is needed. */
#ifndef RELAY_MODULES_ENV_H
#define RELAY_MODULES_ENV_H

#include <stddef.h>
#include <h2o.h>

#include "lib/net/limits.h"
#include "lib/net/loop.h"
#include "lib/net/resolver.h"
#include "lib/net/session.h"
#include "lib/net/tunnel.h"
#include "modules/snapshot.h"

struct relay_admission;
struct relay_failure_limit;
struct relay_token_accounts;

struct relay_env {
    h2o_context_t h2o; /* first: req->conn->ctx points at it */
    struct relay_loop *loop;
    struct relay_metrics *metrics;
    struct relay_resolver *resolver;
    struct relay_budget *budget;
    struct relay_snapshot *snapshot; /* the current one; who keeps it over a turn takes a reference */
    bool is_draining;                /* SIGTERM came: no new tunnels */
    unsigned worker;                 /* its number, from 0 */
    /* What limits count over all workers: the same objects in every worker, older than all of them. */
    struct relay_token_accounts *token_accounts;
    struct relay_failure_limit *auth_failures;
    struct relay_admission *admission; /* made by modules/admission at its first use; NULL before */
};

static inline struct relay_env *relay_env_of(h2o_req_t *req)
{
    return (struct relay_env *)req->conn->ctx;
}

/* Our connections' callbacks: every h2o_conn_t of this program has this kind (h2o's own sockets are never
 * entered). The server's request wrapper and the loopback connection of unit tests fill it. */
struct relay_conn_callbacks {
    h2o_conn_callbacks_t h2o; /* first */
    uint32_t magic;           /* RELAY_CONN_MAGIC */
    struct relay_tunnel *(*tunnel_of)(h2o_req_t *req);
    const struct relay_request *(*request_of)(h2o_req_t *req);
};
#define RELAY_CONN_MAGIC 0x74776f68 /* "twoh" */

/* The request's tunnel. */
struct relay_tunnel *relay_tunnel_of(h2o_req_t *req);
/* The request's head as the peer sent it (raw path, a CONNECT's authority, :protocol). Lives until the
 * tunnel is accepted or the request ends: copied into the request's pool. */
const struct relay_request *relay_request_of(h2o_req_t *req);

#endif
