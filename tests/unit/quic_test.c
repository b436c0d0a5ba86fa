/* A QUIC client over a real socket against an endpoint on loopback, in one loop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <cmocka.h>
#include <ngtcp2/ngtcp2.h>

#include "lib/net/metrics.h"
#include "lib/net/path_socket.h"
#include "lib/net/quic_conn.h"
#include "lib/net/quic_conn_internal.h"
#include "lib/net/quic_endpoint.h"
#include "lib/net/quic_memory.h"
#include "lib/net/quic_tls.h"
#include "lib/net/tls_context.h"
#include "lib/wire/error.h"
#include "tests/unit/quic_harness.h"

#define BULK      (1024 * 1024)
#define STREAMS   8
#define STOP_CODE 0x10c

/* One side of a connection: sends `to_send` bytes of a pattern on `stream`, or echoes what comes. */
struct side {
    struct relay_quic_conn *conn;
    struct relay_loop *loop;
    bool is_server, is_ready, is_closed, fin_came, reset_came, stream_closed, is_blocked, all_came;
    int close_error;
    uint64_t close_code, reset_code;
    int64_t stream;
    uint8_t *out;
    size_t out_len, out_sent, out_acked;
    bool fin, fin_sent;
    size_t came;
    uint64_t mismatch;
    unsigned datagrams, expect_datagrams;
    size_t datagram_size;
    unsigned writable;
};

static struct fixture {
    struct relay_metrics metrics;
    struct relay_loop loop;
    struct relay_limits limits;
    struct certificate certificate;
    struct relay_quic_tickets *tickets;
    struct relay_quic_credentials *server, *client;
    struct relay_quic_group *group;
    struct relay_quic_endpoint *endpoint;
    struct sockaddr_storage address;
    struct side a, b; /* the client, the server */
    bool refuse;
    bool was_offered_ready; /* the handshake was complete when the server was told of the connection */
} f;

static uint8_t pattern(size_t at)
{
    return (uint8_t)(at * 31 + (at >> 8));
}

static int on_ready(void *user)
{
    ((struct side *)user)->is_ready = true;
    return 0;
}

static uint64_t on_stream_data(void *user, int64_t stream, const uint8_t *bytes, size_t len, bool fin)
{
    struct side *side = user;
    side->stream = stream;
    if (side->is_server) {
        if (side->out == NULL)
            side->out = malloc(BULK);
        assert_true(side->out_len + len <= BULK);
        memcpy(side->out + side->out_len, bytes, len);
        side->out_len += len;
        side->fin |= fin;
        relay_quic_conn_mark_dirty(side->conn);
    } else {
        for (size_t i = 0; i < len; i++)
            side->mismatch += bytes[i] != pattern(side->came + i);
    }
    side->came += len;
    side->fin_came |= fin;
    relay_quic_conn_credit(side->conn, len);
    relay_quic_conn_credit_stream(side->conn, stream, len);
    return 0;
}

static void on_stream_acked(void *user, int64_t stream, uint64_t len)
{
    ((struct side *)user)->out_acked += len;
}

static void on_stream_reset(void *user, int64_t stream, uint64_t code)
{
    struct side *side = user;
    side->stream = stream;
    side->reset_came = true;
    side->reset_code = code;
}

static void on_stream_closed(void *user, int64_t stream, uint64_t code)
{
    ((struct side *)user)->stream_closed = true;
}

static void on_stream_credit(void *user, int64_t stream)
{
    ((struct side *)user)->is_blocked = false;
}

static void on_streams_allowed(void *user)
{
}

static uint64_t on_datagram(void *user, const uint8_t *bytes, size_t len)
{
    struct side *side = user;
    side->datagrams++;
    side->datagram_size = len;
    if (side->datagrams == side->expect_datagrams)
        side->all_came = true;
    return len > 0 && bytes[0] == 0xff ? 0x33 : 0;
}

static int on_pull(void *user, int64_t *stream, bool *fin, struct iovec *pieces, int size)
{
    struct side *side = user;
    if (side->stream < 0 || side->is_blocked ||
        (side->out_sent == side->out_len && (!side->fin || side->fin_sent)))
        return -1;
    *stream = side->stream;
    *fin = side->fin;
    if (side->out_sent == side->out_len)
        return 0;
    pieces[0] = (struct iovec){side->out + side->out_sent, side->out_len - side->out_sent};
    return 1;
}

static void on_pulled(void *user, int64_t stream, size_t len)
{
    struct side *side = user;
    side->out_sent += len;
    if (side->fin && side->out_sent == side->out_len)
        side->fin_sent = true;
}

static void on_stream_blocked(void *user, int64_t stream, bool shut)
{
    struct side *side = user;
    side->is_blocked = true;
}

static void on_writable(void *user)
{
    ((struct side *)user)->writable++;
}

static void on_close(void *user, int error, uint64_t code)
{
    struct side *side = user;
    assert_false(side->is_closed);
    side->is_closed = true;
    side->close_error = error;
    side->close_code = code;
    side->conn = NULL;
}

static const struct relay_quic_user side_cb = {.on_ready = on_ready,
                                               .on_stream_data = on_stream_data,
                                               .on_stream_acked = on_stream_acked,
                                               .on_stream_reset = on_stream_reset,
                                               .on_stream_closed = on_stream_closed,
                                               .on_stream_credit = on_stream_credit,
                                               .on_streams_allowed = on_streams_allowed,
                                               .on_datagram = on_datagram,
                                               .pull = on_pull,
                                               .on_pulled = on_pulled,
                                               .on_stream_blocked = on_stream_blocked,
                                               .on_writable = on_writable,
                                               .on_close = on_close};

