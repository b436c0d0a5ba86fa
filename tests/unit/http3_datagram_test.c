/* HTTP Datagrams of the HTTP/3 session. */
#include "tests/unit/http3_fixture.h"

static bool three_datagrams(void)
{
    return clients[0].datagrams >= 3;
}

static void test_datagrams(void **state)
{
    join();
    struct end *end = open_kind(RELAY_KIND_CAPSULES, 0);
    assert_true(run_until(first_answered));
    assert_int_equal(relay_tunnel_max_datagram(end->tunnel, 0), 1198);
    struct relay_run run = {0, block, 2300, 1150};
    assert_int_equal(relay_tunnel_send_datagrams(end->tunnel, &run), RELAY_SENT);
    run = (struct relay_run){5, block, 0, 0};
    assert_int_equal(relay_tunnel_send_datagrams(end->tunnel, &run), RELAY_SENT);
    run = (struct relay_run){0, block, 1199, 1199};
    assert_int_equal(relay_tunnel_send_datagrams(end->tunnel, &run), RELAY_TOO_BIG);
    assert_true(run_until(three_datagrams));
    assert_int_equal(server_ends[0]->datagrams, 3);
    assert_int_equal(server_ends[0]->last_context, 5);
    assert_int_equal(server_ends[0]->last_datagram, 0);
    /* Capsules are understood, too. */
    uint8_t capsule[4] = {0, 'a', 'b', 'c'};
    relay_tunnel_send_capsule(end->tunnel, 0, capsule, sizeof(capsule));
    run_turns(20);
    assert_int_equal(server_ends[0]->datagrams, 4);
    assert_int_equal(server_ends[0]->last_datagram, 3);
}

/* The first datagrams overtake their request. */
static void test_early_datagrams(void **state)
{
    join();
    for (uint8_t i = 0; i < 12; i++)
        fake_post(fake_client->peer, DATAGRAM, 0, 0, false, (uint8_t[3]){0, 0, i}, 3);
    run_turns(5);
    behaviour = STALLS;
    assert_non_null(open_kind(RELAY_KIND_CAPSULES, 0));
    assert_true(run_until(first_answered));
    assert_int_equal(server_ends[0]->datagrams, 8);
    assert_int_equal(metrics.drop_unknown_stream, 4);
}

static void test_peer_without_datagrams(void **state)
{
    join();
    fake_client->max_datagram = fake_client->peer->max_datagram = 0;
    struct end *end = open_kind(RELAY_KIND_CAPSULES, 0);
    assert_true(run_until(first_answered));
    struct relay_run run = {0, block, 3000, 1000};
    assert_int_equal(relay_tunnel_send_datagrams(end->tunnel, &run), RELAY_SENT);
    assert_true(run_until(three_datagrams));
}

/* Room for one datagram at a time: three tunnels with many each share it evenly. */
static void test_datagram_turns(void **state)
{
    join();
    behaviour = STALLS;
    for (size_t i = 0; i < 3; i++)
        open_kind(RELAY_KIND_CAPSULES, i);
    assert_true(run_until(first_answered));
    run_turns(20);
    fake_client->datagram_room = 0;
    for (size_t i = 0; i < 3; i++) {
        clients[i].owed = 100;
        struct relay_run run = {0, block, 10, 10};
        assert_int_equal(relay_tunnel_send_datagrams(clients[i].tunnel, &run), RELAY_BLOCKED);
    }
    for (int round = 0; round < 9; round++) {
        fake_client->datagram_room = 1;
        fake_client->cb->on_writable(fake_client->user);
        run_turns(4);
    }
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(server_ends[i]->datagrams, 3);
    for (size_t i = 0; i < 3; i++)
        clients[i].owed = 0;
}

struct datagram_row {
    uint8_t bytes[9];
    size_t len;
    uint64_t closes_with;
};

/* T30: what a hostile peer can put in front of a datagram. */
static void test_bad_datagrams(void **state)
{
    static const struct datagram_row rows[] = {
        {{0}, 0, 0x33},                                               /* empty */
        {{0x40}, 1, 0x33},                                            /* the ID is cut */
        {{0xd0, 0, 0, 0, 0, 0, 0, 0}, 8, 0x33},                       /* 2^60 */
        {{0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 8, 0x108}, /* 2^60-1: above the limit */
        {{0x40, 100, 0}, 3, 0x108},                                   /* 100: the first above it */
        {{0x40, 99, 0}, 3, 0},                                        /* 99: not yet */
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (i > 0)
            setup(NULL);
        join();
        fake_post(fake_client->peer, DATAGRAM, 0, 0, false, rows[i].bytes, rows[i].len);
        run_turns(20);
        assert_int_equal(server_closed, rows[i].closes_with != 0);
        assert_int_equal(fake_last_close, rows[i].closes_with);
        if (i + 1 < sizeof(rows) / sizeof(rows[0]))
            teardown(NULL);
    }
}

static void check_datagram_refused(enum relay_kind kind, size_t n)
{
    behaviour = HANGS;
    struct relay_request request = make(kind);
    request.ends = false;
    struct end *end = open_request(request, n);
    run_turns(10);
    uint8_t frame[] = {(uint8_t)n, 0, 'x'};
    fake_post(fake_client->peer, DATAGRAM, 0, 0, false, frame, sizeof(frame));
    run_turns(20);
    assert_true(end->closed && server_ends[n]->closed);
    assert_int_equal(fake_client->last_reset, 0x33);
    /* On a stream that is gone: dropped. */
    uint64_t before = metrics.drop_unknown_stream;
    fake_post(fake_client->peer, DATAGRAM, 0, 0, false, frame, sizeof(frame));
    run_turns(10);
    assert_int_equal(metrics.drop_unknown_stream, before + 1);
    assert_false(server_closed);
}

static void test_datagram_on_other_requests(void **state)
{
    join();
    check_datagram_refused(RELAY_KIND_MESSAGE, 0);
    check_datagram_refused(RELAY_KIND_BYTES, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_datagrams),      TEST(test_early_datagrams), TEST(test_peer_without_datagrams),
        TEST(test_datagram_turns), TEST(test_bad_datagrams),   TEST(test_datagram_on_other_requests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
