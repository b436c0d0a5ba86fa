/* A client's and a server's HTTP/2 session, joined in memory. */
#include "tests/unit/http2_peers.h"

static struct peers *joined(void)
{
    struct peers *peers = peers_new();
    peers_start_server(peers, NULL, 0);
    peers_start_client(peers);
    turns(peers, 10);
    assert_int_equal(peers->ready, 1);
    return peers;
}

static struct seen *open_tunnel(struct peers *peers, const struct relay_request *request)
{
    struct seen *seen = seen_new(peers, &peers->opened);
    seen->kind = request->kind;
    seen->tunnel = relay_session_open(peers->client, request, &seen_user, seen);
    if (seen->tunnel != NULL)
        return seen;
    peers->opened = seen->next;
    free(seen);
    return NULL;
}

static struct seen *open_connect(struct peers *peers, const char *authority)
{
    struct relay_request request = {.kind = RELAY_KIND_BYTES,
                                    .method = RELAY_SLICE("CONNECT"),
                                    .authority = relay_slice(authority),
                                    .content_length = -1};
    return open_tunnel(peers, &request);
}

static struct seen *open_message(struct peers *peers, const char *method, const char *path, int64_t body)
{
    struct relay_request request = {.kind = RELAY_KIND_MESSAGE,
                                    .method = relay_slice(method),
                                    .scheme = RELAY_SLICE("http"),
                                    .authority = RELAY_SLICE("relay.example"),
                                    .path = relay_slice(path),
                                    .content_length = body > 0 ? body : -1,
                                    .ends = body == 0};
    return open_tunnel(peers, &request);
}

static struct seen *open_udp(struct peers *peers)
{
    struct relay_field field = {RELAY_SLICE("capsule-protocol"), RELAY_SLICE("?1")};
    struct relay_request request = {.kind = RELAY_KIND_CAPSULES,
                                    .method = RELAY_SLICE("CONNECT"),
                                    .scheme = RELAY_SLICE("https"),
                                    .authority = RELAY_SLICE("echo.example"),
                                    .path = RELAY_SLICE("/.well-known/masque/udp/192.0.2.1/53/"),
                                    .protocol = RELAY_SLICE("connect-udp"),
                                    .fields = &field,
                                    .num_fields = 1,
                                    .content_length = -1};
    return open_tunnel(peers, &request);
}

static void say(struct seen *seen, const char *text)
{
    relay_tunnel_send(seen->tunnel, (const uint8_t *)text, strlen(text));
}

static uint64_t pattern_sum(size_t len)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < len; i++)
        sum += pattern(i) * (i % 65521 + 1);
    return sum;
}

static void messages(void **state)
{
    struct peers *peers = joined();
    struct seen *get = open_message(peers, "GET", "/hello", 0);
    struct seen *none = open_message(peers, "GET", "/empty", 0);
    turns(peers, 10);
    assert_int_equal(get->status, 200);
    assert_string_equal(get->answer, "yes");
    assert_int_equal(get->content_length, 5);
    assert_string_equal(get->text, "hello");
    assert_int_equal(get->fins, 1);
    assert_int_equal(get->closes, 1);
    assert_int_equal(get->error, RELAY_OK);
    assert_int_equal(none->status, 204);
    assert_int_equal(none->error, RELAY_OK);
    assert_int_equal(none->closes, 1);
    assert_true(peers->requests->ends);
    assert_string_equal(peers->requests->target, "relay.example");
    assert_int_equal(peers->requests->error, RELAY_OK);
    assert_int_equal(peers->metrics.requests_h2, 2);
    peers_free(peers);
}

/* The answer comes before the body: the rest is not wanted, and that is no error. */
static void an_answer_before_the_end_of_the_request(void **state)
{
    struct peers *peers = joined();
    struct seen *post = open_message(peers, "POST", "/hello", 1000);
    say(post, "part");
    turns(peers, 10);
    assert_int_equal(post->status, 200);
    assert_string_equal(post->text, "hello");
    assert_int_equal(post->closes, 1);
    assert_int_equal(post->error, RELAY_OK);
    assert_int_equal(peers->requests->content_length, 1000);
    assert_string_equal(peers->requests->text, "part");
    assert_int_equal(peers->requests->error, RELAY_OK);
    peers_free(peers);
}

