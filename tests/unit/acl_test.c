#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/wire/acl.h"
#include "lib/wire/error.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define TCP          RELAY_TRANSPORT_TCP
#define UDP          RELAY_TRANSPORT_UDP
#define DENIED       RELAY_ERR_DENIED
#define PROHIBITED   RELAY_ERR_ADDRESS_PROHIBITED

static struct relay_address address_of(const char *text)
{
    struct relay_address address;
    if (relay_address_parse(text, strlen(text), &address) != 0)
        fail_msg("%s is an address", text);
    return address;
}

/* `rules` are separated by spaces; NULL is no list. */
static struct relay_acl acl_of(const char *rules)
{
    struct relay_acl acl = {.given = rules != NULL};
    char copy[512], *rest = copy, *rule;
    snprintf(copy, sizeof(copy), "%s", rules != NULL ? rules : "");
    while ((rule = strsep(&rest, " ")) != NULL) {
        const char *why = NULL;
        if (*rule != '\0' && relay_acl_add(&acl, rule, &why) != 0)
            fail_msg("%s: %s", rule, why);
    }
    return acl;
}

static int judge(const char *rules, const char *host, const char *text, uint16_t port,
                 enum relay_transport transport)
{
    struct relay_acl acl = acl_of(rules);
    struct relay_acl_context context = {0};
    struct relay_address address = address_of(text);
    int verdict = relay_acl_judge_address(&acl, &context, host, &address, port, transport);
    /* The judgement before DNS must not refuse a name of which an address passes. */
    if (host != NULL && verdict == 0)
        assert_int_equal(relay_acl_judge_name(&acl, &context, host, port, transport), 0);
    relay_acl_dispose(&acl);
    return verdict;
}

static void special_addresses_are_prohibited_on_both_transports(void **state)
{
    static const char *const prohibited[] = {
        "127.0.0.1",
        "127.255.255.254",
        "127.0.0.53",
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "10.255.255.255",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.0.1",
        "192.168.255.255",
        "100.64.0.1",
        "100.127.255.255",
        "169.254.0.1",
        "169.254.169.254",
        "192.0.0.1",
        "192.0.0.170",
        "192.0.2.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "192.88.99.1",
        "::",
        "::1",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "feff::1",
        "fc00::1",
        "fd00::1",
        "fd00:ec2::254",
        "ff02::1",
        "ff0e::1",
        "2001:db8::1",
        "2001:db8:ffff::1",
        "2001::1",
        "2001:2::1",
        "2001:10::1",
        "2001:1ff::1",
        "3fff::1",
        "3fff:fff::1",
        "5f00::1",
        "100::1",
        "::127.0.0.1",
        "::10.0.0.1",
        "::8.8.8.8",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:172.16.0.1",
        "::ffff:192.168.1.1",
        "::ffff:169.254.169.254",
        "::ffff:0.0.0.0",
        "::ffff:224.0.0.1",
        "::ffff:100.64.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b::192.168.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b::0.0.0.0",
        "64:ff9b:1::1",
        "64:ff9b:1::8.8.8.8",
        "64:ff9b:1:2:3::",
        "2002:7f00:1::1",
        "2002:a00:1::",
        "2002:808:808::1",
        "2002:c0a8:1::",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:0:808:808::1",
        "2600::5efe:127.0.0.1",
        "2600::200:5efe:10.0.0.1",
        "2600::5efe:8.8.8.8",
        "2a00:1450::200:5efe:8.8.8.8",
        "fe80::5efe:10.0.0.1",
        "::ffff:0:127.0.0.1",
        "4000::1",
        "8000::1",
        "1::1",
        "e000::1",
    };
    static const char *const lists[] = {NULL, "+*", "+*:1-65535", "+0.0.0.0/0 +[::]/0",
                                        "+name.example +*.example +*"};
    for (size_t i = 0; i < COUNT(prohibited); i++)
        for (size_t list = 0; list < COUNT(lists); list++)
            for (int transport = TCP; transport <= UDP; transport++)
                for (int named = 0; named < 2; named++)
                    if (judge(lists[list], named ? "name.example" : NULL, prohibited[i], 443, transport) !=
                        PROHIBITED)
                        fail_msg("%s must be prohibited with list %zu", prohibited[i], list);
    assert_true(COUNT(prohibited) >= 80);
}

