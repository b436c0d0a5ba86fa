#include "client/chain_internal.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/net/log.h"
#include "lib/wire/error.h"

#define WATCH_EVERY (100 * RELAY_MS)
/* After the last use it is not connected again until somebody asks. Less than the 30 s after which a relay closes
 * a connection without tunnels: that end is expected. */
#define WANTED_FOR    (20 * RELAY_SECOND)
#define ORPHANED_MAX  (30 * RELAY_SECOND) /* a hop without a path is given up then */
#define SILENT_MAX    (15 * RELAY_SECOND) /* and one that says nothing although its carrier does */
#define STEADY        (30 * RELAY_SECOND) /* so long up: what failed before says nothing any more */
#define CONNECT_AGAIN (100 * RELAY_MS)    /* when a connection could not even be begun */

#define CHAIN_OF(member, pointer)                                                                            \
    ((struct relay_chain *)((char *)(pointer)-offsetof(struct relay_chain, member)))

static const struct relay_hop_user hop_cb;

static size_t num_hops(const struct relay_chain *chain)
{
    return chain->config->num_hops;
}

bool relay_chain_is_up(const struct relay_chain *chain)
{
    for (size_t i = 0; i < num_hops(chain); i++)
        if (!chain->links[i].ready || chain->links[i].needs_path)
            return false;
    return true;
}

struct relay_hop *relay_chain_hop(const struct relay_chain *chain, unsigned number)
{
    const struct relay_link *link = &chain->links[number - 1];
    return link->ready ? link->hop : NULL;
}

/* ---- links ---- */

void relay_link_clear(struct relay_link *link)
{
    *link = (struct relay_link){.chain = link->chain, .index = link->index};
}

void relay_link_close(struct relay_link *link)
{
    if (link->hop != NULL)
        relay_hop_close(link->hop);
    relay_link_clear(link);
}

void relay_chain_close_from(struct relay_chain *chain, size_t index)
{
    for (size_t i = index; i < num_hops(chain); i++)
        relay_link_close(&chain->links[i]);
}

/* What stands on a hop that has gone: it may go on over another path, or it ends. */
static void orphan(struct relay_chain *chain, size_t index)
{
    struct relay_link *link = &chain->links[index];
    if (index < num_hops(chain) && link->ready && relay_hop_can_move(link->hop)) {
        if (!link->needs_path) {
            if (relay_hop_was_heard(link->hop, link->since))
                link->unanswered = 0;
            link->since = relay_loop_now(chain->loop);
        }
        link->needs_path = true;
        return;
    }
    relay_chain_close_from(chain, index);
}

bool relay_chain_connect(struct relay_link *link, size_t place)
{
    struct relay_chain *chain = link->chain;
    if (link->index > 0 && !relay_hop_can_carry(chain->links[link->index - 1].hop))
        return false;
    struct relay_hop_params params = {
        .environment = chain->environment,
        .config = &chain->config->hops[link->index],
        .trust = &chain->trusts[link->index],
        .place = place,
        .number = link->index + 1,
        .is_last = link->index + 1 == num_hops(chain),
        .carrier = link->index > 0 ? chain->links[link->index - 1].hop : NULL,
    };
    link->hop = relay_hop_new(&params, &hop_cb, link);
    return link->hop != NULL;
}

/* ---- bringing it up ---- */

static bool is_wanted(const struct relay_chain *chain, size_t index)
{
    for (size_t i = index + 1; i < num_hops(chain); i++)
        if (chain->links[i].hop != NULL)
            return true;
    return chain->num_waiting > 0 || relay_chain_retired_wait(chain, index) ||
           relay_loop_now(chain->loop) < chain->last_used + WANTED_FOR;
}

static void end_link(struct relay_link *link, int error, const char *why)
{
    struct relay_chain *chain = link->chain;
    struct relay_failure failure;
    relay_failure_set(&failure, error, link->index + 1, relay_hop_authority(link->hop), "%s", why);
    relay_chain_log_failure(&failure);
    chain->last_failure = failure;
    relay_chain_close_from(chain, link->index);
    relay_task_queue(chain->loop, &chain->advance);
}

/* Those before it answer; what is wrong with it, another ingress sees too. */
static void end_unanswered(struct relay_link *link)
{
    link->chain->stays = true;
    end_link(link, RELAY_ERR_UNREACHABLE,
             "it gives no sign of life, so its tunnels are lost and it is connected anew");
}

int relay_link_try_move(struct relay_link *link, const char **why)
{
    struct relay_hop *carrier = link->chain->links[link->index - 1].hop;
    int error = relay_hop_move(link->hop, carrier, why);
    if (error != 0)
        return error;
    link->needs_path = false;
    link->moved = true;
    link->since = relay_loop_now(link->chain->loop);
    relay_log(RELAY_LOG_INFO, "hop_moved", "s:i, s:s", "hop", (int)link->index + 1, "through",
              relay_hop_authority(carrier));
    return 0;
}

