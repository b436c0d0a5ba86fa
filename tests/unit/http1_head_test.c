#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/net/http1_head.h"
#include "lib/wire/error.h"

#define H "Host: a.example\r\n"

static const struct {
    const char *text;
    int status; /* 0: good; -1: incomplete */
} rows[] = {
    {"GET / HTTP/1.1\r\n" H "\r\n", 0},
    {"\r\nGET / HTTP/1.1\r\n" H "\r\n", 0},
    {"GET / HTTP/1.0\r\n\r\n", 0},
    {"GET / HTTP/1.1\r\n" H, -1},
    {"GET / HTTP/1.1\r", -1},
    {"", -1},
    {"OPTIONS * HTTP/1.1\r\n" H "\r\n", 0},
    {"GET http://b.example:8080/x?y HTTP/1.1\r\n" H "\r\n", 0},
    {"GET http://b.example HTTP/1.1\r\n" H "\r\n", 0},
    {"CONNECT b.example:443 HTTP/1.1\r\n" H "\r\n", 0},
    {"CONNECT [2001:db8::1]:443 HTTP/1.1\r\n" H "\r\n", 0},
    {"CONNECT b.example:443 HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n", 0},
    /* whether a CONNECT's target is an authority is for who takes it */
    {"CONNECT b.example HTTP/1.1\r\n" H "\r\n", 0},
    {"CONNECT http://b.example/ HTTP/1.1\r\n" H "\r\n", 0},
    {"CONNECT b.example:0 HTTP/1.1\r\nHost: b.example:0\r\n\r\n", 0},
    {"CONNECT 0x7f.1:80 HTTP/1.1\r\nHost: 0x7f.1:80\r\n\r\n", 0},
    {"CONNECT [::1%25lo]:80 HTTP/1.1\r\nHost: [::1%25lo]:80\r\n\r\n", 0},
    {"CONNECT b\xc3\xbc.example:80 HTTP/1.1\r\nHost: b\xc3\xbc.example:80\r\n\r\n", 0},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\n", 0},
    {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: Chunked\r\n\r\n", 0},
    {"GET / HTTP/1.1\r\n" H "X: \xc3\xa4 \t \r\n\r\n", 0},
    {"GET / HTTP/1.1\r\n" H "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n", 0},
    {"CONNECT-UDP / HTTP/1.1\r\n" H "\r\n", 0},
    /* lines */
    {"GET / HTTP/1.1\n" H "\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a.example\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" H "X: a\rb\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" H "X: a\r\n b\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n H: a\r\n" H "\r\n", 400},
    {"\r\n\r\nGET / HTTP/1.1\r\n" H "\r\n", 400},
    {"GET / HTTP/1.1\r\n" H "X: a\x01\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" H "X: a\x7f\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" H "X : a\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" H "X(: a\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" H ": a\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" H "nothing\r\n\r\n", 400},
    {"G(T / HTTP/1.1\r\n" H "\r\n", 400},
    {" GET / HTTP/1.1\r\n" H "\r\n", 400},
    {"GET  / HTTP/1.1\r\n" H "\r\n", 400},
    {"GET /  HTTP/1.1\r\n" H "\r\n", 400},
    {"GET /a b HTTP/1.1\r\n" H "\r\n", 400},
    {"GET /\r\n\r\n", 400},
    {"\x16\x03\x01\x02\r\n\r\n", 400},
    /* versions */
    {"GET / HTTP/2.0\r\n" H "\r\n", 505},
    {"GET / HTTP/3.1\r\n" H "\r\n", 505},
    {"GET / HTTX/1.1\r\n" H "\r\n", 400},
    {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},
    /* Host */
    {"GET / HTTP/1.1\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" H H "\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: user@a.example\r\n\r\n", 400},
    /* framing */
    {"POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 5, 5\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" H "Content-Length: +5\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" H "Content-Length: -1\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" H "Content-Length:\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 99999999999999999999\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: identity\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
    {"POST / HTTP/1.0\r\n" H "Transfer-Encoding: chunked\r\n\r\n", 400},
    {"CONNECT b.example:443 HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\n", 400},
    {"CONNECT b.example:443 HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n", 400},
    /* targets */
    {"CONNECT 0x7f.1:80 HTTP/1.1\r\nHost: 0x7f.1:8080\r\n\r\n", 400},
    {"CONNECT b.example:443 HTTP/1.1\r\n\r\n", 400},
    {"CONNECT b.example:443 HTTP/1.1\r\n" H H "\r\n", 400},
    {"CONNECT b .example:443 HTTP/1.1\r\n" H "\r\n", 400},
    {"GET * HTTP/1.1\r\n" H "\r\n", 400},
    {"GET b.example:443 HTTP/1.1\r\n" H "\r\n", 400},
    {"GET ftp://b.example/ HTTP/1.1\r\n" H "\r\n", 400},
    {"GET http:///x HTTP/1.1\r\n" H "\r\n", 400},
    {"GET http:// HTTP/1.1\r\n" H "\r\n", 400},
    {"GET /#x HTTP/1.1\r\n" H "\r\n", 400},
    {"POST / HTTP/1.1\r\n" H "Connection: Upgrade\r\nUpgrade: connect-udp\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" H "Connection: Upgrade\r\nUpgrade: connect-udp\r\nContent-Length: 3\r\n\r\n", 400},
};

static struct relay_http1_head head;
static struct relay_limits limits;

static int parse(const char *text, size_t len, char *copy)
{
    memcpy(copy, text, len);
    int error = relay_http1_head_parse(&head, copy, len, "https", &limits);
    return error == RELAY_ERR_INCOMPLETE ? -1 : error == RELAY_OK ? 0 : head.status;
}

static void heads_are_judged(void **state)
{
    static char copy[1024];
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int status = parse(rows[i].text, strlen(rows[i].text), copy);
        if (status != rows[i].status)
            fail_msg("%d instead of %d: %s", status, rows[i].status, rows[i].text);
        if (status == 0 && head.len != strlen(rows[i].text))
            fail_msg("length: %s", rows[i].text);
        for (size_t len = 0; status == 0 && len < strlen(rows[i].text); len++)
            assert_int_equal(parse(rows[i].text, len, copy), -1);
    }
    assert_int_equal(parse("GET / HTTP/1.1\r\n" H "X: a\0b\r\n\r\n", 41, copy), 400);
}

static void check_limits(size_t most_fields, size_t most_bytes)
{
    static char text[80000], copy[80000];
    limits.head_fields = (uint32_t)most_fields;
    limits.head_bytes = (uint32_t)most_bytes;
    for (size_t fields = most_fields - 1; fields <= most_fields + 1; fields++) {
        char *end = stpcpy(text, "GET / HTTP/1.1\r\n" H);
        for (size_t i = 1; i < fields; i++)
            end = stpcpy(end, "X: y\r\n");
        assert_int_equal(parse(text, (size_t)(end - text), copy), fields > most_fields ? 431 : -1);
        end = stpcpy(end, "\r\n");
        assert_int_equal(parse(text, (size_t)(end - text), copy), fields > most_fields ? 431 : 0);
        assert_true(fields > most_fields || head.request.num_fields == fields);
    }
    for (size_t len = most_bytes - 1; len <= most_bytes + 1; len++) {
        char *end = stpcpy(text, "GET / HTTP/1.1\r\n" H "X: ");
        memset(end, 'x', len);
        strcpy(text + len - 4, "\r\n\r\n");
        assert_int_equal(parse(text, len, copy), len > most_bytes ? 431 : 0);
    }
    memset(text, 'x', sizeof(text));
    assert_int_equal(parse(text, most_bytes + 3000, copy), 431);
    assert_int_equal(parse(text, most_bytes, copy), -1);
}

static void limits_hold_for_whole_and_partial_heads(void **state)
{
    check_limits(100, 16384);
    check_limits(16, 1024);
    check_limits(RELAY_HTTP1_FIELDS_MAX, 65536);
    limits = RELAY_LIMITS_DEFAULT;
}

static void upgrades_to_connect_udp(void **state)
{
    static const struct {
        const char *fields;
        bool is_taken;
    } offers[] = {
        {"Connection: Upgrade\r\nUpgrade: connect-udp\r\n", true},
        {"Connection: keep-alive, UPGRADE\r\nUpgrade: websocket ,\tConnect-UDP\r\n", true},
        {"Connection: Upgrade\r\nUpgrade: connect-udp, websocket\r\n", true},
        {"Connection: close\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: ,connect-udp,\r\n", true},
        {"Connection: Upgrade\r\nUpgrade: connect-udp/1, x-connect-udp, connect udp\r\n", false},
        {"Connection: Upgrade\r\nUpgrade: websocket\r\n", false},
        {"Upgrade: connect-udp\r\n", false},
    };
    static char text[512], copy[512];
    for (size_t i = 0; i < sizeof(offers) / sizeof(offers[0]); i++) {
        snprintf(text, sizeof(text), "GET /h/1/ HTTP/1.1\r\n" H "%s\r\n", offers[i].fields);
        assert_int_equal(parse(text, strlen(text), copy), 0);
        assert_int_equal(head.request.kind, offers[i].is_taken ? RELAY_KIND_CAPSULES : RELAY_KIND_MESSAGE);
        assert_int_equal(relay_slice_is(head.request.protocol, "connect-udp"), offers[i].is_taken);
    }
}

static void tunnels_are_recognised_before_they_are_parsed(void **state)
{
    static const struct {
        const char *text;
        bool is_tunnel;
    } heads[] = {
        {"CONNECT b.example:1 HT", true},
        {"\r\nCONNECT b", true},
        {"CONNECT", false},
        {"GET /CONNECT HTTP/1.1\r\nX: CONNECT ", false},
        {"GET / HTTP/1.1\r\nHost: a\r\nupgrade: websocket, Connect-UDP\r\nX", true},
        {"GET / HTTP/1.1\r\nX: a\r\nUpgrade: connect-ud", false},
        {"GET / HTTP/1.1\r\nUpgrade: websocket\r\n", false},
        {"GET / HTTP/1.1\r\n", false},
        {"", false},
    };
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++)
        assert_int_equal(relay_http1_head_is_tunnel(heads[i].text, strlen(heads[i].text)),
                         heads[i].is_tunnel);
}

