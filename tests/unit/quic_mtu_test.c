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
    for (size_t i = 0; i < RELAY_QUIC_MTU_SIZES; i++)
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
                                             .now = at * PTO};
        uint64_t sent_at = (at++ - 1) * PTO; /* right after the look before */
        relay_quic_mtu_sent(mtu, looks[i].sent, sent_at);
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
        relay_quic_mtu_sent(&mtu, 1452, signs.now - signs.pto); /* right after the look before */
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
    /* What was in flight before the pause was given up in it. */
    LOOK_ALL(&mtu, {60, 60, 50000, true, 1452});
    at += 1000;
    LOOK_ALL(&mtu, WAITING, WAITING, GOOD);
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
        size_t buffer = relay_quic_mtu_probe_size(mtu, 1452, now);
        if (mtu->cap != steps[i].cap || buffer != steps[i].buffer)
            fail_msg("step %zu: cap %zu, buffer %zu", i, mtu->cap, buffer);
    }
}
#define WALK(mtu, ...)                                                                                       \
    walk(mtu, (struct step[]){__VA_ARGS__}, sizeof((struct step[]){__VA_ARGS__}) / sizeof(struct step))

static void test_up_and_down(void **state)
{
    struct relay_quic_mtu mtu;
    relay_quic_mtu_init(&mtu, false, false, 1452);
    assert_int_equal(relay_quic_mtu_probe_size(&mtu, 1452, 0), 1285);
    WALK(&mtu, {1285, 1318, 1250}, {1318, 1350, 1285}, {1350, 1400, 1318}, {1400, 1452, 1350},
         {1452, 1452, 1400}, {0, 1452, 1400}, {0, 0, 1452});
    /* 1285 does not arrive, 1281 neither, 1277 does. */
    relay_quic_mtu_init(&mtu, true, false, 1452);
    WALK(&mtu, {1285, 1318, 1232}, {1285, 1318, 1232}, {0, 0, 1232}, {1285, 1318, 1232}, {0, 1318, 1232});
    WALK(&mtu, {1281, 1281, 1232}, {1281, 1281, 1232}, {1281, 1281, 1232});
    WALK(&mtu, {1277, 1277, 1232}, {0, 1277, 1232}, {0, 0, 1277});
    /* 1400 does not; 1396 does, the third time. */
    relay_quic_mtu_init(&mtu, false, false, 1452);
    WALK(&mtu, {1285, 1318, 1250}, {1318, 1350, 1285}, {1350, 1400, 1318}, {1400, 1452, 1350},
         {1400, 1452, 1350}, {1400, 1452, 1350}, {0, 1452, 1350}, {0, 1452, 1350}, {0, 1452, 1350});
    WALK(&mtu, {1396, 1396, 1350}, {1396, 1396, 1350}, {1396, 1396, 1350});
    WALK(&mtu, {0, 1396, 1350}, {0, 1396, 1350}, {0, 1396, 1350}, {0, 1396, 1350}, {0, 0, 1396});
}

static void test_starts(void **state)
{
    struct relay_quic_mtu mtu;
    relay_quic_mtu_init(&mtu, true, true, 1500);
    assert_int_equal(mtu.cap, 1200);
    WALK(&mtu, {1250, 1285, 1200}, {1285, 1318, 1250}, {1318, 1365, 1285}, {1365, 1417, 1318},
         {1417, 1417, 1365}, {0, 1417, 1365}, {0, 0, 1417});
    relay_quic_mtu_init(&mtu, false, false, 1300);
    for (size_t i = 0; i < mtu.num_probes; i++)
        assert_in_range(mtu.probes[i], 1251, 1300);
    relay_quic_mtu_begin_least(&mtu);
    assert_int_equal(mtu.cap, 1200);
    relay_quic_mtu_restart(&mtu);
    assert_int_equal(mtu.cap, 1200);
}

/* ---- ngtcp2's side (lib/ngtcp2_pmtud.c), and a path that changes ---- */

