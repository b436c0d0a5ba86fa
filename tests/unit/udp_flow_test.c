/* udp_flow.c against UDP sockets on loopback. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/net/metrics.h"
#include "lib/net/udp_flow.h"
#include "lib/wire/address.h"
#include "lib/wire/error.h"

static struct relay_loop loop;
static struct relay_metrics metrics;
static struct relay_udp_flow *flow;
static int target;
static struct sockaddr_storage target_at, flow_at;
static socklen_t at_len;

/* What came from the target. */
static size_t got_runs, got_datagrams, got_bytes, got_empty, largest;
static uint32_t got_sum; /* of all bytes */
static int closed_error, answer_blocked, want_datagrams;

static enum relay_sent on_datagrams(void *user, struct relay_run *run)
{
    got_runs++;
    if (answer_blocked > 0 && --answer_blocked == 0) {
        if (run->len > run->segment)
            relay_run_drop_one(run); /* one is taken, the rest is left */
        else
            return RELAY_BLOCKED;
        got_datagrams++;
        got_bytes += run->segment;
        return RELAY_BLOCKED;
    }
    for (size_t i = 0; i < run->len; i++)
        got_sum += run->base[i];
    got_bytes += run->len;
    got_empty += run->len == 0;
    got_datagrams += run->len == 0 ? 1 : (run->len + run->segment - 1) / run->segment;
    largest = run->segment > largest ? run->segment : largest;
    run->base += run->len;
    run->len = 0;
    if (want_datagrams > 0 && got_datagrams >= (size_t)want_datagrams)
        relay_loop_stop(&loop);
    return RELAY_SENT;
}

static void on_close(void *user, int error)
{
    closed_error = error;
    relay_loop_stop(&loop);
}

static const struct relay_udp_flow_user user = {on_datagrams, on_close};

static void on_limit(struct relay_timer *timer)
{
    relay_loop_stop(&loop);
}

/* Until the loop is stopped, but no longer than this. */
static void run_for(uint64_t ns)
{
    struct relay_timer timer;
    relay_timer_init(&timer, on_limit);
    relay_timer_set_after(&loop, &timer, ns);
    relay_loop_run(&loop);
    relay_timer_stop(&loop, &timer);
}

static void open_target(const char *text)
{
    struct relay_address at;
    assert_int_equal(relay_address_parse(text, strlen(text), &at), 0);
    at_len = relay_address_to_sockaddr(&at, 0, &target_at);
    target = socket(target_at.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int size = 4 << 20;
    setsockopt(target, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    assert_int_equal(bind(target, (struct sockaddr *)&target_at, at_len), 0);
    getsockname(target, (struct sockaddr *)&target_at, &at_len);
    assert_int_equal(relay_udp_flow_new(&loop, (struct sockaddr *)&target_at, &user, NULL, &flow), 0);
}

static int setup(void **state)
{
    memset(&metrics, 0, sizeof(metrics));
    got_runs = got_datagrams = got_bytes = got_empty = largest = 0;
    got_sum = 0;
    closed_error = answer_blocked = want_datagrams = 0;
    flow = NULL;
    target = -1;
    return relay_loop_init(&loop, &metrics);
}

static int teardown(void **state)
{
    if (flow != NULL)
        relay_udp_flow_close(flow);
    close(target);
    relay_loop_dispose(&loop);
    return 0;
}

static void send_run(const uint8_t *bytes, size_t len, size_t segment)
{
    struct relay_run run = {0, bytes, len, segment};
    relay_udp_flow_send(flow, &run);
}

/* The next datagram at the target; -1: none. */
static ssize_t take(uint8_t *bytes, size_t size)
{
    socklen_t len = sizeof(flow_at);
    return recvfrom(target, bytes, size, 0, (struct sockaddr *)&flow_at, &len);
}

/* The target learns the flow's address from a first datagram. */
static void greet(void)
{
    uint8_t byte;
    send_run((const uint8_t *)"!", 1, 1);
    run_for(20 * RELAY_MS);
    assert_int_equal(take(&byte, 1), 1);
}

static uint8_t pattern[300 * 1024], taken[70000];

static void fill_pattern(void)
{
    for (size_t i = 0; i < sizeof(pattern); i++)
        pattern[i] = (uint8_t)(i * 31 + i / 997);
}

static void sizes_keep_their_bounds(void **state)
{
    static const size_t sizes[] = {1200, 1200, 1200, 400, 1200, 0, 0, 1, 1, 1400, 1200, 9000, 1, 0, 1200};
    fill_pattern();
    open_target("127.0.0.1");
    size_t at = 0;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); at += sizes[i++])
        send_run(pattern + at, sizes[i], sizes[i]);
    run_for(20 * RELAY_MS);
    at = 0;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); at += sizes[i++]) {
        assert_int_equal(take(taken, sizeof(taken)), sizes[i]);
        assert_memory_equal(taken, pattern + at, sizes[i]);
    }
    assert_int_equal(take(taken, sizeof(taken)), -1);
}

