/* Checks of header fields and of the request's control data that HTTP/1.1, HTTP/2 and HTTP/3 share.
 *
 * All take bytes with a length; a NUL inside never ends a text. None allocates.
 */
#ifndef RELAY_WIRE_FIELD_H
#define RELAY_WIRE_FIELD_H

#include <stdbool.h>
#include <stddef.h>

/* Which rules hold: HTTP/2 and HTTP/3 are stricter than HTTP/1.1. */
enum relay_field_rules {
    RELAY_FIELD_HTTP1,
    RELAY_FIELD_HTTP2, /* and HTTP/3 */
};

/* A field name: a token (RFC 9110 section 5.1), for HTTP/2 without upper case letters (RFC 9113
 * section 8.2.1). Pseudo-header names (":path") are not field names. */
bool relay_field_name_valid(const char *name, size_t len, enum relay_field_rules rules);

/* A field value: no control character but HTAB, no DEL; bytes from 0x80 on are allowed (RFC 9110
 * section 5.5). For HTTP/2 it must not begin or end with SP or HTAB (RFC 9113 section 8.2.1); for HTTP/1.1
 * the caller has trimmed it. May be empty. */
bool relay_field_value_valid(const char *value, size_t len, enum relay_field_rules rules);

/* Whether a field (in any case) belongs to one connection of HTTP/1.1, so that HTTP/2 and HTTP/3 messages
 * with it are malformed (RFC 9113 section 8.2.2): Connection, Proxy-Connection, Keep-Alive,
 * Transfer-Encoding, Upgrade. TE is not among them: there ask relay_field_te_valid. */
bool relay_field_is_connection_specific(const char *name, size_t len);

/* Whether the value of TE is "trailers", the only one HTTP/2 and HTTP/3 allow. */
bool relay_field_te_valid(const char *value, size_t len);

/* Whether a structured field (RFC 9651) is the Item true, as in "Capsule-Protocol: ?1". Parameters are parsed
 * and ignored. False for ?0, for another type, for a list (the field came twice) and for anything malformed,
 * which RFC 9297 section 3.4 wants treated as absent. */
bool relay_field_boolean(const char *value, size_t len);

/* A method: a token (RFC 9110 section 9.1). */
bool relay_field_method_valid(const char *method, size_t len);

/* A URI scheme (RFC 3986 section 3.1). */
bool relay_field_scheme_valid(const char *scheme, size_t len);

/* A request path with its query, in origin form: a slash, then no spaces, controls, '#' or bytes beyond
 * ASCII. */
bool relay_field_path_valid(const char *path, size_t len);

#endif
