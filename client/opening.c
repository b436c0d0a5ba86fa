#include "client/chain_internal.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "lib/wire/error.h"

#define OPENING_OF(member, pointer)                                                                          \
    ((struct relay_opening *)((char *)(pointer)-offsetof(struct relay_opening, member)))

/* ---- the two lists ---- */

static void wait_in_line(struct relay_chain *chain, struct relay_opening *opening)
{
    opening->next = NULL;
    opening->prev = NULL;
    *chain->waiting_end = opening;
    chain->waiting_end = &opening->next;
    chain->num_waiting++;
}

static void leave_line(struct relay_chain *chain, struct relay_opening *opening)
{
    for (struct relay_opening **at = &chain->waiting; *at != NULL; at = &(*at)->next) {
        if (*at == opening) {
            *at = opening->next;
            if (chain->waiting_end == &opening->next)
                chain->waiting_end = at;
            chain->num_waiting--;
            break;
        }
    }
    opening->next = NULL;
}

static void list_open(struct relay_chain *chain, struct relay_opening *opening)
{
    opening->prev = NULL;
    opening->next = chain->opening;
    if (chain->opening != NULL)
        chain->opening->prev = opening;
    chain->opening = opening;
}

static void unlist_open(struct relay_chain *chain, struct relay_opening *opening)
{
    if (opening->prev != NULL)
        opening->prev->next = opening->next;
    else
        chain->opening = opening->next;
    if (opening->next != NULL)
        opening->next->prev = opening->prev;
    opening->prev = opening->next = NULL;
}

/* Takes it out of the chain; the tunnel, if any, is the caller's. */
static struct relay_tunnel *detach(struct relay_opening *opening)
{
    struct relay_chain *chain = opening->chain;
    struct relay_tunnel *tunnel = opening->tunnel;
    relay_timer_stop(chain->loop, &opening->deadline);
    relay_task_cancel(&opening->task);
    if (tunnel != NULL)
        unlist_open(chain, opening);
    else
        leave_line(chain, opening);
    opening->tunnel = NULL;
    opening->chain = NULL;
    return tunnel;
}

/* Refused: what is left of it. */
static void drop_tunnel(struct relay_tunnel *tunnel)
{
    if (tunnel == NULL)
        return;
    relay_tunnel_attach(tunnel, NULL, NULL);
    relay_tunnel_abort(tunnel, RELAY_ERR_CANCELLED);
}

void relay_opening_cancel(struct relay_opening *opening)
{
    struct relay_chain *chain = opening->chain;
    if (chain == NULL)
        return;
    bool is_told = relay_task_is_queued(&opening->task); /* refused, or its time is over */
    struct relay_tunnel *tunnel = detach(opening);
    if (tunnel != NULL && !is_told)
        relay_abandoned_add(&chain->abandoned, tunnel);
    else
        drop_tunnel(tunnel);
}

/* ---- failing ---- */

/* Nothing was sent into the tunnel yet. Where the connection drains or is lost, that is known by now: a new one is
 * made. */
static void ask_again(struct relay_opening *opening)
{
    struct relay_tunnel *tunnel = opening->tunnel;
    opening->asks_again = false;
    opening->asked_again = true;
    if (tunnel != NULL) {
        unlist_open(opening->chain, opening);
        opening->tunnel = NULL;
        wait_in_line(opening->chain, opening);
    }
    drop_tunnel(tunnel);
    relay_task_queue(opening->chain->loop, &opening->chain->advance);
}

static void on_task(struct relay_task *task)
{
    struct relay_opening *opening = OPENING_OF(task, task);
    if (opening->asks_again) {
        ask_again(opening);
        return;
    }
    drop_tunnel(detach(opening));
    opening->on_failed(opening, &opening->failure);
}

static void fail(struct relay_opening *opening, const struct relay_failure *failure)
{
    opening->failure = *failure;
    opening->asks_again = false;
    relay_task_queue(opening->chain->loop, &opening->task);
}

