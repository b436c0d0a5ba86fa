#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/wire/authority.h"
#include "lib/wire/error.h"

#define TEN(s)     s s s s s s s s s s
#define LABEL_63   TEN("abcdef") "xyz"
#define NAME_253   LABEL_63 "." LABEL_63 "." LABEL_63 "." TEN("abcdef") "x"
#define TEXT(text) text, sizeof(text) - 1

/* A copy of exact size, so that ASan sees a read beyond it. */
static char *exact(const char *text, size_t len)
{
    char *copy = malloc(len > 0 ? len : 1);
    memcpy(copy, text, len);
    return copy;
}

static void hosts_that_are_accepted(void **state)
{
    static const struct {
        const char *text;
        size_t len;
        enum relay_host_form form;
        enum relay_host_kind kind;
        const char *name;
    } rows[] = {
        {TEXT("example.com"), RELAY_HOST_BRACKETS, RELAY_HOST_NAME, "example.com"},
        {TEXT("EXAMPLE.Com"), RELAY_HOST_BRACKETS, RELAY_HOST_NAME, "example.com"},
        {TEXT("example.com."), RELAY_HOST_BRACKETS, RELAY_HOST_NAME, "example.com"},
        {TEXT("localhost"), RELAY_HOST_BARE, RELAY_HOST_NAME, "localhost"},
        {TEXT("_dns.example"), RELAY_HOST_BRACKETS, RELAY_HOST_NAME, "_dns.example"},
        {TEXT("r3---sn-4g5e.example"), RELAY_HOST_BRACKETS, RELAY_HOST_NAME, "r3---sn-4g5e.example"},
        {TEXT("xn--bcher-kva.example"), RELAY_HOST_BRACKETS, RELAY_HOST_NAME, "xn--bcher-kva.example"},
        {TEXT("1.2.3.4.example"), RELAY_HOST_BRACKETS, RELAY_HOST_NAME, "1.2.3.4.example"},
        {TEXT("0x7f.1.example"), RELAY_HOST_BRACKETS, RELAY_HOST_NAME, "0x7f.1.example"},
        {TEXT("example.0xg"), RELAY_HOST_BRACKETS, RELAY_HOST_NAME, "example.0xg"},
        {TEXT("1a"), RELAY_HOST_BRACKETS, RELAY_HOST_NAME, "1a"},
        {TEXT(LABEL_63), RELAY_HOST_BRACKETS, RELAY_HOST_NAME, LABEL_63},
        {TEXT(NAME_253), RELAY_HOST_BRACKETS, RELAY_HOST_NAME, NAME_253},
        {TEXT(NAME_253 "."), RELAY_HOST_BRACKETS, RELAY_HOST_NAME, NAME_253},
        {TEXT("192.0.2.1"), RELAY_HOST_BRACKETS, RELAY_HOST_IPV4, "192.0.2.1"},
        {TEXT("192.0.2.1"), RELAY_HOST_BARE, RELAY_HOST_IPV4, "192.0.2.1"},
        {TEXT("127.0.0.1."), RELAY_HOST_BRACKETS, RELAY_HOST_IPV4,
         "127.0.0.1"}, /* judged again, as an address */
        {TEXT("0.0.0.0"), RELAY_HOST_BRACKETS, RELAY_HOST_IPV4, "0.0.0.0"},
        {TEXT("[2001:DB8:0:0::1]"), RELAY_HOST_BRACKETS, RELAY_HOST_IPV6, "2001:db8::1"},
        {TEXT("2001:db8::1"), RELAY_HOST_BARE, RELAY_HOST_IPV6, "2001:db8::1"},
        {TEXT("[::]"), RELAY_HOST_BRACKETS, RELAY_HOST_IPV6, "::"},
        {TEXT("[::ffff:127.0.0.1]"), RELAY_HOST_BRACKETS, RELAY_HOST_IPV6, "::ffff:127.0.0.1"},
        {TEXT("::ffff:7f00:1"), RELAY_HOST_BARE, RELAY_HOST_IPV6, "::ffff:127.0.0.1"},
        {TEXT("0000:0000:0000:0000:0000:ffff:255.255.255.255"), RELAY_HOST_BARE, RELAY_HOST_IPV6,
         "::ffff:255.255.255.255"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct relay_host host;
        char *text = exact(rows[i].text, rows[i].len);
        assert_int_equal(relay_host_parse(&host, text, rows[i].len, rows[i].form), 0);
        assert_int_equal(host.kind, rows[i].kind);
        assert_string_equal(host.name, rows[i].name);
        free(text);
    }
}

static void hosts_that_are_refused(void **state)
{
    static const struct {
        const char *text;
        size_t len;
    } rows[] = {
        {TEXT("")},
        {TEXT(".")},
        {TEXT("..")},
        {TEXT("example..com")},
        {TEXT("example.com..")},
        {TEXT(".example.com")},
        {TEXT(LABEL_63 "x")},
        {TEXT(LABEL_63 "x.com")},
        {TEXT(NAME_253 "x")},
        {TEXT(NAME_253 "x.")},
        /* legacy spellings of IPv4 */
        {TEXT("0x7f.1")},
        {TEXT("127.1")},
        {TEXT("127.0.1")},
        {TEXT("2130706433")},
        {TEXT("0x7f000001")},
        {TEXT("0X7F000001")},
        {TEXT("0x7f.0x0.0x0.0x1")},
        {TEXT("0x")},
        {TEXT("1.0x")},
        {TEXT("017700000001")},
        {TEXT("010.0.0.1")},
        {TEXT("127.0.0.01")},
        {TEXT("127.0.0.256")},
        {TEXT("127.0.0.1.1")},
        {TEXT("127.1.")},
        {TEXT("2130706433.")},
        {TEXT("example.1")},
        {TEXT("example.0x1f")},
        {TEXT("0")},
        /* IPv6 */
        {TEXT("[::1%lo]")},
        {TEXT("[fe80::1%25eth0]")},
        {TEXT("::1%lo")},
        {TEXT("[]")},
        {TEXT("[")},
        {TEXT("]")},
        {TEXT("[::1")},
        {TEXT("[::1].")},
        {TEXT("[::1]x")},
        {TEXT("[[::1]]")},
        {TEXT("[127.0.0.1]")},
        {TEXT("[example.com]")},
        {TEXT("[::127.1]")},
        {TEXT("[::ffff:010.0.0.1]")},
        {TEXT("[1:2:3:4:5:6:7:8:9]")},
        {TEXT("[12345::]")},
        {TEXT("[v1.fe80::a+en1]")},
        {TEXT("[::1\0]")},
        {TEXT("[0000:0000:0000:0000:0000:ffff:0255.255.255.255]")},
        {TEXT("[0000000000000000000000000000000000000000000000000000::1]")},
        /* bytes */
        {TEXT("example%2ecom")},
        {TEXT("%6c%6fcalhost")},
        {TEXT("b\xc3\xbc"
              "cher.example")},
        {TEXT("\xef\xbc\x91\xef\xbc\x92.example")}, /* full-width digits */
        {TEXT("127\xe3\x80\x82"
              "0.0.1")}, /* ideographic full stop */
        {TEXT("example.com\0.allowed.example")},
        {TEXT("\0")},
        {TEXT("exam ple.com")},
        {TEXT(" example.com")},
        {TEXT("example.com ")},
        {TEXT("example.com\t")},
        {TEXT("example.com\r\n")},
        {TEXT("example\x7f.com")},
        {TEXT("user@example.com")},
        {TEXT("example.com/")},
        {TEXT("example.com\\")},
        {TEXT("{target_host}")},
        {TEXT("*.example.com")},
        {TEXT("+1.2.3.4")},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct relay_host host;
        char *text = exact(rows[i].text, rows[i].len);
        for (int form = RELAY_HOST_BRACKETS; form <= RELAY_HOST_BARE; form++)
            if (relay_host_parse(&host, text, rows[i].len, form) != RELAY_ERR_INVALID)
                fail_msg("accepted: %s", rows[i].text);
        free(text);
    }
}

static void each_form_refuses_the_other(void **state)
{
    struct relay_host host;
    assert_int_equal(relay_host_parse(&host, TEXT("::1"), RELAY_HOST_BRACKETS), RELAY_ERR_INVALID);
    assert_int_equal(relay_host_parse(&host, TEXT("[::1]"), RELAY_HOST_BARE), RELAY_ERR_INVALID);
}

static void addresses_are_in_network_order(void **state)
{
    static const uint8_t ipv4[16] = {192, 0, 2, 1}, ipv6[16] = {0x20, 0x01, 0x0d, 0xb8, [15] = 1},
                         none[16] = {0};
    struct relay_host host;
    assert_int_equal(relay_host_parse(&host, TEXT("192.0.2.1"), RELAY_HOST_BRACKETS), 0);
    assert_memory_equal(host.address, ipv4, 16);
    assert_int_equal(relay_host_parse(&host, TEXT("2001:db8::1"), RELAY_HOST_BARE), 0);
    assert_memory_equal(host.address, ipv6, 16);
    assert_int_equal(relay_host_parse(&host, TEXT("a.example"), RELAY_HOST_BARE), 0);
    assert_memory_equal(host.address, none, 16);
}

static void authorities(void **state)
{
    static const struct {
        const char *text;
        size_t len;
        int with_port, with_default; /* port, or error */
    } rows[] = {
        {TEXT("example.com:443"), 443, 443},
        {TEXT("example.com:1"), 1, 1},
        {TEXT("example.com.:65535"), 65535, 65535},
        {TEXT("[2001:db8::1]:443"), 443, 443},
        {TEXT("192.0.2.1:8080"), 8080, 8080},
        {TEXT("example.com"), RELAY_ERR_INVALID, 80},
        {TEXT("[2001:db8::1]"), RELAY_ERR_INVALID, 80},
        {TEXT("192.0.2.1"), RELAY_ERR_INVALID, 80},
#define BAD(text) {TEXT(text), RELAY_ERR_INVALID, RELAY_ERR_INVALID}
        BAD(""),
        BAD(":"),
        BAD(":443"),
        BAD("example.com:"),
        BAD("[::1]:"),
        BAD("example.com:0"),
        BAD("example.com:00"),
        BAD("example.com:0443"),
        BAD("example.com:65536"),
        BAD("example.com:99999"),
        BAD("example.com:4294967739"),
        BAD("example.com:18446744073709552059"),
        BAD("example.com:+443"),
        BAD("example.com:-1"),
        BAD("example.com: 443"),
        BAD("example.com:443 "),
        BAD("example.com :443"),
        BAD("example.com:44x"),
        BAD("example.com:0x1bb"),
        BAD("example.com:443:443"),
        BAD("example.com:443\0"),
        BAD("example.com\0:443"),
        BAD("example.com:443/"),
        BAD("user@example.com:443"),
        BAD("user:pass@example.com:443"),
        BAD("https://example.com:443"),
        BAD("2001:db8::1:443"),
        BAD("::1"),
        BAD("[::1]443"),
        BAD("[::1]x:443"),
        BAD("[::1"),
        BAD("[::1:443"),
        BAD("[::1%lo]:443"),
        BAD("x[::1]:443"),
        BAD("127.1:443"),
        BAD("0x7f.1:443"),
        BAD("2130706433:443"),
        BAD("example.com:%34%34%33"),
#undef BAD
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct relay_host host;
        uint16_t port = 0;
        char *text = exact(rows[i].text, rows[i].len);
        int rv = relay_authority_parse(&host, &port, text, rows[i].len);
        if ((rv == 0 ? port : rv) != rows[i].with_port)
            fail_msg("%s gives %d, port %u", rows[i].text, rv, port);
        rv = relay_authority_parse_default(&host, &port, text, rows[i].len, 80);
        if ((rv == 0 ? port : rv) != rows[i].with_default)
            fail_msg("with a default %s gives %d, port %u", rows[i].text, rv, port);
        free(text);
    }
}

static void an_absent_authority_is_refused(void **state)
{
    struct relay_host host;
    uint16_t port;
    assert_int_equal(relay_authority_parse(&host, &port, NULL, 0), RELAY_ERR_INVALID);
    assert_int_equal(relay_authority_parse_default(&host, &port, NULL, 0, 80), RELAY_ERR_INVALID);
}

static void authorities_are_written(void **state)
{
    static const char *const texts[] = {"example.com:443", "192.0.2.1:1", "[2001:db8::1]:65535",
                                        NAME_253 ":65535"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct relay_host host;
        uint16_t port;
        char buffer[RELAY_AUTHORITY_SIZE];
        size_t len = strlen(texts[i]);
        assert_int_equal(relay_authority_parse(&host, &port, texts[i], len), 0);
        assert_int_equal(relay_authority_write(&host, port, buffer, sizeof(buffer)), len);
        assert_string_equal(buffer, texts[i]);
        assert_int_equal(relay_authority_write(&host, port, buffer, len + 1), len);
        assert_int_equal(relay_authority_write(&host, port, buffer, len), RELAY_ERR_TOO_BIG);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hosts_that_are_accepted),
        cmocka_unit_test(hosts_that_are_refused),
        cmocka_unit_test(each_form_refuses_the_other),
        cmocka_unit_test(addresses_are_in_network_order),
        cmocka_unit_test(authorities),
        cmocka_unit_test(authorities_are_written),
        cmocka_unit_test(an_absent_authority_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
