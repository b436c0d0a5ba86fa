/* The HTTP/3 session over real QUIC connections on loopback. What needs a misbehaving peer is in
 * http3_test.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <netinet/in.h>
#include <cmocka.h>

#include "lib/net/http3.h"
#include "lib/net/metrics.h"
#include "lib/net/path_socket.h"
#include "lib/net/quic_endpoint.h"
#include "lib/wire/error.h"
#include "tests/unit/quic_harness.h"

#define BULK 4000000

/* One end of a request. */
struct end {
    struct relay_tunnel *tunnel;
    bool is_server, is_answered, got_fin, is_closed, has_datagrams, is_sending, is_fin_sent;
    int status, close_error;
    size_t got, datagrams, owed, mismatch;
};

static struct {
    struct relay_loop loop;
    struct relay_metrics metrics;
    struct relay_limits limits;
    struct relay_budget budget;
    struct certificate certificate;
    struct relay_quic_credentials *server_credentials, *client_credentials;
    struct relay_quic_tickets *tickets;
    struct relay_quic_group *group;
    struct relay_quic_endpoint *endpoint;
    struct sockaddr_storage address;
    struct relay_session *server, *client;
    bool is_ready, got_goaway, client_closed, server_closed;
    struct end ends[1000], client_ends[1000];
    size_t num_ends, num_client_ends;
    size_t to_send;
} f;

static uint8_t block[65536];

static void push(struct end *end)
{
    size_t room;
    while (end->is_sending && f.to_send > 0 && (room = relay_tunnel_room(end->tunnel)) > 0) {
        size_t sent = BULK - f.to_send, at = sent % sizeof(block);
        size_t len = sizeof(block) - at < f.to_send ? sizeof(block) - at : f.to_send;
        len = len < room ? len : room;
        f.to_send -= len;
        relay_tunnel_send(end->tunnel, block + at, len);
    }
    if (end->is_sending && f.to_send == 0 && !end->is_fin_sent) {
        end->is_fin_sent = true;
        relay_tunnel_send_fin(end->tunnel);
    }
}

static void on_response(void *user, const struct relay_response *response)
{
    struct end *end = user;
    end->status = response->status;
    end->is_answered = true;
}

static void on_bytes(void *user, uint8_t *bytes, size_t len)
{
    struct end *end = user;
    for (size_t i = 0; i < len; i++)
        end->mismatch += bytes[i] != block[(end->got + i) % sizeof(block)];
    end->got += len;
    if (end->is_server && !relay_tunnel_send(end->tunnel, bytes, len))
        relay_tunnel_pause(end->tunnel);
}

static void on_fin(void *user)
{
    struct end *end = user;
    end->got_fin = true;
    if (end->is_server && !end->is_sending)
        relay_tunnel_send_fin(end->tunnel);
}

static void send_owed(struct end *end)
{
    for (; end->owed > 0; end->owed--) {
        struct relay_run run = {0, block, 1000, 1000};
        if (relay_tunnel_send_datagrams(end->tunnel, &run) != RELAY_SENT)
            break;
    }
}

static void on_datagrams(void *user, const struct relay_run *run)
{
    struct end *end = user;
    end->mismatch += run->len != 1000 || memcmp(run->base, block, 1000) != 0;
    end->datagrams++;
    end->has_datagrams = end->datagrams == 100;
    end->owed += end->is_server;
    send_owed(end);
}

static void on_writable(void *user)
{
    struct end *end = user;
    if (end->is_server && !end->is_sending)
        relay_tunnel_resume(end->tunnel);
    push(end);
    send_owed(end);
}

static void on_close(void *user, int error)
{
    struct end *end = user;
    end->is_closed = true;
    end->close_error = error;
}

static const struct relay_tunnel_user tunnel_user = {.on_response = on_response,
                                                     .on_bytes = on_bytes,
                                                     .on_fin = on_fin,
                                                     .on_datagrams = on_datagrams,
                                                     .on_writable = on_writable,
                                                     .on_close = on_close};

static void on_request(void *user, struct relay_tunnel *tunnel, const struct relay_request *request)
{
    struct end *end = &f.ends[f.num_ends++];
    *end = (struct end){.tunnel = tunnel, .is_server = true};
    relay_tunnel_attach(tunnel, &tunnel_user, end);
    struct relay_response response = {.status = 200, .content_length = BULK};
    if (relay_slice_is(request->path, "/refused")) {
        response.status = 403;
        response.content_length = 0;
        response.ends = true;
    }
    if (relay_slice_is(request->path, "/abort")) {
        relay_tunnel_abort(tunnel, RELAY_ERR_RESET);
    } else if (request->kind == RELAY_KIND_MESSAGE || response.ends) {
        assert_int_equal(relay_tunnel_respond(tunnel, &response), 0);
        end->is_sending = !response.ends;
        push(end);
    } else {
        assert_int_equal(relay_tunnel_accept(tunnel, NULL, 0), 0);
    }
}

static void on_ready(void *user)
{
    f.is_ready = true;
}

static void on_goaway(void *user)
{
    f.got_goaway = true;
}

