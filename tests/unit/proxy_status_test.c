#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <stdio.h>

#include "lib/wire/error.h"
#include "lib/wire/proxy_status.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void one_member_is_written(void **state)
{
    static const struct {
        const char *name;
        int error, rcode;
        const char *value;
    } rows[] = {
        {"egress.example", RELAY_OK, -1, "egress.example"},
        {"egress.example", RELAY_ERR_REFUSED, -1, "egress.example; error=connection_refused"},
        {"egress.example", RELAY_ERR_DNS, 3, "egress.example; error=dns_error; rcode=\"NXDOMAIN\""},
        {"egress.example", RELAY_ERR_DNS, 2, "egress.example; error=dns_error; rcode=\"SERVFAIL\""},
        {"egress.example", RELAY_ERR_DNS, -1, "egress.example; error=dns_error"},
        {"egress.example", RELAY_ERR_DNS, 0, "egress.example; error=dns_error"},
        {"egress.example", RELAY_ERR_DNS, 4000, "egress.example; error=dns_error"},
        {"egress.example", RELAY_ERR_DNS_TIMEOUT, 3, "egress.example; error=dns_timeout"},
        {"egress.example", RELAY_ERR_ADDRESS_PROHIBITED, -1,
         "egress.example; error=destination_ip_prohibited"},
        {"*relay:443/x", RELAY_OK, -1, "*relay:443/x"},
        {"2hop", RELAY_ERR_DENIED, -1, "\"2hop\"; error=http_request_denied"},
        {"my relay", RELAY_OK, -1, "\"my relay\""},
        {"a\"b\\c", RELAY_OK, -1, "\"a\\\"b\\\\c\""},
        {"a;b,c=d", RELAY_OK, -1, "\"a;b,c=d\""},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        char value[RELAY_PROXY_STATUS_SIZE];
        const size_t len = strlen(rows[i].value);
        assert_int_equal(
            relay_proxy_status_write(value, sizeof(value), rows[i].name, rows[i].error, rows[i].rcode), len);
        assert_string_equal(value, rows[i].value);
        assert_int_equal(relay_proxy_status_write(value, len + 1, rows[i].name, rows[i].error, rows[i].rcode),
                         len);
        for (size_t size = 0; size <= len; size++)
            assert_int_equal(
                relay_proxy_status_write(value, size, rows[i].name, rows[i].error, rows[i].rcode),
                RELAY_ERR_TOO_BIG);
        struct relay_proxy_status status;
        assert_int_equal(relay_proxy_status_parse(&status, rows[i].value, len), 0);
        assert_string_equal(status.name, rows[i].name);
        assert_string_equal(status.error, rows[i].error ? relay_error_proxy_status(rows[i].error) : "");
    }
}

static void every_error_fits_with_the_longest_name(void **state)
{
    char name[RELAY_PROXY_STATUS_NAME_MAX + 2], value[RELAY_PROXY_STATUS_SIZE];
    memset(name, '"', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    assert_int_equal(relay_proxy_status_write(value, sizeof(value), name, RELAY_OK, -1), RELAY_ERR_INVALID);
    name[sizeof(name) - 2] = '\0';
    for (int error = -1; error > -RELAY_ERR_END; error--)
        assert_true(relay_proxy_status_write(value, sizeof(value), name, error, 3) > 0);
    static const char *const bad[] = {"", "a\nb", "a\rb", "a\tb", "\xc3\xa4", "a\x7f"};
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(relay_proxy_status_write(value, sizeof(value), bad[i], RELAY_OK, -1),
                         RELAY_ERR_INVALID);
}

static void the_last_member_is_read(void **state)
{
    static const struct {
        const char *value, *name, *error, *rcode;
    } rows[] = {
        {"a; error=dns_error; rcode=\"NXDOMAIN\"", "a", "dns_error", "NXDOMAIN"},
        {"a;error=dns_error;rcode=NXDOMAIN", "a", "dns_error", "NXDOMAIN"},
        {"a; error=x, b; error=y", "b", "y", ""},
        {"a; error=x, b", "b", "", ""},
        {"a; error=x, ", "a", "x", ""},
        {"\"a, b; error=z\"; error=y", "a, b; error=z", "y", ""},
        {"\"a\\\"b\"; error=y", "a\"b", "y", ""},
        {"a; details=\"x; error=no, c\"; error=yes", "a", "yes", ""},
        {"(a, b); error=x", "(a, b)", "x", ""},
        {"a; next-hop; received-status=502 ; error = connection_refused", "a", "connection_refused", ""},
        {"a; error", "a", "", ""},
        {"a; error=", "a", "", ""},
        {"a;;;error=x;", "a", "x", ""},
        {"\"open", "open", "", ""},
        {";error=x", "", "x", ""},
        {"a; error=\"x\ty\xc3\xa4z\"", "a", "xyz", ""},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct relay_proxy_status status;
        assert_int_equal(relay_proxy_status_parse(&status, rows[i].value, strlen(rows[i].value)), 0);
        assert_string_equal(status.name, rows[i].name);
        assert_string_equal(status.error, rows[i].error);
        assert_string_equal(status.rcode, rows[i].rcode);
    }
}

static void what_is_read_is_bounded(void **state)
{
    struct relay_proxy_status status;
    char value[RELAY_PROXY_STATUS_VALUE_MAX + 1];
    memset(value, 'x', sizeof(value));
    memcpy(value, "a; error=", 9);
    assert_int_equal(relay_proxy_status_parse(&status, value, sizeof(value)), RELAY_ERR_TOO_BIG);
    assert_int_equal(relay_proxy_status_parse(&status, value, sizeof(value) - 1), 0);
    assert_int_equal(strlen(status.error), sizeof(status.error) - 1);
    assert_int_equal(relay_proxy_status_parse(&status, "", 0), RELAY_ERR_INVALID);
    assert_int_equal(relay_proxy_status_parse(&status, " , ,\t", 5), RELAY_ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_member_is_written),
        cmocka_unit_test(every_error_fits_with_the_longest_name),
        cmocka_unit_test(the_last_member_is_read),
        cmocka_unit_test(what_is_read_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
