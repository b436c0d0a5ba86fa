#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "lib/wire/base64.h"
#include "lib/wire/error.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void the_vectors_of_rfc_4648_go_both_ways(void **state)
{
    static const struct {
        const char *plain, *standard, *url;
    } rows[] = {
        {"", "", ""},
        {"f", "Zg==", "Zg"},
        {"fo", "Zm8=", "Zm8"},
        {"foo", "Zm9v", "Zm9v"},
        {"foob", "Zm9vYg==", "Zm9vYg"},
        {"fooba", "Zm9vYmE=", "Zm9vYmE"},
        {"foobar", "Zm9vYmFy", "Zm9vYmFy"},
        {"\xfb\xff\xbf\xfe", "+/+//g==", "-_-__g"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        const size_t len = strlen(rows[i].plain);
        const char *texts[] = {rows[i].standard, rows[i].url};
        for (int alphabet = RELAY_BASE64; alphabet <= RELAY_BASE64_URL; alphabet++) {
            char text[32];
            uint8_t bytes[16];
            size_t decoded = 99, size = strlen(texts[alphabet]) + 1;
            assert_int_equal(relay_base64_encode(alphabet, (const uint8_t *)rows[i].plain, len, text, size),
                             0);
            assert_string_equal(text, texts[alphabet]);
            assert_int_equal(
                relay_base64_encode(alphabet, (const uint8_t *)rows[i].plain, len, text, size - 1),
                RELAY_ERR_TOO_BIG);
            assert_int_equal(relay_base64_decode(text, size - 1, bytes, len, &decoded), 0);
            assert_int_equal(decoded, len);
            assert_memory_equal(bytes, rows[i].plain, len);
            if (len > 0)
                assert_int_equal(relay_base64_decode(text, size - 1, bytes, len - 1, &decoded),
                                 RELAY_ERR_TOO_BIG);
        }
    }
}

static void anything_else_is_refused(void **state)
{
    static const char *const rows[] = {"A",
                                       "AAAAA",
                                       "Zg=",
                                       "Zg===",
                                       "=",
                                       "==",
                                       "====",
                                       "Zm9v=",
                                       "Z g=",
                                       "Zg\n",
                                       "Zh==",
                                       "Zm9=",
                                       "Zm8",
                                       "Zm9vYg=",
                                       "Zm=8",
                                       "+-AA",
                                       "/_AA",
                                       "Zg==Zg==",
                                       "Z%3D",
                                       "Zm9v\r\n",
                                       "\xc3\xa4"
                                       "AA",
                                       "Zh"};
    uint8_t bytes[32];
    size_t decoded;
    for (size_t i = 0; i < COUNT(rows); i++) {
        int expected = strcmp(rows[i], "Zm8") == 0 ? 0 : RELAY_ERR_INVALID;
        if (relay_base64_decode(rows[i], strlen(rows[i]), bytes, sizeof(bytes), &decoded) != expected)
            fail_msg("\"%s\"", rows[i]);
    }
}

static void decoding_in_place_works(void **state)
{
    char text[] = "Zm9vYmFy";
    size_t decoded;
    assert_int_equal(relay_base64_decode(text, 8, (uint8_t *)text, sizeof(text), &decoded), 0);
    assert_int_equal(decoded, 6);
    assert_memory_equal(text, "foobar", 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_vectors_of_rfc_4648_go_both_ways),
        cmocka_unit_test(anything_else_is_refused),
        cmocka_unit_test(decoding_in_place_works),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
