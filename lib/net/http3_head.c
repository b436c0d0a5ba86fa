#include "lib/net/http3_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/wire/error.h"
#include "lib/wire/field.h"

/* ---- what came ---- */

static int grow(struct relay_http3_head *head, size_t bytes)
{
    if (head->len + bytes > head->size) {
        size_t size = head->size ? head->size : 512;
        while (size < head->len + bytes)
            size *= 2;
        char *grown = realloc(head->bytes, size);
        if (grown == NULL)
            return RELAY_ERR_NO_MEMORY;
        head->bytes = grown;
        head->size = size;
    }
    if (head->num_spans == head->spans_size) {
        size_t size = head->spans_size ? 2 * head->spans_size : 16;
        struct relay_http3_span *grown = realloc(head->spans, size * sizeof(*grown));
        if (grown == NULL)
            return RELAY_ERR_NO_MEMORY;
        head->spans = grown;
        head->spans_size = size;
    }
    return 0;
}

void relay_http3_head_add(struct relay_http3_head *head, const struct relay_limits *limits, const char *name,
                          size_t name_len, const char *value, size_t value_len)
{
    if (head->error != 0)
        return;
    if (head->num_spans >= limits->head_fields || name_len + value_len > limits->head_bytes - head->len)
        head->error = RELAY_ERR_TOO_BIG;
    else
        head->error = grow(head, name_len + value_len);
    if (head->error != 0)
        return;
    struct relay_http3_span *span = &head->spans[head->num_spans++];
    *span = (struct relay_http3_span){(uint32_t)head->len, (uint32_t)name_len,
                                      (uint32_t)(head->len + name_len), (uint32_t)value_len};
    if (name_len > 0)
        memcpy(head->bytes + span->name, name, name_len);
    if (value_len > 0)
        memcpy(head->bytes + span->value, value, value_len);
    head->len += name_len + value_len;
}

void relay_http3_head_dispose(struct relay_http3_head *head)
{
    free(head->bytes);
    free(head->spans);
    free(head->fields);
    memset(head, 0, sizeof(*head));
}

bool relay_http3_head_is_connect(const struct relay_http3_head *head)
{
    for (size_t i = 0; i < head->num_spans; i++) {
        const struct relay_http3_span *span = &head->spans[i];
        const struct relay_slice name = {head->bytes + span->name, span->name_len},
                                 value = {head->bytes + span->value, span->value_len};
        if (relay_slice_is(name, ":method"))
            return relay_slice_is(value, "CONNECT");
    }
    return false;
}

/* A pseudo-header's place to be, and whether it came already. */
struct pseudo {
    const char *name;
    struct relay_slice *value;
};

static int take_pseudo(const struct pseudo *pseudos, size_t num, const struct relay_field *field)
{
    for (size_t i = 0; i < num; i++) {
        if (!relay_slice_is(field->name, pseudos[i].name))
            continue;
        if (pseudos[i].value->base != NULL)
            return RELAY_ERR_INVALID;
        *pseudos[i].value = field->value;
        return 0;
    }
    return RELAY_ERR_INVALID;
}

static bool field_valid(const struct relay_field *field)
{
    return relay_field_name_valid(field->name.base, field->name.len, RELAY_FIELD_HTTP2) &&
           relay_field_value_valid(field->value.base, field->value.len, RELAY_FIELD_HTTP2) &&
           !relay_field_is_connection_specific(field->name.base, field->name.len) &&
           (!relay_slice_is(field->name, "te") || relay_field_te_valid(field->value.base, field->value.len));
}

/* Sorts the spans into pseudo-headers, which come first, and fields. */
static int sort(struct relay_http3_head *head, const struct pseudo *pseudos, size_t num_pseudos,
                size_t *num_fields)
{
    free(head->fields);
    head->fields = calloc(head->num_spans + 1, sizeof(*head->fields));
    if (head->fields == NULL)
        return RELAY_ERR_NO_MEMORY;
    size_t num = 0;
    for (size_t i = 0; i < head->num_spans; i++) {
        const struct relay_http3_span *span = &head->spans[i];
        struct relay_field field = {{head->bytes + span->name, span->name_len},
                                    {head->bytes + span->value, span->value_len}};
        bool is_pseudo = field.name.len > 0 && field.name.base[0] == ':';
        if (is_pseudo && (num > 0 || take_pseudo(pseudos, num_pseudos, &field) != 0))
            return RELAY_ERR_INVALID;
        if (is_pseudo)
            continue;
        if (!field_valid(&field))
            return RELAY_ERR_INVALID;
        head->fields[num++] = field;
    }
    *num_fields = num;
    return 0;
}