/* A run of 200 with a shorter tail, twice: more than one GSO send holds. */
static void runs_toward_the_target(void **state)
{
    fill_pattern();
    open_target("::1");
    for (int turn = 0; turn < 2; turn++)
        send_run(pattern, 199 * 1200 + 7, 1200);
    run_for(50 * RELAY_MS);
    for (int turn = 0; turn < 2; turn++) {
        for (size_t i = 0; i < 200; i++) {
            size_t want = i < 199 ? 1200 : 7;
            assert_int_equal(take(taken, sizeof(taken)), want);
            assert_memory_equal(taken, pattern + i * 1200, want);
        }
    }
    assert_int_equal(take(taken, sizeof(taken)), -1);
    assert_int_equal(metrics.drop_socket, 0);
}

static void runs_from_the_target(void **state)
{
    open_target("127.0.0.1");
    greet();
    fill_pattern();
    assert_int_equal(relay_udp_flow_last_received(flow), 0);
    int segment = 1200;
    setsockopt(target, SOL_UDP, UDP_SEGMENT, &segment, sizeof(segment));
    uint32_t sum = 0;
    for (size_t i = 0; i < 40 * 1200 + 5; i++)
        sum += pattern[i];
    assert_int_equal(sendto(target, pattern, 40 * 1200 + 5, 0, (struct sockaddr *)&flow_at, at_len),
                     40 * 1200 + 5);
    want_datagrams = 41;
    run_for(RELAY_SECOND);
    assert_int_equal(got_datagrams, 41);
    assert_int_equal(got_bytes, 40 * 1200 + 5);
    assert_int_equal(got_sum, sum);
    assert_int_equal(got_runs, 1); /* the kernel's super-packet stays one run */
    assert_true(relay_udp_flow_last_received(flow) > 0);
}

static void empty_and_largest(void **state)
{
    static const struct {
        const char *address;
        size_t largest;
    } rows[] = {{"127.0.0.1", 65507}, {"::1", 65488}};
    fill_pattern();
    for (size_t i = 0; i < 2; i++) {
        open_target(rows[i].address);
        greet();
        send_run(pattern, 0, 0);
        send_run(pattern, rows[i].largest, rows[i].largest);
        send_run(pattern, rows[i].largest + 1, rows[i].largest + 1);
        send_run(pattern, 65527, 65527);
        send_run(pattern, 3, 3);
        run_for(20 * RELAY_MS);
        assert_int_equal(take(taken, sizeof(taken)), 0);
        assert_int_equal(take(taken, sizeof(taken)), rows[i].largest);
        assert_int_equal(take(taken, sizeof(taken)), 3);
        assert_int_equal(take(taken, sizeof(taken)), -1);
        assert_int_equal(metrics.drop_target_too_big, 2 * (i + 1));
        got_datagrams = got_empty = largest = 0;
        sendto(target, pattern, 0, 0, (struct sockaddr *)&flow_at, at_len);
        sendto(target, pattern, rows[i].largest, 0, (struct sockaddr *)&flow_at, at_len);
        want_datagrams = 2;
        run_for(RELAY_SECOND);
        assert_int_equal(got_empty, 1);
        assert_int_equal(largest, rows[i].largest);
        close(target);
        relay_udp_flow_close(flow);
        flow = NULL;
    }
    target = -1;
    assert_int_equal(metrics.drop_socket, 0);
}

