/* A packet path through a CONNECT-UDP tunnel, against a session that remembers what it was asked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/net/path_tunnel.h"
#include "tests/unit/fake_session.h"

static struct relay_loop loop;
static struct relay_metrics metrics;
static struct relay_packet_path *path;
static struct relay_refusal refused;
static char told[64];
static uint8_t got[4096];
static size_t got_len, carrier_room;
static int close_error;

static void tell(char c)
{
    told[strlen(told)] = c;
}

static void on_packet(void *user, uint8_t *packet, size_t len, uint8_t ecn)
{
    memcpy(got + got_len, packet, len);
    got_len += len;
    tell('p');
}

static void on_writable(void *user)
{
    tell('w');
}

static void on_close(void *user, int error)
{
    close_error = error;
    tell('c');
}

static void on_refused(void *user, const struct relay_refusal *refusal)
{
    refused = *refusal;
    tell('r');
}

static void on_mtu(void *user)
{
    tell('m');
}

static void on_lost(void *user, int error)
{
    assert_int_equal(error, close_error);
    tell('l');
}

static const struct relay_packet_path_user path_cb = {
    .on_packet = on_packet, .on_writable = on_writable, .on_mtu = on_mtu, .on_close = on_close};

static size_t room_of_carrier(void *carrier)
{
    return carrier_room;
}

static int setup(void **state)
{
    memset(told, 0, sizeof(told));
    got_len = 0;
    close_error = 0;
    carrier_room = 5000;
    refused = (struct relay_refusal){0};
    assert_int_equal(relay_loop_init(&loop, &metrics), 0);
    fake_session_init(&loop);
    struct relay_request request = {
        .kind = RELAY_KIND_CAPSULES, .method = RELAY_SLICE("CONNECT"), .content_length = -1};
    struct relay_path_tunnel_config config = {.session = &fake_session,
                                              .request = &request,
                                              .room = room_of_carrier,
                                              .on_refused = on_refused,
                                              .on_lost = on_lost};
    path = relay_path_tunnel_open(&config);
    assert_non_null(path);
    path->cb = &path_cb;
    return 0;
}

static int teardown(void **state)
{
    if (path != NULL)
        path->ops->close(path);
    fake_turn(&loop);
    assert_false(fake.is_open);
    relay_loop_dispose(&loop);
    return 0;
}

static size_t send_packets(const char *run, size_t segment)
{
    return path->ops->send(path, (const uint8_t *)run, strlen(run), segment);
}

static void test_early_packets_are_repeated(void **state)
{
    assert_int_equal(send_packets("aabbcc", 2), 6);
    assert_int_equal(fake.num_datagrams, 3);
    fake_respond(200, NULL);
    assert_int_equal(fake.num_datagrams, 6);
    assert_memory_equal(fake.sent, "aabbccaabbcc", 12);
    fake_respond(200, NULL);
    assert_int_equal(send_packets("dd", 2), 2);
    assert_int_equal(fake.num_datagrams, 7);
}

static void test_early_packets_are_bounded(void **state)
{
    assert_int_equal(send_packets("abcdefghijklmn", 1), 14);
    fake_respond(200, NULL);
    assert_int_equal(fake.num_datagrams, 14 + 8);
}

static void test_no_repeat_when_something_came(void **state)
{
    static const uint8_t datagram[] = {0, 'x', 'y'};
    assert_int_equal(send_packets("aa", 2), 2);
    relay_tunnel_deliver_datagram(&fake.tunnel, datagram, sizeof(datagram));
    assert_string_equal(told, "p");
    assert_memory_equal(got, "xy", 2);
    fake_respond(200, NULL);
    assert_int_equal(fake.num_datagrams, 1);
}

static void test_unknown_context_is_dropped(void **state)
{
    static const uint8_t datagram[] = {2, 'x'};
    relay_tunnel_deliver_datagram(&fake.tunnel, datagram, sizeof(datagram));
    assert_string_equal(told, "");
}

static void test_back_pressure(void **state)
{
    fake_respond(200, NULL);
    assert_int_equal(path->ops->room(path), 6300);
    carrier_room = 0;
    assert_int_equal(path->ops->room(path), 1300); /* one packet, whose refusal brings on_writable */
    fake.datagrams_left = 1;
    assert_int_equal(send_packets("aabbcc", 2), 2);
    assert_int_equal(path->ops->room(path), 0);
    assert_int_equal(send_packets("bbcc", 2), 0);
    fake.datagrams_left = 10;
    relay_tunnel_writable(&fake.tunnel);
    fake_turn(&loop);
    assert_string_equal(told, "w");
    assert_int_equal(send_packets("bbcc", 2), 4);
    assert_memory_equal(fake.sent, "aabbcc", 6);
}

