#include "modules/snapshot.h"

#include <assert.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/socket.h>

struct relay_snapshot *relay_snapshot_new(void)
{
    struct relay_snapshot *snapshot = calloc(1, sizeof(*snapshot));
    if (snapshot == NULL)
        return NULL;
    snapshot->references = 1;
    snapshot->limits = RELAY_LIMITS_DEFAULT;
    snapshot->caps.connections = 20000;
    snapshot->caps.connections_per_source = 256;
    snapshot->caps.tunnels_per_connection = 1000;
    snapshot->caps.dials_per_connection = 64;
    snapshot->caps.dials_per_token = 256;
    snapshot->caps.auth_failures_per_minute = 10;
    snapshot->caps.auth_failures_per_minute_global = 1000;
    snapshot->caps.udp_unanswered_burst = 32;
    snapshot->caps.udp_unanswered_rate = 100;
    snapshot->caps.tunnel_credit = (size_t)512 << 20;
    snapshot->caps.drain_seconds = 30;
    snapshot->dial = (struct relay_dial_config){.attempt_delay = RELAY_SECOND / 4,
                                                .timeout = 10 * RELAY_SECOND,
                                                .resolution_delay = RELAY_RESOLUTION_DELAY};
    snapshot->timeouts.tcp_idle = 300 * RELAY_SECOND;
    snapshot->timeouts.udp_idle = 120 * RELAY_SECOND;
    return snapshot;
}

struct relay_snapshot *relay_snapshot_ref(struct relay_snapshot *snapshot)
{
    __atomic_fetch_add(&snapshot->references, 1, __ATOMIC_RELAXED);
    return snapshot;
}

static void dispose(struct relay_snapshot *snapshot)
{
    for (size_t i = 0; i < RELAY_PROXY_POLICIES_MAX; i++) {
        relay_acl_dispose(&snapshot->connect[i].acl);
        relay_acl_dispose(&snapshot->connect_udp[i].acl);
    }
    relay_token_file_dispose(&snapshot->tokens);
    relay_prefix_set_dispose(&snapshot->peers);
    free(snapshot->relays);
    free(snapshot->proxy_name);
    free(snapshot);
}

void relay_snapshot_unref(struct relay_snapshot *snapshot)
{
    if (snapshot != NULL && __atomic_sub_fetch(&snapshot->references, 1, __ATOMIC_ACQ_REL) == 0)
        dispose(snapshot);
}

struct relay_snapshot *relay_snapshot_adopt(struct relay_snapshot *snapshot)
{
    __atomic_fetch_add(&snapshot->adoptions, 1, __ATOMIC_RELAXED);
    return relay_snapshot_ref(snapshot);
}

void relay_snapshot_retire(struct relay_snapshot *snapshot)
{
    if (__atomic_sub_fetch(&snapshot->adoptions, 1, __ATOMIC_ACQ_REL) == 0)
        relay_token_file_dispose(&snapshot->tokens);
    relay_snapshot_unref(snapshot);
}

/* ---- own listeners ---- */

struct own_listener {
    struct relay_address address; /* the judged form */
    uint16_t port;
    bool is_udp;
};

/* Written before the workers start, only read afterwards: no lock. */
static struct own_listener own_listeners[128];
static size_t num_own_listeners;

static bool is_unspecified(const struct relay_address *address)
{
    for (size_t i = 0; i < sizeof(address->bytes); i++)
        if (address->bytes[i] != 0)
            return false;
    return true;
}

void relay_own_listener_add(const struct relay_address *address, uint16_t port, bool is_udp)
{
    assert(num_own_listeners < sizeof(own_listeners) / sizeof(own_listeners[0]));
    struct own_listener *own = &own_listeners[num_own_listeners++];
    *own = (struct own_listener){.port = port, .is_udp = is_udp};
    relay_address_unwrap(address, &own->address, NULL);
}

/* Whether packets to this address come to this machine. Asks the routing table instead of a list of
 * addresses, which may change while we live: a UDP socket connected to one of our own addresses has it as its
 * own. 127/8 is the exception, all of it is ours. Without a descriptor to ask with the answer is yes: this
 * check must fail closed. */
static bool is_this_machine(const struct relay_address *address)
{
    if (is_unspecified(address) || (address->family == 4 && address->bytes[0] == 127))
        return true;
    struct sockaddr_storage target, source;
    const socklen_t target_len = relay_address_to_sockaddr(address, 9, &target);
    const int fd = socket(target.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return true;
    bool is_own = false;
    socklen_t source_len = sizeof(source);
    struct relay_address from;
    if (connect(fd, (struct sockaddr *)&target, target_len) == 0 &&
        getsockname(fd, (struct sockaddr *)&source, &source_len) == 0 &&
        relay_address_from_sockaddr(&from, NULL, &source) == 0)
        is_own = relay_address_equal(&from, address);
    close(fd);
    return is_own;
}

bool relay_own_listener_is(void *data, const struct relay_address *address, uint16_t port,
                           enum relay_transport transport)
{
    struct relay_address judged;
    relay_address_unwrap(address, &judged, NULL);
    bool is_wildcard = false;
    for (size_t i = 0; i < num_own_listeners; i++) {
        const struct own_listener *own = &own_listeners[i];
        if (own->port != port || own->is_udp != (transport == RELAY_TRANSPORT_UDP))
            continue;
        if (relay_address_equal(&own->address, &judged) || is_unspecified(&judged))
            return true;
        if (is_unspecified(&own->address))
            is_wildcard = true;
    }
    return is_wildcard && is_this_machine(&judged);
}
