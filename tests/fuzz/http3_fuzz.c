/* A server session fed by a client that sends what it likes on its streams, behind the handshake and QUIC's
 * own checks. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "lib/net/http3.h"
#include "lib/net/metrics.h"
#include "tests/unit/fake_quic.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct relay_loop loop;
static struct relay_metrics metrics;
static struct relay_limits limits;
static struct relay_budget budget;
static bool is_closed;
static int num_open;

struct end {
    struct relay_tunnel *tunnel;
};

static void on_bytes(void *user, uint8_t *bytes, size_t len)
{
    struct end *end = user;
    relay_tunnel_send(end->tunnel, bytes, len);
}

static void on_fin(void *user)
{
    struct end *end = user;
    relay_tunnel_send_fin(end->tunnel);
}

static void on_datagrams(void *user, const struct relay_run *run)
{
    struct end *end = user;
    struct relay_run copy = *run;
    relay_tunnel_send_datagrams(end->tunnel, &copy);
}

static void on_close(void *user, int error)
{
    num_open--;
    free(user);
}

static const struct relay_tunnel_user tunnel_user = {
    .on_bytes = on_bytes, .on_fin = on_fin, .on_datagrams = on_datagrams, .on_close = on_close};

static void on_request(void *user, struct relay_tunnel *tunnel, const struct relay_request *request)
{
    struct end *end = malloc(sizeof(*end));
    end->tunnel = tunnel;
    num_open++;
    relay_tunnel_attach(tunnel, &tunnel_user, end);
    if (request->kind != RELAY_KIND_MESSAGE) {
        relay_tunnel_accept(tunnel, NULL, 0);
        return;
    }
    struct relay_response response = {.status = 404, .content_length = 3};
    relay_tunnel_respond(tunnel, &response);
    relay_tunnel_send(tunnel, (const uint8_t *)"no\n", 3);
    relay_tunnel_send_fin(tunnel);
}

static void on_session_close(void *user, int error)
{
    is_closed = true;
}

static const struct relay_session_user session_user = {.on_request = on_request,
                                                       .on_close = on_session_close};

static void turn(void)
{
    uv_run(&loop.uv, UV_RUN_NOWAIT);
}

/* Four bytes say what comes: kind (and FIN in the high bit), stream, and how many bytes of the input it
 * takes. */
static size_t one_event(struct relay_quic_conn *conn, const uint8_t *data, size_t size)
{
    static const int64_t streams[] = {0, 4, 8, 396, 2, 6, 10, 14};
    static const enum fake_event_kind kinds[] = {DATA, DATA, DATA, DATA, RESET, STOP, DATAGRAM, CREDIT};
    int64_t stream = streams[data[1] & 7];
    size_t len = (size_t)data[2] << 8 | data[3];
    len = len < size - 4 ? len : size - 4;
    enum fake_event_kind kind = kinds[data[0] & 7];
    bool is_request = (stream & 2) == 0;
    if ((kind == STOP || kind == CREDIT) && !is_request)
        return 4 + len;
    fake_post(conn, kind, stream, len, kind == DATA && (data[0] & 0x80) != 0, data + 4, len);
    if ((data[0] & 0x40) != 0)
        turn();
    return 4 + len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool is_ready;
    if (!is_ready && relay_loop_init(&loop, &metrics) != 0)
        return 0;
    is_ready = true;
    limits = RELAY_LIMITS_DEFAULT;
    budget = (struct relay_budget){.limit = 1 << 24};
    is_closed = false;
    struct relay_quic_conn *conn = fake_new(&loop, true, &limits);
    struct relay_session *session = relay_http3_server(conn, &limits, &budget, &session_user, NULL);
    if (session == NULL || conn->cb->on_ready(conn->user) != 0)
        abort();
    while (size >= 4 && !conn->closing) {
        size_t used = one_event(conn, data, size);
        data += used;
        size -= used;
        if (is_closed)
            break;
    }
    for (int i = 0; i < 4; i++)
        turn();
    if (!is_closed)
        relay_session_close(session, RELAY_OK);
    for (int i = 0; i < 8 && (!is_closed || num_open > 0); i++)
        turn();
    if (!is_closed || num_open != 0 || budget.used != 0)
        abort();
    return 0;
}