static void connect_echo_and_half_close(void **state)
{
    struct peers *peers = joined();
    struct seen *tunnel = open_connect(peers, "echo:7");
    say(tunnel, "before the answer, ");
    turns(peers, 10);
    assert_int_equal(tunnel->status, 200);
    assert_string_equal(peers->requests->target, "echo:7");
    say(tunnel, "and after");
    turns(peers, 10);
    assert_string_equal(tunnel->text, "before the answer, and after");
    assert_int_equal(tunnel->closes, 0);
    relay_tunnel_send_fin(tunnel->tunnel);
    turns(peers, 10);
    assert_int_equal(tunnel->fins, 1);
    assert_int_equal(tunnel->error, RELAY_OK);
    assert_int_equal(tunnel->closes, 1);
    assert_int_equal(peers->requests->fins, 1);
    assert_int_equal(peers->requests->error, RELAY_OK);
    assert_int_equal(peers->server->num_tunnels, 0);
    peers_free(peers);
}

static void one_direction_ends_alone(void **state)
{
    struct peers *peers = joined();
    struct seen *tunnel = open_connect(peers, "sink:9");
    turns(peers, 10);
    relay_tunnel_send_fin(peers->requests->tunnel);
    turns(peers, 10);
    assert_int_equal(tunnel->fins, 1);
    assert_int_equal(tunnel->closes, 0);
    say(tunnel, "still");
    relay_tunnel_send_fin(tunnel->tunnel);
    turns(peers, 10);
    assert_string_equal(peers->requests->text, "still");
    assert_int_equal(tunnel->error, RELAY_OK);
    assert_int_equal(peers->requests->error, RELAY_OK);
    peers_free(peers);
}

static void a_refused_connect(void **state)
{
    struct peers *peers = joined();
    struct seen *tunnel = open_connect(peers, "refuse:1");
    turns(peers, 10);
    assert_int_equal(tunnel->status, 502);
    assert_string_equal(tunnel->text, "no");
    assert_int_equal(tunnel->closes, 1);
    assert_int_equal(tunnel->error, RELAY_OK);
    assert_int_equal(peers->requests->closes, 1);
    peers_free(peers);
}

static void resets_both_ways(void **state)
{
    struct peers *peers = joined();
    struct seen *tunnel = open_connect(peers, "sink:9");
    turns(peers, 10);
    relay_tunnel_abort(tunnel->tunnel, RELAY_ERR_CANCELLED);
    turns(peers, 10);
    assert_int_equal(tunnel->error, RELAY_ERR_CANCELLED);
    assert_int_equal(peers->requests->error, RELAY_ERR_RESET);
    assert_int_equal(peers->requests->fins, 0);
    struct seen *other = open_connect(peers, "abort:9");
    turns(peers, 10);
    assert_int_equal(other->closes, 1);
    assert_int_equal(other->error, RELAY_ERR_RESET);
    assert_int_equal(other->fins, 0);
    /* Before it has left this machine. */
    struct seen *never = open_connect(peers, "sink:9");
    relay_tunnel_abort(never->tunnel, RELAY_ERR_CANCELLED);
    turns(peers, 10);
    assert_int_equal(never->error, RELAY_ERR_CANCELLED);
    assert_int_equal(peers->client->num_tunnels, 0);
    assert_non_null(peers->server);
    peers_free(peers);
}

static void a_download_is_whole_and_bounded(void **state)
{
    struct peers *peers = joined();
    struct seen *tunnel = open_connect(peers, "source:9");
    turns(peers, 1000);
    assert_int_equal(tunnel->bytes, SOURCE_BYTES);
    assert_true(tunnel->sum == pattern_sum(SOURCE_BYTES));
    assert_int_equal(tunnel->fins, 1);
    assert_true(peers->requests->writables > 0);
    assert_true(peers->client_end.max_in < PIPE_CAPACITY + 64 * 1024);
    assert_true(peers->client_end.is_shared && peers->server_end.is_shared); /* others have their turn soon */
    relay_tunnel_send_fin(tunnel->tunnel);
    turns(peers, 10);
    assert_int_equal(tunnel->error, RELAY_OK);
    peers_free(peers);
}

