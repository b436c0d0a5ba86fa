#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "lib/wire/error.h"

static void every_error_has_its_answers(void **state)
{
    for (int error = -1; error > -RELAY_ERR_END; error--) {
        assert_true(strlen(relay_error_text(error)) > 0);
        assert_in_range(relay_error_status(error), 400, 599);
    }
    assert_string_equal(relay_error_proxy_status(RELAY_ERR_DNS), "dns_error");
    assert_int_equal(relay_error_status(RELAY_ERR_ADDRESS_PROHIBITED), 403);
}

static void unknown_codes_are_internal_errors(void **state)
{
    assert_string_equal(relay_error_name(17), "INTERNAL");
    assert_string_equal(relay_error_name(-1000), "INTERNAL");
    assert_string_equal(relay_error_name(RELAY_OK), "OK");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_error_has_its_answers),
        cmocka_unit_test(unknown_codes_are_internal_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
