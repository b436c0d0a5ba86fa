/* `listen:`: where the relay can be reached. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include "lib/net/tls_context.h"
#include "lib/wire/authority.h"
#include "server/config_process.h"

/* The keys of one mapping; a key of another name, or one that comes twice, is an error. */
struct key {
    const char *name;
    yoml_t **value;
};

static int take_keys(h2o_configurator_command_t *cmd, yoml_t *node, const struct key *keys,
                     const char *expected)
{
    if (node->type != YOML_TYPE_MAPPING) {
        h2o_configurator_errprintf(cmd, node, "expected %s", expected);
        return -1;
    }
    for (size_t i = 0; i < node->data.mapping.size; i++) {
        yoml_t *name = node->data.mapping.elements[i].key;
        const struct key *key = keys;
        while (key->name != NULL &&
               (name->type != YOML_TYPE_SCALAR || strcmp(key->name, name->data.scalar) != 0))
            key++;
        if (key->name == NULL || *key->value != NULL) {
            h2o_configurator_errprintf(cmd, name, "expected %s, each once", expected);
            return -1;
        }
        *key->value = node->data.mapping.elements[i].value;
    }
    return 0;
}

static int refuse(h2o_configurator_command_t *cmd, yoml_t *node, const char *expected)
{
    h2o_configurator_errprintf(cmd, node, "expected %s", expected);
    return -1;
}

static int take_port(h2o_configurator_command_t *cmd, yoml_t *node, uint16_t *port)
{
    static const char expected[] = "a port from 0 to 65535";
    const char *text = relay_directive_scalar(cmd, node, expected);
    if (text == NULL)
        return -1;
    *port = 0;
    if (strcmp(text, "0") != 0 && relay_port_parse(port, text, strlen(text)) != 0)
        return refuse(cmd, node, expected);
    return 0;
}

/* ---- certificates ---- */

/* A private key that everybody can read is not private. Its group may, when root owns it: that is how a
 * certificate is lent to a service (root:twohop 0640, or a credential of systemd). */
static int check_key_mode(h2o_configurator_command_t *cmd, yoml_t *node)
{
    struct stat status;
    const char *path = node->data.scalar;
    if (stat(path, &status) != 0) {
        h2o_configurator_errprintf(cmd, node, "expected a key file that can be read: %s: %s", path,
                                   strerror(errno));
        return -1;
    }
    const mode_t refused = status.st_uid == 0 ? S_IRWXO | S_IWGRP : S_IRWXO | S_IRWXG;
    if ((status.st_mode & refused) != 0) {
        h2o_configurator_errprintf(
            cmd, node,
            "expected a key file that only its owner can read (chmod 600) or, as user: "
            "needs it, root's, lent to its group (chown root:GROUP, chmod 640): %s",
            path);
        return -1;
    }
    return 0;
}

/* OpenSSL's reason for the failure, in one line: the first error is the cause, later ones say who passed it
 * on. */
static const char *reason(void)
{
    const unsigned long error = ERR_peek_error();
    if (ERR_SYSTEM_ERROR(error))
        return strerror(ERR_GET_REASON(error));
    const char *text = ERR_reason_error_string(error);
    return text != NULL ? text : "unknown";
}

/* Loads both files as the listeners will. */
static int check_certificate(h2o_configurator_command_t *cmd, yoml_t *certificate, yoml_t *key)
{
    int error = -1;
    bool is_encrypted = false;
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    ERR_clear_error();
    if (ctx != NULL)
        relay_tls_take_no_passphrase(ctx, &is_encrypted);
    if (ctx == NULL)
        h2o_configurator_errprintf(cmd, certificate, "out of memory");
    else if (SSL_CTX_use_certificate_chain_file(ctx, certificate->data.scalar) != 1)
        h2o_configurator_errprintf(cmd, certificate, "expected a file with a PEM certificate chain: %s: %s",
                                   certificate->data.scalar, reason());
    else if (check_key_mode(cmd, key) != 0)
        ; /* said */
    else if (SSL_CTX_use_PrivateKey_file(ctx, key->data.scalar, SSL_FILETYPE_PEM) == 1)
        error = 0;
    else if (is_encrypted)
        h2o_configurator_errprintf(cmd, key, "expected a PEM private key: %s: %s", key->data.scalar,
                                   RELAY_TLS_IS_ENCRYPTED);
    else
        h2o_configurator_errprintf(cmd, key, "expected a file with the PEM private key of %s: %s: %s",
                                   certificate->data.scalar, key->data.scalar, reason());
    SSL_CTX_free(ctx);
    ERR_clear_error();
    return error;
}

