#include "server/observation.h"

#include <jansson.h>

#include "lib/net/log.h"

static void warn(struct relay_observation *observation)
{
    uint64_t now = relay_loop_now(observation->loop);
    if (now >= observation->until) {
        relay_log(RELAY_LOG_WARNING, "observing_ended", "s:s", "advice",
                  "debug.observe has been on for an hour and is off now; take it out of the file");
        return;
    }
    relay_log(RELAY_LOG_WARNING, "observing", "s:s, s:I", "meaning",
              "debug.observe logs client, peer and target of each tunnel", "seconds_left",
              (json_int_t)((observation->until - now) / RELAY_SECOND));
    uint64_t next = now + observation->warning;
    relay_timer_set(observation->loop, &observation->timer,
                    next < observation->until ? next : observation->until);
}

static void on_timer(struct relay_timer *timer)
{
    warn((struct relay_observation *)((char *)timer - offsetof(struct relay_observation, timer)));
}

void relay_observation_init(struct relay_observation *observation, struct relay_loop *loop, uint64_t warning,
                            uint64_t length)
{
    *observation = (struct relay_observation){.loop = loop, .warning = warning, .length = length};
    relay_timer_init(&observation->timer, on_timer);
}

void relay_observation_apply(struct relay_observation *observation, struct relay_snapshot *snapshot)
{
    if (!snapshot->observe) {
        relay_observation_stop(observation);
    } else if (observation->until == 0) {
        observation->until = relay_loop_now(observation->loop) + observation->length;
        warn(observation);
    }
    snapshot->observe_until = observation->until;
}

void relay_observation_stop(struct relay_observation *observation)
{
    relay_timer_stop(observation->loop, &observation->timer);
    observation->until = 0;
}
