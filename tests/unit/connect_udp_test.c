/* CONNECT-UDP from the request to the target's socket and back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <stdio.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <unistd.h>

#include "lib/net/log.h"
#include "lib/wire/error.h"
#include "modules/connect_udp.h"
#include "modules/unknown_protocol.h"
#include "tests/unit/support/fake_resolver.h"
#include "tests/unit/support/loopback.h"

static struct loopback loopback;
static int target_fd = -1;
static char target_path[128], named_path[128];
static unsigned target_port;
static uint8_t big[66000];

static const struct fake_name zone[] = {
    {"local.example", .addresses = {"127.0.0.1"}},
    {"private.example", .addresses = {"10.1.2.3"}},
    {"silent.example", .is_silent = true},
    /* A socket cannot be connected to the broadcast address. */
    {"late.example", .addresses = {"255.255.255.255"}, .has_late = true, .late = {"127.0.0.1"},
     .late_after = 50 * RELAY_MS},
    {"late-none.example", .addresses = {"255.255.255.255"}, .has_late = true, .late_after = 50 * RELAY_MS},
    {"early.example", .addresses = {"127.0.0.1"}, .has_late = true, .late_after = 60 * RELAY_SECOND},
    {NULL},
};

static void add_policy(const char *template, const char *rule)
{
    struct relay_proxy_policy *policy = &loopback.snapshot->connect_udp[loopback.snapshot->num_connect_udp];
    const char *why;
    assert_int_equal(relay_uri_template_parse(&policy->template, template, NULL), 0);
    assert_int_equal(relay_acl_add(&policy->acl, rule, &why), 0);
    relay_connect_udp_register(loopback.path, loopback.snapshot->num_connect_udp++);
}

static void open_target(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    target_fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(target_fd, (struct sockaddr *)&address, len), 0);
    assert_int_equal(getsockname(target_fd, (struct sockaddr *)&address, &len), 0);
    target_port = ntohs(address.sin_port);
    snprintf(target_path, sizeof(target_path), "/.well-known/masque/udp/127.0.0.1/%u/",
             ntohs(address.sin_port));
    snprintf(named_path, sizeof(named_path), "/.well-known/masque/udp/local.example/%u/",
             ntohs(address.sin_port));
}

static int setup(void **state)
{
    loopback_init(&loopback);
    loopback.snapshot->proxy_name = strdup("twohop-egress");
    add_policy("/.well-known/masque/udp/{target_host}/{target_port}/", "+127.0.0.0/8");
    add_policy("/masque{?target_host,target_port}", "+127.0.0.0/8");
    relay_unknown_protocol_register(loopback.path);
    loopback_start(&loopback);
    fake_resolver_init(&loopback.loop, zone);
    open_target();
    return 0;
}

static int teardown(void **state)
{
    loopback_dispose(&loopback);
    close(target_fd);
    assert_int_equal(fake_resolver_pending(), 0);
    assert_int_equal(loopback.metrics.open_tunnels_udp_h3, 0);
    return 0;
}

static struct loopback_stream *open_tunnel(void)
{
    struct loopback_stream *stream = loopback_request(&loopback, "connect-udp", target_path, NULL);
    loopback_wait(&loopback, stream->status != 0);
    assert_int_equal(stream->status, 200);
    return stream;
}

/* What the target receives next: its length, -1 when nothing has come. */
static ssize_t target_receive(uint8_t *bytes, size_t size, struct sockaddr_in *from)
{
    socklen_t len = sizeof(*from);
    return recvfrom(target_fd, bytes, size, 0, (struct sockaddr *)from, from != NULL ? &len : NULL);
}

/* Sends back all that has come; how many. */
static unsigned target_echo(void)
{
    static uint8_t bytes[65536];
    struct sockaddr_in from;
    unsigned count = 0;
    ssize_t len;
    while ((len = target_receive(bytes, sizeof(bytes), &from)) >= 0) {
        assert_int_equal(sendto(target_fd, bytes, (size_t)len, 0, (struct sockaddr *)&from, sizeof(from)),
                         len);
        count++;
    }
    return count;
}

