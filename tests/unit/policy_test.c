/* From targets to judged addresses, with a resolver of the test's making. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/wire/error.h"
#include "modules/target.h"
#include "tests/unit/support/fake_resolver.h"
#include "tests/unit/support/loopback.h"

static struct loopback loopback;
static bool is_judged;
static unsigned times_judged;
static char early[1024]; /* what was judged first, when it came twice */

static const struct fake_name zone[] = {
    {"public.example", .addresses = {"8.8.4.4", "2606:4700::1111"}},
    {"private.example", .addresses = {"10.1.2.3"}},
    {"mixed.example", .addresses = {"169.254.169.254", "9.9.9.9", "::1", "::ffff:1.1.1.1"}},
    {"nat64.example", .addresses = {"64:ff9b::101:101", "64:ff9b::a00:1"}},
    {"empty.example", .addresses = {NULL}},
    {"dead.example", .error = RELAY_ERR_DNS_TIMEOUT, .rcode = -1},
    {"fail.example", .error = RELAY_ERR_DNS, .rcode = 2},
    {"relay.example", .addresses = {"198.51.100.7", "8.8.8.8"}},
    {"late.example", .addresses = {"2606:4700::1111"}, .has_late = true, .late = {"8.8.4.4", "10.0.0.1"},
     .late_after = 20 * RELAY_MS},
    {"late-private.example", .addresses = {"2606:4700::1111"}, .has_late = true, .late = {"10.0.0.1"},
     .late_after = 20 * RELAY_MS},
    {"early-private.example", .addresses = {"fd00::1", "::1"}, .has_late = true, .late = {"8.8.4.4"},
     .late_after = 20 * RELAY_MS},
    {"all-private.example", .addresses = {"fd00::1"}, .has_late = true, .late = {"10.0.0.1"},
     .late_after = 20 * RELAY_MS},
    {NULL},
};

static int setup(void **state)
{
    loopback_init(&loopback);
    loopback_start(&loopback);
    fake_resolver_init(&loopback.loop, zone);
    return 0;
}

static int teardown(void **state)
{
    loopback_dispose(&loopback);
    return 0;
}

/* "error" or the addresses that may be dialled, separated by spaces. */
static void print(const struct relay_target *target, char *out, size_t size)
{
    out[0] = '\0';
    for (size_t i = 0; target->error == 0 && i < target->num_addresses; i++) {
        char text[RELAY_ADDRESS_TEXT_SIZE];
        snprintf(out + strlen(out), size - strlen(out), "%s%s", i > 0 ? " " : "",
                 relay_address_print(&target->addresses[i], text));
    }
    if (target->error != 0)
        snprintf(out, size, "%s%s", relay_error_name(target->error), target->rcode >= 0 ? "+rcode" : "");
}

static void on_judged(struct relay_target *target)
{
    times_judged++;
    if (target->is_final)
        is_judged = true;
    else
        print(target, early, sizeof(early));
}

/* What is judged at last. */
static const char *ask(const struct relay_acl *acl, enum relay_transport transport, const char *name,
                       uint16_t port)
{
    static char answer[1024];
    struct relay_target target;
    struct relay_host host;
    assert_int_equal(relay_host_parse(&host, name, strlen(name), RELAY_HOST_BARE), 0);
    relay_target_init(&target, &loopback.env, loopback.snapshot, acl, transport, &host, port);
    is_judged = false;
    times_judged = 0;
    early[0] = '\0';
    relay_target_begin(&target, NULL, on_judged);
    assert_int_equal(times_judged, 0);
    loopback_wait(&loopback, is_judged);
    print(&target, answer, sizeof(answer));
    return answer;
}

/* RFC 8305 section 3 and T47: each address of the late family is judged too; a refusal counts once. */
static void test_late_family(void **state)
{
    static const struct {
        const char *name, *early, *late;
        unsigned refusals;
    } rows[] = {{"late.example", "2606:4700::1111", "8.8.4.4", 0},
                {"late-private.example", "2606:4700::1111", "", 0},
                {"early-private.example", "", "8.8.4.4", 0},
                {"all-private.example", "", "ADDRESS_PROHIBITED", 1}};
    struct relay_acl acl = {0};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *late = ask(&acl, RELAY_TRANSPORT_TCP, rows[i].name, 443);
        assert_string_equal(late, rows[i].late);
        assert_string_equal(early, rows[i].early);
        assert_int_equal(times_judged, rows[i].early[0] != '\0' ? 2 : 1);
        assert_int_equal(loopback.metrics.policy_address, rows[i].refusals);
    }
}

