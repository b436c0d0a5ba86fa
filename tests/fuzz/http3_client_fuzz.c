/* A client's session fed by a relay that sends what it likes, behind the handshake and QUIC's own checks, while the
 * application opens tunnels, sends, pauses and gives up. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "lib/net/http3.h"
#include "lib/net/metrics.h"
#include "tests/unit/fake_quic.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ENDS_MAX 16

static struct relay_loop loop;
static struct relay_metrics metrics;
static struct relay_limits limits;
static struct relay_budget budget;
static struct relay_session *session;
static struct relay_tunnel *ends[ENDS_MAX]; /* NULL: closed, or never open */
static size_t num_ends, num_open;
static bool is_ready, is_closed;

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
    struct relay_run copy = *run;
    relay_tunnel_send_datagrams(*end, &copy);
}

static void on_close(void *user, int error)
{
    struct relay_tunnel **end = user;
    *end = NULL;
    num_open--;
}

static const struct relay_tunnel_user tunnel_user = {.on_response = on_response,
                                                     .on_bytes = on_bytes,
                                                     .on_fin = on_fin,
                                                     .on_datagrams = on_datagrams,
                                                     .on_close = on_close};

static void open_one(uint8_t choice)
{
    static const struct relay_field fields[] = {{RELAY_SLICE("capsule-protocol"), RELAY_SLICE("?1")}};
    struct relay_request request = {.method = RELAY_SLICE("CONNECT"),
                                    .authority = RELAY_SLICE("a:443"),
                                    .kind = RELAY_KIND_BYTES,
                                    .content_length = -1};
    if (num_ends == ENDS_MAX || is_closed)
        return;
    if (choice & 1) {
        request.kind = RELAY_KIND_CAPSULES;
        request.scheme = RELAY_SLICE("https");
        request.path = RELAY_SLICE("/udp/a/53/");
        request.protocol = RELAY_SLICE("connect-udp");
        request.fields = fields;
        request.num_fields = 1;
    }
    struct relay_tunnel **end = &ends[num_ends];
    *end = relay_session_open(session, &request, &tunnel_user, end);
    if (*end == NULL)
        return;
    num_ends++;
    num_open++;
}

static void on_ready(void *user)
{
    is_ready = true;
    open_one(0);
    open_one(1);
}

static void on_goaway(void *user)
{
}

static void on_session_close(void *user, int error)
{
    is_closed = true;
}

static const struct relay_session_user session_user = {
    .on_ready = on_ready, .on_goaway = on_goaway, .on_close = on_session_close};

static void turn(void)
{
    uv_run(&loop.uv, UV_RUN_NOWAIT);
}

/* What the application does. */
static void act(uint8_t what, uint8_t which, size_t len)
{
    static const uint8_t block[65536];
    struct relay_tunnel *tunnel = num_ends > 0 ? ends[which % num_ends] : NULL;
    if (what == 0)
        open_one(which);
    if (what == 1 && !is_closed)
        relay_session_shutdown(session);
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

/* Four bytes say what comes: kind (and a turn and FIN in the high bits), stream, and how many bytes of the input it
 * takes. */
static size_t one_event(struct relay_quic_conn *conn, const uint8_t *data, size_t size)
{
    static const int64_t streams[] = {0, 4, 8, 12, 3, 7, 11, 15};
    static const enum fake_event_kind kinds[] = {DATA, DATA, DATA, RESET, STOP, DATAGRAM, CREDIT, ACK_ALL};
    int64_t stream = streams[data[1] & 7];
    size_t len = (size_t)data[2] << 8 | data[3];
    if (data[0] & 8) {
        act(data[0] & 7, data[1], len);
    } else {
        enum fake_event_kind kind = kinds[data[0] & 7];
        bool is_request = (stream & 2) == 0, is_known = !is_request || stream < conn->next_bidi;
        len = len < size - 4 ? len : size - 4;
        if (kind == DATAGRAM || (is_known && (is_request || kind == DATA || kind == RESET)))
            fake_post(conn, kind, stream, len, kind == DATA && (data[0] & 0x80) != 0, data + 4, len);
    }
    if ((data[0] & 0x40) != 0)
        turn();
    return 4 + (data[0] & 8 ? 0 : len);
}

static void begin(struct relay_quic_conn *conn)
{
    static const uint8_t settings[] = {0, 4, 4, 8, 1, 0x33, 1};
    fake_post(conn, DATA, 3, 0, false, settings, sizeof(settings));
    turn();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool is_up;
    if (!is_up && relay_loop_init(&loop, &metrics) != 0)
        return 0;
    is_up = true;
    limits = RELAY_LIMITS_DEFAULT;
    budget = (struct relay_budget){.limit = 1 << 24};
    is_ready = is_closed = false;
    num_ends = num_open = 0;
    struct relay_quic_client_config config = {.limits = &limits, .budget = &budget};
    session = relay_http3_connect(&loop, NULL, &config, &session_user, NULL);
    struct relay_quic_conn *conn = fake_client;
    if (session == NULL || conn->cb->on_ready(conn->user) != 0)
        abort();
    if (size > 0 && (data[0] & 1) == 0)
        begin(conn);
    for (data++, size -= size > 0; size >= 4 && !is_closed && relay_http3_conn(session) != NULL;) {
        size_t used = one_event(conn, data, size);
        data += used;
        size -= used;
    }
    for (int i = 0; i < 4; i++)
        turn();
    /* What has ended in order waits for an application that has paused. */
    for (size_t i = 0; i < num_ends; i++)
        if (ends[i] != NULL)
            relay_tunnel_resume(ends[i]);
    if (!is_closed)
        relay_session_close(session, RELAY_OK);
    for (int i = 0; i < 8 && (!is_closed || num_open > 0); i++)
        turn();
    if (!is_closed || num_open != 0 || budget.used != 0)
        abort();
    return 0;
}
