#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/net/acceptor.h"
#include "lib/net/metrics.h"

static struct relay_loop loop;
static struct relay_metrics metrics;
static struct relay_acceptor *acceptor;
static struct sockaddr_storage address;
static int accepted, close_after;
static struct relay_timer stop;

static void on_accept(void *user, int fd, const struct sockaddr_storage *peer)
{
    assert_int_equal(peer->ss_family, AF_INET);
    close(fd);
    if (++accepted == close_after)
        relay_acceptor_close(acceptor);
}

static void on_stop(struct relay_timer *timer)
{
    relay_loop_stop(&loop);
}

static void run_for(uint64_t ns)
{
    relay_timer_init(&stop, on_stop);
    relay_timer_set_after(&loop, &stop, ns);
    relay_loop_run(&loop);
}

static int setup(void **state)
{
    int fd;
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    address = (struct sockaddr_storage){0};
    *(struct sockaddr_in *)&address = any;
    metrics = (struct relay_metrics){0};
    accepted = close_after = 0;
    assert_int_equal(relay_loop_init(&loop, &metrics), 0);
    assert_int_equal(relay_acceptor_bind(&address, true, &fd), 0);
    acceptor = relay_acceptor_new(&loop, fd, on_accept, NULL);
    return acceptor != NULL ? 0 : 1;
}

static int teardown(void **state)
{
    if (close_after == 0)
        relay_acceptor_close(acceptor);
    relay_loop_dispose(&loop);
    return 0;
}

static int dial(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(struct sockaddr_in)), 0);
    return fd;
}

static void connections_are_handed_over(void **state)
{
    int a = dial(), b = dial();
    run_for(5 * RELAY_MS);
    assert_int_equal(accepted, 2);
    close(a);
    close(b);
}

static void it_may_be_closed_in_its_callback(void **state)
{
    close_after = 1;
    int a = dial(), b = dial();
    run_for(5 * RELAY_MS);
    assert_int_equal(accepted, 1);
    close(a);
    close(b);
}

static void out_of_descriptors_it_pauses_and_recovers(void **state)
{
    enum { WAITING = 300 };
    int clients[WAITING];
    for (int i = 0; i < WAITING; i++)
        clients[i] = dial();
    struct rlimit before, low;
    getrlimit(RLIMIT_NOFILE, &before);
    int highest = dup(0);
    close(highest);
    low = (struct rlimit){(rlim_t)highest, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    long cpu = used.ru_utime.tv_usec + used.ru_stime.tv_usec +
               1000000 * (used.ru_utime.tv_sec + used.ru_stime.tv_sec);
    run_for(250 * RELAY_MS);
    getrusage(RUSAGE_SELF, &used);
    cpu = used.ru_utime.tv_usec + used.ru_stime.tv_usec +
          1000000 * (used.ru_utime.tv_sec + used.ru_stime.tv_sec) - cpu;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(metrics.limit_descriptors, WAITING);
    assert_int_equal(accepted, 0);
    assert_true(cpu < 150000); /* it did not spin */
    for (int i = 0; i < WAITING; i++) {
        char byte;
        assert_true(recv(clients[i], &byte, 1, MSG_DONTWAIT) == 0 ||
                    errno != EAGAIN); /* told, not left hanging */
        close(clients[i]);
    }
    int client = dial();
    run_for(250 * RELAY_MS);
    assert_int_equal(accepted, 1);
    close(client);
}

static void some_descriptors_are_left_to_others(void **state)
{
    int client = dial(), late = dial(), next = dup(0);
    close(next);
    relay_acceptor_keep_below(acceptor, next);
    run_for(5 * RELAY_MS);
    assert_int_equal(accepted, 0);
    assert_int_equal(metrics.limit_descriptors, 2);
    relay_acceptor_keep_below(acceptor, next + 1);
    int other = dial();
    run_for(250 * RELAY_MS);
    assert_int_equal(accepted, 0); /* `other` has that one */
    assert_int_equal(metrics.limit_descriptors, 3);
    close(other);
    other = dial();
    close(client);
    run_for(250 * RELAY_MS);
    assert_int_equal(accepted, 1);
    close(other);
    close(late);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(connections_are_handed_over, setup, teardown),
        cmocka_unit_test_setup_teardown(it_may_be_closed_in_its_callback, setup, teardown),
        cmocka_unit_test_setup_teardown(out_of_descriptors_it_pauses_and_recovers, setup, teardown),
        cmocka_unit_test_setup_teardown(some_descriptors_are_left_to_others, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
