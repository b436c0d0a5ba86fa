/* The client's configuration: files and flags, good and bad. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "client/config.h"
#include "lib/wire/error.h"

#define SIZE(array) (sizeof(array) / sizeof((array)[0]))
#define PIN         "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="

static struct relay_client_config config;

static int load(const char *text, bool is_exposed)
{
    relay_client_config_init(&config);
    return relay_client_config_load(&config, "f", text, strlen(text), is_exposed);
}

static void test_complete_file(void **state)
{
    (void)state;
    assert_int_equal(load("chain:\n"
                          "  - template: '/m{?target_host,target_port}'\n"
                          "    urls: [https://a.example, 'https://[2001:db8::1]:4433/']\n"
                          "    token: secret\n"
                          "    http: 2\n"
                          "  - url: https://b.example:8443/x/{target_host}/{target_port}{?user}\n"
                          "    pin: sha256/" PIN "\n"
                          "http-proxy: 127.0.0.1:8080\n"
                          "socks: '[::1]:0'\n"
                          "forward: [tcp:127.0.0.1:22=host:22, 'udp:127.0.0.1:53=[2001:db8::53]:53']\n"
                          "log-level: debug\n",
                          true),
                     0);
    assert_int_equal(config.num_doubts, 1);
    assert_string_equal(config.doubts[0],
                        "f:4:12: warning: others may read this file, and a token stands in it: "
                        "chmod 600, or use token-file");
    assert_int_equal(config.num_hops, 2);
    assert_int_equal(config.hops[0].num_places, 2);
    assert_string_equal(config.hops[0].places[0].authority, "a.example:443");
    assert_string_equal(config.hops[0].places[1].authority, "[2001:db8::1]:4433");
    assert_string_equal(config.hops[0].identity.token, "secret");
    assert_int_equal(config.hops[0].http, RELAY_HOP_HTTP2);
    assert_true(config.hops[1].identity.has_pin);
    assert_int_equal(config.hops[1].identity.pin[0], 0xe3);
    assert_int_equal(config.http_proxy.ss_family, AF_INET);
    assert_int_equal(config.socks.ss_family, AF_INET6);
    assert_int_equal(config.num_forwards, 2);
    assert_true(config.forwards[1].is_udp);
    assert_string_equal(config.forwards[1].host.name, "2001:db8::53");
    assert_int_equal(config.log_level, RELAY_LOG_DEBUG);
    char path[128];
    struct relay_host host;
    assert_int_equal(relay_host_parse(&host, "t.example", 9, RELAY_HOST_BARE), 0);
    assert_true(relay_uri_template_expand(&config.hops[0].places[1].udp, &host, 53, path, sizeof(path)) > 0);
    assert_string_equal(path, "/m?target_host=t.example&target_port=53");
    assert_true(relay_uri_template_expand(&config.hops[1].places[0].udp, &host, 53, path, sizeof(path)) > 0);
    assert_string_equal(path, "/x/t.example/53");
    assert_int_equal(relay_client_config_check(&config, true), 0);
    relay_client_config_dispose(&config);
}

/* What an ingress has of its own comes before what its hop has; a trust of its own comes alone. */
static void test_ingresses_of_several_operators(void **state)
{
    (void)state;
    static const char form[] = "chain:\n"
                               "  - urls:\n"
                               "      - https://a.example\n"
                               "      - {token: of-b, url: https://b.example, ca: %s}\n"
                               "      - {url: https://c.example, pin: " PIN "}\n"
                               "    token: of-hop\n"
                               "    pin: " PIN "\n"
                               "    template: '/m{?target_host,target_port}'\n"
                               "  - url: https://e.example\n";
    char text[sizeof(form) + 100], ca[] = "/tmp/client_config_test.XXXXXX";
    FILE *file = fdopen(mkstemp(ca), "w");
    fputs("# of b\n-----BEGIN CERTIFICATE-----\n", file);
    fclose(file);
    snprintf(text, sizeof(text), form, ca);
    int error = load(text, true);
    unlink(ca);
    assert_int_equal(error, 0);
    assert_int_equal(config.num_doubts, 2);
    const struct relay_hop_config *hop = &config.hops[0];
    assert_int_equal(hop->num_places, 3);
    assert_string_equal(hop->places[1].authority, "b.example:443");
    assert_string_equal(relay_hop_config_token(hop, &hop->places[0]), "of-hop");
    assert_string_equal(relay_hop_config_token(hop, &hop->places[1]), "of-b");
    assert_string_equal(relay_hop_config_token(hop, &hop->places[2]), "of-hop");
    assert_ptr_equal(relay_hop_config_trust(hop, &hop->places[0]), &hop->identity);
    assert_string_equal(relay_hop_config_trust(hop, &hop->places[1])->ca, ca);
    assert_false(relay_hop_config_trust(hop, &hop->places[1])->has_pin);
    assert_ptr_equal(relay_hop_config_trust(hop, &hop->places[2]), &hop->places[2].identity);
    assert_null(relay_hop_config_token(&config.hops[1], &config.hops[1].places[0]));
    relay_client_config_dispose(&config);
}

