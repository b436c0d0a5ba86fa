#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/net/reserve.h"

#define LIMIT 256

static struct rlimit before;

static int setup(void **state)
{
    return getrlimit(RLIMIT_NOFILE, &before) != 0 ||
           setrlimit(RLIMIT_NOFILE, &(struct rlimit){LIMIT, before.rlim_max}) != 0;
}

static int teardown(void **state)
{
    relay_reserve_set(ULONG_MAX);
    for (int fd = 3; fd < LIMIT; fd++)
        close(fd);
    return setrlimit(RLIMIT_NOFILE, &before);
}

/* The highest descriptor that a tunnel gets. */
static int take_all(void)
{
    int highest = -1, fd;
    while ((fd = relay_reserve_socket(AF_INET, SOCK_DGRAM)) >= 0)
        highest = fd;
    assert_int_equal(errno, EMFILE);
    return highest;
}

static void nothing_is_kept_before(void **state)
{
    assert_false(relay_reserve_is_reached());
    assert_int_equal(take_all(), LIMIT - 1);
    assert_true(relay_reserve_is_reached());
}

static void the_last_are_for_others(void **state)
{
    relay_reserve_set(LIMIT);
    int highest = take_all();
    assert_int_equal(highest, LIMIT - RELAY_RESERVE_MAX - 1);
    for (int i = 0; i < RELAY_RESERVE_MAX; i++) {
        assert_true(relay_reserve_is_reached());
        int fd = dup(0);
        assert_int_equal(fd, highest + 1 + i); /* neither of the two calls has left one open */
        assert_true(relay_reserve_has(fd));
    }
    assert_int_equal(dup(0), -1);
    assert_true(relay_reserve_is_reached());
    assert_false(relay_reserve_has(highest));
    close(highest);
    assert_false(relay_reserve_is_reached());
    assert_int_equal(take_all(), highest);
}

static void sockets_do_not_block_and_end_with_exec(void **state)
{
    int fd = relay_reserve_socket(AF_INET6, SOCK_STREAM);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
}

static void of_few_it_keeps_fewer(void **state)
{
    relay_reserve_set(64);
    assert_int_equal(relay_reserve_num_others(), 60);
    assert_true(relay_reserve_has(60) && !relay_reserve_has(59));
    relay_reserve_set(1 << 20);
    assert_true(relay_reserve_has((1 << 20) - RELAY_RESERVE_MAX));
    assert_false(relay_reserve_has((1 << 20) - RELAY_RESERVE_MAX - 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(nothing_is_kept_before, setup, teardown),
        cmocka_unit_test_setup_teardown(the_last_are_for_others, setup, teardown),
        cmocka_unit_test_setup_teardown(sockets_do_not_block_and_end_with_exec, setup, teardown),
        cmocka_unit_test_setup_teardown(of_few_it_keeps_fewer, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
