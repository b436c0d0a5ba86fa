/* resolver_status.c: what the endings of c-ares' questions mean, and a resolver that gets no socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <ares.h>
#include <limits.h>
#include <sys/resource.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/net/metrics.h"
#include "lib/net/reserve.h"
#include "lib/net/resolver.h"
#include "lib/net/resolver_status.h"
#include "lib/wire/error.h"

#define NOBODY "127.0.0.1:1" /* where no server listens */
#define LIMIT  256

static struct relay_loop loop;
static struct relay_metrics metrics;
static struct relay_resolver *resolver;
static struct rlimit before;

static int setup(void **state)
{
    static const struct relay_resolver_config config = {NOBODY, RELAY_SECOND, 100, NULL};
    if (relay_loop_init(&loop, &metrics) != 0 || getrlimit(RLIMIT_NOFILE, &before) != 0)
        return -1;
    resolver = relay_resolver_new(&loop, &config);
    return resolver == NULL || setrlimit(RLIMIT_NOFILE, &(struct rlimit){LIMIT, before.rlim_max}) != 0;
}

static int teardown(void **state)
{
    relay_reserve_set(ULONG_MAX);
    relay_resolver_free(resolver);
    relay_loop_dispose(&loop);
    return setrlimit(RLIMIT_NOFILE, &before);
}

static void on_resolved(struct relay_lookup *lookup, const struct relay_resolution *resolution)
{
    assert_int_equal(resolution->rcode, -1);
    assert_true(resolution->is_final);
    *(int *)(lookup + 1) = resolution->error;
    relay_loop_stop(&loop);
}

/* The error that a lookup of the same name ends with. */
static int ask(void)
{
    struct {
        struct relay_lookup lookup;
        int error;
    } asked = {.lookup.on_resolved = on_resolved};
    relay_resolver_ask(resolver, &asked.lookup, "name.example");
    relay_loop_run(&loop);
    return asked.error;
}

/* Until only those of the reserve are left, or none. */
static void hold(int fds[LIMIT])
{
    int num = 0;
    while ((fds[num] = dup(0)) >= 0 && !relay_reserve_has(fds[num]))
        num++;
    if (fds[num] >= 0)
        close(fds[num]);
    fds[num] = -1;
}

static void let_go(const int fds[LIMIT])
{
    for (int i = 0; fds[i] >= 0; i++)
        close(fds[i]);
}

/* It is not the name's fault: the next one to ask, with descriptors, is not told of it. */
static void without_descriptors(void **state)
{
    int fds[LIMIT];
    for (int has_reserve = 0; has_reserve < 2; has_reserve++) {
        relay_reserve_set(has_reserve ? LIMIT : ULONG_MAX);
        hold(fds);
        int error = ask();
        let_go(fds);
        assert_int_equal(error, RELAY_ERR_NO_DESCRIPTORS);
    }
    assert_int_equal(metrics.dns_failed, 2);
    assert_int_equal(metrics.dns_cached, 0);
    assert_int_equal(ask(), RELAY_ERR_DNS);
}

static void a_server_that_refuses_is_another_matter(void **state)
{
    assert_int_equal(ask(), RELAY_ERR_DNS);
    assert_int_equal(relay_resolver_status_of(ARES_ECONNREFUSED), ARES_ECONNREFUSED);
    assert_int_equal(relay_resolver_status_of(ARES_ESERVFAIL), ARES_ESERVFAIL);
}

static void what_they_mean(void **state)
{
    static const struct {
        int status, rcode, error;
        bool is_answer;
    } rows[] = {
        {ARES_ENODATA, RELAY_RCODE_NOERROR, RELAY_ERR_DNS, true},
        {ARES_EFORMERR, 1, RELAY_ERR_DNS, false},
        {ARES_ESERVFAIL, RELAY_RCODE_SERVFAIL, RELAY_ERR_DNS, false},
        {ARES_ENOTFOUND, RELAY_RCODE_NXDOMAIN, RELAY_ERR_DNS, true},
        {ARES_ENOTIMP, 4, RELAY_ERR_DNS, false},
        {ARES_EREFUSED, 5, RELAY_ERR_DNS, false},
        {ARES_ETIMEOUT, -1, RELAY_ERR_DNS_TIMEOUT, false},
        {ARES_ECONNREFUSED, -1, RELAY_ERR_DNS, false},
        {RELAY_RESOLVER_NO_DESCRIPTORS, -1, RELAY_ERR_NO_DESCRIPTORS, false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(relay_resolver_status_rcode(rows[i].status), rows[i].rcode);
        assert_int_equal(relay_resolver_status_error(rows[i].status), rows[i].error);
        assert_int_equal(relay_resolver_status_is_answer(rows[i].status), rows[i].is_answer);
    }
    assert_true(relay_resolver_status_is_answer(ARES_SUCCESS));
}

/* Each tells more than those that follow. */
static void which_tells_more(void **state)
{
    static const int order[] = {
        ARES_ENOTFOUND, ARES_ETIMEOUT, ARES_ESERVFAIL, ARES_EREFUSED, RELAY_RESOLVER_NO_DESCRIPTORS,
        ARES_ENODATA};
    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
        for (size_t k = i; k < sizeof(order) / sizeof(order[0]); k++) {
            assert_int_equal(relay_resolver_status_worse(order[i], order[k]), order[i]);
            assert_int_equal(relay_resolver_status_worse(order[k], order[i]), order[i]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(without_descriptors, setup, teardown),
        cmocka_unit_test_setup_teardown(a_server_that_refuses_is_another_matter, setup, teardown),
        cmocka_unit_test(what_they_mean),
        cmocka_unit_test(which_tells_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
