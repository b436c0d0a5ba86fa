#include "tests/unit/stream_peer.h"

#include <errno.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>

static void every_burst_comes_back(void **state)
{
    static const size_t bursts[] = {1, 8191, 8192, 8193, 16383, 16384, 16385, 524288, 524289, 1000001};
    for (size_t i = 0; i < sizeof(bursts) / sizeof(bursts[0]); i++) {
        int fds[2];
        make_pair(fds);
        struct peer client, server;
        start_peer(&client, make_tcp(fds[0]));
        start_peer(&server, make_tcp(fds[1]));
        server.echoes = true;
        run_until(client.ready && server.ready);
        uint8_t *bytes = make_pattern(bursts[i]);
        relay_stream_send(client.stream, bytes, bursts[i]);
        run_until(client.got.len == bursts[i]);
        assert_memory_equal(relay_buffer_bytes(&client.got), bytes, bursts[i]);
        relay_stream_fin(client.stream);
        run_until(server.fin && client.fin);
        assert_false(client.closed || server.closed);
        free(bytes);
        close_peer(&client);
        close_peer(&server);
    }
}

static void one_direction_goes_on_after_the_other_ended(void **state)
{
    int fds[2];
    make_pair(fds);
    struct peer client, server;
    start_peer(&client, make_tcp(fds[0]));
    start_peer(&server, make_tcp(fds[1]));
    relay_stream_send(client.stream, (const uint8_t *)"last", 4);
    relay_stream_fin(client.stream);
    run_until(server.fin);
    assert_int_equal(server.got.len, 4);
    relay_stream_send(server.stream, (const uint8_t *)"answer", 6);
    run_until(client.got.len == 6);
    assert_false(client.fin);
    relay_stream_fin(server.stream);
    run_until(client.fin);
    close_peer(&client);
    close_peer(&server);
}

static void a_reset_is_no_clean_end(void **state)
{
    for (int paused = 0; paused < 2; paused++) {
        int fds[2];
        make_pair(fds);
        struct peer client, server;
        start_peer(&client, make_tcp(fds[0]));
        start_peer(&server, make_tcp(fds[1]));
        if (paused)
            relay_stream_pause(client.stream);
        run_until(client.ready);
        relay_stream_reset(server.stream);
        run_until(client.closed);
        assert_int_equal(client.error, RELAY_ERR_RESET);
        assert_false(client.fin);
        relay_buffer_dispose(&server.got);
        close_peer(&client);
    }
}

static void a_paused_stream_tells_nothing_until_resume(void **state)
{
    int fds[2];
    make_pair(fds);
    struct peer client;
    start_peer(&client, make_tcp(fds[0]));
    relay_stream_pause(client.stream);
    assert_int_equal(send(fds[1], "abc", 3, 0), 3);
    shutdown(fds[1], SHUT_WR);
    run_for(50 * RELAY_MS);
    assert_int_equal(client.got.len, 0);
    assert_false(client.fin || client.closed);
    relay_stream_resume(client.stream);
    run_until(client.fin);
    assert_int_equal(client.got.len, 3);
    close_peer(&client);
    close(fds[1]);
}

static void expect_look(struct relay_stream *stream, enum relay_stream_peer wanted)
{
    for (int i = 0; i < 200 && relay_stream_look(stream) != wanted; i++)
        run_for(5 * RELAY_MS);
    assert_int_equal(relay_stream_look(stream), wanted);
}

