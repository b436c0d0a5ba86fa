#include "server/config_process.h"

#include <arpa/inet.h>
#include <pwd.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "lib/net/log_file.h"
#include "lib/wire/authority.h"

#define THREADS_MAX 64

uint32_t relay_config_cpus(void)
{
    cpu_set_t cpus;
    if (sched_getaffinity(0, sizeof(cpus), &cpus) != 0)
        return 1;
    const int count = CPU_COUNT(&cpus);
    return count < 1 ? 1 : count > THREADS_MAX ? THREADS_MAX : (uint32_t)count;
}

/* The index of the node's text in `words`, which NULL ends; -1 with a message. */
static int one_of(h2o_configurator_command_t *cmd, yoml_t *node, const char *const *words,
                  const char *expected)
{
    const char *text = relay_directive_scalar(cmd, node, expected);
    for (int i = 0; text != NULL && words[i] != NULL; i++)
        if (strcasecmp(text, words[i]) == 0)
            return i;
    if (text != NULL)
        h2o_configurator_errprintf(cmd, node, "expected %s", expected);
    return -1;
}

/* Keeps a copy of the node's text. */
static int keep(h2o_configurator_command_t *cmd, yoml_t *node, const char *expected, char **copy)
{
    const char *text = relay_directive_scalar(cmd, node, expected);
    if (text == NULL)
        return -1;
    free(*copy);
    *copy = strdup(text);
    if (*copy == NULL)
        h2o_configurator_errprintf(cmd, node, "out of memory");
    return *copy != NULL ? 0 : -1;
}

static int apply_role(h2o_configurator_command_t *cmd, h2o_configurator_context_t *ctx, yoml_t *node,
                      struct relay_snapshot *snapshot)
{
    static const char *const roles[] = {
        [RELAY_ROLE_INGRESS] = "ingress", [RELAY_ROLE_EGRESS] = "egress", NULL};
    const int role = one_of(cmd, node, roles, "ingress or egress");
    snapshot->role = role == RELAY_ROLE_EGRESS ? RELAY_ROLE_EGRESS : RELAY_ROLE_INGRESS;
    return role < 0 ? -1 : 0;
}

static int apply_proxy_name(h2o_configurator_command_t *cmd, h2o_configurator_context_t *ctx, yoml_t *node,
                            struct relay_snapshot *snapshot)
{
    static const char expected[] = "a name of 1-64 letters, digits, '.' or '-' that begins with a letter";
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    const char *text = relay_directive_scalar(cmd, node, expected);
    if (text == NULL)
        return -1;
    if (strlen(text) > 64 || strchr(letters, text[0]) == NULL ||
        text[strspn(text, "0123456789.-abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")] != '\0') {
        h2o_configurator_errprintf(cmd, node, "expected %s", expected);
        return -1;
    }
    return keep(cmd, node, expected, &snapshot->proxy_name);
}

static int apply_num_threads(h2o_configurator_command_t *cmd, h2o_configurator_context_t *ctx, yoml_t *node,
                             struct relay_snapshot *snapshot)
{
    static const char expected[] = "a whole number from 1 to 64";
    const char *text = relay_directive_scalar(cmd, node, expected);
    if (text == NULL)
        return -1;
    uint16_t number; /* digits without a leading zero, as a port */
    if (relay_port_parse(&number, text, strlen(text)) != 0 || number > THREADS_MAX) {
        h2o_configurator_errprintf(cmd, node, "expected %s", expected);
        return -1;
    }
    relay_config_of(ctx)->num_threads = number;
    return 0;
}

static int apply_user(h2o_configurator_command_t *cmd, h2o_configurator_context_t *ctx, yoml_t *node,
                      struct relay_snapshot *snapshot)
{
    if (keep(cmd, node, "the name of a user", &relay_config_of(ctx)->user) != 0)
        return -1;
    if (getpwnam(relay_config_of(ctx)->user) != NULL)
        return 0;
    h2o_configurator_errprintf(cmd, node, "expected a user of this machine");
    return -1;
}

/* Keeps the path of a file that will be written. */
static int keep_file(h2o_configurator_command_t *cmd, h2o_configurator_context_t *ctx, yoml_t *node,
                     char **path)
{
    if (keep(cmd, node, "the path of a file", path) != 0)
        return -1;
    const int error = relay_config_of(ctx)->use != RELAY_CONFIG_RELOAD ? relay_log_file_check(*path) : 0;
    if (error != 0)
        h2o_configurator_errprintf(cmd, node, "expected a file that can be written to: %s: %s", *path,
                                   strerror(-error));
    return error != 0 ? -1 : 0;
}

