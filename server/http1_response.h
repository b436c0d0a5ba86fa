/* The head of an HTTP/1.1 response, and how its body is framed. */
#ifndef RELAY_SERVER_HTTP1_RESPONSE_H
#define RELAY_SERVER_HTTP1_RESPONSE_H

#include "lib/net/buffer.h"
#include "lib/net/http.h"

enum relay_http1_framing {
    RELAY_HTTP1_SEND_NOTHING, /* no body: HEAD, 204, 304, or an empty one */
    RELAY_HTTP1_SEND_PLAIN,   /* as long as content-length said, or until the close */
    RELAY_HTTP1_SEND_CHUNKED,
    RELAY_HTTP1_SEND_TUNNEL
};

/* What of the request the response depends on. */
struct relay_http1_context {
    enum relay_kind kind;
    bool is_head;
    int minor_version;
    bool keep_alive; /* in and out: false writes "connection: close" */
};

/* Appends the head to `out`. RELAY_ERR_NO_MEMORY. */
int relay_http1_response_write(struct relay_buffer *out, const struct relay_response *response,
                               struct relay_http1_context *context, enum relay_http1_framing *framing);

#endif
