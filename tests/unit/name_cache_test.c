/* name_cache.c: bounds, age, order of leaving. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "lib/net/name_cache.h"
#include "lib/wire/error.h"

static const struct relay_address one = {4, {192, 0, 2, 1}};

static void put(struct relay_name_cache *cache, const char *name, uint64_t expires)
{
    relay_name_cache_put(cache, name, expires, RELAY_OK, 0, &one, 1);
}

static void kept_until_it_expires(void **state)
{
    struct relay_name_cache cache;
    assert_int_equal(relay_name_cache_init(&cache, 10, 42), 0);
    put(&cache, "a", 100);
    const struct relay_cached_name *found = relay_name_cache_get(&cache, "a", 99);
    assert_non_null(found);
    assert_int_equal(found->num_addresses, 1);
    assert_true(relay_address_equal(&found->addresses[0], &one));
    assert_null(relay_name_cache_get(&cache, "b", 99));
    assert_null(relay_name_cache_get(&cache, "a", 100));
    assert_int_equal(cache.count, 0);
    relay_name_cache_put(&cache, "n", 200, RELAY_ERR_DNS, 3, NULL, 0);
    relay_name_cache_put(&cache, "n", 300, RELAY_ERR_DNS, 2, NULL, 0);
    assert_int_equal(relay_name_cache_get(&cache, "n", 250)->rcode, 2);
    assert_int_equal(cache.count, 1);
    relay_name_cache_dispose(&cache);
    relay_name_cache_dispose(&cache);
}

static void least_recently_used_leaves(void **state)
{
    struct relay_name_cache cache;
    assert_int_equal(relay_name_cache_init(&cache, 3, 7), 0);
    put(&cache, "a", 100);
    put(&cache, "b", 100);
    put(&cache, "c", 100);
    assert_non_null(relay_name_cache_get(&cache, "a", 1));
    put(&cache, "d", 100);
    assert_null(relay_name_cache_get(&cache, "b", 1));
    assert_non_null(relay_name_cache_get(&cache, "a", 1));
    for (int i = 0; i < 10000; i++) {
        char name[16];
        snprintf(name, sizeof(name), "n%d", i);
        put(&cache, name, 100);
        assert_true(cache.count <= 3);
        assert_non_null(relay_name_cache_get(&cache, name, 1));
    }
    relay_name_cache_dispose(&cache);
}

static void of_no_size(void **state)
{
    struct relay_name_cache cache;
    assert_int_equal(relay_name_cache_init(&cache, 0, 7), 0);
    put(&cache, "a", 100);
    assert_null(relay_name_cache_get(&cache, "a", 1));
    relay_name_cache_dispose(&cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kept_until_it_expires),
        cmocka_unit_test(least_recently_used_leaves),
        cmocka_unit_test(of_no_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
