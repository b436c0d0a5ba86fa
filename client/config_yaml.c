#include "client/config.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <yaml.h>

#include "lib/net/plain_file.h"
#include "lib/net/yaml_depth.h"
#include "lib/wire/error.h"

#define FILE_MAX (1024 * 1024)

struct loader {
    struct relay_client_config *config;
    const char *name;
    yaml_document_t document;
    bool is_exposed;
};

static int fail_at(struct loader *loader, const yaml_mark_t *mark, const char *what, const char *expected)
{
    snprintf(loader->config->error, sizeof(loader->config->error), "%s:%zu:%zu: %s%s", loader->name,
             mark->line + 1, mark->column + 1, what, expected);
    return RELAY_ERR_INVALID;
}

static int fail(struct loader *loader, const yaml_node_t *node, const char *expected)
{
    return fail_at(loader, &node->start_mark, "expected ", expected);
}

static void doubt(struct loader *loader, const yaml_node_t *node, const char *what)
{
    relay_client_config_doubt(loader->config, "%s:%zu:%zu: warning: %s", loader->name,
                              node->start_mark.line + 1, node->start_mark.column + 1, what);
}

static yaml_node_t *node_at(struct loader *loader, int index)
{
    return yaml_document_get_node(&loader->document, index);
}

/* NULL when it is no scalar, or holds a NUL. */
static const char *text_of(const yaml_node_t *node)
{
    if (node->type != YAML_SCALAR_NODE)
        return NULL;
    const char *text = (const char *)node->data.scalar.value;
    return strlen(text) == node->data.scalar.length ? text : NULL;
}

/* One key of a mapping: what it is called, and what to do with its value. */
struct key {
    const char *name;
    int (*load)(struct loader *loader, void *object, yaml_node_t *value);
    size_t offset; /* of `load`'s object in the mapping's */
};

static const struct key *find_key(const struct key *keys, const char *name)
{
    for (; keys->name != NULL; keys++)
        if (name != NULL && strcmp(keys->name, name) == 0)
            return keys;
    return NULL;
}

static bool is_repeated(struct loader *loader, const yaml_node_t *mapping, const yaml_node_pair_t *pair)
{
    const char *name = text_of(node_at(loader, pair->key));
    for (const yaml_node_pair_t *p = mapping->data.mapping.pairs.start; p < pair; p++) {
        const char *other = text_of(node_at(loader, p->key));
        if (other != NULL && strcmp(name, other) == 0)
            return true;
    }
    return false;
}

static int refuse_key(struct loader *loader, const yaml_node_t *name, const struct key *keys)
{
    char what[128], expected[RELAY_CONFIG_TEXT_SIZE] = "one of";
    const char *text = text_of(name);
    snprintf(what, sizeof(what), "unknown key %.64s%sexpected ", text != NULL ? text : "",
             text != NULL ? ", " : "that is no text, ");
    for (const struct key *k = keys; k->name != NULL; k++) {
        size_t used = strlen(expected);
        snprintf(expected + used, sizeof(expected) - used, "%s %s", k == keys ? "" : ",", k->name);
    }
    return fail_at(loader, &name->start_mark, what, expected);
}

static int load_mapping(struct loader *loader, yaml_node_t *node, const struct key *keys, void *object)
{
    if (node->type != YAML_MAPPING_NODE)
        return fail(loader, node, "a mapping of keys and values");
    const yaml_node_pair_t *end = node->data.mapping.pairs.top;
    for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < end; pair++) {
        yaml_node_t *name = node_at(loader, pair->key);
        const struct key *key = find_key(keys, text_of(name));
        if (key == NULL)
            return refuse_key(loader, name, keys);
        if (is_repeated(loader, node, pair))
            return fail_at(loader, &name->start_mark, "the key is there twice: ", key->name);
        int error = key->load(loader, (char *)object + key->offset, node_at(loader, pair->value));
        if (error != 0)
            return error;
    }
    return 0;
}

/* `load` for each item, or for the value itself when it is no list. */
static int load_items(struct loader *loader, void *object, yaml_node_t *node,
                      int (*load)(struct loader *loader, void *object, yaml_node_t *item))
{
    if (node->type != YAML_SEQUENCE_NODE)
        return load(loader, object, node);
    int error = 0;
    const yaml_node_item_t *end = node->data.sequence.items.top;
    for (const yaml_node_item_t *item = node->data.sequence.items.start; item < end && error == 0; item++)
        error = load(loader, object, node_at(loader, *item));
    return error;
}

/* ---- a hop ---- */

static int set_on_hop(struct loader *loader, void *object, yaml_node_t *value,
                      int (*set)(struct relay_hop_config *hop, const char *text, const char **expected))
{
    const char *text = text_of(value), *expected = "a text";
    int error = text != NULL ? set(object, text, &expected) : RELAY_ERR_INVALID;
    return error != 0 ? fail(loader, value, expected) : 0;
}

