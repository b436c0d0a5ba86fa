#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "lib/wire/error.h"
#include "lib/wire/token_file.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define DIGEST_END   "884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8"
#define DIGEST       "5e" DIGEST_END

static void a_file_gives_its_entries_in_order(void **state)
{
    static const char text[] =
        "# tokens of the relay\n"
        "\n"
        "alice " DIGEST "\n"
        "  \t bob\t5F884898DA28047151D0E56F8DC6292773603D0D6AABBDD62A11EF721D1542D8  # comment\r\n"
        "c.d_e-F9 50" DIGEST_END " expires=1000000000 #x\n"
        "   # only a comment\n"
        "last 51" DIGEST_END " expires=2027-01-01";
    struct relay_token_file file;
    struct relay_token_file_error error;
    assert_int_equal(relay_token_file_parse(&file, text, strlen(text), &error), 0);
    assert_int_equal(file.count, 4);
    assert_string_equal(file.entries[0].name, "alice");
    assert_string_equal(file.entries[1].name, "bob");
    assert_string_equal(file.entries[2].name, "c.d_e-F9");
    assert_int_equal(file.entries[0].digest[0], 0x5e);
    assert_int_equal(file.entries[0].digest[31], 0xd8);
    assert_int_equal(file.entries[1].digest[0], 0x5f);
    assert_memory_equal(file.entries[0].digest + 1, file.entries[1].digest + 1, RELAY_TOKEN_DIGEST_SIZE - 1);
    assert_int_equal(file.entries[0].expires, 0);
    assert_int_equal(file.entries[2].expires, 1000000000);
    assert_int_equal(file.entries[3].expires, 1798761600);
    relay_token_file_dispose(&file);
    relay_token_file_dispose(&file);

    assert_int_equal(relay_token_file_parse(&file, "", 0, &error), 0);
    assert_int_equal(file.count, 0);
    assert_false(file.is_none);
    relay_token_file_dispose(&file);
}

static void no_token_can_be_said(void **state)
{
    static const struct {
        const char *text;
        size_t count;
        unsigned line; /* not 0: refused there */
        bool is_none;
    } rows[] = {
        {"none", 0, 0, true},
        {"# nobody any more\n none\t# since Monday\r\n", 0, 0, true},
        {"# nobody any more\n", 0, 0, false},
        {"none " DIGEST "\n", 1, 0, false},
        {"alice " DIGEST "\nnone\n", 0, 1, false},
        {"none\n\nalice " DIGEST "\nalice " DIGEST "\n", 0, 3, false},
        {"None\n", 0, 1, false},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct relay_token_file file;
        struct relay_token_file_error error;
        const int result = relay_token_file_parse(&file, rows[i].text, strlen(rows[i].text), &error);
        assert_int_equal(result, rows[i].line != 0 ? RELAY_ERR_INVALID : 0);
        assert_int_equal(error.line, rows[i].line);
        assert_int_equal(file.count, rows[i].count);
        assert_int_equal(file.is_none, rows[i].is_none);
        relay_token_file_dispose(&file);
    }
}