/* For QUIC nothing below TLSv1.3 exists, so a lower minimum, which a TCP listener may share with it, changes
 * nothing. */
static int take_version(h2o_configurator_command_t *cmd, yoml_t *node, struct relay_listener_config *listener)
{
    const char *text = relay_directive_scalar(cmd, node, "TLSv1.2 or TLSv1.3");
    if (text == NULL)
        return -1;
    if (strcasecmp(text, "TLSv1.3") == 0)
        listener->minimum_version = TLS1_3_VERSION;
    else if (strcasecmp(text, "TLSv1.2") != 0)
        return refuse(cmd, node, "TLSv1.2 or TLSv1.3");
    return 0;
}

static int take_tls(h2o_configurator_command_t *cmd, yoml_t *node, struct relay_listener_config *listener)
{
    yoml_t *certificate = NULL, *key = NULL, *version = NULL;
    const struct key keys[] = {
        {"certificate-file", &certificate}, {"key-file", &key}, {"minimum-version", &version}, {NULL, NULL}};
    if (take_keys(cmd, node, keys, "a mapping of certificate-file, key-file and minimum-version") != 0)
        return -1;
    if (certificate == NULL || key == NULL)
        return refuse(cmd, node, "both certificate-file and key-file");
    if (relay_directive_scalar(cmd, certificate, "the path of a file") == NULL ||
        relay_directive_scalar(cmd, key, "the path of a file") == NULL ||
        check_certificate(cmd, certificate, key) != 0)
        return -1;
    if (version != NULL && take_version(cmd, version, listener) != 0)
        return -1;
    listener->certificate_file = strdup(certificate->data.scalar);
    listener->key_file = strdup(key->data.scalar);
    if (listener->certificate_file == NULL || listener->key_file == NULL)
        return refuse(cmd, node, "more memory");
    return 0;
}

/* ---- listeners ---- */

/* Whether an earlier listener has the same place. Several on port 0 are several ports. */
static bool is_taken(const struct relay_config *config, const struct relay_listener_config *listener)
{
    for (size_t i = 0; i < config->num_listeners; i++) {
        const struct relay_listener_config *other = &config->listeners[i];
        if (other->is_quic == listener->is_quic && other->port == listener->port && listener->port != 0 &&
            relay_address_equal(&other->address, &listener->address))
            return true;
    }
    return false;
}

/* Takes the listener's texts, also on failure. */
static int add(h2o_configurator_command_t *cmd, yoml_t *node, struct relay_config *config,
               struct relay_listener_config *listener)
{
    const char *expected = is_taken(config, listener) ? "an address and port that no other listen: has"
                           : config->num_listeners == RELAY_LISTENERS_MAX ? "at most 64 listeners"
                                                                          : NULL;
    if (expected == NULL) {
        config->listeners[config->num_listeners++] = *listener;
        return 0;
    }
    free(listener->certificate_file);
    free(listener->key_file);
    return refuse(cmd, node, expected);
}

/* Without `host:`: 0.0.0.0 and, where the machine has IPv6, ::. */
static int add_both(h2o_configurator_command_t *cmd, yoml_t *node, struct relay_config *config,
                    struct relay_listener_config *listener)
{
    struct relay_listener_config second = *listener;
    listener->address = (struct relay_address){.family = 4};
    second.address = (struct relay_address){.family = 6};
    second.is_optional = true;
    if (listener->certificate_file != NULL) {
        second.certificate_file = strdup(listener->certificate_file);
        second.key_file = strdup(listener->key_file);
    }
    const int error = add(cmd, node, config, listener);
    if (error == 0 &&
        (listener->certificate_file == NULL || (second.certificate_file != NULL && second.key_file != NULL)))
        return add(cmd, node, config, &second);
    free(second.certificate_file);
    free(second.key_file);
    return error != 0 ? error : refuse(cmd, node, "more memory");
}

