#include "server/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <h2o/configurator.h>

#include "lib/wire/error.h"
#include "modules/auth_config.h"
#include "modules/limits_config.h"
#include "modules/proxy_config.h"
#include "server/config_chain.h"
#include "server/config_check.h"
#include "server/config_error.h"
#include "server/config_process.h"

/* Our directives, in the order of the manual. */
static const struct {
    const char *title;
    const struct relay_directive *table;
    bool is_reloadable; /* its values are in the snapshot */
} tables[] = {
    {"The process", relay_process_directives, false},
    {"Listeners", relay_listen_directives, false},
    {"Who may use the relay", relay_auth_directives, true},
    {"Tunnels", relay_proxy_directives, true},
    {"Limits", relay_limits_directives, true},
};
#define NUM_TABLES (sizeof(tables) / sizeof(tables[0]))

/* A file without `hosts:` serves nothing but tunnels. */
static const char default_hosts[] = "hosts: {default: {paths: {/: {}}}}";

static void register_directives(struct relay_config *config)
{
    for (size_t i = 0; i < NUM_TABLES; i++)
        relay_directives_register(&config->h2o, tables[i].table, config->snapshot);
    relay_access_log_register(&config->h2o, &config->access_logs);
    h2o_compress_register_configurator(&config->h2o);
    h2o_errordoc_register_configurator(&config->h2o);
    h2o_expires_register_configurator(&config->h2o);
    h2o_file_register_configurator(&config->h2o);
    h2o_headers_register_configurator(&config->h2o);
    h2o_redirect_register_configurator(&config->h2o);
    /* Left out: proxy, fastcgi and reproxy (not maintained in this version), status (breaks with two
     * contexts), throttle-response (no use). */
}

static int add_default_hosts(struct relay_config *config, char *why, size_t why_size)
{
    if (relay_yaml_get(config->yaml.root, "hosts") != NULL)
        return 0;
    const int error = relay_yaml_parse(&config->default_hosts, "default", default_hosts,
                                       strlen(default_hosts), why, why_size);
    if (error == 0)
        relay_yaml_adopt(&config->yaml, &config->default_hosts);
    return error;
}

/* Everything after the syntax. Messages go to the captured buffer. */
static int apply(struct relay_config *config)
{
    yoml_t *root = config->yaml.root;
    if (relay_config_check_tree(root, config->use) != 0 ||
        h2o_configurator_apply(&config->h2o, root, config->use != RELAY_CONFIG_SERVE) != 0 ||
        relay_config_check_finish(config) != 0)
        return RELAY_ERR_INVALID;
    if (relay_yaml_get(root, "server-name") == NULL && relay_yaml_get(root, "send-server-name") == NULL)
        config->h2o.server_name = (h2o_iovec_t){NULL, 0}; /* strangers need not know what this is */
    relay_config_chain_register(&config->h2o, config->snapshot);
    return 0;
}

int relay_config_load(const char *file, enum relay_config_use use, struct relay_config **out, char *why,
                      size_t why_size)
{
    *out = NULL;
    struct relay_config *config = calloc(1, sizeof(*config));
    if (config == NULL || (config->snapshot = relay_snapshot_new()) == NULL) {
        snprintf(why, why_size, "%s: out of memory", file);
        free(config);
        return RELAY_ERR_NO_MEMORY;
    }
    config->use = use;
    config->access_logs.checks_files = use == RELAY_CONFIG_TEST;
    h2o_config_init(&config->h2o);
    config->h2o.server_name = h2o_iovec_init(H2O_STRLIT("twohop"));
    config->h2o.http1.upgrade_to_http2 = 0;
    config->num_threads = relay_config_cpus();
    config->log_level = RELAY_LOG_INFO;
    config->resolver = (struct relay_resolver_config){.timeout = 5 * RELAY_SECOND, .cache_names = 10000};
    int error = RELAY_ERR_INVALID;
    const char *other = relay_config_file_refusal(file, use);
    if (other != NULL)
        snprintf(why, why_size, "%s: expected a file, not %s", file, other);
    else
        error = relay_yaml_load(&config->yaml, file, why, why_size);
    if (error == 0)
        error = add_default_hosts(config, why, why_size);
    if (error == 0) {
        register_directives(config);
        relay_config_error_capture(why, why_size);
        error = apply(config);
        if (error != 0 && why[0] == '\0')
            h2o_configurator_errprintf(NULL, config->yaml.root,
                                       "the configuration is refused, as said above");
        relay_config_error_capture(NULL, 0);
    }
    if (error != 0) {
        relay_config_free(config);
        return error;
    }
    *out = config;
    return 0;
}

void relay_config_free(struct relay_config *config)
{
    if (config == NULL)
        return;
    h2o_config_dispose(&config->h2o);
    relay_access_log_free(&config->access_logs);
    relay_snapshot_unref(config->snapshot);
    for (size_t i = 0; i < config->num_listeners; i++) {
        free(config->listeners[i].certificate_file);
        free(config->listeners[i].key_file);
    }
    free(config->user);
    free(config->pid_file);
    free(config->error_log);
    free(config->admin.path);
    free(config->resolver_servers);
    relay_yaml_dispose(&config->yaml);
    relay_yaml_dispose(&config->default_hosts);
    free(config);
}

/* ---- reload ---- */

static bool is_reloadable(const yoml_t *key)
{
    if (key->type != YOML_TYPE_SCALAR)
        return false;
    for (size_t i = 0; i < NUM_TABLES; i++)
        if (tables[i].is_reloadable && relay_directives_have(tables[i].table, key->data.scalar))
            return true;
    return strcmp(key->data.scalar, "proxy-name") == 0;
}

static bool is_same(const yoml_t *a, const yoml_t *b);

