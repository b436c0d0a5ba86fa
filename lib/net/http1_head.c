#include "lib/net/http1_head.h"

#include <stdint.h>
#include <string.h>
#include <strings.h>
#include <sys/types.h>

#include "lib/wire/authority.h"
#include "lib/wire/error.h"
#include "lib/wire/field.h"

/* picohttpparser, which libh2o exports and installs no header for. */
struct phr_header {
    const char *name;
    size_t name_len;
    const char *value;
    size_t value_len;
};
int phr_parse_request(const char *bytes, size_t len, const char **method, size_t *method_len,
                      const char **path, size_t *path_len, int *minor_version, struct phr_header *headers,
                      size_t *num_headers, size_t last_len);

static bool is_word(struct relay_slice slice, const char *word)
{
    return slice.len == strlen(word) && strncasecmp(slice.base, word, slice.len) == 0;
}

static int refuse(struct relay_http1_head *head, int status)
{
    head->status = status;
    return status == 431 ? RELAY_ERR_TOO_BIG : status == 505 ? RELAY_ERR_UNSUPPORTED : RELAY_ERR_INVALID;
}

/* Looks for the empty line; refuses bare CR and LF, NUL, folded lines and too much, before the parser sees
 * them. */
static int find_end(struct relay_http1_head *head, const char *bytes, size_t len,
                    const struct relay_limits *limits)
{
    size_t lines = 0,
           begin = len >= 2 && memcmp(bytes, "\r\n", 2) == 0 ? 2 : 0; /* section 2.2: one is ignored */
    for (size_t i = begin, line = begin; i < len; i++) {
        if (i >= limits->head_bytes)
            return refuse(head, 431);
        if (bytes[i] == '\0' || (bytes[i] == '\n' && (i == 0 || bytes[i - 1] != '\r')))
            return refuse(head, 400);
        if (bytes[i] == '\r' && i + 1 < len && bytes[i + 1] != '\n')
            return refuse(head, 400);
        if (i == line && (bytes[i] == ' ' || bytes[i] == '\t'))
            return refuse(head, 400);
        if (bytes[i] != '\n')
            continue;
        if (i == line + 1) {
            head->len = i + 1;
            return lines == 0 ? refuse(head, 400) : RELAY_OK;
        }
        line = i + 1;
        if (++lines > limits->head_fields + (size_t)1)
            return refuse(head, 431);
    }
    return RELAY_ERR_INCOMPLETE;
}

/* Whether a line that did not parse is a request of another major version. */
static bool is_other_version(const char *bytes, size_t len)
{
    const char *end = memmem(bytes, len, "\r\n", 2);
    if (end == NULL || end - bytes < 9)
        return false;
    const char *version = end - 8;
    return memcmp(version, "HTTP/", 5) == 0 && version[5] >= '0' && version[5] <= '9' && version[5] != '1' &&
           version[6] == '.' && version[7] >= '0' && version[7] <= '9' && memcmp(bytes, "PRI ", 4) != 0;
}

static int take_fields(struct relay_http1_head *head, const struct phr_header *headers, size_t num_headers)
{
    for (size_t i = 0; i < num_headers; i++) {
        const struct phr_header *header = &headers[i];
        size_t len = header->value_len;
        while (len > 0 && (header->value[len - 1] == ' ' || header->value[len - 1] == '\t'))
            len--;
        if (header->name == NULL ||
            !relay_field_name_valid(header->name, header->name_len, RELAY_FIELD_HTTP1) ||
            !relay_field_value_valid(header->value, len, RELAY_FIELD_HTTP1))
            return refuse(head, 400);
        char *name = (char *)header->name; /* in the caller's writable bytes */
        for (size_t k = 0; k < header->name_len; k++)
            name[k] = (char)(name[k] >= 'A' && name[k] <= 'Z' ? name[k] + 32 : name[k]);
        head->fields[i] = (struct relay_field){{name, header->name_len}, {header->value, len}};
    }
    head->request.fields = head->fields;
    head->request.num_fields = num_headers;
    return RELAY_OK;
}

