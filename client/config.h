/* What the user wrote: the chain of hops and the local fronts, from a YAML file, from flags, or from both.
 *
 *   chain:                                  # 1 to 6 hops, the nearest one first
 *     - urls:                               # hop 1: the ingresses, tried in order
 *         - https://in-a.example:443
 *         - {url: https://in-b.example:443, token-file: /etc/twohop/in-b.token, ca: /etc/twohop/in-b-ca.pem}
 *       token-file: /etc/twohop/ingress.token   # of those that name none of their own; ca and pin alike
 *     - url: https://egress.example:443     # or a URI Template of RFC 9298
 *       token: SECRET
 *       ca: /etc/twohop/egress-ca.pem       # or pin: BASE64 of the SHA-256 of the key (SPKI)
 *       template: /.well-known/masque/udp/{target_host}/{target_port}/
 *       http: auto                          # or 3, or 2
 *   http-proxy: 127.0.0.1:8080
 *   socks: 127.0.0.1:1080
 *   forward: ["tcp:127.0.0.1:2222=host.example:22", "udp:127.0.0.1:5353=192.0.2.53:53"]
 *   log-level: info                         # debug, info, warning, error
 *
 * Order of calls: init; then parse_flags or load_file or both; then check; dispose at the end. The texts of
 * errors name the place ("FILE:LINE:COLUMN: ..." or the flag) and what was expected, and never a token.
 */
#ifndef RELAY_CLIENT_CONFIG_H
#define RELAY_CLIENT_CONFIG_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "lib/net/log.h"
#include "lib/wire/authority.h"
#include "lib/wire/uri_template.h"

#define RELAY_HOPS_MAX         6 /* a flush level of the loop for each, RELAY_LEVEL_FLUSH_OUTER downwards */
#define RELAY_HOP_PLACES_MAX   8 /* ingresses of hop 1 */
#define RELAY_FORWARDS_MAX     64
#define RELAY_TOKEN_MAX        1024
#define RELAY_PIN_SIZE         32
#define RELAY_CONFIG_TEXT_SIZE 512

enum relay_hop_http { RELAY_HOP_AUTO, RELAY_HOP_HTTP3, RELAY_HOP_HTTP2 };

/* How a relay knows us and we know it: what its operator hands out. */
struct relay_hop_identity {
    char *token;           /* NULL: none is sent. Never logged */
    char *token_file;      /* where it stands, to be read again; NULL: it was given itself, or by a pipe */
    char *fresh_token;     /* while token files are read again */
    bool is_token_exposed; /* others than its owner may read the file that it came from */
    char *ca;              /* a PEM file; NULL: the system's trust store */
    uint8_t pin[RELAY_PIN_SIZE];
    bool has_pin; /* the key alone decides: no CA is asked */
};

/* One relay that can serve as a hop. */
struct relay_hop_place {
    struct relay_host host;
    uint16_t port;
    char authority[RELAY_AUTHORITY_SIZE]; /* host:port, as it stands in logs and in requests */
    struct relay_uri_template udp;        /* where its CONNECT-UDP is */
    struct relay_hop_identity identity; /* its own; what it lacks is the hop's: see relay_hop_config_token */
};

struct relay_hop_config {
    struct relay_hop_place places[RELAY_HOP_PLACES_MAX];
    size_t num_places;
    struct relay_hop_identity identity;
    enum relay_hop_http http;
};

struct relay_forward_config {
    bool is_udp;
    struct sockaddr_storage local;
    struct relay_host host;
    uint16_t port;
};

struct relay_client_config {
    struct relay_hop_config *hops;
    size_t num_hops;
    struct sockaddr_storage http_proxy, socks; /* AF_UNSPEC: this front is off */
    struct relay_forward_config *forwards;
    size_t num_forwards;
    enum relay_log_level log_level;
    char error[RELAY_CONFIG_TEXT_SIZE]; /* what was wrong, after a failure */
    char **doubts;                      /* what is no error but looks like a mistake, "PLACE: warning: ..." */
    size_t num_doubts;
};