static void refused_again_and_again(void **state)
{
    open_target("127.0.0.1");
    close(target);
    target = -1;
    for (int i = 0; i < 4; i++) {
        send_run((const uint8_t *)"x", 1, 1);
        run_for(10 * RELAY_MS);
    }
    assert_int_equal(closed_error, 0);
    for (int i = 0; i < 3; i++) {
        send_run((const uint8_t *)"x", 1, 1);
        run_for(10 * RELAY_MS);
    }
    assert_int_equal(closed_error, RELAY_ERR_REFUSED);
}

static void an_answer_forgets_refusals(void **state)
{
    open_target("127.0.0.1");
    greet();
    struct sockaddr_storage peer = flow_at;
    for (int round = 0; round < 3; round++) {
        close(target);
        for (int i = 0; i < 3; i++) {
            send_run((const uint8_t *)"x", 1, 1);
            run_for(10 * RELAY_MS);
        }
        target = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(target, (struct sockaddr *)&target_at, at_len), 0);
        sendto(target, "y", 1, 0, (struct sockaddr *)&peer, at_len);
        run_for(10 * RELAY_MS);
    }
    assert_int_equal(closed_error, 0);
    assert_int_equal(got_datagrams, 3);
}

static void blocked_and_resumed(void **state)
{
    open_target("127.0.0.1");
    greet();
    fill_pattern();
    answer_blocked = 1;
    int segment = 1000;
    setsockopt(target, SOL_UDP, UDP_SEGMENT, &segment, sizeof(segment));
    for (int i = 0; i < 10; i++)
        assert_int_equal(sendto(target, pattern, 30000, 0, (struct sockaddr *)&flow_at, at_len), 30000);
    run_for(30 * RELAY_MS);
    assert_int_equal(got_runs, 1); /* it reads no more */
    assert_int_equal(got_datagrams, 1);
    answer_blocked = 2; /* the held rest passes, the next run blocks again */
    relay_udp_flow_resume(flow);
    assert_int_equal(got_runs, 1); /* never from inside the call */
    run_for(30 * RELAY_MS);
    assert_int_equal(got_runs, 3);
    assert_int_equal(got_datagrams, 31);
    relay_udp_flow_resume(flow);
    want_datagrams = 300;
    run_for(RELAY_SECOND);
    assert_int_equal(got_datagrams, 300);
    assert_int_equal(got_bytes, 300000);
    assert_int_equal(metrics.drop_blocked, 0);
}

static enum relay_sent close_inside(void *unused, struct relay_run *run)
{
    relay_udp_flow_close(flow);
    flow = NULL;
    relay_loop_stop(&loop);
    return RELAY_GONE;
}

static void closed_inside_its_callback(void **state)
{
    static const struct relay_udp_flow_user closer = {close_inside, on_close};
    open_target("127.0.0.1");
    relay_udp_flow_close(flow);
    assert_int_equal(relay_udp_flow_new(&loop, (struct sockaddr *)&target_at, &closer, NULL, &flow), 0);
    greet();
    sendto(target, "ab", 2, 0, (struct sockaddr *)&flow_at, at_len);
    run_for(RELAY_SECOND);
    assert_null(flow);
}

static void last_words_are_sent(void **state)
{
    open_target("127.0.0.1");
    send_run((const uint8_t *)"bye", 3, 3);
    relay_udp_flow_close(flow);
    flow = NULL;
    assert_int_equal(take(taken, sizeof(taken)), 3);
}