static void on_connection(void *user, struct relay_quic_conn *conn)
{
    f.was_offered_ready = relay_quic_conn_is_ready(conn);
    if (f.refuse)
        return;
    assert_null(f.b.conn);
    f.b.conn = conn;
    f.b.is_server = true;
    f.b.stream = -1;
    relay_quic_conn_set_user(conn, &side_cb, &f.b);
}

static int group_setup(void **state)
{
    certificate_make(&f.certificate, "relay.example");
    return 0;
}

static int group_teardown(void **state)
{
    certificate_remove(&f.certificate);
    return 0;
}

static int setup(void **state)
{
    static const struct relay_quic_endpoint_user cb = {.on_connection = on_connection};
    struct certificate certificate = f.certificate;
    char reason[RELAY_QUIC_ERROR_SIZE];
    int fd;
    memset(&f, 0, sizeof(f));
    f.certificate = certificate;
    f.limits = RELAY_LIMITS_DEFAULT;
    assert_int_equal(relay_loop_init(&f.loop, &f.metrics), 0);
    f.tickets = relay_quic_tickets_new();
    assert_int_equal(relay_quic_credentials_server(certificate.chain, certificate.key, "here", f.tickets,
                                                   &f.server, reason),
                     0);
    assert_int_equal(relay_quic_credentials_client(certificate.chain, NULL, 0, &f.client, reason), 0);
    f.group = relay_quic_group_new(1);
    struct sockaddr_in *address = (struct sockaddr_in *)&f.address;
    address->sin_family = AF_INET;
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(relay_quic_group_bind(f.group, &f.address, &fd), 0);
    struct relay_quic_endpoint_config config = {
        .loop = &f.loop, .group = f.group, .credentials = f.server, .limits = &f.limits, .cb = &cb};
    assert_int_equal(relay_quic_endpoint_new(&config, &f.endpoint), 0);
    assert_int_equal(relay_quic_endpoint_add_socket(f.endpoint, fd), 0);
    f.a.stream = -1;
    return 0;
}

static int teardown(void **state)
{
    if (f.a.conn != NULL)
        relay_quic_conn_close(f.a.conn, 0, RELAY_ERR_CANCELLED);
    relay_quic_endpoint_close(f.endpoint, 0);
    run_until(&f.loop, NULL, 20);
    relay_loop_cut_lingering(&f.loop);
    run_until(&f.loop, NULL, 1);
    assert_int_equal(relay_quic_endpoint_num_connections(f.endpoint), 0);
    relay_quic_endpoint_free(f.endpoint);
    relay_quic_group_unref(f.group);
    relay_quic_credentials_unref(f.server);
    relay_quic_credentials_unref(f.client);
    relay_quic_tickets_unref(f.tickets);
    free(f.a.out);
    free(f.b.out);
    assert_int_equal(f.metrics.open_half, 0);
    relay_loop_dispose(&f.loop);
    return 0;
}

static void dial_as(const char *name, struct relay_quic_credentials *credentials)
{
    struct relay_packet_path *path;
    struct relay_quic_client_config config = {.credentials = credentials,
                                              .server_name = name,
                                              .limits = &f.limits,
                                              .level = RELAY_LEVEL_FLUSH_OUTER};
    assert_int_equal(relay_path_socket_new(&f.loop, (struct sockaddr *)&f.address, NULL, &path), 0);
    f.a.conn = relay_quic_connect(&f.loop, path, &config, &side_cb, &f.a);
    assert_non_null(f.a.conn);
}

static void dial(void)
{
    dial_as("relay.example", f.client);
    assert_true(run_until(&f.loop, &f.a.is_ready, 5000));
    assert_true(run_until(&f.loop, &f.b.is_ready, 5000));
}

static void start_bulk(void)
{
    f.a.out = malloc(BULK);
    for (size_t i = 0; i < BULK; i++)
        f.a.out[i] = pattern(i);
    f.a.out_len = BULK;
    f.a.fin = true;
    assert_int_equal(relay_quic_conn_open_bidi(f.a.conn, &f.a.stream), 0);
    relay_quic_conn_mark_dirty(f.a.conn);
}

static void test_handshake(void **state)
{
    dial();
    assert_int_equal(f.metrics.handshakes_ok, 1);
    assert_int_equal(f.metrics.quic_retry, 0);
    assert_true(f.was_offered_ready);
    assert_true(relay_quic_conn_max_datagram(f.a.conn) >= 1250 - 30);
    assert_int_equal(((const struct sockaddr_in *)relay_quic_conn_peer(f.a.conn))->sin_port,
                     ((struct sockaddr_in *)&f.address)->sin_port);
}

static void test_echo(void **state)
{
    dial();
    start_bulk();
    assert_true(run_until(&f.loop, &f.a.fin_came, 20000));
    assert_int_equal(f.a.came, BULK);
    assert_int_equal(f.a.mismatch, 0);
    assert_true(run_until(&f.loop, &f.b.stream_closed, 5000));
    assert_int_equal(f.a.out_acked, BULK);
    assert_int_equal(f.b.out_acked, BULK);
}

static void test_reset(void **state)
{
    dial();
    assert_int_equal(relay_quic_conn_open_bidi(f.a.conn, &f.a.stream), 0);
    f.a.out = malloc(1);
    f.a.out[0] = 1;
    f.a.out_len = 1;
    relay_quic_conn_mark_dirty(f.a.conn);
    run_until(&f.loop, NULL, 20);
    assert_int_equal(f.b.came, 1);
    relay_quic_conn_reset_stream(f.a.conn, f.a.stream, STOP_CODE);
    assert_true(run_until(&f.loop, &f.b.reset_came, 2000));
    assert_int_equal(f.b.reset_code, STOP_CODE);
    assert_true(run_until(&f.loop, &f.a.stream_closed, 2000));
}