static bool lists(struct relay_slice rest, const char *token)
{
    while (rest.len > 0) {
        const char *comma = memchr(rest.base, ',', rest.len);
        size_t len = comma != NULL ? (size_t)(comma - rest.base) : rest.len;
        struct relay_slice item = {rest.base, len};
        while (item.len > 0 && (*item.base == ' ' || *item.base == '\t'))
            item.base++, item.len--;
        while (item.len > 0 && (item.base[item.len - 1] == ' ' || item.base[item.len - 1] == '\t'))
            item.len--;
        if (is_word(item, token))
            return true;
        size_t skip = comma != NULL ? len + 1 : len;
        rest.base += skip;
        rest.len -= skip;
    }
    return false;
}

/* Whether the lists in all fields of that name hold the token. */
static bool has_token(const struct relay_http1_head *head, const char *name, const char *token)
{
    for (size_t i = 0; i < head->request.num_fields; i++)
        if (relay_slice_is(head->fields[i].name, name) && lists(head->fields[i].value, token))
            return true;
    return false;
}

static bool parse_length(struct relay_slice text, int64_t *length)
{
    if (text.len == 0 || text.len > 18)
        return false;
    *length = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.base[i] < '0' || text.base[i] > '9')
            return false;
        *length = *length * 10 + (text.base[i] - '0');
    }
    return true;
}

/* RFC 9112 section 6.3, without its choices: one length or one coding, or none. */
static bool take_framing(struct relay_http1_head *head)
{
    struct relay_request *request = &head->request;
    size_t lengths, codings;
    struct relay_slice length =
        relay_fields_find(head->fields, request->num_fields, "content-length", &lengths);
    struct relay_slice coding =
        relay_fields_find(head->fields, request->num_fields, "transfer-encoding", &codings);
    request->content_length = -1;
    if (lengths + codings > 1 || (lengths == 1 && !parse_length(length, &request->content_length)))
        return false;
    if (codings == 1 && (head->minor_version == 0 || !is_word(coding, "chunked")))
        return false;
    if (codings == 1)
        head->body = RELAY_HTTP1_CHUNKED;
    else if (request->content_length > 0)
        head->body = RELAY_HTTP1_LENGTH;
    return true;
}

static bool is_authority(struct relay_slice text)
{
    struct relay_host host;
    uint16_t port;
    return relay_authority_parse_default(&host, &port, text.base, text.len, 80) == RELAY_OK;
}

/* A CONNECT's Host may be as wrong as its target, when it says the same: nothing is ambiguous then, and who
 * looks at the target answers as on the other versions. */
static bool take_host(struct relay_http1_head *head, struct relay_slice target)
{
    size_t hosts;
    struct relay_slice host = relay_fields_find(head->fields, head->request.num_fields, "host", &hosts);
    if (hosts > 1 || (hosts == 0 && head->minor_version > 0))
        return false;
    bool is_the_target = relay_slice_is(head->request.method, "CONNECT") && host.len == target.len &&
                         host.len > 0 && memcmp(host.base, target.base, host.len) == 0;
    if (hosts == 1 && !is_the_target && !is_authority(host))
        return false;
    head->request.authority = host;
    return true;
}

/* absolute-form: http://authority/path (RFC 9112 section 3.2.2); it overrides Host. */
static bool take_absolute(struct relay_http1_head *head, struct relay_slice target)
{
    struct relay_request *request = &head->request;
    const char *colon = memmem(target.base, target.len, "://", 3);
    if (colon == NULL)
        return false;
    struct relay_slice scheme = {target.base, (size_t)(colon - target.base)};
    if (!is_word(scheme, "http") && !is_word(scheme, "https"))
        return false;
    request->scheme = scheme.len == 4 ? RELAY_SLICE("http") : RELAY_SLICE("https");
    struct relay_slice rest = {colon + 3, target.len - scheme.len - 3};
    const char *slash = rest.len > 0 ? memchr(rest.base, '/', rest.len) : NULL;
    size_t len = slash != NULL ? (size_t)(slash - rest.base) : rest.len;
    request->authority = (struct relay_slice){rest.base, len};
    request->path = slash != NULL ? (struct relay_slice){slash, rest.len - len} : RELAY_SLICE("/");
    request->is_absolute = true;
    return is_authority(request->authority) && relay_field_path_valid(request->path.base, request->path.len);
}

