/* A server whose behaviour the request's authority chooses, and what is needed to watch it. For the HTTP/2
 * tests. */
#ifndef RELAY_TESTS_HTTP2_PEERS_H
#define RELAY_TESTS_HTTP2_PEERS_H

#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <cmocka.h>

#include "lib/net/http2.h"
#include "lib/net/metrics.h"
#include "tests/unit/pipe_stream.h"

#define SOURCE_BYTES (3 * 1000 * 1000 + 7)

struct peers;

/* One tunnel as its user sees it, on either side. Freed with the peers. */
struct seen {
    struct seen *next;
    struct peers *peers;
    struct relay_tunnel *tunnel; /* NULL after on_close */
    char target[128], path[128], protocol[32];
    enum relay_kind kind;
    bool ends;
    int64_t content_length;
    size_t num_fields;
    /* what came */
    int status;
    char answer[64]; /* the response's field x-answer */
    size_t bytes, writables;
    uint64_t sum; /* of the bytes, by position */
    char text[64];
    size_t datagrams;
    char datagram[64];
    int fins, closes, error;
    bool echo;
    size_t to_send, sent;
};

struct peers {
    struct relay_metrics metrics;
    struct relay_loop loop;
    struct relay_limits limits;
    struct relay_budget budget, client_budget;
    struct pipe_stream client_end, server_end;
    struct relay_session *server, *client; /* NULL after on_close */
    int server_error, client_error, ready, goaways;
    struct seen *requests, *opened; /* newest first */
    size_t num_requests, num_cancelled;
};

static inline uint8_t pattern(size_t at)
{
    return (uint8_t)(at * 31 + at / 251);
}

static inline void send_pattern(struct seen *seen)
{
    static uint8_t buffer[64 * 1024];
    while (seen->tunnel != NULL && seen->sent < seen->to_send) {
        size_t room = relay_tunnel_room(seen->tunnel), len = seen->to_send - seen->sent;
        len = len < room ? len : room;
        len = len < sizeof(buffer) ? len : sizeof(buffer);
        if (len == 0)
            return;
        uint8_t *bytes = relay_loop_take_scratch(&seen->peers->loop);
        for (size_t i = 0; i < len; i++)
            bytes[i] = pattern(seen->sent + i);
        seen->sent += len;
        relay_tunnel_send(seen->tunnel, bytes, len);
        relay_loop_return_scratch(&seen->peers->loop);
    }
    if (seen->tunnel != NULL && seen->to_send > 0)
        relay_tunnel_send_fin(seen->tunnel);
}

static inline void on_seen_response(void *user, const struct relay_response *response)
{
    struct seen *seen = user;
    struct relay_slice answer = relay_fields_find(response->fields, response->num_fields, "x-answer", NULL);
    seen->status = response->status;
    seen->content_length = response->content_length;
    if (answer.base != NULL)
        snprintf(seen->answer, sizeof(seen->answer), "%.*s", (int)answer.len, answer.base);
}

static inline void on_seen_bytes(void *user, uint8_t *bytes, size_t len)
{
    struct seen *seen = user;
    for (size_t i = 0; i < len; i++, seen->bytes++) {
        seen->sum += bytes[i] * (seen->bytes % 65521 + 1);
        if (seen->bytes < sizeof(seen->text) - 1)
            seen->text[seen->bytes] = (char)bytes[i];
    }
    if (seen->echo && !relay_tunnel_send(seen->tunnel, bytes, len))
        relay_tunnel_pause(seen->tunnel);
}

static inline void on_seen_fin(void *user)
{
    struct seen *seen = user;
    seen->fins++;
    if (seen->echo)
        relay_tunnel_send_fin(seen->tunnel);
}

static inline void on_seen_datagrams(void *user, const struct relay_run *run)
{
    struct seen *seen = user;
    struct relay_run back = *run;
    seen->datagrams++;
    snprintf(seen->datagram, sizeof(seen->datagram), "%.*s", (int)run->len, run->base);
    if (seen->echo)
        relay_tunnel_send_datagrams(seen->tunnel, &back);
}

static inline void on_seen_writable(void *user)
{
    struct seen *seen = user;
    seen->writables++;
    if (seen->echo)
        relay_tunnel_resume(seen->tunnel);
    send_pattern(seen);
}

static inline void on_seen_close(void *user, int error)
{
    struct seen *seen = user;
    seen->closes++;
    seen->error = error;
    seen->tunnel = NULL;
}

static const struct relay_tunnel_user seen_user = {
    .on_response = on_seen_response,
    .on_bytes = on_seen_bytes,
    .on_fin = on_seen_fin,
    .on_datagrams = on_seen_datagrams,
    .on_writable = on_seen_writable,
    .on_close = on_seen_close,
};

static inline struct seen *seen_new(struct peers *peers, struct seen **list)
{
    struct seen *seen = calloc(1, sizeof(*seen));
    seen->peers = peers;
    seen->next = *list;
    return *list = seen;
}

static inline void seen_copy(char *to, size_t size, struct relay_slice from)
{
    snprintf(to, size, "%.*s", (int)from.len, from.base != NULL ? from.base : "");
}

static inline void answer(struct seen *seen, int status, const char *body, bool ends)
{
    struct relay_field fields[] = {{RELAY_SLICE("x-answer"), RELAY_SLICE("yes")}};
    struct relay_response response = {status, fields, 1, body != NULL ? (int64_t)strlen(body) : -1, ends};
    relay_tunnel_respond(seen->tunnel, &response);
    if (body != NULL && !ends) {
        relay_tunnel_send(seen->tunnel, (const uint8_t *)body, strlen(body));
        relay_tunnel_send_fin(seen->tunnel);
    }
}