static int apply_pid_file(h2o_configurator_command_t *cmd, h2o_configurator_context_t *ctx, yoml_t *node,
                          struct relay_snapshot *snapshot)
{
    return keep_file(cmd, ctx, node, &relay_config_of(ctx)->pid_file);
}

static int apply_error_log(h2o_configurator_command_t *cmd, h2o_configurator_context_t *ctx, yoml_t *node,
                           struct relay_snapshot *snapshot)
{
    return keep_file(cmd, ctx, node, &relay_config_of(ctx)->error_log);
}

static int apply_log_level(h2o_configurator_command_t *cmd, h2o_configurator_context_t *ctx, yoml_t *node,
                           struct relay_snapshot *snapshot)
{
    static const char *const levels[] = {[RELAY_LOG_DEBUG] = "debug",
                                         [RELAY_LOG_INFO] = "info",
                                         [RELAY_LOG_WARNING] = "warning",
                                         [RELAY_LOG_ERROR] = "error",
                                         NULL};
    const int level = one_of(cmd, node, levels, "debug, info, warning or error");
    if (level < 0)
        return -1;
    relay_config_of(ctx)->log_level = (enum relay_log_level)level;
    return 0;
}

static bool is_loopback(const struct relay_address *address)
{
    static const uint8_t ipv6_loopback[16] = {[15] = 1};
    return address->family == 4 ? address->bytes[0] == 127 : memcmp(address->bytes, ipv6_loopback, 16) == 0;
}

/* Keeps the path of a unix socket that will be made. What is there and is none would be lost. */
static int keep_socket(h2o_configurator_command_t *cmd, h2o_configurator_context_t *ctx, yoml_t *node,
                       char **path)
{
    const size_t max = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1;
    const char *text = node->data.scalar;
    struct stat status;
    if (strlen(text) > max) {
        h2o_configurator_errprintf(cmd, node, "expected the path of a unix socket of at most %zu bytes", max);
        return -1;
    }
    if (stat(text, &status) == 0 && !S_ISSOCK(status.st_mode)) {
        h2o_configurator_errprintf(cmd, node, "expected the path of a unix socket: %s is something else",
                                   text);
        return -1;
    }
    return keep_file(cmd, ctx, node, path);
}

static int apply_admin_listen(h2o_configurator_command_t *cmd, h2o_configurator_context_t *ctx, yoml_t *node,
                              struct relay_snapshot *snapshot)
{
    static const char expected[] =
        "a loopback address with a port, as 127.0.0.1:9100, or the absolute path of a unix "
        "socket: figures about users are not for the network";
    struct relay_config *config = relay_config_of(ctx);
    struct relay_host host;
    const char *text = relay_directive_scalar(cmd, node, expected);
    if (text == NULL)
        return -1;
    config->admin.is_given = true;
    if (text[0] == '/')
        return keep_socket(cmd, ctx, node, &config->admin.path);
    if (relay_authority_parse(&host, &config->admin.port, text, strlen(text)) == 0 &&
        host.kind != RELAY_HOST_NAME &&
        relay_address_parse(host.name, strlen(host.name), &config->admin.address) == 0 &&
        is_loopback(&config->admin.address))
        return 0;
    h2o_configurator_errprintf(cmd, node, "expected %s", expected);
    return -1;
}

static int apply_admin_mode(h2o_configurator_command_t *cmd, h2o_configurator_context_t *ctx, yoml_t *node,
                            struct relay_snapshot *snapshot)
{
    static const char expected[] =
        "an octal mode from 0600 to 0666, as 0666: nobody needs to execute a socket";
    const char *text = relay_directive_scalar(cmd, node, expected);
    if (text == NULL)
        return -1;
    const char *digits = text[0] == '0' ? text + 1 : text;
    if (strlen(digits) == 3 && digits[0] == '6' && strspn(digits, "0246") == 3) {
        relay_config_of(ctx)->admin.mode = (mode_t)strtoul(digits, NULL, 8);
        return 0;
    }
    h2o_configurator_errprintf(cmd, node, "expected %s", expected);
    return -1;
}

/* ---- resolver ---- */

/* Appends "address:port" to the list that the resolver takes. */
static int add_resolver(struct relay_config *config, const struct relay_host *host, uint16_t port)
{
    char text[RELAY_AUTHORITY_SIZE];
    relay_authority_write(host, port, text, sizeof(text));
    const size_t old = config->resolver_servers != NULL ? strlen(config->resolver_servers) + 1 : 0;
    char *servers = realloc(config->resolver_servers, old + strlen(text) + 1);
    if (servers == NULL)
        return -1;
    if (old != 0)
        servers[old - 1] = ',';
    strcpy(servers + old, text);
    config->resolver_servers = servers;
    config->resolver.servers = servers;
    return 0;
}

