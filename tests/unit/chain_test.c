/* The client's chain over real relays: one hop and two, HTTP/3 and HTTP/2, refusals, and ingresses that die.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "client/chain.h"
#include "tests/unit/client_relay.h"

#define INGRESS_TOKEN "in-secret"
#define EGRESS_TOKEN  "out-secret"
#define WAIT          15000 /* ms; a bound, not a pause */

static struct certificate certificate;
static struct child tcp_echo, udp_echo, ingress_a, ingress_b, egress;
static struct relay_loop loop;
static struct relay_metrics metrics;
static struct relay_hop_environment environment;
static struct relay_client_config config;
static struct relay_chain *chain;

/* ---- one tunnel as a front would use it ---- */

struct probe {
    struct relay_opening opening; /* first */
    struct relay_tunnel *tunnel;
    struct relay_failure failure;
    bool opened, failed, told, closed, progress;
    int close_error;
    size_t sent, received, wanted, datagrams;
    uint8_t last[64];
};

static uint8_t pattern(size_t at)
{
    return (uint8_t)(at * 7 + at / 251);
}

static void pump(struct probe *probe)
{
    uint8_t bytes[16384];
    size_t room;
    while (probe->sent < probe->wanted && (room = relay_tunnel_room(probe->tunnel)) > 0) {
        size_t len = probe->wanted - probe->sent;
        len = len < sizeof(bytes) ? len : sizeof(bytes);
        len = len < room ? len : room;
        for (size_t i = 0; i < len; i++)
            bytes[i] = pattern(probe->sent + i);
        probe->sent += len;
        if (!relay_tunnel_send(probe->tunnel, bytes, len))
            break;
    }
}

static void probe_on_bytes(void *user, uint8_t *bytes, size_t len)
{
    struct probe *probe = user;
    for (size_t i = 0; i < len; i++)
        assert_int_equal(bytes[i], pattern(probe->received + i));
    probe->received += len;
    probe->progress = probe->progress || probe->received >= probe->wanted;
}

static void probe_on_datagrams(void *user, const struct relay_run *run)
{
    struct probe *probe = user;
    probe->datagrams += run->segment > 0 ? (run->len + run->segment - 1) / run->segment : 1;
    size_t len = run->len < sizeof(probe->last) ? run->len : sizeof(probe->last);
    memcpy(probe->last, run->base, len);
    probe->progress = true;
}

static void probe_on_writable(void *user)
{
    pump(user);
}

static void probe_on_close(void *user, int error)
{
    struct probe *probe = user;
    probe->closed = probe->progress = true;
    probe->close_error = error;
}

static const struct relay_tunnel_user probe_cb = {.on_bytes = probe_on_bytes,
                                                  .on_datagrams = probe_on_datagrams,
                                                  .on_writable = probe_on_writable,
                                                  .on_close = probe_on_close};

static void probe_on_open(struct relay_opening *opening, struct relay_tunnel *tunnel)
{
    struct probe *probe = (struct probe *)opening;
    probe->opened = probe->told = true;
    probe->tunnel = tunnel;
    relay_tunnel_attach(tunnel, &probe_cb, probe);
}

static void probe_on_failed(struct relay_opening *opening, const struct relay_failure *failure)
{
    struct probe *probe = (struct probe *)opening;
    probe->failed = probe->told = true;
    probe->failure = *failure;
}

static void ask(struct probe *probe, bool is_udp, const char *name, uint16_t port)
{
    struct relay_host host;
    memset(probe, 0, sizeof(*probe));
    probe->opening.on_open = probe_on_open;
    probe->opening.on_failed = probe_on_failed;
    assert_int_equal(relay_host_parse(&host, name, strlen(name), RELAY_HOST_BARE), 0);
    relay_chain_open(chain, &probe->opening, is_udp, &host, port);
    assert_false(probe->told);
}

