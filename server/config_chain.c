#include "server/config_chain.h"

#include <stdlib.h>
#include <string.h>

#include "modules/auth.h"
#include "modules/connect.h"
#include "modules/connect_udp.h"
#include "modules/unknown_protocol.h"

static void register_auth(h2o_pathconf_t *path, const struct relay_snapshot *snapshot)
{
    relay_auth_register(path);
}

static void register_connect(h2o_pathconf_t *path, const struct relay_snapshot *snapshot)
{
    relay_connect_register(path, 0);
}

/* One at least: a reload may switch it on. */
static void register_connect_udp(h2o_pathconf_t *path, const struct relay_snapshot *snapshot)
{
    const size_t count = snapshot->num_connect_udp > 0 ? snapshot->num_connect_udp : 1;
    for (size_t i = 0; i < count; i++)
        relay_connect_udp_register(path, i);
}

static void register_unknown_protocol(h2o_pathconf_t *path, const struct relay_snapshot *snapshot)
{
    relay_unknown_protocol_register(path);
}

/* The chain. A handler that answers -1 passes the request on to the next one; after the last one come the
 * stock handlers. Nothing stands before auth. The policy (modules/snapshot.h) is asked by connect and
 * connect-udp themselves, twice: before DNS and for every address after it. */
static void (*const chain[])(h2o_pathconf_t *path, const struct relay_snapshot *snapshot) = {
    register_auth,
    register_connect,
    register_connect_udp,
    register_unknown_protocol,
};

/* h2o appends; what was there moves behind. */
static void register_in_front(h2o_pathconf_t *path, const struct relay_snapshot *snapshot)
{
    const size_t old = path->handlers.size;
    for (size_t i = 0; i < sizeof(chain) / sizeof(chain[0]); i++)
        chain[i](path, snapshot);
    const size_t added = path->handlers.size - old;
    if (old == 0 || added == 0)
        return;
    h2o_handler_t **handlers = path->handlers.entries, **stock = h2o_mem_alloc(old * sizeof(*stock));
    memcpy(stock, handlers, old * sizeof(*stock));
    memmove(handlers, handlers + old, added * sizeof(*handlers));
    memcpy(handlers + added, stock, old * sizeof(*stock));
    free(stock);
}

void relay_config_chain_register(h2o_globalconf_t *conf, const struct relay_snapshot *snapshot)
{
    for (h2o_hostconf_t **host = conf->hosts; *host != NULL; host++) {
        for (size_t i = 0; i < (*host)->paths.size; i++)
            register_in_front(&(*host)->paths.entries[i], snapshot);
        register_in_front(&(*host)->fallback_path, snapshot);
    }
}
