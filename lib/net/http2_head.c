#include "lib/net/http2_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/wire/error.h"
#include "lib/wire/field.h"

#define DECIMAL_SIZE 24 /* a 64-bit number with its NUL */

/* ---- heads that come ---- */

struct http2_head *relay_http2_head_new(struct http2_stream *stream, const struct relay_limits *limits)
{
    size_t fields = limits->head_fields * sizeof(struct relay_field);
    struct http2_head *head = malloc(sizeof(*head) + fields + limits->head_bytes);
    if (head == NULL)
        return NULL;
    memset(head, 0, sizeof(*head));
    head->stream = stream;
    head->max_fields = limits->head_fields;
    head->size = limits->head_bytes;
    head->bytes = (char *)head->fields + fields;
    return head;
}

static struct relay_slice keep(struct http2_head *head, struct relay_slice text)
{
    char *at = head->bytes + head->len;
    if (text.len > 0)
        memcpy(at, text.base, text.len);
    head->len += text.len;
    return (struct relay_slice){at, text.len};
}

/* NULL: not a pseudo-header field we know (nghttp2 has refused the others). */
static struct relay_slice *pseudo_slot(struct http2_head *head, struct relay_slice name)
{
    const struct {
        const char *name;
        struct relay_slice *slot;
    } slots[] = {
        {":method", &head->method}, {":scheme", &head->scheme},     {":authority", &head->authority},
        {":path", &head->path},     {":protocol", &head->protocol},
    };
    for (size_t i = 0; i < sizeof(slots) / sizeof(slots[0]); i++)
        if (relay_slice_is(name, slots[i].name))
            return slots[i].slot;
    return NULL;
}

static void add_pseudo(struct http2_head *head, struct relay_slice name, struct relay_slice value)
{
    struct relay_slice *slot = pseudo_slot(head, name);
    if (relay_slice_is(name, ":status"))
        for (size_t i = 0; i < value.len && i < 3; i++)
            head->status = head->status * 10 + (value.base[i] - '0');
    else if (slot == NULL || slot->base != NULL)
        head->is_malformed = true;
    else
        *slot = keep(head, value);
}

static bool is_field_valid(struct relay_slice name, struct relay_slice value)
{
    return relay_field_name_valid(name.base, name.len, RELAY_FIELD_HTTP2) &&
           relay_field_value_valid(value.base, value.len, RELAY_FIELD_HTTP2) &&
           !relay_field_is_connection_specific(name.base, name.len) &&
           (!relay_slice_is(name, "te") || relay_field_te_valid(value.base, value.len));
}

void relay_http2_head_add(struct http2_head *head, struct relay_slice name, struct relay_slice value)
{
    if (head->is_too_big || head->num_fields == head->max_fields ||
        name.len + value.len > head->size - head->len) {
        head->is_too_big = true;
        return;
    }
    if (name.len > 0 && name.base[0] == ':') {
        add_pseudo(head, name, value);
        return;
    }
    if (!is_field_valid(name, value))
        head->is_malformed = true;
    struct relay_field *field = &head->fields[head->num_fields++];
    field->name = keep(head, name);
    field->value = keep(head, value);
}

/* -1: absent. False: no number, or several. */
static bool read_content_length(const struct http2_head *head, int64_t *length)
{
    size_t count;
    struct relay_slice text = relay_fields_find(head->fields, head->num_fields, "content-length", &count);
    *length = -1;
    if (count == 0)
        return true;
    if (count > 1 || text.len == 0 || text.len > 18)
        return false;
    *length = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.base[i] < '0' || text.base[i] > '9')
            return false;
        *length = *length * 10 + (text.base[i] - '0');
    }
    return true;
}

/* The authority: the pseudo-header field, or Host; both must agree (RFC 9113 section 8.3.1). */
static bool read_authority(const struct http2_head *head, struct relay_request *request)
{
    size_t count;
    struct relay_slice host = relay_fields_find(head->fields, head->num_fields, "host", &count);
    request->authority = head->authority;
    if (count == 0)
        return true;
    if (count > 1)
        return false;
    if (head->authority.base == NULL) {
        request->authority = host;
        return true;
    }
    return host.len == head->authority.len && memcmp(host.base, head->authority.base, host.len) == 0;
}

static bool is_scheme_allowed(struct relay_slice scheme, bool http_too)
{
    return relay_slice_is(scheme, "https") || (http_too && relay_slice_is(scheme, "http"));
}

/* RFC 9110 section 9.3.6, RFC 8441 section 4, RFC 9297 section 3.4. */
static bool read_connect(const struct http2_head *head, bool is_clear, struct relay_request *request)
{
    if (head->authority.len == 0)
        return false;
    request->content_length = -1;
    if (head->protocol.base == NULL) {
        request->kind = RELAY_KIND_BYTES;
        return head->scheme.base == NULL && head->path.base == NULL;
    }
    size_t lengths;
    relay_fields_find(head->fields, head->num_fields, "content-length", &lengths);
    request->kind = RELAY_KIND_CAPSULES;
    return lengths == 0 && is_scheme_allowed(head->scheme, is_clear) &&
           relay_field_path_valid(head->path.base, head->path.len) &&
           relay_field_method_valid(head->protocol.base, head->protocol.len);
}

