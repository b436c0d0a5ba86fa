#include "lib/wire/acl.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "lib/wire/error.h"

#define NAME_MAX_LENGTH  253
#define LABEL_MAX_LENGTH 63

/* Ports through which a relay is abused: mail, SMB, and what amplifies or is reached by UDP reflection. */
static const struct {
    enum relay_transport transport;
    uint16_t first, last;
} guarded_ports[] = {
    {RELAY_TRANSPORT_TCP, 25, 25},   {RELAY_TRANSPORT_TCP, 119, 119},   {RELAY_TRANSPORT_TCP, 135, 139},
    {RELAY_TRANSPORT_TCP, 445, 445}, {RELAY_TRANSPORT_TCP, 563, 563},   {RELAY_TRANSPORT_UDP, 19, 19},
    {RELAY_TRANSPORT_UDP, 123, 123}, {RELAY_TRANSPORT_UDP, 135, 139},   {RELAY_TRANSPORT_UDP, 161, 161},
    {RELAY_TRANSPORT_UDP, 389, 389}, {RELAY_TRANSPORT_UDP, 1900, 1900}, {RELAY_TRANSPORT_UDP, 11211, 11211},
};
#define DNS_PORT 53

static bool is_guarded(uint16_t port, enum relay_transport transport)
{
    for (size_t i = 0; i < sizeof(guarded_ports) / sizeof(guarded_ports[0]); i++)
        if (guarded_ports[i].transport == transport && port >= guarded_ports[i].first &&
            port <= guarded_ports[i].last)
            return true;
    return false;
}

/* One part of a rule's text. `text` is NULL when the part is not there. */
struct part {
    const char *text;
    size_t len;
};

struct parts {
    struct part host, length, ports;
    bool bracketed;
};

static const char *split_rest(struct parts *parts, const char *rest)
{
    while (*rest != '\0') {
        struct part *part = *rest == ':' ? &parts->ports : *rest == '/' ? &parts->length : NULL;
        if (part == NULL || part->text != NULL)
            return "expected :PORT, :PORT-PORT or /LENGTH after the host, each once";
        part->text = rest + 1;
        part->len = strcspn(rest + 1, ":/");
        rest = part->text + part->len;
    }
    return NULL;
}

static const char *split(struct parts *parts, const char *text)
{
    if (*text == '[') {
        const char *close = strchr(text, ']');
        if (close == NULL)
            return "expected ] after the IPv6 address";
        parts->bracketed = true;
        parts->host = (struct part){text + 1, strcspn(text + 1, "/]")};
        const char *inside = parts->host.text + parts->host.len;
        if (inside < close)
            parts->length = (struct part){inside + 1, (size_t)(close - inside) - 1};
        return split_rest(parts, close + 1);
    }
    const char *colon = strchr(text, ':');
    const bool bare_v6 = colon != NULL && strchr(colon + 1, ':') != NULL;
    parts->host = (struct part){text, strcspn(text, bare_v6 ? "/" : ":/")};
    return split_rest(parts, text + parts->host.len);
}

/* 1-65535 without leading zero; 0 for anything else. */
static uint16_t parse_port(const char *text, size_t len)
{
    if (len == 0 || len > 5 || text[0] == '0')
        return 0;
    unsigned value = 0;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return 0;
        value = value * 10 + (unsigned)(text[i] - '0');
    }
    return value <= UINT16_MAX ? (uint16_t)value : 0;
}

static const char *parse_ports(struct relay_acl_rule *rule, const struct part *ports)
{
    rule->first_port = 0;
    rule->last_port = UINT16_MAX;
    if (ports->text == NULL)
        return NULL;
    rule->has_ports = true;
    const char *dash = ports->len > 0 ? memchr(ports->text, '-', ports->len) : NULL;
    const size_t first_len = dash != NULL ? (size_t)(dash - ports->text) : ports->len;
    rule->first_port = parse_port(ports->text, first_len);
    rule->last_port = rule->first_port;
    if (dash != NULL)
        rule->last_port = parse_port(dash + 1, ports->len - first_len - 1);
    if (rule->first_port == 0 || rule->last_port == 0)
        return "expected a port or a range of ports within 1-65535";
    return rule->first_port <= rule->last_port ? NULL : "expected the lower port first";
}

