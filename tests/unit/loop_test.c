#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/net/limits.h"
#include "lib/net/loop.h"
#include "lib/net/metrics.h"

static struct relay_loop loop;
static struct relay_metrics metrics;
static char order[64];

static int setup(void **state)
{
    memset(order, 0, sizeof(order));
    return relay_loop_init(&loop, &metrics);
}

static int teardown(void **state)
{
    relay_loop_dispose(&loop);
    return 0;
}

static void note(char c)
{
    order[strlen(order)] = c;
}

static struct relay_task late, early, again;
static struct relay_timer first, second, stop;

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

static void run_early(struct relay_task *task)
{
    note('e');
}

static void run_late(struct relay_task *task)
{
    note('l');
    if (strlen(order) < 3)
        relay_task_queue(&loop, &early); /* of a lower level: it comes before what is left */
}

static void tasks_run_lowest_level_first(void **state)
{
    relay_task_init(&late, RELAY_LEVEL_FLUSH_SOCKET, run_late);
    relay_task_init(&early, RELAY_LEVEL_EVENT, run_early);
    relay_task_queue(&loop, &late);
    relay_task_queue(&loop, &early);
    relay_task_queue(&loop, &early);
    run_for(RELAY_MS);
    assert_string_equal(order, "ele");
}

static int rounds;

static void run_again(struct relay_task *task)
{
    if (++rounds < 5)
        relay_task_defer(&loop, task);
    else
        relay_loop_stop(&loop);
}

static void a_deferred_task_runs_in_the_next_turn(void **state)
{
    rounds = 0;
    relay_task_init(&again, RELAY_LEVEL_EVENT, run_again);
    relay_task_defer(&loop, &again);
    relay_loop_run(&loop);
    assert_int_equal(rounds, 5);
    relay_task_defer(&loop, &again);
    relay_task_cancel(&again);
    run_for(2 * RELAY_MS);
    assert_int_equal(rounds, 5);
}

static void run_noting(struct relay_task *task)
{
    note(task == &early ? 'e' : 'd');
}

static void defer_and_queue(void *user, int events)
{
    relay_io_arm(*(struct relay_io **)user, 0);
    relay_task_defer(&loop, &again);
    relay_task_queue(&loop, &early);
    relay_task_queue(&loop, &late);
}

/* The farewell of a connection inside another one relies on it: the flush of this turn comes first. */
static void what_is_deferred_while_polling_waits_for_the_next_poll(void **state)
{
    int fds[2];
    struct relay_io *io;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    io = relay_io_new(&loop, fds[0], defer_and_queue, &io);
    relay_task_init(&again, RELAY_LEVEL_EVENT, run_noting);
    relay_task_init(&early, RELAY_LEVEL_EVENT, run_noting);
    relay_task_init(&late, RELAY_LEVEL_FLUSH_SOCKET, run_late);
    strcpy(order, "..."); /* run_late adds one letter */
    relay_io_arm(io, RELAY_IO_READ);
    assert_int_equal(write(fds[1], "x", 1), 1);
    run_for(5 * RELAY_MS);
    assert_string_equal(order, "...eld");
    relay_io_free(io);
    close(fds[0]);
    close(fds[1]);
}

static void on_first(struct relay_timer *timer)
{
    note('1');
}

static void on_second(struct relay_timer *timer)
{
    note('2');
}

static void timers_fire_in_order_and_can_be_moved(void **state)
{
    relay_timer_init(&first, on_first);
    relay_timer_init(&second, on_second);
    relay_timer_set_after(&loop, &first, RELAY_MS);
    relay_timer_set_after(&loop, &second, 5 * RELAY_MS);
    relay_timer_set_after(&loop, &first, 12 * RELAY_MS); /* later */
    run_for(30 * RELAY_MS);
    assert_string_equal(order, "21");
    assert_false(relay_timer_is_set(&first));
    relay_timer_set_after(&loop, &first, 20 * RELAY_MS);
    relay_timer_set_after(&loop, &first, RELAY_MS); /* earlier */
    relay_timer_set_after(&loop, &second, 2 * RELAY_MS);
    relay_timer_stop(&loop, &second);
    run_for(10 * RELAY_MS);
    assert_string_equal(order, "211");
}

static uint64_t last_fired;

static void on_many(struct relay_timer *timer)
{
    assert_true(timer->at >= last_fired);
    last_fired = timer->at;
    rounds++;
}

