/* token_account.c with a clock of its own, and with several workers at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>

#include "lib/net/loop.h"
#include "lib/wire/error.h"
#include "modules/token_account.h"

#define WORKERS     4
#define DESCRIPTORS 1000

static struct relay_token_accounts *accounts;
static const uint64_t start = 1000 * RELAY_SECOND;

static int setup(void **state)
{
    accounts = relay_token_accounts_new(WORKERS, DESCRIPTORS);
    return accounts == NULL;
}

static int teardown(void **state)
{
    relay_token_accounts_free(accounts);
    return 0;
}

static struct relay_token_account *take(const char *name, uint64_t now)
{
    struct relay_token_account *account;
    assert_int_equal(relay_token_account_take(accounts, name, 0, now, &account), 0);
    return account;
}

static void test_tunnels(void **state)
{
    struct relay_token_account *first, *second, *third;
    assert_int_equal(relay_token_account_take(accounts, "alice", 2, start, &first), 0);
    assert_int_equal(relay_token_account_take(accounts, "alice", 2, start, &second), 0);
    assert_ptr_equal(first, second);
    assert_int_equal(relay_token_account_take(accounts, "alice", 2, start, &third), RELAY_ERR_LIMIT);
    assert_null(third);
    assert_int_equal(relay_token_account_take(accounts, "bob", 2, start, &third), 0);
    relay_token_account_release(accounts, first);
    assert_int_equal(relay_token_account_take(accounts, "alice", 2, start, &first), 0);
    assert_int_equal(relay_token_account_take(accounts, "alice", 2, start, &second), RELAY_ERR_LIMIT);
}

/* How many tunnels the token gets, at most as many as there are descriptors. */
static unsigned take_all(const char *name, struct relay_token_account **account)
{
    for (unsigned taken = 0; taken < DESCRIPTORS; taken++)
        if (relay_token_account_take(accounts, name, 0, start, account) != 0)
            return taken;
    return DESCRIPTORS;
}

/* Those who take all they get leave descriptors to the others: forty find three each after eleven of them. */
static void test_share_of_descriptors(void **state)
{
    struct relay_token_account *alice, *other;
    char name[32];
    unsigned before = DESCRIPTORS / 8;
    alice = take("alice", start);
    assert_int_equal(take_all("alice", &other), DESCRIPTORS / 2 - 1);
    for (int i = 0; i < 10; i++) {
        snprintf(name, sizeof(name), "greedy%d", i);
        unsigned taken = take_all(name, &other);
        assert_in_range(taken, 15, before);
        before = taken;
    }
    for (int i = 0; i < 40 * 3; i++) {
        snprintf(name, sizeof(name), "modest%d", i / 3);
        (void)take(name, start);
    }
    /* She has her descriptors, and more when there are enough again. */
    for (unsigned i = 0; i < 450; i++)
        relay_token_account_release(accounts, alice);
    assert_int_equal(relay_token_account_take(accounts, "alice", 0, start, &alice), 0);
    assert_in_range(take_all("alice", &other), 1, 50);
}

/* With none left it is the system that refuses the first one of a token. */
static void test_first_tunnel_of_a_token(void **state)
{
    struct relay_token_account *account;
    char name[32];
    for (unsigned i = 0; i < DESCRIPTORS + 10; i++) {
        snprintf(name, sizeof(name), "token%u", i);
        (void)take(name, start);
    }
    assert_int_equal(relay_token_account_take(accounts, "token0", 0, start, &account), RELAY_ERR_LIMIT);
}

static void test_revocation(void **state)
{
    struct relay_token_entry entries[] = {{.name = "carol"}, {.name = "alice"}};
    struct relay_token_file one = {.entries = entries, .count = 2}, nothing = {.entries = NULL},
                            none = {.is_none = true};
    struct relay_token_account *alice = take("alice", start), *bob = take("bob", start);
    relay_token_accounts_judge(accounts, &one);
    assert_false(relay_token_account_is_revoked(alice, &one));
    assert_true(relay_token_account_is_revoked(bob, &one));
    /* Taken on a worker that did not know of the reload yet. */
    assert_true(relay_token_account_is_revoked(take("dave", start), &one));
    assert_false(relay_token_account_is_revoked(take("carol", start), &one));
    relay_token_accounts_judge(accounts, &nothing);
    assert_false(relay_token_account_is_revoked(bob, &nothing));
    assert_false(relay_token_account_is_revoked(take("erin", start), &nothing));
    relay_token_accounts_judge(accounts, &none);
    assert_true(relay_token_account_is_revoked(alice, &none));
    assert_true(relay_token_account_is_revoked(take("frank", start), &none));
}

/* Opens and closes as fast as it can; how many of its tries were granted, and never more than three at once. */
static int open_now;

static void *open_and_close(void *arg)
{
    size_t *granted = arg;
    for (int i = 0; i < 20000; i++) {
        struct relay_token_account *account;
        if (relay_token_account_take(accounts, "alice", 3, start, &account) != 0)
            continue;
        if (__atomic_add_fetch(&open_now, 1, __ATOMIC_RELAXED) > 3)
            abort();
        ++*granted;
        __atomic_sub_fetch(&open_now, 1, __ATOMIC_RELAXED);
        relay_token_account_release(accounts, account);
    }
    return NULL;
}

static void test_tunnels_of_many_threads(void **state)
{
    pthread_t threads[WORKERS];
    size_t granted[WORKERS] = {0};
    for (unsigned i = 0; i < WORKERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, open_and_close, &granted[i]), 0);
    for (unsigned i = 0; i < WORKERS; i++) {
        pthread_join(threads[i], NULL);
        assert_true(granted[i] > 0);
    }
    struct relay_token_account *account;
    for (int i = 0; i < 3; i++)
        assert_int_equal(relay_token_account_take(accounts, "alice", 3, start, &account), 0);
    assert_int_equal(relay_token_account_take(accounts, "alice", 3, start, &account), RELAY_ERR_LIMIT);
}