static void on_client_close(void *user, int error)
{
    f.client_closed = true;
}

static void on_server_close(void *user, int error)
{
    f.server_closed = true;
}

static const struct relay_session_user server_user = {.on_request = on_request, .on_close = on_server_close};
static const struct relay_session_user client_user = {
    .on_ready = on_ready, .on_goaway = on_goaway, .on_close = on_client_close};

static void on_connection(void *user, struct relay_quic_conn *conn)
{
    f.server = relay_http3_server(conn, &f.limits, &f.budget, &server_user, NULL);
}

static void listen_on_loopback(void)
{
    static const struct relay_quic_endpoint_user cb = {.on_connection = on_connection};
    char reason[RELAY_QUIC_ERROR_SIZE];
    int fd;
    f.tickets = relay_quic_tickets_new();
    assert_int_equal(relay_quic_credentials_server(f.certificate.chain, f.certificate.key, "here", f.tickets,
                                                   &f.server_credentials, reason),
                     0);
    assert_int_equal(
        relay_quic_credentials_client(f.certificate.chain, NULL, 0, &f.client_credentials, reason), 0);
    f.group = relay_quic_group_new(1);
    struct sockaddr_in *address = (struct sockaddr_in *)&f.address;
    address->sin_family = AF_INET;
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(relay_quic_group_bind(f.group, &f.address, &fd), 0);
    struct relay_quic_endpoint_config config = {.loop = &f.loop,
                                                .group = f.group,
                                                .credentials = f.server_credentials,
                                                .limits = &f.limits,
                                                .cb = &cb};
    assert_int_equal(relay_http3_preface(&f.limits, &config.preface), 0);
    assert_true(config.preface.len > 5 && config.preface.bytes[0] == 0 && config.preface.bytes[1] == 4);
    assert_int_equal(relay_quic_endpoint_new(&config, &f.endpoint), 0);
    assert_int_equal(relay_quic_endpoint_add_socket(f.endpoint, fd), 0);
}

static int setup(void **state)
{
    memset(&f, 0, sizeof(f));
    for (size_t i = 0; i < sizeof(block); i++)
        block[i] = (uint8_t)(i * 7 + i / 251);
    f.limits = RELAY_LIMITS_DEFAULT;
    f.budget.limit = 64 << 20;
    f.to_send = BULK;
    certificate_make(&f.certificate, "relay.example");
    assert_int_equal(relay_loop_init(&f.loop, &f.metrics), 0);
    listen_on_loopback();
    struct relay_packet_path *path;
    struct relay_quic_client_config config = {.credentials = f.client_credentials,
                                              .server_name = "relay.example",
                                              .limits = &f.limits,
                                              .budget = &f.budget,
                                              .level = RELAY_LEVEL_FLUSH_OUTER};
    assert_int_equal(relay_path_socket_new(&f.loop, (struct sockaddr *)&f.address, NULL, &path), 0);
    f.client = relay_http3_connect(&f.loop, path, &config, &client_user, NULL);
    assert_non_null(f.client);
    assert_true(run_until(&f.loop, &f.is_ready, 5000));
    return 0;
}

static int teardown(void **state)
{
    if (!f.client_closed)
        relay_session_close(f.client, RELAY_OK);
    assert_true(run_until(&f.loop, &f.client_closed, 5000));
    assert_true(run_until(&f.loop, &f.server_closed, 5000));
    for (size_t i = 0; i < f.num_ends; i++)
        assert_true(f.ends[i].is_closed);
    assert_int_equal(f.budget.used, 0);
    relay_quic_endpoint_close(f.endpoint, 0x100);
    run_until(&f.loop, NULL, 20);
    relay_quic_endpoint_free(f.endpoint);
    relay_quic_group_unref(f.group);
    relay_quic_credentials_unref(f.server_credentials);
    relay_quic_credentials_unref(f.client_credentials);
    relay_quic_tickets_unref(f.tickets);
    relay_loop_dispose(&f.loop);
    certificate_remove(&f.certificate);
    return 0;
}

static struct end *open_request(enum relay_kind kind, const char *path)
{
    struct end *end = &f.client_ends[f.num_client_ends % 1000];
    struct relay_request request = {.kind = kind,
                                    .method = relay_slice(kind == RELAY_KIND_MESSAGE ? "GET" : "CONNECT"),
                                    .scheme = RELAY_SLICE("https"),
                                    .authority = RELAY_SLICE("relay.example:443"),
                                    .path = relay_slice(path),
                                    .content_length = -1,
                                    .ends = kind == RELAY_KIND_MESSAGE};
    if (kind == RELAY_KIND_CAPSULES)
        request.protocol = RELAY_SLICE("connect-udp");
    *end = (struct end){0};
    end->tunnel = relay_session_open(f.client, &request, &tunnel_user, end);
    f.num_client_ends += end->tunnel != NULL;
    return end->tunnel != NULL ? end : NULL;
}

static void test_get(void **state)
{
    struct end *end = open_request(RELAY_KIND_MESSAGE, "/file");
    assert_true(run_until(&f.loop, &end->is_closed, 10000));
    assert_int_equal(end->status, 200);
    assert_int_equal(end->got, BULK);
    assert_int_equal(end->mismatch, 0);
    assert_int_equal(end->close_error, RELAY_OK);
}