static void open_probe(struct probe *probe, bool is_udp)
{
    ask(probe, is_udp, "target.example", is_udp ? udp_echo.port : tcp_echo.port);
    run_until(&loop, &probe->told, WAIT);
    if (!probe->opened)
        fail_msg("not opened: %s", probe->failure.text);
}

static void echo_bytes(struct probe *probe, size_t len)
{
    probe->wanted = len;
    probe->progress = false;
    pump(probe);
    run_until(&loop, &probe->progress, 4 * WAIT);
    assert_int_equal(probe->received, len);
    assert_false(probe->closed);
}

/* Sends until an answer comes: datagrams may be lost. */
static bool echo_datagram(struct probe *probe, const char *text)
{
    for (int i = 0; i < 40; i++) {
        struct relay_run run = {0, (const uint8_t *)text, strlen(text), strlen(text)};
        probe->progress = false;
        relay_tunnel_send_datagrams(probe->tunnel, &run);
        run_until(&loop, &probe->progress, 250);
        if (probe->closed)
            return false;
        if (memcmp(probe->last, text, strlen(text)) == 0)
            return true;
    }
    return false;
}

static void close_probe(struct probe *probe)
{
    relay_tunnel_abort(probe->tunnel, RELAY_ERR_CANCELLED);
    run_until(&loop, &probe->closed, WAIT);
    assert_true(probe->closed);
}

/* ---- the chain ---- */

static void add_hop(const char *token, const char *http, const struct child *a, const struct child *b)
{
    const char *expected = NULL;
    char url[64];
    struct relay_hop_config *hop = relay_client_config_add_hop(&config, &expected);
    for (const struct child *child = a; child != NULL; child = child == a ? b : NULL) {
        snprintf(url, sizeof(url), "https://127.0.0.1:%u", child->port);
        assert_int_equal(relay_hop_config_add_url(hop, url, &expected), 0);
    }
    if (token != NULL)
        assert_int_equal(relay_hop_identity_set_token(&hop->identity, token, &expected), 0);
    assert_int_equal(relay_hop_config_set_http(hop, http, &expected), 0);
    memcpy(hop->identity.pin, certificate.pin, sizeof(hop->identity.pin));
    hop->identity.has_pin = true;
}

static void start_chain(void)
{
    char text[256];
    chain = relay_chain_new(&environment, &config, text, sizeof(text));
    if (chain == NULL)
        fail_msg("%s", text);
    relay_chain_start(chain);
}

static enum relay_http_version version_of(unsigned number)
{
    return relay_hop_session(relay_chain_hop(chain, number))->version;
}

static int setup(void **state)
{
    relay_log_set_level(RELAY_LOG_ERROR);
    assert_int_equal(relay_loop_init(&loop, &metrics), 0);
    environment = (struct relay_hop_environment){.loop = &loop, .limits = RELAY_LIMITS_DEFAULT};
    environment.budget.limit = 64 * 1024 * 1024;
    struct relay_resolver_config resolver = {.timeout = 5 * RELAY_SECOND, .cache_names = 100};
    environment.resolver = relay_resolver_new(&loop, &resolver);
    assert_non_null(environment.resolver);
    relay_client_config_init(&config);
    chain = NULL;
    return 0;
}

static int teardown(void **state)
{
    if (chain != NULL)
        relay_chain_free(chain);
    for (int i = 0; i < 1000 && environment.num_hops > 0; i++)
        run_until(&loop, NULL, 5);
    assert_int_equal(environment.num_hops, 0);
    struct child *children[] = {&ingress_a, &ingress_b, &egress};
    for (size_t i = 0; i < 3; i++)
        stop_child(children[i]);
    run_until(&loop, NULL, 50); /* streams that wait for the relay's FIN */
    relay_resolver_free(environment.resolver);
    relay_loop_dispose(&loop);
    relay_client_config_dispose(&config);
    return 0;
}

