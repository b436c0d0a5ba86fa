/* Which targets a request may reach: the access list of its path, the role's default, and what no list can
 * allow.
 *
 * Egress: lib/wire/acl.h, with our own listeners always refused and port 53 open to the configured resolvers
 * only.
 *
 * Ingress: the target must stand in `relays:`, host and port exactly; the access list, if the path has one,
 * must allow it too. An entry of `relays:` that is an address says all that a literal rule says: that address
 * and port are allowed, special-purpose or not. An entry that is a name does not: who controls the name's
 * zone chooses the addresses, so that a special-purpose address behind it needs an allow rule with a literal
 * address or prefix, as everywhere.
 *
 * Use:  judge_target before DNS, judge_addresses for what DNS gave (or the literal address); dial only what
 * it gives back.
 */
#ifndef RELAY_MODULES_POLICY_H
#define RELAY_MODULES_POLICY_H

#include "lib/wire/authority.h"
#include "modules/env.h"

/* Who asks for what. Everything is borrowed; the snapshot is the one the tunnel began with and `acl` is in
 * it. */
struct relay_policy {
    struct relay_env *env;
    const struct relay_snapshot *snapshot;
    const struct relay_acl *acl;
    const struct relay_host *host;
    uint16_t port;
    enum relay_transport transport;
    bool is_partial; /* judge_addresses gets not all of them: that these are refused is not counted */
};

/* Before DNS: 0 when the target might be allowed, else RELAY_ERR_DENIED. Every address must be judged too. */
int relay_policy_judge_target(const struct relay_policy *policy);

/* Each of the addresses; those that may be reached go to `allowed` (room for `count`) in the same order, in
 * the form to be dialled. Returns 0 when there is one at least, else the first refusal: RELAY_ERR_DENIED or
 * RELAY_ERR_ADDRESS_PROHIBITED; RELAY_ERR_DNS when there was none to judge. `allowed` may be `addresses`. */
int relay_policy_judge_addresses(const struct relay_policy *policy, const struct relay_address *addresses,
                                 size_t count, struct relay_address *allowed, size_t *num_allowed);

/* The address that a target is, false when it is a name. */
bool relay_policy_literal(const struct relay_host *host, struct relay_address *address);

#endif