struct path {
    uint64_t until; /* ms; the last one stays */
    size_t carries,
        told; /* packets larger than the first vanish; the second is what the path says of itself */
};

struct prober {
    const struct relay_quic_mtu *mtu;
    size_t at, arrived, failed, limit, lost;
    unsigned sent;
    uint64_t expiry, answer_at;
    size_t answer;
};

#define NEVER UINT64_MAX
#define RTT   (50 * RELAY_MS)

static void next_probe(struct prober *prober)
{
    prober->sent = 0;
    prober->expiry = NEVER;
    while (++prober->at < prober->mtu->num_probes) {
        size_t size = prober->mtu->probes[prober->at];
        if (size > prober->arrived && size <= prober->limit && size < prober->failed)
            return;
    }
}

static void pass_time(struct prober *prober, uint64_t now)
{
    if (prober->answer_at <= now) {
        prober->answer_at = NEVER;
        prober->arrived = prober->answer > prober->arrived ? prober->answer : prober->arrived;
        if (prober->at < prober->mtu->num_probes && prober->mtu->probes[prober->at] <= prober->arrived)
            next_probe(prober);
    }
    if (prober->expiry > now)
        return;
    prober->expiry = NEVER;
    if (prober->sent == 3) {
        prober->failed = prober->mtu->probes[prober->at];
        next_probe(prober);
    }
}

static size_t write_probe(struct prober *prober, size_t room, size_t carries, uint64_t now)
{
    size_t size = prober->at < prober->mtu->num_probes ? prober->mtu->probes[prober->at] : SIZE_MAX;
    if (size > room || prober->expiry != NEVER)
        return 0;
    prober->expiry = now + (++prober->sent < 3 ? PTO : 3 * PTO);
    prober->lost += size > carries;
    if (size <= carries) {
        prober->answer = size;
        prober->answer_at = now + RTT;
    }
    return size;
}

/* The cap at the end. Nothing is ever sent that the path says it does not take. */
static size_t travel(bool is_nested, size_t limit, const struct path *path, uint64_t seconds,
                     struct prober *prober)
{
    struct relay_quic_mtu mtu;
    relay_quic_mtu_init(&mtu, false, is_nested, 1452);
    *prober = (struct prober){
        .mtu = &mtu, .at = SIZE_MAX, .arrived = 1200, .failed = SIZE_MAX, .limit = limit, .answer_at = NEVER};
    next_probe(prober);
    for (uint64_t now = RELAY_SECOND; now < (seconds + 1) * RELAY_SECOND; now += 10 * RELAY_MS) {
        if (now - RELAY_SECOND >= path->until * RELAY_MS)
            path++;
        pass_time(prober, now);
        size_t room = relay_quic_mtu_probe_size(&mtu, path->told, now);
        if (room == 0)
            continue;
        assert_true(room <= path->told);
        relay_quic_mtu_probed(&mtu, write_probe(prober, room, path->carries, now), now, PTO);
    }
    prober->mtu = NULL;
    return mtu.cap;
}