static bool take_target(struct relay_http1_head *head, struct relay_slice target, const char *scheme)
{
    struct relay_request *request = &head->request;
    if (relay_slice_is(request->method, "CONNECT")) {
        request->kind = RELAY_KIND_BYTES;
        request->authority = target;
        return true;
    }
    request->scheme = relay_slice(scheme);
    request->path = target;
    if (target.len > 0 && target.base[0] == '/')
        return relay_field_path_valid(target.base, target.len);
    if (relay_slice_is(target, "*"))
        return relay_slice_is(request->method, "OPTIONS");
    return take_absolute(head, target);
}

/* RFC 9298 section 3.2: GET, with Connection: Upgrade, and no body. The client may offer other protocols
 * beside it, of which we know none (RFC 9110 section 7.8). */
static bool take_upgrade(struct relay_http1_head *head)
{
    struct relay_request *request = &head->request;
    if (head->minor_version == 0 || !has_token(head, "upgrade", "connect-udp") ||
        !has_token(head, "connection", "upgrade"))
        return true;
    if (!relay_slice_is(request->method, "GET"))
        return false;
    request->method = RELAY_SLICE("CONNECT");
    request->protocol = RELAY_SLICE("connect-udp");
    request->kind = RELAY_KIND_CAPSULES;
    return true;
}

static bool begins_with(struct relay_slice text, const char *word)
{
    return text.len >= strlen(word) && strncasecmp(text.base, word, strlen(word)) == 0;
}

bool relay_http1_head_is_tunnel(const char *bytes, size_t len)
{
    struct relay_slice rest = {bytes, len};
    if (begins_with(rest, "\r\n"))
        rest = (struct relay_slice){bytes + 2, len - 2};
    if (len > 0 && begins_with(rest, "CONNECT "))
        return true;
    const char *line;
    while (rest.len > 0 && (line = memchr(rest.base, '\n', rest.len)) != NULL) {
        rest.len -= (size_t)(line + 1 - rest.base);
        rest.base = line + 1;
        const char *end = rest.len > 0 ? memchr(rest.base, '\r', rest.len) : NULL;
        size_t value = strlen("upgrade:");
        if (end != NULL && begins_with(rest, "upgrade:") &&
            lists((struct relay_slice){rest.base + value, (size_t)(end - rest.base) - value}, "connect-udp"))
            return true;
    }
    return false;
}

int relay_http1_head_parse(struct relay_http1_head *head, char *bytes, size_t len, const char *scheme,
                           const struct relay_limits *limits)
{
    memset(head, 0, offsetof(struct relay_http1_head, fields));
    head->body = RELAY_HTTP1_NO_BODY;
    head->keep_alive = head->expects_continue = false;
    int error = find_end(head, bytes, len, limits);
    if (error != RELAY_OK)
        return error;

    struct phr_header headers[RELAY_HTTP1_FIELDS_MAX];
    size_t num_headers = RELAY_HTTP1_FIELDS_MAX;
    struct relay_request *request = &head->request;
    struct relay_slice target;
    int parsed = phr_parse_request(bytes, head->len, &request->method.base, &request->method.len,
                                   &target.base, &target.len, &head->minor_version, headers, &num_headers, 0);
    if (parsed < 0 || (size_t)parsed != head->len)
        return refuse(head, is_other_version(bytes, head->len) ? 505 : 400);
    request->version = RELAY_HTTP_1_1;
    error = take_fields(head, headers, num_headers);
    if (error != RELAY_OK)
        return error;
    bool is_good = relay_field_method_valid(request->method.base, request->method.len) &&
                   take_framing(head) && take_host(head, target) && take_target(head, target, scheme) &&
                   take_upgrade(head);
    if (!is_good || (request->kind != RELAY_KIND_MESSAGE && head->body != RELAY_HTTP1_NO_BODY))
        return refuse(head, 400);
    request->ends = request->kind == RELAY_KIND_MESSAGE && head->body == RELAY_HTTP1_NO_BODY;
    head->keep_alive = head->minor_version > 0 && !has_token(head, "connection", "close");
    head->expects_continue = head->minor_version > 0 && head->body != RELAY_HTTP1_NO_BODY &&
                             has_token(head, "expect", "100-continue");
    return RELAY_OK;
}

