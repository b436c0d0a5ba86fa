#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "server/memory.h"

static void once_after_each_crowd(void **state)
{
    static const struct {
        int64_t open;
        bool is_due;
    } steps[] = {{0, false}, {20, false}, {0, false},   {100, false}, {60, false}, {50, true},
                 {20, true}, {10, false}, {300, false}, {151, false}, {0, true},   {0, false}};
    struct relay_memory memory = {0};
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
        assert_int_equal(relay_memory_is_due(&memory, steps[i].open), steps[i].is_due);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(once_after_each_crowd)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