static void the_public_internet_passes_without_a_list(void **state)
{
    static const char *const allowed[] = {
        "1.1.1.1",         "8.8.8.8",
        "9.255.255.255",   "11.0.0.0",
        "126.255.255.255", "128.0.0.1",
        "172.32.0.1",      "192.0.1.1",
        "192.169.0.1",     "198.20.0.1",
        "223.255.255.255", "100.128.0.1",
        "2001:200::1",     "2001:4860:4860::8888",
        "2606:4700::1111", "2a00:1450:4001::200e",
        "3ffe::1",         "3fff:1000::1",
        "::ffff:8.8.8.8",  "64:ff9b::8.8.8.8",
    };
    for (size_t i = 0; i < COUNT(allowed); i++)
        for (int transport = TCP; transport <= UDP; transport++) {
            assert_int_equal(judge(NULL, NULL, allowed[i], 443, transport), 0);
            assert_int_equal(judge("+*", "a.example", allowed[i], 443, transport), 0);
            assert_int_equal(judge("", NULL, allowed[i], 443, transport), DENIED);
        }
}

static void the_first_matching_rule_decides(void **state)
{
    static const struct {
        const char *rules, *host, *address;
        uint16_t port;
        int verdict;
    } rows[] = {
        {"+db.example", "db.example", "8.8.8.8", 80, 0},
        {"+db.example", "db.example", "10.0.0.1", 80, PROHIBITED},
        {"+db.example", "DB.Example.", "8.8.8.8", 80, 0},
        {"+DB.example.", "db.example", "8.8.8.8", 80, 0},
        {"+db.example", "xdb.example", "8.8.8.8", 80, DENIED},
        {"+db.example", "x.db.example", "8.8.8.8", 80, DENIED},
        {"+db.example", NULL, "8.8.8.8", 80, DENIED},
        {"+db.example +10.0.0.0/8", "db.example", "10.0.0.1", 80, 0},
        {"+db.example +10.0.0.0/8", "other.example", "10.0.0.1", 80, 0},
        {"+db.example +10.0.0.0/8", "other.example", "8.8.8.8", 80, DENIED},
        {"-10.0.0.0/8 +db.example", "db.example", "10.0.0.1", 80, PROHIBITED},
        {"-10.0.0.0/8 +db.example", "db.example", "8.8.8.8", 80, 0},
        {"-8.8.8.0/24 +db.example", "db.example", "8.8.8.8", 80, PROHIBITED},
        {"+db.example -8.8.8.8", "db.example", "8.8.8.8", 80, 0},
        {"+db.example -* +10.0.0.0/8", "db.example", "10.0.0.1", 80, DENIED},
        {"+db.example -* +10.0.0.0/8", "db.example", "8.8.8.8", 80, 0},
        {"+db.example -10.0.0.0/9 +10.0.0.0/8", "db.example", "10.0.0.1", 80, PROHIBITED},
        {"+db.example -10.0.0.0/9 +10.0.0.0/8", "db.example", "10.128.0.1", 80, 0},
        {"-db.example +*", "db.example", "8.8.8.8", 80, DENIED},
        {"-db.example +*", "other.example", "8.8.8.8", 80, 0},
        {"-db.example +*", NULL, "8.8.8.8", 80, 0},
        {"+8.8.8.8 -db.example", "db.example", "8.8.8.8", 80, 0},
        {"+8.8.8.8 -db.example", "db.example", "8.8.4.4", 80, DENIED},
        {"+*.example", "a.example", "8.8.8.8", 80, 0},
        {"+*.example", "a.b.EXAMPLE", "8.8.8.8", 80, 0},
        {"+*.example", "example", "8.8.8.8", 80, DENIED},
        {"+*.example", "aexample", "8.8.8.8", 80, DENIED},
        {"+*.example", ".example", "8.8.8.8", 80, DENIED},
        {"+*.example", "a.example.org", "8.8.8.8", 80, DENIED},
        {"-*.bad.example +*.example", "a.bad.example", "8.8.8.8", 80, DENIED},
        {"-*.bad.example +*.example", "bad.example", "8.8.8.8", 80, 0},
        {"+*:443", NULL, "8.8.8.8", 443, 0},
        {"+*:443", NULL, "8.8.8.8", 444, DENIED},
        {"+*:8000-9000", NULL, "8.8.8.8", 7999, DENIED},
        {"+*:8000-9000", NULL, "8.8.8.8", 8000, 0},
        {"+*:8000-9000", NULL, "8.8.8.8", 9000, 0},
        {"+*:8000-9000", NULL, "8.8.8.8", 9001, DENIED},
        {"-*:25-443 +*", NULL, "8.8.8.8", 443, DENIED},
        {"+127.0.0.1:8080", NULL, "127.0.0.1", 8080, 0},
        {"+127.0.0.1:8080", "localhost", "127.0.0.1", 8080, 0},
        {"+127.0.0.1:8080", NULL, "127.0.0.1", 8081, PROHIBITED},
        {"+127.0.0.1:8080", NULL, "127.0.0.2", 8080, PROHIBITED},
        {"+127.0.0.1", NULL, "::ffff:127.0.0.1", 80, 0},
        {"+::ffff:127.0.0.1", NULL, "127.0.0.1", 80, 0},
        {"+[::ffff:10.0.0.0]/104", NULL, "10.1.2.3", 80, 0},
        {"-10.0.0.0/8 +*", NULL, "::ffff:10.0.0.1", 80, PROHIBITED},
        {"-8.8.8.8 +*", NULL, "64:ff9b::8.8.8.8", 80, PROHIBITED},
        {"-64:ff9b::/96 +*", NULL, "64:ff9b::8.8.8.8", 80, PROHIBITED},
        {"-64:ff9b::/96 +*", NULL, "8.8.8.8", 80, 0},
        {"+10.0.0.0/8", NULL, "64:ff9b::10.0.0.1", 80, 0},
        {"+::/0", NULL, "64:ff9b::8.8.8.8", 80, DENIED},
        {"+[::1]:80", NULL, "::1", 80, 0},
        {"+[::1]:80", NULL, "::1", 81, PROHIBITED},
        {"+::1", NULL, "::1", 81, 0},
        {"+fd00::/8", NULL, "fd00:ec2::254", 80, 0},
        {"+[fd00::/8]:80", NULL, "fd00::1", 80, 0},
        {"+[fd00::/8]:80", NULL, "fd00::1", 81, PROHIBITED},
        {"+[fd00::]/8:80", NULL, "fd00::1", 80, 0},
        {"+[fd00::]:80/8", NULL, "fd00::1", 80, 0},
        {"+10.0.0.0:80/8", NULL, "10.1.1.1", 80, 0},
        {"+10.0.0.0/8:80", NULL, "10.1.1.1", 81, PROHIBITED},
        {"+2002::/16", NULL, "2002:a00:1::", 80, 0},
        {"+[2001::]/32", NULL, "2001::1", 80, 0},
        {"+[64:ff9b:1::]/48", NULL, "64:ff9b:1::1", 80, 0},
        {"+[2600::5efe:0:0]/96", NULL, "2600::5efe:8.8.8.8", 80, 0},
        {"+0.0.0.0/0", NULL, "127.0.0.1", 80, PROHIBITED},
        {"+0.0.0.0/0", NULL, "8.8.8.8", 80, 0},
        {"+0.0.0.0/0", NULL, "2600::1", 80, DENIED},
        {"-0.0.0.0/0 +*", NULL, "8.8.8.8", 80, PROHIBITED},
        {"+*", NULL, "8.8.8.8", 0, DENIED},
    };
    for (size_t i = 0; i < COUNT(rows); i++)
        for (int transport = TCP; transport <= UDP; transport++) {
            int verdict = judge(rows[i].rules, rows[i].host, rows[i].address, rows[i].port, transport);
            if (verdict != rows[i].verdict)
                fail_msg("\"%s\" %s %s:%u gives %s", rows[i].rules, rows[i].host ? rows[i].host : "-",
                         rows[i].address, rows[i].port, relay_error_name(verdict));
        }
}

