#include "server/config_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <h2o.h>
#include <h2o/configurator.h>

#include "lib/net/hosts_file.h"
#include "lib/net/plain_file.h"
#include "modules/limits_config.h"
#include "modules/proxy_config.h"
#include "server/config_error.h"

static int refuse(yoml_t *node, const char *name, const char *expected)
{
    h2o_configurator_command_t command = {.name = name};
    h2o_configurator_errprintf(name != NULL ? &command : NULL, node, "expected %s", expected);
    return -1;
}

/* The first value of this key anywhere in the tree, else `otherwise`. */
static yoml_t *find(yoml_t *node, const char *key, yoml_t *otherwise)
{
    yoml_t *found = relay_yaml_get(node, key);
    for (size_t i = 0; found == NULL && node->type == YOML_TYPE_MAPPING && i < node->data.mapping.size; i++)
        found = find(node->data.mapping.elements[i].value, key, NULL);
    return found != NULL ? found : otherwise;
}

/* ---- before ---- */

/* h2o's own HTTP/1.1 and HTTP/2 are not used: what it lets them be told would be silently without effect. What
 * to say in its place, NULL when it has an effect. */
static const char *in_place_of(const char *name)
{
    if (strncmp(name, "http1-", 6) == 0 || strncmp(name, "http2-", 6) == 0 ||
        strcmp(name, "handshake-timeout") == 0)
        return "limits.* in its place: it has no effect here";
    if (strcmp(name, "limit-request-body") == 0)
        return "nothing: 64K are the limit of a request's body";
    return NULL;
}

/* h2o would take what is not there, and answer 404 for ever; no FIFO or device is served (request.c). */
static int check_served(yoml_t *value, const char *name)
{
    struct stat status;
    const bool is_folder = strcmp(name, "file.dir") == 0;
    if (value->type != YOML_TYPE_SCALAR || (!is_folder && strcmp(name, "file.file") != 0))
        return 0;
    if (stat(value->data.scalar, &status) == 0 &&
        (is_folder ? S_ISDIR(status.st_mode) : S_ISREG(status.st_mode)))
        return 0;
    return refuse(value, name, is_folder ? "a folder that is there" : "a regular file that is there");
}

const char *relay_config_file_refusal(const char *path, enum relay_config_use use)
{
    return relay_plain_file_refusal(path, use == RELAY_CONFIG_RELOAD ? RELAY_PLAIN_FILE_ONLY
                                                                     : RELAY_PLAIN_FILE_OR_GIVEN_PIPE);
}

/* What is read to be put to use. Certificates and keys are, more than once. */
static int check_read(yoml_t *value, const char *name, enum relay_config_use use)
{
    const char *other = NULL;
    if (value->type != YOML_TYPE_SCALAR)
        return 0;
    const char *path = value->data.scalar;
    if (strcmp(name, "auth.tokens") == 0)
        other = relay_config_file_refusal(path, use);
    else if (strcmp(name, "certificate-file") == 0 || strcmp(name, "key-file") == 0)
        other = relay_plain_file_refusal(path, RELAY_PLAIN_FILE_ONLY);
    if (other == NULL)
        return 0;
    h2o_configurator_command_t command = {.name = name};
    h2o_configurator_errprintf(&command, value, "expected a file, not %s: %s", other, path);
    return -1;
}

/* One key of a mapping. A reload does not look at files that are served: hosts and paths stay as they are. */
static int check_pair(yoml_t *key, yoml_t *value, enum relay_config_use use)
{
    const char *name = key->type == YOML_TYPE_SCALAR ? key->data.scalar : "";
    if (in_place_of(name) != NULL)
        return refuse(key, name, in_place_of(name));
    int error = check_read(value, name, use);
    if (error == 0 && use != RELAY_CONFIG_RELOAD)
        error = check_served(value, name);
    return error != 0 ? error : relay_config_check_tree(value, use);
}