/* ---- the chunked coding ---- */

enum chunk_state {
    SIZE,
    EXTENSION,
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER,
    TRAILER_LINE,
    TRAILER_LF,
    END_LF
};

#define SKIPPED_MAX 16384

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int expect(struct relay_http1_chunked *chunked, uint8_t c, uint8_t expected, enum chunk_state next)
{
    chunked->state = (uint8_t)next;
    return c == expected ? 0 : RELAY_ERR_INVALID;
}

static int skip(struct relay_http1_chunked *chunked, uint8_t c, enum chunk_state at_cr)
{
    if (c == '\r')
        chunked->state = (uint8_t)at_cr;
    else if (c == '\n' || c == '\0' || ++chunked->skipped > SKIPPED_MAX)
        return RELAY_ERR_INVALID;
    return 0;
}

static int take_size(struct relay_http1_chunked *chunked, uint8_t c)
{
    int digit = hex_digit(c);
    if (digit >= 0) {
        chunked->left = chunked->left << 4 | (unsigned)digit;
        return ++chunked->digits <= 15 ? 0 : RELAY_ERR_INVALID;
    }
    if (chunked->digits == 0 || (c != '\r' && c != ';'))
        return RELAY_ERR_INVALID;
    chunked->digits = 0;
    chunked->state = c == ';' ? EXTENSION : SIZE_LF;
    return 0;
}

/* One byte of what is not data. 1: the end. */
static int take_byte(struct relay_http1_chunked *chunked, uint8_t c)
{
    switch ((enum chunk_state)chunked->state) {
    case SIZE:
        return take_size(chunked, c);
    case EXTENSION:
        return skip(chunked, c, SIZE_LF);
    case SIZE_LF:
        return expect(chunked, c, '\n', chunked->left > 0 ? DATA : TRAILER);
    case DATA_CR:
        return expect(chunked, c, '\r', DATA_LF);
    case DATA_LF:
        return expect(chunked, c, '\n', SIZE);
    case TRAILER: /* at the beginning of a line */
        chunked->state = TRAILER_LINE;
        return skip(chunked, c, END_LF);
    case TRAILER_LINE:
        return skip(chunked, c, TRAILER_LF);
    case TRAILER_LF:
        return expect(chunked, c, '\n', TRAILER);
    default: /* END_LF */
        return c == '\n' ? 1 : RELAY_ERR_INVALID;
    }
}

int relay_http1_chunked_next(struct relay_http1_chunked *chunked, uint8_t *bytes, size_t len, size_t *used,
                             uint8_t **data, size_t *data_len)
{
    *used = 0;
    *data = NULL;
    *data_len = 0;
    while (*used < len) {
        if (chunked->state == DATA) {
            *data = bytes + *used;
            *data_len = len - *used < chunked->left ? len - *used : (size_t)chunked->left;
            *used += *data_len;
            chunked->left -= *data_len;
            if (chunked->left == 0)
                chunked->state = DATA_CR;
            return 0;
        }
        int result = take_byte(chunked, bytes[(*used)++]);
        if (result != 0)
            return result;
    }
    return 0;
}
