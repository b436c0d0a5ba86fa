#include "modules/unknown_protocol.h"

#include "lib/wire/error.h"
#include "modules/env.h"
#include "modules/refusal.h"

static int why_nobody_took(h2o_req_t *req, const struct relay_tunnel *tunnel)
{
    if (tunnel->kind == RELAY_KIND_BYTES)
        return RELAY_ERR_DENIED; /* no proxy.connect */
    bool is_ours = relay_slice_is(relay_request_of(req)->protocol, "connect-udp") &&
                   relay_env_of(req)->snapshot->num_connect_udp > 0;
    return is_ours ? RELAY_ERR_INVALID : RELAY_ERR_UNSUPPORTED; /* a path that is no template's */
}

static int on_req(h2o_handler_t *self, h2o_req_t *req)
{
    struct relay_tunnel *tunnel = relay_tunnel_of(req);
    if (tunnel->kind == RELAY_KIND_MESSAGE)
        return -1;
    return relay_refuse(req, tunnel, why_nobody_took(req, tunnel), -1);
}

void relay_unknown_protocol_register(h2o_pathconf_t *path)
{
    h2o_handler_t *handler = h2o_create_handler(path, sizeof(*handler));
    handler->on_req = on_req;
}