/* A target is unwrapped before it is compared, so a rule in a wrapped form would never match: an IPv4-mapped
 * rule is turned into the IPv4 rule it means, and NAT64 cannot be allowed as such. */
static const char *unwrap_rule(struct relay_acl_rule *rule)
{
    if (rule->prefix.address.family != 6 || rule->prefix.length < 96)
        return NULL;
    struct relay_address judged, dialled;
    relay_address_unwrap(&rule->prefix.address, &judged, &dialled);
    if (dialled.family == 4) {
        rule->prefix.address = dialled;
        rule->prefix.length -= 96;
    } else if (judged.family == 4 && rule->allow) {
        return "64:ff9b::/96 is judged by the IPv4 address inside: expected a rule for that address";
    }
    return NULL;
}

static const char *parse_prefix(struct relay_acl_rule *rule, const struct parts *parts)
{
    char text[RELAY_PREFIX_TEXT_SIZE];
    size_t len = parts->host.len;
    if (len + 1 + parts->length.len >= sizeof(text))
        return "expected a prefix length of 0-32 (IPv4) or 0-128 (IPv6)";
    memcpy(text, parts->host.text, len);
    if (parts->length.text != NULL) {
        text[len++] = '/';
        memcpy(text + len, parts->length.text, parts->length.len);
        len += parts->length.len;
    }
    if (relay_prefix_parse(text, len, &rule->prefix) != 0)
        return "expected a prefix length of 0-32 (IPv4) or 0-128 (IPv6) and only zero bits behind the prefix";
    rule->kind = RELAY_ACL_ADDRESS;
    return unwrap_rule(rule);
}

static bool is_name_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

/* Whether `label`, the last of a name, makes resolvers read the name as a number: "1", "0x7f". */
static bool is_number(const char *label)
{
    if (label[0] == '0' && label[1] == 'x')
        return label[2 + strspn(label + 2, "0123456789abcdef")] == '\0';
    return label[strspn(label, "0123456789")] == '\0';
}

static bool is_valid_name(const char *name)
{
    const char *label = name;
    for (const char *p = name;; p++) {
        if (*p == '.' || *p == '\0') {
            if (p == label || p - label > LABEL_MAX_LENGTH)
                return false;
            if (*p == '\0')
                return p - name <= NAME_MAX_LENGTH && !is_number(label);
            label = p + 1;
        } else if (!is_name_byte(*p)) {
            return false;
        }
    }
}

static const char *parse_name(struct relay_acl_rule *rule, const struct part *host)
{
    const bool is_suffix = host->len > 2 && memcmp(host->text, "*.", 2) == 0;
    const char *text = host->text + (is_suffix ? 1 : 0); /* a suffix keeps its dot */
    size_t len = host->len - (is_suffix ? 1 : 0);
    if (len > 1 && text[len - 1] == '.')
        len--;
    rule->kind = is_suffix ? RELAY_ACL_SUFFIX : RELAY_ACL_NAME;
    rule->name = strndup(text, len);
    if (rule->name == NULL)
        return NULL;
    for (char *p = rule->name; *p != '\0'; p++)
        if (*p >= 'A' && *p <= 'Z')
            *p += 'a' - 'A';
    if (!is_valid_name(rule->name + (is_suffix ? 1 : 0)))
        return "expected *, an address, a prefix, a name or *.SUFFIX";
    return NULL;
}

