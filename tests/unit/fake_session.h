/* A client session that only remembers what it was asked: the test plays the relay through `fake`. */
#ifndef TESTS_UNIT_FAKE_SESSION_H
#define TESTS_UNIT_FAKE_SESSION_H

#include <stdint.h>
#include <string.h>

#include "lib/net/metrics.h"
#include "lib/net/session.h"
#include "lib/wire/error.h"

struct fake {
    struct relay_tunnel tunnel; /* first */
    size_t room, sent_len, max_datagram, datagrams_left, num_datagrams;
    uint8_t sent[16384];
    int aborted;
    bool fin_sent, is_open, reading;
    char method[16], authority[128], path[256], protocol[32];
};

static struct fake fake;
static struct relay_session fake_session;
static size_t fake_next_max_datagram; /* 0: 1300 */

static size_t fake_room(struct relay_tunnel *tunnel)
{
    (void)tunnel;
    return fake.room;
}

static bool fake_send(struct relay_tunnel *tunnel, const uint8_t *bytes, size_t len)
{
    (void)tunnel;
    memcpy(fake.sent + fake.sent_len, bytes, len);
    fake.sent_len += len;
    fake.room -= len < fake.room ? len : fake.room;
    return fake.room > 0;
}

static void fake_send_fin(struct relay_tunnel *tunnel)
{
    (void)tunnel;
    fake.fin_sent = true;
}

static enum relay_sent fake_send_datagrams(struct relay_tunnel *tunnel, struct relay_run *run)
{
    (void)tunnel;
    while (run->len > 0) {
        size_t one = run->len < run->segment ? run->len : run->segment;
        if (one > fake.max_datagram)
            return RELAY_TOO_BIG;
        if (fake.datagrams_left == 0)
            return RELAY_BLOCKED;
        fake.datagrams_left--;
        fake.num_datagrams++;
        memcpy(fake.sent + fake.sent_len, run->base, one);
        fake.sent_len += one;
        relay_run_drop_one(run);
    }
    return RELAY_SENT;
}

static size_t fake_max_datagram(struct relay_tunnel *tunnel, uint64_t context_id)
{
    (void)tunnel;
    (void)context_id;
    return fake.max_datagram;
}

static void fake_consume(struct relay_tunnel *tunnel, size_t len)
{
    (void)tunnel;
    (void)len;
}

static void fake_set_reading(struct relay_tunnel *tunnel, bool reading)
{
    (void)tunnel;
    fake.reading = reading;
}

static void fake_abort(struct relay_tunnel *tunnel, int error)
{
    fake.aborted = error;
    relay_tunnel_closed(tunnel, error);
}

static void fake_release(struct relay_tunnel *tunnel)
{
    relay_tunnel_dispose(tunnel);
    fake.is_open = false;
}

static const struct relay_tunnel_ops fake_tunnel_ops = {
    .room = fake_room,
    .send = fake_send,
    .send_fin = fake_send_fin,
    .send_datagrams = fake_send_datagrams,
    .max_datagram = fake_max_datagram,
    .consume = fake_consume,
    .set_reading = fake_set_reading,
    .abort = fake_abort,
    .release = fake_release,
};

static void fake_copy(char *out, size_t size, struct relay_slice slice)
{
    size_t len = slice.len < size ? slice.len : size - 1;
    if (len > 0)
        memcpy(out, slice.base, len);
    out[len] = '\0';
}

static struct relay_tunnel *fake_open(struct relay_session *session, const struct relay_request *request,
                                      const struct relay_tunnel_user *cb, void *user)
{
    if (fake.is_open)
        return NULL; /* one at a time */
    memset(&fake, 0, sizeof(fake));
    relay_tunnel_init(&fake.tunnel, &fake_tunnel_ops, session, session->loop, request->kind);
    relay_tunnel_attach(&fake.tunnel, cb, user);
    fake.is_open = true;
    fake.room = 65536;
    fake.max_datagram = fake_next_max_datagram != 0 ? fake_next_max_datagram : 1300;
    fake.datagrams_left = 1000;
    fake_copy(fake.method, sizeof(fake.method), request->method);
    fake_copy(fake.authority, sizeof(fake.authority), request->authority);
    fake_copy(fake.path, sizeof(fake.path), request->path);
    fake_copy(fake.protocol, sizeof(fake.protocol), request->protocol);
    return &fake.tunnel;
}

static const struct relay_session_ops fake_session_ops = {.open = fake_open};

static void fake_session_init(struct relay_loop *loop)
{
    memset(&fake, 0, sizeof(fake));
    fake_session = (struct relay_session){.ops = &fake_session_ops, .loop = loop, .version = RELAY_HTTP_3};
}

static void fake_respond(int status, const char *proxy_status)
{
    struct relay_field field = {RELAY_SLICE("proxy-status"), relay_slice(proxy_status)};
    struct relay_response response = {
        .status = status, .fields = &field, .num_fields = proxy_status != NULL, .content_length = -1};
    relay_tunnel_deliver_response(&fake.tunnel, &response);
}

/* Runs the loop's tasks: a turn that does not block. */
static void fake_turn(struct relay_loop *loop)
{
    for (int i = 0; i < 3; i++)
        uv_run(&loop->uv, UV_RUN_NOWAIT);
}

#endif