static void a_thousand_timers_keep_their_order(void **state)
{
    static struct relay_timer timers[1000];
    uint64_t now = relay_loop_now(&loop);
    rounds = 0;
    last_fired = 0;
    for (size_t i = 0; i < 1000; i++) {
        relay_timer_init(&timers[i], on_many);
        relay_timer_set(&loop, &timers[i], now + (i * 7919 % 1000) * 10000);
    }
    for (size_t i = 1; i < 1000; i += 5)
        relay_timer_set(&loop, &timers[i], now + (timers[i].at - now) / 7); /* earlier */
    for (size_t i = 0; i < 1000; i += 3)
        relay_timer_stop(&loop, &timers[i]);
    run_for(50 * RELAY_MS);
    assert_int_equal(rounds, 666);
}

static void on_post(void *arg)
{
    note(*(char *)arg);
    if (*(char *)arg == 'z')
        relay_loop_stop(&loop);
}

static void post_from_thread(void *arg)
{
    assert_int_equal(relay_loop_post(&loop, on_post, "a"), 0);
    assert_int_equal(relay_loop_post(&loop, on_post, "z"), 0);
}

static void posts_of_another_thread_come_in_order(void **state)
{
    uv_thread_t thread;
    assert_int_equal(uv_thread_create(&thread, post_from_thread, NULL), 0);
    relay_loop_run(&loop);
    uv_thread_join(&thread);
    assert_string_equal(order, "az");
}

static struct relay_io *io;

static void on_ready(void *user, int events)
{
    note(events & RELAY_IO_READ ? 'r' : '?');
    relay_io_free(io); /* inside its own callback */
    io = NULL;
}

static void an_io_may_be_freed_in_its_callback(void **state)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    io = relay_io_new(&loop, fds[0], on_ready, NULL);
    relay_io_arm(io, RELAY_IO_READ | RELAY_IO_HANGUP);
    assert_int_equal(write(fds[1], "x", 1), 1);
    run_for(5 * RELAY_MS);
    assert_string_equal(order, "r");
    close(fds[0]);
    close(fds[1]);
}

static void scratch_is_a_stack_and_borrowable_while_taken(void **state)
{
    uint8_t *outer = relay_loop_take_scratch(&loop), *inner = relay_loop_take_scratch(&loop);
    assert_ptr_not_equal(outer, inner);
    assert_true(relay_loop_is_borrowable(&loop, outer + 100));
    assert_true(relay_loop_is_borrowable(&loop, inner - RELAY_HEADROOM));
    assert_false(relay_loop_is_borrowable(&loop, &loop));
    relay_loop_return_scratch(&loop);
    assert_false(relay_loop_is_borrowable(&loop, inner + 1));
    relay_loop_return_scratch(&loop);
}

static void a_bucket_refills_with_time(void **state)
{
    struct relay_bucket bucket = {0};
    for (int i = 0; i < 10; i++)
        assert_true(relay_bucket_take(&bucket, 1, 10, 5, RELAY_SECOND));
    assert_false(relay_bucket_take(&bucket, 1, 10, 5, RELAY_SECOND));
    assert_true(relay_bucket_take(&bucket, 1, 10, 5, RELAY_SECOND + 200 * RELAY_MS));
    assert_false(relay_bucket_take(&bucket, 11, 10, 5, 100 * RELAY_SECOND));
}

static void a_flowing_window_grows_and_its_budget_is_returned(void **state)
{
    struct relay_limits limits = RELAY_LIMITS_DEFAULT;
    struct relay_budget budget = {.limit = 16 << 20};
    struct relay_window window;
    relay_window_init(&window, &budget, &limits);
    uint64_t now = RELAY_SECOND;
    size_t granted = 0;
    for (int i = 0; i < 2000; i++)
        granted += relay_window_consume(&window, &limits, 16384, now += RELAY_MS / 10, 100 * RELAY_MS, true);
    assert_int_equal(window.size, limits.window_max);
    assert_int_equal(budget.used, limits.window_max - limits.window_initial);
    assert_true(granted > 2000u * 16384u - window.size / 4 + budget.used - 16384);
    relay_window_dispose(&window);
    assert_int_equal(budget.used, 0);

    budget.limit = 1000; /* exhausted: credit flows, the window stays */
    relay_window_init(&window, &budget, &limits);
    for (int i = 0; i < 100; i++)
        relay_window_consume(&window, &limits, 16384, now += RELAY_MS / 10, 100 * RELAY_MS, true);
    assert_int_equal(window.size, limits.window_initial);
    relay_window_dispose(&window);

    budget.limit = 16 << 20; /* not allowed to grow yet: the same */
    relay_window_init(&window, &budget, &limits);
    for (int i = 0; i < 100; i++)
        granted = relay_window_consume(&window, &limits, 16384, now += RELAY_MS / 10, 100 * RELAY_MS, false);
    assert_int_equal(window.size, limits.window_initial);
    relay_window_dispose(&window);
}