static void guarded_ports_need_a_literal_rule_with_ports(void **state)
{
    static const struct {
        uint16_t port;
        int tcp, udp;
    } rows[] = {
        {19, 0, DENIED},       {24, 0, 0},
        {25, DENIED, 0},       {26, 0, 0},
        {53, DENIED, DENIED},  {123, 0, DENIED},
        {119, DENIED, 0},      {563, DENIED, 0},
        {134, 0, 0},           {135, DENIED, DENIED},
        {137, DENIED, DENIED}, {139, DENIED, DENIED},
        {140, 0, 0},           {161, 0, DENIED},
        {389, 0, DENIED},      {445, DENIED, 0},
        {465, 0, 0},           {587, 0, 0},
        {443, 0, 0},           {1900, 0, DENIED},
        {11211, 0, DENIED},    {853, 0, 0},
    };
    static const char *const closed[] = {
        NULL, "+*", "+*:1-65535", "+a.example:1-65535 +8.8.8.8", "+8.0.0.0/8 +*", "+0.0.0.0/0:1-65535"};
    static const char *const open[] = {"+8.8.8.8:1-65535", "+* +8.0.0.0/8:1-65535",
                                       "+8.8.8.8 +8.8.8.8:1-65535"};
    for (size_t i = 0; i < COUNT(rows); i++) {
        for (size_t list = 0; list < COUNT(closed); list++) {
            assert_int_equal(judge(closed[list], "a.example", "8.8.8.8", rows[i].port, TCP), rows[i].tcp);
            assert_int_equal(judge(closed[list], "a.example", "8.8.8.8", rows[i].port, UDP), rows[i].udp);
        }
        for (size_t list = 0; list < COUNT(open); list++) {
            assert_int_equal(judge(open[list], "a.example", "8.8.8.8", rows[i].port, TCP), 0);
            assert_int_equal(judge(open[list], NULL, "8.8.8.8", rows[i].port, UDP), 0);
        }
    }
}

