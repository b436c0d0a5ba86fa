/* A CONNECT tunnel seen as a stream, against a session that remembers what it was asked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/net/stream_tunnel.h"
#include "tests/unit/fake_session.h"

static struct relay_loop loop;
static struct relay_metrics metrics;
static struct relay_stream *stream;
static char told[64];
static uint8_t got[4096];
static size_t got_len;
static int close_error;
static bool close_inside; /* on_close ends the stream itself */

static void tell(char c)
{
    told[strlen(told)] = c;
}

static void on_ready(void *user)
{
    tell('r');
}

static void on_bytes(void *user, uint8_t *bytes, size_t len)
{
    memcpy(got + got_len, bytes, len);
    got_len += len;
    tell('b');
}

static void on_fin(void *user)
{
    tell('f');
}

static void on_writable(void *user)
{
    tell('w');
}

static void on_close(void *user, int error)
{
    close_error = error;
    tell('c');
    if (close_inside) {
        relay_stream_close(stream);
        stream = NULL;
    }
}

static void on_refused(void *user, const struct relay_refusal *refusal)
{
    tell('x');
}

static const struct relay_stream_user stream_cb = {on_ready, on_bytes, on_fin, on_writable, on_close};

static int setup(void **state)
{
    memset(told, 0, sizeof(told));
    got_len = 0;
    close_error = 0;
    close_inside = false;
    assert_int_equal(relay_loop_init(&loop, &metrics), 0);
    fake_session_init(&loop);
    struct relay_request request = {
        .kind = RELAY_KIND_BYTES, .method = RELAY_SLICE("CONNECT"), .content_length = -1};
    stream = relay_stream_tunnel_open(&fake_session, &request, on_refused, NULL);
    assert_non_null(stream);
    return 0;
}

static int teardown(void **state)
{
    if (stream != NULL)
        relay_stream_close(stream);
    fake_turn(&loop);
    assert_false(fake.is_open);
    relay_loop_dispose(&loop);
    return 0;
}

static void open_it(void)
{
    relay_stream_start(stream, &stream_cb, NULL);
    fake_respond(200, NULL);
    assert_string_equal(told, "");
    fake_turn(&loop);
    assert_string_equal(told, "r");
    told[0] = '\0';
}

static void test_bytes_both_ways(void **state)
{
    open_it();
    uint8_t bytes[] = "hello";
    relay_tunnel_deliver(&fake.tunnel, bytes, 5);
    assert_memory_equal(got, "hello", 5);
    assert_true(relay_stream_send(stream, (const uint8_t *)"abc", 3));
    assert_memory_equal(fake.sent, "abc", 3);
    relay_stream_fin(stream);
    assert_true(fake.fin_sent);
    relay_tunnel_deliver_fin(&fake.tunnel);
    assert_string_equal(told, "bf");
    relay_tunnel_closed(&fake.tunnel, RELAY_OK);
    fake_turn(&loop);
    assert_string_equal(told, "bf"); /* a clean end is no death */
}

static void test_response_before_start(void **state)
{
    uint8_t bytes[] = "x";
    fake_respond(200, NULL);
    relay_tunnel_deliver(&fake.tunnel, bytes, 1);
    fake_turn(&loop);
    relay_stream_start(stream, &stream_cb, NULL);
    fake_turn(&loop);
    assert_string_equal(told, "rb");
}

static void test_back_pressure(void **state)
{
    open_it();
    fake.room = 3;
    assert_int_equal(relay_stream_room(stream), 3);
    assert_false(relay_stream_send(stream, (const uint8_t *)"abc", 3));
    fake.room = 10;
    relay_tunnel_writable(&fake.tunnel);
    fake_turn(&loop);
    assert_string_equal(told, "w");
    relay_stream_pause(stream);
    uint8_t bytes[] = "hello";
    relay_tunnel_deliver(&fake.tunnel, bytes, 5);
    assert_int_equal(got_len, 0);
    relay_stream_resume(stream);
    fake_turn(&loop);
    assert_string_equal(told, "wb");
}

static void test_refusal(void **state)
{
    relay_stream_start(stream, &stream_cb, NULL);
    fake_respond(403, NULL);
    fake_turn(&loop);
    assert_string_equal(told, "xc");
    assert_int_equal(close_error, RELAY_ERR_DENIED);
}

static void test_death_before_start(void **state)
{
    relay_tunnel_closed(&fake.tunnel, RELAY_ERR_RESET);
    fake_turn(&loop);
    relay_stream_start(stream, &stream_cb, NULL);
    fake_turn(&loop);
    assert_string_equal(told, "c");
    assert_int_equal(close_error, RELAY_ERR_RESET);
}

static void test_end_inside_on_close(void **state)
{
    open_it();
    close_inside = true;
    relay_tunnel_closed(&fake.tunnel, RELAY_ERR_TIMEOUT);
    fake_turn(&loop);
    assert_string_equal(told, "c");
    assert_null(stream);
}

static void test_release_waits_for_the_peer(void **state)
{
    open_it();
    relay_stream_release(stream);
    stream = NULL;
    assert_true(fake.fin_sent);
    fake_turn(&loop);
    assert_true(fake.is_open);
    uint8_t bytes[] = "late";
    relay_tunnel_deliver(&fake.tunnel, bytes, 4);
    relay_tunnel_deliver_fin(&fake.tunnel);
    relay_tunnel_closed(&fake.tunnel, RELAY_OK);
    fake_turn(&loop);
    assert_string_equal(told, "");
    assert_int_equal(fake.aborted, 0);
}

static void test_reset(void **state)
{
    open_it();
    relay_stream_reset(stream);
    stream = NULL;
    assert_int_equal(fake.aborted, RELAY_ERR_RESET);
    fake_turn(&loop);
    assert_string_equal(told, "");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_bytes_both_ways),
        TEST(test_response_before_start),
        TEST(test_back_pressure),
        TEST(test_refusal),
        TEST(test_death_before_start),
        TEST(test_end_inside_on_close),
        TEST(test_release_waits_for_the_peer),
        TEST(test_reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
