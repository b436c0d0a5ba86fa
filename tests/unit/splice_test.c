/* splice.c: a tunnel whose session only remembers, and a TCP stream on a socket pair's end on loopback. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/net/metrics.h"
#include "lib/net/session.h"
#include "lib/net/splice.h"
#include "lib/wire/error.h"

struct fake {
    struct relay_tunnel tunnel; /* first */
    size_t room, sent_len, largest_send;
    uint8_t sent[1 << 20];
    bool fin_sent, released, is_paused;
};

#define IDLE (100 * RELAY_MS) /* of the tests that wait for it */

static struct relay_loop loop;
static struct relay_metrics metrics;
static struct fake fake;
static struct relay_session session = {.is_server = true};
static int peer; /* the target's socket */
static int ended, end_error;

static struct fake *of(struct relay_tunnel *tunnel)
{
    return (struct fake *)tunnel;
}

static size_t fake_room(struct relay_tunnel *tunnel)
{
    return of(tunnel)->room;
}

static bool fake_send(struct relay_tunnel *tunnel, const uint8_t *bytes, size_t len)
{
    struct fake *self = of(tunnel);
    assert_true(self->sent_len + len <= sizeof(self->sent));
    memcpy(self->sent + self->sent_len, bytes, len);
    self->sent_len += len;
    self->largest_send = len > self->largest_send ? len : self->largest_send;
    self->room -= len < self->room ? len : self->room;
    return self->room > 0;
}

static void fake_send_fin(struct relay_tunnel *tunnel)
{
    of(tunnel)->fin_sent = true;
}

static void fake_consume(struct relay_tunnel *tunnel, size_t len)
{
}

static void fake_set_reading(struct relay_tunnel *tunnel, bool reading)
{
    of(tunnel)->is_paused = !reading;
}

static void fake_abort(struct relay_tunnel *tunnel, int error)
{
    relay_tunnel_closed(tunnel, error);
}

static void fake_release(struct relay_tunnel *tunnel)
{
    relay_tunnel_dispose(tunnel);
    of(tunnel)->released = true;
}

static const struct relay_tunnel_ops fake_ops = {
    .room = fake_room,
    .send = fake_send,
    .send_fin = fake_send_fin,
    .consume = fake_consume,
    .set_reading = fake_set_reading,
    .abort = fake_abort,
    .release = fake_release,
};

static void on_end(void *user, int error)
{
    ended++;
    end_error = error;
}

static struct relay_stream *connected_stream(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&at, len), 0);
    assert_int_equal(listen(listener, 1), 0);
    getsockname(listener, (struct sockaddr *)&at, &len);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, len), 0);
    peer = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    close(listener);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    struct relay_stream *stream = relay_stream_tcp(&loop, fd, (struct sockaddr *)&at);
    assert_non_null(stream);
    return stream;
}

static int setup_idle(uint64_t idle, size_t room)
{
    memset(&metrics, 0, sizeof(metrics));
    memset(&fake, 0, sizeof(fake));
    ended = end_error = 0;
    if (relay_loop_init(&loop, &metrics) != 0)
        return -1;
    relay_tunnel_init(&fake.tunnel, &fake_ops, &session, &loop, RELAY_KIND_BYTES);
    fake.room = room;
    relay_tunnel_pause(&fake.tunnel);
    return relay_splice(&fake.tunnel, connected_stream(), idle, on_end, NULL);
}

static int setup(void **state)
{
    return setup_idle(60 * RELAY_SECOND, 1 << 20);
}

static int setup_short_idle(void **state)
{
    return setup_idle(IDLE, 1 << 20);
}

static int setup_small_room(void **state)
{
    return setup_idle(60 * RELAY_SECOND, 1000);
}

static int teardown(void **state)
{
    if (!fake.released)
        relay_tunnel_closed(&fake.tunnel, RELAY_ERR_CANCELLED);
    if (peer >= 0)
        close(peer);
    for (int i = 0; i < 100; i++)
        uv_run(&loop.uv, UV_RUN_NOWAIT);
    assert_int_equal(ended, 1);
    assert_true(fake.released);
    relay_loop_dispose(&loop);
    return 0;
}

static void turns(void)
{
    for (int i = 0; i < 30; i++) {
        uv_run(&loop.uv, UV_RUN_NOWAIT);
        usleep(500);
    }
}

static void deliver(const char *text)
{
    uint8_t bytes[64];
    memcpy(bytes, text, strlen(text));
    relay_tunnel_deliver(&fake.tunnel, bytes, strlen(text));
}

static void both_ways_and_both_ends(void **state)
{
    char got[16];
    deliver("to the");
    turns();
    assert_int_equal(recv(peer, got, sizeof(got), 0), 6);
    relay_tunnel_deliver_fin(&fake.tunnel);
    turns();
    assert_int_equal(recv(peer, got, sizeof(got), 0), 0);
    /* Half-closed: the target's direction lives on. */
    assert_int_equal(send(peer, "answer", 6, 0), 6);
    turns();
    assert_int_equal(fake.sent_len, 6);
    assert_false(fake.fin_sent);
    close(peer);
    peer = -1;
    turns();
    assert_true(fake.fin_sent);
    assert_int_equal(ended, 0);
    relay_tunnel_closed(&fake.tunnel, RELAY_OK);
    turns();
    assert_int_equal(ended, 1);
    assert_int_equal(end_error, RELAY_OK);
    assert_int_equal(metrics.bytes_in, 6);
    assert_int_equal(metrics.bytes_out, 6);
}

