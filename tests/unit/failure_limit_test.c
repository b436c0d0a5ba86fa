/* failure_limit.c with a clock of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/net/loop.h"
#include "modules/failure_limit.h"

static struct relay_failure_limit *limit;

static int setup(void **state)
{
    limit = relay_failure_limit_new();
    return limit == NULL;
}

static int teardown(void **state)
{
    relay_failure_limit_free(limit);
    return 0;
}

static struct relay_address address(const char *text)
{
    struct relay_address parsed;
    assert_int_equal(relay_address_parse(text, strlen(text), &parsed), 0);
    return parsed;
}

static unsigned failures_until_over(const char *source, uint32_t per_minute, uint64_t now)
{
    struct relay_address from = address(source);
    unsigned count = 0;
    while (count < 1000 && relay_failure_limit_source(limit, &from, per_minute, now))
        count++;
    return count;
}

static void test_sources(void **state)
{
    uint64_t now = 1000 * RELAY_SECOND;
    assert_int_equal(failures_until_over("192.0.2.1", 10, now), 10);
    assert_int_equal(failures_until_over("192.0.2.1", 10, now), 0);
    assert_int_equal(failures_until_over("192.0.2.1", 10, now + 30 * RELAY_SECOND), 5);
    assert_int_equal(failures_until_over("192.0.2.1", 10, now + 600 * RELAY_SECOND), 10);
    assert_int_equal(failures_until_over("::ffff:192.0.2.1", 10, now + 600 * RELAY_SECOND), 0);
    assert_int_equal(failures_until_over("192.0.2.2", 10, now), 10);
    assert_int_equal(failures_until_over("2001:db8::1", 10, now), 10);
    assert_int_equal(failures_until_over("2001:db8::ffff:1", 10, now), 0); /* the same /64 */
    assert_int_equal(failures_until_over("2001:db8:0:1::1", 10, now), 10);
    assert_int_equal(failures_until_over("192.0.2.3", 0, now), 1000);
}

static void test_names_and_all(void **state)
{
    uint64_t now = RELAY_SECOND;
    for (int i = 0; i < 3; i++)
        assert_true(relay_failure_limit_name(limit, "alice", 5, 3, now));
    assert_false(relay_failure_limit_name(limit, "alice", 5, 3, now));
    assert_true(relay_failure_limit_name(limit, "alic", 4, 3, now));
    for (int i = 0; i < 100; i++)
        assert_true(relay_failure_limit_all(limit, 100, now));
    assert_false(relay_failure_limit_all(limit, 100, now));
}

/* A flood from many sources neither grows the table nor frees the one that fails all the time. */
static void test_many_sources(void **state)
{
    struct relay_address from = address("10.0.0.0"), steady = address("192.0.2.1");
    unsigned passed = 0;
    for (unsigned i = 0; i < 100000; i++) {
        uint64_t now = RELAY_SECOND + i * 1000ull;
        from.bytes[1] = (uint8_t)(i >> 16);
        from.bytes[2] = (uint8_t)(i >> 8);
        from.bytes[3] = (uint8_t)i;
        assert_true(relay_failure_limit_source(limit, &from, 10, now));
        passed += relay_failure_limit_source(limit, &steady, 10, now);
    }
    assert_int_equal(passed, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_sources, setup, teardown),
        cmocka_unit_test_setup_teardown(test_names_and_all, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_sources, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
