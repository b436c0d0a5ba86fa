/* SOCKS5 messages, whole, cut and wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "lib/wire/error.h"
#include "lib/wire/socks5.h"

#define BYTES(literal) (const uint8_t *)(literal), sizeof(literal) - 1

static void test_greeting(void **state)
{
    (void)state;
    bool offers = false;
    assert_int_equal(relay_socks5_read_greeting(BYTES("\5\2\2\0rest"), &offers), 4);
    assert_true(offers);
    assert_int_equal(relay_socks5_read_greeting(BYTES("\5\1\2"), &offers), 3);
    assert_false(offers);
    assert_int_equal(relay_socks5_read_greeting(BYTES("\5\3\0\1"), &offers), RELAY_ERR_INCOMPLETE);
    assert_int_equal(relay_socks5_read_greeting(BYTES("\5"), &offers), RELAY_ERR_INCOMPLETE);
    assert_int_equal(relay_socks5_read_greeting(BYTES("\4\1\0"), &offers), RELAY_ERR_UNSUPPORTED);
    assert_int_equal(relay_socks5_read_greeting(BYTES("\4"), &offers), RELAY_ERR_UNSUPPORTED);
    assert_int_equal(relay_socks5_read_greeting(BYTES("GET / HTTP/1.1"), &offers), RELAY_ERR_INVALID);
}

static void test_requests(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
        int used;
        const char *host;
        uint16_t port;
    } table[] = {
#define ROW(literal) literal, sizeof(literal) - 1
        {ROW("\5\1\0\1\xc0\0\2\1\1\xbb"), 10, "192.0.2.1", 443},
        {ROW("\5\1\0\3\x9Www.E.org\0\x50more"), 16, "www.e.org", 80},
        {ROW("\5\1\0\3\x9"
             "192.0.2.7\0\x50"),
         16, "192.0.2.7", 80},
        {ROW("\5\1\0\4\x20\1\xd\xb8\0\0\0\0\0\0\0\0\0\0\0\1\0\x35"), 22, "2001:db8::1", 53},
        {ROW("\5\1\0\3\x9Www.E.org\0"), RELAY_ERR_INCOMPLETE, NULL, 0},
        {ROW("\5\1\0\1\xc0"), RELAY_ERR_INCOMPLETE, NULL, 0},
        {ROW("\5\1\0"), RELAY_ERR_INCOMPLETE, NULL, 0},
        {ROW("\4\1\0"), RELAY_ERR_INVALID, NULL, 0},
        {ROW("\5\1\1"), RELAY_ERR_INVALID, NULL, 0},
        {ROW("\5\1\0\1\xc0\0\2\1\0\0"), RELAY_ERR_INVALID, NULL, 0},
        {ROW("\5\1\0\3\3a b\0\x50"), RELAY_ERR_INVALID, NULL, 0},
        {ROW("\5\1\0\3\0\0\x50"), RELAY_ERR_INVALID, NULL, 0},
        {ROW("\5\1\0\2\0\0\x50"), RELAY_ERR_UNSUPPORTED, NULL, 0},
#undef ROW
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct relay_socks5_request request;
        int used = relay_socks5_read_request((const uint8_t *)table[i].bytes, table[i].len, &request);
        if (used != table[i].used)
            fail_msg("row %zu: %d", i, used);
        if (used > 0) {
            assert_string_equal(request.host.name, table[i].host);
            assert_int_equal(request.port, table[i].port);
            assert_true(request.has_target);
        }
    }
}

static void test_associate_without_target(void **state)
{
    (void)state;
    struct relay_socks5_request request;
    assert_int_equal(relay_socks5_read_request(BYTES("\5\3\0\1\0\0\0\0\0\0"), &request), 10);
    assert_int_equal(request.command, RELAY_SOCKS5_UDP_ASSOCIATE);
    assert_false(request.has_target);
}

static void test_replies(void **state)
{
    (void)state;
    uint8_t out[RELAY_SOCKS5_REPLY_MAX], method[2];
    assert_int_equal(relay_socks5_write_reply(out, RELAY_SOCKS5_REFUSED, NULL, 0), 10);
    assert_memory_equal(out, "\5\5\0\1\0\0\0\0\0\0", 10);
    struct relay_address address;
    assert_int_equal(relay_address_parse("::1", 3, &address), 0);
    assert_int_equal(relay_socks5_write_reply(out, RELAY_SOCKS5_SUCCEEDED, &address, 0x1234), 22);
    assert_memory_equal(out, "\5\0\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\x12\x34", 22);
    relay_socks5_write_method(method, false);
    assert_memory_equal(method, "\5\xff", 2);
    relay_socks5_refuse_version4(out);
    assert_memory_equal(out, "\0\x5b\0\0\0\0\0\0", RELAY_SOCKS4_REPLY_SIZE);
    assert_int_equal(relay_socks5_reply_of(RELAY_ERR_DENIED), RELAY_SOCKS5_NOT_ALLOWED);
    assert_int_equal(relay_socks5_reply_of(RELAY_ERR_DNS), RELAY_SOCKS5_HOST_UNREACHABLE);
    assert_int_equal(relay_socks5_reply_of(RELAY_ERR_PROTOCOL), RELAY_SOCKS5_FAILURE);
}

static void test_datagrams(void **state)
{
    (void)state;
    struct relay_socks5_datagram datagram;
    assert_int_equal(relay_socks5_read_datagram(BYTES("\0\0\0\3\1a\0\x35payload"), &datagram), 8);
    assert_string_equal(datagram.host.name, "a");
    assert_int_equal(datagram.port, 53);
    assert_int_equal(datagram.fragment, 0);
    uint8_t head[RELAY_SOCKS5_UDP_HEAD_MAX];
    assert_int_equal(relay_socks5_write_datagram(head, &datagram.host, 53), 8);
    assert_memory_equal(head, "\0\0\0\3\1a\0\x35", 8);
    assert_int_equal(relay_socks5_read_datagram(BYTES("\0\0\1\1\1\2\3\4\0\x35"), &datagram), 10);
    assert_int_equal(datagram.fragment, 1);
    assert_int_equal(relay_socks5_write_datagram(head, &datagram.host, 53), 10);
    assert_memory_equal(head, "\0\0\0\1\1\2\3\4\0\x35", 10);
    assert_int_equal(relay_socks5_read_datagram(BYTES("\0\0\0\1\1\2\3\4\0"), &datagram), RELAY_ERR_INVALID);
    assert_int_equal(relay_socks5_read_datagram(BYTES("\0\0\0\1\1\2\3\4\0\0"), &datagram), RELAY_ERR_INVALID);
    assert_int_equal(relay_socks5_read_datagram(BYTES("\1\0\0\1\1\2\3\4\0\x35"), &datagram),
                     RELAY_ERR_INVALID);
    assert_int_equal(relay_socks5_read_datagram(BYTES("\0\0\0\7\1\2\3\4\0\x35"), &datagram),
                     RELAY_ERR_UNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greeting),
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_associate_without_target),
        cmocka_unit_test(test_replies),
        cmocka_unit_test(test_datagrams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
