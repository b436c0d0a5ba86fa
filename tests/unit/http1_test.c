#include "tests/unit/stream_peer.h"

#include <errno.h>
#include <stdio.h>

#include "server/http1.h"

/* A session on one end of a connection, raw bytes on the other. */
static struct {
    int fd;
    struct relay_session *session;
    struct relay_tunnel *tunnel;
    char method[16], authority[64], body[256];
    unsigned num_requests;
    bool fin, tunnel_closed, session_closed, answers, echoes;
    int tunnel_error, refuse_status;
} t;

static void on_tunnel_bytes(void *user, uint8_t *bytes, size_t len)
{
    strncat(t.body, (const char *)bytes, len);
    if (t.echoes)
        relay_tunnel_send(t.tunnel, bytes, len);
}

static void answer(void)
{
    struct relay_field field = {RELAY_SLICE("x"), RELAY_SLICE("y")};
    struct relay_response response = {.status = 200, .fields = &field, .num_fields = 1, .content_length = 2};
    relay_tunnel_respond(t.tunnel, &response);
    relay_tunnel_send(t.tunnel, (const uint8_t *)"ok", 2);
    relay_tunnel_send_fin(t.tunnel);
}

static void on_tunnel_fin(void *user)
{
    t.fin = true;
    if (t.answers)
        answer();
    else if (t.echoes)
        relay_tunnel_send_fin(t.tunnel);
}

static void on_tunnel_close(void *user, int error)
{
    t.tunnel_closed = true;
    t.tunnel_error = error;
    t.tunnel = NULL;
}

static const struct relay_tunnel_user tunnel_user = {
    .on_bytes = on_tunnel_bytes, .on_fin = on_tunnel_fin, .on_close = on_tunnel_close};

static void on_request(void *user, struct relay_tunnel *tunnel, const struct relay_request *request)
{
    t.num_requests++;
    t.tunnel = tunnel;
    t.tunnel_closed = false;
    snprintf(t.method, sizeof(t.method), "%.*s", (int)request->method.len, request->method.base);
    snprintf(t.authority, sizeof(t.authority), "%.*s", (int)request->authority.len, request->authority.base);
    relay_tunnel_attach(tunnel, &tunnel_user, NULL);
    if (t.refuse_status != 0)
        relay_tunnel_respond(
            tunnel, &(struct relay_response){.status = t.refuse_status, .content_length = -1, .ends = true});
}

static void on_session_close(void *user, int error)
{
    t.session_closed = true;
}

static const struct relay_session_user session_user = {.on_request = on_request,
                                                       .on_close = on_session_close};
static const struct relay_stream_user no_user;
static struct relay_limits limits;

static void begin_on(const int fds[2], const char *text)
{
    memset(&t, 0, sizeof(t));
    t.fd = fds[0];
    limits = RELAY_LIMITS_DEFAULT;
    struct relay_stream *stream = make_tcp(fds[1]);
    relay_stream_start(stream, &no_user, NULL);
    t.session = relay_http1_server(stream, &limits, &session_user, NULL, NULL, 0);
    assert_non_null(t.session);
    assert_int_equal(send(t.fd, text, strlen(text), 0), strlen(text));
}

static void begin(const char *text)
{
    int fds[2];
    make_pair(fds);
    begin_on(fds, text);
}

static char wire[65536];

/* What the session sends until it contains `text`; NULL: until the end. */
static void expect(const char *text)
{
    size_t len = strlen(wire);
    ssize_t n = -1;
    run_until((text != NULL && strstr(wire, text) != NULL) ||
              ((n = recv(t.fd, wire + len, sizeof(wire) - 1 - len, 0)) > 0
                   ? (len += (size_t)n, wire[len] = '\0', false)
                   : n == 0 || errno != EAGAIN));
    if (text != NULL && strstr(wire, text) == NULL)
        fail_msg("no %s in %s", text, wire);
}

static void end(void)
{
    close(t.fd);
    run_until(t.session_closed);
    assert_null(t.tunnel);
    wire[0] = '\0';
}

