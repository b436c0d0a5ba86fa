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

/* Itself, or a kept one that does. */
static bool carries_retired(const struct relay_link *link)
{
    for (size_t i = 0; i < RELAY_CHAIN_RETIRED_MAX; i++)
        if (is_on(&link->chain->retired[i], link->hop) || is_on(&link->chain->kept[i], link->hop))
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

/* With its tunnels. `why`: NULL: nothing comes from it. */
static void end(struct relay_link *link, int error, const struct relay_hop *carrier, const char *why)
{
    struct relay_failure failure;
    if (why == NULL)
        relay_failure_set(&failure, error, link->index + 1, relay_hop_authority(link->hop),
                          "it gives no sign of life through %s, so its tunnels are lost",
                          relay_hop_authority(carrier));
    else
        relay_failure_set(&failure, error, link->index + 1, relay_hop_authority(link->hop),
                          "it cannot go on through %s, so its tunnels are lost: %s",
                          relay_hop_authority(carrier), why);
    relay_chain_log_failure(&failure);
    relay_link_close(link);
}

/* One that has a path keeps it when it may not move. */
static void move(struct relay_link *link, struct relay_hop *carrier)
{
    const char *why;
    int error = relay_hop_move(link->hop, carrier, &why);
    if (error == 0) {
        link->needs_path = false;
        relay_log(RELAY_LOG_INFO, "hop_moved", "s:i, s:s", "hop", (int)link->index + 1, "through",
                  relay_hop_authority(carrier));
    } else if (link->needs_path) {
        end(link, error, carrier, why);
        return;
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
        bool is_due =
            link->needs_path && !before->draining && (!link->moved || now >= link->since + REFUSED_WITHIN);
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
    const struct relay_link *before = &chain->links[link->index - 1];
    if (link->moved && !link->needs_path && !relay_hop_was_heard(link->hop, link->since) && before->ready &&
        relay_hop_can_carry(before->hop)) {
        end(link, RELAY_ERR_UNREACHABLE, before->hop, NULL);
        return;
    }
    /* For a hop before it that lives it waits until its own idle timeout. */
    link->moved = link->moved && now < link->since + REFUSED_WITHIN;
    link->needs_path = true;
    link->since = now;
    relay_task_queue(chain->loop, &chain->advance);
}

/* Who was told to go ends by itself then; who was left behind does not. */
static bool is_empty(const struct relay_link *retired)
{
    const struct relay_session *session = retired->hop != NULL ? relay_hop_session(retired->hop) : NULL;
    return session != NULL && session->num_tunnels == 0;
}

/* Whether what carries it answers. */
static bool is_reached(const struct relay_link *link)
{
    const struct relay_chain *chain = link->chain;
    if (link->index == 0)
        return true;
    for (size_t i = 0; i < RELAY_CHAIN_RETIRED_MAX; i++)
        if (is_on(link, chain->kept[i].hop))
            return !relay_hop_is_silent(chain->kept[i].hop);
    const struct relay_hop *before = chain->links[link->index - 1].hop;
    return is_on(link, before) && !relay_hop_is_silent(before);
}

/* What was left behind on a hop that had fallen silent, or was on another network, is told that it is lost, like what is in
 * the chain. */
static void watch_one(struct relay_link *link)
{
    if (link->hop == NULL)
        return;
    (void)relay_hop_doubt_network(link->hop);
    if (!relay_link_is_silent_long(link, is_reached(link) && relay_hop_is_silent(link->hop)))
        return;
    struct relay_failure failure;
    relay_failure_set(&failure, RELAY_ERR_TIMEOUT, link->index + 1, relay_hop_authority(link->hop),
                      "it does not answer any more");
    relay_chain_log_failure(&failure);
    relay_link_close(link);
}

bool relay_chain_watch_retired(struct relay_chain *chain)
{
    bool is_any = false;
    for (size_t i = 0; i < RELAY_CHAIN_RETIRED_MAX; i++) {
        watch_one(&chain->kept[i]);
        watch_one(&chain->retired[i]);
    }
    if (relay_chain_retired_wait(chain, 0))
        relay_task_queue(chain->loop, &chain->advance);
    /* What carries one that ends goes at a later look: its farewell leaves through it, by a tunnel of its own. */
    for (size_t i = 0; i < RELAY_CHAIN_RETIRED_MAX; i++)
        if (is_empty(&chain->kept[i]) && !carries_retired(&chain->kept[i]))
            relay_link_close(&chain->kept[i]);
    for (size_t i = 0; i < RELAY_CHAIN_RETIRED_MAX; i++) {
        if (is_empty(&chain->retired[i]))
            relay_link_close(&chain->retired[i]);
        is_any = is_any || chain->kept[i].hop != NULL || chain->retired[i].hop != NULL;
    }
    return is_any;
}

void relay_chain_close_retired(struct relay_chain *chain)
{
    for (size_t i = 0; i < RELAY_CHAIN_RETIRED_MAX; i++)
        relay_link_close(&chain->retired[i]);
}

bool relay_chain_close_kept(struct relay_chain *chain)
{
    bool is_any = false, carries[RELAY_CHAIN_RETIRED_MAX] = {false};
    for (size_t i = 0; i < RELAY_CHAIN_RETIRED_MAX; i++)
        for (size_t k = 0; k < RELAY_CHAIN_RETIRED_MAX; k++)
            carries[i] = carries[i] || is_on(&chain->kept[k], chain->kept[i].hop);
    for (size_t i = 0; i < RELAY_CHAIN_RETIRED_MAX; i++) {
        if (!carries[i])
            relay_link_close(&chain->kept[i]);
        is_any = is_any || carries[i];
    }
    return is_any;
}