/* What passes of runs of `count` datagrams of `segment` bytes that the workers send in turn for `duration`. */
static size_t flood(struct relay_token_account *account, const struct relay_token_rate *rate, size_t count,
                    size_t segment, uint64_t from, uint64_t duration)
{
    size_t passed = 0;
    unsigned worker = 0;
    for (uint64_t now = from; now < from + duration; now += RELAY_MS) {
        for (int i = 0; i < 20; i++)
            passed += relay_token_lease_take(account, worker++ % WORKERS, rate, count, segment,
                                             count * segment, now);
    }
    return passed;
}

static void assert_near(size_t value, double expected, double part)
{
    if ((double)value < expected * (1 - part) || (double)value > expected * (1 + part))
        fail_msg("%zu, expected %.0f", value, expected);
}

/* A second's allowance at once and then the rate, however many workers spend it. */
static void test_rates(void **state)
{
    static const struct {
        struct relay_token_rate rate;
        size_t count, segment;
        double per_second; /* datagrams */
    } rows[] = {
        {{.packets = 1000}, 1, 100, 1000},
        {{.packets = 1000}, 40, 1200, 1000},
        {{.packets = 50}, 7, 1200, 50},
        {{.packets = 100000}, 40, 1200, 100000},
        {{.bytes = 12000000}, 40, 1200, 10000},
        {{.bytes = 65536}, 1, 65507, 1},
        {{.packets = 2000, .bytes = 1200000}, 10, 1200, 1000},
        {{.packets = 500, .bytes = 1200000}, 10, 1200, 500},
        {{.packets = 500, .bytes = 65536}, 10, 0, 500},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char name[32];
        snprintf(name, sizeof(name), "row%zu", i);
        struct relay_token_account *account = take(name, start);
        size_t passed =
            flood(account, &rows[i].rate, rows[i].count, rows[i].segment, start, 9 * RELAY_SECOND);
        assert_near(passed, 10 * rows[i].per_second, rows[i].per_second < 100 ? 0.1 : 0.02);
    }
}

static void test_no_limit(void **state)
{
    struct relay_token_account *account = take("alice", start);
    static const struct relay_token_rate none;
    for (int i = 0; i < 100; i++)
        assert_int_equal(relay_token_lease_take(account, 0, &none, 64, 1200, 64 * 1200, start), 64);
}

/* What a worker has left over is no more than a batch. */
static void test_leases_are_small(void **state)
{
    static const struct relay_token_rate rate = {.packets = 25600};
    struct relay_token_account *account = take("alice", start);
    for (unsigned worker = 0; worker < WORKERS; worker++)
        assert_int_equal(relay_token_lease_take(account, worker, &rate, 1, 100, 100, start), 1);
    size_t passed = 0, more;
    while ((more = relay_token_lease_take(account, 0, &rate, 10, 100, 1000, start)) > 0)
        passed += more;
    assert_true(passed >= 25600 - WORKERS * 100 && passed <= 25600);
}

/* Closing the last tunnel gives no new allowance; a quiet second does. */
static void test_memory_of_what_was_spent(void **state)
{
    static const struct relay_token_rate rate = {.packets = 1000};
    struct relay_token_account *account = take("alice", start), *other;
    assert_int_equal(relay_token_lease_take(account, 0, &rate, 2000, 100, 200000, start), 1000);
    relay_token_account_release(accounts, account);
    for (int i = 0; i < 10000; i++) { /* every bucket of the table is looked through */
        char name[32];
        snprintf(name, sizeof(name), "other%d", i);
        other = take(name, start + RELAY_MS);
        relay_token_account_release(accounts, other);
    }
    account = take("alice", start + RELAY_MS);
    assert_true(relay_token_lease_take(account, 1, &rate, 2000, 100, 200000, start + 100 * RELAY_MS) <= 100);
    relay_token_account_release(accounts, account);
    account = take("alice", start + 3 * RELAY_SECOND);
    assert_int_equal(relay_token_lease_take(account, 2, &rate, 2000, 100, 200000, start + 3 * RELAY_SECOND),
                     1000);
}

static const struct relay_token_rate shared_rate = {.packets = 50000};
static struct relay_token_account *shared_account;

struct sender {
    unsigned worker;
    size_t passed;
};

static void *send_all(void *arg)
{
    struct sender *sender = arg;
    for (uint64_t now = start; now < start + RELAY_SECOND; now += RELAY_MS / 4)
        for (int i = 0; i < 50; i++)
            sender->passed +=
                relay_token_lease_take(shared_account, sender->worker, &shared_rate, 3, 100, 300, now);
    return NULL;
}

static void test_rates_of_many_threads(void **state)
{
    pthread_t threads[WORKERS];
    struct sender senders[WORKERS] = {{0}};
    size_t passed = 0;
    shared_account = take("alice", start);
    for (unsigned i = 0; i < WORKERS; i++) {
        senders[i].worker = i;
        assert_int_equal(pthread_create(&threads[i], NULL, send_all, &senders[i]), 0);
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        pthread_join(threads[i], NULL);
        passed += senders[i].passed;
    }
    assert_true(passed <= 100000);
    assert_true(passed >= 95000);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_tunnels),
        TEST(test_tunnels_of_many_threads),
        TEST(test_share_of_descriptors),
        TEST(test_first_tunnel_of_a_token),
        TEST(test_revocation),
        TEST(test_rates),
        TEST(test_no_limit),
        TEST(test_leases_are_small),
        TEST(test_memory_of_what_was_spent),
        TEST(test_rates_of_many_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
