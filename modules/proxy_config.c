#include "modules/proxy_config.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "lib/wire/error.h"
#include "modules/snapshot.h"

#define ANYWHERE (H2O_CONFIGURATOR_FLAG_GLOBAL | H2O_CONFIGURATOR_FLAG_HOST | H2O_CONFIGURATOR_FLAG_PATH)

/* ---- access lists ---- */

static int add_rule(h2o_configurator_command_t *cmd, yoml_t *item, struct relay_acl *acl)
{
    const char *why = NULL;
    const int error = relay_acl_add(acl, item->data.scalar, &why);
    if (error != 0)
        h2o_configurator_errprintf(cmd, item, "%s", error == RELAY_ERR_NO_MEMORY ? "out of memory" : why);
    return error == 0 ? 0 : -1;
}

static int add_connect_rule(h2o_configurator_command_t *cmd, yoml_t *item, struct relay_snapshot *snapshot)
{
    return add_rule(cmd, item, &snapshot->connect[0].acl);
}

static int add_connect_udp_rule(h2o_configurator_command_t *cmd, yoml_t *item,
                                struct relay_snapshot *snapshot)
{
    return add_rule(cmd, item, &snapshot->connect_udp[0].acl);
}

/* ON, OFF, one rule or a list of rules. */
static int apply_list(h2o_configurator_command_t *cmd, yoml_t *node, struct relay_snapshot *snapshot,
                      struct relay_acl *acl, size_t *num_policies,
                      int (*each)(h2o_configurator_command_t *cmd, yoml_t *item,
                                  struct relay_snapshot *snapshot))
{
    static const char expected[] = "ON, OFF or a list of rules such as \"+*:443\"";
    if (node->type == YOML_TYPE_SCALAR && strcasecmp(node->data.scalar, "OFF") == 0)
        return 0;
    *num_policies = 1;
    if (node->type == YOML_TYPE_SCALAR && strcasecmp(node->data.scalar, "ON") == 0)
        return 0;
    acl->given = true;
    if (node->type == YOML_TYPE_SCALAR && strchr("+-", node->data.scalar[0]) == NULL) {
        h2o_configurator_errprintf(cmd, node, "expected %s", expected);
        return -1;
    }
    return relay_directive_each(cmd, node, expected, each, snapshot);
}

static int apply_connect(h2o_configurator_command_t *cmd, h2o_configurator_context_t *ctx, yoml_t *node,
                         struct relay_snapshot *snapshot)
{
    return apply_list(cmd, node, snapshot, &snapshot->connect[0].acl, &snapshot->num_connect,
                      add_connect_rule);
}

static int apply_connect_udp(h2o_configurator_command_t *cmd, h2o_configurator_context_t *ctx, yoml_t *node,
                             struct relay_snapshot *snapshot)
{
    return apply_list(cmd, node, snapshot, &snapshot->connect_udp[0].acl, &snapshot->num_connect_udp,
                      add_connect_udp_rule);
}

/* ---- templates ---- */

static bool has_template(const struct relay_proxy_policy *policy)
{
    return policy->template.ends[2] != 0 || policy->template.has_authority;
}

static size_t count_templates(const struct relay_snapshot *snapshot)
{
    size_t count = 0;
    while (count < RELAY_PROXY_POLICIES_MAX && has_template(&snapshot->connect_udp[count]))
        count++;
    return count;
}

static int add_template(h2o_configurator_command_t *cmd, yoml_t *item, struct relay_snapshot *snapshot)
{
    const size_t count = count_templates(snapshot);
    if (count == RELAY_PROXY_POLICIES_MAX) {
        h2o_configurator_errprintf(cmd, item, "expected at most %d templates", RELAY_PROXY_POLICIES_MAX);
        return -1;
    }
    struct relay_uri_template_fault fault = {0};
    struct relay_uri_template template;
    if (relay_uri_template_parse(&template, item->data.scalar, &fault) != 0) {
        h2o_configurator_errprintf(cmd, item, "expected a URI Template of RFC 9298: %s, at byte %zu of it",
                                   fault.message, fault.position + 1);
        return -1;
    }
    snapshot->connect_udp[count].template = template;
    return 0;
}

static int apply_template(h2o_configurator_command_t *cmd, h2o_configurator_context_t *ctx, yoml_t *node,
                          struct relay_snapshot *snapshot)
{
    return relay_directive_each(cmd, node, "a URI Template, or a list of them", add_template, snapshot);
}