static void both_ways(void)
{
    struct probe tcp, udp;
    open_probe(&tcp, false);
    echo_bytes(&tcp, 2000000);
    open_probe(&udp, true);
    assert_true(echo_datagram(&udp, "ping"));
    assert_true(echo_datagram(&udp, "pong"));
    close_probe(&tcp);
    close_probe(&udp);
}

static void test_one_hop_http3(void **state)
{
    egress = start_relay(&certificate, EGRESS_TOKEN, 0);
    add_hop(EGRESS_TOKEN, "auto", &egress, NULL);
    start_chain();
    both_ways();
    assert_int_equal(version_of(1), RELAY_HTTP_3);
}

static void test_one_hop_http2(void **state)
{
    egress = start_relay(&certificate, EGRESS_TOKEN, 0);
    add_hop(EGRESS_TOKEN, "2", &egress, NULL);
    start_chain();
    both_ways();
    assert_int_equal(version_of(1), RELAY_HTTP_2);
}

static void test_refused_udp_falls_back_and_is_remembered(void **state)
{
    static const struct relay_address loopback = {4, {127, 0, 0, 1}};
    egress = start_relay(&certificate, EGRESS_TOKEN, RELAY_WITHOUT_UDP);
    add_hop(EGRESS_TOKEN, "auto", &egress, NULL);
    start_chain();
    both_ways();
    assert_int_equal(version_of(1), RELAY_HTTP_2);
    assert_true(relay_hop_memory_has(&environment.memory, &loopback, &loopback, relay_loop_now(&loop)));
}

static void test_silent_udp_falls_back(void **state)
{
    static const struct relay_address loopback = {4, {127, 0, 0, 1}};
    egress = start_relay(&certificate, EGRESS_TOKEN, RELAY_DEAF_UDP);
    add_hop(EGRESS_TOKEN, "auto", &egress, NULL);
    start_chain();
    uint64_t start = relay_loop_now(&loop);
    both_ways();
    assert_true(relay_loop_now(&loop) - start < 5 * RELAY_SECOND);
    assert_int_equal(version_of(1), RELAY_HTTP_2);
    assert_true(relay_hop_memory_has(&environment.memory, &loopback, &loopback, relay_loop_now(&loop)));
}

/* Anybody who sees the handshake can write a Version Negotiation: HTTP/2 is there at once, and HTTP/3 is tried again. */
static void test_a_forged_version_is_not_remembered(void **state)
{
    static const struct relay_address loopback = {4, {127, 0, 0, 1}};
    egress = start_relay(&certificate, EGRESS_TOKEN, RELAY_LIED_TO_UDP);
    add_hop(EGRESS_TOKEN, "auto", &egress, NULL);
    start_chain();
    both_ways();
    assert_int_equal(version_of(1), RELAY_HTTP_2);
    assert_false(relay_hop_memory_has(&environment.memory, &loopback, &loopback, relay_loop_now(&loop)));
}

static void two_hops(int ingress_flags, const char *http1, const char *http2)
{
    ingress_a = start_relay(&certificate, INGRESS_TOKEN, ingress_flags);
    egress = start_relay(&certificate, EGRESS_TOKEN, 0);
    add_hop(INGRESS_TOKEN, http1, &ingress_a, NULL);
    add_hop(EGRESS_TOKEN, http2, &egress, NULL);
    start_chain();
    both_ways();
}

static void test_two_hops_http3(void **state)
{
    two_hops(0, "auto", "auto");
    assert_int_equal(version_of(1), RELAY_HTTP_3);
    assert_int_equal(version_of(2), RELAY_HTTP_3);
}

static void test_two_hops_over_tcp(void **state)
{
    two_hops(RELAY_WITHOUT_UDP, "auto", "auto");
    assert_int_equal(version_of(1), RELAY_HTTP_2);
    assert_int_equal(version_of(2), RELAY_HTTP_2);
}

static void test_http2_inside_http3(void **state)
{
    two_hops(0, "3", "2");
    assert_int_equal(version_of(1), RELAY_HTTP_3);
    assert_int_equal(version_of(2), RELAY_HTTP_2);
}

