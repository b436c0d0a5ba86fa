/* The end of a chain: hop by hop, the innermost first. */
#include "client/chain_internal.h"

#include "lib/wire/error.h"

#define STOP_MAX  (1 * RELAY_SECOND) /* of waiting for the farewells of the hops inside */
#define STOP_LOOK (10 * RELAY_MS)

/* Hops that were closed and have not gone yet, and connections of theirs that repeat their farewell. */
static bool is_closing(const struct relay_chain *chain)
{
    size_t others = chain->environment->num_hops;
    for (size_t i = 0; i < chain->config->num_hops; i++)
        others -= chain->links[i].hop != NULL;
    for (size_t i = 0; i < RELAY_CHAIN_RETIRED_MAX; i++)
        others -= chain->kept[i].hop != NULL;
    return others > 0;
}

/* One after the other: the farewell of a hop travels through the hop before, which must live until it has gone out. */
void relay_chain_close_innermost(struct relay_chain *chain)
{
    size_t left = chain->config->num_hops;
    while (left > 0 && chain->links[left - 1].hop == NULL)
        left--;
    if (left < chain->config->num_hops && is_closing(chain) &&
        relay_loop_now(chain->loop) < chain->stop_until) {
        relay_timer_set_after(chain->loop, &chain->retry, STOP_LOOK);
        return;
    }
    if (left <= 1 && relay_chain_close_kept(chain)) {
        relay_timer_set_after(chain->loop, &chain->retry, STOP_LOOK);
        return;
    }
    if (left == 0)
        return;
    relay_link_close(&chain->links[left - 1]);
    relay_task_defer(chain->loop, &chain->advance);
}

void relay_chain_stop(struct relay_chain *chain)
{
    static const struct relay_failure failure = {.error = RELAY_ERR_SHUTDOWN,
                                                 .text = "the client is shutting down"};
    if (chain->is_stopped)
        return;
    chain->is_stopped = true;
    chain->stop_until = relay_loop_now(chain->loop) + STOP_MAX;
    relay_timer_stop(chain->loop, &chain->retry);
    relay_timer_stop(chain->loop, &chain->watch);
    relay_task_cancel(&chain->advance);
    relay_chain_close_retired(chain);
    relay_link_close(&chain->standby);
    relay_chain_refuse(chain, &failure);
    relay_chain_close_innermost(chain);
}
