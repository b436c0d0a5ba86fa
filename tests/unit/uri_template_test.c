#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/wire/error.h"
#include "lib/wire/uri_template.h"

#define HTTPS "https://Relay.example:4433/.well-known/masque/udp/{target_host}/{target_port}/"

static struct relay_uri_template compiled(const char *text)
{
    struct relay_uri_template t;
    struct relay_uri_template_fault fault = {0};
    if (relay_uri_template_parse(&t, text, &fault) != 0)
        fail_msg("%s: %zu: %s", text, fault.position, fault.message);
    return t;
}

static void expansions(void **state)
{
    static const struct {
        const char *text, *name, *ipv6;
    } rows[] = {
        {RELAY_URI_TEMPLATE_UDP_DEFAULT, "/.well-known/masque/udp/a.example/443/",
         "/.well-known/masque/udp/2001%3Adb8%3A%3A1/443/"},
        {HTTPS, "/.well-known/masque/udp/a.example/443/", "/.well-known/masque/udp/2001%3Adb8%3A%3A1/443/"},
        {"/masque{?target_host,target_port}", "/masque?target_host=a.example&target_port=443",
         "/masque?target_host=2001%3Adb8%3A%3A1&target_port=443"},
        {"/m?h={target_host}&p={target_port}", "/m?h=a.example&p=443", "/m?h=2001%3Adb8%3A%3A1&p=443"},
        {"/?h={target_host}&p={target_port}", "/?h=a.example&p=443", "/?h=2001%3Adb8%3A%3A1&p=443"},
        {"/m?x=%201{&target_port,target_host}", "/m?x=%201&target_port=443&target_host=a.example",
         "/m?x=%201&target_port=443&target_host=2001%3Adb8%3A%3A1"},
        {"/m{?target_host}{&target_port}&end", "/m?target_host=a.example&target_port=443&end",
         "/m?target_host=2001%3Adb8%3A%3A1&target_port=443&end"},
        {"/{target_host,target_port}", "/a.example,443", "/2001%3Adb8%3A%3A1,443"},
        {"/{target_host}{?target_port}", "/a.example?target_port=443", "/2001%3Adb8%3A%3A1?target_port=443"},
        {"/u/{target_port}@{target_host}", "/u/443@a.example", "/u/443@2001%3Adb8%3A%3A1"},
        /* undefined variables */
        {"/{user}/{target_host}/{target_port}/{a.b,c%20d,_1}", "//a.example/443/",
         "//2001%3Adb8%3A%3A1/443/"},
        {"/{target_host,x}/{y,target_port}{z}", "/a.example/443", "/2001%3Adb8%3A%3A1/443"},
        {"/{x,target_host,y,target_port}", "/a.example,443", "/2001%3Adb8%3A%3A1,443"},
        {"/m{?user,target_host,target_port,x}", "/m?target_host=a.example&target_port=443",
         "/m?target_host=2001%3Adb8%3A%3A1&target_port=443"},
        {"/m{?user}{?target_port,target_host}{&Target_Host}", "/m?target_port=443&target_host=a.example",
         "/m?target_port=443&target_host=2001%3Adb8%3A%3A1"},
        {"/{target_host}{x}/{target_port}", "/a.example/443", "/2001%3Adb8%3A%3A1/443"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct relay_uri_template t = compiled(rows[i].text);
        const char *const expected[] = {rows[i].name, rows[i].ipv6};
        static const char *const hosts[] = {"a.example", "2001:db8::1"};
        for (int j = 0; j < 2; j++) {
            struct relay_host host, matched;
            uint16_t port = 0;
            char buffer[256];
            int len = (int)strlen(expected[j]);
            assert_int_equal(relay_host_parse(&host, hosts[j], strlen(hosts[j]), RELAY_HOST_BARE), 0);
            assert_int_equal(relay_uri_template_expand(&t, &host, 443, buffer, sizeof(buffer)), len);
            assert_string_equal(buffer, expected[j]);
            assert_int_equal(relay_uri_template_expand(&t, &host, 443, buffer, (size_t)len),
                             RELAY_ERR_TOO_BIG);
            assert_int_equal(relay_uri_template_match(&t, expected[j], (size_t)len, &matched, &port), 0);
            assert_string_equal(matched.name, hosts[j]);
            assert_int_equal(matched.kind, host.kind);
            assert_int_equal(port, 443);
            for (int cut = 0; cut < len;
                 cut++) /* a path cut anywhere has another port or is no path of ours */
                if (relay_uri_template_match(&t, expected[j], (size_t)cut, &matched, &port) == 0)
                    assert_true(port != 443 || strcmp(matched.name, hosts[j]) != 0);
        }
    }
}

static void full_uris_keep_their_authority(void **state)
{
    struct relay_uri_template t = compiled(HTTPS);
    assert_true(t.has_authority);
    assert_string_equal(t.host.name, "relay.example");
    assert_int_equal(t.port, 4433);
    t = compiled("https://[2001:db8::1]/{target_host}/{target_port}");
    assert_int_equal(t.host.kind, RELAY_HOST_IPV6);
    assert_int_equal(t.port, 443);
    t = compiled(RELAY_URI_TEMPLATE_UDP_DEFAULT);
    assert_false(t.has_authority);
}

static void templates_that_are_refused(void **state)
{
    static const struct {
        const char *text;
        size_t position;
        const char *message; /* a part of it */
    } rows[] = {
        {"", 0, "absolute path"},
        {"masque/{target_host}/{target_port}", 0, "absolute path"},
        {"http://relay.example/{target_host}/{target_port}", 0, "absolute path"},
        {"https://relay.example", 21, "absolute path"},
        {"https://relay.example{?target_host,target_port}", 21, "absolute path"},
        {"https:///{target_host}/{target_port}", 8, "host"},
        {"https://relay.example:0/{target_host}/{target_port}", 8, "host"},
        {"https://{target_host}/{target_port}", 8, "host"},
        {"https://u@relay.example/{target_host}/{target_port}", 8, "host"},
        {"//relay.example/{target_host}/{target_port}", 0, "two slashes"},
        {"/masque/", 8, "target_host is missing"},
        {"/masque/{target_host}/", 22, "target_port is missing"},
        {"/masque/{target_port}/", 22, "target_host is missing"},
        {"/{target_host}/{target_host}/{target_port}", 16, "twice"},
        {"/{target_host}/{target_port}{?target_port}", 30, "twice"},
        {"/{target_host}/{target_port}/{}", 30, "no name"},
        {"/{target_host,}/{target_port}", 14, "no name"},
        {"/{target_host}/{target_port}/{a-b}", 30, "no name"},
        {"/{target_host}/{target_port}/{a..b}", 30, "no name"},
        {"/{target_host}/{target_port}/{.a}", 30, "operator"},
        {"/{target_host}/{target_port}/{a.}", 30, "no name"},
        {"/{target_host}/{target_port}/{a%2}", 30, "no name"},
        {"/{target_host}/{target_port}/{ }", 30, "no name"},
        {"/{target_host}/{target_port}/{user:3}", 30, "modifiers"},
        {"/{target_host}/{target_port}/{user*}", 30, "modifiers"},
        {"/{Target_Host}/{target_port}", 28, "target_host is missing"},
        {"/{target_host}{user}{target_port}", 21, "reserved"},
        {"/{target_host}{user}x{target_port}", 20, "reserved"},
        {"/m{?user}{&target_host,target_port}", 10, "needs a '?'"},
        {"/{target_host:3}/{target_port}", 2, "modifiers"},
        {"/{target_host*}/{target_port}", 2, "modifiers"},
        {"/{+target_host}/{target_port}", 2, "operator"},
        {"/{#target_host}/{target_port}", 2, "operator"},
        {"/{.target_host}/{target_port}", 2, "operator"},
        {"{/target_host,target_port}", 0, "absolute path"},
        {"/x{/target_host,target_port}", 3, "operator"},
        {"/{;target_host}/{target_port}", 2, "operator"},
        {"/{|target_host}/{target_port}", 2, "operator"},
        {"/m?x{?target_host,target_port}", 5, "already"},
        {"/m{?target_host}{?target_port}", 17, "already"},
        {"/m{&target_host,target_port}", 3, "needs a '?'"},
        {"/{target_host}{target_port}", 15, "reserved"},
        {"/{target_host}x{target_port}", 14, "reserved"},
        {"/{target_host}%2F{target_port}", 14, "reserved"},
        {"/{target_host}/{target_port}x", 28, "reserved"},
        {"/{target_host}/{target_port", 15, "without '}'"},
        {"/{target_host}/target_port}", 26, "without '{'"},
        {"/{{target_host}/{target_port}", 2, "no name"},
        {"/{target_host}/{target_port}#top", 28, "fragment"},
        {"/a b/{target_host}/{target_port}", 2, "not allowed"},
        {"/b\xc3\xbc/{target_host}/{target_port}", 2, "not allowed"},
        {"/a\x01/{target_host}/{target_port}", 2, "not allowed"},
        {"/a\x7f/{target_host}/{target_port}", 2, "not allowed"},
        {"/a<b/{target_host}/{target_port}", 2, "not allowed"},
        {"/100%/{target_host}/{target_port}", 4, "hexadecimal"},
        {"/{target_host}/{target_port}/%", 29, "hexadecimal"},
        {"/{target_host}/{target_port}/%4", 29, "hexadecimal"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct relay_uri_template t;
        struct relay_uri_template_fault fault = {99, ""};
        assert_int_equal(relay_uri_template_parse(&t, rows[i].text, NULL), RELAY_ERR_INVALID);
        assert_int_equal(relay_uri_template_parse(&t, rows[i].text, &fault), RELAY_ERR_INVALID);
        if (fault.position != rows[i].position || strstr(fault.message, rows[i].message) == NULL)
            fail_msg("%s: at %zu: %s", rows[i].text, fault.position, fault.message);
    }
}

static void templates_have_a_limit(void **state)
{
    static const char end[] = "/{target_host}/{target_port}";
    char text[RELAY_URI_TEMPLATE_MAX + 2];
    size_t pad = RELAY_URI_TEMPLATE_MAX - strlen(end);
    struct relay_uri_template t;
    memset(text, 'a', sizeof(text));
    text[0] = '/';
    memcpy(text + pad, end, sizeof(end));
    assert_int_equal(relay_uri_template_parse(&t, text, NULL), 0);
    memcpy(text + pad, "a", 1);
    memcpy(text + pad + 1, end, sizeof(end));
    assert_int_equal(relay_uri_template_parse(&t, text, NULL), RELAY_ERR_TOO_BIG);
}

static const char PATH[] = RELAY_URI_TEMPLATE_UDP_DEFAULT, QUERY[] = "/masque{?target_host,target_port}";
static const struct {
    const char *template, *path, *name; /* NULL: refused with `result` */
    int result;                         /* or the port */
} requests[] = {
#define P(rest) "/.well-known/masque/udp/" rest
    {PATH, P("example.com/443/"), "example.com", 443},
    {PATH, P("EXAMPLE.com./65535/"), "example.com", 65535},
    {PATH, P("192.0.2.1/1/"), "192.0.2.1", 1},
    {PATH, P("2001%3Adb8%3A%3A1/443/"), "2001:db8::1", 443},
    {PATH, P("2001%3adb8%3a%3a1/443/"), "2001:db8::1", 443},
    {PATH, P("%65xample.com/%34%34%33/"), "example.com", 443}, /* equivalent by RFC 3986 section 6.2.2.2 */
#define BAD(rest)                                                                                            \
    {                                                                                                        \
        PATH, P(rest), NULL, RELAY_ERR_INVALID                                                               \
    }
    BAD(""),
    BAD("/"),
    BAD("example.com"),
    BAD("example.com/"),
    BAD("example.com/443"),
    BAD("example.com/443//"),
    BAD("example.com/443/x"),
    BAD("example.com/443/?x=1"),
    BAD("example.com//"),
    BAD("/443/"),
    BAD("//443/"),
    BAD("example.com/0/"),
    BAD("example.com/65536/"),
    BAD("example.com/70000/"),
    BAD("example.com/4294967739/"),
    BAD("example.com/+443/"),
    BAD("example.com/-443/"),
    BAD("example.com/ 443/"),
    BAD("example.com/%20443/"),
    BAD("example.com/443%20/"),
    BAD("example.com/443%00/"),
    BAD("example.com/0443/"),
    BAD("example.com/0x1bb/"),
    BAD("example.com/https/"),
    BAD("example.com/*/"),
    BAD("*/443/"),
    BAD("{target_host}/{target_port}/"),
    BAD("%7Btarget_host%7D/443/"),
    BAD("example.com/{target_port}/"),
    BAD("2001:db8::1/443/"),             /* colons must be escaped */
    BAD("2001%253Adb8%253A%253A1/443/"), /* twice */
    BAD("%2565xample.com/443/"),
    BAD("example.com/%2534%2534%2533/"),
    BAD("[2001%3Adb8%3A%3A1]/443/"),
    BAD("%5B2001%3Adb8%3A%3A1%5D/443/"),
    BAD("%3A%3A1%25lo/443/"),
    BAD("%3A%3A1%2525lo/443/"),
    BAD("example.com%/443/"),
    BAD("example.com%2/443/"),
    BAD("example.com%zz/443/"),
    BAD("example.com%00/443/"),
    BAD("example.com%00.allowed.example/443/"),
    BAD("example.com%2F/443/"),
    BAD("example.com%0d%0a/443/"),
    BAD("b%C3%BCcher.example/443/"),
    BAD("b\xc3\xbc"
        "cher.example/443/"),
    BAD("127.1/443/"),
    BAD("0x7f.1/443/"),
    BAD("2130706433/443/"),
    BAD("0x7f%2E1/443/"),
    BAD("127.0.0.1%3A53/443/"),
    BAD("../443/"),
    BAD("example.com/../443/"),
    BAD("."),
#undef BAD
#define OTHER(path)                                                                                          \
    {                                                                                                        \
        PATH, path, NULL, RELAY_URI_TEMPLATE_OTHER                                                           \
    }
    OTHER(""),
    OTHER("/"),
    OTHER("*"),
    OTHER("/index.html"),
    OTHER("/.well-known/masque/udp"),
    OTHER("/.well-known/masque/udpx/example.com/443/"),
    OTHER("/.well-known/masque/ip/*/*/"),
    OTHER("/.WELL-KNOWN/masque/udp/example.com/443/"),
    OTHER("/x/../.well-known/masque/udp/example.com/443/"),
    OTHER("//.well-known/masque/udp/example.com/443/"),
    OTHER("/%2Ewell-known/masque/udp/example.com/443/"),
#undef OTHER
    {QUERY, "/masque?target_host=example.com&target_port=443", "example.com", 443},
    {QUERY, "/masque?target_host=%3A%3A1&target_port=443", "::1", 443},
    {QUERY, "/masque", NULL, RELAY_ERR_INVALID},
    {QUERY, "/masque?", NULL, RELAY_ERR_INVALID},
    {QUERY, "/masque?target_port=443&target_host=example.com", NULL, RELAY_ERR_INVALID},
    {QUERY, "/masque?target_host=example.com", NULL, RELAY_ERR_INVALID},
    {QUERY, "/masque?target_host=&target_port=443", NULL, RELAY_ERR_INVALID},
    {QUERY, "/masque?target_host=example.com&target_port=", NULL, RELAY_ERR_INVALID},
    {QUERY, "/masque?target_host=example.com&target_port=443&target_port=80", NULL, RELAY_ERR_INVALID},
    {QUERY, "/masque?target_host=example.com&target_port=443#x", NULL, RELAY_ERR_INVALID},
    {QUERY, "/masque?target_host=example+com&target_port=443", NULL, RELAY_ERR_INVALID},
    {QUERY, "/masques?target_host=example.com&target_port=443", NULL, RELAY_URI_TEMPLATE_OTHER},
    {QUERY, "/masqu", NULL, RELAY_URI_TEMPLATE_OTHER},
    {QUERY, "/masque/?target_host=example.com&target_port=443", NULL, RELAY_URI_TEMPLATE_OTHER},
};

static void paths(void **state)
{
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        struct relay_uri_template t = compiled(requests[i].template);
        struct relay_host host;
        uint16_t port = 0;
        size_t len = strlen(requests[i].path);
        char *path = malloc(len + 1);
        memcpy(path, requests[i].path, len);
        path = realloc(path, len > 0 ? len : 1);
        int rv = relay_uri_template_match(&t, path, len, &host, &port);
        if ((rv == 0 ? port : rv) != requests[i].result || (rv == 0) != (requests[i].name != NULL))
            fail_msg("%s: %d", requests[i].path, rv);
        if (rv == 0)
            assert_string_equal(host.name, requests[i].name);
        free(path);
    }
}

static void a_host_of_any_length_is_bounded(void **state)
{
    struct relay_uri_template t = compiled("/{target_host}/{target_port}");
    for (size_t len = 200; len < 800; len++) {
        struct relay_host host;
        uint16_t port;
        char path[1024];
        int size = snprintf(path, sizeof(path), "/%0*d", (int)len, 0);
        for (size_t i = 1; i <= len; i++)
            path[i] = i % 50 == 0 && i != len ? '.' : 'a';
        memcpy(path + size, "/53", 3);
        assert_int_equal(relay_uri_template_match(&t, path, (size_t)size + 3, &host, &port),
                         len <= 253 ? 0 : RELAY_ERR_INVALID);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(expansions),
        cmocka_unit_test(full_uris_keep_their_authority),
        cmocka_unit_test(templates_that_are_refused),
        cmocka_unit_test(templates_have_a_limit),
        cmocka_unit_test(paths),
        cmocka_unit_test(a_host_of_any_length_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