static void test_echo(void **state)
{
    struct loopback_stream *stream = open_tunnel();
    assert_string_equal(loopback_field(stream, "capsule-protocol"), "?1");
    loopback_deliver_datagram(stream, 0, "hello", 5);
    loopback_deliver_datagram(stream, 0, "", 0);
    loopback_deliver_capsule(stream, 0, "\0capsule", 8);
    loopback_deliver_capsule(stream, 0x1f * 3 + 0x17, "greasegrease", 12);
    unsigned echoed = 0;
    loopback_wait(&loopback, (echoed += target_echo()) == 3);
    loopback_wait(&loopback, stream->num_datagrams == 3);
    static const char *const expected[] = {"hello", "", "capsule"};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(stream->datagrams[i].context_id, 0);
        assert_int_equal(stream->datagrams[i].len, strlen(expected[i]));
        assert_memory_equal(stream->datagrams[i].bytes, expected[i], strlen(expected[i]));
    }
    assert_int_equal(loopback.metrics.datagrams_in, 3);
    assert_int_equal(loopback.metrics.datagrams_out, 3);
    assert_int_equal(loopback.metrics.udp_bytes_in, 12);
    assert_int_equal(loopback.metrics.udp_bytes_out, 12);
    assert_int_equal(loopback.metrics.tunnels_udp_h3, 1);
    assert_int_equal(loopback.metrics.open_tunnels_udp_h3, 1);
    loopback_deliver_fin(stream);
    loopback_wait(&loopback, stream->is_gone);
    assert_true(stream->has_ended && !stream->is_reset);
    assert_int_equal(loopback.metrics.tunnels_closed, 1);
}

/* A peer without DATAGRAM frames gets capsules. */
static void test_capsules_only(void **state)
{
    struct loopback_stream *stream = loopback_request(&loopback, "connect-udp", named_path, NULL);
    stream->max_datagram = 0;
    loopback_wait(&loopback, stream->status == 200);
    assert_int_equal(fake_resolver_asked(), 1);
    loopback_deliver_capsule(stream, 0, "\0hello", 6);
    loopback_wait(&loopback, target_echo() == 1);
    loopback_wait(&loopback, stream->len == 8);
    assert_memory_equal(stream->bytes, "\0\6\0hello", 8);
}