static void test_egress(void **state)
{
    static const struct {
        const char *rules, *name;
        uint16_t port;
        const char *answer;
    } rows[] = {
        {"", "public.example", 443, "8.8.4.4 2606:4700::1111"},
        {"", "private.example", 443, "ADDRESS_PROHIBITED"},
        {"+private.example", "private.example", 443, "ADDRESS_PROHIBITED"},
        {"+10.0.0.0/8", "private.example", 443, "10.1.2.3"},
        {"", "mixed.example", 443, "9.9.9.9 1.1.1.1"},
        {"", "nat64.example", 443, "64:ff9b::101:101"},
        {"", "empty.example", 443, "DNS+rcode"},
        {"", "none.example", 443, "DNS+rcode"},
        {"", "dead.example", 443, "DNS_TIMEOUT"},
        {"", "fail.example", 443, "DNS+rcode"},
        {"+*:443", "public.example", 80, "DENIED"},
        {"-*.example", "public.example", 443, "DENIED"},
        /* literal targets: T45, T46, T49 */
        {"", "8.8.8.8", 443, "8.8.8.8"},
        {"", "127.0.0.1", 443, "ADDRESS_PROHIBITED"},
        {"", "0.0.0.0", 443, "ADDRESS_PROHIBITED"},
        {"", "169.254.169.254", 80, "ADDRESS_PROHIBITED"},
        {"", "fd00:ec2::254", 80, "ADDRESS_PROHIBITED"},
        {"", "::ffff:10.0.0.1", 443, "ADDRESS_PROHIBITED"},
        {"", "::ffff:8.8.8.8", 443, "8.8.8.8"},
        {"", "2002:808:808::1", 443, "ADDRESS_PROHIBITED"},
        {"", "64:ff9b:1::808:808", 443, "ADDRESS_PROHIBITED"},
        {"+127.0.0.0/8", "127.0.0.1", 443, "127.0.0.1"},
        /* T50 */
        {"", "public.example", 25, "DENIED"},
        {"", "8.8.8.8", 53, "DENIED"},
        {"+8.8.8.8:53", "8.8.8.8", 53, "8.8.8.8"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct relay_acl acl = {0};
        const char *why;
        if (*rows[i].rules != '\0')
            assert_int_equal(relay_acl_add(&acl, rows[i].rules, &why), 0);
        assert_string_equal(ask(&acl, RELAY_TRANSPORT_TCP, rows[i].name, rows[i].port), rows[i].answer);
        relay_acl_dispose(&acl);
    }
    struct relay_acl none = {0};
    assert_string_equal(ask(&none, RELAY_TRANSPORT_UDP, "public.example", 1900), "DENIED");
}

static void test_refused_before_dns(void **state)
{
    struct relay_acl acl = {0};
    const char *why;
    assert_int_equal(relay_acl_add(&acl, "+*:443", &why), 0);
    assert_string_equal(ask(&acl, RELAY_TRANSPORT_TCP, "public.example", 80), "DENIED");
    assert_string_equal(ask(&acl, RELAY_TRANSPORT_TCP, "8.8.8.8", 443), "8.8.8.8");
    assert_int_equal(fake_resolver_asked(), 0);
    assert_int_equal(loopback.metrics.policy_name, 1);
    relay_acl_dispose(&acl);
}

static void list_relay(const char *host, uint16_t port)
{
    struct relay_snapshot *snapshot = loopback.snapshot;
    snapshot->relays = realloc(snapshot->relays, (snapshot->num_relays + 1) * sizeof(*snapshot->relays));
    struct relay_relay_target *relay = &snapshot->relays[snapshot->num_relays++];
    assert_int_equal(relay_host_parse(&relay->host, host, strlen(host), RELAY_HOST_BARE), 0);
    relay->port = port;
}

static void test_ingress(void **state)
{
    struct relay_acl none = {0}, literal = {0};
    const char *why;
    assert_int_equal(relay_acl_add(&literal, "+198.51.100.0/24", &why), 0);
    loopback.snapshot->role = RELAY_ROLE_INGRESS;
    assert_string_equal(ask(&none, RELAY_TRANSPORT_UDP, "relay.example", 443), "DENIED");
    list_relay("relay.example", 443);
    list_relay("private.example", 443);
    list_relay("127.0.0.1", 4433);
    assert_string_equal(ask(&none, RELAY_TRANSPORT_UDP, "relay.example", 443), "8.8.8.8");
    assert_string_equal(ask(&literal, RELAY_TRANSPORT_UDP, "relay.example", 443), "198.51.100.7");
    assert_string_equal(ask(&none, RELAY_TRANSPORT_TCP, "private.example", 443), "ADDRESS_PROHIBITED");
    assert_string_equal(ask(&none, RELAY_TRANSPORT_TCP, "127.0.0.1", 4433), "127.0.0.1");
    assert_string_equal(ask(&literal, RELAY_TRANSPORT_TCP, "127.0.0.1", 4433), "ADDRESS_PROHIBITED");
    unsigned asked = fake_resolver_asked();
    assert_string_equal(ask(&none, RELAY_TRANSPORT_UDP, "relay.example", 444), "DENIED");
    assert_string_equal(ask(&none, RELAY_TRANSPORT_UDP, "public.example", 443), "DENIED");
    assert_string_equal(ask(&none, RELAY_TRANSPORT_TCP, "8.8.8.8", 443), "DENIED");
    assert_int_equal(fake_resolver_asked(), asked);
    /* A list never opens what is no relay. */
    struct relay_acl wide = {0};
    assert_int_equal(relay_acl_add(&wide, "+*", &why), 0);
    assert_int_equal(relay_acl_add(&wide, "+127.0.0.0/8", &why), 0);
    assert_string_equal(ask(&wide, RELAY_TRANSPORT_TCP, "127.0.0.1", 4433), "127.0.0.1");
    assert_string_equal(ask(&wide, RELAY_TRANSPORT_TCP, "127.0.0.1", 4434), "DENIED");
    assert_string_equal(ask(&wide, RELAY_TRANSPORT_TCP, "8.8.8.8", 443), "DENIED");
    assert_string_equal(ask(&wide, RELAY_TRANSPORT_UDP, "public.example", 443), "DENIED");
    relay_acl_dispose(&wide);
    relay_acl_dispose(&literal);
}

static void test_own_listener(void **state)
{
    struct relay_acl acl = {0};
    struct relay_address any = {.family = 4}, local = {.family = 4, .bytes = {127, 0, 0, 9}};
    const char *why;
    relay_own_listener_add(&any, 7001, false);
    relay_own_listener_add(&local, 7002, true);
    assert_int_equal(relay_acl_add(&acl, "+127.0.0.0/8", &why), 0);
    assert_string_equal(ask(&acl, RELAY_TRANSPORT_TCP, "127.0.0.1", 7001), "ADDRESS_PROHIBITED");
    assert_string_equal(ask(&acl, RELAY_TRANSPORT_TCP, "::ffff:127.0.0.1", 7001), "ADDRESS_PROHIBITED");
    assert_int_equal(loopback.metrics.policy_listener, 2);
    assert_string_equal(ask(&acl, RELAY_TRANSPORT_UDP, "127.0.0.1", 7001), "127.0.0.1");
    assert_string_equal(ask(&acl, RELAY_TRANSPORT_UDP, "127.0.0.9", 7002), "ADDRESS_PROHIBITED");
    assert_string_equal(ask(&acl, RELAY_TRANSPORT_UDP, "127.0.0.8", 7002), "127.0.0.8");
    /* Not even the ingress's own list opens a listener of ours. */
    struct relay_acl none = {0};
    loopback.snapshot->role = RELAY_ROLE_INGRESS;
    list_relay("127.0.0.1", 7001);
    assert_string_equal(ask(&none, RELAY_TRANSPORT_TCP, "127.0.0.1", 7001), "ADDRESS_PROHIBITED");
    relay_acl_dispose(&acl);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_egress, setup, teardown),
        cmocka_unit_test_setup_teardown(test_late_family, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused_before_dns, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ingress, setup, teardown),
        cmocka_unit_test_setup_teardown(test_own_listener, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