static inline void behave(struct seen *seen)
{
    const char *how = seen->kind == RELAY_KIND_MESSAGE ? seen->path + 1 : seen->target;
    if (strncmp(how, "echo", 4) == 0) {
        seen->echo = true;
        relay_tunnel_accept(seen->tunnel, NULL, 0);
    } else if (strncmp(how, "sink", 4) == 0) {
        relay_tunnel_accept(seen->tunnel, NULL, 0);
    } else if (strncmp(how, "stall", 5) == 0) {
        relay_tunnel_accept(seen->tunnel, NULL, 0);
        relay_tunnel_pause(seen->tunnel);
    } else if (strncmp(how, "source", 6) == 0) {
        seen->to_send = SOURCE_BYTES;
        relay_tunnel_accept(seen->tunnel, NULL, 0);
        send_pattern(seen);
    } else if (strncmp(how, "refuse", 6) == 0) {
        answer(seen, 502, "no", false);
    } else if (strncmp(how, "empty", 5) == 0) {
        answer(seen, 204, NULL, true);
    } else if (strncmp(how, "login", 5) == 0) {
        relay_session_authenticated(seen->peers->server);
        answer(seen, 200, NULL, true);
    } else if (strncmp(how, "abort", 5) == 0) {
        relay_tunnel_accept(seen->tunnel, NULL, 0);
        relay_tunnel_abort(seen->tunnel, RELAY_ERR_RESET);
    } else if (strncmp(how, "hold", 4) != 0) {
        answer(seen, 200, "hello", false);
    }
}

static inline void on_peers_request(void *user, struct relay_tunnel *tunnel,
                                    const struct relay_request *request)
{
    struct peers *peers = user;
    struct seen *seen = seen_new(peers, &peers->requests);
    peers->num_requests++;
    seen->tunnel = tunnel;
    seen->kind = request->kind;
    seen->ends = request->ends;
    seen->content_length = request->content_length;
    seen->num_fields = request->num_fields;
    seen_copy(seen->target, sizeof(seen->target), request->authority);
    seen_copy(seen->path, sizeof(seen->path), request->path);
    seen_copy(seen->protocol, sizeof(seen->protocol), request->protocol);
    relay_tunnel_attach(tunnel, &seen_user, seen);
    behave(seen);
}

static inline void on_server_close(void *user, int error)
{
    struct peers *peers = user;
    assert_non_null(peers->server);
    peers->server = NULL;
    peers->server_error = error;
}

static inline void on_client_ready(void *user)
{
    ((struct peers *)user)->ready++;
}

static inline void on_client_goaway(void *user)
{
    ((struct peers *)user)->goaways++;
}

static inline void on_client_close(void *user, int error)
{
    struct peers *peers = user;
    assert_non_null(peers->client);
    peers->client = NULL;
    peers->client_error = error;
}

static const struct relay_session_user server_user = {.on_request = on_peers_request,
                                                      .on_close = on_server_close};
static const struct relay_session_user client_user = {
    .on_ready = on_client_ready, .on_goaway = on_client_goaway, .on_close = on_client_close};

static inline void turns(struct peers *peers, int count)
{
    while (count-- > 0)
        uv_run(&peers->loop.uv, UV_RUN_NOWAIT);
}

/* At most `ms` until *pointer is NULL. */
static inline void wait_gone(struct peers *peers, void *pointer, int ms)
{
    uint64_t end = uv_hrtime() + (uint64_t)ms * RELAY_MS;
    while (*(void **)pointer != NULL && uv_hrtime() < end)
        uv_run(&peers->loop.uv, UV_RUN_NOWAIT);
}

static inline void peers_start_server(struct peers *peers, const uint8_t *early, size_t early_len)
{
    peers->server = relay_http2_server(&peers->server_end.super, &peers->limits, &peers->budget, &server_user,
                                       peers, early, early_len);
    assert_non_null(peers->server);
    pipe_wake(&peers->server_end);
}

static inline struct peers *peers_new(void)
{
    struct peers *peers = calloc(1, sizeof(*peers));
    assert_int_equal(relay_loop_init(&peers->loop, &peers->metrics), 0);
    peers->limits = RELAY_LIMITS_DEFAULT;
    peers->budget.limit = peers->client_budget.limit = 64 * 1024 * 1024;
    pipe_init(&peers->client_end, &peers->server_end, &peers->loop);
    return peers;
}

static inline void peers_start_client(struct peers *peers)
{
    peers->client = relay_http2_client(&peers->client_end.super, &peers->limits, &peers->client_budget,
                                       RELAY_LEVEL_FLUSH_OUTER, &client_user, peers);
    assert_non_null(peers->client);
    pipe_wake(&peers->client_end);
}

static inline void seen_free_all(struct seen *list)
{
    for (struct seen *next; list != NULL; list = next) {
        next = list->next;
        assert_int_equal(list->closes, 1); /* exactly once, whatever happened */
        free(list);
    }
}

static inline void peers_free(struct peers *peers)
{
    if (peers->client != NULL)
        relay_session_close(peers->client, RELAY_OK);
    if (peers->server != NULL)
        relay_session_close(peers->server, RELAY_OK);
    turns(peers, 10);
    assert_null(peers->client);
    assert_null(peers->server);
    seen_free_all(peers->requests);
    seen_free_all(peers->opened);
    assert_int_equal(peers->budget.used, 0);
    assert_int_equal(peers->client_budget.used, 0);
    pipe_dispose(&peers->client_end);
    pipe_dispose(&peers->server_end);
    relay_loop_dispose(&peers->loop);
    free(peers);
}

#endif