void relay_chain_move(struct relay_link *link)
{
    struct relay_chain *chain = link->chain;
    struct relay_hop *carrier = chain->links[link->index - 1].hop;
    const char *why;
    int error = relay_link_try_move(link, &why);
    if (error == 0)
        return;
    if (error == RELAY_ERR_LIMIT && link->unanswered > 0) { /* it would have given more connection IDs */
        end_unanswered(link);
        return;
    }
    relay_failure_set(&chain->last_failure, error, link->index + 1, relay_hop_authority(link->hop),
                      "it cannot go on through %s, so its tunnels are lost and it is connected anew: %s",
                      relay_hop_authority(carrier), why);
    relay_chain_log_failure(&chain->last_failure);
    relay_chain_close_from(chain, link->index);
}

/* Another ingress may know the way. */
static void leave_ingress(struct relay_chain *chain)
{
    relay_chain_put_aside(&chain->links[0]);
    relay_chain_next_place(chain);
}

/* Hop 2 is missing, and hop 1, though it lives, said that it takes no more requests. */
static void leave_draining(struct relay_chain *chain)
{
    struct relay_failure failure;
    relay_failure_set(&failure, RELAY_ERR_SHUTDOWN, 1, relay_hop_authority(chain->links[0].hop),
                      "it takes no new requests");
    relay_chain_log_failure(&failure);
    leave_ingress(chain);
    relay_chain_count_failure(chain, &failure, true);
    relay_task_queue(chain->loop, &chain->advance);
}

/* Does the next thing that is missing. */
static void on_advance(struct relay_task *task)
{
    struct relay_chain *chain = CHAIN_OF(advance, task);
    if (chain->is_stopped) {
        relay_chain_close_innermost(chain);
        return;
    }
    relay_chain_move_retired(chain, NULL);
    for (size_t i = 0; i < num_hops(chain); i++) {
        struct relay_link *link = &chain->links[i];
        if (link->hop != NULL && link->ready && link->needs_path)
            relay_chain_move(link);
        if (link->hop != NULL && link->ready)
            continue;
        if (link->hop == NULL && is_wanted(chain, i)) {
            if (relay_loop_now(chain->loop) < chain->retry_at)
                relay_timer_set(chain->loop, &chain->retry, chain->retry_at + RELAY_MS);
            else if (i == 1 && chain->links[0].draining)
                leave_draining(chain);
            else if (!relay_chain_connect(link, i == 0 ? chain->place : 0))
                relay_timer_set_after(chain->loop, &chain->retry, CONNECT_AGAIN);
        }
        return;
    }
    chain->stays = false;
    chain->last_failure.error = RELAY_OK;
    relay_chain_serve(chain);
    if (!relay_timer_is_set(&chain->watch))
        relay_timer_set_after(chain->loop, &chain->watch, WATCH_EVERY);
}

static void on_retry(struct relay_timer *timer)
{
    struct relay_chain *chain = CHAIN_OF(retry, timer);
    relay_task_queue(chain->loop, &chain->advance);
}

/* ---- the watch ---- */

/* Whether it is this hop that is silent, and not one below. */
static bool is_silent_alone(const struct relay_chain *chain, const struct relay_link *link)
{
    for (size_t i = 0; i < link->index; i++)
        if (!chain->links[i].ready || relay_hop_is_silent(chain->links[i].hop))
            return false;
    return relay_hop_is_silent(link->hop);
}

bool relay_link_is_silent_long(struct relay_link *link, bool is_silent)
{
    const struct relay_session *session = relay_hop_session(link->hop);
    uint64_t now = relay_loop_now(link->chain->loop);
    if (!is_silent || session == NULL || session->version != RELAY_HTTP_3)
        link->silent_since = 0;
    else if (link->silent_since == 0)
        link->silent_since = now;
    return link->silent_since != 0 && now > link->silent_since + SILENT_MAX;
}

static void watch_link(struct relay_link *link, uint64_t now)
{
    if (!link->ready)
        return;
    if (link->needs_path) {
        link->silent_since = 0;
        if (now > link->since + ORPHANED_MAX)
            end_link(link, RELAY_ERR_TIMEOUT, "no other way to it was found in time");
        return;
    }
    if (!relay_link_is_silent_long(link, is_silent_alone(link->chain, link)))
        return;
    if (link->index == 0)
        relay_chain_next_place(link->chain);
    end_link(link, RELAY_ERR_TIMEOUT, "it does not answer any more");
}