static int parse(const char *const *args, size_t count, struct relay_client_command *command)
{
    char *argv[16] = {(char *)"twohop-client"};
    for (size_t i = 0; i < count; i++)
        argv[i + 1] = (char *)args[i];
    relay_client_config_init(&config);
    return relay_client_config_parse_flags(&config, command, (int)count + 1, argv);
}

static void expect_doubt(bool is_one, const char *expected)
{
    assert_int_equal(config.num_doubts, is_one);
    if (is_one)
        assert_string_equal(config.doubts[0], expected);
    relay_client_config_dispose(&config);
    assert_int_equal(config.num_doubts, 0);
}

/* A token file that its group or others may read is no error, and is named by its place. */
static void test_exposed_token_files(void **state)
{
    static const struct {
        mode_t mode;
        bool is_doubtful;
    } table[] = {{0600, false}, {0400, false}, {0640, true}, {0604, true}, {0644, true}, {0622, false}};
    char text[256], flag[256], expected[256], path[] = "/tmp/client_config_test.XXXXXX";
    int fd = mkstemp(path);
    assert_int_equal(write(fd, "secret\n", 7), 7);
    struct relay_client_command command;
    for (size_t i = 0; i < SIZE(table); i++) {
        assert_int_equal(fchmod(fd, table[i].mode), 0);
        snprintf(text, sizeof(text), "chain:\n  - urls: [{url: https://a, token-file: %s}]", path);
        assert_int_equal(load(text, true), 0); /* that this file is exposed is no matter: no token is in it */
        assert_string_equal(config.hops[0].places[0].identity.token, "secret");
        expect_doubt(table[i].is_doubtful, "f:2:41: warning: others may read this token file: chmod 600");
        snprintf(flag, sizeof(flag), "https://a,token-file=%s,http=2", path);
        assert_int_equal(parse((const char *[]){"--hop", flag}, 2, &command), 0);
        snprintf(expected, sizeof(expected), "--hop: warning: others may read the token file %s: chmod 600",
                 path);
        expect_doubt(table[i].is_doubtful, expected);
    }
    close(fd);
    unlink(path);
}

static void write_token(const char *path, const char *token)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(token, file);
    fclose(file);
}

static void expect_tokens(const char *hop, const char *place, const char *own)
{
    assert_string_equal(config.hops[0].identity.token, hop);
    assert_string_equal(config.hops[0].places[0].identity.token, place);
    assert_string_equal(config.hops[1].identity.token, own);
}

/* All of them, or none. */
static void test_token_files_are_read_again(void **state)
{
    char text[512], first[] = "/tmp/client_config_test.XXXXXX", second[] = "/tmp/client_config_test.XXXXXX";
    close(mkstemp(first));
    close(mkstemp(second));
    write_token(first, "one");
    write_token(second, "two\n");
    snprintf(text, sizeof(text),
             "chain:\n  - urls: [{url: https://a, token-file: %s}]\n    token-file: %s\n"
             "  - {url: https://b, token: own}",
             second, first);
    assert_int_equal(load(text, false), 0);
    expect_tokens("one", "two", "own");
    write_token(first, "three");
    write_token(second, "four\r\nno token\n");
    expect_tokens("one", "two", "own");
    assert_int_equal(relay_client_config_reload_tokens(&config), 0);
    expect_tokens("three", "four", "own");
    write_token(first, "five");
    write_token(second, "");
    assert_int_equal(relay_client_config_reload_tokens(&config), RELAY_ERR_INVALID);
    snprintf(text, sizeof(text), "%s: expected a token of 1 to 1024 characters", second);
    assert_string_equal(config.error, text);
    expect_tokens("three", "four", "own");
    unlink(second);
    assert_int_equal(mkfifo(second, 0600), 0); /* nobody is waited for */
    assert_int_equal(relay_client_config_reload_tokens(&config), RELAY_ERR_INVALID);
    unlink(second);
    assert_int_equal(relay_client_config_reload_tokens(&config), RELAY_ERR_INVALID);
    snprintf(text, sizeof(text), "%s: expected a readable file with the token in it", second);
    assert_string_equal(config.error, text);
    expect_tokens("three", "four", "own");
    unlink(first);
    relay_client_config_dispose(&config);
}