static int apply_resolver_servers(h2o_configurator_command_t *cmd, h2o_configurator_context_t *ctx,
                                  yoml_t *node, struct relay_snapshot *snapshot)
{
    static const char expected[] = "an address, or address:port, or a list of them";
    const bool is_list = node->type == YOML_TYPE_SEQUENCE;
    const size_t count = is_list ? node->data.sequence.size : 1;
    for (size_t i = 0; i < count; i++) {
        yoml_t *item = is_list ? node->data.sequence.elements[i] : node;
        const char *text = relay_directive_scalar(cmd, item, expected);
        if (text == NULL)
            return -1;
        struct relay_host host;
        uint16_t port = 53;
        if ((relay_host_parse(&host, text, strlen(text), RELAY_HOST_BARE) != 0 &&
             relay_authority_parse_default(&host, &port, text, strlen(text), 53) != 0) ||
            host.kind == RELAY_HOST_NAME) {
            h2o_configurator_errprintf(cmd, item, "expected %s", expected);
            return -1;
        }
        if (add_resolver(relay_config_of(ctx), &host, port) != 0) {
            h2o_configurator_errprintf(cmd, item, "out of memory");
            return -1;
        }
    }
    return 0;
}

static int apply_resolver_timeout(h2o_configurator_command_t *cmd, h2o_configurator_context_t *ctx,
                                  yoml_t *node, struct relay_snapshot *snapshot)
{
    static const char expected[] = "whole seconds from 1 to 60";
    const char *text = relay_directive_scalar(cmd, node, expected);
    if (text == NULL)
        return -1;
    uint16_t seconds;
    if (relay_port_parse(&seconds, text, strlen(text)) != 0 || seconds > 60) {
        h2o_configurator_errprintf(cmd, node, "expected %s", expected);
        return -1;
    }
    relay_config_of(ctx)->resolver.timeout = seconds * RELAY_SECOND;
    return 0;
}

/* ---- the table ---- */

#define CUSTOM(name_, apply_, form_, default_, help_)                                                        \
    {                                                                                                        \
        .name = name_, .type = RELAY_DIRECTIVE_CUSTOM, .apply = apply_, .form = form_,                       \
        .default_text = default_, .help = help_                                                              \
    }

const struct relay_directive relay_process_directives[] = {
    CUSTOM("role", apply_role, "ingress | egress", NULL,
           "Mandatory. It chooses defaults: an ingress reaches only relays: and logs no target; an egress "
           "reaches the "
           "public internet and logs no client."),
    CUSTOM("num-threads", apply_num_threads, "a whole number from 1 to 64", "the CPUs of the process",
           "Workers. Each has its own sockets, connections and tunnels."),
    CUSTOM(
        "user", apply_user, "NAME", NULL,
        "Started as root, the relay becomes this user before it serves. The user must be able to read this "
        "file, the tokens, certificates and keys, since a reload does: it does not start otherwise."),
    CUSTOM("pid-file", apply_pid_file, "FILE", NULL,
           "Locked while the relay lives, so that it cannot run twice on the same ports. At the end it is "
           "removed, or "
           "emptied where user: may not remove it."),
    CUSTOM(
        "error-log", apply_error_log, "FILE", "standard error",
        "Where the JSON log lines go. SIGHUP opens it again when it was moved away. Until the relay serves, "
        "errors are written to standard error too."),
    CUSTOM("log-level", apply_log_level, "debug | info | warning | error", "info",
           "The lowest level that is logged."),
    CUSTOM("proxy-name", apply_proxy_name, "NAME", "twohop-ingress or twohop-egress",
           "The relay's name in Proxy-Status (RFC 9209)."),
    CUSTOM(
        "admin.listen", apply_admin_listen, "ADDRESS:PORT | PATH", NULL,
        "Where /metrics, /status.json and /healthz are served: a loopback address or a unix socket, "
        "which is removed at the end, where user: may remove it; a start replaces one that nobody serves."),
    CUSTOM(
        "admin.mode", apply_admin_mode, "0600 .. 0666", "0660",
        "Who may connect to the unix socket of admin.listen, beside its owner: 0666 lets every user of this "
        "machine who reaches its folder. Refused beside an ADDRESS:PORT."),
    CUSTOM("resolver.servers", apply_resolver_servers, "[ADDRESS, ADDRESS:PORT, ...]", "those of the system",
           "The DNS servers that are asked for targets. Tunnels to port 53 are open to these only."),
    CUSTOM("resolver.timeout", apply_resolver_timeout, "whole seconds from 1 to 60", "5",
           "For a whole lookup."),
    {.name = NULL},
};
