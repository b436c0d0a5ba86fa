#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/wire/field.h"

struct row {
    const char *text;
    size_t len;
    bool http1, http2;
};

#define BOTH(text)                                                                                           \
    {                                                                                                        \
        text, sizeof(text) - 1, true, true                                                                   \
    }
#define HTTP1_ONLY(text)                                                                                     \
    {                                                                                                        \
        text, sizeof(text) - 1, true, false                                                                  \
    }
#define NEITHER(text)                                                                                        \
    {                                                                                                        \
        text, sizeof(text) - 1, false, false                                                                 \
    }

static void check(const struct row *rows, size_t count,
                  bool (*valid)(const char *, size_t, enum relay_field_rules))
{
    for (size_t i = 0; i < count; i++)
        if (valid(rows[i].text, rows[i].len, RELAY_FIELD_HTTP1) != rows[i].http1 ||
            valid(rows[i].text, rows[i].len, RELAY_FIELD_HTTP2) != rows[i].http2)
            fail_msg("row %zu: %s", i, rows[i].text);
}

static void names(void **state)
{
    static const struct row rows[] = {
        BOTH("host"),      BOTH("x-1_2"),    BOTH("!#$%&'*+-.^_`|~"), HTTP1_ONLY("Host"),  HTTP1_ONLY("x-Q"),
        NEITHER(""),       NEITHER(":path"), NEITHER("a b"),          NEITHER("a:"),       NEITHER(" a"),
        NEITHER("a\t"),    NEITHER("a\0b"),  NEITHER("a\0"),          NEITHER("\xc3\xbc"), NEITHER("a\x7f"),
        NEITHER("a\r\nb"), NEITHER("a(b"),   NEITHER("\"a\""),        NEITHER("a/b"),      NEITHER("a{"),
    };
    check(rows, sizeof(rows) / sizeof(rows[0]), relay_field_name_valid);
}

static void values(void **state)
{
    static const struct row rows[] = {
        BOTH(""),         BOTH("a"),         BOTH("a b\tc"),    BOTH("\xc3\xbc\xff"), HTTP1_ONLY(" a"),
        HTTP1_ONLY("a "), HTTP1_ONLY("\ta"), HTTP1_ONLY("a\t"), HTTP1_ONLY(" "),      NEITHER("a\0b"),
        NEITHER("a\rb"),  NEITHER("a\nb"),   NEITHER("\r\n"),   NEITHER("a\x01"),     NEITHER("a\x1f"),
        NEITHER("a\x7f"), NEITHER("a\x0b"),
    };
    check(rows, sizeof(rows) / sizeof(rows[0]), relay_field_value_valid);
}

static void connection_specific_names(void **state)
{
    static const char *const yes[] = {"connection", "Proxy-Connection", "KEEP-ALIVE", "transfer-encoding",
                                      "upgrade"};
    static const char *const no[] = {
        "", "te", "connectio", "connections", "host", "upgrade-insecure-requests"};
    for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++)
        assert_true(relay_field_is_connection_specific(yes[i], strlen(yes[i])));
    for (size_t i = 0; i < sizeof(no) / sizeof(no[0]); i++)
        assert_false(relay_field_is_connection_specific(no[i], strlen(no[i])));
    assert_true(relay_field_te_valid("trailers", 8));
    assert_false(relay_field_te_valid("trailers, deflate", 17));
    assert_false(relay_field_te_valid("", 0));
}

static void check_bool(const char *const *texts, size_t count, bool (*valid)(const char *, size_t),
                       bool expected)
{
    for (size_t i = 0; i < count; i++) {
        size_t len = strlen(texts[i]);
        char *exact = malloc(len > 0 ? len : 1); /* ASan sees a read beyond it */
        for (size_t j = 0; j < len; j++)
            exact[j] = texts[i][j];
        if (valid(exact, len) != expected)
            fail_msg("%s", texts[i]);
        free(exact);
    }
}

#define ALL(texts) texts, sizeof(texts) / sizeof(texts[0])

static void structured_booleans(void **state)
{
    static const char *const yes[] = {
        "?1",
        " ?1",
        "?1  ",
        "?1;a",
        "?1; a;b",
        "?1;a=1",
        "?1;a=-1.125",
        "?1;a=tok/en:*",
        "?1;a=\"x\\\"y\\\\\"",
        "?1;a=:aGk=:",
        "?1;a=::",
        "?1;a=?0",
        "?1;a=@1700000000",
        "?1;a=%\"b%c3%bc\"",
        "?1;*k-_.*=*x ",
        "?1;a=999999999999999",
        "?1;a=\"?0;,\"",
    };
    static const char *const no[] = {
        "",
        " ",
        "?",
        "?0",
        "?2",
        "?10",
        "?11",
        "1",
        "true",
        "\"?1\"",
        "?1, ?1",
        "?1,?0",
        "?1,",
        "(?1)",
        "\t?1",
        "?1\t",
        "?1 ;a",
        "? 1",
        "a=?1",
        "?1;",
        "?1;A",
        "?1;a=",
        "?1;a =1",
        "?1;a= 1",
        "?1;a=\"x",
        "?1;a=\"\\x\"",
        "?1;a=\"x\\",
        "?1;a=:a",
        "?1;a=:!:",
        "?1;a=?",
        "?1;a=?2",
        "?1;a=@",
        "?1;a=@1.5",
        "?1;a=1.",
        "?1;a=1.1234",
        "?1;a=1234567890123.1",
        "?1;a=1234567890123456",
        "?1;a=-",
        "?1;a=%x",
        "?1;a=%\"%C3\"",
        "?1;a=%\"%c\"",
        "?1;a=%\"%",
        "?1;a=\"\xc3\xbc\"",
        "?1;a=(1)",
        "?1;1=a",
        "?1x",
    };
    check_bool(ALL(yes), relay_field_boolean, true);
    check_bool(ALL(no), relay_field_boolean, false);
    assert_false(relay_field_boolean("?1\0", 3));
    assert_false(relay_field_boolean("?1;a\0", 5));
}

static void control_data(void **state)
{
    static const char *const methods[] = {"GET", "CONNECT", "CONNECT-UDP", "get"};
    static const char *const bad_methods[] = {"", "G T", "GET ", "GET\r", "G\xc3\xbc", "GET:", "(GET)"};
    static const char *const schemes[] = {"https", "HTTP", "a+b-c.1"};
    static const char *const bad_schemes[] = {"", "1http", "+a", "ht tp", "https:", "http\xc3"};
    static const char *const target_paths[] = {"/", "/a?b=%20", "/{x}", "//"};
    static const char *const bad_paths[] = {"",     "*",      "a",    "?x",       "/a b",
                                            "/a#b", "/a\x7f", "/a\t", "/\xc3\xbc"};
    check_bool(ALL(methods), relay_field_method_valid, true);
    check_bool(ALL(bad_methods), relay_field_method_valid, false);
    check_bool(ALL(schemes), relay_field_scheme_valid, true);
    check_bool(ALL(bad_schemes), relay_field_scheme_valid, false);
    check_bool(ALL(target_paths), relay_field_path_valid, true);
    check_bool(ALL(bad_paths), relay_field_path_valid, false);
    assert_false(relay_field_method_valid("GET\0", 4));
    assert_false(relay_field_scheme_valid("https\0", 6));
    assert_false(relay_field_path_valid("/\0", 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(values),
        cmocka_unit_test(connection_specific_names),
        cmocka_unit_test(structured_booleans),
        cmocka_unit_test(control_data),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
