#include "client/http_forward.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "lib/wire/error.h"

struct forward {
    struct relay_opening opening; /* first */
    struct relay_stream *stream;  /* NULL: ended */
    struct relay_tunnel *tunnel;  /* NULL: not open yet */
    enum relay_http1_body body;
    uint64_t left; /* of a body with a length */
    struct relay_http1_chunked chunked;
    bool is_complete; /* the body is through */
    void (*on_end)(void *user);
    void *user;
    size_t len, early_len;
    uint8_t *early;  /* behind the head in `bytes` */
    uint8_t bytes[]; /* the head as it is sent on */
};

static void finish(struct forward *forward)
{
    void (*on_end)(void *user) = forward->on_end;
    void *user = forward->user;
    free(forward);
    on_end(user);
}

/* ---- the head ---- */

/* Whether the value of a Connection field lists the name. */
static bool names_field(struct relay_slice connection, struct relay_slice name)
{
    for (size_t at = 0; at < connection.len;) {
        size_t begin = at;
        while (at < connection.len && connection.base[at] != ',')
            at++;
        struct relay_slice word = {connection.base + begin, at - begin};
        for (; word.len > 0 && (word.base[0] == ' ' || word.base[0] == '\t'); word.base++)
            word.len--;
        while (word.len > 0 && (word.base[word.len - 1] == ' ' || word.base[word.len - 1] == '\t'))
            word.len--;
        if (word.len == name.len && name.len > 0 && strncasecmp(word.base, name.base, name.len) == 0)
            return true;
        at++;
    }
    return false;
}

/* Fields that end here: some always, and what any of the Connection fields names (RFC 9110 section 7.6.1), but not those
 * that frame the body. */
