#include "modules/unknown_protocol.h"

#include "lib/wire/error.h"
#include "modules/env.h"
#include "modules/refusal.h"

static int on_req(h2o_handler_t *self, h2o_req_t *req)
{
    struct relay_tunnel *tunnel = relay_tunnel_of(req);
    if (tunnel->kind == RELAY_KIND_MESSAGE)
        return -1;
    return relay_refuse(req, tunnel,
                        tunnel->kind == RELAY_KIND_CAPSULES ? RELAY_ERR_UNSUPPORTED : RELAY_ERR_DENIED, -1);
}

void relay_unknown_protocol_register(h2o_pathconf_t *path)
{
    h2o_handler_t *handler = h2o_create_handler(path, sizeof(*handler));
    handler->on_req = on_req;
}
