#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include <stdlib.h>

#include "lib/wire/capsule.h"
#include "lib/wire/error.h"

/* What came out of the parser, as text: "type:payload;" per capsule. Long payloads show as "type:#length;".
 */
struct log {
    char text[512];
    int stop_after; /* answer 1 after so many capsules; 0 never */
    int error;      /* answer this */
    int count;
};

static int64_t limit(void *user, uint64_t type)
{
    if (type == RELAY_CAPSULE_DATAGRAM)
        return RELAY_DATAGRAM_CAPSULE_MAX;
    return type <= RELAY_CAPSULE_ROUTE_ADVERTISEMENT ? RELAY_CONTROL_CAPSULE_MAX : RELAY_CAPSULE_SKIP;
}

static int on_capsule(void *user, uint64_t type, const uint8_t *payload, size_t len)
{
    struct log *log = user;
    size_t at = strlen(log->text);
    assert_non_null(payload);
    if (len > 16)
        snprintf(log->text + at, sizeof(log->text) - at, "%u:#%zu;", (unsigned)type, len);
    else
        snprintf(log->text + at, sizeof(log->text) - at, "%u:%.*s;", (unsigned)type, (int)len,
                 (const char *)payload);
    log->count++;
    return log->error != 0 ? log->error : log->count == log->stop_after;
}

static const struct relay_capsule_sink sink = {limit, on_capsule};

/* Feeds `len` bytes in pieces of `piece`, each an allocation of its own so that ASan sees a read beyond it.
 */
static int feed_in_pieces(struct relay_capsule_parser *parser, const void *bytes, size_t len, size_t piece)
{
    int rv = 0;
    for (size_t at = 0; at < len && rv == 0; at += piece) {
        size_t size = len - at < piece ? len - at : piece, consumed;
        uint8_t *copy = malloc(size);
        memcpy(copy, (const uint8_t *)bytes + at, size);
        rv = relay_capsule_parser_feed(parser, copy, size, &consumed);
        if (rv == 0)
            assert_int_equal(consumed, size);
        free(copy);
    }
    return rv;
}

#define H8(last) "\xc0\0\0\0\0\0\0" last

static void streams_of_capsules(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        const char *expected;
        int finish;
    } rows[] = {
#define ROW(text, expected, finish) {text, sizeof(text) - 1, expected, finish}
        ROW("", "", 0),
        ROW("\0\0", "0:;", 0),
        ROW("\0\3abc", "0:abc;", 0),
        ROW("\0\1a\0\1b\1\2cd", "0:a;0:b;1:cd;", 0),
        ROW("\x40\0\x40\3abc", "0:abc;", 0),         /* non-minimal */
        ROW(H8("\0") H8("\3") "abc", "0:abc;", 0),   /* the longest head */
        ROW("\x17\3xyz\0\1a", "0:a;", 0),            /* a reserved type: 41 * n + 23 */
        ROW("\x3f\0\0\1a", "0:a;", 0),               /* unknown and empty */
        ROW("\x80\xff\xe4\xa0\2xy\0\1a", "0:a;", 0), /* unknown type of four bytes */
        ROW("\0", "", RELAY_ERR_INCOMPLETE),         /* cut inside the head */
        ROW("\0\x40", "", RELAY_ERR_INCOMPLETE),     /* ... inside a varint of it */
        ROW("\0\3ab", "", RELAY_ERR_INCOMPLETE),     /* length beyond the end of the stream */
        ROW("\0\3", "", RELAY_ERR_INCOMPLETE),       /* no payload at all */
        ROW("\x17\3xy", "", RELAY_ERR_INCOMPLETE),   /* inside one that is skipped */
        ROW("\x17\xff\xff\xff\xff\xff\xff\xff\xff"
            "abc",
            "", RELAY_ERR_INCOMPLETE), /* 2^62-1, skipped */
#undef ROW
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (size_t piece = 1; piece <= rows[i].len + 1; piece++) {
            struct log log = {0};
            struct relay_capsule_parser parser;
            relay_capsule_parser_init(&parser, &sink, &log);
            assert_int_equal(feed_in_pieces(&parser, rows[i].bytes, rows[i].len, piece), 0);
            assert_string_equal(log.text, rows[i].expected);
            assert_int_equal(relay_capsule_parser_finish(&parser), rows[i].finish);
            relay_capsule_parser_dispose(&parser);
            relay_capsule_parser_dispose(&parser);
        }
    }
}