static void no_route(void **state)
{
    struct sockaddr_in nowhere = {.sin_family = AF_INET, .sin_port = htons(9)};
    nowhere.sin_addr.s_addr = htonl(INADDR_BROADCAST);
    assert_int_equal(relay_udp_flow_new(&loop, (struct sockaddr *)&nowhere, &user, NULL, &flow),
                     RELAY_ERR_UNREACHABLE);
    flow = NULL;
}

/* Far more than the queue and the socket take in one turn: bounded, counted, and what is not counted has
 * arrived. */
static void overload_is_counted(void **state)
{
    fill_pattern();
    open_target("127.0.0.1");
    for (int i = 0; i < 40; i++)
        for (int j = 0; j < 256; j++)
            send_run(pattern, j & 1 ? 900 : 1000, j & 1 ? 900 : 1000);
    run_for(50 * RELAY_MS);
    send_run(pattern, 5, 5);
    run_for(20 * RELAY_MS);
    size_t arrived = 0;
    while (take(taken, sizeof(taken)) > 0)
        arrived++;
    assert_true(arrived > 0);
    assert_true(arrived + metrics.drop_socket <= 40 * 256 + 1);
    assert_int_equal(metrics.datagrams_in + metrics.drop_socket, 40 * 256 + 1);
}

/* The user takes a few and then no more: the rest is held, waits in the socket, or never gets into it. When the
 * flow is closed all of it is counted. */
static void what_nobody_takes_is_counted(void **state)
{
    enum { SENT = 20000 };
    open_target("127.0.0.1");
    greet();
    fill_pattern();
    answer_blocked = 3;
    for (int i = 0; i < SENT; i++) {
        assert_int_equal(sendto(target, pattern, 900, 0, (struct sockaddr *)&flow_at, at_len), 900);
        if (i < 10)
            run_for(5 * RELAY_MS);
    }
    run_for(20 * RELAY_MS);
    assert_true(got_datagrams < SENT / 2);
    relay_udp_flow_close(flow);
    flow = NULL;
    assert_true(metrics.drop_target_full > 0 && metrics.drop_closed > 0);
    assert_int_equal(got_datagrams + metrics.drop_target_full + metrics.drop_closed, SENT);
}

/* The overflow is known while the flow lives, from the next datagram that there was room for. */
static void overflow_is_counted(void **state)
{
    uint64_t sent = 20000;
    open_target("127.0.0.1");
    greet();
    fill_pattern();
    for (uint64_t i = 0; i < sent; i++) /* nobody reads meanwhile */
        sendto(target, pattern, 900, 0, (struct sockaddr *)&flow_at, at_len);
    for (int i = 0; i < 50 && got_datagrams + metrics.drop_target_full != sent; i++) {
        run_for(100 * RELAY_MS);
        sendto(target, pattern, 900, 0, (struct sockaddr *)&flow_at, at_len);
        sent++;
        run_for(50 * RELAY_MS);
    }
    assert_true(metrics.drop_target_full > 0);
    assert_int_equal(got_datagrams + metrics.drop_target_full, sent);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(sizes_keep_their_bounds, setup, teardown),
        cmocka_unit_test_setup_teardown(runs_toward_the_target, setup, teardown),
        cmocka_unit_test_setup_teardown(runs_from_the_target, setup, teardown),
        cmocka_unit_test_setup_teardown(empty_and_largest, setup, teardown),
        cmocka_unit_test_setup_teardown(refused_again_and_again, setup, teardown),
        cmocka_unit_test_setup_teardown(an_answer_forgets_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(blocked_and_resumed, setup, teardown),
        cmocka_unit_test_setup_teardown(closed_inside_its_callback, setup, teardown),
        cmocka_unit_test_setup_teardown(last_words_are_sent, setup, teardown),
        cmocka_unit_test_setup_teardown(no_route, setup, teardown),
        cmocka_unit_test_setup_teardown(overload_is_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(what_nobody_takes_is_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(overflow_is_counted, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