/* -1 in *length when there is none. */
static int read_content_length(const struct relay_field *fields, size_t num_fields, int64_t *length)
{
    size_t count;
    struct relay_slice text = relay_fields_find(fields, num_fields, "content-length", &count);
    *length = -1;
    if (count == 0)
        return 0;
    if (count > 1 || text.len == 0 || text.len > 18)
        return RELAY_ERR_INVALID;
    int64_t sum = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.base[i] < '0' || text.base[i] > '9')
            return RELAY_ERR_INVALID;
        sum = sum * 10 + (text.base[i] - '0');
    }
    *length = sum;
    return 0;
}

/* RFC 9297 section 3.4: with these a message that carries capsules is malformed. */
static bool has_content_fields(const struct relay_field *fields, size_t num_fields)
{
    return relay_fields_find(fields, num_fields, "content-length", NULL).base != NULL ||
           relay_fields_find(fields, num_fields, "content-type", NULL).base != NULL;
}

static bool is_present(struct relay_slice slice)
{
    return slice.base != NULL && slice.len > 0;
}

/* Host stands in for an absent :authority; both must say the same (RFC 9114 section 4.3.1). */
static int take_host(struct relay_request *request)
{
    size_t count;
    struct relay_slice host = relay_fields_find(request->fields, request->num_fields, "host", &count);
    if (count > 1)
        return RELAY_ERR_INVALID;
    if (count == 0)
        return 0;
    if (request->authority.base == NULL) {
        request->authority = host;
        return 0;
    }
    bool same = host.len == request->authority.len &&
                (host.len == 0 || memcmp(host.base, request->authority.base, host.len) == 0);
    return same ? 0 : RELAY_ERR_INVALID;
}

static bool target_valid(const struct relay_request *request)
{
    if (request->kind == RELAY_KIND_BYTES) /* RFC 9114 section 4.4 */
        return is_present(request->authority) && request->scheme.base == NULL && request->path.base == NULL;
    if (!is_present(request->scheme) || !relay_field_scheme_valid(request->scheme.base, request->scheme.len))
        return false;
    if (!is_present(request->authority) || !is_present(request->path))
        return false;
    if (relay_slice_is(request->path, "*"))
        return relay_slice_is(request->method, "OPTIONS");
    if (!relay_field_path_valid(request->path.base, request->path.len))
        return false;
    return request->kind != RELAY_KIND_CAPSULES || relay_slice_is(request->scheme, "https");
}

int relay_http3_head_request(struct relay_http3_head *head, struct relay_request *request)
{
    *request = (struct relay_request){.version = RELAY_HTTP_3, .content_length = -1};
    const struct pseudo pseudos[] = {{":method", &request->method},
                                     {":scheme", &request->scheme},
                                     {":authority", &request->authority},
                                     {":path", &request->path},
                                     {":protocol", &request->protocol}};
    int error = sort(head, pseudos, sizeof(pseudos) / sizeof(pseudos[0]), &request->num_fields);
    if (error != 0)
        return error;
    request->fields = head->fields;
    bool is_connect = relay_slice_is(request->method, "CONNECT");
    if (!is_present(request->method) || !relay_field_method_valid(request->method.base, request->method.len))
        return RELAY_ERR_INVALID;
    if (request->protocol.base != NULL &&
        (!is_connect || !relay_field_method_valid(request->protocol.base, request->protocol.len)))
        return RELAY_ERR_INVALID;
    request->kind = request->protocol.base != NULL ? RELAY_KIND_CAPSULES
                    : is_connect                   ? RELAY_KIND_BYTES
                                                   : RELAY_KIND_MESSAGE;
    if (request->kind == RELAY_KIND_MESSAGE && take_host(request) != 0)
        return RELAY_ERR_INVALID;
    if (!target_valid(request))
        return RELAY_ERR_INVALID;
    if (request->kind == RELAY_KIND_CAPSULES && has_content_fields(request->fields, request->num_fields))
        return RELAY_ERR_INVALID;
    return read_content_length(request->fields, request->num_fields, &request->content_length);
}