/* What refuses a special-purpose address is said to be the address, unless a rule lets it through but for the
 * port. */
static void a_guarded_port_is_not_blamed_on_the_address(void **state)
{
    static const struct {
        const char *rules, *host, *address;
        int verdict;
    } rows[] = {
        {"+10.0.0.0/8", NULL, "10.1.2.3", DENIED},
        {"+10.0.0.0/8", "a.example", "10.1.2.3", DENIED},
        {"+10.0.0.0/8", NULL, "::ffff:10.1.2.3", DENIED},
        {"+10.0.0.0/8 -10.1.0.0/16", NULL, "10.1.2.3", PROHIBITED},
        {"-10.1.0.0/16 +10.0.0.0/8", NULL, "10.1.2.3", PROHIBITED},
        {"+10.0.0.0/8 +10.1.2.3:25 +10.1.2.3:53", NULL, "10.1.2.3", 0},
        {"+10.0.0.0/8:80", NULL, "10.1.2.3", PROHIBITED},
        {"+*", NULL, "10.1.2.3", PROHIBITED},
        {"+a.example", "a.example", "10.1.2.3", PROHIBITED},
        {NULL, NULL, "10.1.2.3", PROHIBITED},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        int tcp = judge(rows[i].rules, rows[i].host, rows[i].address, 25, TCP);
        int udp = judge(rows[i].rules, rows[i].host, rows[i].address, 53, UDP);
        if (tcp != rows[i].verdict || udp != rows[i].verdict)
            fail_msg("row %zu: %s, %s", i, relay_error_name(tcp), relay_error_name(udp));
    }
}