static void test_three_hops(void **state)
{
    ingress_a = start_relay(&certificate, INGRESS_TOKEN, 0);
    ingress_b = start_relay(&certificate, INGRESS_TOKEN, 0);
    egress = start_relay(&certificate, EGRESS_TOKEN, 0);
    add_hop(INGRESS_TOKEN, "auto", &ingress_a, NULL);
    add_hop(INGRESS_TOKEN, "auto", &ingress_b, NULL);
    add_hop(EGRESS_TOKEN, "auto", &egress, NULL);
    start_chain();
    both_ways();
}

static void expect_failure(bool is_udp, const char *name, uint16_t port, unsigned hop, int error,
                           const char *part)
{
    struct probe probe;
    ask(&probe, is_udp, name, port);
    run_until(&loop, &probe.told, WAIT);
    assert_true(probe.failed);
    if (probe.failure.hop != hop || probe.failure.error != error || strstr(probe.failure.text, part) == NULL)
        fail_msg("hop %u, %s: %s", probe.failure.hop, relay_error_name(probe.failure.error),
                 probe.failure.text);
}

static void test_what_the_target_says(void **state)
{
    egress = start_relay(&certificate, EGRESS_TOKEN, 0);
    add_hop(EGRESS_TOKEN, "auto", &egress, NULL);
    start_chain();
    expect_failure(false, "nowhere.example", 80, 1, RELAY_ERR_DNS, "NXDOMAIN");
    expect_failure(false, "closed.example", 1, 1, RELAY_ERR_REFUSED, "connection refused");
}

static void test_bad_token_of_the_last_hop(void **state)
{
    egress = start_relay(&certificate, EGRESS_TOKEN, 0);
    add_hop("wrong", "auto", &egress, NULL);
    start_chain();
    expect_failure(false, "target.example", 80, 1, RELAY_ERR_UNAUTHORIZED, "the token was refused (407)");
    expect_failure(true, "target.example", 80, 1, RELAY_ERR_UNAUTHORIZED, "the token was refused (401)");
}

static void test_bad_token_of_the_ingress(void **state)
{
    ingress_a = start_relay(&certificate, INGRESS_TOKEN, 0);
    egress = start_relay(&certificate, EGRESS_TOKEN, 0);
    add_hop("wrong", "auto", &ingress_a, NULL);
    add_hop(EGRESS_TOKEN, "auto", &egress, NULL);
    start_chain();
    expect_failure(false, "target.example", 80, 1, RELAY_ERR_UNAUTHORIZED, "no way to hop 2");
}

/* What is refused is not "the token". */
static void test_no_token_for_the_last_hop(void **state)
{
    egress = start_relay(&certificate, EGRESS_TOKEN, 0);
    add_hop(NULL, "auto", &egress, NULL);
    start_chain();
    expect_failure(false, "target.example", 80, 1, RELAY_ERR_UNAUTHORIZED,
                   "no token is configured for hop 1 (407)");
}

static void test_no_token_for_the_ingress(void **state)
{
    ingress_a = start_relay(&certificate, INGRESS_TOKEN, 0);
    egress = start_relay(&certificate, EGRESS_TOKEN, 0);
    add_hop(NULL, "auto", &ingress_a, NULL);
    add_hop(EGRESS_TOKEN, "auto", &egress, NULL);
    start_chain();
    expect_failure(false, "target.example", 80, 1, RELAY_ERR_UNAUTHORIZED,
                   "no token is configured for hop 1 (401)");
}

static void test_shutting_down(void **state)
{
    ingress_a = start_relay(&certificate, INGRESS_TOKEN, RELAY_DRAINING);
    egress = start_relay(&certificate, EGRESS_TOKEN, 0);
    add_hop(INGRESS_TOKEN, "auto", &ingress_a, NULL);
    add_hop(EGRESS_TOKEN, "auto", &egress, NULL);
    start_chain();
    expect_failure(false, "target.example", 80, 1, RELAY_ERR_SHUTDOWN, "shutting down (503)");
}

