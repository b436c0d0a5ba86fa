#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/net/quic_half_open.h"

#define MANY 1000

static struct relay_quic_half_open half_open;
static struct relay_quic_handshake handshakes[MANY];

static int setup(void **state)
{
    memset(&half_open, 0, sizeof(half_open));
    memset(handshakes, 0, sizeof(handshakes));
    half_open.seed = 0x5eed;
    return 0;
}

static void begin(struct relay_quic_handshake *handshake, const char *address, uint16_t port)
{
    struct sockaddr_storage from = {0};
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&from;
    struct sockaddr_in *v4 = (struct sockaddr_in *)&from;
    if (inet_pton(AF_INET6, address, &v6->sin6_addr) == 1) {
        from.ss_family = AF_INET6;
    } else {
        assert_int_equal(inet_pton(AF_INET, address, &v4->sin_addr), 1);
        from.ss_family = AF_INET;
    }
    v6->sin6_port = htons(port); /* at the same place in both */
    relay_quic_half_open_add(&half_open, handshake, &from);
}

static struct relay_quic_handshake *end_victim(void)
{
    struct relay_quic_handshake *victim = relay_quic_half_open_victim(&half_open);
    relay_quic_half_open_remove(&half_open, victim);
    return victim;
}

/* Of equals the oldest, whichever ended in between. */
static void the_oldest_goes_first(void **state)
{
    assert_null(relay_quic_half_open_victim(&half_open));
    for (int i = 0; i < 10; i++)
        begin(&handshakes[i], "192.0.2.1", 443);
    relay_quic_half_open_remove(&half_open, &handshakes[0]);
    relay_quic_half_open_remove(&half_open, &handshakes[5]);
    relay_quic_half_open_remove(&half_open, &handshakes[9]);
    relay_quic_half_open_remove(&half_open, &handshakes[5]);
    assert_int_equal(half_open.count, 7);
    static const int rest[] = {1, 2, 3, 4, 6, 7, 8};
    for (size_t i = 0; i < sizeof(rest) / sizeof(rest[0]); i++)
        assert_ptr_equal(end_victim(), &handshakes[rest[i]]);
    assert_int_equal(half_open.count, 0);
    assert_null(relay_quic_half_open_victim(&half_open));
}

/* How many of 100 handshakes of users outlive as many newcomers as there are places, from `attacker` and its ports. */
static unsigned survivors(const char *user, const char *attacker, unsigned ports)
{
    static struct relay_quic_handshake users[100];
    unsigned alive = 0;
    memset(users, 0, sizeof(users));
    for (unsigned i = 0; i < 100; i++)
        begin(&users[i], user, (uint16_t)(50000 + i));
    for (unsigned i = 0; i < MANY; i++)
        begin(&handshakes[i], attacker, (uint16_t)(1024 + i % ports));
    for (unsigned i = 0; i < MANY; i++) {
        struct relay_quic_handshake *victim = end_victim();
        if (victim >= handshakes && victim < handshakes + MANY)
            begin(victim, attacker, (uint16_t)(1024 + i % ports));
    }
    for (unsigned i = 0; i < 100; i++)
        alive += users[i].is_counted;
    return alive;
}

static void a_flood_is_paid_for_by_itself(void **state)
{
    static const struct {
        const char *user, *attacker;
        unsigned ports, at_least;
    } rows[] = {
        {"192.0.2.1", "192.0.2.1", 1, 70}, /* a tunnel of the relay whose users the others are */
        {"192.0.2.1", "192.0.2.77", 1, 100},
        {"192.0.2.1", "192.0.2.77", 1000, 100},
        {"2001:db8:0:1::1", "2001:db8:0:2::1", 1000, 100},
        {"2001:db8::1", "192.0.2.77", 1000, 100},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        setup(state);
        unsigned alive = survivors(rows[i].user, rows[i].attacker, rows[i].ports);
        if (alive < rows[i].at_least)
            fail_msg("row %zu: %u are left", i, alive);
    }
}

/* Forty behind one port of an address suffer nothing from a hundred of another one, however many ports these have. */
static void the_source_counts_before_the_port(void **state)
{
    struct relay_quic_handshake *users = handshakes, *attacker = handshakes + 40;
    for (unsigned i = 0; i < 40; i++)
        begin(&users[i], "192.0.2.1", 50000);
    for (unsigned i = 0; i < 100; i++)
        begin(&attacker[i], "192.0.2.77", (uint16_t)(1024 + i));
    assert_int_not_equal(users[0].source, attacker[0].source);
    for (unsigned i = 0; i < 60; i++)
        assert_true(end_victim() >= attacker);
}

/* Whatever is there, who has just come is not the first to go. */
static void the_newest_stays(void **state)
{
    static const char *const sources[] = {"192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:1::1"};
    for (unsigned i = 0; i < MANY; i++) {
        begin(&handshakes[i], sources[i % 4], (uint16_t)(i / 3));
        if (i == 0)
            continue;
        assert_ptr_not_equal(relay_quic_half_open_victim(&half_open), &handshakes[i]);
        if (half_open.count > 20)
            end_victim();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_oldest_goes_first, setup),
        cmocka_unit_test_setup(a_flood_is_paid_for_by_itself, setup),
        cmocka_unit_test_setup(the_source_counts_before_the_port, setup),
        cmocka_unit_test_setup(the_newest_stays, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
