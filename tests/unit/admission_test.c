/* A handler that does nothing but keep the books. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <openssl/evp.h>

#include "lib/net/log.h"
#include "lib/wire/error.h"
#include "modules/admission.h"
#include "modules/auth.h"
#include "modules/refusal.h"
#include "modules/token_account.h"
#include "tests/unit/support/loopback.h"

#define TICKETS 16

static struct loopback loopback;
static struct relay_ticket tickets[TICKETS];
static size_t num_tickets;
static char turns[TICKETS + 1]; /* whose turn came, in order: 'a' is the first ticket */

static void on_turn(struct relay_ticket *ticket)
{
    turns[strlen(turns)] = (char)('a' + (ticket - tickets));
}

static int on_req(h2o_handler_t *self, h2o_req_t *req)
{
    struct relay_ticket *ticket = &tickets[num_tickets];
    struct relay_tunnel *tunnel = relay_tunnel_of(req);
    int error = relay_ticket_take(ticket, req, tunnel, loopback.snapshot);
    relay_tunnel_attach(tunnel, NULL, NULL);
    if (error != 0)
        return relay_refuse(req, tunnel, error, -1);
    num_tickets++;
    relay_ticket_dial(ticket, on_turn);
    return 0;
}

static void add_token(char *file, const char *name)
{
    uint8_t digest[32];
    assert_int_equal(EVP_Digest(name, strlen(name), digest, NULL, EVP_sha256(), NULL), 1);
    file += strlen(file);
    file += sprintf(file, "%s ", name);
    for (size_t i = 0; i < sizeof(digest); i++)
        file += sprintf(file, "%02x", digest[i]);
    sprintf(file, "\n");
}

static int setup(void **state)
{
    char file[512] = "";
    struct relay_token_file_error error;
    add_token(file, "alice");
    add_token(file, "bob");
    loopback_init(&loopback);
    loopback.snapshot->auth_off = false;
    assert_int_equal(relay_token_file_parse(&loopback.snapshot->tokens, file, strlen(file), &error), 0);
    relay_auth_register(loopback.path);
    h2o_handler_t *handler = h2o_create_handler(loopback.path, sizeof(*handler));
    handler->on_req = on_req;
    loopback_start(&loopback);
    relay_log_set_level(RELAY_LOG_WARNING);
    memset(tickets, 0, sizeof(tickets));
    memset(turns, 0, sizeof(turns));
    num_tickets = 0;
    return 0;
}

/* So many tunnels of each method and version. */
static bool are_open(int64_t each)
{
    const struct relay_metrics *metrics = &loopback.metrics;
    return metrics->open_tunnels_udp_h1 == each && metrics->open_tunnels_udp_h2 == each &&
           metrics->open_tunnels_udp_h3 == each && metrics->open_tunnels_tcp_h1 == each &&
           metrics->open_tunnels_tcp_h2 == each && metrics->open_tunnels_tcp_h3 == each;
}

static int teardown(void **state)
{
    for (size_t i = 0; i < num_tickets; i++)
        relay_ticket_release(&tickets[i], RELAY_OK);
    loopback_dispose(&loopback);
    assert_true(are_open(0));
    return 0;
}

/* The status of the refusal, 0: taken. */
static int ask(const char *name)
{
    char field[64];
    snprintf(field, sizeof(field), "proxy-authorization: Bearer %s", name);
    return loopback_request(&loopback, NULL, "h.example:443", field)->status;
}

static void test_tunnels_per_token(void **state)
{
    loopback.snapshot->caps.tunnels_per_token = 2;
    assert_int_equal(ask("alice"), 0);
    assert_int_equal(ask("alice"), 0);
    assert_int_equal(ask("alice"), 503);
    assert_int_equal(ask("bob"), 0);
    assert_int_equal(loopback.metrics.limit_tunnels, 1);
    relay_ticket_release(&tickets[0], RELAY_OK);
    relay_ticket_release(&tickets[0], RELAY_OK); /* fine twice */
    assert_int_equal(ask("alice"), 0);
    assert_int_equal(ask("alice"), 503);
}

