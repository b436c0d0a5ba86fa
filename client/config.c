#include "client/config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/net/plain_file.h"
#include "lib/wire/address.h"
#include "lib/wire/base64.h"
#include "lib/wire/error.h"

void relay_client_config_init(struct relay_client_config *config)
{
    memset(config, 0, sizeof(*config));
    config->log_level = RELAY_LOG_INFO;
}

static void wipe_and_free(char *secret)
{
    if (secret != NULL)
        explicit_bzero(secret, strlen(secret));
    free(secret);
}

static void dispose_identity(struct relay_hop_identity *identity)
{
    wipe_and_free(identity->token);
    wipe_and_free(identity->fresh_token);
    free(identity->token_file);
    free(identity->ca);
}

void relay_client_config_dispose(struct relay_client_config *config)
{
    for (size_t i = 0; i < config->num_hops; i++) {
        struct relay_hop_config *hop = &config->hops[i];
        for (size_t k = 0; k < hop->num_places; k++)
            dispose_identity(&hop->places[k].identity);
        dispose_identity(&hop->identity);
    }
    for (size_t i = 0; i < config->num_doubts; i++)
        free(config->doubts[i]);
    free(config->doubts);
    free(config->hops);
    free(config->forwards);
    relay_client_config_init(config);
}

void relay_client_config_doubt(struct relay_client_config *config, const char *format, ...)
{
    char text[RELAY_CONFIG_TEXT_SIZE];
    char **doubts = realloc(config->doubts, (config->num_doubts + 1) * sizeof(*doubts));
    va_list args;
    if (doubts == NULL)
        return;
    config->doubts = doubts;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if ((doubts[config->num_doubts] = strdup(text)) != NULL)
        config->num_doubts++;
}

static int refuse(const char **expected, const char *text)
{
    *expected = text;
    return RELAY_ERR_INVALID;
}

/* What is there in place of the file that was wanted; the text stays until the next one is. */
static int refuse_other(const char **expected, const char *wanted, const char *other, const char *path)
{
    static char text[RELAY_CONFIG_TEXT_SIZE];
    snprintf(text, sizeof(text), "%s, not %s: %s", wanted, other, path);
    return refuse(expected, text);
}

static int no_memory(const char **expected)
{
    *expected = "more memory";
    return RELAY_ERR_NO_MEMORY;
}

/* ---- hops ---- */

struct relay_hop_config *relay_client_config_add_hop(struct relay_client_config *config,
                                                     const char **expected)
{
    if (config->num_hops == RELAY_HOPS_MAX) {
        refuse(expected, "at most 6 hops");
        return NULL;
    }
    struct relay_hop_config *hops = realloc(config->hops, (config->num_hops + 1) * sizeof(*hops));
    if (hops == NULL) {
        no_memory(expected);
        return NULL;
    }
    config->hops = hops;
    struct relay_hop_config *hop = &hops[config->num_hops++];
    memset(hop, 0, sizeof(*hop));
    return hop;
}

/* A Template that is refused, with the place of the fault; the text stays until the next one is. */
static int refuse_template(const char **expected, const struct relay_uri_template_fault *fault)
{
    static char text[160];
    snprintf(text, sizeof(text), "a URI Template of RFC 9298: %s, at byte %zu of it", fault->message,
             fault->position + 1);
    return refuse(expected, text);
}

static const char url_expected[] =
    "https://HOST[:PORT], or an RFC 9298 URI Template with {target_host} and {target_port}";

/* "https://host:port/" without a path. */
static int parse_origin(struct relay_hop_place *place, const char *url)
{
    static const char scheme[] = "https://";
    if (strncmp(url, scheme, sizeof(scheme) - 1) != 0)
        return RELAY_ERR_INVALID;
    const char *authority = url + sizeof(scheme) - 1;
    size_t len = strcspn(authority, "/?#");
    if (authority[len] != '\0' && strcmp(authority + len, "/") != 0)
        return RELAY_ERR_INVALID;
    int error = relay_authority_parse_default(&place->host, &place->port, authority, len, 443);
    if (error == 0)
        error = relay_uri_template_parse(&place->udp, RELAY_URI_TEMPLATE_UDP_DEFAULT, NULL);
    return error;
}

