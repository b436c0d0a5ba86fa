/* HTTP/1.1 messages as a proxy passes them on: where they end, and their heads as they go on (RFC 9112 section 6, RFC
 * 9110 section 7.6). Bytes in, bytes out. Strict: what the next recipient could read in another way is refused.
 */
#ifndef RELAY_CLIENT_HTTP_MESSAGE_H
#define RELAY_CLIENT_HTTP_MESSAGE_H

#include <sys/types.h>

#include "lib/net/http1_head.h"

#define RELAY_HTTP_ANSWER_HEAD_MAX   32768
#define RELAY_HTTP_ANSWER_FIELDS_MAX 200

/* ---- bodies ---- */

enum relay_http_framing {
    RELAY_HTTP_NO_BODY,
    RELAY_HTTP_LENGTH,
    RELAY_HTTP_CHUNKED,
    RELAY_HTTP_UNTIL_CLOSE /* answers only: the connection's clean end is the body's */
};

/* How much of a body is still to come. */
struct relay_http_body {
    enum relay_http_framing framing;
    bool is_complete;
    uint64_t left; /* of a length */
    struct relay_http1_chunked chunked;
};

void relay_http_body_init(struct relay_http_body *body, enum relay_http_framing framing, uint64_t length);
/* How many of the bytes belong to it; what follows belongs to the next message. RELAY_ERR_INVALID: bad chunks. */
ssize_t relay_http_body_take(struct relay_http_body *body, uint8_t *bytes, size_t len);

/* ---- requests ---- */

/* What relay_http_request_write needs at most. */
size_t relay_http_request_size(const struct relay_http1_head *head);
/* The head for the target: origin-form, the client's HTTP version, without the fields of its connection to us. Returns
 * its length. */
size_t relay_http_request_write(uint8_t *out, const struct relay_http1_head *head);
/* It may be sent again when the target has closed the connection without an answer (RFC 9110 section 9.2.2): an
 * idempotent method, without a body. */
bool relay_http_request_may_repeat(const struct relay_http1_head *head);
/* The application wants to keep its connection; HTTP/1.0 has to say so. */
bool relay_http_request_keeps_alive(const struct relay_http1_head *head);

/* ---- answers ---- */

/* Points into the bytes that it was parsed from. */
struct relay_http_answer {
    int status, minor_version;
    struct relay_slice reason;
    struct relay_field fields[RELAY_HTTP_ANSWER_FIELDS_MAX]; /* names as they came */
    size_t num_fields;
    size_t len; /* of the head with its empty line */
    enum relay_http_framing framing;
    uint64_t length;
    bool keep_alive; /* the target's connection lives on behind this answer */
};

/* Parses the head in front of the bytes, an answer to HEAD or to something else. RELAY_ERR_INCOMPLETE: call again with
 * more. RELAY_ERR_INVALID; RELAY_ERR_TOO_BIG. A 101 is INVALID: nothing of ours asks for another protocol. */
int relay_http_answer_parse(struct relay_http_answer *answer, const char *bytes, size_t len, bool is_to_head);
/* What relay_http_answer_write needs at most. */
size_t relay_http_answer_size(const struct relay_http_answer *answer);
/* The head for the application, whose connection lives on behind it or not. An interim one (1xx) says nothing of that.
 * Returns its length. */
size_t relay_http_answer_write(uint8_t *out, const struct relay_http_answer *answer, bool keep_alive);

#endif
