/* Framing and heads of HTTP/1.1 messages: tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "client/http_message.h"
#include "lib/wire/error.h"

#define OK "HTTP/1.1 200 OK\r\n"

static const struct {
    const char *bytes;
    int result; /* 0 or an error */
    enum relay_http_framing framing;
    uint64_t length;
    bool keep_alive;
} answers[] = {
    {OK "Content-Length: 5\r\n\r\nhello", 0, RELAY_HTTP_LENGTH, 5, true},
    {OK "content-LENGTH:0\r\n\r\n", 0, RELAY_HTTP_LENGTH, 0, true},
    {OK "Content-Length: 5\r\nConnection: x, Close\r\n\r\n", 0, RELAY_HTTP_LENGTH, 5, false},
    {OK "Transfer-Encoding: Chunked\r\n\r\n", 0, RELAY_HTTP_CHUNKED, 0, true},
    {OK "\r\n", 0, RELAY_HTTP_UNTIL_CLOSE, 0, false},
    {"HTTP/1.1 200\r\n\r\n", 0, RELAY_HTTP_UNTIL_CLOSE, 0, false},
    {"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", 0, RELAY_HTTP_LENGTH, 5, false},
    {"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: Keep-Alive\r\n\r\n", 0, RELAY_HTTP_LENGTH, 5, true},
    {"HTTP/1.1 204 No\r\n\r\n", 0, RELAY_HTTP_NO_BODY, 0, true},
    {"HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n", 0, RELAY_HTTP_NO_BODY, 5, true},
    {"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", 0, RELAY_HTTP_NO_BODY, 0, true},
    {"", RELAY_ERR_INCOMPLETE, 0, 0, false},
    {"HTTP/1", RELAY_ERR_INCOMPLETE, 0, 0, false},
    {OK "Content-Length: 5\r\n", RELAY_ERR_INCOMPLETE, 0, 0, false},
    {"SSH-2.0", RELAY_ERR_INVALID, 0, 0, false},
    {"HTTP/2.0 200 OK\r\n\r\n", RELAY_ERR_INVALID, 0, 0, false},
    {"HTTP/1.1 20 OK\r\n\r\n", RELAY_ERR_INVALID, 0, 0, false},
    {"HTTP/1.1 2000 OK\r\n\r\n", RELAY_ERR_INVALID, 0, 0, false},
    {"HTTP/1.1 099 OK\r\n\r\n", RELAY_ERR_INVALID, 0, 0, false},
    {"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", RELAY_ERR_INVALID, 0, 0, false},
    {OK "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", RELAY_ERR_INVALID, 0, 0, false},
    {OK "Content-Length: 5, 5\r\n\r\n", RELAY_ERR_INVALID, 0, 0, false},
    {OK "Content-Length: +5\r\n\r\n", RELAY_ERR_INVALID, 0, 0, false},
    {OK "Content-Length: \r\n\r\n", RELAY_ERR_INVALID, 0, 0, false},
    {OK "Content-Length: 9999999999999999999\r\n\r\n", RELAY_ERR_INVALID, 0, 0, false},
    {OK "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", RELAY_ERR_INVALID, 0, 0, false},
    {OK "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", RELAY_ERR_INVALID, 0, 0, false},
    {OK "Transfer-Encoding: gzip, chunked\r\n\r\n", RELAY_ERR_INVALID, 0, 0, false},
    {OK "Transfer-Encoding: identity\r\n\r\n", RELAY_ERR_INVALID, 0, 0, false},
    {"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", RELAY_ERR_INVALID, 0, 0, false},
    {"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n", RELAY_ERR_INVALID, 0, 0, false},
    {OK "X : 1\r\n\r\n", RELAY_ERR_INVALID, 0, 0, false},
    {OK " X: 1\r\n\r\n", RELAY_ERR_INVALID, 0, 0, false},
    {OK "X: 1\r\n folded\r\n\r\n", RELAY_ERR_INVALID, 0, 0, false},
    {OK "X\r\n\r\n", RELAY_ERR_INVALID, 0, 0, false},
    {OK "X: 1\nY: 2\r\n\r\n", RELAY_ERR_INVALID, 0, 0, false},
    {OK "X: 1\rY: 2\r\n\r\n", RELAY_ERR_INVALID, 0, 0, false},
    {"HTTP/1.1 200 OK\n\n", RELAY_ERR_INVALID, 0, 0, false},
};

