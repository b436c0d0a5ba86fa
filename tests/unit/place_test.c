#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "lib/net/metrics.h"
#include "lib/wire/error.h"
#include "server/place.h"

#define MANY 100

static struct relay_metrics metrics;
static struct relay_loop loop;
static struct relay_budget budget;
static struct relay_place place[MANY];
static int result[MANY], order[MANY];
static size_t num_turns;

static void on_turn(struct relay_place *which, int error)
{
    result[which - place] = error;
    order[num_turns++] = (int)(which - place);
}

static void stop(struct relay_timer *timer)
{
    relay_loop_stop(&loop);
}

static void run(uint64_t delay)
{
    struct relay_timer timer;
    relay_timer_init(&timer, stop);
    relay_timer_set_after(&loop, &timer, delay);
    relay_loop_run(&loop);
}

static int set_up(void **state)
{
    num_turns = 0;
    budget = (struct relay_budget){.limit = SIZE_MAX};
    for (int i = 0; i < MANY; i++) {
        relay_place_init(&place[i], on_turn);
        result[i] = 1;
    }
    relay_places_set_max(0);
    return relay_loop_init(&loop, &metrics);
}

static int tear_down(void **state)
{
    relay_loop_dispose(&loop);
    return 0;
}

static void few_at_a_time_and_in_order(void **state)
{
    struct relay_places places;
    relay_places_init(&places, &loop, &budget);
    for (int i = 0; i < 20; i++)
        relay_place_ask(&places, &place[i], 100, RELAY_SECOND);
    assert_int_equal(num_turns, RELAY_PLACES);
    assert_int_equal(budget.used, RELAY_PLACES * RELAY_PLACE_BYTES);
    relay_place_cancel(&place[RELAY_PLACES + 1]);
    for (int i = 0; i < 20 - 1; i++) {
        size_t before = num_turns;
        relay_places_leave(&places);
        assert_int_equal(num_turns, before); /* not from inside the end of another */
        run(0);
    }
    assert_int_equal(num_turns, 19);
    for (size_t i = 0; i < num_turns; i++) {
        assert_int_equal(order[i], i <= RELAY_PLACES ? i : i + 1);
        assert_int_equal(result[order[i]], RELAY_OK);
    }
    assert_int_equal(budget.used, 0);
    assert_int_equal(places.head_len, 0);
    relay_places_dispose(&places);
}

static void waiting_ends(void **state)
{
    struct relay_places places;
    relay_places_init(&places, &loop, &budget);
    for (int i = 0; i <= RELAY_PLACES; i++)
        relay_place_ask(&places, &place[i], 100, 20 * RELAY_MS);
    run(100 * RELAY_MS);
    assert_int_equal(result[RELAY_PLACES], RELAY_ERR_TIMEOUT);
    for (int i = 0; i < RELAY_PLACES; i++)
        relay_places_leave(&places);
    relay_places_dispose(&places);
}

static void heads_that_wait_are_bounded(void **state)
{
    struct relay_places places;
    relay_places_init(&places, &loop, &budget);
    for (int i = 0; i < MANY; i++)
        relay_place_ask(&places, &place[i], 16384, RELAY_SECOND);
    assert_int_equal(places.head_len, RELAY_PLACES_HEADS_MAX);
    assert_int_equal(result[MANY - 1], RELAY_ERR_LIMIT);
    for (int i = 0; i < MANY; i++)
        relay_place_cancel(&place[i]);
    for (int i = 0; i < RELAY_PLACES; i++)
        relay_places_leave(&places);
    relay_places_dispose(&places);
}

static void all_connections_share_a_limit(void **state)
{
    struct relay_places places[RELAY_PLACES_MAX_AT_LEAST];
    for (int i = 0; i < RELAY_PLACES_MAX_AT_LEAST; i++) {
        relay_places_init(&places[i], &loop, &budget);
        relay_place_ask(&places[i], &place[i], 100, RELAY_SECOND);
        assert_int_equal(result[i], RELAY_OK);
    }
    relay_place_ask(&places[0], &place[MANY - 1], 100, RELAY_SECOND);
    assert_int_equal(result[MANY - 1], RELAY_ERR_LIMIT);
    relay_places_leave(&places[0]);
    relay_place_ask(&places[1], &place[MANY - 2], 100, RELAY_SECOND);
    assert_int_equal(result[MANY - 2], RELAY_OK);
    relay_places_leave(&places[1]);
    for (int i = 1; i < RELAY_PLACES_MAX_AT_LEAST; i++)
        relay_places_leave(&places[i]);
    assert_int_equal(budget.used, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(few_at_a_time_and_in_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(waiting_ends, set_up, tear_down),
        cmocka_unit_test_setup_teardown(heads_that_wait_are_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(all_connections_share_a_limit, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