static void test_tunnels_per_connection(void **state)
{
    loopback.snapshot->caps.tunnels_per_connection = 3;
    for (int i = 0; i < 3; i++)
        assert_int_equal(ask("alice"), 0);
    assert_int_equal(ask("bob"), 503);
    relay_ticket_release(&tickets[1], RELAY_OK);
    assert_int_equal(ask("bob"), 0);
    loopback.env.is_draining = true;
    assert_int_equal(ask("bob"), 503);
    assert_int_equal(loopback.metrics.limit_tunnels, 1);
}

static void test_dials_take_turns(void **state)
{
    loopback.snapshot->caps.dials_per_connection = 2;
    for (int i = 0; i < 6; i++)
        assert_int_equal(ask("alice"), 0);
    assert_string_equal(turns, ""); /* never from inside relay_ticket_dial */
    loopback_turns(&loopback, 2);
    assert_string_equal(turns, "ab");
    relay_ticket_dialled(&tickets[0]);
    relay_ticket_dialled(&tickets[0]);
    loopback_turns(&loopback, 2);
    assert_string_equal(turns, "abc");
    relay_ticket_release(&tickets[3], RELAY_OK); /* gone while it waited */
    relay_ticket_release(&tickets[1], RELAY_OK); /* gone while it dialled */
    loopback_turns(&loopback, 2);
    assert_string_equal(turns, "abce");
    relay_ticket_dialled(&tickets[4]);
    relay_ticket_release(&tickets[5], RELAY_OK); /* gone between its turn and the task */
    loopback_turns(&loopback, 2);
    assert_string_equal(turns, "abce");
}

/* Its connection has room, its token has none, and then both. */
static void test_dials_of_a_token(void **state)
{
    loopback.snapshot->caps.dials_per_connection = 3;
    loopback.snapshot->caps.dials_per_token = 1;
    assert_int_equal(ask("alice"), 0);
    assert_int_equal(ask("alice"), 0);
    assert_int_equal(ask("alice"), 0);
    assert_int_equal(ask("bob"), 0);
    loopback_turns(&loopback, 2);
    assert_string_equal(turns, "ad");
    relay_ticket_release(&tickets[1], RELAY_OK); /* gone while it waited */
    relay_ticket_dialled(&tickets[0]);
    loopback_turns(&loopback, 2);
    assert_string_equal(turns, "adc");
    loopback.snapshot->auth_off = true; /* no token: the connection alone counts */
    assert_int_equal(ask("alice"), 0);
    assert_int_equal(ask("alice"), 0);
    loopback_turns(&loopback, 2);
    assert_string_equal(turns, "adce");
    relay_ticket_release(&tickets[3], RELAY_OK);
    loopback_turns(&loopback, 2);
    assert_string_equal(turns, "adcef");
}

/* A name that is asked in vain keeps the place of its token, also when no tunnel of the token is left. */
static void test_orphans_keep_their_place(void **state)
{
    loopback.snapshot->caps.dials_per_token = 2;
    assert_int_equal(ask("alice"), 0);
    assert_int_equal(ask("alice"), 0);
    assert_int_equal(ask("alice"), 0);
    loopback_turns(&loopback, 2);
    assert_string_equal(turns, "ab");
    struct relay_lookup_payer *payer = relay_ticket_payer(&tickets[0]);
    assert_ptr_equal(payer, relay_ticket_payer(&tickets[1]));
    payer->orphans = 2; /* the clients have gone */
    relay_ticket_release(&tickets[0], RELAY_ERR_CANCELLED);
    relay_ticket_release(&tickets[1], RELAY_ERR_CANCELLED);
    relay_ticket_release(&tickets[2], RELAY_ERR_CANCELLED);
    assert_int_equal(ask("bob"), 0);
    assert_int_equal(ask("alice"), 0);
    loopback_turns(&loopback, 2);
    assert_string_equal(turns, "abd");
    assert_ptr_equal(payer, relay_ticket_payer(&tickets[4]));
    payer->orphans--;
    payer->on_end(payer);
    loopback_turns(&loopback, 2);
    assert_string_equal(turns, "abde");
    relay_ticket_release(&tickets[4], RELAY_OK);
    payer->orphans--;
    payer->on_end(payer); /* the last that kept the account */
    assert_int_equal(ask("alice"), 0);
    loopback_turns(&loopback, 2);
    assert_string_equal(turns, "abdef");
}

