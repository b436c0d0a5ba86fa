/* What the tests of streams share: a loop, connected pairs of sockets, and a stream's user that writes down
 * what it is told. */
#ifndef RELAY_TESTS_STREAM_PEER_H
#define RELAY_TESTS_STREAM_PEER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <fcntl.h>
#include <netinet/in.h>
#include <time.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/net/buffer.h"
#include "lib/net/loop.h"
#include "lib/net/metrics.h"
#include "lib/net/stream.h"
#include "lib/wire/error.h"

struct peer {
    struct relay_stream *stream;
    struct relay_buffer got;
    bool ready, fin, closed, echoes;
    int error;
    unsigned num_writable;
};

static struct relay_metrics metrics;
static struct relay_loop loop;

static void on_peer_ready(void *user)
{
    ((struct peer *)user)->ready = true;
}

static void on_peer_bytes(void *user, uint8_t *bytes, size_t len)
{
    struct peer *peer = user;
    assert_int_equal(relay_buffer_append(&peer->got, bytes, len), 0);
    if (peer->echoes && !relay_stream_send(peer->stream, bytes, len))
        relay_stream_pause(peer->stream);
    else if (!peer->echoes)
        memset(bytes - RELAY_HEADROOM, 0xee, RELAY_HEADROOM); /* ours to overwrite */
}

static void on_peer_fin(void *user)
{
    struct peer *peer = user;
    assert_false(peer->fin);
    peer->fin = true;
    if (peer->echoes)
        relay_stream_fin(peer->stream);
}

static void on_peer_writable(void *user)
{
    struct peer *peer = user;
    peer->num_writable++;
    relay_stream_resume(peer->stream);
}

static void on_peer_close(void *user, int error)
{
    struct peer *peer = user;
    assert_false(peer->closed);
    peer->closed = true;
    peer->error = error;
}

static const struct relay_stream_user peer_user = {on_peer_ready, on_peer_bytes, on_peer_fin,
                                                   on_peer_writable, on_peer_close};

static uint64_t clock_ns(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * RELAY_SECOND + (uint64_t)at.tv_nsec;
}

static void on_tick(uv_timer_t *timer)
{
    (void)timer;
}

/* Runs turns until the condition holds; fails after 10 seconds. */
#define run_until(condition)                                                                                 \
    do {                                                                                                     \
        uint64_t run_deadline = clock_ns() + 10 * RELAY_SECOND;                                              \
        while (!(condition)) {                                                                               \
            if (clock_ns() > run_deadline)                                                                   \
                fail_msg("never became true: %s", #condition);                                               \
            run_turn();                                                                                      \
        }                                                                                                    \
    } while (0)

static void run_turn(void)
{
    uv_timer_t tick;
    uv_timer_init(&loop.uv, &tick);
    uv_timer_start(&tick, on_tick, 5, 5); /* again, or a late turn would wait for ever */
    uv_run(&loop.uv, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&tick, NULL);
    uv_run(&loop.uv, UV_RUN_NOWAIT);
}

static void run_for(uint64_t ns)
{
    for (uint64_t end = clock_ns() + ns; clock_ns() < end;)
        run_turn();
}

static int set_up_loop(void **state)
{
    (void)state;
    return relay_loop_init(&loop, &metrics);
}

static int tear_down_loop(void **state)
{
    (void)state;
    run_for(20 * RELAY_MS);
    relay_loop_dispose(&loop);
    return 0;
}

/* A connected TCP pair over loopback; both non-blocking. */
static void make_pair(int fds[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    fds[0] = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fds[0], (struct sockaddr *)&address, size), 0);
    fds[1] = accept(listener, NULL, NULL);
    assert_true(fds[1] >= 0);
    close(listener);
    for (int i = 0; i < 2; i++)
        fcntl(fds[i], F_SETFL, O_NONBLOCK);
}

static inline struct relay_stream *make_tcp(int fd)
{
    struct relay_stream *stream = relay_stream_tcp(&loop, fd, NULL);
    assert_non_null(stream);
    return stream;
}

static inline void start_peer(struct peer *peer, struct relay_stream *stream)
{
    memset(peer, 0, sizeof(*peer));
    peer->stream = stream;
    relay_stream_start(stream, &peer_user, peer);
}

static inline void close_peer(struct peer *peer)
{
    relay_stream_close(peer->stream);
    relay_buffer_dispose(&peer->got);
}

static inline uint8_t *make_pattern(size_t len)
{
    uint8_t *bytes = malloc(len + 1);
    assert_non_null(bytes);
    uint32_t x = 1;
    for (size_t i = 0; i < len; i++) {
        x = x * 1664525 + 1013904223;
        bytes[i] = (uint8_t)(x >> 24);
    }
    return bytes;
}

#endif