/* A hop 1 that has fallen silent, or could not say so: perhaps this machine has gone to another network. */
static void follow_network(struct relay_link *first)
{
    bool is_due = first->silent_looks > 0 && first->silent_looks % RELAY_CHAIN_SILENT_LOOKS == 0;
    if (is_due && relay_hop_follow_network(first->hop)) {
        first->silent_looks = 0;
        first->silent_since = 0;
    } else if (!first->ready || !relay_hop_doubt_network(first->hop)) {
        return;
    }
    relay_log(RELAY_LOG_INFO, "network_changed", "s:i, s:s", "hop", 1, "relay",
              relay_hop_authority(first->hop));
}

static void on_watch(struct relay_timer *timer)
{
    struct relay_chain *chain = CHAIN_OF(watch, timer);
    uint64_t now = relay_loop_now(chain->loop);
    struct relay_link *first = &chain->links[0];
    bool is_any = relay_chain_watch_retired(chain);
    first->silent_looks = first->ready && relay_hop_is_silent(first->hop) ? first->silent_looks + 1 : 0;
    follow_network(first);
    for (size_t i = 0; i < num_hops(chain); i++) {
        watch_link(&chain->links[i], now);
        is_any = is_any || chain->links[i].hop != NULL;
    }
    relay_chain_start_standby(chain);
    if (relay_chain_is_up(chain) && now >= chain->links[num_hops(chain) - 1].since + STEADY)
        relay_chain_forget_failures(chain);
    if (chain->num_waiting > 0)
        relay_task_queue(chain->loop, &chain->advance);
    if (is_any)
        relay_timer_set_after(chain->loop, &chain->watch, WATCH_EVERY);
}

/* ---- what hops tell ---- */

static void begin_use(struct relay_link *link)
{
    if (link->index > 0)
        link->chain->links[link->index - 1].has_served = true;
    relay_task_queue(link->chain->loop, &link->chain->advance);
}

static void on_ready(void *user)
{
    struct relay_link *link = user;
    struct relay_chain *chain = link->chain;
    link->ready = true;
    link->since = relay_loop_now(chain->loop);
    relay_log(RELAY_LOG_INFO, "hop_ready", "s:i, s:s, s:i", "hop", (int)link->index + 1, "relay",
              relay_hop_authority(link->hop), "http", relay_hop_session(link->hop)->version >> 8);
    if (link == &chain->standby)
        relay_chain_adopt_standby(chain);
    else
        begin_use(link);
}

/* Not beside it: standby, retired or kept. */
static bool is_in_chain(const struct relay_link *link)
{
    return link >= link->chain->links && link < link->chain->links + RELAY_HOPS_MAX;
}

/* It was moved to this way, which has ended. Each ingress is asked once, and nobody behind them: when nothing has
 * come from it on any of these ways, it is dead. `why`: what the carrier had against it; may be NULL. */
static void refuse_move(struct relay_link *link, const struct relay_failure *why)
{
    struct relay_chain *chain = link->chain;
    size_t ways = link->index == 1 ? chain->config->hops[0].num_places : 1;
    struct relay_failure failure;
    if (link->unanswered >= ways && why == NULL) {
        end_unanswered(link);
        return;
    }
    relay_failure_set(&failure, RELAY_ERR_UNREACHABLE, link->index + 1, relay_hop_authority(link->hop),
                      link->unanswered > 0 ? "no sign of life through %s" : "no way to it through %s",
                      relay_hop_authority(chain->links[link->index - 1].hop));
    if (why != NULL)
        failure = *why;
    relay_chain_log_failure(&failure);
    if (link->unanswered >= ways)
        relay_chain_close_from(chain, link->index);
    if (link->index == 1)
        leave_ingress(chain);
    relay_chain_count_failure(chain, &failure, true);
}

static void on_path_lost(void *user, const struct relay_failure *failure)
{
    struct relay_link *link = user;
    struct relay_chain *chain = link->chain;
    if (!is_in_chain(link)) {
        relay_chain_retired_path_lost(link);
        return;
    }
    const struct relay_link *carrier = &chain->links[link->index - 1];
    bool is_young = link->index == 1 && relay_loop_now(chain->loop) < link->since + 2 * RELAY_SECOND;
    bool is_heard = relay_hop_was_heard(link->hop, link->since);
    bool is_refused = link->moved && !link->needs_path && (is_young || !is_heard) && carrier->ready &&
                      relay_hop_can_carry(carrier->hop);
    if (is_refused && !is_heard)
        link->unanswered++;
    orphan(chain, link->index);
    if (is_refused && link->hop != NULL)
        refuse_move(link, failure);
    relay_task_queue(chain->loop, &chain->advance);
}

