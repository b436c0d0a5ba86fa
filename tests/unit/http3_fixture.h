/* An HTTP/3 client session against a server session, over QUIC connections without packets (fake_quic.h). */
#ifndef HTTP3_FIXTURE_H
#define HTTP3_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/net/http3.h"
#include "lib/net/metrics.h"
#include "tests/unit/fake_quic.h"

enum behaviour { ECHOES, REPLIES, REFUSES, HANGS, STALLS, ABORTS };

/* One end of a request: what it got, and what it has still to send. */
struct end {
    struct relay_tunnel *tunnel;
    bool is_server;
    enum behaviour behaviour;
    size_t to_send, got, echoed;
    uint32_t sum;
    bool fin_after, fin_sent, got_fin, closed;
    int status, close_error, datagrams, owed, abort_error;
    int64_t content_length;
    size_t last_datagram;
    uint64_t last_context;
    char path[64], method[16];
    enum relay_kind kind;
    size_t num_fields;
    bool ends;
};

static struct relay_loop loop;
static struct relay_metrics metrics;
static struct relay_limits limits;
static struct relay_budget budget;
static struct relay_session *server, *client;
static struct end ends[2200], *server_ends[1100], clients[1100];
static size_t num_ends, num_server;
static bool is_ready, got_goaway, server_closed, client_closed;
static int server_error, client_error;
static uint64_t client_peer_code;
static enum behaviour behaviour;
static uint8_t block[65536];

/* ---- running until something holds ---- */

static bool (*condition)(void);
static struct relay_task watch;
static struct relay_timer guard;

static inline void run_watch(struct relay_task *task)
{
    if (condition())
        relay_loop_stop(&loop);
    else
        relay_task_defer(&loop, task);
}

static inline void on_guard(struct relay_timer *timer)
{
    relay_loop_stop(&loop);
}

static inline bool run_until(bool (*holds)(void))
{
    condition = holds;
    relay_task_init(&watch, RELAY_LEVEL_FLUSH_SOCKET, run_watch);
    relay_timer_init(&guard, on_guard);
    relay_timer_set_after(&loop, &guard, 10 * RELAY_SECOND);
    relay_task_defer(&loop, &watch); /* it runs behind the poll: a stop before it would wait for the guard */
    relay_loop_run(&loop);
    relay_task_cancel(&watch);
    relay_timer_stop(&loop, &guard);
    return holds();
}

static int turns;

static inline bool some_turns(void)
{
    return turns-- <= 0;
}

static inline void run_turns(int n)
{
    turns = n;
    run_until(some_turns);
}

/* ---- the users ---- */

static inline void push(struct end *end)
{
    size_t room;
    while (end->to_send > 0 && (room = relay_tunnel_room(end->tunnel)) > 0) {
        size_t len = end->to_send < sizeof(block) ? end->to_send : sizeof(block);
        len = len < room ? len : room;
        end->to_send -= len;
        relay_tunnel_send(end->tunnel, block, len);
    }
    if (end->to_send == 0 && end->fin_after && !end->fin_sent) {
        end->fin_sent = true;
        relay_tunnel_send_fin(end->tunnel);
    }
}

static inline void on_response(void *user, const struct relay_response *response)
{
    struct end *end = user;
    end->status = response->status;
    end->content_length = response->content_length;
    end->num_fields = response->num_fields;
    end->ends = response->ends;
}

static inline void on_bytes(void *user, uint8_t *bytes, size_t len)
{
    struct end *end = user;
    end->got += len;
    for (size_t i = 0; i < len; i++)
        end->sum = end->sum * 31 + bytes[i];
    if (end->is_server && end->behaviour == STALLS)
        relay_tunnel_pause(end->tunnel);
    if (end->is_server && end->behaviour == ECHOES) {
        end->echoed += len;
        if (!relay_tunnel_send(end->tunnel, bytes, len))
            relay_tunnel_pause(end->tunnel);
    }
}

static inline void on_fin(void *user)
{
    struct end *end = user;
    end->got_fin = true;
    if (end->is_server && end->behaviour == ECHOES)
        relay_tunnel_send_fin(end->tunnel);
}

static inline void on_datagrams(void *user, const struct relay_run *run)
{
    struct end *end = user;
    end->datagrams++;
    end->last_datagram = run->len;
    end->last_context = run->context_id;
    struct relay_run copy = *run;
    /* Inside QUIC's callback nothing is sent. */
    if (end->is_server && end->behaviour == ECHOES) {
        enum relay_sent sent = relay_tunnel_send_datagrams(end->tunnel, &copy);
        assert_true(sent == RELAY_BLOCKED || (sent == RELAY_SENT && fake_client->max_datagram == 0));
        end->owed += sent == RELAY_BLOCKED;
    }
}

static inline void on_user_writable(void *user)
{
    struct end *end = user;
    if (end->is_server && end->behaviour == ECHOES)
        relay_tunnel_resume(end->tunnel);
    for (; end->owed > 0; end->owed--) {
        struct relay_run run = {0, block, 10, 10};
        if (relay_tunnel_send_datagrams(end->tunnel, &run) != RELAY_SENT)
            break;
    }
    push(end);
}

static inline void on_user_close(void *user, int error)
{
    struct end *end = user;
    assert_false(end->closed);
    end->closed = true;
    end->close_error = error;
}

static const struct relay_tunnel_user tunnel_user = {
    .on_response = on_response,
    .on_bytes = on_bytes,
    .on_fin = on_fin,
    .on_datagrams = on_datagrams,
    .on_writable = on_user_writable,
    .on_close = on_user_close,
};