static enum relay_sent send_one(struct side *side, size_t len, uint8_t first)
{
    static uint8_t bytes[2000];
    struct iovec pieces[2] = {{&first, 1}, {bytes, len - 1}};
    return relay_quic_conn_send_datagram(side->conn, pieces, 2);
}

static void test_datagrams(void **state)
{
    dial();
    run_until(&f.loop, NULL, 60);
    f.a.expect_datagrams = f.b.expect_datagrams = 300;
    for (unsigned sent_a = 0, sent_b = 0; sent_a < 300 || sent_b < 300;) {
        if (sent_a < 300 && send_one(&f.a, 1200, 0) == RELAY_SENT)
            sent_a++;
        else if (sent_b < 300 && send_one(&f.b, 1000, 0) == RELAY_SENT)
            sent_b++;
        else
            run_until(&f.loop, NULL, 1);
    }
    assert_true(run_until(&f.loop, &f.b.all_came, 2000));
    assert_true(run_until(&f.loop, &f.a.all_came, 2000));
    assert_int_equal(f.b.datagram_size, 1200);
    assert_int_equal(f.a.datagram_size, 1000);
    assert_int_equal(send_one(&f.a, 1900, 0), RELAY_TOO_BIG);
    assert_int_equal(send_one(&f.a, relay_quic_conn_max_datagram(f.a.conn) + 1, 0), RELAY_TOO_BIG);
    assert_int_equal(send_one(&f.a, relay_quic_conn_max_datagram(f.a.conn), 0), RELAY_SENT);
}

/* More than the window: the answer is "blocked", and on_writable comes. */
static void test_datagrams_blocked(void **state)
{
    dial();
    unsigned sent = 0;
    while (sent < 10000 && send_one(&f.a, 1000, 0) == RELAY_SENT)
        sent++;
    assert_in_range(sent, 5, 9999);
    assert_int_equal(f.a.writable, 0);
    run_until(&f.loop, NULL, 200);
    assert_int_equal(f.a.writable, 1);
    assert_int_equal(f.b.datagrams, sent);
}

/* The cap rises with the probes, in both directions. */
static void test_mtu(void **state)
{
    dial();
    for (int i = 0; i < 100 && (relay_quic_conn_max_datagram(f.a.conn) < 1452 - 30 ||
                                relay_quic_conn_max_datagram(f.b.conn) < 1452 - 30);
         i++) {
        (void)send_one(&f.a, 10, 0);
        (void)send_one(&f.b, 10, 0);
        run_until(&f.loop, NULL, 20);
    }
    assert_int_equal(relay_quic_conn_max_datagram(f.a.conn), 1452 - 30);
    assert_int_equal(relay_quic_conn_max_datagram(f.b.conn), 1452 - 30);
}

/* ---- a path that loses, or takes little ---- */

static struct narrow {
    struct relay_packet_path path, *below;
    size_t pass_max, room, lost;
    size_t closing; /* connections that repeat their farewell */
} narrow;

static void narrow_on_packet(void *user, uint8_t *packet, size_t len, uint8_t ecn)
{
    if (narrow.path.cb != NULL)
        narrow.path.cb->on_packet(narrow.path.user, packet, len, ecn);
}

static void narrow_on_event(void *user)
{
}

static void narrow_on_close(void *user, int error)
{
}

static size_t narrow_send(struct relay_packet_path *path, const uint8_t *run, size_t len, size_t segment)
{
    size_t taken = 0;
    while (taken < len && taken < narrow.room) {
        size_t size = len - taken < segment ? len - taken : segment;
        if (size > narrow.pass_max)
            narrow.lost++;
        else
            narrow.below->ops->send(narrow.below, run + taken, size, size);
        taken += size;
    }
    return taken;
}

static size_t narrow_mtu(struct relay_packet_path *path)
{
    return 1452;
}

static size_t narrow_room(struct relay_packet_path *path)
{
    return narrow.room;
}

static void narrow_close(struct relay_packet_path *path)
{
    path->cb = NULL;
    narrow.below->ops->close(narrow.below);
}

static void dial_narrow(void)
{
    static const struct relay_packet_path_ops ops = {
        .send = narrow_send, .mtu = narrow_mtu, .room = narrow_room, .close = narrow_close};
    static const struct relay_packet_path_user below = {.on_packet = narrow_on_packet,
                                                        .on_writable = narrow_on_event,
                                                        .on_mtu = narrow_on_event,
                                                        .on_close = narrow_on_close};
    struct relay_quic_client_config config = {.credentials = f.client,
                                              .server_name = "relay.example",
                                              .limits = &f.limits,
                                              .level = RELAY_LEVEL_FLUSH_OUTER,
                                              .closing = &narrow.closing};
    narrow = (struct narrow){.pass_max = SIZE_MAX, .room = SIZE_MAX};
    assert_int_equal(relay_path_socket_new(&f.loop, (struct sockaddr *)&f.address, NULL, &narrow.below), 0);
    narrow.below->cb = &below;
    narrow.path.ops = &ops;
    narrow.path.local = narrow.below->local;
    narrow.path.peer = narrow.below->peer;
    f.a.conn = relay_quic_connect(&f.loop, &narrow.path, &config, &side_cb, &f.a);
    assert_true(run_until(&f.loop, &f.a.is_ready, 5000));
    assert_true(run_until(&f.loop, &f.b.is_ready, 5000));
}