static void test_connect_echo(void **state)
{
    struct end *end = open_request(RELAY_KIND_BYTES, "/");
    end->is_sending = true;
    push(end);
    assert_true(run_until(&f.loop, &end->is_closed, 20000));
    assert_int_equal(end->got, BULK);
    assert_int_equal(end->mismatch + f.ends[0].mismatch, 0);
    assert_true(end->got_fin && f.ends[0].got_fin);
    assert_int_equal(end->close_error, RELAY_OK);
    assert_true(run_until(&f.loop, &f.ends[0].is_closed, 5000));
    assert_int_equal(f.ends[0].close_error, RELAY_OK);
}

static void test_datagrams(void **state)
{
    struct end *end = open_request(RELAY_KIND_CAPSULES, "/udp");
    assert_true(run_until(&f.loop, &end->is_answered, 5000));
    assert_true(relay_tunnel_max_datagram(end->tunnel, 0) >= 1200);
    end->owed = 100;
    send_owed(end);
    assert_true(run_until(&f.loop, &end->has_datagrams, 5000));
    assert_int_equal(f.ends[0].datagrams, 100);
    assert_int_equal(end->mismatch + f.ends[0].mismatch, 0);
    assert_int_equal(end->tunnel->count.bytes_out, 0);
    struct relay_run run = {0, block, 2000, 2000};
    assert_int_equal(relay_tunnel_send_datagrams(end->tunnel, &run), RELAY_TOO_BIG);
    /* A capsule is as good. */
    uint8_t capsule[1001] = {0};
    memcpy(capsule + 1, block, 1000);
    relay_tunnel_send_capsule(end->tunnel, RELAY_CAPSULE_DATAGRAM, capsule, sizeof(capsule));
    end->has_datagrams = false;
    end->datagrams = 99;
    assert_true(run_until(&f.loop, &end->has_datagrams, 5000));
}

static void test_refused(void **state)
{
    struct end *end = open_request(RELAY_KIND_CAPSULES, "/refused");
    assert_true(run_until(&f.loop, &end->is_closed, 5000));
    assert_int_equal(end->status, 403);
    assert_int_equal(end->close_error, RELAY_OK);
    assert_true(run_until(&f.loop, &f.ends[0].is_closed, 5000));
    assert_int_equal(f.ends[0].close_error, RELAY_OK);
}

static void test_resets(void **state)
{
    struct end *end = open_request(RELAY_KIND_CAPSULES, "/abort");
    assert_true(run_until(&f.loop, &end->is_closed, 5000));
    assert_int_equal(end->close_error, RELAY_ERR_RESET);
    end = open_request(RELAY_KIND_BYTES, "/");
    assert_true(run_until(&f.loop, &end->is_answered, 5000));
    relay_tunnel_abort(end->tunnel, RELAY_ERR_CANCELLED);
    assert_true(run_until(&f.loop, &f.ends[1].is_closed, 5000));
    assert_int_equal(f.ends[1].close_error, RELAY_ERR_RESET);
}

/* More requests in a row than may be open at once. */
static void test_many_requests(void **state)
{
    for (size_t i = 0; i < 300; i++) {
        struct end *end = open_request(RELAY_KIND_MESSAGE, "/refused");
        assert_non_null(end);
        assert_true(run_until(&f.loop, &end->is_closed, 5000));
        assert_int_equal(end->status, 403);
    }
}

static void test_authenticated(void **state)
{
    struct end *end = NULL, *next;
    while ((next = open_request(RELAY_KIND_CAPSULES, "/udp")) != NULL)
        end = next;
    assert_int_equal(f.num_client_ends, 100);
    assert_true(run_until(&f.loop, &end->is_answered, 5000));
    relay_session_authenticated(f.server);
    run_until(&f.loop, NULL, 50);
    while (f.num_client_ends < 1000 && (next = open_request(RELAY_KIND_CAPSULES, "/udp")) != NULL)
        end = next;
    assert_int_equal(f.num_client_ends, 1000);
    assert_true(run_until(&f.loop, &end->is_answered, 5000));
    assert_int_equal(f.server->num_tunnels, 1000);
}

static void test_shutdown(void **state)
{
    struct end *end = open_request(RELAY_KIND_BYTES, "/");
    assert_true(run_until(&f.loop, &end->is_answered, 5000));
    relay_session_shutdown(f.server);
    assert_true(run_until(&f.loop, &f.got_goaway, 5000));
    assert_null(open_request(RELAY_KIND_BYTES, "/"));
    f.to_send = 0;
    end->is_sending = true;
    push(end);
    assert_true(run_until(&f.loop, &f.client_closed, 5000));
    assert_true(end->got_fin && end->close_error == RELAY_OK);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_get),    TEST(test_connect_echo),  TEST(test_datagrams),     TEST(test_refused),
        TEST(test_resets), TEST(test_many_requests), TEST(test_authenticated), TEST(test_shutdown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
