/* How often a CONNECTION_CLOSE is repeated, over a path that tells what it was given. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "lib/net/metrics.h"
#include "lib/net/quic_farewell.h"
#include "tests/unit/quic_harness.h"

#define PTO    (20 * RELAY_MS)
#define PERIOD (100 * RELAY_MS) /* nothing is due by itself within the test */
#define LONGER 20000            /* ms; a bound */

static struct {
    struct relay_metrics metrics;
    struct relay_loop loop;
    struct relay_packet_path path;
    size_t count;
    unsigned sent;
    bool is_blocked, is_detached, is_closed;
    uint64_t closed_at;
} f;

static size_t path_send(struct relay_packet_path *path, const uint8_t *run, size_t len, size_t segment)
{
    assert_int_equal(len, 3);
    assert_int_equal(segment, 3);
    assert_memory_equal(run, "bye", 3);
    if (f.is_blocked)
        return 0;
    f.sent++;
    return len;
}

static void path_close(struct relay_packet_path *path)
{
    assert_false(f.is_closed);
    f.is_closed = true;
    f.closed_at = relay_loop_now(&f.loop);
}

static void path_detach(struct relay_packet_path *path)
{
    f.is_detached = true;
}

static const struct relay_packet_path_ops path_ops = {
    .send = path_send, .close = path_close, .detach = path_detach};

static uint64_t begin(bool is_sent, uint64_t pto)
{
    struct relay_quic_farewell_params params = {.loop = &f.loop,
                                                .path = &f.path,
                                                .level = RELAY_LEVEL_FLUSH_OUTER,
                                                .packet = (const uint8_t *)"bye",
                                                .len = 3,
                                                .is_sent = is_sent,
                                                .pto = pto,
                                                .count = &f.count};
    relay_quic_farewell_begin(&params);
    assert_int_equal(f.count, 8);
    assert_true(f.is_detached);
    return relay_loop_now(&f.loop);
}

static void turn(void)
{
    uv_run(&f.loop.uv, UV_RUN_NOWAIT);
}

static void come(unsigned packets)
{
    uint8_t packet[1] = {0};
    for (unsigned i = 0; i < packets; i++)
        f.path.cb->on_packet(f.path.user, packet, sizeof(packet), 0);
    turn();
}

static int setup(void **state)
{
    memset(&f, 0, sizeof(f));
    f.path.ops = &path_ops;
    f.count = 7; /* it is the caller's, and others are in it */
    assert_int_equal(relay_loop_init(&f.loop, &f.metrics), 0);
    return 0;
}

static int teardown(void **state)
{
    assert_true(f.is_closed);
    assert_int_equal(f.count, 7);
    assert_false(relay_loop_has_lingering(&f.loop));
    relay_loop_dispose(&f.loop);
    return 0;
}

static void test_quiet(void **state)
{
    uint64_t begun = begin(true, PTO);
    assert_int_equal(f.sent, 0);
    assert_true(run_until(&f.loop, &f.is_closed, LONGER));
    assert_int_equal(f.sent, 1);
    assert_true(f.closed_at >= begun + PTO);
}

static void test_answers(void **state)
{
    begin(true, PERIOD);
    come(1);
    assert_int_equal(f.sent, 1);
    come(1);
    assert_int_equal(f.sent, 2);
    come(1);
    assert_int_equal(f.sent, 2);
    come(1);
    assert_int_equal(f.sent, 3);
    come(60); /* to the 64th, each fewer */
    assert_int_equal(f.sent, 4);
    relay_loop_cut_lingering(&f.loop);
}

/* A peer that goes on sending is told three times at most, whatever it sends. */
static void test_bounds(void **state)
{
    uint64_t begun = begin(true, 100 * RELAY_SECOND);
    while (!f.is_closed && relay_loop_now(&f.loop) < begun + LONGER * RELAY_MS) {
        come(1);
        run_until(&f.loop, &f.is_closed, 10);
    }
    assert_true(f.is_closed);
    assert_true(f.closed_at > begun + 400 * RELAY_MS);
    assert_true(f.sent >= 3 && f.sent < 12);
}

static void test_blocked(void **state)
{
    f.is_blocked = true;
    begin(false, PERIOD);
    turn();
    assert_int_equal(f.sent, 0);
    f.is_blocked = false;
    f.path.cb->on_writable(f.path.user);
    turn();
    assert_int_equal(f.sent, 1);
    f.path.cb->on_writable(f.path.user);
    turn();
    assert_int_equal(f.sent, 1);
    relay_loop_cut_lingering(&f.loop);
}

/* Blocked until its last repetition is due: it waits, within its bounds. */
static void test_blocked_to_the_end(void **state)
{
    f.is_blocked = true;
    uint64_t begun = begin(false, PTO);
    assert_true(run_until(&f.loop, &f.is_closed, LONGER));
    assert_int_equal(f.sent, 0);
    assert_true(f.closed_at >= begun + 3 * PTO);
}

static void test_path_dies(void **state)
{
    begin(true, PERIOD);
    f.path.cb->on_close(f.path.user, -1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_quiet),
        TEST(test_answers),
        TEST(test_bounds),
        TEST(test_blocked),
        TEST(test_blocked_to_the_end),
        TEST(test_path_dies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