/* The server hears of the end although the packet that said so was lost, or the path took none. */
static void lose_farewell(size_t pass_max, size_t room)
{
    dial_narrow();
    run_until(&f.loop, NULL, 50);
    narrow.pass_max = pass_max;
    narrow.room = room;
    relay_quic_conn_close(f.a.conn, 0x107, RELAY_ERR_CANCELLED);
    assert_true(run_until(&f.loop, &f.a.is_closed, 1000));
    assert_false(f.b.is_closed);
    assert_int_equal(narrow.closing, 1);
    narrow.pass_max = narrow.room = SIZE_MAX;
    if (room == 0)
        narrow.path.cb->on_writable(narrow.path.user);
    assert_true(run_until(&f.loop, &f.b.is_closed, 2000));
    assert_int_equal(f.b.close_code, 0x107);
    for (int i = 0; i < 100 && narrow.closing > 0; i++)
        run_until(&f.loop, NULL, 10);
    assert_int_equal(narrow.closing, 0);
    assert_null(narrow.path.cb);
}

static void test_farewell_is_lost(void **state)
{
    lose_farewell(0, SIZE_MAX);
    assert_int_equal(narrow.lost, 1);
}

static void test_farewell_is_blocked(void **state)
{
    lose_farewell(SIZE_MAX, 0);
}

/* After the probes the path carries less: the transfer goes on in smaller packets. */
static void test_black_hole(void **state)
{
    dial_narrow();
    for (int i = 0; i < 100 && (relay_quic_conn_max_datagram(f.a.conn) < 1452 - 30 ||
                                relay_quic_conn_max_datagram(f.b.conn) < 1452 - 30);
         i++) {
        (void)send_one(&f.a, 10, 0);
        run_until(&f.loop, NULL, 20);
    }
    assert_int_equal(relay_quic_conn_max_datagram(f.a.conn), 1452 - 30);
    narrow.pass_max = 1300;
    start_bulk();
    assert_true(run_until(&f.loop, &f.a.fin_came, 10000));
    assert_int_equal(f.a.mismatch, 0);
    assert_true(narrow.lost > 0);
    assert_int_equal(relay_quic_conn_max_datagram(f.a.conn), 1250 - 30);
}

/* Only small packets pass, and the peer goes on talking, so that it is never silent: the cap falls all the same,
 * and is tried again later. */
static void test_black_hole_of_datagrams(void **state)
{
    dial_narrow();
    for (int i = 0; i < 100 && relay_quic_conn_max_datagram(f.a.conn) < 1452 - 30; i++) {
        (void)send_one(&f.a, 10, 0);
        run_until(&f.loop, NULL, 20);
    }
    assert_int_equal(relay_quic_conn_max_datagram(f.a.conn), 1452 - 30);
    narrow.pass_max = 1300;
    for (int i = 0; i < 1000 && relay_quic_conn_max_datagram(f.a.conn) > 1250 - 30; i++) {
        for (int k = 0; k < 4; k++)
            (void)send_one(&f.a, relay_quic_conn_max_datagram(f.a.conn), 0);
        (void)send_one(&f.b, 10, 0);
        run_until(&f.loop, NULL, 10);
    }
    assert_int_equal(relay_quic_conn_max_datagram(f.a.conn), 1250 - 30);
    assert_true(narrow.lost > 0);
    assert_int_equal(f.metrics.quic_mtu_hole, 1);
    unsigned before = f.b.datagrams, sent = 0;
    for (int i = 0; i < 500 && sent < 50; i++) { /* what was lost fills the window until that is known */
        sent += send_one(&f.a, 1250 - 30, 0) == RELAY_SENT ? 1 : 0;
        run_until(&f.loop, NULL, 10);
    }
    assert_int_equal(sent, 50);
    for (int i = 0; i < 100 && f.b.datagrams < before + 50; i++)
        run_until(&f.loop, NULL, 10);
    assert_true(f.b.datagrams >= before + 50);
    assert_int_equal(relay_quic_conn_max_datagram(f.a.conn), 1250 - 30);
}

/* The ascent needs no traffic: what the connection is for may be one large datagram an hour later. */
static void test_mtu_of_idle(void **state)
{
    dial();
    for (int i = 0; i < 50 && relay_quic_conn_max_datagram(f.a.conn) < 1452 - 30; i++)
        run_until(&f.loop, NULL, 100);
    assert_int_equal(relay_quic_conn_max_datagram(f.a.conn), 1452 - 30);
}

/* A probe that vanishes does not raise the cap. */
static void test_mtu_not_raised(void **state)
{
    dial_narrow();
    narrow.pass_max = 1360;
    for (int i = 0; i < 40; i++) {
        (void)send_one(&f.a, 10, 0);
        run_until(&f.loop, NULL, 20);
    }
    assert_int_equal(relay_quic_conn_max_datagram(f.a.conn), 1350 - 30);
    assert_true(narrow.lost >= 3);
}

/* The path takes one packet at a time, as a blocked tunnel does: nothing is lost, all arrives. */
static void test_short_room(void **state)
{
    dial_narrow();
    run_until(&f.loop, NULL, 50);
    narrow.room = 0;
    assert_int_equal(send_one(&f.a, 1000, 0), RELAY_BLOCKED);
    assert_int_equal(relay_quic_conn_room(f.a.conn), 0);
    narrow.room = 3000;
    start_bulk();
    for (int i = 0; i < 5000 && !f.a.fin_came; i++) {
        narrow.path.cb->on_writable(narrow.path.user);
        run_until(&f.loop, &f.a.fin_came, 1);
    }
    assert_true(f.a.fin_came);
    assert_int_equal(f.a.mismatch, 0);
    assert_int_equal(f.a.writable, 1);
}

/* In place of ngtcp2's: as that does when memory is out, it sets the pointer and frees what it points to. */
static bool is_memory_out;

