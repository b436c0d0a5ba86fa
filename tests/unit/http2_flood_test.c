/* A server's HTTP/2 session against frames that cost more than they look: answers that are never read, and what comes
 * for streams that have ended. */
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

/* How much is parsed in a turn depends on how long that takes: the connection ends after some turns. */
static void expect_limit(struct peers *peers, size_t stuck)
{
    wait_gone(peers, &peers->server, 10000);
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
    wait_gone(peers, &peers->server, 10000);
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

#define REFUSED ":method\nCONNECT\n:authority\nrefuse:9\n"
#define ABORTED ":method\nCONNECT\n:authority\nabort:9\n"
#define POST    ":method\nPOST\n:scheme\nhttps\n:authority\nrelay.example\n:path\n/source\n"
#define BAD     ":method\nPOST\n:scheme\nhttps\n:authority\nrelay.example\n:path\n/\nupgrade\nh2c\n"

/* Frames for streams that the server has ended, or whose rest it does not want. */
static void frames_for_nobody(void **state)
{
    static const struct {
        const char *name, *request;
        uint8_t type, flags;
        size_t len;
    } cases[] = {
        {"DATA of a malformed request", BAD, DATA, 0, 1},
        {"HEADERS of a malformed request", BAD, HEADERS, END_HEADERS, 5},
        {"long HEADERS of a malformed request", BAD, HEADERS, END_HEADERS, 5000},
        {"DATA of a refused tunnel", REFUSED, DATA, 0, 1},
        {"padded DATA of a refused tunnel", REFUSED, DATA, PADDED, 2},
        {"DATA of an aborted tunnel", ABORTED, DATA, 0, 1},
        {"HEADERS of an aborted tunnel", ABORTED, HEADERS, END_HEADERS, 5},
        {"DATA of a request whose answer is not read", POST, DATA, 0, 1},
    };
    static uint8_t payload[5000];
    memset(payload, 0x82, sizeof(payload)); /* :method GET */
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct peers *peers = attacked();
        put_head(peers, 1, 0, cases[i].request);
        turns(peers, 10);
        payload[0] = cases[i].type == DATA ? 0 : 0x82;
        for (int n = 0; n < 6000; n++)
            put_frame(peers, cases[i].type, cases[i].flags, 1, payload, cases[i].len);
        for (int n = 0; n < 1000 && peers->server != NULL; n++)
            turns(peers, 10);
        if (peers->server != NULL || peers->server_error != RELAY_ERR_EXCESSIVE_LOAD ||
            peers->metrics.limit_control != 1)
            fail_msg("%s", cases[i].name);
        peers_free(peers);
    }
}

/* What was on its way when the server ended the stream: a window, in large frames or in small ones, and trailers. */
static void what_crosses_with_a_reset_is_free(void **state)
{
    static const uint8_t bytes[16384];
    static const char *const requests[] = {REFUSED, ABORTED, BAD};
    for (size_t i = 0; i < 2 * sizeof(requests) / sizeof(requests[0]); i++) {
        size_t len = i % 2 == 0 ? sizeof(bytes) : 16;
        struct peers *peers = attacked();
        peers->limits.control_frames = 1;
        put_head(peers, 1, 0, requests[i / 2]);
        turns(peers, 10);
        for (size_t sent = 0; sent < peers->limits.window_initial - 4096; sent += len < 64 ? 80 : len)
            put_frame(peers, DATA, 0, 1, bytes, len);
        put_head(peers, 1, END_STREAM, "x-trailer\n1\n");
        for (int n = 0; n < 100; n++)
            turns(peers, 10);
        assert_non_null(peers->server);
        assert_int_equal(look(peers).goaway, -1);
        peers_free(peers);
    }
}

struct busy {
    struct relay_task task; /* first */
    struct relay_loop *loop;
};

/* Takes all of a turn's time before anything is read in it. */
static void on_busy_turn(struct relay_task *task)
{
    struct busy *busy = (struct busy *)task;
    while (relay_loop_has_time(busy->loop))
        ;
    relay_task_defer(busy->loop, task);
}

/* A turn that has no time takes some frames of a connection, and the next ones the rest, in order. */
static void many_small_frames_take_turns(void **state)
{
    struct peers *peers = attacked();
    struct busy busy = {.loop = &peers->loop};
    put_head(peers, 1, 0, CONNECT);
    turns(peers, 5);
    struct seen *seen = peers->requests;
    relay_task_init(&busy.task, RELAY_LEVEL_EVENT, on_busy_turn);
    relay_task_defer(&peers->loop, &busy.task);
    for (size_t i = 0; i < 1000; i++)
        put_frame(peers, DATA, i == 999 ? END_STREAM : 0, 1, &(uint8_t){pattern(i)}, 1);
    pipe_fin(&peers->client_end.super);
    size_t num_turns = 0;
    while (seen->fins == 0 && ++num_turns < 1000) {
        size_t before = seen->bytes;
        turns(peers, 1);
        assert_true(seen->bytes - before <= 128);
    }
    relay_task_cancel(&busy.task);
    assert_in_range(num_turns, 8, 40);
    assert_int_equal(seen->bytes, 1000);
    uint64_t sum = 0;
    for (size_t i = 0; i < 1000; i++)
        sum += (uint64_t)pattern(i) * (i + 1);
    assert_int_equal(seen->sum, sum);
    turns(peers, 10);
    assert_null(peers->server); /* the end of the transport is seen behind them */
    peers_free(peers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refused_streams_that_are_not_read),
        cmocka_unit_test(answers_to_requests_that_were_reset),
        cmocka_unit_test(a_thousand_tunnels_behind_a_blocked_transport),
        cmocka_unit_test(a_blocked_transport_times_out),
        cmocka_unit_test(frames_for_nobody),
        cmocka_unit_test(what_crosses_with_a_reset_is_free),
        cmocka_unit_test(many_small_frames_take_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