static bool read_message(const struct http2_head *head, struct relay_request *request)
{
    bool is_asterisk = relay_slice_is(head->path, "*") && relay_slice_is(head->method, "OPTIONS");
    request->kind = RELAY_KIND_MESSAGE;
    return head->protocol.base == NULL && is_scheme_allowed(head->scheme, true) &&
           (is_asterisk || relay_field_path_valid(head->path.base, head->path.len));
}

int relay_http2_head_request(const struct http2_head *head, bool is_clear, struct relay_request *request)
{
    if (head->is_too_big)
        return RELAY_ERR_TOO_BIG;
    *request = (struct relay_request){
        .version = RELAY_HTTP_2,
        .method = head->method,
        .scheme = head->scheme,
        .path = head->path,
        .protocol = head->protocol,
        .fields = head->fields,
        .num_fields = head->num_fields,
        .ends = head->ends,
    };
    if (head->is_malformed || !relay_field_method_valid(head->method.base, head->method.len) ||
        !read_authority(head, request) || !read_content_length(head, &request->content_length))
        return RELAY_ERR_INVALID;
    bool is_valid = relay_slice_is(head->method, "CONNECT") ? read_connect(head, is_clear, request)
                                                            : read_message(head, request);
    return is_valid ? 0 : RELAY_ERR_INVALID;
}

int relay_http2_head_response(const struct http2_head *head, enum relay_kind kind,
                              struct relay_response *response)
{
    if (head->is_too_big)
        return RELAY_ERR_TOO_BIG;
    *response = (struct relay_response){
        .status = head->status,
        .fields = head->fields,
        .num_fields = head->num_fields,
        .content_length = -1,
        .ends = head->ends,
    };
    if (head->is_malformed || head->status < 100 || head->status > 599)
        return RELAY_ERR_INVALID;
    if (kind != RELAY_KIND_MESSAGE && head->status / 100 == 2)
        return 0;
    return read_content_length(head, &response->content_length) ? 0 : RELAY_ERR_INVALID;
}

/* ---- heads that go ---- */

/* Secrets stay out of every compression table (RFC 7541 section 7.1.3). */
static bool is_sensitive(struct relay_slice name)
{
    return relay_slice_is(name, "authorization") || relay_slice_is(name, "proxy-authorization") ||
           relay_slice_is(name, "cookie") || relay_slice_is(name, "set-cookie");
}

static void put(nghttp2_nv *nv, size_t *count, struct relay_slice name, struct relay_slice value)
{
    nv[(*count)++] = (nghttp2_nv){
        .name = (uint8_t *)name.base,
        .value = (uint8_t *)(value.base != NULL ? value.base : ""),
        .namelen = name.len,
        .valuelen = value.len,
        .flags = is_sensitive(name) ? NGHTTP2_NV_FLAG_NO_INDEX : NGHTTP2_NV_FLAG_NONE,
    };
}

static void put_present(nghttp2_nv *nv, size_t *count, const char *name, struct relay_slice value)
{
    if (value.base != NULL)
        put(nv, count, relay_slice(name), value);
}

/* Room for the fields, six more and two numbers behind them. */
static nghttp2_nv *new_head(size_t num_fields, char **decimals)
{
    size_t size = (num_fields + 6) * sizeof(nghttp2_nv);
    nghttp2_nv *nv = malloc(size + 2 * DECIMAL_SIZE);
    if (nv != NULL)
        *decimals = (char *)nv + size;
    return nv;
}

static struct relay_slice decimal(char *buffer, int64_t number)
{
    int len = snprintf(buffer, DECIMAL_SIZE, "%lld", (long long)number);
    return (struct relay_slice){buffer, (size_t)len};
}

nghttp2_nv *relay_http2_head_write_request(const struct relay_request *request, size_t *count)
{
    char *decimals;
    nghttp2_nv *nv = new_head(request->num_fields, &decimals);
    *count = 0;
    if (nv == NULL)
        return NULL;
    put_present(nv, count, ":method", request->method);
    if (request->kind != RELAY_KIND_BYTES) {
        put_present(nv, count, ":scheme", request->scheme);
        put_present(nv, count, ":path", request->path);
    }
    put_present(nv, count, ":authority", request->authority);
    if (request->kind == RELAY_KIND_CAPSULES)
        put_present(nv, count, ":protocol", request->protocol);
    for (size_t i = 0; i < request->num_fields; i++)
        put(nv, count, request->fields[i].name, request->fields[i].value);
    if (request->kind == RELAY_KIND_MESSAGE && request->content_length >= 0)
        put(nv, count, RELAY_SLICE("content-length"), decimal(decimals, request->content_length));
    return nv;
}

nghttp2_nv *relay_http2_head_write_response(const struct relay_response *response, bool is_tunnel,
                                            size_t *count)
{
    char *decimals;
    nghttp2_nv *nv = new_head(response->num_fields, &decimals);
    *count = 0;
    if (nv == NULL)
        return NULL;
    put(nv, count, RELAY_SLICE(":status"), decimal(decimals, response->status));
    for (size_t i = 0; i < response->num_fields; i++)
        put(nv, count, response->fields[i].name, response->fields[i].value);
    if (!is_tunnel && response->content_length >= 0)
        put(nv, count, RELAY_SLICE("content-length"),
            decimal(decimals + DECIMAL_SIZE, response->content_length));
    return nv;
}