static void target_ends_first(void **state)
{
    char got[16];
    shutdown(peer, SHUT_WR);
    turns();
    assert_true(fake.fin_sent);
    deliver("late");
    turns();
    assert_int_equal(recv(peer, got, sizeof(got), 0), 4);
}

static void target_resets(void **state)
{
    struct linger hard = {1, 0};
    setsockopt(peer, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    close(peer);
    peer = -1;
    turns();
    assert_int_equal(ended, 1);
    assert_int_equal(end_error, RELAY_ERR_RESET);
    assert_false(fake.fin_sent);
}

static void tunnel_resets(void **state)
{
    char got[16];
    relay_tunnel_closed(&fake.tunnel, RELAY_ERR_RESET);
    turns();
    assert_int_equal(recv(peer, got, sizeof(got), 0), -1);
    assert_int_equal(errno, ECONNRESET);
    assert_int_equal(end_error, RELAY_ERR_RESET);
}

/* Bytes now and then, for longer than the idle time. False: the machine was busy with others for so long that the
 * splice may well have ended. */
static bool lives_while_used(void)
{
    uint64_t before = uv_hrtime();
    for (int i = 0; i < 5; i++) {
        uint64_t now = uv_hrtime();
        send(peer, "x", 1, 0);
        turns();
        if (uv_hrtime() >= before + IDLE)
            return false;
        assert_int_equal(ended, 0);
        before = now;
        usleep(20000);
    }
    return true;
}

static void idle_ends(void **state)
{
    char got[16];
    for (int i = 0; i < 100 && !lives_while_used(); i++) {
        teardown(state);
        assert_int_equal(setup_short_idle(state), 0);
    }
    for (int i = 0; i < 1000 && ended == 0; i++)
        turns();
    assert_int_equal(end_error, RELAY_ERR_IDLE);
    assert_int_equal(recv(peer, got, sizeof(got), 0), -1);
    assert_int_equal(errno, ECONNRESET);
}

/* Megabytes that our own kernel takes prove nothing; what the target's has acknowledged does. */
static void a_target_proves_that_it_reads(void **state)
{
    static uint8_t bytes[32768];
    size_t sent = 0, got = 0;
    assert_true(fake.tunnel.is_unproven);
    while (sent < 64u << 20 && !fake.is_paused) {
        relay_tunnel_deliver(&fake.tunnel, bytes, sizeof(bytes));
        sent += sizeof(bytes);
    }
    assert_true(fake.is_paused);
    turns();
    assert_true(fake.tunnel.is_unproven);
    while (got < sent) {
        ssize_t len = recv(peer, bytes, sizeof(bytes), 0);
        got += len > 0 ? (size_t)len : 0;
        uv_run(&loop.uv, UV_RUN_NOWAIT);
    }
    turns();
    assert_false(fake.is_paused);
    relay_tunnel_deliver(&fake.tunnel, bytes, sizeof(bytes));
    assert_false(fake.tunnel.is_unproven);
    turns();
}

/* The target floods, the client takes little: no read brings more than there is room for. */
static void reads_no_more_than_there_is_room_for(void **state)
{
    static uint8_t flood[100000];
    for (size_t i = 0; i < sizeof(flood); i++)
        flood[i] = (uint8_t)(i * 7);
    assert_int_equal(send(peer, flood, sizeof(flood), 0), sizeof(flood));
    turns();
    assert_int_equal(fake.sent_len, 1000);
    fake.room = 500;
    relay_tunnel_writable(&fake.tunnel);
    turns();
    assert_int_equal(fake.sent_len, 1500);
    assert_int_equal(fake.largest_send, 1000);
    fake.room = 1 << 20;
    relay_tunnel_writable(&fake.tunnel);
    turns();
    assert_int_equal(fake.sent_len, sizeof(flood));
    assert_memory_equal(fake.sent, flood, sizeof(flood));
}

/* The client floods, the target takes nothing: the tunnel is paused, and goes on when the target reads. */
static void a_full_stream_pauses_the_tunnel(void **state)
{
    static uint8_t piece[16384], got[1 << 20];
    size_t given = 0, taken = 0;
    for (int i = 0; i < 10000 && fake.tunnel.held_len == 0; i++) {
        relay_tunnel_deliver(&fake.tunnel, piece, sizeof(piece));
        given += sizeof(piece);
        uv_run(&loop.uv, UV_RUN_NOWAIT);
    }
    assert_true(fake.tunnel.held_len > 0);
    for (int i = 0; i < 10000 && taken < given; i++) {
        ssize_t len;
        while ((len = recv(peer, got, sizeof(got), 0)) > 0)
            taken += (size_t)len;
        turns();
    }
    assert_int_equal(taken, given);
    assert_int_equal(fake.tunnel.held_len, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(both_ways_and_both_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(target_ends_first, setup, teardown),
        cmocka_unit_test_setup_teardown(a_target_proves_that_it_reads, setup, teardown),
        cmocka_unit_test_setup_teardown(target_resets, setup, teardown),
        cmocka_unit_test_setup_teardown(tunnel_resets, setup, teardown),
        cmocka_unit_test_setup_teardown(idle_ends, setup_short_idle, teardown),
        cmocka_unit_test_setup_teardown(reads_no_more_than_there_is_room_for, setup_small_room, teardown),
        cmocka_unit_test_setup_teardown(a_full_stream_pauses_the_tunnel, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