static void test_another_ingress_when_one_is_shutting_down(void **state)
{
    struct probe tcp;
    ingress_a = start_relay(&certificate, INGRESS_TOKEN, RELAY_DRAINING);
    ingress_b = start_relay(&certificate, INGRESS_TOKEN, 0);
    egress = start_relay(&certificate, EGRESS_TOKEN, 0);
    add_hop(INGRESS_TOKEN, "auto", &ingress_a, &ingress_b);
    add_hop(EGRESS_TOKEN, "auto", &egress, NULL);
    start_chain();
    open_probe(&tcp, false);
    echo_bytes(&tcp, 1000);
    close_probe(&tcp);
}

static void test_the_last_hop_is_shutting_down(void **state)
{
    egress = start_relay(&certificate, EGRESS_TOKEN, RELAY_DRAINING);
    add_hop(EGRESS_TOKEN, "auto", &egress, NULL);
    start_chain();
    expect_failure(false, "target.example", 80, 1, RELAY_ERR_SHUTDOWN, "shutting down (503)");
    expect_failure(true, "target.example", 80, 1, RELAY_ERR_SHUTDOWN, "shutting down (503)");
}

static void last_hop_restarts(const char *http)
{
    struct probe tcp;
    egress = start_relay(&certificate, EGRESS_TOKEN, RELAY_RESTARTING);
    add_hop(EGRESS_TOKEN, http, &egress, NULL);
    start_chain();
    open_probe(&tcp, false);
    echo_bytes(&tcp, 1000);
    close_probe(&tcp);
}

/* What was asked of a relay that had just begun to shut down is asked of the one that comes after it. */
static void test_last_hop_restarts(void **state)
{
    last_hop_restarts("3");
}

static void test_last_hop_restarts_over_http2(void **state)
{
    last_hop_restarts("2");
}

static void test_wrong_key(void **state)
{
    egress = start_relay(&certificate, EGRESS_TOKEN, 0);
    add_hop(EGRESS_TOKEN, "auto", &egress, NULL);
    config.hops[0].identity.pin[0] ^= 1;
    start_chain();
    expect_failure(false, "target.example", 80, 1, RELAY_ERR_CERTIFICATE_PIN, "pinned");
}

static void test_nobody_there(void **state)
{
    egress = start_relay(&certificate, EGRESS_TOKEN, RELAY_WITHOUT_UDP | RELAY_WITHOUT_TCP);
    add_hop(EGRESS_TOKEN, "auto", &egress, NULL);
    start_chain();
    expect_failure(false, "target.example", 80, 1, RELAY_ERR_REFUSED, "connection refused");
}

static void test_egress_comes_back(void **state)
{
    struct probe tcp, again;
    egress = start_relay(&certificate, EGRESS_TOKEN, 0);
    add_hop(EGRESS_TOKEN, "auto", &egress, NULL);
    start_chain();
    open_probe(&tcp, false);
    echo_bytes(&tcp, 1000);
    stop_child(&egress);
    tcp.wanted += 1000;
    pump(&tcp);
    run_until(&loop, &tcp.closed, WAIT);
    assert_true(tcp.closed);
    assert_int_not_equal(tcp.close_error, RELAY_OK);
    egress = start_relay(&certificate, EGRESS_TOKEN, 0);
    config.hops[0].places[0].port = egress.port; /* where the new one listens */
    for (int i = 0; i < 20; i++) {
        ask(&again, false, "target.example", tcp_echo.port);
        run_until(&loop, &again.told, WAIT);
        if (again.opened)
            break;
    }
    assert_true(again.opened);
    echo_bytes(&again, 1000);
    close_probe(&again);
}

/* The heart of it: the ingress in use goes away in the middle of a transfer and of a UDP exchange, and
 * nothing is lost. */
