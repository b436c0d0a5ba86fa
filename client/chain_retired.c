#include "client/chain_internal.h"

#include "lib/net/log.h"
#include "lib/wire/error.h"

#define REFUSED_WITHIN (2 * RELAY_SECOND) /* after a move: that way does not lead there */

static bool is_on(const struct relay_link *link, const struct relay_hop *hop)
{
    return link->hop != NULL && hop != NULL && relay_hop_carrier(link->hop) == hop;
}

static bool is_kept(const struct relay_link *link)
{
    return link >= link->chain->kept && link < link->chain->kept + RELAY_CHAIN_RETIRED_MAX;
}

/* Into the first free one of `slots`; closed when there is none. */
static void hand_over(struct relay_link *link, struct relay_link *slots)
{
    for (size_t i = 0; i < RELAY_CHAIN_RETIRED_MAX; i++) {
        if (slots[i].hop != NULL)
            continue;
        slots[i] = *link;
        relay_hop_set_user(link->hop, &slots[i]);
        relay_link_clear(link);
        return;
    }
    relay_link_close(link);
}

void relay_chain_retire(struct relay_link *link)
{
    hand_over(link, link->chain->retired);
}

static bool carries_retired(const struct relay_link *link)
{
    for (size_t i = 0; i < RELAY_CHAIN_RETIRED_MAX; i++)
        if (is_on(&link->chain->retired[i], link->hop))
            return true;
    return false;
}

void relay_chain_put_aside(struct relay_link *link)
{
    if (link->ready && carries_retired(link))
        hand_over(link, link->chain->kept);
    else
        relay_link_close(link);
}

bool relay_chain_has_retired_on(const struct relay_chain *chain, const struct relay_hop *hop)
{
    for (size_t i = 0; i < RELAY_CHAIN_RETIRED_MAX; i++)
        if (is_on(&chain->retired[i], hop) && relay_hop_can_move(chain->retired[i].hop))
            return true;
    return false;
}

bool relay_chain_retired_wait(const struct relay_chain *chain, size_t index)
{
    for (size_t i = 0; i < RELAY_CHAIN_RETIRED_MAX; i++)
        if (chain->retired[i].hop != NULL && chain->retired[i].needs_path && chain->retired[i].index > index)
            return true;
    return false;
}

static void move(struct relay_link *link, struct relay_hop *carrier)
{
    const char *why; /* it stays, and may get another try */
    if (relay_hop_move(link->hop, carrier, &why) == 0) {
        link->needs_path = false;
        relay_log(RELAY_LOG_INFO, "hop_moved", "s:i, s:s", "hop", (int)link->index + 1, "through",
                  relay_hop_authority(carrier));
    }
    link->moved = true;
    link->since = relay_loop_now(link->chain->loop);
}

void relay_chain_move_retired(struct relay_chain *chain, const struct relay_hop *from)
{
    uint64_t now = relay_loop_now(chain->loop);
    for (size_t i = 0; i < RELAY_CHAIN_RETIRED_MAX; i++) {
        struct relay_link *link = &chain->retired[i];
        if (link->hop == NULL || link->index == 0 || !relay_hop_can_move(link->hop))
            continue;
        const struct relay_link *before = &chain->links[link->index - 1];
        bool is_due = link->needs_path && (!link->moved || now >= link->since + REFUSED_WITHIN);
        if ((is_due || is_on(link, from)) && before->ready && !before->needs_path)
            move(link, before->hop);
    }
}

void relay_chain_retired_path_lost(struct relay_link *link)
{
    struct relay_chain *chain = link->chain;
    uint64_t now = relay_loop_now(chain->loop);
    if (is_kept(link)) {
        relay_link_close(link); /* those on it are told in their turn */
        return;
    }
    /* Nothing else ends its waiting than its own idle timeout. */
    link->moved = link->moved && now < link->since + REFUSED_WITHIN;
    link->needs_path = true;
    link->since = now;
    relay_task_queue(chain->loop, &chain->advance);
}

bool relay_chain_watch_retired(struct relay_chain *chain)
{
    bool is_any = false;
    if (relay_chain_retired_wait(chain, 0))
        relay_task_queue(chain->loop, &chain->advance);
    for (size_t i = 0; i < RELAY_CHAIN_RETIRED_MAX; i++) {
        struct relay_link *kept = &chain->kept[i];
        if (kept->hop != NULL && !carries_retired(kept))
            relay_link_close(kept);
        is_any = is_any || kept->hop != NULL || chain->retired[i].hop != NULL;
    }
    return is_any;
}

void relay_chain_close_retired(struct relay_chain *chain)
{
    for (size_t i = 0; i < RELAY_CHAIN_RETIRED_MAX; i++)
        relay_link_close(&chain->retired[i]);
}

void relay_chain_close_kept(struct relay_chain *chain)
{
    for (size_t i = 0; i < RELAY_CHAIN_RETIRED_MAX; i++)
        relay_link_close(&chain->kept[i]);
}
