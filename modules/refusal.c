#include "modules/refusal.h"

#include "lib/net/metrics.h"
#include "lib/wire/error.h"
#include "lib/wire/proxy_status.h"
#include "modules/env.h"

#define RETRY_AFTER_FAILURES "60" /* the failure limits count per minute */
#define RETRY_AFTER_LOAD     "5"

/* `name` and `value` are literals or in the request's pool. */
static void add_field(h2o_req_t *req, const char *name, const char *value)
{
    h2o_add_header_by_str(&req->pool, &req->res.headers, name, strlen(name), 0, NULL, value, strlen(value));
}

static void add_proxy_status(h2o_req_t *req, int error, int rcode)
{
    if (*relay_error_proxy_status(error) == '\0')
        return;
    char *value = h2o_mem_alloc_pool(&req->pool, RELAY_PROXY_STATUS_SIZE);
    const char *name = relay_env_of(req)->snapshot->proxy_name;
    if (relay_proxy_status_write(value, RELAY_PROXY_STATUS_SIZE, name != NULL ? name : "twohop", error,
                                 rcode) > 0)
        add_field(req, "proxy-status", value);
}

static void add_challenges(h2o_req_t *req, const char *name)
{
    add_field(req, name, "Basic realm=\"twohop\"");
    add_field(req, name, "Bearer realm=\"twohop\"");
}

int relay_refuse(h2o_req_t *req, struct relay_tunnel *tunnel, int error, int rcode)
{
    struct relay_metrics *metrics = relay_env_of(req)->metrics;
    int status = relay_error_status(error);
    relay_tunnel_attach(tunnel, NULL, NULL);
    relay_tunnel_resume(tunnel); /* what a paused tunnel holds would keep it from its clean end */
    add_proxy_status(req, error, rcode);
    if (error == RELAY_ERR_UNAUTHORIZED) {
        bool is_classic = tunnel->kind == RELAY_KIND_BYTES;
        status = is_classic ? 407 : 401;
        add_challenges(req, is_classic ? "proxy-authenticate" : "www-authenticate");
    }
    if (status == 429 || status == 503)
        add_field(req, "retry-after", status == 429 ? RETRY_AFTER_FAILURES : RETRY_AFTER_LOAD);
    if (status == 400)
        relay_count(metrics->malformed, 1);
    if (error == RELAY_ERR_NO_DESCRIPTORS)
        relay_count(metrics->limit_descriptors, 1);
    req->res.status = status;
    req->res.reason = "Refused";
    req->res.content_length = 0;
    h2o_proceed_response(req); /* there is no generator: the final head, past the filters */
    return 0;
}