/* 10 Mbit/s and 35 ms: once a second what comes is held back for a tenth, by a packet that was lost, and comes at once. */
static void a_window_does_not_grow_by_what_was_held_back(void **state)
{
    const size_t per_ms = 1250;
    struct relay_limits limits = RELAY_LIMITS_DEFAULT;
    struct relay_budget budget = {.limit = 16 << 20};
    struct relay_window window;
    size_t held = 0;
    relay_window_init(&window, &budget, &limits);
    for (uint64_t ms = 1; ms < 60000; ms++) {
        held += per_ms;
        if (ms % 1000 >= 900)
            continue;
        for (size_t len; held > 0; held -= len) {
            len = held < 16384 ? held : 16384;
            relay_window_consume(&window, &limits, len, ms * RELAY_MS, 35 * RELAY_MS, true);
        }
    }
    assert_in_range(window.size, limits.window_initial, 2 * limits.window_initial);

    /* The path gets faster: all of the window comes in each round trip. */
    for (uint64_t ms = 60000; ms < 60350; ms++)
        relay_window_consume(&window, &limits, window.size / 35, ms * RELAY_MS, 35 * RELAY_MS, true);
    assert_in_range(window.size, 16 * limits.window_initial, limits.window_max);
    relay_window_dispose(&window);
    assert_int_equal(budget.used, 0);
}

/* One who asks now and then is no slow path: when the round trip becomes three times what it was, the window still grows. */
static void a_window_takes_a_pause_for_nothing_else(void **state)
{
    const uint64_t rtt = 30;
    struct relay_limits limits = RELAY_LIMITS_DEFAULT;
    struct relay_budget budget = {.limit = 16 << 20};
    struct relay_window window;
    relay_window_init(&window, &budget, &limits);
    uint64_t ms = 1;
    for (int burst = 0; burst < 5; burst++, ms += 1000)
        for (uint64_t end = ms + 2 * rtt; ms < end; ms++)
            relay_window_consume(&window, &limits, limits.window_initial / rtt, ms * RELAY_MS, rtt * RELAY_MS,
                                 true);
    for (uint64_t end = ms + 2000; ms < end; ms++)
        relay_window_consume(&window, &limits, window.size / (3 * rtt), ms * RELAY_MS, rtt * RELAY_MS, true);
    assert_in_range(window.size, 16 * limits.window_initial, limits.window_max);
    relay_window_dispose(&window);
    assert_int_equal(budget.used, 0);
}

/* A window that has filled up meanwhile is taken at once. */
static void a_window_does_not_grow_by_a_reader_who_stalls(void **state)
{
    struct relay_limits limits = RELAY_LIMITS_DEFAULT;
    struct relay_budget budget = {.limit = 16 << 20};
    struct relay_window window;
    relay_window_init(&window, &budget, &limits);
    for (uint64_t s = 1; s <= 10; s++)
        for (size_t left = window.size, len; left > 0; left -= len) {
            len = left < 16384 ? left : 16384;
            relay_window_consume(&window, &limits, len, s * RELAY_SECOND, 20 * RELAY_MS, true);
        }
    assert_in_range(window.size, limits.window_initial, 4 * limits.window_initial);
    relay_window_dispose(&window);
    assert_int_equal(budget.used, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(tasks_run_lowest_level_first, setup, teardown),
        cmocka_unit_test_setup_teardown(a_deferred_task_runs_in_the_next_turn, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_deferred_while_polling_waits_for_the_next_poll, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(timers_fire_in_order_and_can_be_moved, setup, teardown),
        cmocka_unit_test_setup_teardown(a_thousand_timers_keep_their_order, setup, teardown),
        cmocka_unit_test_setup_teardown(posts_of_another_thread_come_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(an_io_may_be_freed_in_its_callback, setup, teardown),
        cmocka_unit_test_setup_teardown(scratch_is_a_stack_and_borrowable_while_taken, setup, teardown),
        cmocka_unit_test(a_bucket_refills_with_time),
        cmocka_unit_test(a_flowing_window_grows_and_its_budget_is_returned),
        cmocka_unit_test(a_window_does_not_grow_by_what_was_held_back),
        cmocka_unit_test(a_window_takes_a_pause_for_nothing_else),
        cmocka_unit_test(a_window_does_not_grow_by_a_reader_who_stalls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