static inline void answer(struct end *end)
{
    struct relay_field field = {RELAY_SLICE("server"), RELAY_SLICE("x")};
    struct relay_response response = {.fields = &field, .num_fields = 1, .content_length = -1};
    switch (end->behaviour) {
    case ECHOES:
    case STALLS:
        assert_int_equal(relay_tunnel_accept(end->tunnel, NULL, 0), 0);
        break;
    case REPLIES:
        response.status = 200;
        response.ends = strcmp(end->method, "HEAD") == 0;
        response.content_length = (int64_t)(end->to_send = 300000);
        assert_int_equal(relay_tunnel_respond(end->tunnel, &response), 0);
        end->fin_after = !response.ends;
        if (!response.ends)
            push(end);
        break;
    case REFUSES:
        response.status = 403;
        response.content_length = (int64_t)(end->to_send = 5);
        end->fin_after = true;
        assert_int_equal(relay_tunnel_respond(end->tunnel, &response), 0);
        push(end);
        break;
    case ABORTS:
        relay_tunnel_abort(end->tunnel, end->abort_error);
        break;
    case HANGS:
        break;
    }
}

static int abort_error;

static inline void on_request(void *user, struct relay_tunnel *tunnel, const struct relay_request *request)
{
    struct end *end = &ends[num_ends++];
    server_ends[num_server++] = end;
    *end =
        (struct end){.tunnel = tunnel, .is_server = true, .behaviour = behaviour, .abort_error = abort_error};
    snprintf(end->path, sizeof(end->path), "%.*s", (int)request->path.len, request->path.base);
    snprintf(end->method, sizeof(end->method), "%.*s", (int)request->method.len, request->method.base);
    end->kind = request->kind;
    end->num_fields = request->num_fields;
    end->content_length = request->content_length;
    end->ends = request->ends;
    relay_tunnel_attach(tunnel, &tunnel_user, end);
    answer(end);
}

static inline void on_ready(void *user)
{
    is_ready = true;
}

static inline void on_goaway(void *user)
{
    got_goaway = true;
}

static inline void on_server_close(void *user, int error)
{
    server_closed = true;
    server_error = error;
}

static inline void on_client_close(void *user, int error)
{
    client_closed = true;
    client_error = error;
    client_peer_code = client->peer_code;
}

static const struct relay_session_user server_user = {.on_request = on_request, .on_close = on_server_close};
static const struct relay_session_user client_user = {
    .on_ready = on_ready, .on_goaway = on_goaway, .on_close = on_client_close};

/* ---- set up ---- */

static inline bool ready(void)
{
    return is_ready;
}

static inline bool both_closed(void)
{
    return server_closed && client_closed;
}

static inline bool server_is_closed(void)
{
    return server_closed;
}

static inline int setup(void **state)
{
    limits = RELAY_LIMITS_DEFAULT;
    budget = (struct relay_budget){.limit = 64 * 1024 * 1024};
    memset(&metrics, 0, sizeof(metrics));
    memset(clients, 0, sizeof(clients));
    num_ends = num_server = 0;
    is_ready = got_goaway = server_closed = client_closed = false;
    behaviour = ECHOES;
    fake_last_close = 0;
    for (size_t i = 0; i < sizeof(block); i++)
        block[i] = (uint8_t)(i * 7 + i / 251);
    return relay_loop_init(&loop, &metrics);
}

static inline void join(void)
{
    struct relay_quic_client_config config = {.limits = &limits, .budget = &budget};
    client = relay_http3_connect(&loop, NULL, &config, &client_user, NULL);
    struct relay_quic_conn *conn = fake_new(&loop, true, &limits);
    conn->peer = fake_client;
    fake_client->peer = conn;
    server = relay_http3_server(conn, &limits, &budget, &server_user, NULL);
    assert_non_null(client);
    assert_non_null(server);
    assert_int_equal(conn->cb->on_ready(conn->user), 0);
    assert_int_equal(fake_client->cb->on_ready(fake_client->user), 0);
    assert_true(run_until(ready));
}

static inline int teardown(void **state)
{
    if (!client_closed)
        relay_session_close(client, RELAY_OK);
    assert_true(run_until(both_closed));
    for (size_t i = 0; i < num_server; i++)
        assert_true(server_ends[i]->closed);
    assert_int_equal(budget.used, 0);
    relay_loop_dispose(&loop);
    return 0;
}

static inline struct relay_request make(enum relay_kind kind)
{
    struct relay_request request = {.kind = kind, .content_length = -1};
    request.method = kind == RELAY_KIND_MESSAGE ? RELAY_SLICE("GET") : RELAY_SLICE("CONNECT");
    request.authority = RELAY_SLICE("relay.example:443");
    request.scheme = RELAY_SLICE("https");
    request.path = RELAY_SLICE("/x");
    request.ends = kind == RELAY_KIND_MESSAGE;
    if (kind == RELAY_KIND_CAPSULES)
        request.protocol = RELAY_SLICE("connect-udp");
    return request;
}

static inline struct end *open_request(struct relay_request request, size_t n)
{
    struct end *end = &clients[n];
    *end = (struct end){0};
    end->tunnel = relay_session_open(client, &request, &tunnel_user, end);
    return end->tunnel != NULL ? end : NULL;
}

static inline struct end *open_kind(enum relay_kind kind, size_t n)
{
    return open_request(make(kind), n);
}

static inline bool first_closed(void)
{
    return clients[0].closed;
}

static inline bool first_answered(void)
{
    return clients[0].status != 0;
}

static inline bool second_closed(void)
{
    return clients[1].closed;
}

static inline bool request_closed(void)
{
    return clients[0].closed && num_server > 0 && server_ends[0]->closed;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
