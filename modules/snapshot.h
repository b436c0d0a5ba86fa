/* What changes while the process lives: policy, tokens, limits, timeouts, certificates. One immutable object,
 * made from the configuration file, reference-counted, swapped into each worker by a message on reload. A
 * tunnel keeps the one it began with by taking a reference. server/config makes it; modules only read it.
 */
#ifndef RELAY_MODULES_SNAPSHOT_H
#define RELAY_MODULES_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <openssl/types.h>

#include "lib/net/limits.h"
#include "lib/net/tcp_dial.h"
#include "lib/wire/acl.h"
#include "lib/wire/token_file.h"
#include "lib/wire/uri_template.h"

enum relay_role { RELAY_ROLE_INGRESS, RELAY_ROLE_EGRESS };

/* One place in hosts/paths where a proxy directive stands; the handler there knows its index. */
struct relay_proxy_policy {
    struct relay_acl acl;               /* not given: the role's default */
    struct relay_uri_template template; /* connect-udp only */
};
#define RELAY_PROXY_POLICIES_MAX 64

/* `relays:` of an ingress: the only targets it may reach. */
struct relay_relay_target {
    struct relay_host host;
    uint16_t port;
};

struct relay_snapshot {
    unsigned references; /* atomic */
    unsigned adoptions;  /* atomic; of them, those of relay_snapshot_adopt() */
    enum relay_role role;
    char *proxy_name; /* in Proxy-Status, default "twohop-ingress" / "twohop-egress" */

    bool auth_off;
    struct relay_token_file tokens; /* while it is adopted */
    struct relay_prefix_set peers;  /* prefixes of the ingresses: per-address limits do not count there */
    struct relay_relay_target *relays;
    size_t num_relays;

    struct relay_proxy_policy connect[RELAY_PROXY_POLICIES_MAX], connect_udp[RELAY_PROXY_POLICIES_MAX];
    size_t num_connect, num_connect_udp;

    struct relay_limits limits;
    struct {
        uint32_t connections;            /* per worker, all listeners */
        uint32_t connections_per_source; /* per IPv4 address or IPv6 /64; 256; `peers` exempt */
        uint32_t tunnels_per_connection; /* 1000 */
        uint32_t tunnels_per_token;      /* over all workers; 0: no limit */
        uint32_t dials_per_connection;   /* in flight at once; more wait (64) */
        uint32_t dials_per_token;        /* the same on a worker: names that nobody answers must not fill its
                                            resolver, which is everybody's (256) */
        uint32_t auth_failures_per_minute, auth_failures_per_minute_global;
        uint32_t udp_unanswered_burst,
            udp_unanswered_rate;        /* T51: 32 packets and 100 packets/s until the first reply */
        uint32_t udp_packets_per_token; /* to UDP targets per second, over all workers; 0: no limit */
        size_t udp_bytes_per_token;     /* the same; 0, or enough for any datagram */
        size_t tunnel_credit;           /* bytes of relay_budget per worker; 512 MiB */
        uint32_t drain_seconds;         /* SIGTERM: how long tunnels may go on; 30 */
    } caps;
    struct relay_dial_config dial;
    struct {
        uint64_t tcp_idle; /* ns; both directions quiet; 300 s */
        uint64_t udp_idle; /* at least 120 s (RFC 9298 section 3.1); 120 s */
    } timeouts;
    bool oversize_capsule; /* `oversize: capsule` */
    bool observe;          /* debug.observe was asked for */
    /* ns, when the debug observations end, which log client, peer and target of each tunnel; 0: there are
     * none. server/observation.h sets it. */
    uint64_t observe_until;
};

struct relay_snapshot *relay_snapshot_new(void); /* with the defaults above; NULL: out of memory */
struct relay_snapshot *relay_snapshot_ref(struct relay_snapshot *snapshot);
void relay_snapshot_unref(struct relay_snapshot *snapshot); /* NULL is fine */
/* A reference of who has it as the current one: of each worker, and of the main thread, which adopts it first and retires
 * it last. They alone may read `tokens`, which go with the last of them: a tunnel that lives for weeks must not keep every
 * list that there was. */
struct relay_snapshot *relay_snapshot_adopt(struct relay_snapshot *snapshot);
void relay_snapshot_retire(struct relay_snapshot *snapshot);

/* Our own listening addresses, for "own listeners are always refused". Process-wide: set before the
 * workers start. */
void relay_own_listener_add(const struct relay_address *address, uint16_t port, bool is_udp);
/* relay_acl_context.is_own: a listener at this address and port, or a wildcard one at this port when the
 * address is one of this machine's. */
bool relay_own_listener_is(void *data, const struct relay_address *address, uint16_t port,
                           enum relay_transport transport);

#endif
