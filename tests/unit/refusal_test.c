/* Answers outside 2xx and what they mean. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "lib/net/refusal.h"
#include "lib/wire/error.h"

static void test_table(void **state)
{
    static const struct {
        int status;
        const char *proxy_status;
        int error;
    } table[] = {
        {401, NULL, RELAY_ERR_UNAUTHORIZED},
        {407, "r; error=http_request_denied", RELAY_ERR_UNAUTHORIZED},
        {403, "r; error=http_request_denied", RELAY_ERR_DENIED},
        {403, "r; error=destination_ip_prohibited", RELAY_ERR_ADDRESS_PROHIBITED},
        {502, "r; error=connection_refused", RELAY_ERR_REFUSED},
        {502, "r; error=dns_error; rcode=\"NXDOMAIN\"", RELAY_ERR_DNS},
        {504, "r; error=dns_timeout", RELAY_ERR_DNS_TIMEOUT},
        {504, "r; error=connection_timeout", RELAY_ERR_TIMEOUT},
        {502, "r; error=something_new", RELAY_ERR_UNREACHABLE},
        {502, ";;;", RELAY_ERR_UNREACHABLE},
        {429, NULL, RELAY_ERR_TOO_MANY_FAILURES},
        {404, NULL, RELAY_ERR_UNSUPPORTED},
        {503, "r; error=proxy_internal_response", RELAY_ERR_SHUTDOWN},
        {403, "r; error=proxy_internal_response", RELAY_ERR_DENIED},
        {503, "r; error=connection_limit_reached", RELAY_ERR_LIMIT},
        {503, NULL, RELAY_ERR_LIMIT},
        {302, NULL, RELAY_ERR_PROTOCOL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct relay_field field = {RELAY_SLICE("proxy-status"), relay_slice(table[i].proxy_status)};
        struct relay_response response = {
            .status = table[i].status, .fields = &field, .num_fields = table[i].proxy_status != NULL};
        struct relay_refusal refusal;
        relay_refusal_read(&refusal, &response);
        if (refusal.error != table[i].error)
            fail_msg("row %zu: %s", i, relay_error_name(refusal.error));
        assert_int_equal(refusal.status, table[i].status);
    }
}

static void test_write(void **state)
{
    struct relay_refusal_field field;
    (void)state;
    assert_int_equal(relay_refusal_write(&field, "twohop-egress", RELAY_ERR_TOO_BIG), 1);
    assert_true(relay_slice_is(field.field.name, "proxy-status"));
    assert_true(relay_slice_is(field.field.value, "twohop-egress; error=http_request_error"));
    assert_int_equal(relay_refusal_write(&field, NULL, RELAY_ERR_TOO_BIG), 0);
    assert_int_equal(relay_refusal_write(&field, "twohop-egress", RELAY_OK), 0);
    assert_int_equal(relay_refusal_write(&field, "", RELAY_ERR_TOO_BIG), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_table), cmocka_unit_test(test_write)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