static void ingress_goes(int how)
{
    struct probe tcp, udp;
    ingress_a = start_relay(&certificate, INGRESS_TOKEN, 0);
    ingress_b = start_relay(&certificate, INGRESS_TOKEN, 0);
    egress = start_relay(&certificate, EGRESS_TOKEN, 0);
    add_hop(INGRESS_TOKEN, "auto", &ingress_a, &ingress_b);
    add_hop(EGRESS_TOKEN, "auto", &egress, NULL);
    start_chain();
    open_probe(&tcp, false);
    open_probe(&udp, true);
    echo_bytes(&tcp, 300000);
    assert_true(echo_datagram(&udp, "before"));
    struct relay_hop *second = relay_chain_hop(chain, 2);
    tcp.wanted += 8000000;
    pump(&tcp);
    run_until(&loop, NULL, 30);
    assert_true(tcp.received < tcp.wanted);
    kill(ingress_a.pid, how);
    tcp.progress = false;
    run_until(&loop, &tcp.progress, 4 * WAIT);
    assert_int_equal(tcp.received, tcp.wanted);
    assert_false(tcp.closed);
    assert_true(echo_datagram(&udp, "after"));
    assert_ptr_equal(relay_chain_hop(chain, 2), second);
    assert_int_equal(metrics.quic_migrations, 1);
    close_probe(&tcp);
    close_probe(&udp);
}

static void test_ingress_is_killed(void **state)
{
    metrics.quic_migrations = 0;
    ingress_goes(SIGKILL);
}

static void test_ingress_goes_silent(void **state)
{
    metrics.quic_migrations = 0;
    ingress_goes(SIGSTOP);
}

/* The only ingress dies and comes back: hop 2 waits for it. */
static void test_ingress_restarts(void **state)
{
    struct probe tcp, udp;
    ingress_a = start_relay(&certificate, INGRESS_TOKEN, 0);
    egress = start_relay(&certificate, EGRESS_TOKEN, 0);
    add_hop(INGRESS_TOKEN, "auto", &ingress_a, NULL);
    add_hop(EGRESS_TOKEN, "auto", &egress, NULL);
    start_chain();
    open_probe(&tcp, false);
    open_probe(&udp, true);
    echo_bytes(&tcp, 300000);
    assert_true(echo_datagram(&udp, "before"));
    stop_child(&ingress_a);
    tcp.wanted += 2000000;
    pump(&tcp);
    run_until(&loop, NULL, 300);
    ingress_a = start_relay(&certificate, INGRESS_TOKEN, 0);
    config.hops[0].places[0].port = ingress_a.port;
    tcp.progress = false;
    run_until(&loop, &tcp.progress, 4 * WAIT);
    assert_int_equal(tcp.received, tcp.wanted);
    assert_false(tcp.closed);
    assert_true(echo_datagram(&udp, "after"));
    close_probe(&tcp);
    close_probe(&udp);
}

/* Nothing hears the request, yet everybody who waits is told, and later at once. */
static void test_breaker(void **state)
{
    struct probe probe;
    egress = start_relay(&certificate, EGRESS_TOKEN, RELAY_WITHOUT_UDP | RELAY_WITHOUT_TCP);
    add_hop(EGRESS_TOKEN, "auto", &egress, NULL);
    start_chain();
    for (int i = 0; i < 6; i++)
        expect_failure(false, "target.example", 80, 1, RELAY_ERR_REFUSED, "connection refused");
    uint64_t start = relay_loop_now(&loop);
    expect_failure(true, "target.example", 80, 1, RELAY_ERR_REFUSED, "connection refused");
    assert_true(relay_loop_now(&loop) - start < 100 * RELAY_MS);
    ask(&probe, false, "target.example", 80);
    relay_opening_cancel(&probe.opening);
    run_until(&loop, NULL, 20);
    assert_false(probe.told);
}