int ngtcp2_conn_server_new_versioned(ngtcp2_conn **made, const ngtcp2_cid *dcid, const ngtcp2_cid *scid,
                                     const ngtcp2_path *path, uint32_t version, int callbacks_version,
                                     const ngtcp2_callbacks *callbacks, int settings_version,
                                     const ngtcp2_settings *settings, int params_version,
                                     const ngtcp2_transport_params *params, const ngtcp2_mem *mem, void *user)
{
    union {
        void *symbol;
        typeof(&ngtcp2_conn_server_new_versioned) call;
    } real = {dlsym(RTLD_NEXT, "ngtcp2_conn_server_new_versioned")};
    int code = real.call(made, dcid, scid, path, version, callbacks_version, callbacks, settings_version,
                         settings, params_version, params, mem, user);
    if (code != 0 || !is_memory_out)
        return code;
    ngtcp2_conn_del(*made);
    return NGTCP2_ERR_NOMEM;
}

static void test_memory_is_out(void **state)
{
    is_memory_out = true;
    dial_as("relay.example", f.client);
    assert_false(run_until(&f.loop, &f.a.is_ready, 100));
    assert_null(f.b.conn);
    is_memory_out = false; /* the client sends its first packet again */
    assert_true(run_until(&f.loop, &f.a.is_ready, 5000));
}

static void test_retry(void **state)
{
    f.limits.half_open_retry = 0;
    dial();
    assert_int_equal(f.metrics.quic_retry, 1);
    assert_false(f.was_offered_ready); /* its token proved the address */
    start_bulk();
    assert_true(run_until(&f.loop, &f.a.fin_came, 20000));
}

/* Ends both sides, and forgets them. */
static void hang_up(void)
{
    relay_quic_conn_close(f.a.conn, 0, 0);
    assert_true(run_until(&f.loop, &f.b.is_closed, 1000));
    free(f.a.out);
    free(f.b.out);
    memset(&f.a, 0, sizeof(f.a));
    memset(&f.b, 0, sizeof(f.b));
    f.a.stream = -1;
}

static void dial_again(struct relay_quic_memory *memory, const char *local, uint64_t retries, bool resumes)
{
    struct relay_packet_path *path;
    struct sockaddr_in from = {.sin_family = AF_INET};
    struct relay_quic_client_config config = {.credentials = f.client,
                                              .server_name = "relay.example",
                                              .limits = &f.limits,
                                              .level = RELAY_LEVEL_FLUSH_OUTER,
                                              .memory = memory};
    inet_pton(AF_INET, local, &from.sin_addr);
    assert_int_equal(
        relay_path_socket_new(&f.loop, (struct sockaddr *)&f.address, (struct sockaddr *)&from, &path), 0);
    f.a.conn = relay_quic_connect(&f.loop, path, &config, &side_cb, &f.a);
    assert_true(run_until(&f.loop, &f.a.is_ready, 5000));
    assert_true(run_until(&f.loop, &f.b.is_ready, 5000));
    assert_int_equal(f.metrics.quic_retry, retries);
    assert_int_equal(gnutls_session_is_resumed(f.a.conn->tls.session) != 0, resumes);
    start_bulk();
    assert_true(run_until(&f.loop, &f.a.fin_came, 20000));
    assert_int_equal(f.a.mismatch, 0);
    hang_up();
}

/* A client that comes again skips the Retry and the certificates; from another network it is a stranger. */
static void test_coming_again(void **state)
{
    struct relay_quic_memory *memory = relay_quic_memory_new();
    f.limits.half_open_retry = 0;
    dial_again(memory, "127.0.0.1", 1, false);
    dial_again(memory, "127.0.0.1", 1, true);
    dial_again(memory, "127.0.0.1", 1, true); /* with what the second connection was given */
    dial_again(memory, "127.0.0.2", 2, false);
    dial_again(memory, "127.0.0.1", 3, false);
    dial_again(memory, "127.0.0.1", 3, true);
    dial_again(NULL, "127.0.0.1", 4, false);
    relay_quic_memory_unref(memory);
}

static void test_half_open_max(void **state)
{
    f.limits.half_open_max = 0;
    dial_as("relay.example", f.client);
    assert_false(run_until(&f.loop, &f.a.is_ready, 100));
    assert_true(f.metrics.limit_half_open > 0);
}

/* One that began and was never heard of again is ended for the next, and its end frees it. */
static void test_half_open_makes_room(void **state)
{
    f.limits.half_open_max = 1;
    dial_as("relay.example", f.client);
    while (f.metrics.open_half == 0)
        uv_run(&f.loop.uv, UV_RUN_ONCE);
    relay_quic_conn_free(f.a.conn);
    memset(&f.a, 0, sizeof(f.a));
    f.a.stream = -1;
    dial();
    assert_int_equal(f.metrics.limit_half_open, 1);
    assert_int_equal(f.metrics.open_half, 0);
    assert_int_equal(relay_quic_endpoint_num_connections(f.endpoint), 1);
    start_bulk();
    assert_true(run_until(&f.loop, &f.a.fin_came, 20000));
}

/* With Retry the user was told of it, and is told of its end; the client is not. */
static void test_half_open_told_makes_room(void **state)
{
    f.limits.half_open_retry = 0;
    f.limits.half_open_max = 1;
    dial_as("relay.example", f.client);
    while (f.b.conn == NULL)
        uv_run(&f.loop.uv, UV_RUN_ONCE);
    relay_quic_conn_free(f.a.conn);
    f.a.conn = NULL;
    f.refuse = true; /* the next one has no user, and ends for that */
    dial_as("relay.example", f.client);
    assert_true(run_until(&f.loop, &f.b.is_closed, 5000));
    assert_int_equal(f.b.close_error, RELAY_ERR_LIMIT);
    assert_true(run_until(&f.loop, &f.a.is_closed, 5000));
    assert_int_equal(f.a.close_error, RELAY_ERR_REFUSED);
    assert_int_equal(f.metrics.limit_half_open, 1);
}

