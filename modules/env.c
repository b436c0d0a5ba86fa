#include "modules/env.h"

#include <assert.h>

static const struct relay_conn_callbacks *callbacks_of(h2o_req_t *req)
{
    const struct relay_conn_callbacks *callbacks = (const struct relay_conn_callbacks *)req->conn->callbacks;
    assert(callbacks->magic == RELAY_CONN_MAGIC);
    return callbacks;
}

struct relay_tunnel *relay_tunnel_of(h2o_req_t *req)
{
    return callbacks_of(req)->tunnel_of(req);
}

const struct relay_request *relay_request_of(h2o_req_t *req)
{
    return callbacks_of(req)->request_of(req);
}