static bool is_local_field(struct relay_slice name, const struct relay_request *request)
{
    static const char *const names[] = {"connection", "proxy-connection",   "keep-alive", "te", "upgrade",
                                        "host",       "proxy-authorization"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (relay_slice_is(name, names[i]))
            return true;
    if (relay_slice_is(name, "content-length") || relay_slice_is(name, "transfer-encoding"))
        return false;
    for (size_t i = 0; i < request->num_fields; i++)
        if (relay_slice_is(request->fields[i].name, "connection") &&
            names_field(request->fields[i].value, name))
            return true;
    return false;
}

static uint8_t *put(uint8_t *p, struct relay_slice text)
{
    if (text.len > 0)
        memcpy(p, text.base, text.len);
    return p + text.len;
}

/* `p` has room for the old head's fields and the new lines. */
static size_t write_head(uint8_t *begin, const struct relay_request *request)
{
    uint8_t *p = begin;
    p = put(p, request->method);
    p = put(p, RELAY_SLICE(" "));
    p = put(p, request->path);
    p = put(p, RELAY_SLICE(" HTTP/1.1\r\nHost: "));
    p = put(p, request->authority);
    p = put(p, RELAY_SLICE("\r\n"));
    for (size_t i = 0; i < request->num_fields; i++) {
        if (is_local_field(request->fields[i].name, request))
            continue;
        p = put(p, request->fields[i].name);
        p = put(p, RELAY_SLICE(": "));
        p = put(p, request->fields[i].value);
        p = put(p, RELAY_SLICE("\r\n"));
    }
    p = put(p, RELAY_SLICE("Connection: close\r\n\r\n"));
    return (size_t)(p - begin);
}

/* ---- the body ---- */

/* How many of the bytes belong to this request's body; is_complete when it ends in them. RELAY_ERR_INVALID:
 * bad chunks. */
static ssize_t measure_body(struct forward *forward, uint8_t *bytes, size_t len)
{
    size_t total = 0;
    if (forward->body == RELAY_HTTP1_CHUNKED) {
        while (total < len && !forward->is_complete) {
            size_t used, data_len;
            uint8_t *data;
            int rv = relay_http1_chunked_next(&forward->chunked, bytes + total, len - total, &used, &data,
                                              &data_len);
            if (rv < 0)
                return rv;
            total += used;
            forward->is_complete = rv == 1;
        }
        return (ssize_t)total;
    }
    total = forward->left < len ? (size_t)forward->left : len;
    forward->left -= total;
    forward->is_complete = forward->left == 0;
    return (ssize_t)total;
}

static void take_body(struct forward *forward, uint8_t *bytes, size_t len)
{
    ssize_t own = forward->is_complete ? 0 : measure_body(forward, bytes, len);
    if (own < 0) {
        relay_tunnel_abort(forward->tunnel, RELAY_ERR_INVALID);
        return;
    }
    bool more = own == 0 || relay_tunnel_send(forward->tunnel, bytes, (size_t)own);
    if (!more || forward->is_complete)
        relay_stream_pause(forward->stream);
}

/* ---- the stream ---- */

static void on_nothing(void *user)
{
    (void)user;
}

static void on_stream_bytes(void *user, uint8_t *bytes, size_t len)
{
    struct forward *forward = user;
    if (forward->tunnel != NULL)
        take_body(forward, bytes, len);
}

static void on_stream_close(void *user, int error)
{
    struct forward *forward = user;
    relay_stream_close(forward->stream);
    forward->stream = NULL;
    if (forward->tunnel != NULL) {
        relay_tunnel_abort(forward->tunnel, error);
        return;
    }
    relay_opening_cancel(&forward->opening);
    finish(forward);
}

/* A client that has sent its whole request may end its side; in the middle of a body it has given up. */
static void on_stream_fin(void *user)
{
    struct forward *forward = user;
    if (!forward->is_complete)
        on_stream_close(forward, RELAY_ERR_INCOMPLETE);
}

static void on_stream_writable(void *user)
{
    struct forward *forward = user;
    if (forward->tunnel != NULL)
        relay_tunnel_resume(forward->tunnel);
}

static const struct relay_stream_user stream_cb = {on_nothing, on_stream_bytes, on_stream_fin,
                                                   on_stream_writable, on_stream_close};

/* ---- the tunnel ---- */

static void on_tunnel_bytes(void *user, uint8_t *bytes, size_t len)
{
    struct forward *forward = user;
    if (forward->stream != NULL && !relay_stream_send(forward->stream, bytes, len))
        relay_tunnel_pause(forward->tunnel);
}

/* The response is complete: the tunnel ends in order, both ways, unless the server did not want the whole request. */
static void on_tunnel_fin(void *user)
{
    struct forward *forward = user;
    if (forward->stream != NULL) {
        relay_stream_resume(forward->stream);
        relay_stream_release(forward->stream);
    }
    forward->stream = NULL;
    if (forward->is_complete)
        relay_tunnel_send_fin(forward->tunnel);
    else
        relay_tunnel_abort(forward->tunnel, RELAY_ERR_CANCELLED);
}

static void on_tunnel_writable(void *user)
{
    struct forward *forward = user;
    if (forward->stream != NULL && !forward->is_complete)
        relay_stream_resume(forward->stream);
}

static void on_tunnel_close(void *user, int error)
{
    struct forward *forward = user;
    (void)error;
    if (forward->stream != NULL)
        relay_stream_reset(forward->stream);
    finish(forward);
}

static const struct relay_tunnel_user tunnel_cb = {.on_bytes = on_tunnel_bytes,
                                                   .on_fin = on_tunnel_fin,
                                                   .on_writable = on_tunnel_writable,
                                                   .on_close = on_tunnel_close};

static void on_open(struct relay_opening *opening, struct relay_tunnel *tunnel)
{
    struct forward *forward = (struct forward *)opening;
    forward->tunnel = tunnel;
    relay_tunnel_attach(tunnel, &tunnel_cb, forward);
    relay_tunnel_send(tunnel, forward->bytes, forward->len);
    relay_stream_resume(forward->stream);
    take_body(forward, forward->early, forward->early_len);
}

static void on_failed(struct relay_opening *opening, const struct relay_failure *failure)
{
    struct forward *forward = (struct forward *)opening;
    relay_http_forward_refuse(forward->stream, failure);
    finish(forward);
}

int relay_http_forward(struct relay_chain *chain, struct relay_stream *stream,
                       const struct relay_http1_head *head, const uint8_t *early, size_t early_len,
                       void (*on_end)(void *user), void *user)
{
    struct relay_host host;
    uint16_t port;
    const struct relay_request *request = &head->request;
    if (relay_authority_parse_default(&host, &port, request->authority.base, request->authority.len, 80) != 0)
        return RELAY_ERR_INVALID;
    /* The new head: the old one's texts, four bytes for each field, and the lines of our own. */
    size_t size = 2 * head->len + 4 * request->num_fields + 128;
    struct forward *forward = calloc(1, sizeof(*forward) + size + early_len);
    if (forward == NULL)
        return RELAY_ERR_NO_MEMORY;
    forward->opening.on_open = on_open;
    forward->opening.on_failed = on_failed;
    forward->stream = stream;
    forward->body = head->body;
    forward->left = head->body == RELAY_HTTP1_LENGTH ? (uint64_t)request->content_length : 0;
    forward->is_complete = head->body == RELAY_HTTP1_NO_BODY;
    forward->on_end = on_end;
    forward->user = user;
    forward->len = write_head(forward->bytes, request);
    forward->early = forward->bytes + size;
    forward->early_len = early_len;
    if (early_len > 0)
        memcpy(forward->early, early, early_len);
    relay_stream_set_user(stream, &stream_cb, forward);
    relay_chain_open(chain, &forward->opening, false, &host, port);
    return 0;
}
