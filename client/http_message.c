#include "client/http_message.h"

#include <string.h>
#include <strings.h>

#include "lib/wire/error.h"
#include "lib/wire/field.h"

/* ---- bodies ---- */

void relay_http_body_init(struct relay_http_body *body, enum relay_http_framing framing, uint64_t length)
{
    *body = (struct relay_http_body){.framing = framing, .left = length};
    body->is_complete = framing == RELAY_HTTP_NO_BODY || (framing == RELAY_HTTP_LENGTH && length == 0);
}

static ssize_t take_chunks(struct relay_http_body *body, uint8_t *bytes, size_t len)
{
    size_t total = 0;
    while (total < len && !body->is_complete) {
        size_t used, data_len;
        uint8_t *data;
        int rv =
            relay_http1_chunked_next(&body->chunked, bytes + total, len - total, &used, &data, &data_len);
        if (rv < 0)
            return rv;
        total += used;
        body->is_complete = rv == 1;
    }
    return (ssize_t)total;
}

ssize_t relay_http_body_take(struct relay_http_body *body, uint8_t *bytes, size_t len)
{
    if (body->is_complete)
        return 0;
    if (body->framing == RELAY_HTTP_CHUNKED)
        return take_chunks(body, bytes, len);
    if (body->framing == RELAY_HTTP_UNTIL_CLOSE)
        return (ssize_t)len;
    size_t own = body->left < len ? (size_t)body->left : len;
    body->left -= own;
    body->is_complete = body->left == 0;
    return (ssize_t)own;
}

/* ---- fields ---- */

