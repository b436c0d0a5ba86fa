/* Tunnels that a client has given up, at a relay that does not end them: what is kept of them has a bound. */
#include "tests/unit/http3_fixture.h"

#include "lib/net/http3_private.h"

/* From here on the relay says nothing any more. */
static void fall_silent(void)
{
    fake_client->peer->peer = NULL;
    fake_client->peer = NULL;
    relay_session_close(server, RELAY_OK);
    assert_true(run_until(server_is_closed));
}

static struct relay_http3_stream *first_stream(void)
{
    return relay_http3_stream_find((struct relay_http3 *)client, 0);
}

static void test_what_was_not_sent(void **state)
{
    join();
    fake_client->window = 0;
    struct end *end = open_kind(RELAY_KIND_BYTES, 0);
    end->to_send = 100000;
    push(end);
    run_turns(5);
    assert_int_equal(end->to_send, 0);
    fall_silent();
    size_t held = first_stream()->buffer.held, unread = first_stream()->buffer.num_unread;
    assert_int_equal(held, 100000);
    assert_true(unread > 80000);
    relay_tunnel_abort(end->tunnel, RELAY_ERR_CANCELLED);
    assert_true(run_until(first_closed));
    assert_int_equal(first_stream()->buffer.held, held - unread);
    assert_null(first_stream()->buffer.unread);
}

static bool has_flowed(void)
{
    return clients[0].got > 3000000;
}

static void test_budget(void **state)
{
    join();
    struct end *end = open_kind(RELAY_KIND_BYTES, 0);
    end->to_send = 20000000;
    push(end);
    assert_true(run_until(has_flowed));
    fall_silent();
    assert_true(budget.used > 500000);
    relay_tunnel_abort(end->tunnel, RELAY_ERR_CANCELLED);
    assert_true(run_until(first_closed));
    assert_non_null(first_stream());
    assert_int_equal(budget.used, 0);
}

static bool client_is_closed(void)
{
    return client_closed;
}

static void test_too_many(void **state)
{
    join();
    fall_silent();
    fake_client->max_bidi = UINT32_MAX;
    for (size_t i = 0; i < limits.max_streams_authenticated; i++)
        relay_tunnel_abort(open_kind(RELAY_KIND_BYTES, i)->tunnel, RELAY_ERR_CANCELLED);
    run_turns(5);
    assert_false(client_closed);
    relay_tunnel_abort(open_kind(RELAY_KIND_BYTES, 0)->tunnel, RELAY_ERR_CANCELLED);
    assert_true(run_until(client_is_closed));
    assert_int_equal(client_error, RELAY_ERR_EXCESSIVE_LOAD);
    assert_int_equal(fake_last_close, NGHTTP3_H3_EXCESSIVE_LOAD);
}

/* A buffer of which so much was read. */
static void check_give_up(size_t written, size_t read)
{
    struct relay_http3_buffer buffer;
    nghttp3_vec pieces[64];
    relay_http3_buffer_init(&buffer, &budget, &limits);
    for (size_t at = 0; at < written; at += 1000)
        assert_int_equal(relay_http3_buffer_append(&buffer, block, 1000), 0);
    relay_http3_buffer_read(&buffer, pieces, 64, read);
    size_t left = buffer.held - buffer.num_unread;
    relay_http3_buffer_give_up(&buffer);
    assert_int_equal(buffer.held, left);
    assert_int_equal(buffer.num_unread, 0);
    assert_null(buffer.unread);
    assert_int_equal(relay_http3_buffer_room(&buffer), 0);
    relay_http3_buffer_acked(&buffer, &limits, left, 1, 1);
    assert_int_equal(buffer.held, 0);
    relay_http3_buffer_dispose(&buffer);
}

static void test_buffer(void **state)
{
    limits = RELAY_LIMITS_DEFAULT;
    budget = (struct relay_budget){.limit = 1 << 20};
    check_give_up(0, 0);
    check_give_up(1000, 0);
    check_give_up(1000, 1000);
    check_give_up(40000, 0);
    check_give_up(40000, 1);
    check_give_up(40000, 20000);
    check_give_up(40000, 40000);
}

/* What was read may end within a piece, which then takes what comes next. */
static void test_buffer_within_a_piece(void **state)
{
    struct relay_http3_buffer buffer;
    nghttp3_vec pieces[8];
    limits = RELAY_LIMITS_DEFAULT;
    budget = (struct relay_budget){.limit = 1 << 20};
    relay_http3_buffer_init(&buffer, &budget, &limits);
    assert_int_equal(relay_http3_buffer_append(&buffer, block, 100), 0);
    assert_int_equal(relay_http3_buffer_read(&buffer, pieces, 8, 1000), 1);
    assert_int_equal(relay_http3_buffer_append(&buffer, block, 50000), 0);
    relay_http3_buffer_give_up(&buffer);
    assert_int_equal(buffer.held, 100);
    relay_http3_buffer_acked(&buffer, &limits, 100, 1, 1);
    assert_null(buffer.first);
    relay_http3_buffer_dispose(&buffer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_what_was_not_sent),
        TEST(test_budget),
        TEST(test_too_many),
        cmocka_unit_test(test_buffer),
        cmocka_unit_test(test_buffer_within_a_piece),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
