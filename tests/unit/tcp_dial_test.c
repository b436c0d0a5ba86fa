/* tcp_dial.c against listeners on loopback. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/net/metrics.h"
#include "lib/net/tcp_dial.h"
#include "lib/wire/error.h"

static struct relay_loop loop;
static struct relay_metrics metrics;
static int told_fd, told_error, told_times;
static struct relay_address told_address;

static int setup(void **state)
{
    memset(&metrics, 0, sizeof(metrics));
    told_fd = -1;
    told_error = told_times = 0;
    return relay_loop_init(&loop, &metrics);
}

static int teardown(void **state)
{
    if (told_fd >= 0)
        close(told_fd);
    relay_loop_dispose(&loop);
    return 0;
}

static void on_dialled(void *user, int fd, const struct relay_address *address, int error)
{
    told_times++;
    told_fd = fd;
    told_error = error;
    if (address != NULL)
        told_address = *address;
    assert_true((fd >= 0) == (error == RELAY_OK));
    relay_loop_stop(&loop);
}

static struct relay_address address(const char *text)
{
    struct relay_address parsed;
    assert_int_equal(relay_address_parse(text, strlen(text), &parsed), 0);
    return parsed;
}

/* A listener at this address; *port 0: the kernel chooses. */
static int listen_at(const char *text, uint16_t *port, int backlog)
{
    struct relay_address at = address(text);
    struct sockaddr_storage bound;
    socklen_t len = relay_address_to_sockaddr(&at, *port, &bound);
    int fd = socket(bound.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    if (bound.ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    assert_int_equal(bind(fd, (struct sockaddr *)&bound, len), 0);
    if (backlog >= 0)
        assert_int_equal(listen(fd, backlog), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&bound, &len), 0);
    relay_address_from_sockaddr(&at, port, &bound);
    return fd;
}

/* Fills the backlog of a listener that accepts nothing: further SYNs are dropped. */
static void fill(const char *text, uint16_t port, int fds[3])
{
    struct relay_address at = address(text);
    struct sockaddr_storage target;
    socklen_t len = relay_address_to_sockaddr(&at, port, &target);
    for (int i = 0; i < 3; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        connect(fds[i], (struct sockaddr *)&target, len);
        usleep(20000);
    }
}

static struct relay_tcp_dial *begin(const char **texts, size_t num, bool more_follow, uint16_t port,
                                    uint64_t delay, uint64_t timeout)
{
    struct relay_address addresses[8];
    for (size_t i = 0; i < num; i++)
        addresses[i] = address(texts[i]);
    struct relay_dial_config config = {.attempt_delay = delay, .timeout = timeout};
    int before = told_times;
    struct relay_tcp_dial *made =
        relay_tcp_dial_start(&loop, &config, addresses, num, more_follow, port, on_dialled, NULL);
    assert_non_null(made);
    assert_int_equal(told_times, before); /* never from inside the call */
    return made;
}

static struct relay_tcp_dial *dial(const char **texts, size_t num, uint16_t port, uint64_t delay,
                                   uint64_t timeout)
{
    return begin(texts, num, false, port, delay, timeout);
}

/* Adds these addresses to a dial after a while. */
static struct late {
    struct relay_timer timer;
    struct relay_tcp_dial *dial;
    struct relay_address addresses[8];
    size_t num;
} late;

static void on_late(struct relay_timer *timer)
{
    relay_tcp_dial_add(late.dial, late.addresses, late.num);
}

static void add_later(struct relay_tcp_dial *to, const char **texts, size_t num, uint64_t after)
{
    late.dial = to;
    late.num = num;
    for (size_t i = 0; i < num; i++)
        late.addresses[i] = address(texts[i]);
    relay_timer_init(&late.timer, on_late);
    relay_timer_set_after(&loop, &late.timer, after);
}

static void connects(void **state)
{
    uint16_t port = 0;
    int listener = listen_at("127.0.0.1", &port, 5);
    dial((const char *[]){"127.0.0.1"}, 1, port, RELAY_SECOND, 5 * RELAY_SECOND);
    relay_loop_run(&loop);
    assert_int_equal(told_error, RELAY_OK);
    int nodelay = 0;
    socklen_t len = sizeof(nodelay);
    getsockopt(told_fd, IPPROTO_TCP, TCP_NODELAY, &nodelay, &len);
    assert_true(nodelay);
    assert_true(fcntl(told_fd, F_GETFL) & O_NONBLOCK);
    assert_int_equal(metrics.dial_ok, 1);
    close(listener);
}

static void refused_goes_on_at_once(void **state)
{
    uint16_t port = 0;
    int listener = listen_at("127.0.0.2", &port, 5);
    uint64_t before = relay_loop_now(&loop);
    /* The delay is longer than the timeout: only the refusal can start the second attempt. */
    dial((const char *[]){"127.0.0.3", "127.0.0.2"}, 2, port, 60 * RELAY_SECOND, 5 * RELAY_SECOND);
    relay_loop_run(&loop);
    assert_int_equal(told_error, RELAY_OK);
    assert_int_equal(told_address.bytes[3], 2);
    assert_true(relay_loop_now(&loop) - before < RELAY_SECOND);
    close(listener);
}

static void all_refused(void **state)
{
    uint16_t port = 0;
    int bound = listen_at("127.0.0.1", &port, -1);
    dial((const char *[]){"127.0.0.1", "127.0.0.2"}, 2, port, RELAY_SECOND, 5 * RELAY_SECOND);
    relay_loop_run(&loop);
    assert_int_equal(told_error, RELAY_ERR_REFUSED);
    assert_int_equal(told_times, 1);
    assert_int_equal(metrics.dial_failed, 1);
    close(bound);
}

static void second_answers_while_first_hangs(void **state)
{
    uint16_t port = 0;
    int silent = listen_at("127.0.0.2", &port, 0), fds[3];
    fill("127.0.0.2", port, fds);
    int listener = listen_at("127.0.0.3", &port, 5);
    uint64_t before = relay_loop_now(&loop);
    dial((const char *[]){"127.0.0.2", "127.0.0.3"}, 2, port, 100 * RELAY_MS, 5 * RELAY_SECOND);
    relay_loop_run(&loop);
    assert_int_equal(told_error, RELAY_OK);
    assert_int_equal(told_address.bytes[3], 3);
    uint64_t took = relay_loop_now(&loop) - before;
    assert_true(took >= 90 * RELAY_MS && took < RELAY_SECOND);
    for (int i = 0; i < 3; i++)
        close(fds[i]);
    close(silent);
    close(listener);
}

static void times_out(void **state)
{
    uint16_t port = 0;
    int silent = listen_at("127.0.0.2", &port, 0), fds[3];
    fill("127.0.0.2", port, fds);
    dial((const char *[]){"127.0.0.2"}, 1, port, 250 * RELAY_MS, 200 * RELAY_MS);
    relay_loop_run(&loop);
    assert_int_equal(told_error, RELAY_ERR_TIMEOUT);
    /* A second one, cancelled: the loop's dispose would find its descriptor's watcher. */
    struct relay_tcp_dial *second =
        dial((const char *[]){"127.0.0.2"}, 1, port, 250 * RELAY_MS, 10 * RELAY_SECOND);
    relay_tcp_dial_cancel(second);
    assert_int_equal(told_times, 1);
    for (int i = 0; i < 3; i++)
        close(fds[i]);
    close(silent);
}

static void unroutable_and_families(void **state)
{
    uint16_t port = 0;
    int listener = listen_at("::1", &port, 5);
    /* IPv4 first by order, but the families take turns: ::1 is second although it stands last. */
    dial((const char *[]){"127.0.0.3", "127.0.0.4", "127.0.0.5", "::1"}, 4, port, 60 * RELAY_SECOND,
         5 * RELAY_SECOND);
    relay_loop_run(&loop);
    assert_int_equal(told_error, RELAY_OK);
    assert_int_equal(told_address.family, 6);
    close(listener);
    close(told_fd);
    told_fd = -1;
    dial((const char *[]){"255.255.255.255"}, 1, port, RELAY_SECOND, 5 * RELAY_SECOND);
    relay_loop_run(&loop);
    assert_int_equal(told_error, RELAY_ERR_UNREACHABLE);
    struct relay_address none[1];
    struct relay_dial_config config = {.attempt_delay = RELAY_SECOND, .timeout = RELAY_SECOND};
    assert_non_null(relay_tcp_dial_start(&loop, &config, none, 0, false, 1, on_dialled, NULL));
    relay_loop_run(&loop);
    assert_int_equal(told_error, RELAY_ERR_UNREACHABLE);
}

/* RFC 8305 section 3: a dial whose addresses have all failed waits for the other family, and takes it. */
static void late_addresses_join(void **state)
{
    uint16_t port = 0;
    int listener = listen_at("127.0.0.2", &port, 5);
    uint64_t before = relay_loop_now(&loop);
    struct relay_tcp_dial *made =
        begin((const char *[]){"::1", "255.255.255.255"}, 2, true, port, 60 * RELAY_SECOND, 5 * RELAY_SECOND);
    add_later(made, (const char *[]){"127.0.0.2"}, 1, 200 * RELAY_MS);
    relay_loop_run(&loop);
    assert_int_equal(told_error, RELAY_OK);
    assert_int_equal(told_address.bytes[3], 2);
    uint64_t took = relay_loop_now(&loop) - before;
    assert_true(took >= 190 * RELAY_MS && took < RELAY_SECOND);
    close(listener);
}

/* Beside an attempt that hangs they wait for the attempt delay, and stand before what is left of the first
 * family. */
static void late_addresses_take_turns(void **state)
{
    uint16_t port = 0;
    int silent = listen_at("127.0.0.2", &port, 0), fds[3];
    fill("127.0.0.2", port, fds);
    int listener = listen_at("::1", &port, 5), other = listen_at("127.0.0.3", &port, 5);
    uint64_t before = relay_loop_now(&loop);
    struct relay_tcp_dial *made =
        begin((const char *[]){"127.0.0.2", "127.0.0.3"}, 2, true, port, 200 * RELAY_MS, 5 * RELAY_SECOND);
    add_later(made, (const char *[]){"::1"}, 1, 50 * RELAY_MS);
    relay_loop_run(&loop);
    assert_int_equal(told_error, RELAY_OK);
    assert_int_equal(told_address.family, 6);
    uint64_t took = relay_loop_now(&loop) - before;
    assert_true(took >= 190 * RELAY_MS && took < RELAY_SECOND);
    for (int i = 0; i < 3; i++)
        close(fds[i]);
    close(silent);
    close(listener);
    close(other);
}

static void no_late_addresses(void **state)
{
    uint16_t port = 0;
    int bound = listen_at("127.0.0.1", &port, -1);
    struct relay_tcp_dial *made =
        begin((const char *[]){"127.0.0.1"}, 1, true, port, RELAY_SECOND, 5 * RELAY_SECOND);
    add_later(made, NULL, 0, 100 * RELAY_MS);
    relay_loop_run(&loop);
    assert_int_equal(told_error, RELAY_ERR_REFUSED);
    begin((const char *[]){"127.0.0.1"}, 1, true, port, RELAY_SECOND, 200 * RELAY_MS);
    relay_loop_run(&loop);
    assert_int_equal(told_error, RELAY_ERR_REFUSED); /* more telling than the timeout that ended it */
    made = begin((const char *[]){"127.0.0.1"}, 1, true, port, RELAY_SECOND, 5 * RELAY_SECOND);
    relay_tcp_dial_cancel(made);
    assert_int_equal(told_times, 2);
    close(bound);
}

static void no_descriptors(void **state)
{
    struct rlimit old, now;
    getrlimit(RLIMIT_NOFILE, &old);
    now = old;
    int next = dup(0);
    close(next);
    now.rlim_cur = (rlim_t)next;
    setrlimit(RLIMIT_NOFILE, &now);
    dial((const char *[]){"127.0.0.1", "127.0.0.2"}, 2, 9, RELAY_SECOND, 5 * RELAY_SECOND);
    relay_loop_run(&loop);
    setrlimit(RLIMIT_NOFILE, &old);
    assert_int_equal(told_error, RELAY_ERR_NO_DESCRIPTORS);
}

static void cancelled_when_won(void **state)
{
    uint16_t port = 0;
    int listener = listen_at("127.0.0.1", &port, 5);
    struct relay_tcp_dial *one = dial((const char *[]){"127.0.0.1"}, 1, port, RELAY_SECOND, 5 * RELAY_SECOND);
    relay_tcp_dial_cancel(one);
    dial((const char *[]){"127.0.0.1"}, 1, port, RELAY_SECOND, 5 * RELAY_SECOND);
    relay_loop_run(&loop);
    assert_int_equal(told_times, 1);
    close(listener);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(connects, setup, teardown),
        cmocka_unit_test_setup_teardown(refused_goes_on_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(all_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(second_answers_while_first_hangs, setup, teardown),
        cmocka_unit_test_setup_teardown(times_out, setup, teardown),
        cmocka_unit_test_setup_teardown(late_addresses_join, setup, teardown),
        cmocka_unit_test_setup_teardown(late_addresses_take_turns, setup, teardown),
        cmocka_unit_test_setup_teardown(no_late_addresses, setup, teardown),
        cmocka_unit_test_setup_teardown(unroutable_and_families, setup, teardown),
        cmocka_unit_test_setup_teardown(no_descriptors, setup, teardown),
        cmocka_unit_test_setup_teardown(cancelled_when_won, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