static bool is_word(struct relay_slice text, const char *word)
{
    return text.len == strlen(word) && strncasecmp(text.base, word, text.len) == 0;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

static struct relay_slice trim(struct relay_slice text)
{
    for (; text.len > 0 && is_space(text.base[0]); text.base++)
        text.len--;
    while (text.len > 0 && is_space(text.base[text.len - 1]))
        text.len--;
    return text;
}

/* Whether the list holds the word, in any case. */
static bool lists(struct relay_slice list, struct relay_slice word)
{
    for (size_t at = 0; at < list.len; at++) {
        size_t begin = at;
        while (at < list.len && list.base[at] != ',')
            at++;
        struct relay_slice item = trim((struct relay_slice){list.base + begin, at - begin});
        if (item.len > 0 && item.len == word.len && strncasecmp(item.base, word.base, item.len) == 0)
            return true;
    }
    return false;
}

/* Whether a field of that name, in any case, lists the word. */
static bool has_word(const struct relay_field *fields, size_t num, const char *name, struct relay_slice word)
{
    for (size_t i = 0; i < num; i++)
        if (is_word(fields[i].name, name) && lists(fields[i].value, word))
            return true;
    return false;
}

/* Fields that end here: some always, and what any of the Connection fields names (RFC 9110 section 7.6.1), but not those
 * that frame the body. */
static bool is_local(struct relay_slice name, const struct relay_field *fields, size_t num)
{
    static const char *const names[] = {"connection", "proxy-connection", "keep-alive", "te", "upgrade"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (is_word(name, names[i]))
            return true;
    if (is_word(name, "content-length") || is_word(name, "transfer-encoding"))
        return false;
    return has_word(fields, num, "connection", name);
}

static uint8_t *put(uint8_t *p, struct relay_slice text)
{
    if (text.len > 0)
        memcpy(p, text.base, text.len);
    return p + text.len;
}

static uint8_t *put_field(uint8_t *p, const struct relay_field *field)
{
    p = put(p, field->name);
    p = put(p, RELAY_SLICE(": "));
    p = put(p, field->value);
    return put(p, RELAY_SLICE("\r\n"));
}

/* ---- requests ---- */

bool relay_http_request_keeps_alive(const struct relay_http1_head *head)
{
    const struct relay_request *request = &head->request;
    if (head->minor_version > 0)
        return head->keep_alive &&
               !has_word(request->fields, request->num_fields, "proxy-connection", RELAY_SLICE("close"));
    return has_word(request->fields, request->num_fields, "connection", RELAY_SLICE("keep-alive")) ||
           has_word(request->fields, request->num_fields, "proxy-connection", RELAY_SLICE("keep-alive"));
}

bool relay_http_request_may_repeat(const struct relay_http1_head *head)
{
    static const char *const methods[] = {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"};
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
        if (relay_slice_is(head->request.method, methods[i]))
            return head->body == RELAY_HTTP1_NO_BODY;
    return false;
}

size_t relay_http_request_size(const struct relay_http1_head *head)
{
    /* The old one's texts, twice for those that stand for two, four bytes for each field, and the lines of our own. */
    return 2 * head->len + 4 * head->request.num_fields + 128;
}

size_t relay_http_request_write(uint8_t *out, const struct relay_http1_head *head)
{
    const struct relay_request *request = &head->request;
    uint8_t *p = out;
    p = put(p, request->method);
    p = put(p, RELAY_SLICE(" "));
    p = put(p, request->path);
    /* An HTTP/1.0 client must not get chunks: so the target speaks to that. */
    p = put(p, head->minor_version > 0 ? RELAY_SLICE(" HTTP/1.1\r\nHost: ")
                                       : RELAY_SLICE(" HTTP/1.0\r\nHost: "));
    p = put(p, request->authority);
    p = put(p, RELAY_SLICE("\r\n"));
    for (size_t i = 0; i < request->num_fields; i++) {
        struct relay_slice name = request->fields[i].name;
        if (!relay_slice_is(name, "host") && !relay_slice_is(name, "proxy-authorization") &&
            !is_local(name, request->fields, request->num_fields))
            p = put_field(p, &request->fields[i]);
    }
    p = put(p, relay_http_request_keeps_alive(head) ? RELAY_SLICE("Connection: keep-alive\r\n\r\n")
                                                    : RELAY_SLICE("Connection: close\r\n\r\n"));
    return (size_t)(p - out);
}

/* ---- answers ---- */

/* The head's length with its empty line; nothing but CRLF ends a line, and there are not too many. */
static int find_end(struct relay_http_answer *answer, const char *bytes, size_t len)
{
    size_t lines = 0, line = 0;
    for (size_t i = 0; i < len; i++) {
        if (i >= RELAY_HTTP_ANSWER_HEAD_MAX || lines > RELAY_HTTP_ANSWER_FIELDS_MAX + 1)
            return RELAY_ERR_TOO_BIG;
        if (bytes[i] == '\0' || (i > 0 && (bytes[i - 1] == '\r') != (bytes[i] == '\n')))
            return RELAY_ERR_INVALID;
        if (bytes[i] != '\n')
            continue;
        if (i == 0)
            return RELAY_ERR_INVALID;
        if (i == line + 1) {
            answer->len = i + 1;
            return lines > 0 ? RELAY_OK : RELAY_ERR_INVALID;
        }
        line = i + 1;
        lines++;
    }
    return RELAY_ERR_INCOMPLETE;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* "HTTP/1.1 200 OK"; some leave the last space out with the words. */
static bool take_status_line(struct relay_http_answer *answer, struct relay_slice line)
{
    const char *text = line.base;
    if (line.len < 12 || memcmp(text, "HTTP/1.", 7) != 0 || !is_digit(text[7]) || text[8] != ' ' ||
        text[9] < '1' || text[9] > '9' || !is_digit(text[10]) || !is_digit(text[11]) ||
        (line.len > 12 && text[12] != ' '))
        return false;
    answer->minor_version = text[7] - '0';
    answer->status = (text[9] - '0') * 100 + (text[10] - '0') * 10 + text[11] - '0';
    answer->reason = line.len > 13 ? (struct relay_slice){text + 13, line.len - 13} : RELAY_SLICE("");
    return relay_field_value_valid(answer->reason.base, answer->reason.len, RELAY_FIELD_HTTP1);
}

static bool take_field(struct relay_http_answer *answer, struct relay_slice line)
{
    const char *colon = memchr(line.base, ':', line.len);
    if (colon == NULL || answer->num_fields == RELAY_HTTP_ANSWER_FIELDS_MAX)
        return false;
    struct relay_slice name = {line.base, (size_t)(colon - line.base)};
    struct relay_slice value = trim((struct relay_slice){colon + 1, line.len - name.len - 1});
    answer->fields[answer->num_fields++] = (struct relay_field){name, value};
    return relay_field_name_valid(name.base, name.len, RELAY_FIELD_HTTP1) &&
           relay_field_value_valid(value.base, value.len, RELAY_FIELD_HTTP1);
}

static bool take_lines(struct relay_http_answer *answer, const char *bytes)
{
    bool is_first = true, is_good = true;
    for (const char *at = bytes; is_good && at < bytes + answer->len - 2; is_first = false) {
        const char *end = memchr(at, '\r', (size_t)(bytes + answer->len - at));
        struct relay_slice line = {at, (size_t)(end - at)};
        is_good = is_first ? take_status_line(answer, line) : take_field(answer, line);
        at = end + 2;
    }
    return is_good;
}

static const struct relay_slice *only_field(const struct relay_http_answer *answer, const char *name,
                                            size_t *count)
{
    const struct relay_slice *value = NULL;
    *count = 0;
    for (size_t i = 0; i < answer->num_fields; i++) {
        if (is_word(answer->fields[i].name, name)) {
            value = &answer->fields[i].value;
            ++*count;
        }
    }
    return value;
}

static bool parse_length(struct relay_slice text, uint64_t *length)
{
    *length = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (!is_digit(text.base[i]))
            return false;
        *length = *length * 10 + (uint64_t)(text.base[i] - '0');
    }
    return text.len > 0 && text.len <= 18;
}

/* RFC 9112 section 6.3, without its choices: one length or one coding, or none. */
static bool take_framing(struct relay_http_answer *answer, bool is_to_head)
{
    size_t lengths, codings;
    const struct relay_slice *length = only_field(answer, "content-length", &lengths),
                             *coding = only_field(answer, "transfer-encoding", &codings);
    bool is_bare = answer->status / 100 == 1 || answer->status == 204;
    if (lengths + codings > 1 || (lengths == 1 && !parse_length(*length, &answer->length)) ||
        (codings == 1 && (answer->minor_version == 0 || is_bare || !is_word(*coding, "chunked"))))
        return false;
    if (is_bare || is_to_head || answer->status == 304)
        answer->framing = RELAY_HTTP_NO_BODY;
    else if (codings == 1)
        answer->framing = RELAY_HTTP_CHUNKED;
    else
        answer->framing = lengths == 1 ? RELAY_HTTP_LENGTH : RELAY_HTTP_UNTIL_CLOSE;
    return true;
}

int relay_http_answer_parse(struct relay_http_answer *answer, const char *bytes, size_t len, bool is_to_head)
{
    static const char begin[] = "HTTP/1.";
    size_t known = len < sizeof(begin) - 1 ? len : sizeof(begin) - 1;
    answer->num_fields = 0;
    answer->length = 0;
    if (memcmp(bytes, begin, known) != 0)
        return RELAY_ERR_INVALID;
    int error = find_end(answer, bytes, len);
    if (error != RELAY_OK)
        return error;
    if (!take_lines(answer, bytes) || answer->status == 101 || !take_framing(answer, is_to_head))
        return RELAY_ERR_INVALID;
    bool is_said = has_word(answer->fields, answer->num_fields, "connection",
                            answer->minor_version > 0 ? RELAY_SLICE("close") : RELAY_SLICE("keep-alive"));
    answer->keep_alive =
        (answer->minor_version > 0 ? !is_said : is_said) && answer->framing != RELAY_HTTP_UNTIL_CLOSE;
    return RELAY_OK;
}

size_t relay_http_answer_size(const struct relay_http_answer *answer)
{
    return answer->len + 4 * answer->num_fields + 64;
}

size_t relay_http_answer_write(uint8_t *out, const struct relay_http_answer *answer, bool keep_alive)
{
    char digits[4] = {(char)('0' + answer->status / 100), (char)('0' + answer->status / 10 % 10),
                      (char)('0' + answer->status % 10), ' '};
    uint8_t *p = put(out, RELAY_SLICE("HTTP/1.1 "));
    p = put(p, (struct relay_slice){digits, sizeof(digits)});
    p = put(p, answer->reason);
    p = put(p, RELAY_SLICE("\r\n"));
    for (size_t i = 0; i < answer->num_fields; i++)
        if (!is_local(answer->fields[i].name, answer->fields, answer->num_fields))
            p = put_field(p, &answer->fields[i]);
    if (answer->status >= 200)
        p = put(p, keep_alive ? RELAY_SLICE("Connection: keep-alive\r\n")
                              : RELAY_SLICE("Connection: close\r\n"));
    p = put(p, RELAY_SLICE("\r\n"));
    return (size_t)(p - out);
}