/* The payer of the next tunnel of one who comes from the address. */
static struct relay_lookup_payer *payer_from(const char *address)
{
    loopback_set_peer(&loopback, address);
    assert_int_equal(ask(""), 0);
    return relay_ticket_payer(&tickets[num_tickets - 1]);
}

/* Without tokens a source pays; of the peers, behind which many users are, the connection does. */
static void test_sources_pay_without_tokens(void **state)
{
    struct relay_snapshot *snapshot = loopback.snapshot;
    struct relay_prefix peer;
    snapshot->auth_off = true;
    assert_int_equal(relay_prefix_parse("198.51.100.0/24", strlen("198.51.100.0/24"), &peer), 0);
    assert_int_equal(relay_prefix_set_add(&snapshot->peers, &peer), 0);
    struct relay_lookup_payer *first = payer_from("192.0.2.1");
    assert_ptr_equal(payer_from("192.0.2.1"), first);
    struct relay_lookup_payer *other = payer_from("192.0.2.2"), *wide = payer_from("2001:db8::1");
    assert_true(first != NULL && other != NULL && wide != NULL && other != first && wide != first);
    assert_ptr_equal(payer_from("2001:db8::2"), wide);
    assert_ptr_not_equal(payer_from("2001:db8:0:1::1"), wide);
    struct relay_lookup_payer *behind = payer_from("198.51.100.1");
    assert_ptr_equal(payer_from("198.51.100.2"), behind); /* another address, the same connection */
    assert_true(behind != first && behind != wide);
    first->orphans = 1;
    relay_ticket_release(&tickets[0], RELAY_ERR_CANCELLED);
    relay_ticket_release(&tickets[1], RELAY_ERR_CANCELLED);
    assert_ptr_equal(payer_from("192.0.2.1"), first); /* it outlives its orphans */
    relay_ticket_release(&tickets[num_tickets - 1], RELAY_OK);
    first->orphans--;
    first->on_end(first);
}

/* The status of the refusal of the next tunnel of one who comes from the address, 0: taken. */
static int ask_from(const char *address)
{
    loopback_set_peer(&loopback, address);
    return ask("");
}

/* Of sixteen descriptors the first who asks without a token gets half and one more, and the others find some. */
static void test_sources_share_descriptors(void **state)
{
    struct relay_snapshot *snapshot = loopback.snapshot;
    struct relay_prefix peer;
    relay_token_accounts_free(loopback.env.token_accounts);
    loopback.env.token_accounts = relay_token_accounts_new(1, 16);
    snapshot->auth_off = true;
    snapshot->caps.tunnels_per_token = 1; /* a source is no token */
    assert_int_equal(relay_prefix_parse("198.51.100.0/24", strlen("198.51.100.0/24"), &peer), 0);
    assert_int_equal(relay_prefix_set_add(&snapshot->peers, &peer), 0);
    for (int i = 0; i < 8; i++)
        assert_int_equal(ask_from("2001:db8::1"), 0);
    assert_int_equal(ask_from("2001:db8::2"), 503); /* the same /64 */
    assert_int_equal(ask_from("2001:db8:0:1::1"), 0);
    assert_int_equal(ask_from("192.0.2.1"), 0);
    assert_int_equal(ask_from("192.0.2.2"), 0);
    assert_int_equal(ask_from("198.51.100.1"), 0);
    assert_int_equal(ask_from("198.51.100.2"), 503); /* another address of a peer, the same connection */
    assert_int_equal(loopback.metrics.limit_tunnels, 2);
    for (size_t i = 0; i < 8; i++)
        relay_ticket_release(&tickets[i], RELAY_OK);
    assert_int_equal(ask_from("198.51.100.2"), 0);
    assert_int_equal(ask_from("2001:db8::2"), 0);
}

