/* A client's session fed by a relay that sends what it likes, behind the handshake and QUIC's own checks, while the
 * application opens tunnels, sends, pauses and gives up. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "lib/net/http3.h"
#include "lib/net/metrics.h"
#include "tests/fuzz/application.h"
#include "tests/unit/fake_quic.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct relay_loop loop;
static struct relay_metrics metrics;
static struct relay_limits limits;
static struct relay_budget budget;

static void turn(void)
{
    uv_run(&loop.uv, UV_RUN_NOWAIT);
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
    application = (struct application){0};
    struct relay_quic_client_config config = {.limits = &limits, .budget = &budget};
    application.session = relay_http3_connect(&loop, NULL, &config, &session_user, NULL);
    struct relay_quic_conn *conn = fake_client;
    if (application.session == NULL || conn->cb->on_ready(conn->user) != 0)
        abort();
    if (size > 0 && (data[0] & 1) == 0)
        begin(conn);
    for (data++, size -= size > 0;
         size >= 4 && application.session != NULL && relay_http3_conn(application.session) != NULL;) {
        size_t used = one_event(conn, data, size);
        data += used;
        size -= used;
    }
    for (int i = 0; i < 4; i++)
        turn();
    settle();
    if (application.session != NULL)
        relay_session_close(application.session, RELAY_OK);
    for (int i = 0; i < 8 && (application.session != NULL || application.num_open > 0); i++)
        turn();
    if (application.session != NULL || application.num_open != 0 || budget.used != 0)
        abort();
    return 0;
}
