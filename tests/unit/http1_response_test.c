#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "lib/wire/error.h"
#include "server/http1_response.h"

static struct relay_buffer out;

static int teardown(void **state)
{
    relay_buffer_dispose(&out);
    return 0;
}

/* The head as text. */
static const char *head_of(const struct relay_response *response, struct relay_http1_context *context,
                           enum relay_http1_framing *framing)
{
    relay_buffer_dispose(&out);
    assert_int_equal(relay_http1_response_write(&out, response, context, framing), RELAY_OK);
    assert_int_equal(relay_buffer_append(&out, "", 1), RELAY_OK);
    return (const char *)relay_buffer_bytes(&out);
}

static void every_status_has_its_reason(void **state)
{
    static const struct {
        int status;
        const char *line;
    } rows[] = {
        {200, "HTTP/1.1 200 OK\r\n"},
        {206, "HTTP/1.1 206 Partial Content\r\n"},
        {303, "HTTP/1.1 303 See Other\r\n"},
        {307, "HTTP/1.1 307 Temporary Redirect\r\n"},
        {308, "HTTP/1.1 308 Permanent Redirect\r\n"},
        {407, "HTTP/1.1 407 Proxy Authentication Required\r\n"},
        {412, "HTTP/1.1 412 Precondition Failed\r\n"},
        {416, "HTTP/1.1 416 Range Not Satisfiable\r\n"},
        {421, "HTTP/1.1 421 Misdirected Request\r\n"},
        {431, "HTTP/1.1 431 Request Header Fields Too Large\r\n"},
        {505, "HTTP/1.1 505 HTTP Version Not Supported\r\n"},
        {511, "HTTP/1.1 511 Network Authentication Required\r\n"},
        {599, "HTTP/1.1 599 \r\n"}, /* RFC 9112 section 4: the space stays */
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct relay_http1_context context = {.minor_version = 1, .keep_alive = true};
        enum relay_http1_framing framing;
        const struct relay_response response = {.status = rows[i].status};
        const char *head = head_of(&response, &context, &framing);
        assert_memory_equal(head, rows[i].line, strlen(rows[i].line));
    }
}

static void a_body_is_framed(void **state)
{
    static const struct {
        const char *what;
        int status, minor_version;
        int64_t length;
        bool ends, is_head;
        enum relay_http1_framing framing;
        const char *rest;
        bool keep_alive;
    } rows[] = {
        {"length", 200, 1, 5, false, false, RELAY_HTTP1_SEND_PLAIN, "content-length: 5\r\n\r\n", true},
        {"chunks", 200, 1, -1, false, false, RELAY_HTTP1_SEND_CHUNKED, "transfer-encoding: chunked\r\n\r\n",
         true},
        {"until the close", 200, 0, -1, false, false, RELAY_HTTP1_SEND_PLAIN, "connection: close\r\n\r\n",
         false},
        {"nothing", 404, 1, -1, true, false, RELAY_HTTP1_SEND_NOTHING, "content-length: 0\r\n\r\n", true},
        {"HEAD", 200, 1, 7, false, true, RELAY_HTTP1_SEND_NOTHING, "content-length: 7\r\n\r\n", true},
        {"no content", 204, 1, -1, true, false, RELAY_HTTP1_SEND_NOTHING, "No Content\r\n\r\n", true},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct relay_http1_context context = {
            .is_head = rows[i].is_head, .minor_version = rows[i].minor_version, .keep_alive = true};
        enum relay_http1_framing framing;
        const struct relay_response response = {
            .status = rows[i].status, .content_length = rows[i].length, .ends = rows[i].ends};
        const char *head = head_of(&response, &context, &framing), *rest = strstr(head, rows[i].rest);
        if (framing != rows[i].framing || context.keep_alive != rows[i].keep_alive || rest == NULL ||
            rest[strlen(rows[i].rest)] != '\0')
            fail_msg("%s: %s", rows[i].what, head);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(every_status_has_its_reason, teardown),
        cmocka_unit_test_teardown(a_body_is_framed, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