static void test_answers(void **state)
{
    static struct relay_http_answer answer;
    (void)state;
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        const char *bytes = answers[i].bytes;
        int result = relay_http_answer_parse(&answer, bytes, strlen(bytes), false);
        if (result != answers[i].result)
            fail_msg("%s: %s", bytes, relay_error_name(result));
        if (result == RELAY_OK &&
            (answer.framing != answers[i].framing || answer.length != answers[i].length ||
             answer.keep_alive != answers[i].keep_alive))
            fail_msg("%s: framing %d, length %llu, keep_alive %d", bytes, answer.framing,
                     (unsigned long long)answer.length, answer.keep_alive);
    }
}

static void test_to_head(void **state)
{
    static struct relay_http_answer answer;
    static const char bytes[] = OK "Content-Length: 5\r\n\r\n";
    (void)state;
    assert_int_equal(relay_http_answer_parse(&answer, bytes, sizeof(bytes) - 1, true), RELAY_OK);
    assert_int_equal(answer.framing, RELAY_HTTP_NO_BODY);
    assert_true(answer.keep_alive);
}

/* One byte less than the head is never enough, and a head is not read beyond its end. */
static void test_every_cut(void **state)
{
    static struct relay_http_answer answer;
    static const char bytes[] = OK "Content-Length: 5\r\nX: y\r\n\r\nHTTP/1.1 999 no\r\n\r\n";
    size_t head = strlen(OK "Content-Length: 5\r\nX: y\r\n\r\n");
    (void)state;
    for (size_t len = 0; len < sizeof(bytes); len++)
        assert_int_equal(relay_http_answer_parse(&answer, bytes, len, false),
                         len < head ? RELAY_ERR_INCOMPLETE : RELAY_OK);
    assert_int_equal(answer.len, head);
}

static void test_too_big(void **state)
{
    static struct relay_http_answer answer;
    static char bytes[40000] = OK "X: ";
    (void)state;
    memset(bytes + strlen(bytes), 'x', sizeof(bytes) - strlen(bytes));
    assert_int_equal(relay_http_answer_parse(&answer, bytes, 30000, false), RELAY_ERR_INCOMPLETE);
    assert_int_equal(relay_http_answer_parse(&answer, bytes, sizeof(bytes), false), RELAY_ERR_TOO_BIG);
    size_t len = strlen(OK);
    for (; len + 6 < 20000; len += 6)
        memcpy(bytes + len, "A: b\r\n", 6);
    assert_int_equal(relay_http_answer_parse(&answer, bytes, len, false), RELAY_ERR_TOO_BIG);
}

static void test_answer_as_it_goes_on(void **state)
{
    static struct relay_http_answer answer;
    static const char bytes[] =
        "HTTP/1.0 404 Not  Here\r\nX-Hop: 1\r\nContent-Length:5\r\nKeep-Alive: timeout=5\r\n"
        "Connection: keep-alive, x-hop, content-length\r\nUpgrade: h2c\r\nX-End:  2 \r\n\r\n";
    uint8_t out[1024];
    (void)state;
    assert_int_equal(relay_http_answer_parse(&answer, bytes, sizeof(bytes) - 1, false), RELAY_OK);
    size_t len = relay_http_answer_write(out, &answer, false);
    assert_true(len <= relay_http_answer_size(&answer));
    out[len] = '\0';
    assert_string_equal(
        (char *)out, "HTTP/1.1 404 Not  Here\r\nContent-Length: 5\r\nX-End: 2\r\nConnection: close\r\n\r\n");
}