/* The same with one record per frame: heads are laid before borrowed bytes, and the bytes come out unharmed.
 */
static void a_download_over_tls(void **state)
{
    struct peers *peers = joined();
    peers->server->is_clear = peers->client->is_clear = false;
    struct seen *tunnel = open_connect(peers, "source:9");
    turns(peers, 1000);
    assert_true(tunnel->sum == pattern_sum(SOURCE_BYTES));
    peers_free(peers);
}

static void a_flowing_tunnels_window_grows(void **state)
{
    struct peers *peers = joined();
    struct seen *tunnel = open_connect(peers, "sink:9");
    tunnel->to_send = SOURCE_BYTES;
    send_pattern(tunnel);
    turns(peers, 1000);
    assert_int_equal(peers->requests->bytes, SOURCE_BYTES);
    assert_true(peers->requests->sum == pattern_sum(SOURCE_BYTES));
    assert_true(peers->budget.used > 0);
    relay_tunnel_send_fin(peers->requests->tunnel);
    turns(peers, 10);
    assert_int_equal(peers->budget.used, 0);
    peers_free(peers);
}

static void a_paused_tunnel_stops_its_sender(void **state)
{
    struct peers *peers = joined();
    struct seen *tunnel = open_connect(peers, "stall:9");
    tunnel->to_send = SOURCE_BYTES;
    send_pattern(tunnel);
    turns(peers, 200);
    assert_int_equal(peers->requests->bytes, 0);
    /* What the peer holds and what our queue holds. */
    assert_true(tunnel->sent <= 2 * peers->limits.window_initial + 64 * 1024);
    assert_true(relay_tunnel_room(tunnel->tunnel) < 16 * 1024);
    relay_tunnel_resume(peers->requests->tunnel);
    turns(peers, 1000);
    assert_int_equal(peers->requests->bytes, SOURCE_BYTES);
    assert_true(peers->requests->sum == pattern_sum(SOURCE_BYTES));
    peers_free(peers);
}

static void one_stalled_among_a_hundred(void **state)
{
    struct peers *peers = joined();
    struct seen *tunnels[100];
    for (int i = 0; i < 100; i++) {
        tunnels[i] = open_connect(peers, i == 0 ? "stall:9" : "echo:7");
        assert_non_null(tunnels[i]);
    }
    turns(peers, 10);
    assert_null(open_connect(peers, "echo:7")); /* the server's limit */
    tunnels[0]->to_send = SOURCE_BYTES;
    send_pattern(tunnels[0]);
    for (int i = 1; i < 100; i++) {
        tunnels[i]->to_send = 100 * 1000;
        send_pattern(tunnels[i]);
    }
    turns(peers, 2000);
    for (int i = 1; i < 100; i++) {
        assert_int_equal(tunnels[i]->bytes, 100 * 1000);
        assert_true(tunnels[i]->sum == pattern_sum(100 * 1000));
        assert_int_equal(tunnels[i]->error, RELAY_OK);
    }
    assert_int_equal(tunnels[0]->closes, 0);
    peers_free(peers);
}

static void a_token_raises_the_stream_limit(void **state)
{
    struct peers *peers = joined();
    for (int i = 0; i < 99; i++)
        assert_non_null(open_connect(peers, "hold:9"));
    open_message(peers, "GET", "/login", 0);
    turns(peers, 10);
    for (int i = 0; i < 900; i++)
        assert_non_null(open_connect(peers, "hold:9"));
    turns(peers, 10);
    assert_int_equal(peers->num_requests, 1000);
    assert_int_equal(peers->server->num_tunnels, 999);
    peers_free(peers);
}