static int read_status(struct relay_slice text, int *status)
{
    if (text.len != 3)
        return RELAY_ERR_INVALID;
    *status = 0;
    for (size_t i = 0; i < 3; i++) {
        if (text.base[i] < '0' || text.base[i] > '9')
            return RELAY_ERR_INVALID;
        *status = *status * 10 + (text.base[i] - '0');
    }
    return *status >= 100 && *status != 101 ? 0 : RELAY_ERR_INVALID;
}

int relay_http3_head_response(struct relay_http3_head *head, enum relay_kind kind,
                              struct relay_response *response)
{
    struct relay_slice status = RELAY_SLICE_NONE;
    *response = (struct relay_response){.content_length = -1};
    const struct pseudo pseudos[] = {{":status", &status}};
    int error = sort(head, pseudos, 1, &response->num_fields);
    if (error == 0)
        error = read_status(status, &response->status);
    if (error != 0)
        return error;
    response->fields = head->fields;
    if (kind != RELAY_KIND_MESSAGE && response->status / 100 == 2) {
        bool is_malformed =
            kind == RELAY_KIND_CAPSULES && (has_content_fields(response->fields, response->num_fields) ||
                                            (response->status >= 204 && response->status <= 206));
        return is_malformed ? RELAY_ERR_INVALID : 0;
    }
    return read_content_length(response->fields, response->num_fields, &response->content_length);
}

/* ---- what goes ---- */

/* Secrets are never put into the compression table, where their length could be probed (RFC 9204
 * section 7.1). */
static uint8_t nv_flags(struct relay_slice name)
{
    bool is_secret = relay_slice_is(name, "authorization") || relay_slice_is(name, "proxy-authorization") ||
                     relay_slice_is(name, "cookie");
    return is_secret ? NGHTTP3_NV_FLAG_NEVER_INDEX : NGHTTP3_NV_FLAG_NONE;
}

static void put(struct relay_http3_nvs *nvs, struct relay_slice name, struct relay_slice value)
{
    if (value.base == NULL)
        return;
    nvs->nv[nvs->num++] = (nghttp3_nv){(const uint8_t *)name.base, (const uint8_t *)value.base, name.len,
                                       value.len, nv_flags(name)};
}

static void put_length(struct relay_http3_nvs *nvs, int64_t length)
{
    if (length < 0)
        return;
    int len = snprintf(nvs->length, sizeof(nvs->length), "%lld", (long long)length);
    put(nvs, RELAY_SLICE("content-length"), (struct relay_slice){nvs->length, (size_t)len});
}

static int nvs_init(struct relay_http3_nvs *nvs, size_t num)
{
    nvs->num = 0;
    nvs->nv = calloc(num, sizeof(*nvs->nv));
    return nvs->nv != NULL ? 0 : RELAY_ERR_NO_MEMORY;
}

int relay_http3_nvs_request(struct relay_http3_nvs *nvs, const struct relay_request *request)
{
    if (nvs_init(nvs, request->num_fields + 6) != 0)
        return RELAY_ERR_NO_MEMORY;
    put(nvs, RELAY_SLICE(":method"), request->method);
    put(nvs, RELAY_SLICE(":protocol"), request->protocol);
    if (request->kind != RELAY_KIND_BYTES) {
        put(nvs, RELAY_SLICE(":scheme"), request->scheme);
        put(nvs, RELAY_SLICE(":path"), request->path);
    }
    put(nvs, RELAY_SLICE(":authority"), request->authority);
    for (size_t i = 0; i < request->num_fields; i++)
        put(nvs, request->fields[i].name, request->fields[i].value);
    if (request->kind == RELAY_KIND_MESSAGE)
        put_length(nvs, request->content_length);
    return 0;
}

int relay_http3_nvs_response(struct relay_http3_nvs *nvs, const struct relay_response *response,
                             bool is_tunnel)
{
    if (nvs_init(nvs, response->num_fields + 2) != 0)
        return RELAY_ERR_NO_MEMORY;
    snprintf(nvs->status, sizeof(nvs->status), "%03u", (unsigned)response->status % 1000);
    put(nvs, RELAY_SLICE(":status"), (struct relay_slice){nvs->status, 3});
    for (size_t i = 0; i < response->num_fields; i++)
        put(nvs, response->fields[i].name, response->fields[i].value);
    if (!is_tunnel)
        put_length(nvs, response->content_length);
    return 0;
}

void relay_http3_nvs_dispose(struct relay_http3_nvs *nvs)
{
    free(nvs->nv);
    nvs->nv = NULL;
}
