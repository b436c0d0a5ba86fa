#include "modules/policy.h"

#include <string.h>

#include "lib/net/metrics.h"
#include "lib/wire/error.h"

#define RESOLVERS_MAX 8

/* What relay_acl asks; it remembers whether one of our own listeners was the reason. */
struct own_probe {
    bool is_hit;
};

static bool is_own(void *data, const struct relay_address *address, uint16_t port,
                   enum relay_transport transport)
{
    struct own_probe *probe = data;
    bool is_hit = relay_own_listener_is(NULL, address, port, transport);
    probe->is_hit |= is_hit;
    return is_hit;
}

bool relay_policy_literal(const struct relay_host *host, struct relay_address *address)
{
    if (host->kind == RELAY_HOST_NAME)
        return false;
    memset(address, 0, sizeof(*address));
    address->family = host->kind == RELAY_HOST_IPV4 ? 4 : 6;
    memcpy(address->bytes, host->address, host->kind == RELAY_HOST_IPV4 ? 4 : 16);
    return true;
}

static bool is_listed_relay(const struct relay_policy *policy)
{
    const struct relay_snapshot *snapshot = policy->snapshot;
    for (size_t i = 0; i < snapshot->num_relays; i++) {
        const struct relay_relay_target *relay = &snapshot->relays[i];
        if (relay->port == policy->port && relay->host.kind == policy->host->kind &&
            strcmp(relay->host.name, policy->host->name) == 0)
            return true;
    }
    return false;
}

static int count_refusal(const struct relay_policy *policy, int error, bool is_listener)
{
    struct relay_metrics *metrics = policy->env->metrics;
    if (is_listener)
        relay_count(metrics->policy_listener, 1);
    else if (error == RELAY_ERR_ADDRESS_PROHIBITED)
        relay_count(metrics->policy_address, 1);
    else if (error == RELAY_ERR_DENIED)
        relay_count(metrics->policy_name, 1);
    return error;
}

static struct relay_acl_context make_context(const struct relay_policy *policy,
                                             struct relay_address resolvers[RESOLVERS_MAX],
                                             struct own_probe *probe)
{
    struct relay_acl_context context = {.resolvers = resolvers, .is_own = is_own, .data = probe};
    if (policy->env->resolver != NULL)
        context.resolver_count = relay_resolver_servers(policy->env->resolver, resolvers, RESOLVERS_MAX);
    return context;
}

int relay_policy_judge_target(const struct relay_policy *policy)
{
    struct relay_address resolvers[RESOLVERS_MAX];
    struct own_probe probe = {false};
    struct relay_acl_context context = make_context(policy, resolvers, &probe);
    int error = 0;
    if (policy->snapshot->role == RELAY_ROLE_INGRESS && !is_listed_relay(policy))
        error = RELAY_ERR_DENIED;
    else if (policy->host->kind == RELAY_HOST_NAME)
        error =
            relay_acl_judge_name(policy->acl, &context, policy->host->name, policy->port, policy->transport);
    return error == 0 ? 0 : count_refusal(policy, error, false);
}

static int judge_address(const struct relay_policy *policy, const struct relay_acl_context *context,
                         const struct relay_address *address)
{
    bool is_name = policy->host->kind == RELAY_HOST_NAME;
    if (policy->snapshot->role == RELAY_ROLE_INGRESS && !is_name && !policy->acl->given) {
        /* The operator listed this very address; judge_target has found it. Only ourselves are never allowed.
         */
        struct relay_address judged, dialled;
        relay_address_unwrap(address, &judged, &dialled);
        bool is_self = context->is_own(context->data, &dialled, policy->port, policy->transport) ||
                       context->is_own(context->data, &judged, policy->port, policy->transport);
        return is_self ? RELAY_ERR_ADDRESS_PROHIBITED : 0;
    }
    return relay_acl_judge_address(policy->acl, context, is_name ? policy->host->name : NULL, address,
                                   policy->port, policy->transport);
}

int relay_policy_judge_addresses(const struct relay_policy *policy, const struct relay_address *addresses,
                                 size_t count, struct relay_address *allowed, size_t *num_allowed)
{
    struct relay_address resolvers[RESOLVERS_MAX];
    struct own_probe probe = {false};
    struct relay_acl_context context = make_context(policy, resolvers, &probe);
    int first_error = count > 0 ? 0 : RELAY_ERR_DNS;
    *num_allowed = 0;
    for (size_t i = 0; i < count; i++) {
        int error = judge_address(policy, &context, &addresses[i]);
        if (error == 0)
            relay_address_unwrap(&addresses[i], NULL, &allowed[(*num_allowed)++]);
        else if (first_error == 0)
            first_error = error;
    }
    if (*num_allowed > 0)
        return 0;
    return policy->is_partial ? first_error : count_refusal(policy, first_error, probe.is_hit);
}