static void what_was_parsed_is_shown(void **state)
{
    static char copy[1024];
    const char *text = "GET /.well-known/masque/udp/h/1/ HTTP/1.1\r\nHOST: r.example:443\r\nConnection: "
                       "keep-alive, upgrade\r\n"
                       "Upgrade: Connect-UDP\r\nCapsule-Protocol: ?1\r\n\r\n";
    assert_int_equal(parse(text, strlen(text), copy), 0);
    assert_int_equal(head.request.kind, RELAY_KIND_CAPSULES);
    assert_true(relay_slice_is(head.request.method, "CONNECT"));
    assert_true(relay_slice_is(head.request.protocol, "connect-udp"));
    assert_true(relay_slice_is(head.request.authority, "r.example:443"));
    assert_true(relay_slice_is(head.request.scheme, "https"));
    assert_true(relay_slice_is(head.request.fields[0].name, "host"));
    assert_false(head.request.ends);

    text = "POST HTTP://b.example?x HTTP/1.1\r\n" H "\r\n";
    assert_int_equal(parse(text, strlen(text), copy), 400);
    text = "POST HTTP://b.example/x HTTP/1.1\r\n" H
           "Content-Length: 007\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n";
    assert_int_equal(parse(text, strlen(text), copy), 0);
    assert_true(head.request.is_absolute && head.expects_continue && !head.keep_alive);
    assert_int_equal(head.request.content_length, 7);
    assert_int_equal(head.body, RELAY_HTTP1_LENGTH);
    assert_true(relay_slice_is(head.request.authority, "b.example"));
    assert_true(relay_slice_is(head.request.scheme, "http"));
    assert_true(relay_slice_is(head.request.path, "/x"));

    text = "CONNECT b.example:443 HTTP/1.1\r\n" H "\r\n";
    assert_int_equal(parse(text, strlen(text), copy), 0);
    assert_true(relay_slice_is(head.request.authority, "b.example:443"));
    assert_null(head.request.path.base);
    assert_true(head.keep_alive);
    assert_int_equal(head.request.kind, RELAY_KIND_BYTES);
}