static const char *parse_host(struct relay_acl_rule *rule, const struct parts *parts)
{
    struct relay_address address;
    if (relay_address_parse(parts->host.text, parts->host.len, &address) == 0) {
        if (parts->bracketed && address.family != 6)
            return "expected an IPv6 address in the brackets";
        return parse_prefix(rule, parts);
    }
    if (parts->bracketed)
        return "expected an IPv6 address in the brackets";
    if (parts->length.text != NULL)
        return "expected an address before the prefix length";
    if (parts->host.len == 1 && parts->host.text[0] == '*') {
        rule->kind = RELAY_ACL_ANY;
        return NULL;
    }
    return parse_name(rule, &parts->host);
}

static const char *parse_rule(struct relay_acl_rule *rule, const char *text)
{
    struct parts parts = {0};
    if (text[0] != '+' && text[0] != '-')
        return "expected + or - at the beginning";
    rule->allow = text[0] == '+';
    const char *why = split(&parts, text + 1);
    if (why == NULL)
        why = parse_ports(rule, &parts.ports);
    return why != NULL ? why : parse_host(rule, &parts);
}

static int reserve(struct relay_acl *acl)
{
    if (acl->count < acl->capacity)
        return 0;
    const size_t capacity = acl->capacity > 0 ? acl->capacity * 2 : 8;
    struct relay_acl_rule *grown = reallocarray(acl->rules, capacity, sizeof(*grown));
    if (grown == NULL)
        return RELAY_ERR_NO_MEMORY;
    acl->rules = grown;
    acl->capacity = capacity;
    return 0;
}

int relay_acl_add(struct relay_acl *acl, const char *rule, const char **why)
{
    struct relay_acl_rule parsed = {0};
    int error = 0;
    *why = parse_rule(&parsed, rule);
    if (*why != NULL)
        error = RELAY_ERR_INVALID;
    else if (parsed.name == NULL && (parsed.kind == RELAY_ACL_NAME || parsed.kind == RELAY_ACL_SUFFIX))
        error = RELAY_ERR_NO_MEMORY;
    else
        error = reserve(acl);
    if (error != 0) {
        free(parsed.name);
        return error;
    }
    acl->rules[acl->count++] = parsed;
    acl->given = true;
    return 0;
}

bool relay_acl_seems_to_name_port(const char *rule)
{
    struct relay_address address;
    const char *host = rule + strspn(rule, "+-"), *colon = strrchr(host, ':');
    return colon != NULL && parse_port(colon + 1, strlen(colon + 1)) != 0 &&
           relay_address_parse(host, (size_t)(colon - host), &address) == 0 && address.family == 6;
}

void relay_acl_dispose(struct relay_acl *acl)
{
    for (size_t i = 0; i < acl->count; i++)
        free(acl->rules[i].name);
    free(acl->rules);
    *acl = (struct relay_acl){0};
}

static bool matches_name(const struct relay_acl_rule *rule, const char *host)
{
    if (host == NULL)
        return false;
    size_t len = strlen(host);
    if (len > 0 && host[len - 1] == '.')
        len--;
    const size_t name_len = strlen(rule->name);
    if (rule->kind == RELAY_ACL_NAME)
        return len == name_len && strncasecmp(host, rule->name, len) == 0;
    return len > name_len && strncasecmp(host + len - name_len, rule->name, name_len) == 0;
}

static bool matches_port(const struct relay_acl_rule *rule, uint16_t port)
{
    return port >= rule->first_port && port <= rule->last_port;
}

/* Names a certain place, so that it can open what is closed by default. /0 is `*` for one family. */
static bool is_literal(const struct relay_acl_rule *rule)
{
    return rule->kind == RELAY_ACL_ADDRESS && rule->prefix.length > 0;
}

/* A target as the rules see it. */
struct target {
    const char *host;
    struct relay_address judged, dialled;
    uint16_t port;
    bool special; /* only a literal allow rule matches */
    bool guarded; /* only a literal allow rule with ports matches */
};