int relay_config_check_tree(yoml_t *node, enum relay_config_use use)
{
    int error = 0;
    for (size_t i = 0; error == 0 && node->type == YOML_TYPE_SEQUENCE && i < node->data.sequence.size; i++)
        error = relay_config_check_tree(node->data.sequence.elements[i], use);
    for (size_t i = 0; error == 0 && node->type == YOML_TYPE_MAPPING && i < node->data.mapping.size; i++)
        error = check_pair(node->data.mapping.elements[i].key, node->data.mapping.elements[i].value, use);
    return error;
}

/* ---- after ---- */

static int check_auth(const struct relay_config *config)
{
    yoml_t *root = config->yaml.root, *tokens = relay_yaml_get(root, "auth.tokens");
    if (config->snapshot->auth_off && tokens != NULL)
        return refuse(tokens, "auth.tokens", "either auth.tokens or auth: off, not both");
    if (!config->snapshot->auth_off && tokens == NULL)
        return refuse(root, NULL, "auth.tokens: FILE (or, for a relay open to everybody, auth: off)");
    return 0;
}

static int check_proxy(const struct relay_config *config)
{
    yoml_t *root = config->yaml.root;
    const struct relay_snapshot *snapshot = config->snapshot;
    if (snapshot->role == RELAY_ROLE_EGRESS && snapshot->num_relays > 0)
        return refuse(find(root, "relays", root), "relays", "role: ingress, whose targets these are");
    const bool needs_relays = snapshot->num_connect > 0 || snapshot->num_connect_udp > 0;
    if (snapshot->role == RELAY_ROLE_INGRESS && needs_relays && snapshot->num_relays == 0)
        return refuse(root, NULL, "relays: [HOST:PORT, ...], the only targets of an ingress");
    yoml_t *template = find(root, "proxy.connect-udp.template", NULL);
    if (template != NULL && snapshot->num_connect_udp == 0)
        return refuse(template, "proxy.connect-udp.template", "proxy.connect-udp: ON beside it");
    return 0;
}

static int check_limits(const struct relay_config *config)
{
    yoml_t *root = config->yaml.root;
    const struct relay_limits_fault *fault = relay_limits_config_check(config->snapshot);
    if (fault == NULL)
        return 0;
    yoml_t *node = find(root, fault->name, NULL);
    return node != NULL || fault->other == NULL
               ? refuse(node != NULL ? node : root, fault->name, fault->expected)
               : refuse(find(root, fault->other, root), fault->other, fault->other_expected);
}

/* The admin listener shares its port with nobody, a listener on all addresses neither; only a
 * unix socket has a mode. */
static int check_admin(const struct relay_config *config)
{
    yoml_t *root = config->yaml.root;
    if (config->admin.mode != 0 && config->admin.path == NULL)
        return refuse(find(root, "admin.mode", root), "admin.mode",
                      "it only with a unix socket, as a path in admin.listen");
    for (size_t i = 0; config->admin.is_given && config->admin.path == NULL && i < config->num_listeners;
         i++) {
        const struct relay_listener_config *listener = &config->listeners[i];
        const struct relay_address all = {.family = config->admin.address.family};
        if (!listener->is_quic && listener->port == config->admin.port && listener->port != 0 &&
            (relay_address_equal(&listener->address, &config->admin.address) ||
             relay_address_equal(&listener->address, &all)))
            return refuse(find(root, "admin.listen", root), "admin.listen",
                          "an address and port that no listen: has");
    }
    return 0;
}

const char *relay_config_doubt(const struct relay_snapshot *snapshot)
{
    const struct relay_token_file *tokens = &snapshot->tokens;
    const int64_t now = (int64_t)time(NULL);
    size_t num_living = 0;
    for (size_t i = 0; i < tokens->count; i++)
        num_living += tokens->entries[i].expires == 0 || now < tokens->entries[i].expires;
    if (snapshot->auth_off || num_living > 0 || tokens->is_none)
        return NULL;
    return tokens->count == 0
               ? "the file of auth.tokens has no token: nobody can open a tunnel, and SIGHUP refuses it "
                 "unless a line says none"
               : "all tokens in the file of auth.tokens have expired: nobody can open a tunnel";
}