static int parse_template_url(struct relay_hop_place *place, const char *url, const char **expected)
{
    struct relay_uri_template_fault fault;
    if (relay_uri_template_parse(&place->udp, url, &fault) != 0)
        return refuse_template(expected, &fault);
    if (!place->udp.has_authority)
        return refuse(expected, url_expected);
    place->host = place->udp.host;
    place->port = place->udp.port;
    return 0;
}

struct relay_hop_place *relay_hop_config_add_place(struct relay_hop_config *hop, const char **expected)
{
    if (hop->num_places < RELAY_HOP_PLACES_MAX)
        return &hop->places[hop->num_places++];
    refuse(expected, "at most 8 urls");
    return NULL;
}

int relay_hop_place_set_url(struct relay_hop_place *place, const char *url, const char **expected)
{
    int error;
    if (strchr(url, '{') != NULL)
        error = parse_template_url(place, url, expected);
    else if ((error = parse_origin(place, url)) != 0)
        refuse(expected, url_expected);
    if (error != 0)
        return RELAY_ERR_INVALID;
    relay_authority_write(&place->host, place->port, place->authority, sizeof(place->authority));
    return 0;
}

int relay_hop_config_add_url(struct relay_hop_config *hop, const char *url, const char **expected)
{
    struct relay_hop_place *place = relay_hop_config_add_place(hop, expected);
    return place != NULL ? relay_hop_place_set_url(place, url, expected) : RELAY_ERR_INVALID;
}

int relay_hop_config_set_template(struct relay_hop_config *hop, const char *text, const char **expected)
{
    struct relay_uri_template template;
    struct relay_uri_template_fault fault;
    if (text[0] != '/')
        return refuse(expected, "a path with {target_host} and {target_port}");
    if (relay_uri_template_parse(&template, text, &fault) != 0)
        return refuse_template(expected, &fault);
    for (size_t i = 0; i < hop->num_places; i++)
        hop->places[i].udp = template;
    return 0;
}

/* A copy to *token. */
static int take_token(const char *text, char **token, const char **expected)
{
    size_t len = strlen(text);
    if (len == 0 || len > RELAY_TOKEN_MAX)
        return refuse(expected, "a token of 1 to 1024 characters");
    for (size_t i = 0; i < len; i++)
        if (text[i] <= ' ' || text[i] > '~')
            return refuse(expected, "a token of printable ASCII without spaces");
    *token = strdup(text);
    return *token != NULL ? 0 : no_memory(expected);
}

#define READABLE_TOKEN "a readable file with the token in it"

/* From the first line. */
static int read_token(const char *path, char **token, struct stat *status, const char **expected)
{
    char text[RELAY_TOKEN_MAX + 3];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t len = fd >= 0 && fstat(fd, status) == 0 ? read(fd, text, sizeof(text) - 1) : -1;
    if (fd >= 0)
        close(fd);
    if (len < 0)
        return refuse(expected, READABLE_TOKEN);
    text[len] = '\0';
    text[strcspn(text, "\r\n")] = '\0';
    int error = take_token(text, token, expected);
    explicit_bzero(text, sizeof(text));
    return error;
}

static const char token_expected[] = "one token or token-file, not two";

int relay_hop_identity_set_token(struct relay_hop_identity *identity, const char *text, const char **expected)
{
    return identity->token != NULL ? refuse(expected, token_expected)
                                   : take_token(text, &identity->token, expected);
}