static void dates_are_seconds_since_1970(void **state)
{
    static const struct {
        const char *when;
        int64_t seconds; /* -1: refused */
    } rows[] = {
        {"1970-01-02", 86400},
        {"2000-02-29", 951782400},
        {"2000-03-01", 951868800},
        {"2024-02-29", 1709164800},
        {"2100-03-01", 4107542400},
        {"9999-12-31", 253402214400},
        {"2027-01-01T00:00:00Z", 1798761600},
        {"2027-01-01t12:34:56z", 1798806896},
        {"2027-01-01T00:00:00.999999Z", 1798761600},
        {"2027-01-01T01:00:00+01:00", 1798761600},
        {"2026-12-31T18:30:00-05:30", 1798761600},
        {"2016-12-31T23:59:60Z", 1483228800},
        {"1", 1},
        {"999999999999999", 999999999999999},
        {"0", -1},
        {"1970-01-01", -1},
        {"1969-12-31", -1},
        {"9999999999999999", -1},
        {"-1", -1},
        {"1e9", -1},
        {"", -1},
        {"2023-02-29", -1},
        {"2100-02-29", -1},
        {"2027-13-01", -1},
        {"2027-00-01", -1},
        {"2027-01-00", -1},
        {"2027-1-1", -1},
        {"2027-01-01T", -1},
        {"2027-01-01T00:00:00", -1},
        {"2027-01-01T24:00:00Z", -1},
        {"2027-01-01T00:60:00Z", -1},
        {"2027-01-01T00:00:61Z", -1},
        {"2027-01-01T00:00:00.Z", -1},
        {"2027-01-01T00:00:00+24:00", -1},
        {"2027-01-01T00:00:00+0100", -1},
        {"2027-01-01T00:00:00ZZ", -1},
        {"2027-01-01x", -1},
        {"never", -1},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        char text[256];
        struct relay_token_file file;
        struct relay_token_file_error error;
        snprintf(text, sizeof(text), "a " DIGEST " expires=%s", rows[i].when);
        int result = relay_token_file_parse(&file, text, strlen(text), &error);
        if (rows[i].seconds < 0 ? result != RELAY_ERR_INVALID
                                : result != 0 || file.entries[0].expires != rows[i].seconds)
            fail_msg("%s", rows[i].when);
        relay_token_file_dispose(&file);
    }
}

static void errors_name_line_and_column(void **state)
{
    static const struct {
        const char *text;
        unsigned line, column;
        const char *expected;
    } rows[] = {
        {"alice", 1, 6, "hexadecimal"},
        {"\n\n  alice   # no digest", 3, 11, "hexadecimal"},
        {"a!b " DIGEST, 1, 2, "name"},
        {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa " DIGEST, 1, 65, "name"},
        {"a 5e88", 1, 7, "hexadecimal"},
        {"a 5g88", 1, 4, "hexadecimal"},
        {"a " DIGEST "0", 1, 67, "hexadecimal"},
        {"a " DIGEST "\nb " DIGEST " expire=1", 2, 68, "expires="},
        {"a " DIGEST " expires=x", 1, 76, "expires="},
        {"a " DIGEST " expires=", 1, 68, "expires="},
        {"a " DIGEST " expires=1 b", 1, 78, "end of the line"},
        {"a " DIGEST "\nb " DIGEST "\n a " DIGEST "\nb " DIGEST, 3, 2, "not used before"},
        {"a " DIGEST "\nb 50" DIGEST_END "\nc 5E" DIGEST_END "\nd 50" DIGEST_END, 3, 3, "no line before has"},
        {"a\xef\xbb\xbf " DIGEST, 1, 2, "name"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct relay_token_file file;
        struct relay_token_file_error error;
        assert_int_equal(relay_token_file_parse(&file, rows[i].text, strlen(rows[i].text), &error),
                         RELAY_ERR_INVALID);
        assert_int_equal(file.count, 0);
        assert_null(file.entries);
        if (error.line != rows[i].line || error.column != rows[i].column ||
            strstr(error.expected, rows[i].expected) == NULL)
            fail_msg("row %zu: %u:%u: expected %s", i, error.line, error.column, error.expected);
    }
}

static void the_number_of_tokens_is_bounded(void **state)
{
    const size_t line_len = 8 + 6 + 58 + 1, count = RELAY_TOKEN_FILE_MAX + 1;
    char *text = malloc(count * line_len + 1);
    for (size_t i = 0; i < count; i++)
        snprintf(text + i * line_len, line_len + 1, "u%06zu %06zu%058d\n", i, i, 0);
    struct relay_token_file file;
    struct relay_token_file_error error;
    assert_int_equal(relay_token_file_parse(&file, text, (count - 1) * line_len, &error), 0);
    assert_int_equal(file.count, RELAY_TOKEN_FILE_MAX);
    relay_token_file_dispose(&file);
    assert_int_equal(relay_token_file_parse(&file, text, count * line_len, &error), RELAY_ERR_TOO_BIG);
    assert_int_equal(error.line, count);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_gives_its_entries_in_order), cmocka_unit_test(no_token_can_be_said),
        cmocka_unit_test(dates_are_seconds_since_1970),      cmocka_unit_test(errors_name_line_and_column),
        cmocka_unit_test(the_number_of_tokens_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
