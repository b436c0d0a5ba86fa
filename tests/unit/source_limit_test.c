#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <stdatomic.h>
#include <cmocka.h>

#include "server/source_limit.h"

static struct relay_address v4(uint32_t n)
{
    return (struct relay_address){.family = 4,
                                  .bytes = {10, (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n}};
}

static void each_source_has_its_own_count(void **state)
{
    struct relay_source_limit limit;
    relay_source_limit_init(&limit);
    struct relay_address a = v4(1), b = v4(2);
    for (int i = 0; i < 3; i++)
        assert_true(relay_source_limit_take(&limit, &a, 3));
    assert_false(relay_source_limit_take(&limit, &a, 3));
    assert_true(relay_source_limit_take(&limit, &b, 3));
    relay_source_limit_release(&limit, &a);
    assert_true(relay_source_limit_take(&limit, &a, 3));
    relay_source_limit_dispose(&limit);
}

static void an_ipv6_source_is_its_64(void **state)
{
    struct relay_source_limit limit;
    relay_source_limit_init(&limit);
    struct relay_address a = {.family = 6, .bytes = {0x20, 1, 0xd, 0xb8, 0, 0, 0, 1, 1}}, b = a, c = a;
    b.bytes[15] = 9;
    c.bytes[7] = 2;
    assert_true(relay_source_limit_take(&limit, &a, 1));
    assert_false(relay_source_limit_take(&limit, &b, 1));
    assert_true(relay_source_limit_take(&limit, &c, 1));
    relay_source_limit_dispose(&limit);
}

static void many_come_and_go_without_a_trace(void **state)
{
    struct relay_source_limit limit;
    relay_source_limit_init(&limit);
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < 5000; i++) {
            struct relay_address a = v4(i * 7);
            assert_true(relay_source_limit_take(&limit, &a, 1));
        }
        for (uint32_t i = 0; i < 5000; i++) {
            struct relay_address a = v4((i * 13 % 5000) * 7);
            assert_false(relay_source_limit_take(&limit, &a, 1));
            relay_source_limit_release(&limit, &a);
        }
        assert_int_equal(limit.used, 0);
    }
    relay_source_limit_dispose(&limit);
}

/* ---- several workers ---- */

#define WORKERS 4
#define ROUNDS  20000
#define MOST    3

static struct relay_source_limit shared;
static atomic_uint open_now[2], too_many;

/* The sources of the others come and go beside the two that all of them have, so that the table moves all the time. */
static void *work(void *arg)
{
    uint32_t own = 1000 * (uint32_t)(uintptr_t)arg;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        struct relay_address source = v4(1 + round % 2), other = v4(own + round % 500);
        bool is_taken = relay_source_limit_take(&shared, &source, MOST);
        if (is_taken && atomic_fetch_add(&open_now[round % 2], 1) >= MOST)
            atomic_fetch_add(&too_many, 1);
        if (!relay_source_limit_take(&shared, &other, 1))
            atomic_fetch_add(&too_many, 1);
        relay_source_limit_release(&shared, &other);
        if (is_taken) {
            atomic_fetch_sub(&open_now[round % 2], 1);
            relay_source_limit_release(&shared, &source);
        }
    }
    return NULL;
}

static void workers_share_it(void **state)
{
    pthread_t threads[WORKERS];
    relay_source_limit_init(&shared);
    for (uintptr_t i = 0; i < WORKERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, (void *)(i + 1)), 0);
    for (int i = 0; i < WORKERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(too_many, 0);
    assert_int_equal(shared.used, 0);
    relay_source_limit_dispose(&shared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_source_has_its_own_count),
        cmocka_unit_test(an_ipv6_source_is_its_64),
        cmocka_unit_test(many_come_and_go_without_a_trace),
        cmocka_unit_test(workers_share_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
