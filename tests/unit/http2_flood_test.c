/* A server's HTTP/2 session against frames that cost more than they look: answers that are never read. */
#include "tests/unit/http2_attacker.h"

#define GET     ":method\nGET\n:scheme\nhttps\n:authority\nrelay.example\n:path\n/hello\n"
#define LOGIN   ":method\nGET\n:scheme\nhttps\n:authority\nrelay.example\n:path\n/login\n"
#define LARGE   ":method\nGET\n:scheme\nhttps\n:authority\nrelay.example\n:path\n/source\n"
#define CONNECT ":method\nCONNECT\n:authority\nsink:9\n"

/* The answer to the stream fills the transport, and nothing is read from it. Returns how much lies there. */
static size_t block(struct peers *peers, uint32_t id)
{
    put_frame(peers, SETTINGS, 0, 0, "\0\4\x7f\xff\xff\xff", 6);
    put_frame(peers, WINDOW_UPDATE, 0, 0, "\x10\0\0\0", 4);
    put_head(peers, id, END_STREAM, LARGE);
    turns(peers, 20);
    assert_non_null(peers->server);
    assert_true(peers->client_end.in_len >= PIPE_CAPACITY);
    return peers->client_end.in_len;
}

static void expect_limit(struct peers *peers, size_t stuck)
{
    turns(peers, 10);
    assert_null(peers->server);
    assert_int_equal(peers->server_error, RELAY_ERR_EXCESSIVE_LOAD);
    assert_int_equal(peers->metrics.limit_control, 1);
    assert_true(peers->client_end.in_len < stuck + 64 * 1024);
    peers_free(peers);
}

/* Without an ACK of our SETTINGS nghttp2 refuses stream by stream. */
static void refused_streams_that_are_not_read(void **state)
{
    struct peers *peers = peers_new();
    peers_start_server(peers, NULL, 0);
    put(peers, PREFACE, 24);
    put_frame(peers, SETTINGS, 0, 0, NULL, 0);
    size_t stuck = block(peers, 1);
    for (uint32_t id = 3; id < 203; id += 2)
        put_head(peers, id, 0, CONNECT);
    turns(peers, 5);
    assert_non_null(peers->server);
    assert_int_equal(peers->num_requests, 100);
    for (uint32_t id = 203; id < 20000; id += 2)
        put_head(peers, id, 0, CONNECT);
    expect_limit(peers, stuck);
}

static void answers_to_requests_that_were_reset(void **state)
{
    struct peers *peers = attacked();
    peers->limits.reset_burst = 1000000;
    size_t stuck = block(peers, 1);
    for (uint32_t id = 3; id < 20000; id += 2) {
        put_head(peers, id, END_STREAM, GET);
        put_frame(peers, RST_STREAM, 0, id, "\0\0\0\10", 4);
    }
    turns(peers, 10);
    assert_true(peers->num_requests < 3000);
    expect_limit(peers, stuck);
}

/* As many tunnels as there may be, none of whose answers is read, and as many WINDOW_UPDATEs as may be: no flood. */
static void a_thousand_tunnels_behind_a_blocked_transport(void **state)
{
    static const uint8_t bytes[16384];
    struct peers *peers = attacked();
    peers->limits.reset_burst = 1000;
    put_head(peers, 1, END_STREAM, LOGIN);
    turns(peers, 5);
    put_frame(peers, SETTINGS, ACK, 0, NULL, 0);
    block(peers, 3);
    for (uint32_t id = 5; id < 5 + 2 * 999; id += 2) {
        put_head(peers, id, 0, CONNECT);
        for (int i = 0; i < 8 && id < 300; i++) /* as much as the connection's window is */
            put_frame(peers, DATA, 0, id, bytes, sizeof(bytes));
        turns(peers, 2);
    }
    turns(peers, 10);
    assert_int_equal(peers->num_requests, 1001);
    assert_non_null(peers->server);
    for (uint32_t id = 5; id < 5 + 2 * 999; id += 2)
        put_frame(peers, RST_STREAM, 0, id, "\0\0\0\10", 4);
    turns(peers, 10);
    assert_non_null(peers->server);
    assert_int_equal(peers->requests->closes, 1);
    peers_free(peers);
}

/* New requests do not keep a connection on which nothing is read. */
static void a_blocked_transport_times_out(void **state)
{
    struct peers *peers = attacked();
    peers->limits.idle_timeout = 300 * RELAY_MS;
    block(peers, 1);
    uint64_t end = uv_hrtime() + 3 * RELAY_SECOND;
    for (uint32_t id = 3; peers->server != NULL && uv_hrtime() < end; id += 2) {
        put_head(peers, id, END_STREAM, GET);
        wait_gone(peers, &peers->server, 50);
    }
    assert_null(peers->server);
    assert_int_equal(peers->server_error, RELAY_ERR_IDLE);
    peers_free(peers);

    peers = attacked(); /* a tunnel does */
    peers->limits.idle_timeout = 300 * RELAY_MS;
    put_head(peers, 1, 0, CONNECT);
    block(peers, 3);
    wait_gone(peers, &peers->server, 1000);
    assert_non_null(peers->server);
    peers_free(peers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refused_streams_that_are_not_read),
        cmocka_unit_test(answers_to_requests_that_were_reset),
        cmocka_unit_test(a_thousand_tunnels_behind_a_blocked_transport),
        cmocka_unit_test(a_blocked_transport_times_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
