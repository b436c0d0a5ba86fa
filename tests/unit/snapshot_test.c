#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <ifaddrs.h>
#include <sys/socket.h>

#include "modules/snapshot.h"

static struct relay_address address(const char *text)
{
    struct relay_address result;
    assert_int_equal(relay_address_parse(text, strlen(text), &result), 0);
    return result;
}

static bool is_own(const char *text, uint16_t port, enum relay_transport transport)
{
    const struct relay_address target = address(text);
    return relay_own_listener_is(NULL, &target, port, transport);
}

static void own_listeners_are_known_at_every_own_address(void **state)
{
    const struct relay_address one = address("127.0.0.1"), any = address("0.0.0.0");
    assert_false(is_own("127.0.0.1", 9100, RELAY_TRANSPORT_TCP));
    relay_own_listener_add(&one, 9100, false);
    relay_own_listener_add(&any, 443, true);
    assert_true(is_own("127.0.0.1", 9100, RELAY_TRANSPORT_TCP));
    assert_true(is_own("::ffff:127.0.0.1", 9100, RELAY_TRANSPORT_TCP));
    assert_true(is_own("0.0.0.0", 9100, RELAY_TRANSPORT_TCP));
    assert_false(is_own("127.0.0.2", 9100, RELAY_TRANSPORT_TCP));
    assert_false(is_own("127.0.0.1", 9100, RELAY_TRANSPORT_UDP));
    assert_false(is_own("127.0.0.1", 9101, RELAY_TRANSPORT_TCP));

    assert_true(is_own("127.0.0.1", 443, RELAY_TRANSPORT_UDP));
    assert_true(is_own("127.9.9.9", 443, RELAY_TRANSPORT_UDP));
    assert_true(is_own("::ffff:127.0.0.1", 443, RELAY_TRANSPORT_UDP));
    assert_true(is_own("0.0.0.0", 443, RELAY_TRANSPORT_UDP));
    assert_false(is_own("127.0.0.1", 443, RELAY_TRANSPORT_TCP));
    assert_false(is_own("192.0.2.1", 443, RELAY_TRANSPORT_UDP));
    assert_false(is_own("8.8.8.8", 443, RELAY_TRANSPORT_UDP));
}

/* Whatever addresses this machine has. */
static void a_wildcard_listener_is_at_each_interface(void **state)
{
    struct ifaddrs *list = NULL;
    assert_int_equal(getifaddrs(&list), 0);
    for (struct ifaddrs *i = list; i != NULL; i = i->ifa_next) {
        struct sockaddr_storage sockaddr = {0};
        struct relay_address own;
        if (i->ifa_addr == NULL || i->ifa_addr->sa_family != AF_INET)
            continue;
        memcpy(&sockaddr, i->ifa_addr, sizeof(struct sockaddr_in));
        assert_int_equal(relay_address_from_sockaddr(&own, NULL, &sockaddr), 0);
        assert_true(relay_own_listener_is(NULL, &own, 443, RELAY_TRANSPORT_UDP));
    }
    freeifaddrs(list);
}

static void the_last_reference_frees(void **state)
{
    struct relay_snapshot *snapshot = relay_snapshot_new();
    assert_non_null(snapshot);
    assert_ptr_equal(relay_snapshot_ref(snapshot), snapshot);
    relay_snapshot_unref(snapshot);
    assert_int_equal(snapshot->limits.max_streams, 100);
    relay_snapshot_unref(snapshot);
    relay_snapshot_unref(NULL);
}

static void the_tokens_go_with_who_judges_by_them(void **state)
{
    static const char line[] = "alice 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n";
    struct relay_token_file_error fault;
    struct relay_snapshot *snapshot = relay_snapshot_new(); /* a tunnel's */
    assert_non_null(snapshot);
    assert_int_equal(relay_token_file_parse(&snapshot->tokens, line, strlen(line), &fault), 0);
    assert_ptr_equal(relay_snapshot_adopt(snapshot), snapshot);
    relay_snapshot_adopt(snapshot);
    relay_snapshot_retire(snapshot);
    assert_int_equal(snapshot->tokens.count, 1);
    relay_snapshot_retire(snapshot);
    assert_int_equal(snapshot->tokens.count, 0);
    assert_null(snapshot->tokens.entries);
    assert_int_equal(snapshot->limits.max_streams, 100);
    relay_snapshot_unref(snapshot);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(own_listeners_are_known_at_every_own_address),
        cmocka_unit_test(a_wildcard_listener_is_at_each_interface),
        cmocka_unit_test(the_last_reference_frees),
        cmocka_unit_test(the_tokens_go_with_who_judges_by_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
