/* A client's HTTP/2 session fed by a relay that sends what it likes, while the application opens tunnels, sends, pauses
 * and gives up. Two bytes say what comes: an act of the application on one tunnel, or so many bytes of the input. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "lib/net/http2.h"
#include "lib/net/metrics.h"
#include "tests/fuzz/application.h"
#include "tests/unit/pipe_stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz {
    struct relay_metrics metrics;
    struct relay_loop loop;
    struct relay_limits limits;
    struct relay_budget budget;
    struct pipe_stream client, relay;
};

static struct fuzz *fuzz; /* one at a time */

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

static size_t one_event(const uint8_t *data, size_t size)
{
    size_t len = 0;
    if (data[0] & 8) {
        act(data[0] & 7, data[1], (size_t)data[1] * data[1]);
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
    application = (struct application){0};
    fuzz->limits = RELAY_LIMITS_DEFAULT;
    fuzz->budget.limit = 1 << 20;
    if (relay_loop_init(&fuzz->loop, &fuzz->metrics) != 0)
        abort();
    pipe_init(&fuzz->client, &fuzz->relay, &fuzz->loop);
    application.session = relay_http2_client(&fuzz->client.super, &fuzz->limits, &fuzz->budget,
                                             RELAY_LEVEL_FLUSH_OUTER, &session_user, NULL);
    if ((data[0] & 1) == 0)
        pipe_send(&fuzz->relay.super, settings, sizeof(settings) - 1);
    turns(2);
    for (data++, size--; size >= 2 && application.session != NULL;) {
        size_t used = one_event(data, size);
        data += used;
        size -= used;
    }
    turns(2);
    settle();
    if (application.session != NULL)
        relay_session_close(application.session, RELAY_OK);
    turns(5);
    if (application.session != NULL || application.num_open != 0 || fuzz->budget.used != 0)
        abort();
    pipe_dispose(&fuzz->client);
    pipe_dispose(&fuzz->relay);
    relay_loop_dispose(&fuzz->loop);
    free(fuzz);
    return 0;
}