static void test_close_code(void **state)
{
    dial();
    relay_quic_conn_close(f.a.conn, 0x107, RELAY_ERR_CANCELLED);
    assert_true(run_until(&f.loop, &f.b.is_closed, 2000));
    assert_int_equal(f.b.close_error, RELAY_ERR_CLOSED);
    assert_int_equal(f.b.close_code, 0x107);
    assert_true(f.a.is_closed);
    assert_int_equal(f.a.close_error, RELAY_ERR_CANCELLED);
}

static void test_user_error(void **state)
{
    dial();
    assert_int_equal(send_one(&f.a, 10, 0xff), RELAY_SENT);
    assert_true(run_until(&f.loop, &f.a.is_closed, 2000));
    assert_int_equal(f.a.close_code, 0x33);
    assert_true(f.b.is_closed);
    assert_int_equal(f.b.close_error, RELAY_ERR_PROTOCOL);
}

static void test_refused(void **state)
{
    f.refuse = true;
    dial_as("relay.example", f.client);
    assert_true(run_until(&f.loop, &f.a.is_closed, 2000));
    assert_int_equal(f.a.close_error, RELAY_ERR_REFUSED);
}

static void test_shutdown(void **state)
{
    relay_quic_endpoint_shutdown(f.endpoint);
    dial_as("relay.example", f.client);
    assert_true(run_until(&f.loop, &f.a.is_closed, 2000));
    assert_int_equal(f.a.close_error, RELAY_ERR_REFUSED);
}

static void test_shutdown_of_half_open(void **state)
{
    dial_as("relay.example", f.client);
    while (f.metrics.open_half == 0)
        uv_run(&f.loop.uv, UV_RUN_ONCE);
    relay_quic_endpoint_shutdown(f.endpoint);
    assert_true(run_until(&f.loop, &f.a.is_closed, 2000));
    assert_int_equal(f.a.close_error, RELAY_ERR_REFUSED);
    assert_null(f.b.conn);
}

static void test_idle(void **state)
{
    f.limits.quic_idle_timeout = 300 * RELAY_MS;
    dial();
    assert_true(run_until(&f.loop, &f.a.is_closed, 3000));
    assert_int_equal(f.a.close_error, RELAY_ERR_IDLE);
    assert_true(run_until(&f.loop, &f.b.is_closed, 1000));
    assert_int_equal(f.b.close_error, RELAY_ERR_IDLE);
}

static void test_keep_alive(void **state)
{
    f.limits.quic_idle_timeout = 300 * RELAY_MS;
    dial();
    relay_quic_conn_keep_alive(f.b.conn, true);
    assert_false(run_until(&f.loop, &f.a.is_closed, 1000));
    relay_quic_conn_keep_alive(f.b.conn, false);
    assert_true(run_until(&f.loop, &f.a.is_closed, 3000));
}

static void test_wrong_name(void **state)
{
    dial_as("other.example", f.client);
    assert_true(run_until(&f.loop, &f.a.is_closed, 2000));
    assert_int_equal(f.a.close_error, RELAY_ERR_CERTIFICATE_NAME);
    assert_false(f.a.is_ready);
}

static void test_pins(void **state)
{
    char reason[RELAY_QUIC_ERROR_SIZE];
    struct relay_quic_credentials *pinned;
    uint8_t pins[2][RELAY_QUIC_PIN_SIZE] = {{1}};
    memcpy(pins[1], f.certificate.pin, sizeof(pins[1]));
    assert_int_equal(relay_quic_credentials_client(NULL, (const uint8_t(*)[32])pins, 2, &pinned, reason), 0);
    dial_as("any.example", pinned);
    assert_true(run_until(&f.loop, &f.a.is_ready, 2000));
    relay_quic_credentials_unref(pinned);
    relay_quic_conn_close(f.a.conn, 0, 0);
    run_until(&f.loop, &f.b.is_closed, 1000);
    memset(&f.a, 0, sizeof(f.a));
    memset(&f.b, 0, sizeof(f.b));
    assert_int_equal(relay_quic_credentials_client(NULL, (const uint8_t(*)[32])pins, 1, &pinned, reason), 0);
    dial_as("relay.example", pinned);
    relay_quic_credentials_unref(pinned);
    assert_true(run_until(&f.loop, &f.a.is_closed, 2000));
    assert_int_equal(f.a.close_error, RELAY_ERR_CERTIFICATE_PIN);
}

/* A key with a passphrase, in the folder of the certificate. */
static void write_locked_key(char *path, size_t size)
{
    gnutls_x509_privkey_t key;
    static char pem[8192];
    size_t len = sizeof(pem);
    gnutls_x509_privkey_init(&key);
    gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0);
    assert_int_equal(gnutls_x509_privkey_export_pkcs8(key, GNUTLS_X509_FMT_PEM, "secret",
                                                      GNUTLS_PKCS_PBES2_AES_128, pem, &len),
                     0);
    gnutls_x509_privkey_deinit(key);
    snprintf(path, size, "%s/locked.pem", f.certificate.folder);
    write_file(path, &(gnutls_datum_t){(unsigned char *)pem, (unsigned)len});
}

static void test_bad_files(void **state)
{
    char reason[RELAY_QUIC_ERROR_SIZE] = "";
    struct relay_quic_credentials *none;
    assert_int_equal(
        relay_quic_credentials_server("/nonexistent", f.certificate.key, "here", NULL, &none, reason),
        RELAY_ERR_CERTIFICATE);
    assert_null(none);
    assert_non_null(strstr(reason, "/nonexistent"));
    char locked[128];
    write_locked_key(locked, sizeof(locked));
    assert_int_equal(relay_quic_credentials_server(f.certificate.chain, locked, "here", NULL, &none, reason),
                     RELAY_ERR_CERTIFICATE);
    assert_true(strstr(reason, locked) == reason && strstr(reason, RELAY_TLS_IS_ENCRYPTED) != NULL);
    unlink(locked);
    assert_int_equal(relay_quic_credentials_client("/nonexistent", NULL, 0, &none, reason),
                     RELAY_ERR_CERTIFICATE);
    assert_non_null(strstr(reason, "/nonexistent"));
}