static int apply_oversize(h2o_configurator_command_t *cmd, h2o_configurator_context_t *ctx, yoml_t *node,
                          struct relay_snapshot *snapshot)
{
    const char *text = relay_directive_scalar(cmd, node, "drop or capsule");
    if (text == NULL)
        return -1;
    snapshot->oversize_capsule = strcasecmp(text, "capsule") == 0;
    if (!snapshot->oversize_capsule && strcasecmp(text, "drop") != 0) {
        h2o_configurator_errprintf(cmd, node, "expected drop or capsule");
        return -1;
    }
    return 0;
}

/* ---- relays ---- */

/* The rule that admits a relay and nothing else. */
static int admit_relay(struct relay_acl *acl, const struct relay_relay_target *target, const char **why)
{
    char rule[1 + RELAY_AUTHORITY_SIZE] = "+";
    relay_authority_write(&target->host, target->port, rule + 1, sizeof(rule) - 1);
    return relay_acl_add(acl, rule, why);
}

static int add_relay(h2o_configurator_command_t *cmd, yoml_t *item, struct relay_snapshot *snapshot)
{
    struct relay_relay_target target;
    const char *why = "expected HOST:PORT, as egress.example:443 or [2001:db8::1]:443";
    struct relay_acl trial = {0};
    int error =
        relay_authority_parse(&target.host, &target.port, item->data.scalar, strlen(item->data.scalar));
    if (error == 0)
        error = admit_relay(&trial, &target, &why);
    relay_acl_dispose(&trial);
    struct relay_relay_target *relays = NULL;
    if (error == 0) {
        why = "out of memory";
        relays = realloc(snapshot->relays, (snapshot->num_relays + 1) * sizeof(*snapshot->relays));
    }
    if (relays == NULL) {
        h2o_configurator_errprintf(cmd, item, "%s", why);
        return -1;
    }
    snapshot->relays = relays;
    relays[snapshot->num_relays++] = target;
    return 0;
}

static int apply_relays(h2o_configurator_command_t *cmd, h2o_configurator_context_t *ctx, yoml_t *node,
                        struct relay_snapshot *snapshot)
{
    return relay_directive_each(cmd, node, "a list of HOST:PORT", add_relay, snapshot);
}

static int admit_relays(struct relay_acl *acl, const struct relay_snapshot *snapshot)
{
    int error = 0;
    const char *why;
    acl->given = true;
    for (size_t i = 0; error == 0 && i < snapshot->num_relays; i++)
        error = admit_relay(acl, &snapshot->relays[i], &why);
    return error;
}

/* ---- finish ---- */

static int copy_acl(struct relay_acl *to, const struct relay_acl *from)
{
    *to = (struct relay_acl){.given = from->given};
    if (from->count == 0)
        return 0;
    if ((to->rules = calloc(from->count, sizeof(*to->rules))) == NULL)
        return RELAY_ERR_NO_MEMORY;
    to->capacity = from->count;
    for (; to->count < from->count; to->count++) {
        struct relay_acl_rule *rule = &to->rules[to->count];
        *rule = from->rules[to->count];
        if (rule->name != NULL && (rule->name = strdup(rule->name)) == NULL)
            return RELAY_ERR_NO_MEMORY;
    }
    return 0;
}

int relay_proxy_config_finish(struct relay_snapshot *snapshot)
{
    int error = 0;
    struct relay_proxy_policy *connect = &snapshot->connect[0], *connect_udp = &snapshot->connect_udp[0];
    if (snapshot->role == RELAY_ROLE_INGRESS && snapshot->num_connect > 0 && !connect->acl.given)
        error = admit_relays(&connect->acl, snapshot);
    if (error == 0 && snapshot->role == RELAY_ROLE_INGRESS && snapshot->num_connect_udp > 0 &&
        !connect_udp->acl.given)
        error = admit_relays(&connect_udp->acl, snapshot);
    if (error != 0 || snapshot->num_connect_udp == 0)
        return error;
    if (!has_template(connect_udp)) {
        error = relay_uri_template_parse(&connect_udp->template, RELAY_URI_TEMPLATE_UDP_DEFAULT, NULL);
        assert(error == 0);
    }
    snapshot->num_connect_udp = count_templates(snapshot);
    for (size_t i = 1; error == 0 && i < snapshot->num_connect_udp; i++)
        error = copy_acl(&snapshot->connect_udp[i].acl, &connect_udp->acl);
    return error;
}

/* ---- the table ---- */

