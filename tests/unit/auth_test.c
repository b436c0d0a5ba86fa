/* The token check as the HTTP peer and the next handler see it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <openssl/evp.h>

#include "lib/wire/error.h"
#include "modules/auth.h"
#include "tests/unit/support/loopback.h"

static struct loopback loopback;
/* What the handler behind auth saw of the last request. */
static char token_seen[80];
static bool has_seen_secret;
static unsigned passed;

static int behind(h2o_handler_t *self, h2o_req_t *req)
{
    const struct relay_request *head = relay_request_of(req);
    const char *token = relay_auth_token_of(req);
    snprintf(token_seen, sizeof(token_seen), "%s", token != NULL ? token : "");
    has_seen_secret = h2o_find_header_by_str(&req->headers, H2O_STRLIT("authorization"), -1) != -1 ||
                      h2o_find_header_by_str(&req->headers, H2O_STRLIT("proxy-authorization"), -1) != -1;
    for (size_t i = 0; i < head->num_fields; i++)
        has_seen_secret |= memmem(head->fields[i].value.base, head->fields[i].value.len, "secret", 6) != NULL;
    passed++;
    if (head->kind == RELAY_KIND_MESSAGE)
        return -1;
    relay_tunnel_attach(relay_tunnel_of(req), NULL, NULL);
    relay_tunnel_accept(relay_tunnel_of(req), NULL, 0);
    return 0;
}

static void add_token(char *file, size_t size, const char *name, const char *secret, const char *options)
{
    uint8_t digest[32];
    assert_int_equal(EVP_Digest(secret, strlen(secret), digest, NULL, EVP_sha256(), NULL), 1);
    size_t len = strlen(file);
    len += (size_t)snprintf(file + len, size - len, "%s ", name);
    for (size_t i = 0; i < sizeof(digest); i++)
        len += (size_t)snprintf(file + len, size - len, "%02x", digest[i]);
    snprintf(file + len, size - len, " %s\n", options);
}

static int setup(void **state)
{
    char file[1024] = "";
    struct relay_token_file_error error;
    add_token(file, sizeof(file), "alice", "alice-secret", "");
    add_token(file, sizeof(file), "bob", "bob-secret", "expires=2001-01-01");
    add_token(file, sizeof(file), "bob2", "bob-secret-2", "expires=2999-01-01");
    loopback_init(&loopback);
    loopback.snapshot->auth_off = false;
    assert_int_equal(relay_token_file_parse(&loopback.snapshot->tokens, file, strlen(file), &error), 0);
    relay_auth_register(loopback.path);
    h2o_handler_t *handler = h2o_create_handler(loopback.path, sizeof(*handler));
    handler->on_req = behind;
    loopback_start(&loopback);
    passed = 0;
    return 0;
}

static int teardown(void **state)
{
    loopback_dispose(&loopback);
    return 0;
}

static struct loopback_stream *ask(const char *protocol, const char *fields)
{
    struct loopback_stream *stream =
        loopback_request(&loopback, protocol, protocol != NULL ? "/x" : "h.example:443", fields);
    loopback_turn(&loopback);
    return stream;
}

static void test_forms(void **state)
{
    static const struct {
        const char *protocol, *fields;
        int status;
        const char *token;
    } rows[] = {
        {NULL, "proxy-authorization: Bearer alice-secret", 200, "alice"},
        {"connect-udp", "authorization: Bearer alice-secret", 200, "alice"},
        {"connect-udp", "proxy-authorization: bearer alice-secret", 200, "alice"},
        {NULL, "proxy-authorization: Basic YWxpY2U6YWxpY2Utc2VjcmV0", 200, "alice"},
        {NULL, "proxy-authorization: PrivacyToken token=alice-secret", 200, "alice"},
        {NULL, "proxy-authorization: Preshared bob-secret-2", 200, "bob2"},
        {NULL, "x: y\nauthorization: Bearer wrong\nproxy-authorization: Bearer alice-secret\nz: w", 200,
         "alice"},
        {NULL, NULL, 407, NULL},
        {"connect-udp", NULL, 401, NULL},
        {NULL, "proxy-authorization: Bearer Alice-secret", 407, NULL},
        {NULL, "proxy-authorization: Bearer bob-secret", 407, NULL},
        {"connect-udp", "proxy-authorization: Digest alice-secret", 401, NULL},
        {NULL, "proxy-authorization: Bearer", 407, NULL},
        {NULL, "proxy-authorization: Basic !!!", 407, NULL},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        unsigned before = passed;
        struct loopback_stream *stream = ask(rows[i].protocol, rows[i].fields);
        assert_int_equal(stream->status, rows[i].status);
        assert_int_equal(passed, before + (rows[i].token != NULL));
        if (rows[i].token != NULL)
            assert_string_equal(token_seen, rows[i].token);
        assert_false(has_seen_secret);
        assert_int_equal(stream->len, 0);
    }
    assert_true(loopback.session.is_authenticated);
    assert_int_equal(loopback.max_streams, 1000);
    assert_int_equal(loopback.metrics.auth_ok, 7);
    assert_int_equal(loopback.metrics.auth_missing, 3);
    assert_int_equal(loopback.metrics.auth_bad, 4);
}