static const struct {
    const char *text, *body; /* NULL: malformed */
    size_t rest;
} bodies[] = {
    {"3\r\nabc\r\n0\r\n\r\nGET", "abc", 3},
    {"3;x=y\r\nabc\r\n0A\r\n0123456789\r\n0\r\nT: x\r\n\r\n", "abc0123456789", 0},
    {"0\r\n\r\n", "", 0},
    {"3\nabc\r\n0\r\n\r\n", NULL, 0},
    {"3\r\nabcd\r\n0\r\n\r\n", NULL, 0},
    {"3\r\nabc\n0\r\n\r\n", NULL, 0},
    {"3 \r\nabc\r\n0\r\n\r\n", NULL, 0},
    {"0x3\r\nabc\r\n0\r\n\r\n", NULL, 0},
    {"-3\r\nabc\r\n0\r\n\r\n", NULL, 0},
    {"\r\nabc", NULL, 0},
    {"3;x\ny\r\nabc", NULL, 0},
    {"1000000000000003\r\nabc", NULL, 0},
    {"0\r\nT: x\n\r\n", NULL, 0},
};

static void chunked_bodies_are_decoded_in_any_pieces(void **state)
{
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        for (size_t step = 1; step < 60; step++) {
            struct relay_http1_chunked chunked = {0};
            uint8_t copy[64];
            char got[64] = "";
            size_t len = strlen(bodies[i].text), at = 0, used, piece;
            memcpy(copy, bodies[i].text, len);
            uint8_t *data;
            int result = 0;
            while (result == 0 && at < len) {
                result = relay_http1_chunked_next(&chunked, copy + at, len - at < step ? len - at : step,
                                                  &used, &data, &piece);
                at += used;
                if (piece > 0)
                    strncat(got, (const char *)data, piece);
            }
            assert_int_equal(result, bodies[i].body != NULL ? 1 : RELAY_ERR_INVALID);
            if (bodies[i].body != NULL) {
                assert_string_equal(got, bodies[i].body);
                assert_int_equal(len - at, bodies[i].rest);
            }
        }
    }
}

int main(void)
{
    limits = RELAY_LIMITS_DEFAULT;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heads_are_judged),
        cmocka_unit_test(limits_hold_for_whole_and_partial_heads),
        cmocka_unit_test(upgrades_to_connect_udp),
        cmocka_unit_test(tunnels_are_recognised_before_they_are_parsed),
        cmocka_unit_test(what_was_parsed_is_shown),
        cmocka_unit_test(chunked_bodies_are_decoded_in_any_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