/* Who is to blame: of several relays of the last hop the one that was asked, or is connected. */
static const char *authority_of(const struct relay_opening *opening)
{
    unsigned last = (unsigned)opening->chain->config->num_hops;
    const struct relay_link *link = &opening->chain->links[last - 1];
    if (opening->asked != NULL)
        return opening->asked;
    return link->hop != NULL ? relay_hop_authority(link->hop)
                             : opening->chain->config->hops[last - 1].places[0].authority;
}

static void on_deadline(struct relay_timer *timer)
{
    struct relay_opening *opening = OPENING_OF(deadline, timer);
    struct relay_chain *chain = opening->chain;
    unsigned last = (unsigned)chain->config->num_hops;
    bool is_connected = chain->links[last - 1].ready;
    struct relay_failure failure = chain->last_failure;
    if (opening->tunnel != NULL || is_connected || failure.error == RELAY_OK)
        relay_failure_set(&failure,
                          opening->tunnel == NULL && is_connected ? RELAY_ERR_LIMIT : RELAY_ERR_TIMEOUT, last,
                          authority_of(opening), "%s",
                          opening->tunnel != NULL ? "no answer in time"
                          : is_connected          ? "it takes no more tunnels on this connection"
                                                  : "not connected in time");
    fail(opening, &failure);
}

void relay_chain_refuse(struct relay_chain *chain, const struct relay_failure *failure)
{
    for (struct relay_opening *opening = chain->waiting; opening != NULL; opening = opening->next)
        fail(opening, failure);
}

/* ---- the tunnel's callbacks until it is open ---- */

/* Which is what the chain is for, also when the answer is no. */
static void note_answer(struct relay_chain *chain)
{
    struct relay_link *last = &chain->links[chain->config->num_hops - 1];
    if (!last->ready)
        return; /* of a retired one */
    last->has_served = true;
    relay_chain_forget_failures(chain);
}

static void on_response(void *user, const struct relay_response *response)
{
    struct relay_opening *opening = user;
    struct relay_chain *chain = opening->chain;
    if (response->status < 200)
        return;
    if (response->status < 300) {
        note_answer(chain);
        struct relay_tunnel *tunnel = detach(opening);
        opening->on_open(opening, tunnel);
        return;
    }
    struct relay_refusal refusal;
    struct relay_failure failure;
    char why[160];
    unsigned last = (unsigned)chain->config->num_hops;
    relay_refusal_read(&refusal, response);
    relay_failure_set(&failure, refusal.error, last, authority_of(opening), "%s",
                      relay_refusal_print(&refusal, opening->tokenless, why, sizeof(why)));
    failure.is_answer = true;
    fail(opening, &failure);
    if (refusal.error != RELAY_ERR_SHUTDOWN)
        note_answer(chain);
    opening->asks_again = refusal.error == RELAY_ERR_SHUTDOWN && !opening->asked_again;
}

static void on_close(void *user, int error)
{
    struct relay_opening *opening = user;
    struct relay_chain *chain = opening->chain;
    unsigned last = (unsigned)chain->config->num_hops;
    struct relay_failure failure;
    relay_failure_set(&failure, error != RELAY_OK ? error : RELAY_ERR_CLOSED, last, authority_of(opening),
                      "the request ended without an answer: %s",
                      relay_error_text(error != RELAY_OK ? error : RELAY_ERR_CLOSED));
    bool is_told = relay_task_is_queued(&opening->task); /* refused by a head, whose failure is known */
    unlist_open(chain, opening);
    opening->tunnel = NULL;
    wait_in_line(chain, opening); /* where the task finds it */
    if (is_told)
        return;
    fail(opening, &failure);
    opening->asks_again = !opening->asked_again; /* most of the time its connection was lost */
}

static const struct relay_tunnel_user tunnel_cb = {.on_response = on_response, .on_close = on_close};