static int set_identity(struct loader *loader, void *object, yaml_node_t *value,
                        int (*set)(struct relay_hop_identity *identity, const char *text,
                                   const char **expected))
{
    const char *text = text_of(value), *expected = "a text";
    int error = text != NULL ? set(object, text, &expected) : RELAY_ERR_INVALID;
    return error != 0 ? fail(loader, value, expected) : 0;
}

static int load_token(struct loader *loader, void *identity, yaml_node_t *value)
{
    if (loader->is_exposed)
        doubt(loader, value,
              "others may read this file, and a token stands in it: chmod 600, or use token-file");
    return set_identity(loader, identity, value, relay_hop_identity_set_token);
}

static int load_token_file(struct loader *loader, void *identity, yaml_node_t *value)
{
    int error = set_identity(loader, identity, value, relay_hop_identity_load_token);
    if (error == 0 && ((struct relay_hop_identity *)identity)->is_token_exposed)
        doubt(loader, value, "others may read this token file: chmod 600");
    return error;
}

static int load_ca(struct loader *loader, void *identity, yaml_node_t *value)
{
    return set_identity(loader, identity, value, relay_hop_identity_set_ca);
}

static int load_pin(struct loader *loader, void *identity, yaml_node_t *value)
{
    return set_identity(loader, identity, value, relay_hop_identity_set_pin);
}

static int load_place_url(struct loader *loader, void *place, yaml_node_t *value)
{
    const char *text = text_of(value), *expected = "a text";
    int error = text != NULL ? relay_hop_place_set_url(place, text, &expected) : RELAY_ERR_INVALID;
    return error != 0 ? fail(loader, value, expected) : 0;
}

static const struct key place_keys[] = {
    {"url", load_place_url, 0},
    {"token", load_token, offsetof(struct relay_hop_place, identity)},
    {"token-file", load_token_file, offsetof(struct relay_hop_place, identity)},
    {"ca", load_ca, offsetof(struct relay_hop_place, identity)},
    {"pin", load_pin, offsetof(struct relay_hop_place, identity)},
    {NULL, NULL, 0},
};

static int load_url(struct loader *loader, void *hop, yaml_node_t *value)
{
    return set_on_hop(loader, hop, value, relay_hop_config_add_url);
}

/* A url, or a mapping of it and what its operator has handed out. */
static int load_place(struct loader *loader, void *hop, yaml_node_t *node)
{
    const char *expected = NULL;
    if (node->type != YAML_MAPPING_NODE)
        return load_url(loader, hop, node);
    struct relay_hop_place *place = relay_hop_config_add_place(hop, &expected);
    if (place == NULL)
        return fail(loader, node, expected);
    int error = load_mapping(loader, node, place_keys, place);
    return error == 0 && place->authority[0] == '\0' ? fail(loader, node, "an ingress with url") : error;
}

static int load_urls(struct loader *loader, void *hop, yaml_node_t *value)
{
    if (loader->config->num_hops > 1)
        return fail(loader, value, "url: only hop 1 may have several urls");
    return load_items(loader, hop, value, load_place);
}

static int load_http(struct loader *loader, void *hop, yaml_node_t *value)
{
    return set_on_hop(loader, hop, value, relay_hop_config_set_http);
}

/* Looked at once more behind the urls, which may stand below it. */
static int load_template(struct loader *loader, void *hop, yaml_node_t *value)
{
    return set_on_hop(loader, hop, value, relay_hop_config_set_template);
}

static const struct key hop_keys[] = {
    {"url", load_url, 0},
    {"urls", load_urls, 0},
    {"token", load_token, offsetof(struct relay_hop_config, identity)},
    {"token-file", load_token_file, offsetof(struct relay_hop_config, identity)},
    {"ca", load_ca, offsetof(struct relay_hop_config, identity)},
    {"pin", load_pin, offsetof(struct relay_hop_config, identity)},
    {"http", load_http, 0},
    {"template", load_template, 0},
    {NULL, NULL, 0},
};

static int load_hop(struct loader *loader, void *object, yaml_node_t *node)
{
    static const struct key template_key[] = {{"template", load_template, 0}, {NULL, NULL, 0}};
    (void)object;
    const char *expected = NULL;
    struct relay_hop_config *hop = relay_client_config_add_hop(loader->config, &expected);
    if (hop == NULL)
        return fail(loader, node, expected);
    int error = load_mapping(loader, node, hop_keys, hop);
    if (error == 0 && hop->num_places == 0)
        error = fail(loader, node, "a hop with url");
    if (error != 0)
        return error;
    const yaml_node_pair_t *end = node->data.mapping.pairs.top;
    for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < end && error == 0; pair++)
        if (find_key(template_key, text_of(node_at(loader, pair->key))) != NULL)
            error = load_template(loader, hop, node_at(loader, pair->value));
    return error;
}