/* Whichever stands first. What an ingress has of its own is another matter: it comes in the place of its hop's. */
static void test_ca_and_pin(void **state)
{
    static const struct {
        const char *form, *error; /* NULL: it is good */
    } table[] = {
        {"chain:\n  - url: https://a\n    ca: %s\n    pin: " PIN, "f:4:10: expected ca or pin, not both"},
        {"chain:\n  - urls: [{url: https://a, ca: %s}]\n    pin: " PIN, NULL},
    };
    char text[256], ca[] = "/tmp/client_config_test.XXXXXX";
    FILE *file = fdopen(mkstemp(ca), "w");
    fputs("-----BEGIN CERTIFICATE-----\n", file);
    fclose(file);
    for (size_t i = 0; i < SIZE(table); i++) {
        snprintf(text, sizeof(text), table[i].form, ca);
        int error = load(text, false);
        if ((error == 0) != (table[i].error == NULL) ||
            (error != 0 && strstr(config.error, table[i].error) != config.error))
            fail_msg("%s\ngave: %s", text, config.error);
        relay_client_config_dispose(&config);
    }
    unlink(ca);
}

static void test_bad_files(void **state)
{
    (void)state;
    static const struct {
        const char *text, *error; /* a part of it */
    } table[] = {
        {"", "f:1:1: expected a mapping"},
        {"- x", "f:1:1: expected a mapping"},
        {"chian: []", "f:1:1: unknown key chian, expected one of chain, http-proxy"},
        {"? [a]\n: b", "f:1:3: unknown key that is no text, expected one of chain"},
        {"a: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
         "f:1:35: expected at most 32 levels"},
        {"socks: 127.0.0.1:1\nsocks: 127.0.0.1:2", "f:2:1: the key is there twice: socks"},
        {"chain: x", "f:1:8: expected a list of hops"},
        {"chain:\n  - url: http://a", "f:2:10: expected https://"},
        {"chain:\n  - url: https://a/path", "f:2:10: expected https://"},
        {"chain:\n  - url: https://u@a", "f:2:10: expected https://"},
        {"chain:\n  - url: https://a:0", "f:2:10: expected https://"},
        {"chain:\n  - url: https://a/{target_host}",
         "f:2:10: expected a URI Template of RFC 9298: target_port is missing, at byte 24 of it"},
        {"chain:\n  - url: https://a\n    template: /{target_port}",
         "f:3:15: expected a URI Template of RFC 9298: target_host is missing, at byte 15 of it"},
        {"chain:\n  - token: a", "f:2:5: expected a hop with url"},
        {"chain:\n  - url: https://a\n    token: a b", "f:3:12: expected a token of printable"},
        {"chain:\n  - url: https://a\n    token: a\n    token-file: /dev/null", "f:4:17: expected"},
        {"chain:\n  - url: https://a\n    token-file: /nonexistent", "f:3:17: expected a readable file"},
        {"chain:\n  - url: https://a\n    ca: /nonexistent", "f:3:9: expected a readable PEM"},
        {"chain:\n  - url: https://a\n    ca: /dev/null",
         "f:3:9: expected a PEM file with a certificate in it"},
        {"chain:\n  - url: https://a\n    pin: abcd", "f:3:10: expected the SHA-256"},
        {"chain:\n  - url: https://a\n    pin: " PIN "\n    ca: /nonexistent",
         "f:4:9: expected ca or pin, not both"},
        {"chain:\n  - urls: [{url: https://a, pin: " PIN ", ca: /nonexistent}]",
         "f:2:84: expected ca or pin, not both"},
        {"chain:\n  - url: https://a\n    http: 1", "f:3:11: expected auto, 3 or 2"},
        {"chain:\n  - url: https://a\n    template: x", "f:3:15: expected a path"},
        {"chain:\n  - url: https://a\n    colour: red",
         "f:3:5: unknown key colour, expected one of url, urls"},
        {"chain:\n  - url: https://a\n  - urls: [https://b]", "f:3:11: expected url: only hop 1"},
        {"chain:\n  - urls: [{token: a}]", "f:2:12: expected an ingress with url"},
        {"chain:\n  - urls: [{url: https://a, http: 2}]",
         "f:2:29: unknown key http, expected one of url, token"},
        {"chain:\n  - urls: [{url: https://a, token: a, token: b}]", "f:2:39: the key is there twice"},
        {"chain:\n  - urls: [{url: https://a, url: https://b}]", "f:2:29: the key is there twice"},
        {"chain:\n  - url: {url: https://a}", "f:2:10: expected a text"},
        {"http-proxy: localhost:80", "f:1:13: expected ADDRESS:PORT"},
        {"http-proxy: 127.0.0.1:99999", "f:1:13: expected ADDRESS:PORT"},
        {"http-proxy: ::1:80", "f:1:13: expected ADDRESS:PORT"},
        {"http-proxy: {}", "f:1:13: expected ADDRESS:PORT"},
        {"forward: sctp:127.0.0.1:1=a:1", "f:1:10: expected tcp:"},
        {"forward: [tcp:127.0.0.1:1=a]", "f:1:11: expected tcp:"},
        {"log-level: loud", "f:1:12: expected debug"},
        {"a: [", "f:"},
    };
    for (size_t i = 0; i < SIZE(table); i++) {
        assert_int_equal(load(table[i].text, false), RELAY_ERR_INVALID);
        if (strstr(config.error, table[i].error) != config.error)
            fail_msg("%s\ngave: %s\nwanted: %s", table[i].text, config.error, table[i].error);
        relay_client_config_dispose(&config);
    }
}