static void pipelined_requests_are_answered_in_order(void **state)
{
    begin("");
    t.answers = true;
    const char *text =
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
        "POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ndef\r\n0\r\n\r\n"
        "HEAD /4 HTTP/1.1\r\nHost: a\r\n\r\nGET /5 HTTP/1.1\r\nHost: last\r\nConnection: close\r\n\r\n";
    for (const char *p = text; *p != '\0'; p++) { /* byte by byte */
        assert_int_equal(send(t.fd, p, 1, MSG_NOSIGNAL), 1);
        run_turn();
    }
    expect(NULL);
    assert_int_equal(t.num_requests, 5);
    assert_string_equal(t.body, "abcdef");
    assert_string_equal(t.authority, "last");
    const char *one = "HTTP/1.1 200 OK\r\nx: y\r\ncontent-length: 2\r\n\r\n";
    const char *p = wire;
    for (int i = 0; i < 4; i++) {
        assert_memory_equal(p, one, strlen(one));
        p += strlen(one) + (i == 3 ? 0 : 2);
    }
    assert_string_equal(p, "HTTP/1.1 200 OK\r\nx: y\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
    end();
}

/* Of what came before the FIN every complete request is answered, also behind an answer that takes its time, and that
 * is said of the last one; what is cut is not. */
static void a_fin_lets_pipelined_requests_be_answered(void **state)
{
    static const char one[] = "HTTP/1.1 200 OK\r\nx: y\r\ncontent-length: 2\r\n\r\nok";
    static const char last[] = "HTTP/1.1 200 OK\r\nx: y\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
    static const char *const cut[] = {"", "GET /4 HTT",
                                      "POST /4 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab"};
    for (size_t i = 0; i < sizeof(cut) / sizeof(cut[0]); i++) {
        begin("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
              "POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
              "GET /3 HTTP/1.1\r\nHost: last\r\n\r\n");
        send(t.fd, cut[i], strlen(cut[i]), 0);
        shutdown(t.fd, SHUT_WR);
        run_until(t.fin);
        run_for(10 * RELAY_MS);
        assert_int_equal(t.num_requests, 1);
        t.answers = true;
        answer();
        expect(NULL);
        assert_string_equal(t.authority, i < 2 ? "last" : "a");
        assert_int_equal(t.num_requests, i < 2 ? 3 : 4);
        assert_memory_equal(wire, one, sizeof(one) - 1);
        assert_memory_equal(wire + sizeof(one) - 1, one, sizeof(one) - 1);
        assert_string_equal(wire + 2 * (sizeof(one) - 1), i == 0 ? last : one);
        end();
    }
}

/* Sends requests until the session takes no more, or `most` of them; how many. The last one may be cut. */
static unsigned send_many(unsigned most)
{
    static const char one[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    static char text[1000 * (sizeof(one) - 1)];
    const size_t len = sizeof(one) - 1;
    size_t sent = 0;
    for (size_t i = 0; i < 1000; i++)
        memcpy(text + i * len, one, len);
    for (unsigned idle = 0; sent < most * len && idle < 1000; uv_run(&loop.uv, UV_RUN_NOWAIT)) {
        ssize_t n = send(t.fd, text + sent % len, sizeof(text) - sent % len, MSG_DONTWAIT | MSG_NOSIGNAL);
        idle = n < 0 ? idle + 1 : 0;
        sent += n > 0 ? (size_t)n : 0;
    }
    return (unsigned)(sent / len);
}

/* A session behind a connection that holds little. */
static void begin_small(void)
{
    const int size = 64 << 10;
    int fds[2];
    make_pair(fds);
    for (int i = 0; i < 2; i++) {
        setsockopt(fds[i], SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
        setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    }
    begin_on(fds, "");
    t.answers = true;
}

/* Of answers that nobody reads no more is kept than fills the connection. */
static void requests_wait_for_a_reader(void **state)
{
    static const char one[] = "HTTP/1.1 200 OK\r\nx: y\r\ncontent-length: 2\r\n\r\nok";
    const unsigned most = (1 << 20) / (sizeof(one) - 1);
    begin_small();
    const unsigned count = send_many(most);
    const size_t all = count * (sizeof(one) - 1);
    ssize_t n;
    for (size_t len = 0; len < all; len += (size_t)n)
        run_until((n = recv(t.fd, wire, sizeof(wire), MSG_DONTWAIT)) > 0);
    const unsigned num_answered = t.num_requests;
    end();
    assert_int_equal(num_answered, count);
    assert_true(count < most);
}

/* A FIN changes nothing of that: the requests before it wait in the session, and are answered as the peer reads. */
static void requests_before_a_fin_wait_for_a_reader(void **state)
{
    unsigned count = 0;
    begin_small();
    for (unsigned before = 0; t.num_requests == count && count < 100000; before = count) {
        count = before + send_many(100);
        for (int i = 0; i < 100 && t.num_requests < count; i++)
            run_turn();
    }
    shutdown(t.fd, SHUT_WR);
    run_for(10 * RELAY_MS);
    const unsigned num_unread = t.num_requests;
    const bool has_waited = !t.session_closed;
    for (ssize_t n = 1; n > 0;)
        run_until((n = recv(t.fd, wire, sizeof(wire), MSG_DONTWAIT)) >= 0 || errno != EAGAIN);
    const unsigned num_answered = t.num_requests;
    end();
    assert_true(has_waited && num_unread < count);
    assert_int_equal(num_answered, count);
}

static void a_peer_that_reads_no_answers_is_reset(void **state)
{
    begin_small();
    limits.idle_timeout = limits.head_timeout = RELAY_SECOND / 10;
    send_many(1 << 20);
    run_until(t.session_closed);
    end();
}

static void a_connect_carries_bytes_and_half_closes(void **state)
{
    begin("CONNECT b.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n");
    t.echoes = true;
    run_until(t.tunnel != NULL);
    assert_string_equal(t.authority, "b.example:443");
    assert_int_equal(relay_tunnel_accept(t.tunnel, NULL, 0), 0);
    expect("HTTP/1.1 200 OK\r\n\r\n");
    send(t.fd, "ping", 4, 0);
    expect("\r\n\r\nping");
    shutdown(t.fd, SHUT_WR);
    expect(NULL);
    run_until(t.tunnel_closed);
    assert_int_equal(t.tunnel_error, RELAY_OK);
    end();
}

static void bytes_before_the_200_are_refused(void **state)
{
    begin("CONNECT b.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\nearly");
    expect(NULL);
    assert_memory_equal(wire, "HTTP/1.1 400 ", 13);
    assert_int_equal(t.num_requests, 0);
    end();
    begin("CONNECT b.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n");
    run_until(t.tunnel != NULL);
    send(t.fd, "early", 5, 0);
    expect(NULL);
    assert_memory_equal(wire, "HTTP/1.1 400 ", 13);
    run_until(t.tunnel_closed);
    end();
}

static void a_vanishing_client_aborts_the_dial(void **state)
{
    begin("CONNECT b.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n");
    run_until(t.tunnel != NULL);
    shutdown(t.fd, SHUT_WR);
    run_until(t.tunnel_closed);
    assert_int_equal(t.tunnel_error, RELAY_ERR_CLOSED);
    end();
}

static void a_refused_connect_keeps_the_connection(void **state)
{
    begin("CONNECT b.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n");
    t.refuse_status = 407;
    expect("HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n");
    t.refuse_status = 0;
    const char *again = "CONNECT c.example:443 HTTP/1.1\r\nHost: c.example:443\r\n"
                        "Proxy-Authorization: Basic Yzpj\r\n\r\n";
    send(t.fd, again, strlen(again), 0);
    run_until(t.num_requests == 2);
    assert_string_equal(t.authority, "c.example:443");
    relay_tunnel_accept(t.tunnel, NULL, 0);
    expect("200 OK");
    relay_tunnel_abort(t.tunnel, RELAY_ERR_RESET);
    char byte;
    run_until(recv(t.fd, &byte, 1, 0) < 0 && errno == ECONNRESET);
    end();
}

/* They were meant for the target: the client did not wait for the answer, or has not read it yet. */
static void bytes_behind_a_challenge_are_no_request(void **state)
{
    static const char *const behind[] = {
        "GET /hidden HTTP/1.1\r\nHost: r\r\n\r\n",
        "GET /hidden HTTP/1.1\r\nHost: r\r\nAuthorization: Basic Yzpj\r\n\r\n",
        "CONNECT c.example:443 HTTP/1.1\r\nHost: c.example:443\r\n\r\n",
        "\x16\x03\x01 a ClientHello\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: r\r\nConnection: Upgrade\r\nUpgrade: connect-udp\r\nAuthorization: Basic "
        "Yzpj\r\n\r\n",
    };
    static const char challenge[] = "HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n";
    for (size_t i = 0; i < sizeof(behind) / sizeof(behind[0]); i++) {
        begin("CONNECT b.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n");
        t.refuse_status = 407;
        expect(challenge);
        send(t.fd, behind[i], strlen(behind[i]), 0);
        expect(NULL);
        assert_string_equal(wire, challenge);
        assert_int_equal(t.num_requests, 1);
        end();
    }
}

#define UPGRADE                                                                                              \
    "GET /x HTTP/1.1\r\nHost: r\r\nConnection: Upgrade\r\nUpgrade: connect-udp\r\nCapsule-Protocol: "        \
    "?1\r\n\r\n"

static void an_upgrade_keeps_or_discards_early_bytes(void **state)
{
    begin(UPGRADE "\x2a\x01z");
    run_until(t.tunnel != NULL);
    assert_string_equal(t.method, "CONNECT");
    run_for(10 * RELAY_MS);
    assert_int_equal(t.tunnel->count.bytes_in, 0);
    relay_tunnel_accept(t.tunnel, NULL, 0);
    expect("101 Switching Protocols\r\ncapsule-protocol: ?1\r\nconnection: Upgrade\r\nupgrade: "
           "connect-udp\r\n\r\n");
    run_until(t.tunnel->count.bytes_in == 3);
    relay_tunnel_send_fin(t.tunnel);
    end();

    begin(UPGRADE);
    run_until(t.tunnel != NULL);
    const char *hidden = "GET /hidden HTTP/1.1\r\nHost: r\r\n\r\n";
    send(t.fd, hidden, strlen(hidden), 0);
    run_for(10 * RELAY_MS);
    relay_tunnel_respond(t.tunnel,
                         &(struct relay_response){.status = 403, .content_length = -1, .ends = true});
    expect(NULL);
    assert_string_equal(wire, "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    assert_int_equal(t.num_requests, 1);
    end();
}

static void malformed_heads_and_slow_ones_are_closed(void **state)
{
    begin("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    expect(NULL);
    assert_string_equal(wire, "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    assert_int_equal(t.num_requests, 0);
    end();

    begin("");
    limits.head_timeout = 50 * RELAY_MS;
    send(t.fd, "GET /", 5, 0);
    expect(NULL);
    assert_memory_equal(wire, "HTTP/1.1 408 ", 13);
    end();

    begin("");
    relay_session_shutdown(t.session);
    expect(NULL);
    assert_string_equal(wire, "");
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(requests_wait_for_a_reader, set_up_loop, tear_down_loop),
        cmocka_unit_test_setup_teardown(requests_before_a_fin_wait_for_a_reader, set_up_loop, tear_down_loop),
        cmocka_unit_test_setup_teardown(a_peer_that_reads_no_answers_is_reset, set_up_loop, tear_down_loop),
        cmocka_unit_test_setup_teardown(pipelined_requests_are_answered_in_order, set_up_loop,
                                        tear_down_loop),
        cmocka_unit_test_setup_teardown(a_fin_lets_pipelined_requests_be_answered, set_up_loop,
                                        tear_down_loop),
        cmocka_unit_test_setup_teardown(a_connect_carries_bytes_and_half_closes, set_up_loop, tear_down_loop),
        cmocka_unit_test_setup_teardown(bytes_before_the_200_are_refused, set_up_loop, tear_down_loop),
        cmocka_unit_test_setup_teardown(a_vanishing_client_aborts_the_dial, set_up_loop, tear_down_loop),
        cmocka_unit_test_setup_teardown(a_refused_connect_keeps_the_connection, set_up_loop, tear_down_loop),
        cmocka_unit_test_setup_teardown(bytes_behind_a_challenge_are_no_request, set_up_loop, tear_down_loop),
        cmocka_unit_test_setup_teardown(an_upgrade_keeps_or_discards_early_bytes, set_up_loop,
                                        tear_down_loop),
        cmocka_unit_test_setup_teardown(malformed_heads_and_slow_ones_are_closed, set_up_loop,
                                        tear_down_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