/* `own`: how many bytes are the body's; -1: bad; -2: all, and more are to come. */
static const struct {
    enum relay_http_framing framing;
    uint64_t length;
    const char *bytes;
    ssize_t own;
} bodies[] = {
    {RELAY_HTTP_NO_BODY, 0, "abc", 0},
    {RELAY_HTTP_LENGTH, 0, "abc", 0},
    {RELAY_HTTP_LENGTH, 2, "abc", 2},
    {RELAY_HTTP_LENGTH, 4, "abc", -2},
    {RELAY_HTTP_UNTIL_CLOSE, 0, "abc", -2},
    {RELAY_HTTP_CHUNKED, 0, "3\r\nabc\r\n0\r\n\r\nHTTP", 13},
    {RELAY_HTTP_CHUNKED, 0, "0\r\nT: x\r\n\r\nHTTP", 11},
    {RELAY_HTTP_CHUNKED, 0, "3\r\nabc\r\n", -2},
    {RELAY_HTTP_CHUNKED, 0, "3\r\nabcd\r\n0\r\n\r\n", -1},
    {RELAY_HTTP_CHUNKED, 0, "3\nabc\n0\n\n", -1},
    {RELAY_HTTP_CHUNKED, 0, "-1\r\n", -1},
    {RELAY_HTTP_CHUNKED, 0, "ffffffffffffffffff\r\n", -1},
};

static void test_bodies(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++)
        for (size_t piece = 1; piece <= 64; piece += 21) {
            struct relay_http_body body;
            uint8_t bytes[64];
            size_t len = strlen(bodies[i].bytes), at = 0;
            ssize_t own = 0;
            memcpy(bytes, bodies[i].bytes, len);
            relay_http_body_init(&body, bodies[i].framing, bodies[i].length);
            for (; at < len && own >= 0 && !body.is_complete; at += own > 0 ? (size_t)own : 0)
                own = relay_http_body_take(&body, bytes + at, len - at < piece ? len - at : piece);
            ssize_t got = own < 0 ? -1 : body.is_complete ? (ssize_t)at : -2;
            if (got != bodies[i].own)
                fail_msg("%s in pieces of %zu: %zd", bodies[i].bytes, piece, got);
        }
}

static const struct {
    const char *request, *written;
    bool keeps_alive, may_repeat;
} requests[] = {
    {"GET http://a/x?y HTTP/1.1\r\nHost: b\r\nAccept: *\r\n\r\n",
     "GET /x?y HTTP/1.1\r\nHost: a\r\naccept: *\r\nConnection: keep-alive\r\n\r\n", true, true},
    {"GET http://a HTTP/1.1\r\nHost: a\r\nProxy-Connection: close\r\n\r\n",
     "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false, true},
    {"POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
     "POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 0\r\nConnection: keep-alive\r\n\r\n", true, false},
    {"PUT http://a/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
     "PUT / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\nConnection: close\r\n\r\n", false, false},
    {"HEAD http://a/ HTTP/1.0\r\n\r\n", "HEAD / HTTP/1.0\r\nHost: a\r\nConnection: close\r\n\r\n", false,
     true},
    {"GET http://a/ HTTP/1.0\r\nProxy-Connection: Keep-Alive\r\n\r\n",
     "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", true, true},
    {"GET http://a/ HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nTE: trailers\r\n"
     "Proxy-Authorization: Basic eDp5\r\n\r\n",
     "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", true, true},
};

static void test_requests(void **state)
{
    static struct relay_http1_head head;
    struct relay_limits limits = RELAY_LIMITS_DEFAULT;
    (void)state;
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        char bytes[512];
        uint8_t out[2048];
        strcpy(bytes, requests[i].request);
        assert_int_equal(relay_http1_head_parse(&head, bytes, strlen(bytes), "http", &limits), 0);
        size_t len = relay_http_request_write(out, &head);
        assert_true(len <= relay_http_request_size(&head));
        out[len] = '\0';
        assert_string_equal((char *)out, requests[i].written);
        assert_int_equal(relay_http_request_keeps_alive(&head), requests[i].keeps_alive);
        assert_int_equal(relay_http_request_may_repeat(&head), requests[i].may_repeat);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_to_head),
        cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_too_big),
        cmocka_unit_test(test_answer_as_it_goes_on),
        cmocka_unit_test(test_bodies),
        cmocka_unit_test(test_requests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
