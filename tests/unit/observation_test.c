/* observation.c: an hour made short, but not so short that a busy machine takes a minute of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "lib/net/log.h"
#include "lib/net/metrics.h"
#include "server/observation.h"

#define MINUTE (300 * RELAY_MS)
#define HOUR   (3 * MINUTE + MINUTE / 2)

static struct relay_loop loop;
static struct relay_metrics metrics;
static struct relay_observation observation;
static struct relay_snapshot snapshot;
static FILE *file;

static int setup(void **state)
{
    memset(&snapshot, 0, sizeof(snapshot));
    file = tmpfile();
    relay_log_set_fd(fileno(file));
    if (relay_loop_init(&loop, &metrics) != 0)
        return -1;
    relay_observation_init(&observation, &loop, MINUTE, HOUR);
    return 0;
}

static int teardown(void **state)
{
    relay_observation_stop(&observation);
    relay_loop_dispose(&loop);
    relay_log_set_fd(2);
    return fclose(file);
}

static void on_stop(struct relay_timer *timer)
{
    relay_loop_stop(&loop);
}

static void run_for(uint64_t time)
{
    struct relay_timer timer;
    relay_timer_init(&timer, on_stop);
    relay_timer_set_after(&loop, &timer, time);
    relay_loop_run(&loop);
}

/* How many lines of this event there are so far. */
static int count(const char *event)
{
    static char text[16384];
    int num = 0;
    rewind(file);
    text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
    for (const char *at = text; (at = strstr(at, event)) != NULL; at++)
        num++;
    return num;
}

static void apply(bool observe)
{
    snapshot.observe = observe;
    relay_observation_apply(&observation, &snapshot);
}

static bool is_on(void)
{
    return relay_loop_now(&loop) < snapshot.observe_until;
}

static void test_off(void **state)
{
    apply(false);
    run_for(2 * MINUTE);
    assert_false(is_on());
    assert_int_equal(count("observing"), 0);
}

static void test_an_hour(void **state)
{
    apply(true);
    assert_true(is_on());
    assert_int_equal(count("\"observing\""), 1);
    run_for(MINUTE + MINUTE / 2);
    assert_int_equal(count("\"observing\""), 2);
    apply(true); /* a reload */
    run_for(HOUR);
    assert_int_equal(count("\"observing\""), 4);
    assert_int_equal(count("\"observing_ended\""), 1);
    assert_false(is_on());
    apply(true); /* it stays off */
    assert_false(is_on());
    run_for(2 * MINUTE);
    assert_int_equal(count("observing"), 5);
}

static void test_asked_for_again(void **state)
{
    apply(true);
    apply(false);
    assert_false(is_on());
    run_for(2 * MINUTE);
    assert_int_equal(count("observing"), 1);
    apply(true);
    assert_true(is_on());
    assert_int_equal(count("observing"), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_off, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_hour, setup, teardown),
        cmocka_unit_test_setup_teardown(test_asked_for_again, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