static void test_same_answer(void **state)
{
    struct loopback_stream *none = ask(NULL, NULL), *wrong = ask(NULL, "proxy-authorization: Bearer wrong");
    /* The first line is the date. */
    assert_string_equal(strchr(none->head, '\n'), strchr(wrong->head, '\n'));
    assert_false(loopback.session.is_authenticated);
}

static void test_ordinary_requests_need_none(void **state)
{
    assert_int_equal(ask("GET", "authorization: Bearer secret")->status, 404);
    assert_int_equal(passed, 1);
    assert_false(has_seen_secret);
    loopback.snapshot->auth_off = true;
    assert_int_equal(ask(NULL, "proxy-authorization: Bearer some-secret")->status, 200);
    assert_false(has_seen_secret);
    assert_string_equal(token_seen, "");
}

static void test_limit_per_source(void **state)
{
    for (int i = 0; i < 15; i++)
        assert_int_equal(ask(NULL, NULL)->status, 407); /* no token is no attempt */
    for (int i = 0; i < 10; i++)
        assert_int_equal(ask(NULL, "proxy-authorization: Bearer wrong")->status, 407);
    assert_false(loopback.is_shut_down);
    struct loopback_stream *over = ask(NULL, "proxy-authorization: Bearer wrong");
    assert_int_equal(over->status, 429);
    assert_non_null(loopback_field(over, "retry-after"));
    assert_true(loopback.is_shut_down);
    assert_int_equal(ask(NULL, "proxy-authorization: Bearer alice-secret")->status, 200);
    loopback_set_peer(&loopback, "192.0.2.78");
    assert_int_equal(ask(NULL, "proxy-authorization: Bearer wrong")->status, 407);
    assert_int_equal(loopback.metrics.auth_limited, 1);
}

/* Behind an ingress stand many users: neither the source nor another's name counts against them. */
static void test_limit_behind_peers(void **state)
{
    struct relay_prefix prefix;
    assert_int_equal(relay_prefix_parse("192.0.2.0/24", 12, &prefix), 0);
    assert_int_equal(relay_prefix_set_add(&loopback.snapshot->peers, &prefix), 0);
    loopback.snapshot->caps.auth_failures_per_minute_global = 30;
    for (int i = 0; i < 10; i++) /* mallory:guess */
        assert_int_equal(ask(NULL, "proxy-authorization: Basic bWFsbG9yeTpndWVzcw==")->status, 407);
    assert_int_equal(ask(NULL, "proxy-authorization: Basic bWFsbG9yeTpndWVzcw==")->status, 429);
    for (int i = 0; i < 5; i++) /* alice:guess */
        assert_int_equal(ask(NULL, "proxy-authorization: Basic YWxpY2U6Z3Vlc3M=")->status, 407);
    for (int i = 0; i < 14; i++)
        assert_int_equal(ask(NULL, "proxy-authorization: Bearer guess")->status, 407);
    assert_int_equal(ask(NULL, "proxy-authorization: Bearer guess")->status, 429);
    assert_int_equal(ask(NULL, "proxy-authorization: Bearer alice-secret")->status, 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_forms, setup, teardown),
        cmocka_unit_test_setup_teardown(test_same_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ordinary_requests_need_none, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limit_per_source, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limit_behind_peers, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