static bool lets_pass(size_t num_policies, const struct relay_acl *acl)
{
    bool is_allowed = !acl->given;
    for (size_t i = 0; i < acl->count; i++)
        is_allowed |= acl->rules[i].allow;
    return num_policies > 0 && is_allowed;
}

const char *relay_config_policy_doubt(const struct relay_snapshot *snapshot)
{
    return lets_pass(snapshot->num_connect, &snapshot->connect[0].acl) ||
                   lets_pass(snapshot->num_connect_udp, &snapshot->connect_udp[0].acl)
               ? NULL
               : "neither proxy.connect nor proxy.connect-udp, which are OFF where they are not written, "
                 "lets a target pass: nobody can open a tunnel";
}

static void doubt_rule(const char *directive, const yoml_t *item, void (*cb)(const char *text))
{
    char message[512], text[RELAY_CONFIG_WHY_SIZE];
    const char *rule = item->type == YOML_TYPE_SCALAR ? item->data.scalar : "";
    if (!relay_acl_seems_to_name_port(rule))
        return;
    const char *colon = strrchr(rule, ':');
    snprintf(message, sizeof(message),
             "warning: %s is an address, at every port: expected %c[%.*s]:%s for a port, or %s/128", rule,
             rule[0], (int)(colon - rule - 1), rule + 1, colon + 1, rule);
    relay_config_error_print(text, sizeof(text), item, directive, message);
    cb(text);
}

static void doubt_rules(const yoml_t *node, void (*cb)(const char *text))
{
    for (size_t i = 0; node->type == YOML_TYPE_MAPPING && i < node->data.mapping.size; i++) {
        const yoml_t *key = node->data.mapping.elements[i].key, *value = node->data.mapping.elements[i].value;
        const char *name = key->type == YOML_TYPE_SCALAR ? key->data.scalar : "";
        const bool is_list = strcmp(name, "proxy.connect") == 0 || strcmp(name, "proxy.connect-udp") == 0;
        if (is_list && value->type == YOML_TYPE_SCALAR)
            doubt_rule(name, value, cb);
        for (size_t j = 0; is_list && value->type == YOML_TYPE_SEQUENCE && j < value->data.sequence.size; j++)
            doubt_rule(name, value->data.sequence.elements[j], cb);
        doubt_rules(value, cb);
    }
}

void relay_config_each_doubtful_rule(const struct relay_config *config, void (*cb)(const char *text))
{
    doubt_rules(config->yaml.root, cb);
}

int relay_config_check_finish(struct relay_config *config)
{
    yoml_t *root = config->yaml.root;
    struct relay_snapshot *snapshot = config->snapshot;
    if (relay_yaml_get(root, "role") == NULL)
        return refuse(root, NULL, "role: ingress or role: egress");
    if (config->num_listeners == 0)
        return refuse(root, NULL, "at least one listen:");
    if (check_auth(config) != 0 || check_proxy(config) != 0 || check_limits(config) != 0 ||
        check_admin(config) != 0)
        return -1;
    if (snapshot->role == RELAY_ROLE_INGRESS) /* its only names are its operator's, those of relays: */
        config->resolver.hosts_file = RELAY_HOSTS_FILE;
    if (snapshot->proxy_name == NULL)
        snapshot->proxy_name =
            strdup(snapshot->role == RELAY_ROLE_INGRESS ? "twohop-ingress" : "twohop-egress");
    if (snapshot->proxy_name == NULL || relay_proxy_config_finish(snapshot) != 0)
        return refuse(root, NULL, "more memory");
    return 0;
}
