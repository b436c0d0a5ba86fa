#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "lib/net/loop.h"
#include "lib/net/quic_mtu.h"

#define PTO (150 * RELAY_MS)

/* A cap that probes have raised to 1452. */
static void make(struct relay_quic_mtu *mtu, bool is_ipv6)
{
    uint64_t now = RELAY_SECOND;
    relay_quic_mtu_init(mtu, is_ipv6, false, 1452);
    assert_int_equal(mtu->cap, is_ipv6 ? 1232 : 1250);
    for (size_t i = 0; i < mtu->num_probes; i++)
        if (mtu->probes[i] >= 1350)
            relay_quic_mtu_probed(mtu, mtu->probes[i], now, PTO);
    relay_quic_mtu_probed(mtu, 0, now + 3 * PTO, PTO);
    assert_int_equal(mtu->cap, 1452);
    assert_false(relay_quic_mtu_is_probing(mtu));
}

/* Once per PTO: what was sent since the look before, and what is seen now. */
struct look {
    size_t sent, flight, cwnd;
    bool is_answered;
    size_t cap; /* after it */
};

static uint64_t at; /* PTO */

static void look_all(struct relay_quic_mtu *mtu, const struct look *looks, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t before = mtu->cap;
        struct relay_quic_mtu_signs signs = {.rtt = mtu->seen_rtt + looks[i].is_answered,
                                             .flight = looks[i].flight,
                                             .cwnd = looks[i].cwnd,
                                             .pto = PTO,
                                             .now = at++ * PTO};
        relay_quic_mtu_sent(mtu, looks[i].sent);
        bool fell = relay_quic_mtu_watch(mtu, &signs);
        if (mtu->cap != looks[i].cap)
            fail_msg("look %zu: %zu, not %zu", i, mtu->cap, looks[i].cap);
        assert_int_equal(fell, mtu->cap < before);
    }
}
#define LOOK_ALL(mtu, ...)                                                                                   \
    look_all(mtu, (struct look[]){__VA_ARGS__}, sizeof((struct look[]){__VA_ARGS__}) / sizeof(struct look))

static void raise_at(struct relay_quic_mtu *mtu, uint64_t pto, size_t cap)
{
    at = pto;
    relay_quic_mtu_raise(mtu, at * PTO);
    assert_int_equal(mtu->cap, cap);
}

#define GOOD                                                                                                 \
    {                                                                                                        \
        1452, 40000, 50000, true, 1452                                                                       \
    }
#define WAITING                                                                                              \
    {                                                                                                        \
        1452, 40000, 50000, false, 1452                                                                      \
    }

static void test_unanswered(void **state)
{
    struct relay_quic_mtu mtu;
    make(&mtu, false);
    at = 100;
    LOOK_ALL(&mtu, GOOD, WAITING, WAITING, {1452, 40000, 50000, false, 1250},
             {1250, 40000, 50000, false, 1250});
    at += 3;
    LOOK_ALL(&mtu, {0, 40000, 50000, false, 1250}, {0, 40000, 50000, false, 1200},
             {1200, 0, 50000, true, 1200});
    raise_at(&mtu, 150, 1200);
    raise_at(&mtu, 211, 1452);
    LOOK_ALL(&mtu, GOOD, WAITING, WAITING, {1452, 40000, 50000, false, 1250});
    raise_at(&mtu, 340, 1250); /* the second time it waits longer */
    raise_at(&mtu, 360, 1452);
}

/* On a fast path three PTO are no more than what a busy machine keeps a process waiting. */
static void test_a_peer_that_waits_for_its_processor(void **state)
{
    struct relay_quic_mtu mtu;
    struct relay_quic_mtu_signs signs = {.rtt = 1, .flight = 40000, .cwnd = 50000, .pto = 30 * RELAY_MS};
    make(&mtu, false);
    for (signs.now = RELAY_SECOND; signs.now < 1400 * RELAY_MS; signs.now += 30 * RELAY_MS) {
        relay_quic_mtu_sent(&mtu, 1452);
        assert_false(relay_quic_mtu_watch(&mtu, &signs));
    }
    signs.now = 1400 * RELAY_MS;
    assert_true(relay_quic_mtu_watch(&mtu, &signs));
    assert_int_equal(mtu.cap, 1250);
}

/* From a start of its own, which an outage of a few PTO does not touch. */
static void test_short_outage(void **state)
{
    struct relay_quic_mtu mtu;
    relay_quic_mtu_init(&mtu, true, false, 1300);
    at = 100;
    for (int i = 0; i < 5; i++)
        LOOK_ALL(&mtu, {1232, 40000, 50000, true, 1232}, {1232, 40000, 50000, false, 1232},
                 {1232, 40000, 50000, false, 1232}, {1232, 40000, 50000, false, 1232},
                 {1232, 40000, 50000, false, 1232});
    at += 4;
    LOOK_ALL(&mtu, {1232, 40000, 50000, false, 1200});
}

static void test_only_small_ones_pass(void **state)
{
    struct relay_quic_mtu mtu;
    make(&mtu, false);
    at = 100;
    LOOK_ALL(&mtu, GOOD, {1452, 1452, 2904, true, 1452}, {1452, 1452, 2904, true, 1452},
             {60, 60, 2904, true, 1452}, {1452, 1452, 2904, true, 1250}, {1250, 1250, 2904, true, 1250},
             {1250, 1250, 2904, true, 1250}, {1250, 1250, 2904, true, 1250}, {1250, 1250, 2904, true, 1250});
    /* What passes now is not made smaller still, however long the window stays small. */
    for (int i = 0; i < 20; i++)
        LOOK_ALL(&mtu, {1250, 1250, 2904, true, 1250});
}

