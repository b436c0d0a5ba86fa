#include "modules/target.h"

#include <string.h>

#include "lib/wire/error.h"

static struct relay_policy policy_of(struct relay_target *target)
{
    return (struct relay_policy){.env = target->env,
                                 .snapshot = target->snapshot,
                                 .acl = target->acl,
                                 .host = &target->host,
                                 .port = target->port,
                                 .transport = target->transport};
}

/* The owner may free us in on_judged: only the loop may be below it on the stack, never the resolver. */
static void tell_later(struct relay_target *target)
{
    relay_task_queue(target->env->loop, &target->task);
}

static void run_task(struct relay_task *task)
{
    struct relay_target *target = (struct relay_target *)((char *)task - offsetof(struct relay_target, task));
    target->is_told = true;
    target->num_held = 0;
    target->on_judged(target);
}

/* What is held and these. False: all of them are refused, and there may be more. */
static bool judge(struct relay_target *target, const struct relay_address *addresses, size_t count)
{
    struct relay_policy policy = policy_of(target);
    size_t held = target->num_held, room = RELAY_RESOLVER_ADDRESSES_MAX - held;
    count = count < room ? count : room;
    memcpy(target->addresses + held, addresses, count * sizeof(addresses[0]));
    policy.is_partial = !target->is_final || target->is_told;
    target->error = relay_policy_judge_addresses(&policy, target->addresses, held + count, target->addresses,
                                                 &target->num_addresses);
    target->num_held = target->error == 0 ? target->num_addresses : held + count;
    if (target->is_told)
        target->error = 0;
    return target->error == 0 || target->is_final;
}

static void on_resolved(struct relay_lookup *lookup, const struct relay_resolution *resolution)
{
    struct relay_target *target =
        (struct relay_target *)((char *)lookup - offsetof(struct relay_target, lookup));
    target->error = resolution->error;
    target->is_final = resolution->is_final;
    if (resolution->error == 0 && !judge(target, resolution->addresses, resolution->num_addresses))
        return;
    if (target->error == RELAY_ERR_DNS)
        target->rcode = resolution->rcode;
    tell_later(target);
}

void relay_target_init(struct relay_target *target, struct relay_env *env,
                       const struct relay_snapshot *snapshot, const struct relay_acl *acl,
                       enum relay_transport transport, const struct relay_host *host, uint16_t port)
{
    memset(target, 0, sizeof(*target));
    target->env = env;
    target->snapshot = snapshot;
    target->acl = acl;
    target->transport = transport;
    target->host = *host;
    target->port = port;
    target->rcode = -1;
    target->lookup.on_resolved = on_resolved;
    target->lookup.resolution_delay = snapshot->dial.resolution_delay;
    relay_task_init(&target->task, RELAY_LEVEL_EVENT, run_task);
}

void relay_target_begin(struct relay_target *target, struct relay_lookup_payer *payer,
                        void (*on_judged)(struct relay_target *target))
{
    struct relay_policy policy = policy_of(target);
    struct relay_address literal;
    target->on_judged = on_judged;
    target->lookup.payer = payer;
    target->is_final = true;
    target->error = relay_policy_judge_target(&policy);
    if (target->error == 0 && !relay_policy_literal(&target->host, &literal)) {
        relay_resolver_ask(target->env->resolver, &target->lookup, target->host.name);
        return;
    }
    if (target->error == 0)
        judge(target, &literal, 1);
    tell_later(target);
}

void relay_target_cancel(struct relay_target *target)
{
    relay_lookup_cancel(&target->lookup);
    relay_task_cancel(&target->task);
}