static int take_type(h2o_configurator_command_t *cmd, yoml_t *node, struct relay_listener_config *listener)
{
    const char *text = relay_directive_scalar(cmd, node, "tcp or quic");
    if (text == NULL)
        return -1;
    listener->is_quic = strcmp(text, "quic") == 0;
    return listener->is_quic || strcmp(text, "tcp") == 0 ? 0 : refuse(cmd, node, "tcp or quic");
}

/* Whether the kernel lets a socket have the address, on any port. */
static bool is_bindable(const struct relay_address *address)
{
    struct sockaddr_storage at;
    const socklen_t len = relay_address_to_sockaddr(address, 0, &at);
    const int fd = socket(at.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const bool is_refused = fd < 0 || (bind(fd, (struct sockaddr *)&at, len) != 0 && errno == EADDRNOTAVAIL);
    if (fd >= 0)
        close(fd);
    return !is_refused;
}

static int take_host(h2o_configurator_command_t *cmd, yoml_t *node, enum relay_config_use use,
                     struct relay_address *address)
{
    const char *text = relay_directive_scalar(cmd, node, "an IPv4 or IPv6 address");
    if (text == NULL)
        return -1;
    if (relay_address_parse(text, strlen(text), address) != 0)
        return refuse(cmd, node, "an IPv4 or IPv6 address");
    return use == RELAY_CONFIG_RELOAD || is_bindable(address)
               ? 0
               : refuse(cmd, node, "an address of this machine");
}

static int apply_one(h2o_configurator_command_t *cmd, yoml_t *node, struct relay_config *config)
{
    yoml_t *host = NULL, *port = NULL, *type = NULL, *tls = NULL;
    const struct key keys[] = {
        {"host", &host}, {"port", &port}, {"type", &type}, {"ssl", &tls}, {NULL, NULL}};
    struct relay_listener_config listener = {.node = node, .minimum_version = TLS1_2_VERSION};
    if (node->type == YOML_TYPE_SCALAR)
        port = node;
    else if (take_keys(cmd, node, keys, "a port, or a mapping of host, port, type and ssl") != 0)
        return -1;
    if (port == NULL)
        return refuse(cmd, node, "port:");
    if (take_port(cmd, port, &listener.port) != 0 || (type != NULL && take_type(cmd, type, &listener) != 0) ||
        (host != NULL && take_host(cmd, host, config->use, &listener.address) != 0))
        return -1;
    if (listener.is_quic)
        listener.minimum_version = TLS1_3_VERSION;
    if (listener.is_quic && tls == NULL)
        return refuse(cmd, node, "ssl: with a certificate: QUIC is always encrypted");
    listener.is_clear = tls == NULL;
    if (tls != NULL && take_tls(cmd, tls, &listener) != 0) {
        free(listener.certificate_file);
        free(listener.key_file);
        return -1;
    }
    return host != NULL ? add(cmd, node, config, &listener) : add_both(cmd, node, config, &listener);
}

static int apply_listen(h2o_configurator_command_t *cmd, h2o_configurator_context_t *ctx, yoml_t *node,
                        struct relay_snapshot *snapshot)
{
    if (node->type != YOML_TYPE_SEQUENCE)
        return apply_one(cmd, node, relay_config_of(ctx));
    for (size_t i = 0; i < node->data.sequence.size; i++)
        if (apply_one(cmd, node->data.sequence.elements[i], relay_config_of(ctx)) != 0)
            return -1;
    return 0;
}

const struct relay_directive relay_listen_directives[] = {
    {.name = "listen",
     .type = RELAY_DIRECTIVE_CUSTOM,
     .apply = apply_listen,
     .may_repeat = true,
     .form =
         "PORT | {port: PORT, host: ADDRESS, type: tcp | quic, ssl: {certificate-file: FILE, key-file: FILE, "
         "minimum-version: TLSv1.2 | TLSv1.3}}",
     .help = "Mandatory, and may be repeated. Without host: all addresses of the machine. type: quic is "
             "HTTP/3 over UDP; tcp "
             "is HTTP/1.1 and HTTP/2 over TLS or, without ssl:, in clear text (for tests: tokens are "
             "readable on the "
             "way). Files are PEM; the key must not be readable by others, nor encrypted."},
    {.name = NULL},
};
