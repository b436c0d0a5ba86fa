#include "server/http1_response.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "lib/wire/error.h"

/* RFC 9110 section 15, RFC 6585 and RFC 8470 section 5.2: all that a module, or a rule of the operator's, may answer. */
static const struct {
    int status;
    const char *reason;
} reasons[] = {
    {101, "Switching Protocols"},
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {203, "Non-Authoritative Information"},
    {204, "No Content"},
    {205, "Reset Content"},
    {206, "Partial Content"},
    {300, "Multiple Choices"},
    {301, "Moved Permanently"},
    {302, "Found"},
    {303, "See Other"},
    {304, "Not Modified"},
    {305, "Use Proxy"},
    {307, "Temporary Redirect"},
    {308, "Permanent Redirect"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {402, "Payment Required"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {407, "Proxy Authentication Required"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {410, "Gone"},
    {411, "Length Required"},
    {412, "Precondition Failed"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {416, "Range Not Satisfiable"},
    {417, "Expectation Failed"},
    {421, "Misdirected Request"},
    {422, "Unprocessable Content"},
    {425, "Too Early"},
    {426, "Upgrade Required"},
    {428, "Precondition Required"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
    {511, "Network Authentication Required"},
};

static const char *reason_of(int status)
{
    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
        if (reasons[i].status == status)
            return reasons[i].reason;
    return "";
}

static int append_text(struct relay_buffer *out, const char *text)
{
    return relay_buffer_append(out, text, strlen(text));
}

static int append_field(struct relay_buffer *out, const struct relay_field *field)
{
    return relay_buffer_append(out, field->name.base, field->name.len) != RELAY_OK ||
                   append_text(out, ": ") != RELAY_OK ||
                   relay_buffer_append(out, field->value.base, field->value.len) != RELAY_OK
               ? RELAY_ERR_NO_MEMORY
               : append_text(out, "\r\n");
}

/* RFC 9112 section 6.3: the field that frames the body goes to `line`. */
static enum relay_http1_framing frame(const struct relay_response *response,
                                      struct relay_http1_context *context, char *line, size_t size)
{
    bool is_bodiless = response->status == 204 || response->status == 304;
    line[0] = '\0';
    if (response->ends || is_bodiless || context->is_head) {
        int64_t length = context->is_head || response->status == 304 ? response->content_length : 0;
        if (length >= 0 && response->status != 204)
            snprintf(line, size, "content-length: %" PRId64 "\r\n", length);
        return RELAY_HTTP1_SEND_NOTHING;
    }
    if (response->content_length >= 0) {
        snprintf(line, size, "content-length: %" PRId64 "\r\n", response->content_length);
        return RELAY_HTTP1_SEND_PLAIN;
    }
    if (context->minor_version > 0) {
        snprintf(line, size, "transfer-encoding: chunked\r\n");
        return RELAY_HTTP1_SEND_CHUNKED;
    }
    context->keep_alive = false;
    return RELAY_HTTP1_SEND_PLAIN;
}

int relay_http1_response_write(struct relay_buffer *out, const struct relay_response *response,
                               struct relay_http1_context *context, enum relay_http1_framing *framing)
{
    char line[128], body[64] = "";
    const char *connection = "";
    int status = response->status;
    if (context->kind != RELAY_KIND_MESSAGE && status / 100 == 2) {
        *framing = RELAY_HTTP1_SEND_TUNNEL;
        if (context->kind == RELAY_KIND_CAPSULES) {
            status = 101;
            connection = "connection: Upgrade\r\nupgrade: connect-udp\r\n";
        }
    } else {
        /* Bytes behind a refused upgrade may be on their way: they must never be read as a request (T04). */
        if (context->kind == RELAY_KIND_CAPSULES)
            context->keep_alive = false;
        *framing = frame(response, context, body, sizeof(body));
        connection = context->keep_alive ? "" : "connection: close\r\n";
    }
    snprintf(line, sizeof(line), "HTTP/1.1 %d %s\r\n", status, reason_of(status));
    int error = append_text(out, line);
    for (size_t i = 0; error == RELAY_OK && i < response->num_fields; i++)
        error = append_field(out, &response->fields[i]);
    if (error == RELAY_OK)
        error = append_text(out, body);
    if (error == RELAY_OK)
        error = append_text(out, connection);
    return error == RELAY_OK ? append_text(out, "\r\n") : error;
}