/* The path grows while, or after, a size was tried. What is found at last is what it carries, less a little. */
static void test_what_grows_is_found(void **state)
{
    static const struct {
        bool is_nested;
        size_t limit;
        struct path path[3];
        uint64_t seconds;
        size_t least, most;
    } table[] = {
        /* All of it is there at once. */
        {false, 1452, {{NEVER, 1452, 1452}}, 2, 1452, 1452},
        {true, 1452, {{NEVER, 1420, 1420}}, 2, 1417, 1417},
        /* The egress of two hops: the ingress has not found its own size yet. */
        {false, 1420, {{400, 1218, 1452}, {NEVER, 1420, 1452}}, 3, 1400, 1400},
        {false, 1420, {{700, 1318, 1452}, {NEVER, 1420, 1452}}, 3, 1346, 1349},
        {false, 1420, {{500, 1350, 1452}, {NEVER, 1420, 1452}}, 3, 1400, 1400},
        {false, 1420, {{2000, 1350, 1452}, {NEVER, 1420, 1452}}, 10, 1392, 1399},
        /* The client: hop 1 tells, and nothing is sent before. */
        {true, 1452, {{60000, 1330, 1330}, {NEVER, 1420, 1420}}, 62, 1417, 1417},
        {true, 1452, {{1000, 1270, 1270}, {300000, 1330, 1330}, {NEVER, 1420, 1420}}, 302, 1417, 1417},
        /* Much later. */
        {false, 1452, {{100000, 1390, 1452}, {NEVER, 1452, 1452}}, 250, 1384, 1399},
        {false, 1452, {{1200000, 1390, 1452}, {NEVER, 1452, 1452}}, 1850, 1372, 1399},
        /* Never. */
        {false, 1452, {{NEVER, 1390, 1452}}, 10, 1350, 1350},
        {false, 1452, {{NEVER, 1390, 1452}}, 30, 1390, 1390},
        {false, 1452, {{NEVER, 1230, 1452}}, 4000, 1250, 1250},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct prober prober;
        size_t cap = travel(table[i].is_nested, table[i].limit, table[i].path, table[i].seconds, &prober);
        if (cap < table[i].least || cap > table[i].most)
            fail_msg("row %zu: %zu", i, cap);
        if (table[i].is_nested)
            assert_int_equal(prober.lost, 0);
        /* Three packets a size, and seldom. */
        assert_true(prober.lost <= 3 * (1 + RELAY_QUIC_MTU_AGAIN));
    }
}

/* Whenever the path grows: what was tried in vain is tried again before the time until then has passed once more, and a half
 * of it. One pause that was missed (one probe lost, or too early for the connection around this one) costs no more. */
static void test_what_grows_is_found_soon(void **state)
{
    static const uint16_t seconds[] = {1, 2, 4, 8, 10, 14, 17, 20, 24, 30, 40, 60, 100, 150, 200, 300};
    for (size_t i = 0; i < sizeof(seconds) / sizeof(seconds[0]); i++) {
        struct path path[] = {{seconds[i] * 1000, 1355, 1452}, {NEVER, 1452, 1452}};
        struct prober prober;
        size_t cap = travel(false, 1452, path, seconds[i] * 5 / 2 + 3, &prober);
        if (cap <= 1355)
            fail_msg("after %u s: %zu", seconds[i], cap);
    }
}

/* Two that begin together, one inside the other: they do not try at the same time. */
static void test_one_inside_another(void **state)
{
    struct relay_quic_mtu outer, inner;
    uint64_t until_outer = 0, until_inner = 0;
    relay_quic_mtu_init(&outer, false, false, 1452);
    relay_quic_mtu_init(&inner, false, false, 1452);
    relay_quic_mtu_begin_least(&inner); /* the server of one that is nested */
    for (size_t i = 0; i < 10; i++) {
        for (int k = 0; k < 2; k++) {
            relay_quic_mtu_probed(&outer, outer.probes[i * RELAY_QUIC_MTU_SIZES], 0, PTO);
            relay_quic_mtu_probed(&inner, inner.probes[i * RELAY_QUIC_MTU_SIZES], 0, PTO);
        }
        assert_true(outer.pause > until_inner - until_outer);
        until_outer += outer.pause;
        until_inner += inner.pause;
        assert_true(until_inner >= until_outer + outer.pause / 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unanswered),
        cmocka_unit_test(test_a_peer_that_waits_for_its_processor),
        cmocka_unit_test(test_short_outage),
        cmocka_unit_test(test_only_small_ones_pass),
        cmocka_unit_test(test_no_hole),
        cmocka_unit_test(test_restart),
        cmocka_unit_test(test_up_and_down),
        cmocka_unit_test(test_starts),
        cmocka_unit_test(test_what_grows_is_found),
        cmocka_unit_test(test_what_grows_is_found_soon),
        cmocka_unit_test(test_one_inside_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