static void port_53_is_open_to_configured_resolvers(void **state)
{
    struct relay_address resolvers[] = {address_of("9.9.9.9"), address_of("::ffff:8.8.4.4"),
                                        address_of("10.0.0.53")};
    struct relay_acl_context context = {.resolvers = resolvers, .resolver_count = COUNT(resolvers)};
    static const struct {
        const char *address;
        int verdict;
    } rows[] = {{"9.9.9.9", 0}, {"8.8.4.4", 0}, {"8.8.8.8", DENIED}, {"10.0.0.53", PROHIBITED}};
    struct relay_acl none = acl_of(NULL), all = acl_of("+*");
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct relay_address address = address_of(rows[i].address);
        assert_int_equal(relay_acl_judge_address(&none, &context, NULL, &address, 53, UDP), rows[i].verdict);
        assert_int_equal(relay_acl_judge_address(&all, &context, "r.example", &address, 53, TCP),
                         rows[i].verdict);
    }
    assert_int_equal(relay_acl_judge_name(&none, &context, "r.example", 53, UDP), 0);
    relay_acl_dispose(&all);
}

static void names_are_denied_early_only_when_no_address_could_pass(void **state)
{
    static const struct {
        const char *rules, *host;
        uint16_t port;
        int verdict;
    } rows[] = {
        {NULL, "a.example", 443, 0},
        {NULL, "a.example", 25, DENIED},
        {NULL, "a.example", 53, DENIED},
        {NULL, "a.example", 0, DENIED},
        {"", "a.example", 443, DENIED},
        {"+a.example", "a.example", 443, 0},
        {"+a.example", "A.EXAMPLE.", 443, 0},
        {"+a.example", "b.example", 443, DENIED},
        {"+a.example:80", "a.example", 443, DENIED},
        {"+a.example:80 +8.8.8.8", "a.example", 443, 0},
        {"-10.0.0.0/8 +a.example", "a.example", 443, 0},
        {"-10.0.0.0/8", "a.example", 443, DENIED},
        {"-a.example +*", "a.example", 443, DENIED},
        {"-a.example:80 +*", "a.example", 443, 0},
        {"+10.0.0.0/8 -a.example", "a.example", 443, 0},
        {"-* +10.0.0.0/8", "a.example", 443, DENIED},
        {"-*:443 +*", "a.example", 443, DENIED},
        {"+*:443", "a.example", 80, DENIED},
        {"+*", "a.example", 25, DENIED},
        {"+10.0.0.0/8", "a.example", 25, DENIED},
        {"+10.0.0.0/8:25", "a.example", 25, 0},
        {"+* -a.example", "a.example", 25, DENIED},
    };
    struct relay_acl_context context = {0};
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct relay_acl acl = acl_of(rows[i].rules);
        int verdict = relay_acl_judge_name(&acl, &context, rows[i].host, rows[i].port, TCP);
        relay_acl_dispose(&acl);
        if (verdict != rows[i].verdict)
            fail_msg("\"%s\" %s:%u gives %s", rows[i].rules ? rows[i].rules : "no list", rows[i].host,
                     rows[i].port, relay_error_name(verdict));
    }
}

static bool on_is_own(void *data, const struct relay_address *address, uint16_t port,
                      enum relay_transport transport)
{
    return relay_address_equal(address, data) && port == 443;
}

static void own_listeners_are_prohibited_whatever_the_list_says(void **state)
{
    struct relay_address own = address_of("8.8.8.8");
    struct relay_acl_context context = {.is_own = on_is_own, .data = &own};
    struct relay_acl acl = acl_of("+8.8.8.8:1-65535 +*");
    static const char *const forms[] = {"8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"};
    for (size_t i = 0; i < COUNT(forms); i++) {
        struct relay_address address = address_of(forms[i]);
        assert_int_equal(relay_acl_judge_address(&acl, &context, NULL, &address, 443, TCP), PROHIBITED);
        assert_int_equal(relay_acl_judge_address(&acl, &context, NULL, &address, 444, TCP), 0);
    }
    struct relay_address none = {0};
    assert_int_equal(relay_acl_judge_address(&acl, &context, NULL, &none, 444, TCP), PROHIBITED);
    relay_acl_dispose(&acl);
}

