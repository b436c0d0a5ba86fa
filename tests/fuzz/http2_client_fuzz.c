/* A client's HTTP/2 session fed by a relay that sends what it likes, while the application opens tunnels, sends, pauses
 * and gives up. Two bytes say what comes: an act of the application on one tunnel, or so many bytes of the input. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "lib/net/http2.h"
#include "lib/net/metrics.h"
#include "tests/unit/pipe_stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ENDS_MAX 16

struct fuzz {
    struct relay_metrics metrics;
    struct relay_loop loop;
    struct relay_limits limits;
    struct relay_budget budget;
    struct pipe_stream client, relay;
    struct relay_session *session; /* NULL: closed */
    struct relay_tunnel *ends[ENDS_MAX];
    size_t num_ends, num_open;
};

static struct fuzz *fuzz; /* one at a time */

static void on_response(void *user, const struct relay_response *response)
{
    struct relay_tunnel **end = user;
    if (response->status >= 400)
        relay_tunnel_abort(*end, RELAY_ERR_CANCELLED);
}

static void on_bytes(void *user, uint8_t *bytes, size_t len)
{
    struct relay_tunnel **end = user;
    if (!relay_tunnel_send(*end, bytes, len))
        relay_tunnel_pause(*end);
}

static void on_fin(void *user)
{
    struct relay_tunnel **end = user;
    relay_tunnel_send_fin(*end);
}

static void on_datagrams(void *user, const struct relay_run *run)
{
    struct relay_tunnel **end = user;
    struct relay_run back = *run;
    relay_tunnel_send_datagrams(*end, &back);
}

static void on_writable(void *user)
{
    struct relay_tunnel **end = user;
    relay_tunnel_resume(*end);
}

static void on_tunnel_close(void *user, int error)
{
    struct relay_tunnel **end = user;
    *end = NULL;
    if (fuzz->num_open-- == 0)
        abort(); /* told twice */
}

static const struct relay_tunnel_user tunnel_user = {
    .on_response = on_response,
    .on_bytes = on_bytes,
    .on_fin = on_fin,
    .on_datagrams = on_datagrams,
    .on_writable = on_writable,
    .on_close = on_tunnel_close,
};

static void open_one(uint8_t choice)
{
    struct relay_request request = {.method = RELAY_SLICE("CONNECT"),
                                    .authority = RELAY_SLICE("a:443"),
                                    .kind = RELAY_KIND_BYTES,
                                    .content_length = -1};
    struct relay_tunnel **end = &fuzz->ends[fuzz->num_ends];
    if (fuzz->num_ends == ENDS_MAX || fuzz->session == NULL)
        return;
    if (choice & 1) {
        request.kind = RELAY_KIND_CAPSULES;
        request.scheme = RELAY_SLICE("https");
        request.path = RELAY_SLICE("/udp/a/53/");
        request.protocol = RELAY_SLICE("connect-udp");
    }
    *end = relay_session_open(fuzz->session, &request, &tunnel_user, end);
    if (*end == NULL)
        return;
    fuzz->num_ends++;
    fuzz->num_open++;
}

static void on_ready(void *user)
{
    open_one(0);
    open_one(1);
}

static void on_goaway(void *user)
{
}

static void on_close(void *user, int error)
{
    fuzz->session = NULL;
}

static const struct relay_session_user session_user = {
    .on_ready = on_ready, .on_goaway = on_goaway, .on_close = on_close};

static void turns(int count)
{
    while (count-- > 0)
        uv_run(&fuzz->loop.uv, UV_RUN_NOWAIT);
}

/* The relay has read what waits for it. */
static void read_all(void)
{
    fuzz->relay.in_len = 0;
    if (!fuzz->client.is_blocked)
        return;
    fuzz->client.is_blocked = false;
    fuzz->client.is_writable_due = true;
    pipe_wake(&fuzz->client);
}

static void act(uint8_t what, uint8_t which)
{
    static const uint8_t block[65536];
    struct relay_tunnel *tunnel = fuzz->num_ends > 0 ? fuzz->ends[which % fuzz->num_ends] : NULL;
    size_t len = (size_t)which * which;
    if (what == 0)
        open_one(which);
    if (what == 1 && which == 0 && fuzz->session != NULL)
        relay_session_shutdown(fuzz->session);
    if (tunnel == NULL)
        return;
    struct relay_run run = {which >> 6, block, len % 1500, len % 1500};
    switch (what) {
    case 2:
        relay_tunnel_send(tunnel, block, len);
        break;
    case 3:
        relay_tunnel_send_fin(tunnel);
        break;
    case 4:
        relay_tunnel_abort(tunnel, -(int)(which % 20) - 1);
        break;
    case 5:
        relay_tunnel_pause(tunnel);
        break;
    case 6:
        relay_tunnel_resume(tunnel);
        break;
    default:
        relay_tunnel_send_datagrams(tunnel, &run);
        break;
    }
}

static size_t one_event(const uint8_t *data, size_t size)
{
    size_t len = 0;
    if (data[0] & 8) {
        act(data[0] & 7, data[1]);
    } else {
        len = (size_t)(data[0] & 7) << 8 | data[1];
        len = len < size - 2 ? len : size - 2;
        pipe_send(&fuzz->relay.super, data + 2, len);
    }
    if ((data[0] & 0x40) != 0)
        turns(2);
    if ((data[0] & 0x80) == 0)
        read_all();
    return 2 + len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t settings[] = "\0\0\6\4\0\0\0\0\0\0\10\0\0\0\1\0\0\0\4\1\0\0\0\0";
    if (size == 0)
        return 0;
    fuzz = calloc(1, sizeof(*fuzz));
    fuzz->limits = RELAY_LIMITS_DEFAULT;
    fuzz->budget.limit = 1 << 20;
    if (relay_loop_init(&fuzz->loop, &fuzz->metrics) != 0)
        abort();
    pipe_init(&fuzz->client, &fuzz->relay, &fuzz->loop);
    fuzz->session = relay_http2_client(&fuzz->client.super, &fuzz->limits, &fuzz->budget,
                                       RELAY_LEVEL_FLUSH_OUTER, &session_user, NULL);
    if ((data[0] & 1) == 0)
        pipe_send(&fuzz->relay.super, settings, sizeof(settings) - 1);
    turns(2);
    for (data++, size--; size >= 2 && fuzz->session != NULL;) {
        size_t used = one_event(data, size);
        data += used;
        size -= used;
    }
    turns(2);
    /* What has ended in order waits for an application that has paused. */
    for (size_t i = 0; i < fuzz->num_ends; i++)
        if (fuzz->ends[i] != NULL)
            relay_tunnel_resume(fuzz->ends[i]);
    if (fuzz->session != NULL)
        relay_session_close(fuzz->session, RELAY_OK);
    turns(5);
    if (fuzz->session != NULL || fuzz->num_open != 0 || fuzz->budget.used != 0)
        abort();
    pipe_dispose(&fuzz->client);
    pipe_dispose(&fuzz->relay);
    relay_loop_dispose(&fuzz->loop);
    free(fuzz);
    return 0;
}