static void extended_connect_carries_capsules(void **state)
{
    struct peers *peers = joined();
    struct seen *tunnel = open_udp(peers);
    turns(peers, 10);
    assert_int_equal(tunnel->status, 200);
    assert_int_equal(peers->requests->kind, RELAY_KIND_CAPSULES);
    assert_string_equal(peers->requests->protocol, "connect-udp");
    assert_string_equal(peers->requests->path, "/.well-known/masque/udp/192.0.2.1/53/");
    assert_int_equal(peers->requests->num_fields, 1);
    struct relay_run run = {0, (const uint8_t *)"onetwo", 6, 3};
    assert_int_equal(relay_tunnel_send_datagrams(tunnel->tunnel, &run), RELAY_SENT);
    turns(peers, 10);
    assert_int_equal(peers->requests->datagrams, 2);
    assert_int_equal(tunnel->datagrams, 2);
    assert_string_equal(tunnel->datagram, "two");
    /* A capsule cut by FIN is malformed (T36). */
    say(tunnel, "\x0a\x44");
    relay_tunnel_send_fin(tunnel->tunnel);
    turns(peers, 10);
    assert_int_equal(peers->requests->error, RELAY_ERR_INCOMPLETE);
    assert_int_equal(tunnel->error, RELAY_ERR_RESET);
    peers_free(peers);
}

static void extended_connect_waits_for_the_setting(void **state)
{
    struct peers *peers = peers_new();
    peers_start_client(peers);
    assert_null(open_udp(peers));
    struct seen *early = open_connect(peers, "echo:7");
    assert_non_null(early);
    turns(peers, 10);
    peers_start_server(peers, NULL, 0);
    turns(peers, 10);
    assert_int_equal(early->status, 200);
    assert_non_null(open_udp(peers));
    turns(peers, 10);
    peers_free(peers);
}

static void graceful_shutdown(void **state)
{
    struct peers *peers = joined();
    struct seen *tunnel = open_connect(peers, "echo:7");
    turns(peers, 10);
    relay_session_shutdown(peers->server);
    turns(peers, 10);
    assert_int_equal(peers->goaways, 1);
    assert_null(open_connect(peers, "echo:7"));
    say(tunnel, "alive");
    turns(peers, 10);
    assert_string_equal(tunnel->text, "alive");
    wait_gone(peers, &peers->server, 1300);
    assert_non_null(peers->server); /* the tunnel lives on */
    relay_tunnel_send_fin(tunnel->tunnel);
    turns(peers, 20);
    assert_int_equal(tunnel->error, RELAY_OK);
    assert_null(peers->server);
    assert_int_equal(peers->server_error, RELAY_OK);
    assert_null(peers->client);
    assert_int_equal(peers->client_error, RELAY_OK);
    peers_free(peers);
}

static void close_and_death(void **state)
{
    struct peers *peers = joined();
    struct seen *tunnel = open_connect(peers, "echo:7");
    turns(peers, 10);
    relay_session_close(peers->client, RELAY_ERR_CANCELLED);
    assert_int_equal(tunnel->closes, 0);
    turns(peers, 10);
    assert_int_equal(tunnel->error, RELAY_ERR_CANCELLED);
    assert_null(peers->client);
    assert_null(peers->server);
    assert_int_equal(peers->requests->error, RELAY_ERR_RESET);
    peers_free(peers);

    peers = joined();
    tunnel = open_connect(peers, "echo:7");
    turns(peers, 10);
    peers->client_end.is_reset_due = peers->server_end.is_reset_due = true;
    pipe_wake(&peers->client_end);
    pipe_wake(&peers->server_end);
    turns(peers, 10);
    assert_null(peers->client);
    assert_null(peers->server);
    assert_int_equal(peers->server_error, RELAY_ERR_RESET);
    assert_int_equal(tunnel->error, RELAY_ERR_RESET);
    assert_int_equal(peers->server_end.ending, PIPE_CLOSED);
    peers_free(peers);
}

static void an_idle_connection_closes_and_a_quiet_tunnel_does_not(void **state)
{
    struct peers *peers = peers_new();
    peers->limits.idle_timeout = 250 * RELAY_MS;
    peers_start_server(peers, NULL, 0);
    peers_start_client(peers);
    turns(peers, 10);
    struct seen *tunnel = open_connect(peers, "echo:7");
    wait_gone(peers, &peers->server, 500);
    assert_non_null(peers->server);
    relay_tunnel_send_fin(tunnel->tunnel);
    wait_gone(peers, &peers->server, 2000);
    assert_null(peers->server);
    turns(peers, 10);
    peers_free(peers);
}