/* The shortened run, and that two tunnels of one token share what it may send. */
static void test_datagrams_are_metered(void **state)
{
    static const uint8_t bytes[1000];
    struct relay_run run = {.base = bytes, .len = 1000, .segment = 150}; /* six of 150, one of 100 */
    assert_int_equal(ask("alice"), 0);
    assert_false(tickets[0].is_metered); /* off unless configured */
    loopback.snapshot->caps.udp_packets_per_token = 10;
    assert_int_equal(ask("alice"), 0);
    assert_int_equal(ask("alice"), 0);
    assert_int_equal(ask("bob"), 0);
    assert_true(tickets[1].is_metered && tickets[2].is_metered && tickets[3].is_metered);
    assert_true(relay_ticket_meter(&tickets[1], loopback.snapshot, &run));
    assert_int_equal(run.len, 1000);
    assert_true(relay_ticket_meter(&tickets[2], loopback.snapshot, &run));
    assert_int_equal(run.len, 450);
    assert_int_equal(loopback.metrics.drop_token_rate, 4);
    run.len = 1000;
    assert_false(relay_ticket_meter(&tickets[1], loopback.snapshot, &run));
    assert_int_equal(run.len, 0);
    assert_int_equal(loopback.metrics.drop_token_rate, 11);
    run.len = 1000;
    assert_true(relay_ticket_meter(&tickets[3], loopback.snapshot, &run));
    assert_int_equal(run.len, 1000);
    loopback.snapshot->auth_off = true; /* no token, nothing to count under */
    assert_int_equal(ask("alice"), 0);
    assert_false(tickets[4].is_metered);
}

static void test_metrics(void **state)
{
    static const enum relay_http_version versions[] = {RELAY_HTTP_1_1, RELAY_HTTP_2, RELAY_HTTP_3};
    struct relay_host host;
    assert_int_equal(relay_host_parse(&host, "h.example", 9, RELAY_HOST_BARE), 0);
    for (size_t i = 0; i < 6; i++) {
        loopback.session.version = versions[i / 2];
        assert_int_equal(ask("alice"), 0);
        relay_ticket_opened(&tickets[i], i % 2 == 0, loopback.snapshot, &host, 443);
    }
    const struct relay_metrics *metrics = &loopback.metrics;
    assert_true(are_open(1));
    assert_true(metrics->tunnels_udp_h1 == 1 && metrics->tunnels_udp_h2 == 1 && metrics->tunnels_udp_h3 == 1);
    assert_true(metrics->tunnels_tcp_h1 == 1 && metrics->tunnels_tcp_h2 == 1 && metrics->tunnels_tcp_h3 == 1);
    for (size_t i = 0; i < 6; i++)
        relay_ticket_release(&tickets[i], RELAY_ERR_RESET);
    assert_int_equal(metrics->tunnels_closed, 6);
    assert_true(are_open(0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_tunnels_per_token, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tunnels_per_connection, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dials_take_turns, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dials_of_a_token, setup, teardown),
        cmocka_unit_test_setup_teardown(test_orphans_keep_their_place, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sources_pay_without_tokens, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sources_share_descriptors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_datagrams_are_metered, setup, teardown),
        cmocka_unit_test_setup_teardown(test_metrics, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