static void a_look_at_the_peer_of_a_paused_stream(void **state)
{
    struct linger reset = {.l_onoff = 1};
    for (int speaks = 0; speaks < 2; speaks++) {
        int fds[2];
        make_pair(fds);
        struct peer client;
        start_peer(&client, make_tcp(fds[0]));
        relay_stream_pause(client.stream);
        assert_int_equal(send(fds[1], "abc", (size_t)speaks * 3, 0), speaks * 3);
        run_for(20 * RELAY_MS);
        assert_int_equal(relay_stream_look(client.stream), RELAY_PEER_THERE);
        shutdown(fds[1], SHUT_WR);
        expect_look(client.stream, speaks ? RELAY_PEER_SAID_ALL : RELAY_PEER_ENDED);
        setsockopt(fds[1], SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        close(fds[1]);
        for (int i = 0; i < 200 && relay_stream_look(client.stream) != RELAY_PEER_GONE; i++)
            usleep(5000);
        assert_int_equal(relay_stream_look(client.stream), RELAY_PEER_GONE); /* before the loop has seen it */
        run_for(20 * RELAY_MS);
        assert_int_equal(relay_stream_look(client.stream), RELAY_PEER_GONE);
        assert_false(client.fin);
        close_peer(&client);
    }
}

static void a_stalled_reader_stops_the_writer(void **state)
{
    int fds[2];
    make_pair(fds);
    struct peer client;
    start_peer(&client, make_tcp(fds[0]));
    size_t sent = 0, got = 0;
    uint8_t *bytes = make_pattern(100000);
    bool more = true;
    while (more) {
        assert_true(relay_stream_room(client.stream) > 0);
        more = relay_stream_send(client.stream, bytes, 100000);
        sent += 100000;
        assert_true(sent < 64u << 20);
    }
    assert_int_equal(relay_stream_room(client.stream), 0);
    run_for(20 * RELAY_MS);
    assert_int_equal(client.num_writable, 0);

    static uint8_t sink[65536];
    while (got < sent) {
        ssize_t len = recv(fds[1], sink, sizeof(sink), 0);
        if (len > 0) {
            for (ssize_t i = 0; i < len; i++)
                assert_int_equal(sink[i], bytes[(got + (size_t)i) % 100000]);
            got += (size_t)len;
        } else {
            run_turn();
        }
    }
    run_until(client.num_writable == 1);
    assert_int_equal(relay_stream_room(client.stream), 192 * 1024);
    free(bytes);
    close_peer(&client);
    close(fds[1]);
}

/* What the kernel holds unsent while nobody reads: what another flow on the stream would wait for. */
static int unsent_of_a_stalled_stream(bool is_shared)
{
    int fds[2], unsent = 0;
    make_pair(fds);
    struct peer client;
    start_peer(&client, make_tcp(fds[0]));
    if (is_shared)
        relay_stream_share(client.stream);
    uint8_t *bytes = make_pattern(100000);
    while (relay_stream_send(client.stream, bytes, 100000))
        ;
    free(bytes);
    assert_int_equal(ioctl(fds[0], SIOCOUTQNSD, &unsent), 0);
    close_peer(&client);
    close(fds[1]);
    return unsent;
}

static void a_shared_stream_is_a_short_line(void **state)
{
    assert_true(unsent_of_a_stalled_stream(false) > 512 * 1024);
    assert_true(unsent_of_a_stalled_stream(true) <= 192 * 1024);
}

/* Both sides of an echo stall and recover: nothing is lost when send says no and the source is paused. */
static void back_pressure_loses_nothing(void **state)
{
    int fds[2];
    make_pair(fds);
    struct peer server;
    start_peer(&server, make_tcp(fds[1]));
    server.echoes = true;
    size_t len = 20u << 20, sent = 0, got = 0;
    uint8_t *bytes = make_pattern(len);
    static uint8_t sink[65536];
    for (int refused = 0; sent < len && refused < 20;) { /* reads nothing until the writes stick */
        ssize_t n = send(fds[0], bytes + sent, len - sent, MSG_NOSIGNAL);
        refused = n > 0 ? 0 : refused + 1;
        sent += n > 0 ? (size_t)n : 0;
        run_turn();
    }
    while (got < len) {
        ssize_t n = recv(fds[0], sink, sizeof(sink), 0);
        if (n > 0) {
            assert_memory_equal(sink, bytes + got, (size_t)n);
            got += (size_t)n;
        }
        if (sent < len && (n = send(fds[0], bytes + sent, len - sent, MSG_NOSIGNAL)) > 0)
            sent += (size_t)n;
        run_turn();
    }
    free(bytes);
    close_peer(&server);
    close(fds[0]);
}

static void a_released_stream_sends_what_it_holds(void **state)
{
    int fds[2];
    make_pair(fds);
    struct peer client;
    start_peer(&client, make_tcp(fds[0]));
    run_until(client.ready);
    size_t len = 8u << 20, got = 0;
    uint8_t *bytes = make_pattern(len);
    relay_stream_send(client.stream, bytes, len);
    relay_stream_release(client.stream);
    assert_int_equal(send(fds[1], "unread", 6, 0), 6); /* must not turn the end into a reset */
    static uint8_t sink[65536];
    ssize_t n;
    while ((n = recv(fds[1], sink, sizeof(sink), 0)) != 0) {
        if (n > 0) {
            assert_memory_equal(sink, bytes + got, (size_t)n);
            got += (size_t)n;
        } else {
            assert_int_equal(errno, EAGAIN);
            run_turn();
        }
    }
    assert_int_equal(got, len);
    close(fds[1]);
    free(bytes);
    relay_buffer_dispose(&client.got);
}

static void a_released_stream_waits_two_seconds(void **state)
{
    int fds[2];
    make_pair(fds);
    struct peer client;
    start_peer(&client, make_tcp(fds[0]));
    run_until(client.ready);
    uint64_t begin = clock_ns();
    relay_stream_release(client.stream);
    char byte;
    run_until(send(fds[1], "x", 1, MSG_NOSIGNAL) <
              0); /* the socket is closed: our bytes are answered with a RST */
    assert_in_range(clock_ns() - begin, 1900 * RELAY_MS, 2900 * RELAY_MS);
    assert_true(recv(fds[1], &byte, 1, 0) <= 0);
    close(fds[1]);
    relay_buffer_dispose(&client.got);
}

static void on_bytes_then_end(void *user, uint8_t *bytes, size_t len)
{
    struct peer *peer = user;
    relay_stream_send(peer->stream, bytes, len);
    switch (bytes[0]) {
    case 'c':
        relay_stream_close(peer->stream);
        break;
    case 'r':
        relay_stream_reset(peer->stream);
        break;
    default:
        relay_stream_release(peer->stream);
    }
    peer->stream = NULL;
}

static void every_ending_may_come_inside_a_callback(void **state)
{
    static const struct relay_stream_user user = {on_peer_ready, on_bytes_then_end, on_peer_fin,
                                                  on_peer_writable, on_peer_close};
    for (const char *how = "crl"; *how != '\0'; how++) {
        int fds[2];
        make_pair(fds);
        struct peer client = {.stream = make_tcp(fds[0])};
        relay_stream_start(client.stream, &user, &client);
        assert_int_equal(send(fds[1], how, 1, 0), 1);
        run_until(client.stream == NULL);
        char got;
        ssize_t len;
        errno = 0;
        run_until((len = recv(fds[1], &got, 1, 0)) >= 0 || errno != EAGAIN);
        assert_int_equal(len, *how == 'l' ? 1 : *how == 'r' ? -1 : 0);
        close(fds[1]);
        run_turn();
        assert_false(client.closed || client.fin);
    }
}

static void what_nobody_started_can_be_ended(void **state)
{
    int fds[2];
    make_pair(fds);
    relay_stream_close(make_tcp(fds[0]));
    relay_stream_release(make_tcp(fds[1]));
}

/* An HTTP/3 tunnel's bytes come one QUIC packet at a time. What an ending finds gathered was sent. */
static void small_writes_of_a_turn_leave_together(void **state)
{
    void (*const endings[])(struct relay_stream *) = {relay_stream_release, relay_stream_close,
                                                      relay_stream_fin};
    for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
        int fds[2];
        make_pair(fds);
        struct peer client;
        start_peer(&client, make_tcp(fds[0]));
        run_until(client.ready);
        uint8_t *bytes = make_pattern(40000), got[50000];
        for (size_t at = 0; at < 40000; at += 100)
            assert_true(relay_stream_send(client.stream, bytes + at, 100));
        assert_int_equal(recv(fds[1], got, sizeof(got), MSG_DONTWAIT), -1);
        endings[i](client.stream);
        run_for(20 * RELAY_MS);
        ssize_t len = recv(fds[1], got, sizeof(got), MSG_DONTWAIT);
        assert_int_equal(len, 40000);
        assert_memory_equal(got, bytes, 40000);
        assert_int_equal(recv(fds[1], got, sizeof(got), MSG_DONTWAIT), 0);
        free(bytes);
        if (endings[i] == relay_stream_fin)
            close_peer(&client);
        close(fds[1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_burst_comes_back, set_up_loop, tear_down_loop),
        cmocka_unit_test_setup_teardown(one_direction_goes_on_after_the_other_ended, set_up_loop,
                                        tear_down_loop),
        cmocka_unit_test_setup_teardown(a_reset_is_no_clean_end, set_up_loop, tear_down_loop),
        cmocka_unit_test_setup_teardown(a_paused_stream_tells_nothing_until_resume, set_up_loop,
                                        tear_down_loop),
        cmocka_unit_test_setup_teardown(a_look_at_the_peer_of_a_paused_stream, set_up_loop, tear_down_loop),
        cmocka_unit_test_setup_teardown(a_stalled_reader_stops_the_writer, set_up_loop, tear_down_loop),
        cmocka_unit_test_setup_teardown(a_shared_stream_is_a_short_line, set_up_loop, tear_down_loop),
        cmocka_unit_test_setup_teardown(back_pressure_loses_nothing, set_up_loop, tear_down_loop),
        cmocka_unit_test_setup_teardown(a_released_stream_sends_what_it_holds, set_up_loop, tear_down_loop),
        cmocka_unit_test_setup_teardown(a_released_stream_waits_two_seconds, set_up_loop, tear_down_loop),
        cmocka_unit_test_setup_teardown(every_ending_may_come_inside_a_callback, set_up_loop, tear_down_loop),
        cmocka_unit_test_setup_teardown(small_writes_of_a_turn_leave_together, set_up_loop, tear_down_loop),
        cmocka_unit_test_setup_teardown(what_nobody_started_can_be_ended, set_up_loop, tear_down_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
