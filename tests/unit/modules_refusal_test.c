/* Refusals as the HTTP peer sees them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/wire/error.h"
#include "modules/refusal.h"
#include "modules/unknown_protocol.h"
#include "tests/unit/support/loopback.h"

static struct loopback loopback;
static int error_to_refuse_with, rcode_to_refuse_with;

static int refuse_all(h2o_handler_t *self, h2o_req_t *req)
{
    if (relay_tunnel_of(req)->kind == RELAY_KIND_MESSAGE || error_to_refuse_with == 0)
        return -1;
    return relay_refuse(req, relay_tunnel_of(req), error_to_refuse_with, rcode_to_refuse_with);
}

static int setup(void **state)
{
    loopback_init(&loopback);
    loopback.snapshot->proxy_name = strdup("twohop-egress");
    h2o_handler_t *handler = h2o_create_handler(loopback.path, sizeof(*handler));
    handler->on_req = refuse_all;
    relay_unknown_protocol_register(loopback.path);
    loopback_start(&loopback);
    error_to_refuse_with = 0;
    rcode_to_refuse_with = -1;
    return 0;
}

static int teardown(void **state)
{
    loopback_dispose(&loopback);
    return 0;
}

static const char *text(const char *value)
{
    return value != NULL ? value : "";
}

static void test_heads(void **state)
{
    static const struct {
        int error, rcode;
        const char *protocol; /* NULL: classic CONNECT */
        int status;
        const char *proxy_status, *field, *value;
    } rows[] = {
        {RELAY_ERR_INVALID, -1, "connect-udp", 400, "twohop-egress; error=http_request_error", "", ""},
        {RELAY_ERR_DENIED, -1, NULL, 403, "twohop-egress; error=http_request_denied", "", ""},
        {RELAY_ERR_ADDRESS_PROHIBITED, -1, NULL, 403, "twohop-egress; error=destination_ip_prohibited", "",
         ""},
        {RELAY_ERR_UNAUTHORIZED, -1, NULL, 407, "twohop-egress; error=http_request_denied",
         "proxy-authenticate", "Basic realm=\"twohop\""},
        {RELAY_ERR_UNAUTHORIZED, -1, "connect-udp", 401, "twohop-egress; error=http_request_denied",
         "www-authenticate", "Basic realm=\"twohop\""},
        {RELAY_ERR_TOO_MANY_FAILURES, -1, NULL, 429, "twohop-egress; error=http_request_denied",
         "retry-after", "60"},
        {RELAY_ERR_LIMIT, -1, NULL, 503, "twohop-egress; error=connection_limit_reached", "retry-after", "5"},
        {RELAY_ERR_SHUTDOWN, -1, NULL, 503, "twohop-egress; error=proxy_internal_response", "retry-after",
         "5"},
        {RELAY_ERR_DNS, 3, NULL, 502, "twohop-egress; error=dns_error; rcode=\"NXDOMAIN\"", "", ""},
        {RELAY_ERR_DNS_TIMEOUT, -1, NULL, 504, "twohop-egress; error=dns_timeout", "", ""},
        {RELAY_ERR_REFUSED, 3, NULL, 502, "twohop-egress; error=connection_refused", "", ""},
        {RELAY_ERR_UNSUPPORTED, -1, "connect-udp", 501, "twohop-egress; error=http_protocol_error", "", ""},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        error_to_refuse_with = rows[i].error;
        rcode_to_refuse_with = rows[i].rcode;
        struct loopback_stream *stream = loopback_request(&loopback, rows[i].protocol, "h.example:1", NULL);
        loopback_wait(&loopback, stream->is_gone);
        assert_int_equal(stream->status, rows[i].status);
        assert_string_equal(text(loopback_field(stream, "proxy-status")), rows[i].proxy_status);
        if (*rows[i].field != '\0')
            assert_string_equal(text(loopback_field(stream, rows[i].field)), rows[i].value);
        assert_true(stream->has_ended && !stream->is_reset);
        assert_int_equal(stream->len, 0);
        assert_int_equal(stream->content_length, 0);
    }
    assert_int_equal(loopback.metrics.malformed, 1);
}

static void test_unknown(void **state)
{
    struct loopback_stream *stream = loopback_request(&loopback, "websocket", "/chat", NULL);
    assert_int_equal(stream->status, 501);
    assert_string_equal(text(loopback_field(stream, "proxy-status")),
                        "twohop-egress; error=http_protocol_error");
    assert_int_equal(loopback_request(&loopback, NULL, "h.example:443", NULL)->status, 403);
    assert_int_equal(loopback_request(&loopback, "GET", "/none", NULL)->status, 404);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_heads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unknown, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