static bool matches_host(const struct relay_acl_rule *rule, const struct target *target)
{
    switch (rule->kind) {
    case RELAY_ACL_ANY:
        return true;
    case RELAY_ACL_NAME:
    case RELAY_ACL_SUFFIX:
        return matches_name(rule, target->host);
    case RELAY_ACL_ADDRESS:
        break;
    }
    return relay_prefix_contains(&rule->prefix, &target->judged) ||
           (!rule->allow && relay_prefix_contains(&rule->prefix, &target->dialled));
}

/* But for the guard of ports. */
static bool matches(const struct relay_acl_rule *rule, const struct target *target)
{
    return matches_port(rule, target->port) && matches_host(rule, target) &&
           (!rule->allow || !target->special || is_literal(rule));
}

static bool opens_guarded(const struct relay_acl_rule *rule)
{
    return is_literal(rule) && rule->has_ports;
}

static bool is_resolver(const struct relay_acl_context *context, const struct relay_address *judged)
{
    for (size_t i = 0; i < context->resolver_count; i++) {
        struct relay_address resolver;
        relay_address_unwrap(&context->resolvers[i], &resolver, NULL);
        if (relay_address_equal(&resolver, judged))
            return true;
    }
    return false;
}

static bool is_own(const struct relay_acl_context *context, const struct target *target,
                   enum relay_transport transport)
{
    if (context->is_own == NULL)
        return false;
    if (context->is_own(context->data, &target->dialled, target->port, transport))
        return true;
    return !relay_address_equal(&target->dialled, &target->judged) &&
           context->is_own(context->data, &target->judged, target->port, transport);
}

int relay_acl_judge_name(const struct relay_acl *acl, const struct relay_acl_context *context,
                         const char *host, uint16_t port, enum relay_transport transport)
{
    const bool guarded = is_guarded(port, transport) || (port == DNS_PORT && context->resolver_count == 0);
    if (port == 0)
        return RELAY_ERR_DENIED;
    if (!acl->given)
        return guarded ? RELAY_ERR_DENIED : 0;
    for (size_t i = 0; i < acl->count; i++) {
        const struct relay_acl_rule *rule = &acl->rules[i];
        const bool is_address = rule->kind == RELAY_ACL_ADDRESS;
        if (!matches_port(rule, port))
            continue;
        if (!is_address && rule->kind != RELAY_ACL_ANY && !matches_name(rule, host))
            continue;
        /* A deny rule for addresses leaves other addresses; one for this name or for all leaves none. */
        if (!rule->allow && !is_address)
            return RELAY_ERR_DENIED;
        if (rule->allow && (!guarded || opens_guarded(rule)))
            return 0;
    }
    return RELAY_ERR_DENIED;
}

int relay_acl_judge_address(const struct relay_acl *acl, const struct relay_acl_context *context,
                            const char *host, const struct relay_address *address, uint16_t port,
                            enum relay_transport transport)
{
    struct target target = {.host = host, .port = port};
    relay_address_unwrap(address, &target.judged, &target.dialled);
    target.special = relay_address_is_special(&target.judged);
    target.guarded =
        is_guarded(port, transport) || (port == DNS_PORT && !is_resolver(context, &target.judged));
    if (target.judged.family == 0 || is_own(context, &target, transport))
        return RELAY_ERR_ADDRESS_PROHIBITED;
    if (port == 0)
        return RELAY_ERR_DENIED;

    bool is_port_alone = false; /* the address was let through, not this port of it */
    for (size_t i = 0; i < acl->count; i++) {
        const struct relay_acl_rule *rule = &acl->rules[i];
        if (!matches(rule, &target))
            continue;
        if (rule->allow && target.guarded && !opens_guarded(rule)) {
            is_port_alone = true;
            continue;
        }
        if (rule->allow)
            return 0;
        return rule->kind == RELAY_ACL_ADDRESS ? RELAY_ERR_ADDRESS_PROHIBITED : RELAY_ERR_DENIED;
    }
    if (target.special && !is_port_alone)
        return RELAY_ERR_ADDRESS_PROHIBITED;
    return acl->given || target.guarded ? RELAY_ERR_DENIED : 0;
}