static void test_migration(void **state)
{
    struct relay_packet_path *path;
    dial();
    run_until(&f.loop, NULL, 50);
    start_bulk();
    run_until(&f.loop, NULL, 2);
    assert_false(f.a.fin_came);
    assert_int_equal(relay_path_socket_new(&f.loop, (struct sockaddr *)&f.address, NULL, &path), 0);
    in_port_t port = ((struct sockaddr_in *)&path->local)->sin_port;
    assert_int_equal(relay_quic_conn_migrate(f.a.conn, path), 0);
    assert_true(run_until(&f.loop, &f.a.fin_came, 20000));
    assert_int_equal(f.a.came, BULK);
    assert_int_equal(f.a.mismatch, 0);
    run_until(&f.loop, NULL, 50);
    assert_int_equal(((const struct sockaddr_in *)relay_quic_conn_peer(f.b.conn))->sin_port, port);
    assert_int_equal(f.metrics.quic_migrations, 2); /* both sides are in this process */
}

/* Each sooner than the server can have done with the one before. */
static void test_many_migrations(void **state)
{
    unsigned moves = 0;
    srand(3);
    dial();
    run_until(&f.loop, NULL, 50);
    start_bulk();
    for (int i = 0; i < 150; i++) {
        struct relay_packet_path *path;
        assert_int_equal(relay_path_socket_new(&f.loop, (struct sockaddr *)&f.address, NULL, &path), 0);
        int error = relay_quic_conn_migrate(f.a.conn, path);
        assert_true(error == 0 || error == RELAY_ERR_LIMIT);
        moves += error == 0;
        run_until(&f.loop, NULL, (unsigned)(1 + rand() % 12));
        assert_false(f.a.is_closed);
        assert_false(f.b.is_closed);
        (void)send_one(&f.a, 10, 0);
    }
    assert_true(moves > 60);
    assert_true(run_until(&f.loop, &f.a.fin_came, 10000));
    assert_int_equal(f.a.came, BULK);
    assert_int_equal(f.a.mismatch, 0);
}

/* The client's address changes and it does not know: the answers follow it. */
static void test_rebinding(void **state)
{
    const struct relay_packet_path_user *below;
    dial_narrow();
    run_until(&f.loop, NULL, 50);
    below = narrow.below->cb;
    narrow.below->ops->close(narrow.below);
    assert_int_equal(relay_path_socket_new(&f.loop, (struct sockaddr *)&f.address, NULL, &narrow.below), 0);
    narrow.below->cb = below;
    start_bulk();
    assert_true(run_until(&f.loop, &f.a.fin_came, 10000));
    assert_int_equal(f.a.mismatch, 0);
    assert_int_equal(((const struct sockaddr_in *)relay_quic_conn_peer(f.b.conn))->sin_port,
                     ((struct sockaddr_in *)&narrow.below->local)->sin_port);
    assert_int_equal(f.metrics.quic_migrations, 1);
}

/* A socket on a wildcard address answers from the address that the client spoke to, of either family. */
static void test_wildcard(void **state)
{
    struct sockaddr_in any = {.sin_family = AF_INET};
    struct sockaddr_in6 any6 = {.sin6_family = AF_INET6};
    int fd;
    for (int family = 0; family < 2; family++) {
        memset(&f.address, 0, sizeof(f.address));
        if (family == 0)
            memcpy(&f.address, &any, sizeof(any));
        else
            memcpy(&f.address, &any6, sizeof(any6));
        assert_int_equal(relay_quic_group_bind(f.group, &f.address, &fd), 0);
        assert_int_equal(relay_quic_endpoint_add_socket(f.endpoint, fd), 0);
        if (family == 0)
            ((struct sockaddr_in *)&f.address)->sin_addr.s_addr = htonl(0x7f000005); /* 127.0.0.5 */
        else
            ((struct sockaddr_in6 *)&f.address)->sin6_addr = in6addr_loopback;
        dial();
        assert_memory_equal(relay_quic_conn_local(f.b.conn), &f.address,
                            family == 0 ? sizeof(any) : sizeof(any6));
        assert_int_equal(relay_quic_conn_max_datagram(f.a.conn), (family == 0 ? 1250 : 1232) - 30);
        relay_quic_conn_close(f.a.conn, 0, 0);
        assert_true(run_until(&f.loop, &f.b.is_closed, 1000));
        memset(&f.a, 0, sizeof(f.a));
        memset(&f.b, 0, sizeof(f.b));
        f.a.stream = -1;
    }
}

static void test_nobody_listens(void **state)
{
    ((struct sockaddr_in *)&f.address)->sin_port = htons(9);
    dial_as("relay.example", f.client);
    assert_true(run_until(&f.loop, &f.a.is_closed, 2000));
    assert_int_equal(f.a.close_error, RELAY_ERR_REFUSED);
}

static void test_silent(void **state)
{
    dial();
    run_until(&f.loop, NULL, 50);
    assert_false(relay_quic_conn_is_silent(f.a.conn));
    relay_quic_endpoint_free(f.endpoint); /* vanishes without a word */
    struct relay_quic_endpoint_config config = {
        .loop = &f.loop, .group = f.group, .credentials = f.server, .limits = &f.limits};
    assert_int_equal(relay_quic_endpoint_new(&config, &f.endpoint), 0);
    int fd = socket(AF_INET, SOCK_DGRAM, 0); /* answers with what is of no connection */
    assert_int_equal(bind(fd, (struct sockaddr *)&f.address, sizeof(struct sockaddr_in)), 0);
    assert_int_equal(send_one(&f.a, 10, 0), RELAY_SENT);
    run_until(&f.loop, NULL, 10);
    uint8_t packet[1500];
    struct sockaddr_storage peer;
    socklen_t len = sizeof(peer);
    assert_true(recvfrom(fd, packet, sizeof(packet), 0, (struct sockaddr *)&peer, &len) > 0);
    for (int i = 0; i < 60; i++) { /* all the time, so that the last came just now */
        relay_quic_random(packet, 60, NULL);
        packet[0] = 0x40 | (packet[0] & 0x3f);
        assert_int_equal(sendto(fd, packet, 60, 0, (struct sockaddr *)&peer, len), 60);
        run_until(&f.loop, NULL, 10);
    }
    assert_true(relay_quic_conn_is_silent(f.a.conn));
    close(fd);
}