static void test_cancelled_openings(void **state)
{
    struct probe waiting, asked;
    egress = start_relay(&certificate, EGRESS_TOKEN, 0);
    add_hop(EGRESS_TOKEN, "auto", &egress, NULL);
    start_chain();
    ask(&waiting, false, "target.example", tcp_echo.port);
    relay_opening_cancel(&waiting.opening);
    both_ways();
    ask(&asked, false, "target.example", tcp_echo.port);
    run_until(&loop, &asked.told, 1);
    if (!asked.told)
        relay_opening_cancel(&asked.opening);
    else
        close_probe(&asked);
    both_ways();
    assert_false(waiting.told);
}

/* GOAWAY of the only relay: the open tunnel lives on, new ones go over a new connection. */
static void goaway_of_the_last_hop(const char *version)
{
    struct probe old, new;
    egress = start_relay(&certificate, EGRESS_TOKEN, 0);
    add_hop(EGRESS_TOKEN, version, &egress, NULL);
    start_chain();
    open_probe(&old, false);
    echo_bytes(&old, 10000);
    struct relay_hop *first = relay_chain_hop(chain, 1);
    kill(egress.pid, SIGUSR1);
    for (int i = 0; i < 500 && (relay_chain_hop(chain, 1) == first || relay_chain_hop(chain, 1) == NULL); i++)
        run_until(&loop, NULL, 10);
    assert_ptr_not_equal(relay_chain_hop(chain, 1), first);
    open_probe(&new, false);
    echo_bytes(&new, 10000);
    echo_bytes(&old, 30000);
    close_probe(&old);
    for (int i = 0; i < 500 && environment.num_hops > 1; i++)
        run_until(&loop, NULL, 10);
    assert_int_equal(environment.num_hops, 1);
    echo_bytes(&new, 20000);
    close_probe(&new);
}

static void test_goaway_http3(void **state)
{
    goaway_of_the_last_hop("3");
}

static void test_goaway_http2(void **state)
{
    goaway_of_the_last_hop("2");
}

static void test_ingress_drains(void **state)
{
    metrics.quic_migrations = 0;
    ingress_goes(SIGUSR1);
    assert_int_equal(version_of(1), RELAY_HTTP_3);
}

static int start_targets(void **state)
{
    certificate_make(&certificate, "relay.example");
    tcp_echo = start_echo(false);
    udp_echo = start_echo(true);
    return 0;
}

static int stop_targets(void **state)
{
    stop_child(&tcp_echo);
    stop_child(&udp_echo);
    certificate_remove(&certificate);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_one_hop_http3),
        TEST(test_one_hop_http2),
        TEST(test_refused_udp_falls_back_and_is_remembered),
        TEST(test_silent_udp_falls_back),
        TEST(test_a_forged_version_is_not_remembered),
        TEST(test_goaway_http3),
        TEST(test_goaway_http2),
        TEST(test_ingress_drains),
        TEST(test_two_hops_http3),
        TEST(test_two_hops_over_tcp),
        TEST(test_http2_inside_http3),
        TEST(test_three_hops),
        TEST(test_what_the_target_says),
        TEST(test_bad_token_of_the_last_hop),
        TEST(test_bad_token_of_the_ingress),
        TEST(test_no_token_for_the_last_hop),
        TEST(test_no_token_for_the_ingress),
        TEST(test_shutting_down),
        TEST(test_another_ingress_when_one_is_shutting_down),
        TEST(test_the_last_hop_is_shutting_down),
        TEST(test_last_hop_restarts),
        TEST(test_last_hop_restarts_over_http2),
        TEST(test_wrong_key),
        TEST(test_nobody_there),
        TEST(test_egress_comes_back),
        TEST(test_breaker),
        TEST(test_cancelled_openings),
        TEST(test_ingress_restarts),
        TEST(test_ingress_is_killed),
        TEST(test_ingress_goes_silent),
    };
    return cmocka_run_group_tests(tests, start_targets, stop_targets);
}
