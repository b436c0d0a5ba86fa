#include "client/chain_internal.h"

#include <sys/random.h>

#include "lib/net/log.h"
#include "lib/wire/error.h"

#define ASKED_AFTER    (1 * RELAY_SECOND) /* a request does not wait for the back-off, but for this long */
#define YOUNG          (1 * RELAY_SECOND)
#define BACK_OFF_FIRST (250 * RELAY_MS)
#define BACK_OFF_MAX   (30 * RELAY_SECOND)
#define SOON           (30 * RELAY_SECOND) /* what a draining relay lets its tunnels have */
#define DOUBLINGS      3
#define BREAKER        5 /* rounds of failures; then openings fail at once after one (T81) */

void relay_chain_log_failure(const struct relay_failure *failure)
{
    relay_log(RELAY_LOG_WARNING, "hop_failed", "s:i, s:s, s:s", "hop", (int)failure->hop, "error",
              relay_error_name(failure->error), "text", failure->text);
}

static uint64_t back_off(const struct relay_chain *chain)
{
    uint32_t random = 0;
    uint64_t delay = BACK_OFF_FIRST << (chain->failures < 8 ? chain->failures - 1 : 7);
    if (delay > BACK_OFF_MAX)
        delay = BACK_OFF_MAX;
    if (getrandom(&random, sizeof(random), GRND_NONBLOCK) == sizeof(random)) /* without it: no jitter */
        delay = delay / 2 + (uint64_t)((double)(delay / 2) * random / UINT32_MAX);
    return delay;
}

void relay_chain_next_place(struct relay_chain *chain)
{
    chain->place = (chain->place + 1) % chain->config->hops[0].num_places;
}

/* False: the next ingress is to be tried at once. */
static bool is_round_over(struct relay_chain *chain, const struct relay_failure *failure, bool another_helps)
{
    chain->last_failure = *failure;
    chain->failed_at = chain->retry_at = relay_loop_now(chain->loop);
    if (++chain->tried < chain->config->hops[0].num_places && another_helps)
        return false;
    chain->tried = 0;
    chain->failures++;
    chain->retry_at += back_off(chain);
    return true;
}

void relay_chain_count_failure(struct relay_chain *chain, const struct relay_failure *failure,
                               bool another_helps)
{
    if (is_round_over(chain, failure, another_helps))
        relay_chain_refuse(chain, failure);
}

void relay_chain_forget_failures(struct relay_chain *chain)
{
    chain->failures = chain->tried = 0;
}

bool relay_link_was_in_vain(const struct relay_link *link)
{
    return link->ready && !link->has_served && relay_loop_now(link->chain->loop) < link->since + YOUNG;
}

void relay_chain_count_vain(struct relay_chain *chain, const struct relay_failure *failure, unsigned index)
{
    bool is_first = chain->failures == 0;
    if (is_round_over(chain, failure, index == 0) && !is_first)
        relay_chain_refuse(chain, failure);
}

void relay_link_set_retry(const struct relay_link *link)
{
    struct relay_chain *chain = link->chain;
    uint64_t now = relay_loop_now(chain->loop);
    bool is_young = now < link->since + YOUNG;
    if (link->ready && is_young && chain->retry_at < now + BACK_OFF_FIRST)
        chain->retry_at = now + BACK_OFF_FIRST;
    else if (link->ready && !is_young && link->index == 0)
        chain->retry_at = now;
}

void relay_chain_count_short_life(const struct relay_link *first)
{
    struct relay_chain *chain = first->chain;
    if (relay_loop_now(chain->loop) >= first->since + SOON)
        chain->short_lived = 0;
    else if (chain->short_lived < DOUBLINGS)
        chain->short_lived++;
}

bool relay_chain_hurry(struct relay_chain *chain)
{
    uint64_t now = relay_loop_now(chain->loop), at = chain->failed_at + ASKED_AFTER;
    bool is_trying = false;
    for (size_t i = 0; i < chain->config->num_hops; i++)
        is_trying = is_trying || (chain->links[i].hop != NULL && !chain->links[i].ready);
    if (is_trying || now >= chain->retry_at)
        return true;
    if (now < at && chain->failures >= BREAKER)
        return false;
    if (chain->retry_at > at)
        chain->retry_at = at > now ? at : now;
    return true;
}
