/* A client's control stream reaches nghttp3 whole and in order, but in no piece that ends between the element ID of a
 * PRIORITY_UPDATE frame and the rest of it, wherever it was cut on its way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "lib/net/http3_private.h"

struct bytes {
    uint8_t at[256];
    size_t len;
    size_t forbidden[16], num_forbidden; /* where no piece may end */
};

/* `size`: 1, 2, 4 or 8 bytes. */
static void put_number(struct bytes *bytes, uint64_t value, size_t size)
{
    unsigned tag = size == 1 ? 0 : size == 2 ? 1 : size == 4 ? 2 : 3;
    for (size_t i = 0; i < size; i++)
        bytes->at[bytes->len + i] = (uint8_t)(value >> (8 * (size - 1 - i)));
    bytes->at[bytes->len] |= (uint8_t)(tag << 6);
    bytes->len += size;
}

static void put_frame(struct bytes *bytes, uint64_t type, size_t len)
{
    put_number(bytes, type, 4);
    put_number(bytes, len, 1);
    memset(bytes->at + bytes->len, 'x', len);
    bytes->len += len;
}

static void put_priority_update(struct bytes *bytes, size_t length_size, size_t id_size, size_t field)
{
    put_number(bytes, 0xF0700, 8);
    put_number(bytes, id_size + field, length_size);
    put_number(bytes, 4, id_size);
    if (field > 0)
        bytes->forbidden[bytes->num_forbidden++] = bytes->len;
    memset(bytes->at + bytes->len, 'u', field);
    bytes->len += field;
}

struct passed {
    uint8_t at[256];
    size_t len;
};

static void pass(const struct bytes *all, struct passed *passed, const uint8_t *piece, size_t len)
{
    memcpy(passed->at + passed->len, piece, len);
    passed->len += len;
    for (size_t i = 0; len > 0 && i < all->num_forbidden; i++)
        assert_int_not_equal(passed->len, all->forbidden[i]);
}

/* What http3_session.c does with a piece. */
static void feed(struct relay_http3_uni *uni, const struct bytes *all, struct passed *passed, size_t from,
                 size_t to)
{
    size_t more = relay_http3_uni_complete(uni, all->at + from, to - from);
    size_t held = relay_http3_uni_take_held(uni);
    pass(all, passed, uni->held, held);
    pass(all, passed, all->at + from + more,
         relay_http3_uni_pass(uni, all->at + from + more, to - from - more));
}

static void check_cuts(const struct bytes *all)
{
    for (size_t i = 0; i <= all->len; i++)
        for (size_t j = i; j <= all->len; j++) {
            struct relay_http3_uni uni = {.id = 2};
            struct passed passed = {.len = 0};
            feed(&uni, all, &passed, 0, i);
            feed(&uni, all, &passed, i, j);
            feed(&uni, all, &passed, j, all->len);
            assert_int_equal(passed.len, all->len);
            assert_memory_equal(passed.at, all->at, all->len);
        }
}

static void test_cuts(void **state)
{
    static const size_t sizes[] = {1, 2, 4, 8};
    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < 4; j++) {
            struct bytes all = {.len = 0};
            put_number(&all, 0, sizes[i]);
            put_frame(&all, 4, 0);
            put_priority_update(&all, sizes[j], sizes[i], 3);
            put_frame(&all, 0x21, 5);
            put_priority_update(&all, 2, 8, 0);
            put_priority_update(&all, 1, 1, 30);
            put_frame(&all, 0x40, 0);
            check_cuts(&all);
        }
}

static void test_bytes_one_by_one(void **state)
{
    struct relay_http3_uni uni = {.id = 2};
    struct passed passed = {.len = 0};
    struct bytes all = {.len = 0};
    put_number(&all, 0, 1);
    put_priority_update(&all, 1, 4, 12);
    put_priority_update(&all, 1, 4, 1);
    for (size_t i = 0; i < all.len; i++)
        feed(&uni, &all, &passed, i, i + 1);
    assert_int_equal(passed.len, all.len);
    assert_memory_equal(passed.at, all.at, all.len);
}

/* On any other stream such bytes are none of our business. */
static void test_other_streams(void **state)
{
    struct relay_http3_uni uni = {.id = 6};
    struct passed passed = {.len = 0};
    struct bytes all = {.len = 0};
    put_number(&all, 2, 1);
    put_priority_update(&all, 1, 1, 5);
    all.num_forbidden = 0;
    feed(&uni, &all, &passed, 0, all.len - 5);
    assert_int_equal(passed.len, all.len - 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_bytes_one_by_one),
        cmocka_unit_test(test_other_streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
