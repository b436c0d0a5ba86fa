#include "lib/net/quic_farewell.h"

#include <stdlib.h>
#include <string.h>

#define PERIODS    3 /* PTO */
#define PERIOD_MAX (500 * RELAY_MS / PERIODS)

struct farewell {
    struct relay_quic_farewell_params params;
    struct relay_timer timer;
    struct relay_task flush;
    struct relay_task cut;    /* among the loop's lingering ones */
    uint64_t came, answer_at; /* packets; which of them is answered next */
    uint64_t came_before;     /* the period */
    unsigned periods;         /* that are over */
    bool is_due, is_last;     /* it is to be sent; and that is all */
    uint8_t packet[];
};

static void end(struct farewell *farewell)
{
    struct relay_packet_path *path = farewell->params.path;
    relay_timer_stop(farewell->params.loop, &farewell->timer);
    relay_task_cancel(&farewell->flush);
    relay_task_cancel(&farewell->cut);
    --*farewell->params.count;
    free(farewell);
    path->ops->close(path);
}

static void on_cut(struct relay_task *task)
{
    end((struct farewell *)((char *)task - offsetof(struct farewell, cut)));
}

static void send_again(struct farewell *farewell)
{
    farewell->is_due = true;
    relay_task_queue(farewell->params.loop, &farewell->flush);
}

static void on_flush(struct relay_task *task)
{
    struct farewell *farewell = (struct farewell *)((char *)task - offsetof(struct farewell, flush));
    struct relay_packet_path *path = farewell->params.path;
    size_t len = farewell->params.len;
    if (farewell->is_due)
        farewell->is_due = path->ops->send(path, farewell->packet, len, len) < len;
    if (farewell->is_last && !farewell->is_due)
        end(farewell);
}

static void on_timer(struct relay_timer *timer)
{
    struct farewell *farewell = (struct farewell *)((char *)timer - offsetof(struct farewell, timer));
    if (++farewell->periods == PERIODS) {
        end(farewell);
        return;
    }
    farewell->is_last = farewell->came == farewell->came_before;
    farewell->came_before = farewell->came;
    relay_timer_set_after(farewell->params.loop, timer, farewell->params.pto);
    send_again(farewell);
}

/* ---- the path's callbacks ---- */

static void on_packet(void *user, uint8_t *packet, size_t len, uint8_t ecn)
{
    struct farewell *farewell = user;
    (void)packet; /* whatever it is: its keys are gone */
    (void)len;
    (void)ecn;
    if (++farewell->came < farewell->answer_at)
        return;
    farewell->answer_at *= 2;
    send_again(farewell);
}

static void on_writable(void *user)
{
    struct farewell *farewell = user;
    relay_task_queue(farewell->params.loop, &farewell->flush);
}

static void on_close(void *user, int error)
{
    (void)error;
    end(user);
}

static const struct relay_packet_path_user path_user = {
    .on_packet = on_packet, .on_writable = on_writable, .on_mtu = on_writable, .on_close = on_close};

void relay_quic_farewell_begin(const struct relay_quic_farewell_params *params)
{
    struct farewell *farewell = calloc(1, sizeof(*farewell) + params->len);
    if (farewell == NULL) {
        params->path->ops->close(params->path);
        return;
    }
    farewell->params = *params;
    memcpy(farewell->packet, params->packet, params->len);
    farewell->params.packet = NULL; /* borrowed */
    if (farewell->params.pto > PERIOD_MAX)
        farewell->params.pto = PERIOD_MAX;
    farewell->answer_at = 1;
    ++*params->count;
    relay_timer_init(&farewell->timer, on_timer);
    relay_task_init(&farewell->flush, params->level, on_flush);
    relay_task_init(&farewell->cut, RELAY_LEVEL_EVENT, on_cut);
    relay_loop_linger(params->loop, &farewell->cut);
    relay_timer_set_after(params->loop, &farewell->timer, farewell->params.pto);
    params->path->cb = &path_user;
    params->path->user = farewell;
    if (params->path->ops->detach != NULL)
        params->path->ops->detach(params->path);
    if (!params->is_sent)
        send_again(farewell);
}
