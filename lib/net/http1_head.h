/* The head of an HTTP/1.1 request, and the chunked coding of its body, strictly: what one recipient could
 * read in another way than the next is refused (RFC 9112 sections 2.2, 3, 5 and 6.3; T03). */
#ifndef RELAY_NET_HTTP1_HEAD_H
#define RELAY_NET_HTTP1_HEAD_H

#include "lib/net/http.h"
#include "lib/net/limits.h"

#define RELAY_HTTP1_FIELDS_MAX 1000 /* what limits->head_fields may be at most */

enum relay_http1_body { RELAY_HTTP1_NO_BODY, RELAY_HTTP1_LENGTH, RELAY_HTTP1_CHUNKED };

/* A value that points into the bytes it was parsed from and into itself: do not copy it. */
struct relay_http1_head {
    struct relay_request
        request; /* scheme: as told, or the absolute form's; path "*" for OPTIONS's asterisk form */
    struct relay_field fields[RELAY_HTTP1_FIELDS_MAX];
    size_t len; /* bytes of the head with its last empty line */
    enum relay_http1_body body;
    int minor_version;
    bool keep_alive;
    bool expects_continue; /* 100 (Continue) is awaited before the body */
    int status;            /* after a failure: what to answer, 400, 431 or 505 */
};

/* Parses the head at the front of the bytes, whose field names are lowered in place. `scheme` is that of the
 * connection; of `limits` head_fields and head_bytes count, the bytes as they come. An upgrade to connect-udp
 * (RFC 9298 section 3.2) is shown as an extended CONNECT; other Upgrade tokens are ignored. The target of a
 * CONNECT is shown as it came: whether it is an authority is for who takes the request.
 * RELAY_ERR_INCOMPLETE: call again with more bytes. RELAY_ERR_INVALID, RELAY_ERR_TOO_BIG,
 * RELAY_ERR_UNSUPPORTED (the version): see status, then close. */
int relay_http1_head_parse(struct relay_http1_head *head, char *bytes, size_t len, const char *scheme,
                           const struct relay_limits *limits);

/* Whether a head that cannot be parsed, or has not come whole, asks for a tunnel as far as it can be seen:
 * CONNECT, or Upgrade: connect-udp. */
bool relay_http1_head_is_tunnel(const char *bytes, size_t len);

/* The chunked coding (RFC 9112 section 7.1). Zeroed, it waits for the first chunk's size. Extensions and
 * trailer fields are skipped, together at most 16 KiB. */
struct relay_http1_chunked {
    uint64_t left;
    uint32_t skipped;
    uint8_t state, digits;
};

/* Goes on in the bytes: *used of them are done with, *data (in them) of *data_len is a piece of the body,
 * perhaps empty. 1: the body has ended. 0: call again with the rest. RELAY_ERR_INVALID. */
int relay_http1_chunked_next(struct relay_http1_chunked *chunked, uint8_t *bytes, size_t len, size_t *used,
                             uint8_t **data, size_t *data_len);

#endif
