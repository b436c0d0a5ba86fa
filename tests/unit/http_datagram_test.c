#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "lib/wire/error.h"
#include "lib/wire/http_datagram.h"

static void context_id_then_payload(void **state)
{
    static const uint8_t udp[] = {0x00, 'a', 'b'}, empty[] = {0x00}, other[] = {0x40, 0x40, 'x'};
    uint64_t context_id = 9;
    assert_int_equal(relay_http_datagram_read(udp, sizeof(udp), &context_id), 1);
    assert_int_equal(context_id, RELAY_CONTEXT_PAYLOAD);
    assert_int_equal(relay_http_datagram_read(empty, sizeof(empty), &context_id), sizeof(empty));
    assert_int_equal(relay_http_datagram_read(other, sizeof(other), &context_id), 2);
    assert_int_equal(context_id, 64);
}

static void cut_context_ids_are_malformed(void **state)
{
    static const uint8_t cut[] = {0xc0, 0, 0, 0, 0, 0, 0};
    uint64_t context_id = 9;
    for (size_t len = 0; len <= sizeof(cut); len++)
        assert_int_equal(relay_http_datagram_read(cut, len, &context_id), 0);
    assert_int_equal(context_id, 9);
}

static void written_context_ids_are_read_back(void **state)
{
    static const uint64_t ids[] = {0, 63, 64, 16384, UINT64_C(1) << 40};
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        uint8_t bytes[RELAY_HTTP_DATAGRAM_HEAD_MAX];
        uint64_t context_id;
        size_t size = (size_t)(relay_http_datagram_write(bytes, ids[i]) - bytes);
        assert_int_equal(relay_http_datagram_read(bytes, size, &context_id), size);
        assert_int_equal(context_id, ids[i]);
    }
}

static void quarter_stream_ids(void **state)
{
    static const int64_t ids[] = {0, 4, 252, 256, 4 * (int64_t)RELAY_QUARTER_STREAM_ID_MAX};
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        uint8_t bytes[RELAY_HTTP_DATAGRAM_HEAD_MAX];
        int64_t stream_id = -1;
        size_t size = (size_t)(relay_quarter_stream_id_write(bytes, ids[i]) - bytes);
        assert_int_equal(relay_quarter_stream_id_size(ids[i]), size);
        for (size_t cut = 0; cut < size; cut++)
            assert_int_equal(relay_quarter_stream_id_read(bytes, cut, &stream_id), RELAY_ERR_INCOMPLETE);
        assert_int_equal(stream_id, -1);
        assert_int_equal(relay_quarter_stream_id_read(bytes, size, &stream_id), size);
        assert_int_equal(stream_id, ids[i]);
    }
}

static void quarter_stream_ids_beyond_the_bound(void **state)
{
    static const uint8_t first_bad[] = {0xd0, 0, 0, 0, 0, 0, 0, 0},
                         last[] = {0xff, 255, 255, 255, 255, 255, 255, 255};
    int64_t stream_id = -1;
    assert_int_equal(relay_quarter_stream_id_read(first_bad, 8, &stream_id), RELAY_ERR_INVALID);
    assert_int_equal(relay_quarter_stream_id_read(last, 8, &stream_id), RELAY_ERR_INVALID);
    assert_int_equal(stream_id, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(context_id_then_payload),
        cmocka_unit_test(cut_context_ids_are_malformed),
        cmocka_unit_test(written_context_ids_are_read_back),
        cmocka_unit_test(quarter_stream_ids),
        cmocka_unit_test(quarter_stream_ids_beyond_the_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