/* libyaml would take minutes. */
static void test_deep_file(void **state)
{
    static char text[3 + 400000 + 1] = "a: ";
    for (char *at = text + 3; at < text + sizeof(text) - 1; at += 4)
        memcpy(at, "{a: ", 4);
    assert_int_equal(load(text, false), RELAY_ERR_INVALID);
    assert_string_equal(config.error, "f:1:128: expected at most 32 levels");
}

static void test_flags(void **state)
{
    (void)state;
    static const char *const args[] = {
        "check",
        "--hop",
        "https://a.example:1/{target_host,target_port},token=t0,url=https://c.example,token=t1,pin=" PIN,
        "--hop",
        "https://b.example,pin=" PIN ",http=3",
        "--http-proxy=127.0.0.1:0",
        "--forward",
        "udp:127.0.0.1:1=b:2"};
    struct relay_client_command command;
    assert_int_equal(parse(args, SIZE(args), &command), 0);
    assert_true(command.check);
    assert_int_equal(config.num_hops, 2);
    assert_int_equal(config.hops[0].num_places, 2);
    const struct relay_hop_config *hop = &config.hops[0];
    assert_string_equal(relay_hop_config_token(hop, &hop->places[0]), "t0");
    assert_string_equal(relay_hop_config_token(hop, &hop->places[1]), "t1");
    assert_false(relay_hop_config_trust(hop, &hop->places[0])->has_pin);
    assert_true(relay_hop_config_trust(hop, &hop->places[1])->has_pin);
    assert_int_equal(config.hops[1].http, RELAY_HOP_HTTP3);
    assert_int_equal(config.num_forwards, 1);
    assert_int_equal(relay_client_config_check(&config, true), 0);
    relay_client_config_dispose(&config);
}

