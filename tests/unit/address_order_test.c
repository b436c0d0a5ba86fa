/* address_order.c: what RFC 6724 says of addresses that this machine surely has or surely has no route to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "lib/net/address_order.h"

static struct relay_address address(const char *text)
{
    struct relay_address parsed;
    assert_int_equal(relay_address_parse(text, strlen(text), &parsed), 0);
    return parsed;
}

static void check(const char *const *in, const char *const *out, size_t num)
{
    struct relay_address addresses[64];
    for (size_t i = 0; i < num; i++)
        addresses[i] = address(in[i]);
    relay_address_order(addresses, num);
    for (size_t i = 0; i < num; i++) {
        char text[RELAY_ADDRESS_TEXT_SIZE];
        assert_string_equal(relay_address_print(&addresses[i], text), out[i]);
    }
}

static void ipv6_first(void **state)
{
    check((const char *[]){"127.0.0.1", "::1"}, (const char *[]){"::1", "127.0.0.1"}, 2);
    check((const char *[]){"::1", "127.0.0.1"}, (const char *[]){"::1", "127.0.0.1"}, 2);
}

/* 255.255.255.255 cannot be connected to without SO_BROADCAST: no source, so last. */
static void without_a_route_last(void **state)
{
    check((const char *[]){"255.255.255.255", "127.0.0.1", "::1"},
          (const char *[]){"::1", "127.0.0.1", "255.255.255.255"}, 3);
}

static void equals_keep_their_order(void **state)
{
    check((const char *[]){"127.0.0.3", "127.0.0.1", "127.0.0.2"},
          (const char *[]){"127.0.0.3", "127.0.0.1", "127.0.0.2"}, 3);
}

static void more_than_are_sorted(void **state)
{
    struct relay_address addresses[70];
    for (size_t i = 0; i < 70; i++)
        addresses[i] = address(i == 69 ? "::1" : "127.0.0.1");
    relay_address_order(addresses, 70);
    assert_int_equal(addresses[69].family, 6);
    relay_address_order(addresses, 0);
    relay_address_order(addresses, 1);
}

static void families_take_turns(void **state)
{
    static const struct {
        const char *in, *out;
    } table[] = {{"", ""},
                 {"6a", "6a"},
                 {"6a 4a", "6a 4a"},
                 {"4a 4b 6a", "4a 6a 4b"},
                 {"4a 4b", "4a 4b"},
                 {"6a 6b 6c 4a 4b", "6a 4a 6b 4b 6c"},
                 {"6a 4a 6b 4b 6c", "6a 4a 6b 4b 6c"}};
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct relay_address addresses[8] = {0};
        char out[64] = "";
        size_t num = 0;
        for (const char *p = table[i].in; *p != '\0'; p += p[2] != '\0' ? 3 : 2, num++)
            addresses[num] =
                (struct relay_address){.family = (uint8_t)(p[0] - '0'), .bytes = {(uint8_t)p[1]}};
        relay_address_interleave(addresses, num);
        for (size_t k = 0; k < num; k++)
            sprintf(out + strlen(out), "%s%u%c", k > 0 ? " " : "", addresses[k].family,
                    addresses[k].bytes[0]);
        assert_string_equal(out, table[i].out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ipv6_first),
        cmocka_unit_test(without_a_route_last),
        cmocka_unit_test(equals_keep_their_order),
        cmocka_unit_test(more_than_are_sorted),
        cmocka_unit_test(families_take_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
