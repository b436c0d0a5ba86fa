/* Heads of the HTTP/3 session. */
#include "tests/unit/http3_fixture.h"

struct head_row {
    const char *method, *scheme, *authority, *path, *protocol, *name, *value;
    bool is_good;
};

static void test_heads(void **state)
{
    static const struct head_row rows[] = {
        {"GET", "https", "a", "/", NULL, NULL, NULL, true},
        {"GET", "https", "a", "*", NULL, NULL, NULL, false},
        {"OPTIONS", "https", "a", "*", NULL, NULL, NULL, true},
        {"GET", "https", "a", "x", NULL, NULL, NULL, false},
        {"GET", "https", "a", "", NULL, NULL, NULL, false},
        {"GET", "https", "a", "/\x01", NULL, NULL, NULL, false},
        {"GET", "https", NULL, "/", NULL, NULL, NULL, false},
        {"GET", "https", NULL, "/", NULL, "host", "a", true},
        {"GET", "https", "a", "/", NULL, "host", "b", false},
        {"GET", NULL, "a", "/", NULL, NULL, NULL, false},
        {"GET", "https", "a", NULL, NULL, NULL, NULL, false},
        {"G T", "https", "a", "/", NULL, NULL, NULL, false},
        {NULL, "https", "a", "/", NULL, NULL, NULL, false},
        {"GET", "https", "a", "/", "connect-udp", NULL, NULL, false},
        {"CONNECT", NULL, "a:1", NULL, NULL, NULL, NULL, true},
        {"CONNECT", "https", "a:1", NULL, NULL, NULL, NULL, false},
        {"CONNECT", NULL, "a:1", "/", NULL, NULL, NULL, false},
        {"CONNECT", NULL, NULL, NULL, NULL, NULL, NULL, false},
        {"CONNECT", "https", "a", "/", "connect-udp", NULL, NULL, true},
        {"CONNECT", "http", "a", "/", "connect-udp", NULL, NULL, false},
        {"CONNECT", "https", "a", NULL, "connect-udp", NULL, NULL, false},
        {"CONNECT", NULL, "a", "/", "connect-udp", NULL, NULL, false},
        {"CONNECT", "https", NULL, "/", "connect-udp", NULL, NULL, false},
        {"CONNECT", "https", "a", "/", "connect-udp", "content-length", "0", false},
        {"CONNECT", "https", "a", "/", "connect-udp", "content-type", "text/plain", false},
        {"CONNECT", "https", "a", "/", "connect-udp", "capsule-protocol", "?1", true},
        {"GET", "https", "a", "/", NULL, "connection", "close", false},
        {"GET", "https", "a", "/", NULL, "transfer-encoding", "chunked", false},
        {"GET", "https", "a", "/", NULL, "te", "gzip", false},
        {"GET", "https", "a", "/", NULL, "te", "trailers", true},
        {"GET", "https", "a", "/", NULL, ":path", "/again", false},
        {"GET", "https", "a", "/", NULL, ":new", "x", false},
        {"GET", "https", "a", "/", NULL, "content-length", "x", false},
    };
    join();
    behaviour = REFUSES;
    size_t good = 0;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct head_row *row = &rows[i];
        struct relay_field field = {relay_slice(row->name), relay_slice(row->value)};
        struct relay_request request = {.method = relay_slice(row->method),
                                        .scheme = relay_slice(row->scheme),
                                        .authority = relay_slice(row->authority),
                                        .path = relay_slice(row->path),
                                        .protocol = relay_slice(row->protocol),
                                        .fields = &field,
                                        .num_fields = row->name != NULL,
                                        .content_length = -1,
                                        .ends = true};
        uint64_t before = metrics.malformed;
        assert_non_null(open_request(request, 0));
        assert_true(run_until(first_closed));
        if ((clients[0].status == 403) != row->is_good)
            fail_msg("row %zu: status %d", i, clients[0].status);
        good += row->is_good;
        assert_int_equal(num_server, good);
        assert_int_equal(metrics.malformed, before + !row->is_good);
        if (!row->is_good)
            assert_int_equal(fake_client->last_reset, 0x10e);
    }
}

static void test_big_heads(void **state)
{
    join();
    static struct relay_field fields[101];
    for (size_t i = 0; i < 101; i++)
        fields[i] = (struct relay_field){RELAY_SLICE("cookie"), RELAY_SLICE("a=b")};
    behaviour = REFUSES;
    struct relay_request request = make(RELAY_KIND_MESSAGE);
    request.fields = fields;
    request.num_fields = 96; /* and four pseudo-headers */
    open_request(request, 0);
    assert_true(run_until(first_closed));
    assert_int_equal(clients[0].status, 403);
    assert_int_equal(server_ends[0]->num_fields, 96);
    request.num_fields = 97;
    open_request(request, 0);
    assert_true(run_until(first_closed));
    assert_int_equal(clients[0].status, 431);
    static char big[17000];
    memset(big, 'x', sizeof(big));
    fields[0].value = (struct relay_slice){big, sizeof(big)};
    request.num_fields = 1;
    request.ends = false;
    open_request(request, 0);
    assert_true(run_until(first_closed));
    assert_int_equal(clients[0].status, 431);
    assert_int_equal(num_server, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_heads),
        TEST(test_big_heads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