/* The last hop takes no new tunnels. `failure`: why; may be NULL. */
static void leave_last(struct relay_link *link, const struct relay_failure *failure)
{
    struct relay_chain *chain = link->chain;
    unsigned index = link->index;
    bool was_of_use = link->has_served;
    struct relay_failure vain;
    if (failure != NULL)
        vain = *failure;
    else
        relay_failure_set(&vain, RELAY_ERR_SHUTDOWN, index + 1, relay_hop_authority(link->hop),
                          "it takes no new requests");
    if (failure != NULL || !was_of_use)
        relay_chain_log_failure(&vain); /* of a retired one nothing is told any more */
    relay_link_set_retry(link);
    chain->stays = true;
    relay_chain_retire(link);
    if (was_of_use)
        return;
    if (index == 0)
        relay_chain_next_place(chain);
    relay_chain_count_vain(chain, &vain, index);
}

static void on_goaway(void *user, const struct relay_failure *failure)
{
    struct relay_link *link = user;
    struct relay_chain *chain = link->chain;
    if (!is_in_chain(link))
        return;
    if (link->index + 1 < num_hops(chain)) {
        if (link->index == 0 && !link->draining)
            relay_chain_count_short_life(link);
        link->draining = true; /* hop 1: the watch finds another; in the middle: until it closes */
    } else {
        leave_last(link, failure);
    }
    relay_task_queue(chain->loop, &chain->advance);
}

/* A hop behind the first could not be connected. Where the one before it is to blame, another ingress is tried
 * for those who wait. Else they are told, and one other has a try when somebody asks again; none when this hop
 * had said that it goes. */
static void on_unreached(struct relay_chain *chain, const struct relay_failure *failure)
{
    bool has_other = chain->config->hops[0].num_places > 1, is_ingress = failure->hop == 1;
    if (has_other && (is_ingress || !chain->stays)) {
        chain->stays = chain->stays || !is_ingress;
        leave_ingress(chain);
    }
    relay_chain_count_failure(chain, failure, is_ingress);
}

static void on_close(void *user, const struct relay_failure *failure)
{
    struct relay_link *link = user;
    struct relay_chain *chain = link->chain;
    bool was_ready = link->ready, was_in_vain = relay_link_was_in_vain(link);
    if (!is_in_chain(link)) {
        relay_link_clear(link);
        return;
    }
    relay_link_set_retry(link);
    relay_link_clear(link);
    if (!was_ready || is_wanted(chain, link->index))
        relay_chain_log_failure(failure);
    orphan(chain, link->index + 1u);
    if (link->index == 0)
        relay_chain_next_place(chain);
    if (was_in_vain)
        relay_chain_count_vain(chain, failure, link->index);
    else if (was_ready)
        chain->last_failure = *failure;
    else if (link->index == 0)
        relay_chain_count_failure(chain, failure, true);
    else
        on_unreached(chain, failure);
    relay_task_queue(chain->loop, &chain->advance);
}

static const struct relay_hop_user hop_cb = {
    .on_ready = on_ready, .on_path_lost = on_path_lost, .on_goaway = on_goaway, .on_close = on_close};

/* ---- life ---- */

struct relay_chain *relay_chain_new(struct relay_hop_environment *environment,
                                    const struct relay_client_config *config, char *text, size_t size)
{
    struct relay_chain *chain = calloc(1, sizeof(*chain));
    if (chain == NULL) {
        snprintf(text, size, "out of memory");
        return NULL;
    }
    chain->environment = environment;
    chain->config = config;
    chain->loop = environment->loop;
    chain->waiting_end = &chain->waiting;
    relay_timer_init(&chain->retry, on_retry);
    relay_timer_init(&chain->watch, on_watch);
    relay_task_init(&chain->advance, RELAY_LEVEL_EVENT, on_advance);
    chain->standby.chain = chain;
    for (size_t i = 0; i < RELAY_CHAIN_RETIRED_MAX; i++)
        chain->retired[i].chain = chain->kept[i].chain = chain;
    for (size_t i = 0; i < config->num_hops; i++) {
        chain->links[i].chain = chain;
        chain->links[i].index = (unsigned)i;
    }
    if (relay_chain_init_trusts(chain->trusts, config, text, size) == 0)
        return chain;
    relay_chain_free(chain);
    return NULL;
}

void relay_chain_free(struct relay_chain *chain)
{
    relay_chain_stop(chain);
    relay_timer_stop(chain->loop, &chain->retry);
    relay_task_cancel(&chain->advance);
    while (relay_chain_close_kept(chain))
        ;
    for (size_t i = num_hops(chain); i > 0; i--)
        relay_link_close(&chain->links[i - 1]);
    for (size_t i = 0; i < num_hops(chain); i++)
        relay_hop_trust_dispose(&chain->trusts[i]);
    free(chain);
}

void relay_chain_start(struct relay_chain *chain)
{
    chain->last_used = relay_loop_now(chain->loop);
    relay_task_queue(chain->loop, &chain->advance);
}
