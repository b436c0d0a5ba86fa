#include "client/chain_internal.h"

#include "lib/net/log.h"

#define STANDBY_PAUSE (2 * RELAY_SECOND)

static size_t num_hops(const struct relay_chain *chain)
{
    return chain->config->num_hops;
}

static bool is_mute(const struct relay_link *first)
{
    return first->ready && first->silent_looks >= RELAY_CHAIN_SILENT_LOOKS && relay_hop_is_silent(first->hop);
}

static bool is_doubtful(const struct relay_link *first)
{
    return !first->ready || first->draining || is_mute(first);
}

/* It takes no new requests, but what is on it may stay. */
static bool drains(const struct relay_link *first)
{
    return first->ready && first->draining && relay_hop_can_carry(first->hop) &&
           !relay_hop_is_silent(first->hop);
}

/* Whether what cannot move could be left behind. */
static bool has_room(const struct relay_chain *chain)
{
    size_t retired = 0, kept = 0;
    for (size_t i = 0; i < RELAY_CHAIN_RETIRED_MAX; i++) {
        retired += chain->retired[i].hop == NULL;
        kept += chain->kept[i].hop == NULL;
    }
    return retired > 0 && (kept + 1 >= num_hops(chain) || kept == RELAY_CHAIN_RETIRED_MAX);
}

/* Whether anything on the way through hop 1 could go through another, or would be followed there. */
static bool is_worth_moving(const struct relay_chain *chain)
{
    if (is_mute(&chain->links[0]) && chain->config->hops[0].num_places > 1 && has_room(chain))
        return true; /* new tunnels do, if nothing else */
    if (num_hops(chain) < 2)
        return false;
    if (chain->links[1].ready)
        return relay_hop_can_move(chain->links[1].hop) || drains(&chain->links[0]);
    return relay_chain_has_retired_on(chain, chain->links[0].hop);
}

void relay_chain_start_standby(struct relay_chain *chain)
{
    uint64_t now = relay_loop_now(chain->loop);
    struct relay_link *first = &chain->links[0];
    size_t num_places = chain->config->hops[0].num_places;
    uint64_t pause = first->draining ? STANDBY_PAUSE << chain->short_lived : STANDBY_PAUSE;
    if (!first->ready || !is_doubtful(first) || chain->standby.hop != NULL ||
        now < chain->last_standby + pause || !is_worth_moving(chain) || (num_places == 1 && !first->draining))
        return;
    chain->last_standby = now;
    chain->standby_place =
        (chain->standby_place + 1) % num_places; /* the last one may have been silent, too */
    if (chain->standby_place == chain->place)
        chain->standby_place = (chain->place + 1) % num_places;
    relay_log(RELAY_LOG_INFO, "hop_doubtful", "s:i, s:s", "hop", 1, "place", relay_hop_authority(first->hop));
    relay_chain_connect(&chain->standby, chain->standby_place);
}

static void log_stays(unsigned number, const struct relay_hop *hop, const char *why)
{
    relay_log(RELAY_LOG_INFO, "hop_stays", "s:i, s:s, s:s", "hop", (int)number, "relay",
              relay_hop_authority(hop), "reason", why);
}

/* Hop 2 does not move to the new hop 1. It stays on the old one, with its tunnels, and another is made for new ones. */
static void leave_behind(struct relay_chain *chain, const struct relay_link *old, const char *why)
{
    size_t last = num_hops(chain) - 1;
    log_stays(2, chain->links[1].hop, why);
    if (chain->links[last].ready)
        relay_chain_retire(&chain->links[last]);
    for (size_t i = last; i > 0; i--)
        relay_chain_put_aside(&chain->links[i]);
    if (is_mute(old))
        relay_chain_ask_again(chain);
}

/* What stands on hop 1 goes on over the one that takes its place. Why it cannot, although `old` still carries it; else NULL. */
static const char *move_behind(struct relay_chain *chain, const struct relay_link *old)
{
    struct relay_link *second = &chain->links[1];
    const char *why = NULL;
    if (!second->ready)
        relay_chain_close_from(chain, 1);
    else if (!old->ready || !relay_hop_can_carry(old->hop))
        relay_chain_move(second);
    else if (relay_link_try_move(second, &why) == 0) /* before the old one closes its tunnel */
        why = NULL;
    return why;
}

void relay_chain_adopt_standby(struct relay_chain *chain)
{
    struct relay_link *first = &chain->links[0], old = *first;
    if (!is_doubtful(first) || !is_worth_moving(chain)) {
        relay_link_close(&chain->standby);
        return;
    }
    relay_link_clear(first);
    first->hop = chain->standby.hop;
    first->ready = true;
    first->since = relay_loop_now(chain->loop);
    relay_link_clear(&chain->standby);
    relay_hop_set_user(first->hop, first);
    chain->place = chain->standby_place;
    if (num_hops(chain) > 1) {
        const char *why = move_behind(chain, &old);
        relay_chain_move_retired(chain, old.hop);
        if (why != NULL)
            leave_behind(chain, &old, why);
        relay_chain_put_aside(&old);
    } else {
        log_stays(1, old.hop, "it is the last one");
        relay_chain_ask_again(chain); /* it is mute: one that drains has left the chain by itself */
        relay_chain_retire(&old);
    }
    relay_task_queue(chain->loop, &chain->advance);
}
