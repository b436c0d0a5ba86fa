#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <netinet/in.h>

#include "lib/wire/address.h"
#include "lib/wire/error.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static struct relay_address address_of(const char *text)
{
    struct relay_address address;
    if (relay_address_parse(text, strlen(text), &address) != 0)
        fail_msg("%s is an address", text);
    return address;
}

static struct relay_prefix prefix_of(const char *text)
{
    struct relay_prefix prefix;
    if (relay_prefix_parse(text, strlen(text), &prefix) != 0)
        fail_msg("%s is a prefix", text);
    return prefix;
}

static void only_strict_addresses_are_parsed(void **state)
{
    static const char *const refused[] = {
        "",
        "127.1",
        "0x7f.1",
        "2130706433",
        "0177.0.0.1",
        "127.0.0.01",
        "1.2.3.4.",
        "1.2.3",
        "1.2.3.256",
        " 1.2.3.4",
        "1.2.3.4 ",
        "[::1]",
        "::1%lo",
        "fe80::1%eth0",
        ":::",
        "1:2:3:4:5:6:7",
        "1::2::3",
        "::1.2.3",
        "12345::",
        "::g",
        "localhost",
        "127.0.0.1:80",
        "%31.2.3.4",
        "1.2.3.4/32",
        "+1.2.3.4",
        "1.2.3.-4",
        "::ffff:1.2.3.4.5",
        "0000:0000:0000:0000:0000:0000:0000:0000:0000:0000",
    };
    struct relay_address address;
    for (size_t i = 0; i < COUNT(refused); i++)
        if (relay_address_parse(refused[i], strlen(refused[i]), &address) != RELAY_ERR_INVALID)
            fail_msg("%s must be refused", refused[i]);
    assert_int_equal(relay_address_parse("1.2.3.4\0", 8, &address), RELAY_ERR_INVALID);
    assert_int_equal(relay_address_parse("1.2.3.4zzz", 7, &address), 0);
}

static void addresses_are_printed_canonically(void **state)
{
    static const char *const rows[][2] = {
        {"192.0.2.1", "192.0.2.1"},
        {"2001:DB8:0:0::1", "2001:db8::1"},
        {"::", "::"},
        {"::ffff:10.0.0.1", "::ffff:10.0.0.1"},
        {"ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
    };
    char text[RELAY_ADDRESS_TEXT_SIZE];
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct relay_address address = address_of(rows[i][0]);
        assert_string_equal(relay_address_print(&address, text), rows[i][1]);
    }
    assert_string_equal(relay_address_print(&(struct relay_address){0}, text), "");
}

static void sockaddrs_go_there_and_back(void **state)
{
    static const char *const rows[] = {"192.0.2.1", "2001:db8::1"};
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct relay_address address = address_of(rows[i]), back;
        struct sockaddr_storage storage;
        uint16_t port;
        socklen_t len = relay_address_to_sockaddr(&address, 443, &storage);
        assert_int_equal(len, i == 0 ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
        assert_int_equal(relay_address_from_sockaddr(&back, &port, &storage), 0);
        assert_true(relay_address_equal(&address, &back));
        assert_int_equal(port, 443);
    }
    struct sockaddr_storage storage = {.ss_family = AF_UNIX};
    struct relay_address address;
    assert_int_equal(relay_address_from_sockaddr(&address, NULL, &storage), RELAY_ERR_INVALID);
    assert_int_equal(relay_address_to_sockaddr(&address, 1, &storage), 0);
}