static void test_refusals(void **state)
{
    static const struct {
        const char *protocol, *path;
        int status;
        const char *proxy_status;
    } rows[] = {
        {"connect-udp", "/.well-known/masque/udp/private.example/443/", 403, "destination_ip_prohibited"},
        {"connect-udp", "/.well-known/masque/udp/10.1.2.3/443/", 403, "destination_ip_prohibited"},
        {"connect-udp", "/.well-known/masque/udp/8.8.8.8/443/", 403, "http_request_denied"},
        {"connect-udp", "/.well-known/masque/udp/none.example/443/", 502, "dns_error; rcode=\"NXDOMAIN\""},
        {"connect-udp", "/.well-known/masque/udp/%3A%3A1/443/", 403, "destination_ip_prohibited"},
        {"connect-udp", "/.well-known/masque/udp/127.0.0.1/0/", 400, "http_request_error"},
        {"connect-udp", "/.well-known/masque/udp/127.0.0.1/65536/", 400, "http_request_error"},
        {"connect-udp", "/.well-known/masque/udp//443/", 400, "http_request_error"},
        {"connect-udp", "/.well-known/masque/udp/0x7f.1/443/", 400, "http_request_error"},
        {"connect-udp", "/.well-known/masque/udp/2130706433/443/", 400, "http_request_error"},
        {"connect-udp", "/.well-known/masque/udp/%253A%253A1/443/", 400, "http_request_error"},
        {"connect-udp", "/masque?target_host=127.0.0.1", 400, "http_request_error"},
        {"connect-udp", "/masque?target_host=10.1.2.3&target_port=1", 403, "destination_ip_prohibited"},
        {"connect-udp", "/elsewhere/127.0.0.1/443/", 400, "http_request_error"},
        {"connect-ip", "/.well-known/masque/udp/127.0.0.1/443/", 501, "http_protocol_error"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char expected[128];
        snprintf(expected, sizeof(expected), "twohop-egress; error=%s", rows[i].proxy_status);
        struct loopback_stream *stream = loopback_request(&loopback, rows[i].protocol, rows[i].path, NULL);
        loopback_deliver_capsule(stream, 0, "\0early",
                                 6); /* held, or else lost, but never in the way of the end */
        loopback_deliver_datagram(stream, 0, "early", 5);
        loopback_wait(&loopback, stream->is_gone);
        assert_int_equal(stream->status, rows[i].status);
        assert_string_equal(loopback_field(stream, "proxy-status"), expected);
        assert_true(stream->has_ended && stream->len == 0);
    }
    assert_int_equal(target_echo(), 0);
    loopback.env.is_draining = true;
    assert_int_equal(loopback_request(&loopback, "connect-udp", target_path, NULL)->status, 503);
}

static void test_early_datagrams(void **state)
{
    struct loopback_stream *stream = loopback_request(&loopback, "connect-udp", target_path, NULL);
    uint8_t bytes[16];
    for (uint8_t i = 0; i < 11; i++)
        loopback_deliver_datagram(stream, 0, &i, 1);
    assert_int_equal(stream->status, 0);
    loopback_wait(&loopback, stream->status == 200);
    for (uint8_t i = 0; i < 8; i++) {
        loopback_wait(&loopback, target_receive(bytes, sizeof(bytes), NULL) == 1);
        assert_int_equal(bytes[0], i);
    }
    assert_int_equal(loopback.metrics.drop_early, 3);

    stream = loopback_request(&loopback, "connect-udp", target_path, NULL);
    for (int i = 0; i < 3; i++)
        loopback_deliver_datagram(stream, 0, big, 32000);
    assert_int_equal(loopback.metrics.drop_early, 4);
}

static void test_contexts_and_sizes(void **state)
{
    struct loopback_stream *stream = open_tunnel();
    loopback_deliver_datagram(stream, 2, "two", 3);
    loopback_deliver_datagram(stream, 1, big, 65530); /* not ours to judge */
    assert_int_equal(loopback.metrics.drop_unknown_context, 2);
    assert_false(stream->is_reset);
    loopback_deliver_datagram(stream, 0, big, 65507);
    loopback_wait(&loopback, target_echo() == 1);
    loopback_wait(&loopback, loopback.metrics.drop_too_big == 1);
    loopback_deliver_datagram(stream, 0, big, 65527);
    loopback_wait(&loopback, loopback.metrics.drop_target_too_big == 1);
    assert_false(stream->is_reset);
    loopback_deliver_datagram(stream, 0, big, 65528);
    loopback_wait(&loopback, stream->is_gone);
    assert_true(stream->is_reset);
    assert_int_equal(stream->reset_error, RELAY_ERR_INVALID);
}

static void test_oversize(void **state)
{
    struct loopback_stream *stream = open_tunnel();
    loopback_deliver_datagram(stream, 0, big, 1201);
    loopback_deliver_datagram(stream, 0, "small", 5);
    unsigned echoed = 0;
    loopback_wait(&loopback, (echoed += target_echo()) == 2);
    loopback_wait(&loopback, stream->num_datagrams == 1);
    assert_int_equal(stream->datagrams[0].len, 5);
    assert_int_equal(loopback.metrics.drop_too_big, 0); /* the path may grow */
    loopback_wait(&loopback, loopback.metrics.drop_too_big == 1);
    assert_int_equal(stream->len, 0);

    loopback.snapshot->oversize_capsule = true;
    loopback_deliver_datagram(stream, 0, big, 1201);
    loopback_wait(&loopback, target_echo() == 1);
    loopback_wait(&loopback, stream->len == 1205);
    assert_memory_equal(stream->bytes, "\0\x44\xb2\0", 4); /* type, two bytes of length 1202, context */
    assert_int_equal(loopback.metrics.drop_too_big, 1);
}

/* What comes before the path has grown to its size is not lost. */
static void test_growing_path(void **state)
{
    struct loopback_stream *stream = open_tunnel();
    for (int i = 0; i < 10; i++)
        loopback_deliver_datagram(stream, 0, big, 1280);
    unsigned echoed = 0;
    loopback_wait(&loopback, (echoed += target_echo()) == 10);
    loopback_wait(&loopback, loopback.metrics.drop_too_big == 2); /* eight are kept */
    stream->max_datagram = 1300;
    loopback_wait(&loopback, stream->num_datagrams == 8);
    assert_int_equal(stream->datagrams[7].len, 1280);
    loopback_turns(&loopback, 20);
    assert_int_equal(loopback.metrics.drop_too_big, 2);
    assert_int_equal(loopback.metrics.datagrams_out, 8);
    stream->max_datagram = 1200;
    loopback_deliver_datagram(stream, 0, big, 1280);
    loopback_wait(&loopback, target_echo() == 1);
    loopback_turns(&loopback, 5); /* the tunnel ends while one is kept */
    loopback_vanish(stream);
    loopback_wait(&loopback, stream->is_gone);
    assert_int_equal(loopback.metrics.drop_closed, 1);
}

/* A client that is slow stops the reading of the target's socket; nothing is dropped. */
static void test_back_pressure(void **state)
{
    struct loopback_stream *stream = open_tunnel();
    stream->is_blocked = true;
    for (int i = 0; i < 20; i++)
        loopback_deliver_datagram(stream, 0, "x", 1);
    unsigned echoed = 0;
    loopback_wait(&loopback, (echoed += target_echo()) == 20);
    loopback_turns(&loopback, 10);
    assert_int_equal(stream->num_datagrams, 0);
    stream->is_blocked = false;
    loopback_writable(stream);
    loopback_wait(&loopback, stream->num_datagrams == 20);
    assert_int_equal(loopback.metrics.drop_blocked, 0);
}

static void test_unanswered_target(void **state)
{
    struct loopback_stream *stream = open_tunnel();
    loopback.snapshot->caps.udp_unanswered_rate = 0;
    for (int i = 0; i < 40; i++)
        loopback_deliver_datagram(stream, 0, "x", 1);
    assert_int_equal(loopback.metrics.drop_unanswered, 8);
    unsigned echoed = 0;
    loopback_wait(&loopback, (echoed += target_echo()) == 32);
    loopback_wait(&loopback, stream->num_datagrams == 32);
    assert_int_equal(loopback.metrics.datagrams_in, 32);
    for (int i = 0; i < 40; i++)
        loopback_deliver_datagram(stream, 0, "x", 1);
    assert_int_equal(loopback.metrics.drop_unanswered, 8);
}

#define IDLE (60 * RELAY_MS)

/* Datagrams now and then, for longer than the idle time. False: the machine was busy with others for so long that the
 * tunnel may well have ended. */
static bool lives_while_used(struct loopback_stream *stream)
{
    const uint64_t start = uv_hrtime();
    uint64_t before = start;
    while (uv_hrtime() < start + 150 * RELAY_MS) {
        uint64_t now = uv_hrtime();
        loopback_deliver_datagram(stream, 0, "x", 1);
        loopback_turns(&loopback, 5);
        if (uv_hrtime() >= before + IDLE)
            return false;
        assert_false(stream->is_gone);
        before = now;
    }
    return true;
}

static void test_idle(void **state)
{
    loopback.snapshot->timeouts.udp_idle = IDLE;
    struct loopback_stream *stream = open_tunnel();
    for (int i = 0; i < 100 && !lives_while_used(stream); i++) {
        loopback_wait(&loopback, stream->is_gone);
        stream = open_tunnel();
    }
    loopback_wait(&loopback, stream->is_gone);
    assert_int_equal(stream->reset_error, RELAY_ERR_IDLE);
}

/* A target that does not listen: its ICMP errors end the tunnel, after some. */
static void test_unusable_socket(void **state)
{
    struct loopback_stream *stream = open_tunnel();
    close(target_fd);
    target_fd = -1;
    for (int i = 0; i < 500 && !stream->is_gone; i++) {
        if (!stream->is_reset)
            loopback_deliver_datagram(stream, 0, "x", 1);
        loopback_turn(&loopback);
    }
    assert_true(stream->is_gone && stream->is_reset);
}

/* RFC 8305 section 3: the other family is waited for only when no socket can be connected yet. */
static void test_late_family(void **state)
{
    static const struct {
        const char *name;
        int status;
    } rows[] = {{"late.example", 200}, {"early.example", 200}, {"late-none.example", 502}};
    const char *why;
    assert_int_equal(relay_acl_add(&loopback.snapshot->connect_udp[0].acl, "+255.255.255.255", &why), 0);
    for (size_t i = 0; i < 3; i++) {
        char path[128];
        snprintf(path, sizeof(path), "/.well-known/masque/udp/%s/%u/", rows[i].name, target_port);
        struct loopback_stream *stream = loopback_request(&loopback, "connect-udp", path, NULL);
        loopback_deliver_datagram(stream, 0, "early", 5);
        loopback_wait(&loopback, stream->status != 0);
        assert_int_equal(stream->status, rows[i].status);
        assert_int_equal(fake_resolver_pending(), 0);
        if (rows[i].status == 200)
            loopback_wait(&loopback, target_echo() == 1);
        loopback_vanish(stream);
        loopback_wait(&loopback, stream->is_gone);
    }
    assert_int_equal(loopback.metrics.drop_early, 1); /* the refused one's */
    /* The peer goes while the late family is waited for. */
    char path[128];
    snprintf(path, sizeof(path), "/.well-known/masque/udp/late.example/%u/", target_port);
    struct loopback_stream *stream = loopback_request(&loopback, "connect-udp", path, NULL);
    loopback_turns(&loopback, 5);
    assert_int_equal(fake_resolver_pending(), 1);
    loopback_vanish(stream);
    loopback_wait(&loopback, stream->is_gone);
}

/* T28: in every state, from the first turn on, and with a lookup that never ends. */
static void test_vanishing_peers(void **state)
{
    for (int turns = 0; turns < 8; turns++) {
        struct loopback_stream *stream = loopback_request(&loopback, "connect-udp", named_path, NULL);
        loopback_deliver_datagram(stream, 0, "early", 5);
        loopback_turns(&loopback, turns);
        loopback_vanish(stream);
        loopback_wait(&loopback, stream->is_gone);
    }
    struct loopback_stream *stream =
        loopback_request(&loopback, "connect-udp", "/.well-known/masque/udp/silent.example/443/", NULL);
    loopback_turns(&loopback, 5);
    assert_int_equal(fake_resolver_pending(), 1);
    loopback_vanish(stream);
    loopback_wait(&loopback, stream->is_gone);
    assert_int_equal(fake_resolver_pending(), 0);
    assert_int_equal(stream->status, 0);
}

static void test_limits(void **state)
{
    loopback.snapshot->caps.tunnels_per_connection = 3;
    loopback.snapshot->caps.dials_per_connection = 1;
    struct loopback_stream *silent =
        loopback_request(&loopback, "connect-udp", "/.well-known/masque/udp/silent.example/443/", NULL);
    struct loopback_stream *waiting = loopback_request(&loopback, "connect-udp", target_path, NULL);
    struct loopback_stream *vanishing = loopback_request(&loopback, "connect-udp", target_path, NULL);
    assert_int_equal(loopback_request(&loopback, "connect-udp", target_path, NULL)->status, 503);
    assert_int_equal(loopback.metrics.limit_tunnels, 1);
    loopback_turns(&loopback, 5);
    assert_int_equal(waiting->status, 0); /* one dial at a time */
    loopback_vanish(vanishing);
    loopback_turns(&loopback, 2);
    loopback_vanish(silent);
    loopback_wait(&loopback, waiting->status == 200);
}

/* T74: 503 and no more; the next one works. */
static void test_no_descriptors(void **state)
{
    struct rlimit old, none;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = old;
    none.rlim_cur = 0;
    struct loopback_stream *stream = loopback_request(&loopback, "connect-udp", target_path, NULL);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    loopback_wait(&loopback, stream->status != 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(stream->status, 503);
    assert_int_equal(loopback.metrics.limit_descriptors, 1);
    open_tunnel();
}

/* The log of one tunnel. */
static const char *log_of_tunnel(void)
{
    static char text[8192];
    FILE *file = tmpfile();
    relay_log_set_fd(fileno(file));
    struct loopback_stream *stream = loopback_request(&loopback, "connect-udp", named_path, NULL);
    loopback_wait(&loopback, stream->status == 200);
    loopback_deliver_fin(stream);
    loopback_wait(&loopback, stream->is_gone);
    relay_log_set_fd(2);
    rewind(file);
    text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
    fclose(file);
    return text;
}

/* Who and where is logged only when it is asked for. */
static void test_log_lines(void **state)
{
    assert_string_equal(log_of_tunnel(), "");
    relay_log_set_level(RELAY_LOG_DEBUG);
    const char *text = log_of_tunnel();
    relay_log_set_level(RELAY_LOG_INFO);
    assert_non_null(strstr(text, "\"event\":\"tunnel_closed\",\"method\":\"connect-udp\",\"reason\":\"OK\""));
    assert_null(strstr(text, "192.0.2.77"));
    assert_null(strstr(text, "local.example"));
    assert_null(strstr(text, "127.0.0.1"));
    loopback.snapshot->observe_until = relay_loop_now(&loopback.loop) + RELAY_SECOND;
    text = log_of_tunnel();
    assert_non_null(strstr(
        text, "\"peer\":\"192.0.2.77:54321\",\"client\":\"192.0.2.77:54321\",\"target\":\"local.example:"));
    struct relay_prefix prefix;
    assert_int_equal(relay_prefix_parse("192.0.2.77", 10, &prefix), 0);
    assert_int_equal(relay_prefix_set_add(&loopback.snapshot->peers, &prefix), 0);
    assert_non_null(
        strstr(log_of_tunnel(), "\"peer\":\"192.0.2.77:54321\",\"client\":null,\"target\":\"local.example:"));
    loopback.snapshot->observe_until = relay_loop_now(&loopback.loop); /* the hour is over */
    assert_string_equal(log_of_tunnel(), "");
}

static void test_without_configuration(void **state)
{
    loopback.snapshot->num_connect_udp = 0;
    assert_int_equal(loopback_request(&loopback, "connect-udp", target_path, NULL)->status, 501);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_echo),
        TEST(test_capsules_only),
        TEST(test_refusals),
        TEST(test_early_datagrams),
        TEST(test_contexts_and_sizes),
        TEST(test_oversize),
        TEST(test_growing_path),
        TEST(test_no_descriptors),
        TEST(test_log_lines),
        TEST(test_back_pressure),
        TEST(test_unanswered_target),
        TEST(test_idle),
        TEST(test_unusable_socket),
        TEST(test_vanishing_peers),
        TEST(test_late_family),
        TEST(test_limits),
        TEST(test_without_configuration),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
