/* Requests, tunnels, limits and ends of the HTTP/3 session. */
#include "tests/unit/http3_fixture.h"

/* ---- messages and tunnels ---- */

static void test_get(void **state)
{
    join();
    behaviour = REPLIES;
    struct end *end = open_kind(RELAY_KIND_MESSAGE, 0);
    assert_true(run_until(request_closed));
    assert_int_equal(end->status, 200);
    assert_int_equal(end->content_length, 300000);
    assert_int_equal(end->got, 300000);
    assert_true(end->got_fin);
    assert_int_equal(end->close_error, RELAY_OK);
    assert_string_equal(server_ends[0]->path, "/x");
    assert_true(server_ends[0]->ends);
    assert_int_equal(server_ends[0]->close_error, RELAY_OK);
    assert_int_equal(metrics.requests_h3, 1);
}

static void test_head(void **state)
{
    join();
    behaviour = REPLIES;
    struct relay_request request = make(RELAY_KIND_MESSAGE);
    request.method = RELAY_SLICE("HEAD");
    struct end *end = open_request(request, 0);
    assert_true(run_until(request_closed));
    assert_int_equal(end->content_length, 300000);
    assert_int_equal(end->got, 0);
    assert_true(end->got_fin);
}

static void test_connect_echo(void **state)
{
    join();
    struct end *end = open_kind(RELAY_KIND_BYTES, 0);
    end->to_send = 1000000;
    end->fin_after = true;
    push(end);
    assert_true(run_until(request_closed));
    assert_int_equal(server_ends[0]->kind, RELAY_KIND_BYTES);
    assert_int_equal(end->got, 1000000);
    assert_int_equal(end->sum, server_ends[0]->sum);
    assert_true(end->got_fin && server_ends[0]->got_fin);
    assert_int_equal(end->close_error, RELAY_OK);
    assert_int_equal(server_ends[0]->close_error, RELAY_OK);
    assert_int_equal(end->content_length, -1);
}

static void test_half_close(void **state)
{
    join();
    behaviour = STALLS;
    struct end *end = open_kind(RELAY_KIND_BYTES, 0);
    relay_tunnel_send_fin(end->tunnel);
    assert_true(run_until(first_answered));
    run_turns(10);
    struct end *peer = server_ends[0];
    assert_true(peer->got_fin && !peer->closed && !end->closed);
    peer->to_send = 50000;
    peer->fin_after = true;
    push(peer);
    assert_true(run_until(request_closed));
    assert_int_equal(end->got, 50000);
    assert_int_equal(end->close_error, RELAY_OK);
}

/* A refused CONNECT whose client keeps its side open: the reply arrives whole, then the request is stopped.
 */
static void test_refused(void **state)
{
    join();
    behaviour = REFUSES;
    struct end *end = open_kind(RELAY_KIND_CAPSULES, 0);
    relay_tunnel_send_capsule(end->tunnel, 7, block, 1000);
    assert_true(run_until(request_closed));
    assert_int_equal(end->status, 403);
    assert_int_equal(end->got, 5);
    assert_int_equal(end->close_error, RELAY_OK);
    assert_int_equal(server_ends[0]->close_error, RELAY_OK);
    assert_int_equal(server_ends[0]->got, 0);
}

static void check_abort(int error, enum relay_kind kind, uint64_t code)
{
    behaviour = ABORTS;
    abort_error = error;
    num_server = num_ends = 0;
    struct end *end = open_kind(kind, 0);
    assert_true(run_until(request_closed));
    assert_int_equal(end->close_error, RELAY_ERR_RESET);
    assert_int_equal(server_ends[0]->close_error, error);
    assert_int_equal(fake_client->last_reset, code);
}

static void test_abort_codes(void **state)
{
    join();
    check_abort(RELAY_ERR_RESET, RELAY_KIND_BYTES, 0x10f);
    check_abort(RELAY_ERR_TIMEOUT, RELAY_KIND_BYTES, 0x10f);
    check_abort(RELAY_ERR_REFUSED, RELAY_KIND_CAPSULES, 0x10f);
    check_abort(RELAY_ERR_INCOMPLETE, RELAY_KIND_CAPSULES, 0x10e);
    check_abort(RELAY_ERR_TOO_BIG, RELAY_KIND_CAPSULES, 0x33);
    check_abort(RELAY_ERR_CANCELLED, RELAY_KIND_BYTES, 0x10c);
    check_abort(RELAY_ERR_LIMIT, RELAY_KIND_BYTES, 0x10b);
    check_abort(RELAY_ERR_EXCESSIVE_LOAD, RELAY_KIND_BYTES, 0x107);
    check_abort(RELAY_ERR_NO_MEMORY, RELAY_KIND_BYTES, 0x102);
    check_abort(RELAY_ERR_RESET, RELAY_KIND_MESSAGE, 0x102);
}

