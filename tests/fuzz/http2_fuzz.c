/* A server's HTTP/2 session fed with bytes, in pieces whose lengths the input chooses. The first byte chooses
 * whether the preface and SETTINGS are sent for it, and the size of the pieces. Every request is accepted and
 * echoed or refused. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "lib/net/http2.h"
#include "lib/net/metrics.h"
#include "tests/unit/pipe_stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz {
    struct relay_metrics metrics;
    struct relay_loop loop;
    struct relay_limits limits;
    struct relay_budget budget;
    struct pipe_stream client, server;
    struct relay_session *session;
    size_t open;
};

static struct fuzz *fuzz; /* one at a time */

static void on_bytes(void *user, uint8_t *bytes, size_t len)
{
    struct relay_tunnel *tunnel = user;
    if (!relay_tunnel_send(tunnel, bytes, len))
        relay_tunnel_pause(tunnel);
}

static void on_fin(void *user)
{
    relay_tunnel_send_fin(user);
}

static void on_datagrams(void *user, const struct relay_run *run)
{
    struct relay_run back = *run;
    relay_tunnel_send_datagrams(user, &back);
}

static void on_writable(void *user)
{
    relay_tunnel_resume(user);
}

static void on_tunnel_close(void *user, int error)
{
    if (fuzz->open-- == 0)
        abort(); /* told twice */
}

static const struct relay_tunnel_user tunnel_user = {
    .on_bytes = on_bytes,
    .on_fin = on_fin,
    .on_datagrams = on_datagrams,
    .on_writable = on_writable,
    .on_close = on_tunnel_close,
};

static void on_request(void *user, struct relay_tunnel *tunnel, const struct relay_request *request)
{
    fuzz->open++;
    relay_tunnel_attach(tunnel, &tunnel_user, tunnel);
    size_t choice = request->authority.len + request->num_fields;
    struct relay_response response = {.status = 200, .content_length = -1, .ends = choice % 3 == 0};
    if (request->kind != RELAY_KIND_MESSAGE && choice % 3 != 0)
        relay_tunnel_accept(tunnel, NULL, 0);
    else if (choice % 5 == 0)
        relay_tunnel_abort(tunnel, RELAY_ERR_REFUSED);
    else
        relay_tunnel_respond(tunnel, &response);
}

static void on_close(void *user, int error)
{
    fuzz->session = NULL;
}

static const struct relay_session_user session_user = {.on_request = on_request, .on_close = on_close};

static void turns(int count)
{
    while (count-- > 0)
        uv_run(&fuzz->loop.uv, UV_RUN_NOWAIT);
}

static void feed(const uint8_t *data, size_t size, size_t piece)
{
    for (size_t at = 0; at < size && fuzz->session != NULL; at += piece) {
        pipe_send(&fuzz->client.super, data + at, size - at < piece ? size - at : piece);
        turns(2);
        fuzz->client.in_len = 0; /* what the server said is read and forgotten */
        if (fuzz->server.is_blocked) {
            fuzz->server.is_blocked = false;
            fuzz->server.is_writable_due = true;
            pipe_wake(&fuzz->server);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0\0\0\0\4\1\0\0\0\0";
    if (size == 0)
        return 0;
    fuzz = calloc(1, sizeof(*fuzz));
    fuzz->limits = RELAY_LIMITS_DEFAULT;
    fuzz->budget.limit = 1 << 20;
    if (relay_loop_init(&fuzz->loop, &fuzz->metrics) != 0)
        abort();
    pipe_init(&fuzz->client, &fuzz->server, &fuzz->loop);
    fuzz->session = relay_http2_server(&fuzz->server.super, &fuzz->limits, &fuzz->budget, &session_user, NULL,
                                       preface, data[0] & 1 ? sizeof(preface) - 1 : 0);
    pipe_wake(&fuzz->server);
    feed(data + 1, size - 1, (data[0] >> 1) * 8u + 1);
    if (fuzz->session != NULL)
        relay_session_close(fuzz->session, RELAY_OK);
    turns(5);
    if (fuzz->session != NULL || fuzz->open != 0 || fuzz->budget.used != 0)
        abort();
    pipe_dispose(&fuzz->client);
    pipe_dispose(&fuzz->server);
    relay_loop_dispose(&fuzz->loop);
    free(fuzz);
    return 0;
}
