#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "lib/wire/varint.h"

static void examples_of_the_rfc(void **state)
{
    static const struct {
        uint8_t bytes[8];
        size_t len;
        uint64_t value;
    } rows[] = {
        {{0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c}, 8, UINT64_C(151288809941952652)},
        {{0x9d, 0x7f, 0x3e, 0x7d}, 4, 494878333},
        {{0x7b, 0xbd}, 2, 15293},
        {{0x25}, 1, 37},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t value = 0;
        uint8_t written[RELAY_VARINT_SIZE_MAX];
        assert_int_equal(relay_varint_read(rows[i].bytes, rows[i].len, &value), rows[i].len);
        assert_int_equal(value, rows[i].value);
        assert_int_equal(relay_varint_size(value), rows[i].len);
        assert_int_equal(relay_varint_write(written, value) - written, rows[i].len);
        assert_memory_equal(written, rows[i].bytes, rows[i].len);
    }
}

static void both_sides_of_every_boundary(void **state)
{
    static const struct {
        uint64_t value;
        size_t size;
    } rows[] = {{0, 1},
                {63, 1},
                {64, 2},
                {16383, 2},
                {16384, 4},
                {(UINT64_C(1) << 30) - 1, 4},
                {UINT64_C(1) << 30, 8},
                {RELAY_VARINT_MAX, 8}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint8_t bytes[RELAY_VARINT_SIZE_MAX];
        uint64_t value = 1;
        assert_int_equal(relay_varint_write(bytes, rows[i].value) - bytes, rows[i].size);
        for (size_t cut = 0; cut < rows[i].size; cut++)
            assert_int_equal(relay_varint_read(bytes, cut, &value), 0);
        assert_int_equal(value, 1);
        assert_int_equal(relay_varint_read(bytes, sizeof(bytes), &value), rows[i].size);
        assert_int_equal(value, rows[i].value);
    }
}

static void longer_than_necessary_is_accepted(void **state)
{
    static const uint8_t two[] = {0x40, 0x25}, eight[] = {0xc0, 0, 0, 0, 0, 0, 0, 0x25};
    uint64_t value = 0;
    assert_int_equal(relay_varint_read(two, sizeof(two), &value), 2);
    assert_int_equal(value, 37);
    value = 0;
    assert_int_equal(relay_varint_read(eight, sizeof(eight), &value), 8);
    assert_int_equal(value, 37);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(examples_of_the_rfc),
        cmocka_unit_test(both_sides_of_every_boundary),
        cmocka_unit_test(longer_than_necessary_is_accepted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