static void test_client_abort(void **state)
{
    join();
    struct end *end = open_kind(RELAY_KIND_BYTES, 0);
    assert_true(run_until(first_answered));
    relay_tunnel_abort(end->tunnel, RELAY_ERR_RESET);
    assert_true(run_until(request_closed));
    assert_int_equal(server_ends[0]->close_error, RELAY_ERR_RESET);
    assert_int_equal(fake_client->peer->last_reset, 0x10c);
}

/* Two bulk transfers and one that starts later: nobody waits for another's end. */
static bool third_done(void)
{
    return clients[2].closed;
}

static void test_fair(void **state)
{
    join();
    for (size_t i = 0; i < 3; i++) {
        struct end *end = open_kind(RELAY_KIND_BYTES, i);
        end->to_send = i < 2 ? 8000000 : 20000;
        end->fin_after = true;
        push(end);
    }
    assert_true(run_until(third_done));
    assert_int_equal(clients[2].got, 20000);
    assert_true(clients[0].to_send > 4000000 && clients[1].to_send > 4000000);
    size_t difference =
        clients[0].got > clients[1].got ? clients[0].got - clients[1].got : clients[1].got - clients[0].got;
    assert_true(difference < 200000);
}

/* A stalled tunnel holds little, and does not stop another one. */
static void test_stalled(void **state)
{
    join();
    behaviour = STALLS;
    struct end *stalled = open_kind(RELAY_KIND_BYTES, 0);
    stalled->to_send = 10000000;
    push(stalled);
    assert_true(run_until(first_answered));
    run_turns(200);
    assert_true(10000000 - stalled->to_send <= 400 * 1024);
    assert_int_equal(server_ends[0]->tunnel->held_len + server_ends[0]->got, limits.window_initial);
    behaviour = ECHOES;
    struct end *other = open_kind(RELAY_KIND_BYTES, 1);
    other->to_send = 500000;
    other->fin_after = true;
    push(other);
    assert_true(run_until(second_closed));
    assert_int_equal(other->got, 500000);
}

static bool much_echoed(void)
{
    return clients[0].got > 3000000;
}

/* Windows and buffers grow for who flows, charged to the budget; all of it comes back (teardown looks). */
static void test_growth(void **state)
{
    join();
    struct end *end = open_kind(RELAY_KIND_BYTES, 0);
    end->to_send = 20000000;
    push(end);
    assert_true(run_until(much_echoed));
    assert_true(budget.used > 1000000);
    assert_true(relay_tunnel_room(end->tunnel) <= limits.window_max);
}

/* ---- limits, and the end ---- */

static bool all_answered(void)
{
    for (size_t i = 0; i < 1000; i++)
        if (clients[i].status == 0)
            return false;
    return true;
}

static void test_many_streams(void **state)
{
    join();
    for (size_t i = 0; i < 100; i++)
        assert_non_null(open_kind(RELAY_KIND_CAPSULES, i));
    assert_null(open_kind(RELAY_KIND_CAPSULES, 100));
    run_turns(20);
    relay_session_authenticated(server);
    run_turns(5);
    for (size_t i = 100; i < 1000; i++)
        assert_non_null(open_kind(RELAY_KIND_CAPSULES, i));
    assert_null(open_kind(RELAY_KIND_CAPSULES, 1000));
    assert_true(run_until(all_answered));
    assert_true(fake_client->keep_alive && fake_client->peer->keep_alive);
    assert_int_equal(server->num_tunnels, 1000);
    assert_int_equal(client->num_tunnels, 1000);
}

static const struct end *condition_end;

static bool this_is_answered(void)
{
    return condition_end->status != 0;
}