int relay_hop_identity_load_token(struct relay_hop_identity *identity, const char *path,
                                  const char **expected)
{
    struct stat status;
    if (identity->token != NULL)
        return refuse(expected, token_expected);
    const char *other = relay_plain_file_refusal(path, RELAY_PLAIN_FILE_OR_GIVEN_PIPE);
    if (other != NULL)
        return refuse_other(expected, READABLE_TOKEN, other, path);
    int error = read_token(path, &identity->token, &status, expected);
    if (error != 0 || !S_ISREG(status.st_mode))
        return error;
    identity->is_token_exposed = (status.st_mode & (S_IRGRP | S_IROTH)) != 0;
    identity->token_file = strdup(path);
    return identity->token_file != NULL ? 0 : no_memory(expected);
}

/* Whether a line of the file looks as if a certificate in PEM form began there. Who loads it says the rest. */
static bool has_certificate(FILE *file)
{
    char line[128];
    while (fgets(line, sizeof(line), file) != NULL)
        if (strncmp(line, "-----BEGIN ", 11) == 0 && strstr(line, "CERTIFICATE-----") != NULL)
            return true;
    return false;
}

static const char trust_expected[] =
    "ca or pin, not both: with a pin the key alone decides, and no authority is asked";

int relay_hop_identity_set_ca(struct relay_hop_identity *identity, const char *path, const char **expected)
{
    if (identity->has_pin)
        return refuse(expected, trust_expected);
    static const char wanted[] = "a PEM file with a certificate in it";
    const char *other = relay_plain_file_refusal(path, RELAY_PLAIN_FILE_ONLY);
    if (other != NULL)
        return refuse_other(expected, wanted, other, path);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return refuse(expected, "a readable PEM file");
    const bool is_good = has_certificate(file);
    fclose(file);
    if (!is_good)
        return refuse(expected, wanted);
    free(identity->ca);
    identity->ca = strdup(path);
    return identity->ca != NULL ? 0 : no_memory(expected);
}

int relay_hop_identity_set_pin(struct relay_hop_identity *identity, const char *text, const char **expected)
{
    uint8_t pin[RELAY_BASE64_DECODED_SIZE(64)];
    size_t len = 0;
    static const char prefix[] = "sha256/";
    if (identity->ca != NULL)
        return refuse(expected, trust_expected);
    if (strncmp(text, prefix, sizeof(prefix) - 1) == 0)
        text += sizeof(prefix) - 1;
    if (strlen(text) > 64 || relay_base64_decode(text, strlen(text), pin, sizeof(pin), &len) != 0 ||
        len != RELAY_PIN_SIZE)
        return refuse(expected, "the SHA-256 of the relay's public key (SPKI) in base64: 44 characters");
    memcpy(identity->pin, pin, RELAY_PIN_SIZE);
    identity->has_pin = true;
    return 0;
}

const char *relay_hop_config_token(const struct relay_hop_config *hop, const struct relay_hop_place *place)
{
    return place->identity.token != NULL ? place->identity.token : hop->identity.token;
}

const struct relay_hop_identity *relay_hop_config_trust(const struct relay_hop_config *hop,
                                                        const struct relay_hop_place *place)
{
    return place->identity.ca != NULL || place->identity.has_pin ? &place->identity : &hop->identity;
}

/* ---- token files, again ---- */

static int read_again(struct relay_client_config *config, struct relay_hop_identity *identity)
{
    struct stat status;
    const char *expected = NULL;
    if (identity->token_file == NULL)
        return 0;
    const char *other = relay_plain_file_refusal(identity->token_file, RELAY_PLAIN_FILE_ONLY);
    if (other != NULL) {
        snprintf(config->error, sizeof(config->error), "%s: expected " READABLE_TOKEN ", not %s",
                 identity->token_file, other);
        return RELAY_ERR_INVALID;
    }
    int error = read_token(identity->token_file, &identity->fresh_token, &status, &expected);
    if (error != 0)
        snprintf(config->error, sizeof(config->error), "%s: expected %s", identity->token_file, expected);
    return error;
}

static void settle(struct relay_hop_identity *identity, bool is_good)
{
    char *unused = identity->fresh_token;
    if (is_good && unused != NULL) {
        unused = identity->token;
        identity->token = identity->fresh_token;
    }
    identity->fresh_token = NULL;
    wipe_and_free(unused);
}