void relay_client_config_init(struct relay_client_config *config);
void relay_client_config_dispose(struct relay_client_config *config);

/* Reads the file. RELAY_ERR_INVALID or RELAY_ERR_NO_MEMORY with `error` filled. */
int relay_client_config_load_file(struct relay_client_config *config, const char *path);
/* The same from memory; `name` stands for the file in errors. `is_exposed`: others than the file's owner may read it,
 * and a token in it is doubtful. */
int relay_client_config_load(struct relay_client_config *config, const char *name, const char *text,
                             size_t len, bool is_exposed);
/* One doubt more. Without memory it is forgotten. */
__attribute__((format(printf, 2, 3))) void relay_client_config_doubt(struct relay_client_config *config,
                                                                     const char *format, ...);

/* What the command line asks for beside the configuration. */
struct relay_client_command {
    bool help, version, test, check;
    struct relay_host target; /* of check */
    uint16_t target_port;     /* 0: none is named */
};

/* Flags of the command line, loading the file of -c on its way. RELAY_ERR_INVALID or RELAY_ERR_NO_MEMORY with
 * `error` filled. */
int relay_client_config_parse_flags(struct relay_client_config *config, struct relay_client_command *command,
                                    int argc, char **argv);
/* The text of --help. */
extern const char relay_client_usage[];

/* What no single value shows: no hop, no front, two fronts on one address (the last two are fine for `check`).
 * RELAY_ERR_INVALID with `error` filled. */
int relay_client_config_check(struct relay_client_config *config, bool needs_front);

/* The token for one of the hop's places: its own or the hop's; NULL: none. */
const char *relay_hop_config_token(const struct relay_hop_config *hop, const struct relay_hop_place *place);
/* Reads the token files again, for requests to come. RELAY_ERR_INVALID or RELAY_ERR_NO_MEMORY with `error` filled: all
 * tokens stay what they were. */
int relay_client_config_reload_tokens(struct relay_client_config *config);

/* Whose ca and pin count at one of the hop's places: its own when it has any of the two, else the hop's. */
const struct relay_hop_identity *relay_hop_config_trust(const struct relay_hop_config *hop,
                                                        const struct relay_hop_place *place);

/* ---- single values, shared by the file and the flags: 0, or RELAY_ERR_INVALID / _NO_MEMORY / _TOO_BIG with
 * *expected set to a text of what was expected, which lives until the next failure ---- */

/* A new hop at the end; NULL with *expected: too many, or out of memory. */
struct relay_hop_config *relay_client_config_add_hop(struct relay_client_config *config,
                                                     const char **expected);
/* A new place at the end, still without url; NULL with *expected: too many. */
struct relay_hop_place *relay_hop_config_add_place(struct relay_hop_config *hop, const char **expected);
int relay_hop_place_set_url(struct relay_hop_place *place, const char *url, const char **expected);
/* Both at once. */
int relay_hop_config_add_url(struct relay_hop_config *hop, const char *url, const char **expected);
int relay_hop_config_set_template(struct relay_hop_config *hop, const char *text, const char **expected);
int relay_hop_identity_set_token(struct relay_hop_identity *identity, const char *text,
                                 const char **expected);
/* From the first line of a file. */
int relay_hop_identity_load_token(struct relay_hop_identity *identity, const char *path,
                                  const char **expected);
/* One of the two: with a pin a ca would be without effect. */
int relay_hop_identity_set_ca(struct relay_hop_identity *identity, const char *path, const char **expected);
int relay_hop_identity_set_pin(struct relay_hop_identity *identity, const char *text, const char **expected);
int relay_hop_config_set_http(struct relay_hop_config *hop, const char *text, const char **expected);
/* "127.0.0.1:8080", "[::1]:8080"; port 0 lets the kernel choose. */
int relay_listen_address_parse(struct sockaddr_storage *address, const char *text, size_t len,
                               const char **expected);
int relay_client_config_add_forward(struct relay_client_config *config, const char *text,
                                    const char **expected);
int relay_client_config_set_log_level(struct relay_client_config *config, const char *text,
                                      const char **expected);

#endif