const struct relay_directive relay_proxy_directives[] = {
    {.name = "proxy.connect",
     .type = RELAY_DIRECTIVE_CUSTOM,
     .apply = apply_connect,
     .level_flags = ANYWHERE,
     .form = "ON | OFF | [RULE, ...]",
     .default_text = "OFF",
     .help =
         "CONNECT to TCP targets. ON: the role's targets (ingress: relays: only; egress: the public "
         "internet). A list: the "
         "first rule that matches decides, no match denies (ingress: of relays: only, too). A rule is + or "
         "-, then *, an address, a prefix, "
         "a name or "
         "*.suffix, then optionally :PORT or :FIRST-LAST. A special-purpose address passes only where an "
         "allow rule "
         "writes it (or a prefix of it); the ports of mail, file sharing and UDP amplifiers, and 53 but to "
         "resolver.servers, only where one writes an address or prefix and the port too. Holds for all hosts "
         "and paths."},
    {.name = "proxy.connect-udp",
     .type = RELAY_DIRECTIVE_CUSTOM,
     .apply = apply_connect_udp,
     .level_flags = ANYWHERE,
     .form = "ON | OFF | [RULE, ...]",
     .default_text = "OFF",
     .help = "CONNECT-UDP to UDP targets (RFC 9298), written as proxy.connect."},
    {.name = "proxy.connect-udp.template",
     .type = RELAY_DIRECTIVE_CUSTOM,
     .apply = apply_template,
     .level_flags = ANYWHERE,
     .form = "TEMPLATE | [TEMPLATE, ...]",
     .default_text = RELAY_URI_TEMPLATE_UDP_DEFAULT,
     .help = "Where the target stands in the path or the query: {target_host} and {target_port}, or "
             "{?target_host,target_port} (RFC 6570). Other variables are undefined and expand to nothing."},
    {.name = "proxy.connect-udp.oversize",
     .type = RELAY_DIRECTIVE_CUSTOM,
     .apply = apply_oversize,
     .level_flags = ANYWHERE,
     .form = "drop | capsule",
     .default_text = "drop",
     .help = "What becomes of a datagram that is too big for the path to the client: dropped and counted, so "
             "that path MTU "
             "discovery inside works; or sent as a capsule on the stream."},
    {.name = "relays",
     .type = RELAY_DIRECTIVE_CUSTOM,
     .apply = apply_relays,
     .form = "[HOST:PORT, ...]",
     .help = "At an ingress, where it is mandatory: the egress relays, its only targets. A list of rules in "
             "proxy.* narrows them and adds none. One with a special-purpose address must be written as "
             "address; beside a list of rules, there too."},
    {.name = "proxy.timeout.connect",
     RELAY_DIRECTIVE_SECONDS_AT(dial.timeout),
     .min = 0.1,
     .max = 120,
     .default_text = "10",
     .help = "All attempts to reach a TCP target together."},
    {.name = "proxy.timeout.tcp-idle",
     RELAY_DIRECTIVE_SECONDS_AT(timeouts.tcp_idle),
     .min = 1,
     .max = 604800,
     .default_text = "300",
     .help = "A CONNECT tunnel ends when both directions were quiet for so long."},
    {.name = "proxy.timeout.udp-idle",
     RELAY_DIRECTIVE_SECONDS_AT(timeouts.udp_idle),
     .min = 120,
     .max = 604800,
     .default_text = "120",
     .help = "The same for CONNECT-UDP; not under two minutes (RFC 9298 section 3.1)."},
    {.name = "proxy.happy-eyeballs.connection-attempt-delay",
     RELAY_DIRECTIVE_SECONDS_AT(dial.attempt_delay),
     .min = 0.01,
     .max = 2,
     .default_text = "250ms",
     .help = "How long one address is tried before the next one is tried beside it (RFC 8305 section 5)."},
    {.name = "proxy.happy-eyeballs.delay",
     RELAY_DIRECTIVE_SECONDS_AT(dial.attempt_delay),
     .min = 0.01,
     .max = 2,
     .default_text = "250ms",
     .help = "Another name of proxy.happy-eyeballs.connection-attempt-delay."},
    {.name = "proxy.happy-eyeballs.name-resolution-delay",
     RELAY_DIRECTIVE_SECONDS_AT(dial.resolution_delay),
     .min = 0,
     .max = 1,
     .default_text = "50ms",
     .help = "How long a name's IPv4 addresses wait for its IPv6 addresses (RFC 8305 section 3); what comes "
             "later joins the attempts."},
    {.name = "debug.observe",
     RELAY_DIRECTIVE_SWITCH_AT(observe),
     .default_text = "OFF",
     .help =
         "Logs client, peer and target of each tunnel. It breaks what the relay promises to its users: for "
         "demonstrations and tests only. It warns each minute and is off after an hour."},
    {.name = NULL},
};