static int load_chain(struct loader *loader, void *config, yaml_node_t *node)
{
    if (node->type != YAML_SEQUENCE_NODE)
        return fail(loader, node, "a list of hops");
    return load_items(loader, config, node, load_hop);
}

/* ---- the fronts ---- */

static int load_listen(struct loader *loader, void *address, yaml_node_t *value)
{
    const char *text = text_of(value), *expected = "ADDRESS:PORT";
    if (text == NULL || relay_listen_address_parse(address, text, strlen(text), &expected) != 0)
        return fail(loader, value, expected);
    return 0;
}

static int load_forward(struct loader *loader, void *config, yaml_node_t *value)
{
    const char *text = text_of(value), *expected = "tcp:LOCAL=HOST:PORT or udp:LOCAL=HOST:PORT";
    int error = text != NULL ? relay_client_config_add_forward(config, text, &expected) : RELAY_ERR_INVALID;
    return error != 0 ? fail(loader, value, expected) : 0;
}

static int load_forwards(struct loader *loader, void *config, yaml_node_t *value)
{
    return load_items(loader, config, value, load_forward);
}

static int load_log_level(struct loader *loader, void *config, yaml_node_t *value)
{
    const char *text = text_of(value), *expected = "debug, info, warning or error";
    int error = text != NULL ? relay_client_config_set_log_level(config, text, &expected) : RELAY_ERR_INVALID;
    return error != 0 ? fail(loader, value, expected) : 0;
}

static const struct key top_keys[] = {
    {"chain", load_chain, 0},
    {"http-proxy", load_listen, offsetof(struct relay_client_config, http_proxy)},
    {"socks", load_listen, offsetof(struct relay_client_config, socks)},
    {"forward", load_forwards, 0},
    {"log-level", load_log_level, 0},
    {NULL, NULL, 0},
};

static int parse_fault(struct loader *loader, const yaml_parser_t *parser)
{
    return fail_at(loader, &parser->problem_mark,
                   "YAML: ", parser->problem != NULL ? parser->problem : "malformed");
}

int relay_client_config_load(struct relay_client_config *config, const char *name, const char *text,
                             size_t len, bool is_exposed)
{
    struct loader loader = {.config = config, .name = name, .is_exposed = is_exposed};
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser)) {
        snprintf(config->error, sizeof(config->error), "%s: out of memory", name);
        return RELAY_ERR_NO_MEMORY;
    }
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, len);
    int error;
    yaml_mark_t mark = {0};
    if (relay_yaml_is_too_deep(text, len, &mark.line, &mark.column)) {
        error = fail_at(&loader, &mark, "expected ", RELAY_YAML_DEPTH_EXPECTED);
    } else if (!yaml_parser_load(&parser, &loader.document)) {
        error = parse_fault(&loader, &parser);
    } else {
        yaml_node_t *root = yaml_document_get_root_node(&loader.document);
        mark = (yaml_mark_t){0};
        error = root != NULL ? load_mapping(&loader, root, top_keys, config)
                             : fail_at(&loader, &mark, "expected ", "a mapping with the key chain");
        yaml_document_delete(&loader.document);
    }
    yaml_parser_delete(&parser);
    return error;
}

/* The file's bytes, malloc'd; NULL with errno. */
static char *read_file(const char *path, size_t *len, mode_t *mode)
{
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return NULL;
    struct stat status;
    char *text = malloc(FILE_MAX + 1);
    if (text != NULL && fstat(fileno(file), &status) == 0) {
        *mode = status.st_mode;
        *len = fread(text, 1, FILE_MAX + 1, file);
        if (ferror(file) || *len > FILE_MAX) {
            errno = ferror(file) ? errno : EFBIG;
            free(text);
            text = NULL;
        }
    }
    fclose(file);
    return text;
}

int relay_client_config_load_file(struct relay_client_config *config, const char *path)
{
    size_t len = 0;
    mode_t mode = 0;
    const char *other = relay_plain_file_refusal(path, RELAY_PLAIN_FILE_OR_GIVEN_PIPE);
    if (other != NULL) {
        snprintf(config->error, sizeof(config->error), "%s: expected a file, not %s", path, other);
        return RELAY_ERR_INVALID;
    }
    char *text = read_file(path, &len, &mode);
    if (text == NULL) {
        snprintf(config->error, sizeof(config->error), "%s: %s", path, strerror(errno));
        return RELAY_ERR_INVALID;
    }
    int error = relay_client_config_load(config, path, text, len, (mode & (S_IRGRP | S_IROTH)) != 0);
    explicit_bzero(text, len);
    free(text);
    return error;
}