static void malformed_rules_are_refused_with_a_reason(void **state)
{
    static const char *const rules[] = {
        "",
        "*",
        "10.0.0.0/8",
        "+",
        "-",
        "++*",
        "+ *",
        "+*/8",
        "+*:",
        "+*:0",
        "+*:65536",
        "+*:99999",
        "+*:1-",
        "+*:-1",
        "+*:2-1",
        "+*:080",
        "+*:80-90-91",
        "+*:80:90",
        "+*:http",
        "+*:80 ",
        "+*:1,2",
        "+10.0.0.1/8",
        "+10.0.0.0/33",
        "+10.0.0.0/",
        "+10.0.0.0/8/8",
        "+10.0.0.0/8:80:80",
        "+10.0.0/8",
        "+127.1",
        "+2130706433",
        "+0x7f.1",
        "+a.0x7f",
        "+0177.0.0.1",
        "+1.2.3.4.5",
        "+[::1",
        "+[::1]80",
        "+[::1]]",
        "+[]",
        "+[]:80",
        "+[10.0.0.1]",
        "+[a.example]",
        "+[::1/128]/128",
        "+[::1%lo]",
        "+::1%lo",
        "+fc00::1/7",
        "+fe80::/129",
        "+*.",
        "+*.*",
        "+*.*.example",
        "+**",
        "+a..example",
        "+.example",
        "+a.example/24",
        "+a b",
        "+a.example:443/24",
        "+*example",
        "+a.*.example",
        "+64:ff9b::/96",
        "+64:ff9b::8.8.8.8",
        "+ex\xc3\xa4mple",
        "+a%2eexample",
        "+a.example..",
        "+aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.example",
        "+1111:2222:3333:4444:5555:6666:7777:8888:9999/128888888888888888",
    };
    struct relay_acl acl = {0};
    for (size_t i = 0; i < COUNT(rules); i++) {
        const char *why = NULL;
        if (relay_acl_add(&acl, rules[i], &why) != RELAY_ERR_INVALID || why == NULL)
            fail_msg("\"%s\" must be refused", rules[i]);
    }
    assert_int_equal(acl.count, 0);
    assert_false(acl.given);
    relay_acl_dispose(&acl);
}

static void a_port_behind_an_address_without_brackets_is_noticed(void **state)
{
    static const char *const noticed[] = {"+::1:443", "-2001:db8::1:53", "+fe80::a:b:8443"};
    static const char *const others[] = {
        "+::1",
        "+::443",
        "+2001:4860:4860::8888",
        "+::1:443/128",
        "+[::1]:443",
        "+[::1:443]",
        "+::1:44a",
        "+::1:0443",
        "+1:2:3:4:5:6:7:443",
        "+::ffff:192.0.2.1",
        "+*:443",
        "+a.example:443",
        "+",
        "+192.0.2.1:443",
        "+2001:db8::/32",
        "+1:2:3:4:5:6::443",
    };
    for (size_t i = 0; i < COUNT(noticed); i++)
        if (!relay_acl_seems_to_name_port(noticed[i]))
            fail_msg("%s", noticed[i]);
    for (size_t i = 0; i < COUNT(others); i++)
        if (relay_acl_seems_to_name_port(others[i]))
            fail_msg("%s", others[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(special_addresses_are_prohibited_on_both_transports),
        cmocka_unit_test(the_public_internet_passes_without_a_list),
        cmocka_unit_test(the_first_matching_rule_decides),
        cmocka_unit_test(guarded_ports_need_a_literal_rule_with_ports),
        cmocka_unit_test(a_guarded_port_is_not_blamed_on_the_address),
        cmocka_unit_test(port_53_is_open_to_configured_resolvers),
        cmocka_unit_test(names_are_denied_early_only_when_no_address_could_pass),
        cmocka_unit_test(own_listeners_are_prohibited_whatever_the_list_says),
        cmocka_unit_test(malformed_rules_are_refused_with_a_reason),
        cmocka_unit_test(a_port_behind_an_address_without_brackets_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