static void test_rapid_reset(void **state)
{
    join();
    behaviour = HANGS;
    size_t sent = 0;
    while (!client_closed && sent < 3000) {
        for (size_t i = 0; i < 50 && !client_closed; i++, sent++) {
            struct end *end = open_kind(RELAY_KIND_BYTES, sent % 1000);
            if (end != NULL)
                relay_tunnel_abort(end->tunnel, RELAY_ERR_CANCELLED);
        }
        num_ends = num_server = 0;
        run_turns(6);
    }
    assert_true(client_closed);
    assert_true(run_until(server_is_closed));
    assert_int_equal(fake_last_close, 0x107);
    assert_int_equal(server_error, RELAY_ERR_EXCESSIVE_LOAD);
    assert_int_equal(metrics.limit_resets, 1);
    assert_int_equal(client_peer_code, 0x107);
    assert_true(sent >= limits.reset_burst);
}

static void test_resets_of_answered_requests(void **state)
{
    join();
    limits.reset_burst = limits.reset_rate = 1;
    for (size_t i = 0; i < 30; i++) {
        struct end *end = open_kind(RELAY_KIND_BYTES, i);
        assert_non_null(end);
        condition_end = end;
        assert_true(run_until(this_is_answered));
        relay_tunnel_abort(end->tunnel, RELAY_ERR_CANCELLED);
        run_turns(6);
    }
    assert_false(client_closed || server_closed);
    assert_int_equal(metrics.limit_resets, 0);
}

static void test_shutdown(void **state)
{
    join();
    struct end *end = open_kind(RELAY_KIND_BYTES, 0);
    assert_true(run_until(first_answered));
    relay_session_shutdown(server);
    run_turns(20);
    assert_true(got_goaway);
    assert_null(open_kind(RELAY_KIND_BYTES, 1));
    end->to_send = 1000;
    end->fin_after = true;
    push(end);
    assert_true(run_until(both_closed));
    assert_int_equal(end->got, 1000);
    assert_int_equal(end->close_error, RELAY_OK);
    assert_int_equal(server_error, RELAY_ERR_SHUTDOWN);
    assert_int_equal(fake_last_close, 0x100);
}

static void test_idle(void **state)
{
    limits.idle_timeout = 50 * RELAY_MS;
    join();
    assert_true(run_until(both_closed));
    assert_int_equal(server_error, RELAY_ERR_IDLE);
}

/* A head whose end does not come, while a tunnel keeps the connection. */
static void test_no_end(void **state)
{
    limits.idle_timeout = 50 * RELAY_MS;
    join();
    open_kind(RELAY_KIND_BYTES, 1);
    run_turns(10);
    assert_int_equal(clients[1].status, 200);
    behaviour = HANGS;
    struct relay_request request = make(RELAY_KIND_MESSAGE);
    request.ends = false;
    struct end *end = open_request(request, 0);
    assert_true(run_until(first_closed));
    assert_int_equal(end->close_error, RELAY_ERR_RESET);
    assert_false(clients[1].closed);
    assert_false(server_closed);
}

/* Bytes of a request stream that never make a head. */
static void test_slow_head(void **state)
{
    limits.head_timeout = 50 * RELAY_MS;
    join();
    fake_post(fake_client->peer, DATA, 0, 0, false, (uint8_t[]){1}, 1);
    run_turns(3);
    assert_int_equal(server->num_tunnels, 1);
    fake_client->last_reset = 0;
    struct relay_quic_conn *conn = fake_client->peer;
    while (!fake_stream(conn, 0)->send_done && relay_loop_now(&loop) != 0) {
        run_turns(1);
    }
    assert_int_equal(num_server, 0);
    assert_false(server_closed);
}

static void test_close_with_tunnels(void **state)
{
    join();
    open_kind(RELAY_KIND_BYTES, 0);
    open_kind(RELAY_KIND_CAPSULES, 1);
    assert_true(run_until(first_answered));
    relay_session_close(server, RELAY_ERR_INTERNAL);
    assert_true(run_until(both_closed));
    assert_int_equal(fake_last_close, 0x102);
    assert_true(clients[0].closed && clients[1].closed);
    assert_int_equal(clients[0].close_error, RELAY_ERR_CLOSED);
    assert_int_equal(server_ends[0]->close_error, RELAY_ERR_INTERNAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_get),
        TEST(test_head),
        TEST(test_connect_echo),
        TEST(test_half_close),
        TEST(test_refused),
        TEST(test_abort_codes),
        TEST(test_client_abort),
        TEST(test_fair),
        TEST(test_stalled),
        TEST(test_growth),
        TEST(test_many_streams),
        TEST(test_rapid_reset),
        TEST(test_resets_of_answered_requests),
        TEST(test_shutdown),
        TEST(test_idle),
        TEST(test_slow_head),
        TEST(test_close_with_tunnels),
        TEST(test_no_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