static void wrapped_addresses_are_unwrapped(void **state)
{
    static const char *const rows[][3] = {
        /* address, judged, dialled */
        {"::ffff:10.0.0.1", "10.0.0.1", "10.0.0.1"},
        {"::ffff:8.8.8.8", "8.8.8.8", "8.8.8.8"},
        {"64:ff9b::10.0.0.1", "10.0.0.1", "64:ff9b::10.0.0.1"},
        {"64:ff9b:0:1::10.0.0.1", "64:ff9b:0:1::10.0.0.1", "64:ff9b:0:1::10.0.0.1"},
        {"64:ff9b:1::10.0.0.1", "64:ff9b:1::10.0.0.1", "64:ff9b:1::10.0.0.1"},
        {"2002:a00:1::", "2002:a00:1::", "2002:a00:1::"},
        {"::10.0.0.1", "::10.0.0.1", "::10.0.0.1"},
        {"::fffe:10.0.0.1", "::fffe:10.0.0.1", "::fffe:10.0.0.1"},
        {"8.8.8.8", "8.8.8.8", "8.8.8.8"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct relay_address address = address_of(rows[i][0]), judged = address_of(rows[i][1]),
                             dialled = address_of(rows[i][2]), got_judged, got_dialled;
        relay_address_unwrap(&address, &got_judged, &got_dialled);
        assert_true(relay_address_equal(&got_judged, &judged));
        assert_true(relay_address_equal(&got_dialled, &dialled));
        relay_address_unwrap(&address, NULL, &address);
        assert_true(relay_address_equal(&address, &dialled));
    }
}

static void special_ranges_are_known(void **state)
{
    static const char *const rows[][2] = {
        /* address, range (NULL: public internet, "": ISATAP) */
        {"0.0.0.0", "0.0.0.0/8"},
        {"0.255.255.255", "0.0.0.0/8"},
        {"1.0.0.0", NULL},
        {"9.255.255.255", NULL},
        {"10.0.0.0", "10.0.0.0/8"},
        {"10.255.255.255", "10.0.0.0/8"},
        {"11.0.0.0", NULL},
        {"100.63.255.255", NULL},
        {"100.64.0.0", "100.64.0.0/10"},
        {"100.127.255.255", "100.64.0.0/10"},
        {"100.128.0.0", NULL},
        {"126.255.255.255", NULL},
        {"127.0.0.1", "127.0.0.0/8"},
        {"127.255.255.255", "127.0.0.0/8"},
        {"128.0.0.0", NULL},
        {"169.253.255.255", NULL},
        {"169.254.0.0", "169.254.0.0/16"},
        {"169.254.169.254", "169.254.0.0/16"},
        {"169.255.0.0", NULL},
        {"172.15.255.255", NULL},
        {"172.16.0.0", "172.16.0.0/12"},
        {"172.31.255.255", "172.16.0.0/12"},
        {"172.32.0.0", NULL},
        {"191.255.255.255", NULL},
        {"192.0.0.0", "192.0.0.0/24"},
        {"192.0.0.255", "192.0.0.0/24"},
        {"192.0.1.0", NULL},
        {"192.0.2.0", "192.0.2.0/24"},
        {"192.0.2.255", "192.0.2.0/24"},
        {"192.0.3.0", NULL},
        {"192.88.98.255", NULL},
        {"192.88.99.1", "192.88.99.0/24"},
        {"192.88.100.0", NULL},
        {"192.167.255.255", NULL},
        {"192.168.0.0", "192.168.0.0/16"},
        {"192.168.255.255", "192.168.0.0/16"},
        {"192.169.0.0", NULL},
        {"198.17.255.255", NULL},
        {"198.18.0.0", "198.18.0.0/15"},
        {"198.19.255.255", "198.18.0.0/15"},
        {"198.20.0.0", NULL},
        {"198.51.100.7", "198.51.100.0/24"},
        {"198.51.101.0", NULL},
        {"203.0.112.255", NULL},
        {"203.0.113.0", "203.0.113.0/24"},
        {"203.0.114.0", NULL},
        {"223.255.255.255", NULL},
        {"224.0.0.1", "224.0.0.0/4"},
        {"239.255.255.250", "224.0.0.0/4"},
        {"240.0.0.0", "240.0.0.0/4"},
        {"255.255.255.254", "240.0.0.0/4"},
        {"255.255.255.255", "255.255.255.255/32"},
        {"8.8.8.8", NULL},
        {"::", "::/128"},
        {"::1", "::1/128"},
        {"::2", "::/96"},
        {"::127.0.0.1", "::/96"},
        {"::8.8.8.8", "::/96"},
        {"::ffff:0:127.0.0.1", "::/3"},
        {"::ffff:127.0.0.1", "127.0.0.0/8"},
        {"::ffff:7f00:1", "127.0.0.0/8"},
        {"::ffff:169.254.169.254", "169.254.0.0/16"},
        {"::ffff:8.8.8.8", NULL},
        {"64:ff9b::127.0.0.1", "127.0.0.0/8"},
        {"64:ff9b::192.168.1.1", "192.168.0.0/16"},
        {"64:ff9b::8.8.8.8", NULL},
        {"64:ff9b:1::8.8.8.8", "64:ff9b:1::/48"},
        {"64:ff9b:1:ffff::1", "64:ff9b:1::/48"},
        {"64:ff9b:0:1::8.8.8.8", "::/3"},
        {"64:ff9b:2::1", "::/3"},
        {"100::1", "100::/64"},
        {"100:0:0:1::1", "::/3"},
        {"1fff:ffff::1", "::/3"},
        {"2000::1", NULL},
        {"2001::1", "2001::/32"},
        {"2001:0:5ef5:79fd::1", "2001::/32"},
        {"2001:1::1", "2001::/23"},
        {"2001:20::1", "2001::/23"},
        {"2001:1ff:ffff::", "2001::/23"},
        {"2001:200::1", NULL},
        {"2001:db7::1", NULL},
        {"2001:db8::1", "2001:db8::/32"},
        {"2001:db9::1", NULL},
        {"2001:4860:4860::8888", NULL},
        {"2002::1", "2002::/16"},
        {"2002:7f00:1::", "2002::/16"},
        {"2002:808:808::", "2002::/16"},
        {"2003::1", NULL},
        {"2600::5efe:a00:1", ""},
        {"2600::200:5efe:808:808", ""},
        {"2600::100:5efe:808:808", NULL},
        {"2600::5eff:808:808", NULL},
        {"3ffe:ffff::1", NULL},
        {"3fff::1", "3fff::/20"},
        {"3fff:fff:ffff::1", "3fff::/20"},
        {"3fff:1000::1", NULL},
        {"4000::1", "4000::/2"},
        {"5f00::1", "5f00::/16"},
        {"5f01::1", "4000::/2"},
        {"8000::1", "8000::/1"},
        {"fbff::1", "8000::/1"},
        {"fc00::1", "fc00::/7"},
        {"fd00:ec2::254", "fc00::/7"},
        {"fdff::1", "fc00::/7"},
        {"fe00::1", "8000::/1"},
        {"fe80::1", "fe80::/10"},
        {"fe80::5efe:a00:1", "fe80::/10"},
        {"febf::1", "fe80::/10"},
        {"fec0::1", "fec0::/10"},
        {"feff::1", "fec0::/10"},
        {"ff02::1", "ff00::/8"},
        {"ffff::1", "ff00::/8"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct relay_address address = address_of(rows[i][0]);
        const struct relay_special *special = relay_address_special(&address);
        char text[RELAY_PREFIX_TEXT_SIZE] = "";
        if (special != NULL && special->prefix.address.family != 0)
            relay_prefix_print(&special->prefix, text);
        if ((special == NULL) != (rows[i][1] == NULL) || (special != NULL && strcmp(text, rows[i][1]) != 0))
            fail_msg("%s is in %s, not %s", rows[i][0], special ? text : "no range", rows[i][1]);
        assert_int_equal(relay_address_is_special(&address), special != NULL);
    }
    assert_true(relay_address_is_special(&(struct relay_address){0}));
}

/* Whatever another implementation of the registries calls not global or multicast must be special here; the
 * reverse holds for IPv4 up to the ranges that we refuse on top. Addresses around the borders of every range,
 * and random ones. */
static const char differential[] =
    "python3 -c '\n"
    "import ipaddress as i, random\n"
    "random.seed(9)\n"
    "nets = [n for c in (i._IPv4Constants, i._IPv6Constants) for n in c._private_networks]\n"
    "nets += [i.ip_network(n) for n in (\"224.0.0.0/4\", \"ff00::/8\", \"100.64.0.0/10\", \"fec0::/10\")]\n"
    "rows = []\n"
    "for n in nets:\n"
    "    a, b, top = int(n[0]), int(n[-1]), 2 ** n.max_prefixlen - 1\n"
    "    cls = type(n[0])\n"
    "    rows += [cls(max(0, min(top, v))) for v in (a - 1, a, a + 1, b - 1, b, b + 1, random.randint(a, "
    "b))]\n"
    "rows += [i.IPv4Address(random.getrandbits(32)) for _ in range(3000)]\n"
    "rows += [i.IPv6Address(random.getrandbits(128)) for _ in range(500)]\n"
    "rows += [i.IPv6Address((0x2 << 124) | random.getrandbits(124)) for _ in range(500)]\n"
    "for r in rows:\n"
    "    m = getattr(r, \"ipv4_mapped\", None)\n"
    "    j = m or r\n"
    "    print(r, int(j.is_global and not j.is_multicast and not getattr(j, \"is_site_local\", 0)))\n"
    "'";

static void the_table_agrees_with_another_implementation(void **state)
{
    FILE *rows = popen(differential, "r");
    assert_non_null(rows);
    char text[64];
    int is_global, count = 0;
    struct relay_prefix extra = prefix_of("192.88.99.0/24"), protocol = prefix_of("192.0.0.0/24");
    while (fscanf(rows, "%63s %d", text, &is_global) == 2) {
        struct relay_address address = address_of(text);
        bool special = relay_address_is_special(&address);
        count++;
        if (!is_global && !special)
            fail_msg("%s is not global, but passes", text);
        if (is_global && special && address.family == 4 && !relay_prefix_contains(&extra, &address) &&
            !relay_prefix_contains(&protocol, &address))
            fail_msg("%s is global, but is refused", text);
    }
    assert_int_equal(pclose(rows), 0);
    assert_true(count > 4000);
}

static void prefixes_have_zero_host_bits(void **state)
{
    static const char *const refused[] = {
        "10.0.0.1/8",
        "10.0.0.0/33",
        "10.0.0.0/",
        "10.0.0.0/08",
        "10.0.0.0/-1",
        "10.0.0.0/ 8",
        "10/8",
        "/8",
        "",
        "fc00::/129",
        "fc01::/7",
        "10.0.0.0/8/8",
        "*/0",
        "128.0.0.0/0",
        "10.0.0.0/0x8",
        "::1/127",
        "10.0.0.0/255.0.0.0",
    };
    struct relay_prefix prefix;
    for (size_t i = 0; i < COUNT(refused); i++)
        if (relay_prefix_parse(refused[i], strlen(refused[i]), &prefix) != RELAY_ERR_INVALID)
            fail_msg("%s must be refused", refused[i]);
    static const char *const rows[][2] = {
        {"10.0.0.0/8", "10.0.0.0/8"}, {"0.0.0.0/0", "0.0.0.0/0"},       {"192.0.2.1", "192.0.2.1/32"},
        {"fc00::/7", "fc00::/7"},     {"2001:DB8::", "2001:db8::/128"}, {"192.0.2.128/25", "192.0.2.128/25"},
    };
    char text[RELAY_PREFIX_TEXT_SIZE];
    for (size_t i = 0; i < COUNT(rows); i++) {
        prefix = prefix_of(rows[i][0]);
        assert_string_equal(relay_prefix_print(&prefix, text), rows[i][1]);
    }
}

static void prefixes_contain_their_addresses(void **state)
{
    static const struct {
        const char *prefix, *address;
        bool inside;
    } rows[] = {
        {"10.0.0.0/8", "10.255.0.1", true},
        {"10.0.0.0/8", "11.0.0.0", false},
        {"0.0.0.0/0", "255.255.255.255", true},
        {"0.0.0.0/0", "::1", false},
        {"::/0", "ffff::", true},
        {"::/0", "1.2.3.4", false},
        {"192.0.2.1/32", "192.0.2.1", true},
        {"192.0.2.1/32", "192.0.2.0", false},
        {"172.16.0.0/12", "172.31.255.255", true},
        {"172.16.0.0/12", "172.32.0.0", false},
        {"2001:db8::1/128", "2001:db8::1", true},
        {"2001:db8::1/128", "2001:db8::2", false},
        {"fc00::/7", "fdff::", true},
        {"fc00::/7", "fe00::", false},
        {"10.0.0.0/8", "::ffff:10.0.0.1", false},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct relay_prefix prefix = prefix_of(rows[i].prefix);
        struct relay_address address = address_of(rows[i].address);
        assert_int_equal(relay_prefix_contains(&prefix, &address), rows[i].inside);
    }
    assert_false(relay_prefix_contains(&(struct relay_prefix){0}, &(struct relay_address){0}));
}

static void sources_are_counted_under_their_prefix(void **state)
{
    static const char *const rows[][2] = {
        {"192.0.2.77", "192.0.2.0/24"},
        {"::ffff:192.0.2.77", "192.0.2.0/24"},
        {"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"},
    };
    char text[RELAY_PREFIX_TEXT_SIZE];
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct relay_address address = address_of(rows[i][0]);
        struct relay_prefix prefix = relay_prefix_of(&address, 24, 64), same = prefix_of(rows[i][1]);
        assert_string_equal(relay_prefix_print(&prefix, text), rows[i][1]);
        assert_true(relay_prefix_hash(&prefix, 7) == relay_prefix_hash(&same, 7));
        assert_true(relay_prefix_hash(&prefix, 7) != relay_prefix_hash(&prefix, 8));
    }
    struct relay_address address = address_of("192.0.2.77");
    struct relay_prefix whole = relay_prefix_of(&address, 200, 200);
    assert_string_equal(relay_prefix_print(&whole, text), "192.0.2.77/32");
}

static void sets_hold_each_prefix_once(void **state)
{
    struct relay_prefix_set set = {0};
    struct relay_address in = address_of("10.1.2.3"), wrapped = address_of("::ffff:10.1.2.3"),
                         out = address_of("11.0.0.1");
    assert_false(relay_prefix_set_contains(&set, &in));
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 40; i++) {
            char text[32];
            snprintf(text, sizeof(text), "10.%d.0.0/16", i);
            struct relay_prefix prefix = prefix_of(text);
            assert_int_equal(relay_prefix_set_add(&set, &prefix), 0);
        }
    assert_int_equal(set.count, 40);
    assert_true(relay_prefix_set_contains(&set, &in));
    assert_true(relay_prefix_set_contains(&set, &wrapped));
    assert_false(relay_prefix_set_contains(&set, &out));
    relay_prefix_set_dispose(&set);
    assert_int_equal(set.count, 0);
    relay_prefix_set_dispose(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_strict_addresses_are_parsed),
        cmocka_unit_test(addresses_are_printed_canonically),
        cmocka_unit_test(sockaddrs_go_there_and_back),
        cmocka_unit_test(wrapped_addresses_are_unwrapped),
        cmocka_unit_test(special_ranges_are_known),
        cmocka_unit_test(the_table_agrees_with_another_implementation),
        cmocka_unit_test(prefixes_have_zero_host_bits),
        cmocka_unit_test(prefixes_contain_their_addresses),
        cmocka_unit_test(sources_are_counted_under_their_prefix),
        cmocka_unit_test(sets_hold_each_prefix_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