/* A relay that has vanished, or is stopped: its kernel may take our bytes for ever. */
static void a_relay_that_says_nothing_any_more(void **state)
{
    struct peers *peers = peers_new();
    peers->limits.idle_timeout = 200 * RELAY_MS;
    peers_start_server(peers, NULL, 0);
    peers_start_client(peers);
    turns(peers, 10);
    struct seen *tunnel = open_connect(peers, "echo:7");
    wait_gone(peers, &peers->client, 1000);
    assert_non_null(peers->client); /* it answers */
    pipe_pause(&peers->server_end.super);
    wait_gone(peers, &peers->client, 2000);
    assert_null(peers->client);
    assert_int_equal(peers->client_error, RELAY_ERR_IDLE);
    assert_int_equal(tunnel->closes, 1);
    pipe_resume(&peers->server_end.super);
    turns(peers, 10);
    peers_free(peers);
}

static void a_relay_that_is_doubted(void **state)
{
    struct peers *peers = peers_new();
    peers_start_server(peers, NULL, 0);
    peers_start_client(peers);
    turns(peers, 10);
    relay_http2_doubt(peers->client, 200 * RELAY_MS);
    wait_gone(peers, &peers->client, 500);
    assert_non_null(peers->client); /* it answers, though nothing else is asked of it */
    pipe_pause(&peers->server_end.super);
    uint64_t begun = uv_hrtime();
    relay_http2_doubt(peers->client, 200 * RELAY_MS);
    wait_gone(peers, &peers->client, 2000);
    assert_null(peers->client);
    assert_true(uv_hrtime() - begun >= 200 * RELAY_MS);
    assert_int_equal(peers->client_error, RELAY_ERR_IDLE);
    pipe_resume(&peers->server_end.super);
    turns(peers, 10);
    peers_free(peers);
}

/* Neither its own bytes nor other requests keep it. */
static void a_message_that_does_not_end(void **state)
{
    struct peers *peers = peers_new();
    peers->limits.idle_timeout = 250 * RELAY_MS;
    peers_start_server(peers, NULL, 0);
    peers_start_client(peers);
    turns(peers, 10);
    struct seen *tunnel = open_connect(peers, "echo:7"), *post = open_message(peers, "POST", "/hold", 1000);
    uint64_t end = uv_hrtime() + 600 * RELAY_MS;
    while (post->tunnel != NULL && uv_hrtime() < end) {
        say(post, "x");
        say(tunnel, "y");
        turns(peers, 2);
    }
    assert_int_equal(post->closes, 1);
    assert_int_equal(post->error, RELAY_ERR_RESET);
    assert_int_equal(tunnel->closes, 0);
    peers_free(peers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages),
        cmocka_unit_test(an_answer_before_the_end_of_the_request),
        cmocka_unit_test(connect_echo_and_half_close),
        cmocka_unit_test(one_direction_ends_alone),
        cmocka_unit_test(a_refused_connect),
        cmocka_unit_test(resets_both_ways),
        cmocka_unit_test(a_download_is_whole_and_bounded),
        cmocka_unit_test(a_download_over_tls),
        cmocka_unit_test(a_flowing_tunnels_window_grows),
        cmocka_unit_test(a_paused_tunnel_stops_its_sender),
        cmocka_unit_test(one_stalled_among_a_hundred),
        cmocka_unit_test(a_token_raises_the_stream_limit),
        cmocka_unit_test(extended_connect_carries_capsules),
        cmocka_unit_test(extended_connect_waits_for_the_setting),
        cmocka_unit_test(graceful_shutdown),
        cmocka_unit_test(close_and_death),
        cmocka_unit_test(an_idle_connection_closes_and_a_quiet_tunnel_does_not),
        cmocka_unit_test(a_message_that_does_not_end),
        cmocka_unit_test(a_relay_that_says_nothing_any_more),
        cmocka_unit_test(a_relay_that_is_doubted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