/* A restarted server with the same secret tells its clients at once. */
/* The server's process dies and another takes its place, with the same files, and nothing else of the first. */
static void restart_server_at(const char *place)
{
    static const struct relay_quic_endpoint_user cb = {.on_connection = on_connection};
    char reason[RELAY_QUIC_ERROR_SIZE];
    int fd;
    relay_quic_endpoint_free(f.endpoint);
    relay_quic_group_unref(f.group);
    relay_quic_credentials_unref(f.server);
    f.group = relay_quic_group_new(1);
    assert_int_equal(
        relay_quic_credentials_server(f.certificate.chain, f.certificate.key, place, NULL, &f.server, reason),
        0);
    struct relay_quic_endpoint_config config = {
        .loop = &f.loop, .group = f.group, .credentials = f.server, .limits = &f.limits, .cb = &cb};
    assert_int_equal(relay_quic_endpoint_new(&config, &f.endpoint), 0);
    assert_int_equal(relay_quic_group_bind(f.group, &f.address, &fd), 0);
    assert_int_equal(relay_quic_endpoint_add_socket(f.endpoint, fd), 0);
}

static void test_stateless_reset(void **state)
{
    dial();
    run_until(&f.loop, NULL, 50);
    restart_server_at("here");
    assert_int_equal(send_one(&f.a, 100, 0), RELAY_SENT);
    assert_true(run_until(&f.loop, &f.a.is_closed, 2000));
    assert_int_equal(f.a.close_error, RELAY_ERR_RESET);
    assert_int_equal(f.metrics.quic_stateless_reset, 1);
}

/* RFC 9000 section 21.11: one with the same key cannot be made to reset the connections of another. */
static void test_stateless_reset_by_another(void **state)
{
    dial();
    run_until(&f.loop, NULL, 50);
    restart_server_at("elsewhere");
    assert_int_equal(send_one(&f.a, 100, 0), RELAY_SENT);
    assert_false(run_until(&f.loop, &f.a.is_closed, 500));
    assert_true(f.metrics.quic_stateless_reset >= 1);
}

static void test_garbage(void **state)
{
    uint8_t bytes[1500], answer[2000];
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    srandom(1);
    assert_int_equal(connect(fd, (struct sockaddr *)&f.address, sizeof(struct sockaddr_in)), 0);
    for (int i = 0; i < 500; i++) {
        size_t len = (size_t)random() % sizeof(bytes);
        for (size_t k = 0; k < len; k++)
            bytes[k] = (uint8_t)random();
        if (i % 2 == 0 && len > 6)
            memcpy(bytes, "\xc0\0\0\0\1\x08", 6); /* an Initial of version 1 */
        assert_int_equal(send(fd, bytes, len, 0), len);
        uv_run(&f.loop.uv, UV_RUN_NOWAIT);
    }
    /* A version that nobody speaks. */
    while (recv(fd, answer, sizeof(answer), MSG_DONTWAIT) > 0)
        ;
    memset(bytes, 0, sizeof(bytes));
    memcpy(bytes,
           "\xc0\x1a\x2a\x3a\x4a\x08"
           "12345678"
           "\x04"
           "abcd",
           19);
    assert_int_equal(send(fd, bytes, 1200, 0), 1200);
    run_until(&f.loop, NULL, 20);
    assert_true(recv(fd, answer, sizeof(answer), MSG_DONTWAIT) >= 7 + 4 + 8 + 4);
    assert_memory_equal(answer + 1,
                        "\0\0\0\0\4abcd\10"
                        "12345678"
                        "\0\0\0\1",
                        4 + 5 + 9 + 4);
    assert_true(f.metrics.drop_packet > 0);
    assert_true(f.metrics.quic_version_negotiation > 0);
    close(fd);
    dial();
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_handshake),
        TEST(test_echo),
        TEST(test_reset),
        TEST(test_datagrams),
        TEST(test_datagrams_blocked),
        TEST(test_mtu),
        TEST(test_memory_is_out),
        TEST(test_retry),
        TEST(test_coming_again),
        TEST(test_half_open_max),
        TEST(test_half_open_makes_room),
        TEST(test_half_open_told_makes_room),
        TEST(test_close_code),
        TEST(test_user_error),
        TEST(test_refused),
        TEST(test_shutdown),
        TEST(test_shutdown_of_half_open),
        TEST(test_idle),
        TEST(test_keep_alive),
        TEST(test_wrong_name),
        TEST(test_pins),
        TEST(test_bad_files),
        TEST(test_migration),
        TEST(test_many_migrations),
        TEST(test_nobody_listens),
        TEST(test_silent),
        TEST(test_stateless_reset),
        TEST(test_stateless_reset_by_another),
        TEST(test_garbage),
        TEST(test_rebinding),
        TEST(test_wildcard),
        TEST(test_black_hole),
        TEST(test_black_hole_of_datagrams),
        TEST(test_mtu_of_idle),
        TEST(test_mtu_not_raised),
        TEST(test_short_room),
        TEST(test_farewell_is_lost),
        TEST(test_farewell_is_blocked),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
