/* URI Templates with target_host and target_port for CONNECT-UDP: RFC 9298 sections 2 and 3, RFC 6570 up to
 * level 3.
 *
 * Accepted are `{target_host}`, `{target_host,target_port}` and the query forms `{?a,b}` and `{&a,b}`, these
 * two exactly once and in either order. Variables of other names may be there (RFC 9298 section 2): they are
 * undefined and expand to nothing, for the client and for the relay.
 *   /.well-known/masque/udp/{target_host}/{target_port}/
 *   /masque{?target_host,target_port}
 *   /proxy?h={target_host}&p={target_port}{&user}
 *   https://relay.example:4433/.well-known/masque/udp/{target_host}/{target_port}/
 * Everything is resolved by the parser into three literals around two values, so that matching and expanding
 * are plain walks over bytes, with no allocation.
 */
#ifndef RELAY_WIRE_URI_TEMPLATE_H
#define RELAY_WIRE_URI_TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/wire/authority.h"

/* The template of RFC 9298 section 3.1. */
#define RELAY_URI_TEMPLATE_UDP_DEFAULT "/.well-known/masque/udp/{target_host}/{target_port}/"
/* The longest template, in bytes. */
#define RELAY_URI_TEMPLATE_MAX 511

/* What relay_uri_template_match says of a path that belongs to somebody else. */
#define RELAY_URI_TEMPLATE_OTHER 1

/* A compiled template: a plain value without pointers, read only after parse. */
struct relay_uri_template {
    bool has_authority; /* the template was a full https URI: `host` and `port` are the relay's */
    struct relay_host host;
    uint16_t port;
    bool port_first;      /* target_port comes before target_host */
    uint16_t ends[3];     /* of the three literals in `literals` */
    uint16_t path_length; /* of the first literal's part before its '?' */
    bool query;           /* the first literal holds a '?' */
    char literals[RELAY_URI_TEMPLATE_MAX + 1];
};

/* Where and why a template was refused. */
struct relay_uri_template_fault {
    size_t position;     /* bytes from its beginning */
    const char *message; /* static text in English, e.g. "target_port is missing" */
};

/* Compiles a template: an absolute path, or an https URI whose authority goes to `host` and `port` (443 if
 * absent). Returns 0, or RELAY_ERR_INVALID or RELAY_ERR_TOO_BIG with `*fault` filled (it may be NULL).
 * Refused besides what RFC 9298 section 2 forbids: a fragment, and two values with nothing between them that
 * ends the first. */
int relay_uri_template_parse(struct relay_uri_template *t, const char *text,
                             struct relay_uri_template_fault *fault);

/* Matches a request path (with its query) as it came: never h2o's normalised path, which decodes %3A and dot
 * segments. 0                         it matches; `*host` and `*port` are the target RELAY_URI_TEMPLATE_OTHER
 * it lacks the template's literal beginning; another handler may take it RELAY_ERR_INVALID         it is ours
 * but malformed (answer 400): an empty, doubly encoded or unexpanded variable, a port outside 1 to 65535, a
 * bad host, anything missing or left over A path belongs to a template if it begins with all that stands
 * before the first variable; for the query forms, if it is the template's path. With several templates a
 * later one may match what an earlier one calls invalid. */
int relay_uri_template_match(const struct relay_uri_template *t, const char *path, size_t len,
                             struct relay_host *host, uint16_t *port);

/* Writes the path (and query) for a target with a NUL, for the client; the colons of IPv6 become %3A. Returns
 * the length without the NUL, or RELAY_ERR_TOO_BIG. */
int relay_uri_template_expand(const struct relay_uri_template *t, const struct relay_host *host,
                              uint16_t port, char *buffer, size_t size);

#endif