/* False: the connection takes no more requests now. */
static bool send_request(struct relay_chain *chain, struct relay_opening *opening)
{
    struct relay_hop *last = chain->links[chain->config->num_hops - 1].hop;
    struct relay_tunnel *tunnel =
        relay_hop_open(last, opening->is_udp, &opening->host, opening->port, &tunnel_cb, opening);
    if (tunnel == NULL)
        return false;
    leave_line(chain, opening);
    opening->tunnel = tunnel;
    opening->asked = relay_hop_authority(last);
    opening->tokenless = relay_hop_tokenless(last);
    list_open(chain, opening);
    return true;
}

void relay_chain_ask_again(struct relay_chain *chain)
{
    for (struct relay_opening *opening = chain->opening; opening != NULL; opening = opening->next)
        if (!relay_task_is_queued(&opening->task) && !opening->asked_again) {
            opening->asks_again = true;
            relay_task_queue(chain->loop, &opening->task);
        }
}

/* A UDP tunnel that the last hop will never take: those behind it do not wait for that. */
static bool is_not_offered(const struct relay_chain *chain, const struct relay_opening *opening)
{
    const struct relay_session *session = relay_hop_session(chain->links[chain->config->num_hops - 1].hop);
    return opening->is_udp && session != NULL && session->has_no_capsules;
}

static void refuse_udp(struct relay_chain *chain, struct relay_opening *opening)
{
    struct relay_failure failure;
    unsigned last = (unsigned)chain->config->num_hops;
    relay_failure_set(&failure, RELAY_ERR_UNSUPPORTED, last,
                      chain->config->hops[last - 1].places[0].authority, "it carries no UDP over HTTP/2");
    fail(opening, &failure);
}

void relay_chain_serve(struct relay_chain *chain)
{
    struct relay_opening *next;
    for (struct relay_opening *opening = chain->waiting; opening != NULL; opening = next) {
        next = opening->next;
        if (relay_task_is_queued(&opening->task))
            continue;
        if (is_not_offered(chain, opening))
            refuse_udp(chain, opening);
        else if (!send_request(chain, opening))
            break;
    }
}

/* The line is full. Those who have gone leave it at once. True: there is a place now. */
static bool make_room(struct relay_chain *chain)
{
    static const struct relay_failure failure = {.error = RELAY_ERR_CANCELLED,
                                                 .text = "the application has gone"};
    struct relay_opening *next;
    for (struct relay_opening *opening = chain->waiting; opening != NULL; opening = next) {
        next = opening->next;
        if (opening->is_deserted == NULL || relay_task_is_queued(&opening->task) ||
            !opening->is_deserted(opening))
            continue;
        leave_line(chain, opening);
        fail(opening, &failure);
    }
    return chain->num_waiting < RELAY_CHAIN_WAITING_MAX;
}

void relay_chain_open(struct relay_chain *chain, struct relay_opening *opening, bool is_udp,
                      const struct relay_host *host, uint16_t port)
{
    struct relay_failure failure = {.error = RELAY_ERR_LIMIT,
                                    .text = "too many connections wait for the chain"};
    opening->chain = chain;
    opening->tunnel = NULL;
    opening->asked = NULL;
    opening->is_udp = is_udp;
    opening->asks_again = opening->asked_again = false;
    opening->host = *host;
    opening->port = port;
    relay_timer_init(&opening->deadline, on_deadline);
    relay_task_init(&opening->task, RELAY_LEVEL_EVENT, on_task);
    relay_timer_set_after(chain->loop, &opening->deadline, RELAY_OPENING_TIMEOUT);
    chain->last_used = relay_loop_now(chain->loop);
    bool is_full = chain->num_waiting >= RELAY_CHAIN_WAITING_MAX && !make_room(chain);
    wait_in_line(chain, opening);
    if (chain->is_stopped) {
        failure = (struct relay_failure){.error = RELAY_ERR_SHUTDOWN, .text = "the client is shutting down"};
        fail(opening, &failure);
    } else if (is_full)
        fail(opening, &failure);
    else if (!relay_chain_is_up(chain) && !relay_chain_hurry(chain))
        fail(opening, &chain->last_failure);
    else
        relay_task_queue(chain->loop, &chain->advance);
}
