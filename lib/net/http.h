/* The heads of HTTP messages as the sessions of every version show them. Everything is borrowed: it lives
 * during the call that brings it. */
#ifndef RELAY_NET_HTTP_H
#define RELAY_NET_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/wire/slice.h"

enum relay_http_version { RELAY_HTTP_1_1 = 0x101, RELAY_HTTP_2 = 0x200, RELAY_HTTP_3 = 0x300 };

/* Names are lower case (HTTP/1.1 heads are lowered by the parser, RFC 9110 section 5.1). */
struct relay_field {
    struct relay_slice name, value;
};

/* What travels on a request stream behind its head. */
enum relay_kind {
    RELAY_KIND_MESSAGE, /* an ordinary request with its body, if any */
    RELAY_KIND_BYTES,   /* CONNECT without :protocol (RFC 9110 section 9.3.6): a TCP tunnel's bytes */
    RELAY_KIND_CAPSULES /* extended CONNECT or HTTP/1.1 Upgrade: capsules and HTTP Datagrams (RFC 9297) */
};

/* For an HTTP/1.1 Upgrade the session shows method "CONNECT" and the Upgrade token as `protocol`, like RFC
 * 8441 does, so that nothing above knows the difference; `version` tells. */
struct relay_request {
    enum relay_http_version version;
    enum relay_kind kind;
    struct relay_slice method, scheme, authority, path, protocol; /* base NULL: absent */
    const struct relay_field *fields;
    size_t num_fields;
    int64_t content_length; /* -1: not said */
    bool is_absolute;       /* HTTP/1.1: the target was in absolute-form, what a proxy gets for http:// */
    bool ends; /* nothing follows the head: no body, or the tunnel is half-closed from the start */
};

struct relay_response {
    int status;
    const struct relay_field
        *fields; /* without connection-specific fields and content-length: the session writes those */
    size_t num_fields;
    int64_t content_length; /* of the body that follows; -1: not known; ignored for a tunnel */
    bool ends;              /* there is no body (content_length is then what is told to a HEAD, or -1) */
};

/* The value of the field, base NULL when absent; *count (may be NULL) how many there are. */
struct relay_slice relay_fields_find(const struct relay_field *fields, size_t num_fields, const char *name,
                                     size_t *count);

#endif