static void test_mtu_and_too_big(void **state)
{
    fake_respond(200, NULL);
    assert_int_equal(path->ops->mtu(path), 1300);
    fake.max_datagram = 0; /* capsules */
    assert_int_equal(path->ops->mtu(path), RELAY_PATH_TUNNEL_MTU_MAX);
    fake.max_datagram = 2;
    uint64_t before = metrics.drop_too_big;
    assert_int_equal(send_packets("aaabbbc", 3), 7);
    assert_int_equal(metrics.drop_too_big, before + 2);
    assert_memory_equal(fake.sent, "c", 1);
}

static void test_refusal(void **state)
{
    fake_respond(407, NULL);
    fake_turn(&loop);
    assert_string_equal(told, "rcl");
    assert_int_equal(refused.status, 407);
    assert_int_equal(close_error, RELAY_ERR_UNAUTHORIZED);
    assert_int_equal(path->ops->mtu(path), 0);
    assert_int_equal(send_packets("a", 1), 0);
}

static void test_refusal_with_proxy_status(void **state)
{
    fake_respond(502, "in.example; error=dns_error; rcode=\"NXDOMAIN\"");
    fake_turn(&loop);
    assert_int_equal(close_error, RELAY_ERR_DNS);
    assert_string_equal(refused.proxy_status.rcode, "NXDOMAIN");
}

static void test_death_of_the_tunnel(void **state)
{
    fake_respond(200, NULL);
    relay_tunnel_closed(&fake.tunnel, RELAY_ERR_RESET);
    fake_turn(&loop);
    assert_string_equal(told, "cl");
    assert_int_equal(close_error, RELAY_ERR_RESET);
}

static void test_fin_of_the_relay(void **state)
{
    fake_respond(200, NULL);
    relay_tunnel_deliver_fin(&fake.tunnel);
    fake_turn(&loop);
    assert_int_equal(close_error, RELAY_ERR_CLOSED);
}

static void test_close_is_silent(void **state)
{
    path->ops->close(path);
    path = NULL;
    assert_int_equal(fake.aborted, RELAY_ERR_CANCELLED);
    fake_turn(&loop);
    assert_string_equal(told, "");
}

static void test_narrow_tunnel_tells_when_it_is_wide(void **state)
{
    path->ops->close(path);
    fake_turn(&loop);
    fake_next_max_datagram = 1188;
    struct relay_request request = {.kind = RELAY_KIND_CAPSULES, .content_length = -1};
    struct relay_path_tunnel_config config = {.session = &fake_session, .request = &request};
    path = relay_path_tunnel_open(&config);
    fake_next_max_datagram = 0;
    path->cb = &path_cb;
    for (int i = 0; i < 3; i++)
        uv_run(&loop.uv, UV_RUN_ONCE);
    assert_string_equal(told, "");
    fake.max_datagram = 1220;
    for (int i = 0; i < 10 && told[0] == '\0'; i++)
        uv_run(&loop.uv, UV_RUN_ONCE);
    assert_string_equal(told, "m");
}

static void test_addresses_are_new(void **state)
{
    struct sockaddr_storage before = path->local;
    path->ops->close(path);
    fake_turn(&loop);
    struct relay_request request = {.kind = RELAY_KIND_CAPSULES, .content_length = -1};
    struct relay_path_tunnel_config config = {.session = &fake_session, .request = &request};
    path = relay_path_tunnel_open(&config);
    assert_non_null(path);
    assert_memory_not_equal(&before, &path->local, sizeof(before));
    assert_null(relay_path_tunnel_open(&config)); /* the session takes no more */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_early_packets_are_repeated),
        TEST(test_early_packets_are_bounded),
        TEST(test_no_repeat_when_something_came),
        TEST(test_unknown_context_is_dropped),
        TEST(test_back_pressure),
        TEST(test_mtu_and_too_big),
        TEST(test_refusal),
        TEST(test_refusal_with_proxy_status),
        TEST(test_death_of_the_tunnel),
        TEST(test_fin_of_the_relay),
        TEST(test_close_is_silent),
        TEST(test_narrow_tunnel_tells_when_it_is_wide),
        TEST(test_addresses_are_new),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