/* What is no black hole. */
static void test_no_hole(void **state)
{
    struct relay_quic_mtu mtu;
    make(&mtu, false);
    at = 100;
    /* A window that opens again. */
    for (int i = 0; i < 5; i++)
        LOOK_ALL(&mtu, {1452, 1452, 2904, true, 1452}, {1452, 1452, 2904, true, 1452},
                 {1452, 1452, 2904, true, 1452}, {1452, 1452, 9000, true, 1452});
    /* Small packets that are lost. */
    for (int i = 0; i < 20; i++)
        LOOK_ALL(&mtu, {1250, 1250, 50000, false, 1452});
    for (int i = 0; i < 20; i++)
        LOOK_ALL(&mtu, {1250, 1250, 2400, true, 1452});
    /* A pause: the first packet after it is not waited for since its beginning. */
    LOOK_ALL(&mtu, {0, 0, 50000, true, 1452});
    at += 1000;
    LOOK_ALL(&mtu, WAITING, WAITING, WAITING, GOOD);
}

static void test_restart(void **state)
{
    struct relay_quic_mtu mtu;
    make(&mtu, false);
    at = 100;
    LOOK_ALL(&mtu, GOOD, WAITING, WAITING, {1452, 40000, 50000, false, 1250});
    relay_quic_mtu_restart(&mtu);
    assert_int_equal(mtu.cap, 1250);
    assert_true(relay_quic_mtu_is_probing(&mtu));
    raise_at(&mtu, 100000, 1250);
}

/* What ngtcp2 writes into the buffers that it is given; 0: nothing, one PTO later. */
struct step {
    size_t written, buffer, cap; /* what the next buffer and the cap are then */
};

static void walk(struct relay_quic_mtu *mtu, const struct step *steps, size_t count)
{
    uint64_t now = RELAY_SECOND;
    for (size_t i = 0; i < count; i++) {
        now += steps[i].written == 0 ? PTO : 0;
        relay_quic_mtu_probed(mtu, steps[i].written, now, PTO);
        if (mtu->cap != steps[i].cap || relay_quic_mtu_probe_size(mtu, 1452) != steps[i].buffer)
            fail_msg("step %zu: cap %zu, buffer %zu", i, mtu->cap, relay_quic_mtu_probe_size(mtu, 1452));
    }
}
#define WALK(mtu, ...)                                                                                       \
    walk(mtu, (struct step[]){__VA_ARGS__}, sizeof((struct step[]){__VA_ARGS__}) / sizeof(struct step))

static void test_up_and_down(void **state)
{
    struct relay_quic_mtu mtu;
    relay_quic_mtu_init(&mtu, false, false, 1452);
    assert_int_equal(relay_quic_mtu_probe_size(&mtu, 1452), 1350);
    WALK(&mtu, {1350, 1400, 1250}, {1400, 1452, 1350}, {1452, 1452, 1400}, {0, 1452, 1400}, {0, 0, 1452});
    /* 1350 does not arrive, 1318 neither, 1285 does. */
    relay_quic_mtu_init(&mtu, true, false, 1452);
    WALK(&mtu, {1350, 1400, 1232}, {1350, 1400, 1232}, {1350, 1400, 1232}, {0, 1400, 1232});
    WALK(&mtu, {1318, 1318, 1232}, {1318, 1318, 1232}, {1318, 1318, 1232});
    WALK(&mtu, {1285, 1285, 1232}, {0, 1285, 1232}, {0, 0, 1285});
    /* 1400 does not. */
    relay_quic_mtu_init(&mtu, false, false, 1452);
    WALK(&mtu, {1350, 1400, 1250}, {1400, 1452, 1350}, {1400, 1452, 1350}, {1400, 1452, 1350});
    WALK(&mtu, {0, 1452, 1350}, {0, 1452, 1350}, {0, 1452, 1350}, {0, 1452, 1350}, {0, 1452, 1350},
         {0, 1452, 1350}, {0, 1452, 1350}, {0, 0, 1350});
}

static void test_starts(void **state)
{
    struct relay_quic_mtu mtu;
    relay_quic_mtu_init(&mtu, true, true, 1500);
    assert_int_equal(mtu.cap, 1200);
    WALK(&mtu, {1318, 1365, 1200}, {1365, 1417, 1318}, {1417, 1417, 1365}, {0, 1417, 1365}, {0, 0, 1417});
    relay_quic_mtu_init(&mtu, false, false, 1330);
    assert_int_equal(relay_quic_mtu_probe_size(&mtu, 1330), 1318);
    relay_quic_mtu_begin_least(&mtu);
    assert_int_equal(mtu.cap, 1200);
    relay_quic_mtu_restart(&mtu);
    assert_int_equal(mtu.cap, 1200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unanswered),   cmocka_unit_test(test_a_peer_that_waits_for_its_processor),
        cmocka_unit_test(test_short_outage), cmocka_unit_test(test_only_small_ones_pass),
        cmocka_unit_test(test_no_hole),      cmocka_unit_test(test_restart),
        cmocka_unit_test(test_up_and_down),  cmocka_unit_test(test_starts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