static void test_bad_flags(void **state)
{
    (void)state;
    static const struct {
        const char *args[2], *error;
    } table[] = {
        {{"--hop", "ftp://a"}, "--hop: expected https://"},
        {{"--hop", "https://a,token"}, "--hop: expected KEY=VALUE"},
        {{"--hop", "https://a,secret=x"}, "--hop: expected one of the keys"},
        {{"--hop", "https://a,pin=" PIN ",ca=/nonexistent"}, "--hop: expected ca or pin, not both"},
        {{"--socks", "1080"}, "--socks: expected ADDRESS:PORT"},
        {{"--colour", "x"}, "--colour: unknown option"},
        {{"x", "--help"}, "x: unknown command"},
        {{"-c", "/nonexistent.yaml"}, "/nonexistent.yaml: No such file"},
        {{"--help", "--hop"}, "--hop: a value is missing"},
    };
    struct relay_client_command command;
    for (size_t i = 0; i < SIZE(table); i++) {
        assert_int_equal(parse(table[i].args, 2, &command), RELAY_ERR_INVALID);
        if (strstr(config.error, table[i].error) != config.error)
            fail_msg("%s %s\ngave: %s", table[i].args[0], table[i].args[1], config.error);
        relay_client_config_dispose(&config);
    }
}

static void test_check(void **state)
{
    (void)state;
    assert_int_equal(load("socks: 127.0.0.1:1", false), 0);
    assert_int_equal(relay_client_config_check(&config, true), RELAY_ERR_INVALID);
    relay_client_config_dispose(&config);
    assert_int_equal(load("chain: [{url: 'https://a'}]", false), 0);
    assert_int_equal(relay_client_config_check(&config, false), 0);
    assert_int_equal(relay_client_config_check(&config, true), RELAY_ERR_INVALID);
    relay_client_config_dispose(&config);
}

static void test_fronts_on_one_address(void **state)
{
    static const struct {
        const char *text, *error; /* a part of it; NULL: it is good */
    } table[] = {
        {"http-proxy: 127.0.0.1:1\nsocks: 127.0.0.1:1",
         "http-proxy and socks: expected each on an address of its own, not both on 127.0.0.1 port 1"},
        {"http-proxy: 127.0.0.1:1\nsocks: 127.0.0.1:2", NULL},
        {"http-proxy: 127.0.0.1:0\nsocks: 127.0.0.1:0", NULL},
        {"http-proxy: 127.0.0.1:1\nsocks: '[::1]:1'", NULL},
        {"http-proxy: 0.0.0.0:1\nsocks: 127.0.0.1:1", "http-proxy and socks: expected"},
        {"socks: 127.0.0.1:1\nforward: tcp:127.0.0.1:1=a:1", "socks and forward: expected"},
        {"socks: 127.0.0.1:1\nforward: udp:127.0.0.1:1=a:1", NULL},
        {"forward: ['tcp:127.0.0.1:1=a:1', 'udp:127.0.0.1:1=a:1']", NULL},
        {"forward: ['udp:127.0.0.1:1=a:1', 'udp:127.0.0.2:1=a:1', 'udp:127.0.0.1:1=b:1']",
         "forward and forward:"},
    };
    for (size_t i = 0; i < SIZE(table); i++) {
        char text[256];
        snprintf(text, sizeof(text), "chain: [{url: 'https://a'}]\n%s", table[i].text);
        assert_int_equal(load(text, false), 0);
        assert_int_equal(relay_client_config_check(&config, false), 0);
        int error = relay_client_config_check(&config, true);
        if (table[i].error == NULL ? error != 0
                                   : error == 0 || strstr(config.error, table[i].error) != config.error)
            fail_msg("%s\ngave: %s", table[i].text, config.error);
        relay_client_config_dispose(&config);
    }
}

static void test_example_file(void **state)
{
    (void)state;
    relay_client_config_init(&config);
    int error = relay_client_config_load_file(&config, TWOHOP_SOURCE_DIR "/conf/client.yaml");
    if (error != 0)
        fail_msg("%s", config.error);
    assert_int_equal(config.num_hops, 2);
    assert_int_equal(relay_client_config_check(&config, true), 0);
    relay_client_config_dispose(&config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_complete_file),
        cmocka_unit_test(test_ingresses_of_several_operators),
        cmocka_unit_test(test_exposed_token_files),
        cmocka_unit_test(test_token_files_are_read_again),
        cmocka_unit_test(test_ca_and_pin),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_flags),
        cmocka_unit_test(test_bad_flags),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_deep_file),
        cmocka_unit_test(test_fronts_on_one_address),
        cmocka_unit_test(test_example_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