int relay_client_config_reload_tokens(struct relay_client_config *config)
{
    int error = 0;
    for (size_t i = 0; i < config->num_hops && error == 0; i++) {
        error = read_again(config, &config->hops[i].identity);
        for (size_t k = 0; k < config->hops[i].num_places && error == 0; k++)
            error = read_again(config, &config->hops[i].places[k].identity);
    }
    for (size_t i = 0; i < config->num_hops; i++) {
        settle(&config->hops[i].identity, error == 0);
        for (size_t k = 0; k < config->hops[i].num_places; k++)
            settle(&config->hops[i].places[k].identity, error == 0);
    }
    return error;
}

int relay_hop_config_set_http(struct relay_hop_config *hop, const char *text, const char **expected)
{
    static const char *const names[] = {
        [RELAY_HOP_AUTO] = "auto", [RELAY_HOP_HTTP3] = "3", [RELAY_HOP_HTTP2] = "2"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(text, names[i]) == 0) {
            hop->http = (enum relay_hop_http)i;
            return 0;
        }
    }
    return refuse(expected, "auto, 3 or 2");
}

/* ---- fronts ---- */

int relay_listen_address_parse(struct sockaddr_storage *address, const char *text, size_t len,
                               const char **expected)
{
    static const char wanted[] = "ADDRESS:PORT, as in 127.0.0.1:8080 or [::1]:8080";
    const char *colon = memrchr(text, ':', len);
    struct relay_address parsed;
    uint16_t port = 0;
    if (colon == NULL)
        return refuse(expected, wanted);
    const char *port_text = colon + 1;
    size_t port_len = len - (size_t)(port_text - text), host_len = (size_t)(colon - text);
    if (!(port_len == 1 && port_text[0] == '0') && relay_port_parse(&port, port_text, port_len) != 0)
        return refuse(expected, wanted);
    bool bracketed = host_len > 2 && text[0] == '[' && text[host_len - 1] == ']';
    int error = bracketed ? relay_address_parse(text + 1, host_len - 2, &parsed)
                          : relay_address_parse(text, host_len, &parsed);
    if (error != 0 || bracketed != (parsed.family == 6))
        return refuse(expected, wanted);
    relay_address_to_sockaddr(&parsed, port, address);
    return 0;
}

int relay_client_config_add_forward(struct relay_client_config *config, const char *text,
                                    const char **expected)
{
    static const char wanted[] = "tcp:LOCAL:PORT=HOST:PORT or udp:LOCAL:PORT=HOST:PORT";
    struct relay_forward_config forward = {.is_udp = strncmp(text, "udp:", 4) == 0};
    const char *equals = strchr(text, '=');
    if ((!forward.is_udp && strncmp(text, "tcp:", 4) != 0) || equals == NULL)
        return refuse(expected, wanted);
    if (relay_listen_address_parse(&forward.local, text + 4, (size_t)(equals - text - 4), expected) != 0)
        return RELAY_ERR_INVALID;
    if (relay_authority_parse(&forward.host, &forward.port, equals + 1, strlen(equals + 1)) != 0)
        return refuse(expected, wanted);
    if (config->num_forwards == RELAY_FORWARDS_MAX)
        return refuse(expected, "at most 64 forwards");
    struct relay_forward_config *forwards =
        realloc(config->forwards, (config->num_forwards + 1) * sizeof(*forwards));
    if (forwards == NULL)
        return no_memory(expected);
    config->forwards = forwards;
    forwards[config->num_forwards++] = forward;
    return 0;
}

int relay_client_config_set_log_level(struct relay_client_config *config, const char *text,
                                      const char **expected)
{
    static const char *const names[] = {"debug", "info", "warning", "error"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(text, names[i]) == 0) {
            config->log_level = (enum relay_log_level)i;
            return 0;
        }
    }
    return refuse(expected, "debug, info, warning or error");
}
