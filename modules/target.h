/* From a request's target to the addresses that may be dialled: judged before DNS, resolved, each address
 * judged (T47). Both handler modules begin with it. A literal address asks no DNS.
 *
 * Embedded in its owner. Order of calls: init; begin; on_judged comes once, from a task, and may free the
 * target with its owner; or cancel at any time, also on a zeroed one, and no callback comes after. When one
 * family's addresses are known much earlier than the other's (lib/net/resolver.h) and one of them is allowed,
 * on_judged comes twice: first without is_final, then with it.
 */
#ifndef RELAY_MODULES_TARGET_H
#define RELAY_MODULES_TARGET_H

#include "modules/policy.h"

struct relay_target {
    struct relay_host host;
    uint16_t port;
    /* When on_judged comes: 0 and the addresses to dial, in the order of RFC 6724 and in the form to be
     * dialled; or why there is none: RELAY_ERR_DENIED, _ADDRESS_PROHIBITED, or the error of struct relay_resolution. The
     * second time 0 and the late addresses alone, maybe none. */
    int error;
    int rcode; /* of a DNS error, else -1 */
    bool is_final;
    struct relay_address addresses[RELAY_RESOLVER_ADDRESSES_MAX];
    size_t num_addresses;
    /* private */
    struct relay_env *env;
    const struct relay_snapshot *snapshot;
    const struct relay_acl *acl;
    enum relay_transport transport;
    void (*on_judged)(struct relay_target *target);
    struct relay_lookup lookup;
    struct relay_task task;
    bool is_told;    /* on_judged came */
    size_t num_held; /* of `addresses`, not told yet: they are judged again together with the late ones */
};

/* Copies the host. The snapshot and the list in it outlive the target. */
void relay_target_init(struct relay_target *target, struct relay_env *env,
                       const struct relay_snapshot *snapshot, const struct relay_acl *acl,
                       enum relay_transport transport, const struct relay_host *host, uint16_t port);
/* The payer, who may be NULL, outlives what the target asks of DNS. */
void relay_target_begin(struct relay_target *target, struct relay_lookup_payer *payer,
                        void (*on_judged)(struct relay_target *target));
void relay_target_cancel(struct relay_target *target);

#endif
