#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <cmocka.h>

#include "lib/net/quic_memory.h"

static struct relay_quic_memory *memory;

static struct sockaddr *at(const char *text, uint16_t port)
{
    static struct sockaddr_storage address;
    memset(&address, 0, sizeof(address));
    address.ss_family = strchr(text, ':') != NULL ? AF_INET6 : AF_INET;
    if (address.ss_family == AF_INET6)
        inet_pton(AF_INET6, text, &((struct sockaddr_in6 *)&address)->sin6_addr);
    else
        inet_pton(AF_INET, text, &((struct sockaddr_in *)&address)->sin_addr);
    ((struct sockaddr_in *)&address)->sin_port = htons(port);
    return (struct sockaddr *)&address;
}

static void check(enum relay_quic_memory_kind kind, const char *local, const char *expected)
{
    size_t len;
    uint8_t *bytes = relay_quic_memory_take(memory, kind, at(local, 9), &len);
    assert_int_equal(len, expected == NULL ? 0 : strlen(expected));
    if (expected == NULL)
        assert_null(bytes);
    else
        assert_memory_equal(bytes, expected, len);
    free(bytes);
}

static void keep(enum relay_quic_memory_kind kind, const char *local, const char *text)
{
    relay_quic_memory_keep(memory, kind, at(local, 7), text, strlen(text));
}

static int setup(void **state)
{
    memory = relay_quic_memory_new();
    return memory == NULL;
}

static int teardown(void **state)
{
    relay_quic_memory_unref(memory);
    return 0;
}

static void test_once(void **state)
{
    check(RELAY_QUIC_TOKEN, "192.0.2.1", NULL);
    keep(RELAY_QUIC_TOKEN, "192.0.2.1", "old");
    keep(RELAY_QUIC_TOKEN, "192.0.2.1", "token");
    keep(RELAY_QUIC_TICKET, "192.0.2.1", "ticket");
    check(RELAY_QUIC_TOKEN, "192.0.2.1", "token");
    check(RELAY_QUIC_TOKEN, "192.0.2.1", NULL);
    check(RELAY_QUIC_TICKET, "192.0.2.1", "ticket");
    check(RELAY_QUIC_TICKET, "192.0.2.1", NULL);
}

static void test_another_network(void **state)
{
    keep(RELAY_QUIC_TOKEN, "192.0.2.1", "token");
    keep(RELAY_QUIC_TICKET, "192.0.2.1", "ticket");
    check(RELAY_QUIC_TOKEN, "192.0.2.2", NULL);
    check(RELAY_QUIC_TOKEN, "192.0.2.1", NULL);
    check(RELAY_QUIC_TICKET, "192.0.2.1", NULL);
    keep(RELAY_QUIC_TOKEN, "2001:db8::1", "token");
    check(RELAY_QUIC_TOKEN, "192.0.2.1", NULL);
    keep(RELAY_QUIC_TOKEN, "2001:db8::1", "token");
    check(RELAY_QUIC_TOKEN, "2001:db8::1", "token");
    /* What is learnt at the new address is not mixed with what was learnt before. */
    keep(RELAY_QUIC_TICKET, "192.0.2.1", "ticket");
    keep(RELAY_QUIC_TOKEN, "192.0.2.2", "token");
    check(RELAY_QUIC_TICKET, "192.0.2.2", NULL);
}

static void test_limits(void **state)
{
    static uint8_t bytes[RELAY_QUIC_MEMORY_MAX + 1];
    size_t len;
    keep(RELAY_QUIC_TOKEN, "192.0.2.1", "token");
    relay_quic_memory_keep(memory, RELAY_QUIC_TOKEN, at("192.0.2.1", 1), bytes, sizeof(bytes));
    check(RELAY_QUIC_TOKEN, "192.0.2.1", NULL);
    relay_quic_memory_keep(NULL, RELAY_QUIC_TOKEN, at("192.0.2.1", 1), bytes, 1);
    assert_null(relay_quic_memory_take(NULL, RELAY_QUIC_TOKEN, at("192.0.2.1", 1), &len));
    assert_null(relay_quic_memory_ref(NULL));
    relay_quic_memory_unref(NULL);
    assert_ptr_equal(relay_quic_memory_ref(memory), memory);
    relay_quic_memory_unref(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_another_network, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
