/* What of the peer's handshake messages reaches GnuTLS. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "lib/net/quic_tls_session.h"

#define INITIAL   NGTCP2_ENCRYPTION_LEVEL_INITIAL
#define HANDSHAKE NGTCP2_ENCRYPTION_LEVEL_HANDSHAKE
#define ONE_RTT   NGTCP2_ENCRYPTION_LEVEL_1RTT

static char name[] = "relay.example";

struct part {
    ngtcp2_encryption_level level;
    uint8_t bytes[12];
    size_t len; /* 0: no more */
};

struct row {
    bool is_client;
    struct part parts[4];
    bool is_admitted; /* the last part; those before it are */
};

static const struct row rows[] = {
    /* A server: ClientHello, Finished. */
    {false, {{INITIAL, {1, 0, 0, 2, 'x', 'x'}, 6}, {HANDSHAKE, {20, 0, 0, 1, 'x'}, 5}}, true},
    /* After it: nothing. */
    {false, {{HANDSHAKE, {20, 0, 0, 1, 'x'}, 5}, {ONE_RTT, {24, 0, 0, 1, 0}, 5}}, false},
    {false, {{HANDSHAKE, {20, 0, 0, 1, 'x'}, 5}, {ONE_RTT, {4, 0, 0, 1, 0}, 5}}, false},
    {false, {{ONE_RTT, {20, 0, 0}, 3}, {ONE_RTT, {1}, 1}}, false},
    /* KeyUpdate at once behind Finished, also in pieces. */
    {false, {{HANDSHAKE, {20, 0, 0, 1, 'x', 24, 0, 0, 1, 0}, 10}}, false},
    {false, {{HANDSHAKE, {20, 0, 0, 1, 'x', 24}, 6}, {HANDSHAKE, {0, 0}, 2}, {HANDSHAKE, {1}, 1}}, false},
    {false, {{INITIAL, {24, 0, 0, 1}, 4}}, false},
    /* An empty message, and the byte 24 inside of one. */
    {false, {{INITIAL, {1, 0, 0, 0, 1, 0, 0, 1, 24}, 9}, {INITIAL, {1, 0, 0, 1, 24}, 5}}, true},
    /* A message goes on at another level (RFC 9001 section 4.1.3). */
    {false, {{INITIAL, {1, 0, 0, 2, 'x'}, 5}, {HANDSHAKE, {20, 0, 0, 1, 'x'}, 5}}, false},
    {false, {{INITIAL, {1, 0}, 2}, {HANDSHAKE, {20, 0, 0, 1, 'x'}, 5}}, false},
    /* A client: tickets alone. */
    {true,
     {{HANDSHAKE, {8, 0, 0, 1, 'x', 20, 0, 0, 1, 'x'}, 10}, {ONE_RTT, {4, 0, 0, 1, 0, 4, 0, 0, 1, 0}, 10}},
     true},
    {true, {{ONE_RTT, {4, 0, 0, 1, 0, 24, 0, 0, 1, 0}, 10}}, false},
    {true, {{ONE_RTT, {13, 0, 0, 1}, 4}}, false},
    {true, {{HANDSHAKE, {24, 0, 0, 1}, 4}}, false},
};

static void test_messages(void **state)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct relay_quic_tls tls = {.server_name = rows[i].is_client ? name : NULL};
        for (size_t k = 0; k < 4 && rows[i].parts[k].len > 0; k++) {
            const struct part *part = &rows[i].parts[k];
            bool is_last = k == 3 || part[1].len == 0;
            bool admitted = relay_quic_tls_admit(&tls, part->level, part->bytes, part->len);
            if (admitted != (is_last ? rows[i].is_admitted : true))
                fail_msg("row %zu, part %zu", i, k);
        }
    }
}

static void test_size(void **state)
{
    struct relay_quic_tls tls = {.server_name = NULL};
    static uint8_t bytes[65537] = {1, 1, 0, 0};
    assert_true(relay_quic_tls_admit(&tls, INITIAL, bytes, 65536));
    assert_false(relay_quic_tls_admit(&tls, INITIAL, bytes, 1));
    tls = (struct relay_quic_tls){.server_name = NULL};
    assert_false(relay_quic_tls_admit(&tls, INITIAL, bytes, sizeof(bytes)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_messages), cmocka_unit_test(test_size)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