static void over_the_limit(void **state)
{
    static const struct {
        uint64_t type, length;
        int expected;
    } rows[] = {
        {RELAY_CAPSULE_DATAGRAM, RELAY_DATAGRAM_CAPSULE_MAX, 0},
        {RELAY_CAPSULE_DATAGRAM, RELAY_DATAGRAM_CAPSULE_MAX + 1, RELAY_ERR_TOO_BIG},
        {RELAY_CAPSULE_DATAGRAM, (UINT64_C(1) << 62) - 1, RELAY_ERR_TOO_BIG},
        {RELAY_CAPSULE_ADDRESS_ASSIGN, RELAY_CONTROL_CAPSULE_MAX, 0},
        {RELAY_CAPSULE_ADDRESS_ASSIGN, RELAY_CONTROL_CAPSULE_MAX + 1, RELAY_ERR_TOO_BIG},
        {0x17, (UINT64_C(1) << 62) - 1, 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct log log = {0};
        struct relay_capsule_parser parser;
        uint8_t head[RELAY_CAPSULE_HEAD_MAX];
        size_t len = (size_t)(relay_capsule_write_head(head, rows[i].type, rows[i].length) - head);
        relay_capsule_parser_init(&parser, &sink, &log);
        assert_int_equal(feed_in_pieces(&parser, head, len, 1), rows[i].expected);
        assert_null(parser.buffer);
        /* The answer stays, whatever comes. */
        assert_int_equal(feed_in_pieces(&parser, "\0\0", 2, 2), rows[i].expected);
        assert_int_equal(relay_capsule_parser_finish(&parser),
                         rows[i].expected != 0 ? rows[i].expected : RELAY_ERR_INCOMPLETE);
        relay_capsule_parser_dispose(&parser);
    }
}

static void memory_follows_the_bytes_that_came(void **state)
{
    struct log log = {0};
    struct relay_capsule_parser parser;
    uint8_t *bytes = calloc(1, RELAY_CAPSULE_HEAD_MAX + RELAY_DATAGRAM_CAPSULE_MAX);
    size_t head = (size_t)(relay_capsule_write_head(bytes, 0, RELAY_DATAGRAM_CAPSULE_MAX) - bytes);
    size_t len = head + RELAY_DATAGRAM_CAPSULE_MAX, came = 0, consumed;
    relay_capsule_parser_init(&parser, &sink, &log);
    assert_int_equal(feed_in_pieces(&parser, bytes, head, 1), 0);
    assert_null(parser.buffer);
    for (size_t at = head; at < len - 1; at++) {
        assert_int_equal(relay_capsule_parser_feed(&parser, bytes + at, 1, &consumed), 0);
        came++;
        assert_true(parser.capacity >= came && parser.capacity <= 2 * came + 128);
        assert_true(parser.capacity <= RELAY_DATAGRAM_CAPSULE_MAX);
    }
    assert_string_equal(log.text, "");
    assert_int_equal(relay_capsule_parser_feed(&parser, bytes + len - 1, 1, &consumed), 0);
    assert_string_equal(log.text, "0:#65535;");
    assert_null(parser.buffer);
    assert_int_equal(relay_capsule_parser_finish(&parser), 0);
    relay_capsule_parser_dispose(&parser);
    free(bytes);
}

static void a_whole_capsule_is_not_copied(void **state)
{
    static const uint8_t bytes[] = {0, 3, 'a', 'b', 'c', 0, 3, 'd'};
    struct log log = {0};
    size_t consumed;
    struct relay_capsule_parser parser;
    relay_capsule_parser_init(&parser, &sink, &log);
    assert_int_equal(relay_capsule_parser_feed(&parser, bytes, 5, &consumed), 0);
    assert_null(parser.buffer);
    assert_int_equal(relay_capsule_parser_feed(&parser, bytes + 5, 3, &consumed), 0);
    assert_non_null(parser.buffer);
    assert_int_equal(parser.capacity, 3);
    relay_capsule_parser_dispose(&parser);
    assert_null(parser.buffer);
}

static void the_sink_can_stop_anywhere(void **state)
{
    static const uint8_t bytes[] = "\0\1a\0\1b\x17\2xx\0\1c";
    const size_t len = sizeof(bytes) - 1;
    for (size_t first = 0; first <= len; first++) { /* in two pieces, so that cut capsules stop too */
        struct log log = {.stop_after = 1};
        struct relay_capsule_parser parser;
        relay_capsule_parser_init(&parser, &sink, &log);
        size_t at = 0, end = first, stops = 0;
        while (at < len) {
            size_t consumed = 0;
            assert_int_equal(relay_capsule_parser_feed(&parser, bytes + at, end - at, &consumed), 0);
            at += consumed;
            if (log.count == log.stop_after) {
                stops++;
                log.stop_after++;
            } else {
                assert_int_equal(at, end); /* it stops for nothing else */
            }
            if (at == end)
                end = len;
        }
        assert_int_equal(stops, 3);
        assert_string_equal(log.text, "0:a;0:b;0:c;");
        assert_int_equal(relay_capsule_parser_finish(&parser), 0);
        relay_capsule_parser_dispose(&parser);
    }
}

static void an_error_of_the_sink_is_final(void **state)
{
    struct log log = {.error = RELAY_ERR_DENIED};
    struct relay_capsule_parser parser;
    size_t consumed = 0;
    relay_capsule_parser_init(&parser, &sink, &log);
    assert_int_equal(relay_capsule_parser_feed(&parser, (const uint8_t *)"\0\1a\0\1b", 6, &consumed),
                     RELAY_ERR_DENIED);
    log.error = 0;
    assert_int_equal(relay_capsule_parser_feed(&parser, (const uint8_t *)"\0\1b", 3, &consumed),
                     RELAY_ERR_DENIED);
    assert_string_equal(log.text, "0:a;");
    assert_int_equal(relay_capsule_parser_finish(&parser), RELAY_ERR_DENIED);
    relay_capsule_parser_dispose(&parser);
}

/* Nobody may be kept waiting by capsules of two bytes: it stops by itself, also among those that are skipped. */
static void many_small_capsules_in_one_piece(void **state)
{
    enum { COUNT = 10000 };
    static uint8_t bytes[2 * COUNT];
    for (int type = 0; type <= 0x17; type += 0x17) {
        struct log log = {0};
        struct relay_capsule_parser parser;
        size_t feeds = 0;
        for (size_t at = 0; at < sizeof(bytes); at += 2)
            bytes[at] = (uint8_t)type;
        relay_capsule_parser_init(&parser, &sink, &log);
        for (size_t at = 0, consumed; at < sizeof(bytes); at += consumed) {
            log.text[0] = '\0';
            assert_int_equal(relay_capsule_parser_feed(&parser, bytes + at, sizeof(bytes) - at, &consumed),
                             0);
            assert_true(consumed > 0 && consumed <= 2 * RELAY_CAPSULES_AT_ONCE);
            feeds++;
        }
        assert_int_equal(log.count, type == 0 ? COUNT : 0);
        assert_int_equal(feeds, (COUNT + RELAY_CAPSULES_AT_ONCE - 1) / RELAY_CAPSULES_AT_ONCE);
        relay_capsule_parser_dispose(&parser);
    }
}

static void heads_are_written_shortest(void **state)
{
    uint8_t head[RELAY_CAPSULE_HEAD_MAX];
    assert_int_equal(relay_capsule_write_head(head, 0, 1200) - head, 3);
    assert_memory_equal(head, "\x00\x44\xb0", 3);
    assert_int_equal(relay_capsule_write_head(head, (UINT64_C(1) << 62) - 1, (UINT64_C(1) << 62) - 1) - head,
                     16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_of_capsules),
        cmocka_unit_test(over_the_limit),
        cmocka_unit_test(memory_follows_the_bytes_that_came),
        cmocka_unit_test(a_whole_capsule_is_not_copied),
        cmocka_unit_test(the_sink_can_stop_anywhere),
        cmocka_unit_test(an_error_of_the_sink_is_final),
        cmocka_unit_test(many_small_capsules_in_one_piece),
        cmocka_unit_test(heads_are_written_shortest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