/* The next pair from *i on that a reload cannot change; NULL: no more. */
static const yoml_mapping_element_t *next_fixed(const yoml_t *mapping, size_t *i)
{
    while (*i < mapping->data.mapping.size) {
        const yoml_mapping_element_t *pair = &mapping->data.mapping.elements[(*i)++];
        if (!is_reloadable(pair->key))
            return pair;
    }
    return NULL;
}

static bool is_same_mapping(const yoml_t *a, const yoml_t *b)
{
    size_t i = 0, j = 0;
    const yoml_mapping_element_t *of_a, *of_b;
    do {
        of_a = next_fixed(a, &i);
        of_b = next_fixed(b, &j);
        if (of_a != NULL && of_b != NULL &&
            !(is_same(of_a->key, of_b->key) && is_same(of_a->value, of_b->value)))
            return false;
    } while (of_a != NULL && of_b != NULL);
    return of_a == of_b;
}

/* Whether both say the same, but for what a reload can change. */
static bool is_same(const yoml_t *a, const yoml_t *b)
{
    if (a->type != b->type)
        return false;
    if (a->type == YOML_TYPE_SCALAR)
        return strcmp(a->data.scalar, b->data.scalar) == 0;
    if (a->type == YOML_TYPE_MAPPING)
        return is_same_mapping(a, b);
    if (a->data.sequence.size != b->data.sequence.size)
        return false;
    for (size_t i = 0; i < a->data.sequence.size; i++)
        if (!is_same(a->data.sequence.elements[i], b->data.sequence.elements[i]))
            return false;
    return true;
}

/* The n-th value of a top-level key; NULL: not so many. */
static const yoml_t *nth(const yoml_t *root, const char *key, size_t n)
{
    for (size_t i = 0; i < root->data.mapping.size; i++) {
        const yoml_mapping_element_t *pair = &root->data.mapping.elements[i];
        if (strcmp(pair->key->data.scalar, key) == 0 && n-- == 0)
            return pair->value;
    }
    return NULL;
}

static void list(char *restart, size_t restart_size, const char *name)
{
    const size_t len = strlen(restart);
    snprintf(restart + len, restart_size - len, "%s%s", len > 0 ? ", " : "", name);
}

static bool is_changed(const yoml_t *a, const yoml_t *b, const char *key)
{
    for (size_t n = 0;; n++) {
        const yoml_t *of_a = nth(a, key, n), *of_b = nth(b, key, n);
        if (of_a == NULL || of_b == NULL)
            return of_a != of_b;
        if (!is_same(of_a, of_b))
            return true;
    }
}

/* Names each fixed top-level directive of `a` whose values are not those of `b`; with `only_missing`, each
 * that `b` does not have at all. The order of different directives does not count. */
static void list_changes(const yoml_t *a, const yoml_t *b, bool only_missing, char *restart,
                         size_t restart_size)
{
    for (size_t i = 0; i < a->data.mapping.size; i++) {
        const yoml_mapping_element_t *pair = &a->data.mapping.elements[i];
        const char *key = pair->key->data.scalar;
        if (is_reloadable(pair->key) || nth(a, key, 0) != pair->value)
            continue;
        if (only_missing ? nth(b, key, 0) == NULL : is_changed(a, b, key))
            list(restart, restart_size, key);
    }
}

int relay_config_reload(const char *file, const struct relay_config *running,
                        struct relay_snapshot **snapshot, char *why, size_t why_size, char *restart,
                        size_t restart_size)
{
    struct relay_config *config;
    *snapshot = NULL;
    restart[0] = '\0';
    const int error = relay_config_load(file, RELAY_CONFIG_RELOAD, &config, why, why_size);
    if (error != 0)
        return error;
    if (config->snapshot->role != running->snapshot->role) {
        snprintf(why, why_size, "%s: expected the same role as before: it cannot change in a living process",
                 file);
        relay_config_free(config);
        return RELAY_ERR_INVALID;
    }
    if (!config->snapshot->auth_off && config->snapshot->tokens.count == 0 &&
        !config->snapshot->tokens.is_none) {
        const yoml_t *tokens = relay_yaml_get(config->yaml.root, "auth.tokens");
        char message[RELAY_CONFIG_WHY_SIZE];
        snprintf(message, sizeof(message), "%s:1:1: expected a token, or a line \"none\" that revokes all",
                 tokens->data.scalar);
        relay_config_error_print(why, why_size, tokens, "auth.tokens", message);
        relay_config_free(config);
        return RELAY_ERR_INVALID;
    }
    list_changes(config->yaml.root, running->yaml.root, false, restart, restart_size);
    list_changes(running->yaml.root, config->yaml.root, true, restart, restart_size);
    if (config->snapshot->num_connect_udp > 1 &&
        config->snapshot->num_connect_udp > running->snapshot->num_connect_udp)
        list(restart, restart_size, "proxy.connect-udp.template");
    *snapshot = relay_snapshot_ref(config->snapshot);
    relay_config_free(config);
    return 0;
}

void relay_config_print_manual(void)
{
    for (size_t i = 0; i < NUM_TABLES; i++)
        relay_directives_print(tables[i].title, tables[i].table);
    printf(
        "h2o's own\n\n"
        "    hosts, paths, file.*, access-log, error-doc, expires, header.*, redirect, compress, setenv, "
        "unsetenv,\n"
        "    server-name, send-server-name, max-delegations, error-log.emit-request-errors\n"
        "        as in h2o 2.2.5; without server-name and send-server-name: there is no Server header. "
        "Without\n"
        "        hosts: the relay serves tunnels only, and other requests get 404. Response headers set here "
        "are\n"
        "        not on the answers to requests for tunnels. A request's body is dropped; above 64K it gets "
        "413.\n");
}
