#include "modules/admission.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <jansson.h>

#include "lib/net/log.h"
#include "lib/net/metrics.h"
#include "lib/wire/error.h"
#include "modules/auth.h"
#include "modules/token_account.h"

#define BUCKETS 4096

struct relay_account {
    struct relay_account *next; /* in its bucket */
    uint64_t key;
    uint32_t tunnels, dials, dials_max;
    struct relay_ticket *first, *last; /* wait to dial */
    /* A dialler's: names that are asked of DNS in vain count with the dials, and the account outlives them. */
    struct relay_lookup_payer payer;
    struct relay_env *env;
    struct relay_token_account *payer_account; /* held; whose it is */
};

struct relay_admission {
    struct relay_ticket *held; /* all that have a token */
    struct relay_account *connections[BUCKETS], *diallers[BUCKETS];
};

/* ---- accounts ---- */

static struct relay_admission *admission_of(struct relay_env *env)
{
    if (env->admission != NULL)
        return env->admission;
    env->admission = calloc(1, sizeof(*env->admission));
    return env->admission;
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 31)) * 0x9e3779b97f4a7c15;
    return x ^ (x >> 29);
}

/* The account of the key, made when there is none. NULL: out of memory. */
static struct relay_account *take_account(struct relay_account **table, uint64_t key, uint32_t max,
                                          int *error)
{
    struct relay_account **slot = &table[mix(key) % BUCKETS];
    struct relay_account *account = *slot;
    while (account != NULL && account->key != key)
        account = account->next;
    *error = RELAY_ERR_LIMIT;
    if (account != NULL && max > 0 && account->tunnels >= max)
        return NULL;
    if (account == NULL) {
        *error = RELAY_ERR_NO_MEMORY;
        account = calloc(1, sizeof(*account));
        if (account == NULL)
            return NULL;
        account->key = key;
        account->next = *slot;
        *slot = account;
    }
    account->tunnels++;
    *error = 0;
    return account;
}

static void free_unused(struct relay_account **table, struct relay_account *account)
{
    if (account->tunnels > 0 || account->payer.orphans > 0)
        return;
    if (account->payer_account != NULL)
        relay_token_account_let_go(account->env->token_accounts, account->payer_account);
    struct relay_account **slot = &table[mix(account->key) % BUCKETS];
    while (*slot != account)
        slot = &(*slot)->next;
    *slot = account->next;
    free(account);
}

static void release_account(struct relay_account **table, struct relay_account *account)
{
    if (account == NULL)
        return;
    account->tunnels--;
    free_unused(table, account);
}

/* ---- dials ---- */

static void run_turn(struct relay_task *task)
{
    struct relay_ticket *ticket = (struct relay_ticket *)((char *)task - offsetof(struct relay_ticket, task));
    ticket->on_turn(ticket);
}

static void stop_waiting(struct relay_ticket *ticket)
{
    struct relay_account *queue = ticket->queue;
    *(ticket->prev != NULL ? &ticket->prev->next : &queue->first) = ticket->next;
    *(ticket->next != NULL ? &ticket->next->prev : &queue->last) = ticket->prev;
    ticket->queue = NULL;
}

static void wait_for(struct relay_ticket *ticket, struct relay_account *queue)
{
    ticket->queue = queue;
    ticket->prev = queue->last;
    ticket->next = NULL;
    *(queue->last != NULL ? &queue->last->next : &queue->first) = ticket;
    queue->last = ticket;
}

/* The account may be NULL: nothing is counted then. */
static bool is_full(const struct relay_account *account)
{
    return account != NULL && account->dials_max > 0 &&
           account->dials + account->payer.orphans >= account->dials_max;
}

/* Both must have room: who waits holds none of it. */
static void dial_or_wait(struct relay_ticket *ticket)
{
    if (is_full(ticket->connection)) {
        wait_for(ticket, ticket->connection);
    } else if (is_full(ticket->dialler)) {
        wait_for(ticket, ticket->dialler);
    } else {
        ticket->is_dialling = true;
        ticket->connection->dials++;
        if (ticket->dialler != NULL)
            ticket->dialler->dials++;
        relay_task_queue(ticket->env->loop, &ticket->task);
    }
}

void relay_ticket_dial(struct relay_ticket *ticket, void (*on_turn)(struct relay_ticket *ticket))
{
    ticket->on_turn = on_turn;
    dial_or_wait(ticket);
}

/* There is room again. Who comes to its turn here may have to wait for the other account. */
static void serve(struct relay_account *account)
{
    while (account != NULL && account->first != NULL && !is_full(account)) {
        struct relay_ticket *next = account->first;
        stop_waiting(next);
        dial_or_wait(next);
    }
}

void relay_ticket_dialled(struct relay_ticket *ticket)
{
    if (!ticket->is_dialling)
        return;
    ticket->is_dialling = false;
    ticket->connection->dials--;
    if (ticket->dialler != NULL)
        ticket->dialler->dials--;
    serve(ticket->dialler);
    serve(ticket->connection);
}

static void on_orphan_end(struct relay_lookup_payer *payer)
{
    struct relay_account *account =
        (struct relay_account *)((char *)payer - offsetof(struct relay_account, payer));
    serve(account);
    free_unused(account->env->admission->diallers, account);
}

struct relay_lookup_payer *relay_ticket_payer(const struct relay_ticket *ticket)
{
    return &ticket->dialler->payer;
}

/* Who asks without a token: the source, an IPv4 address or an IPv6 /64; behind one of `peers:`, which are many users, the
 * connection. The low bits keep the two apart. */
static uint64_t source_key(const struct relay_env *env, const struct relay_session *session,
                           const struct relay_snapshot *snapshot)
{
    struct relay_address source;
    relay_address_from_sockaddr(&source, NULL, &session->peer);
    if (relay_prefix_set_contains(&snapshot->peers, &source))
        return (uintptr_t)session | 1;
    struct relay_prefix prefix = relay_prefix_of(&source, 32, 64);
    return relay_prefix_hash(&prefix, relay_token_accounts_seed(env->token_accounts)) | 3;
}

/* One more tunnel of who asks, over all workers. `token`: NULL: auth is off. */
static int take_payer(struct relay_ticket *ticket, const char *token, struct relay_env *env,
                      const struct relay_session *session, const struct relay_snapshot *snapshot)
{
    char source[RELAY_TOKEN_NAME_MAX + 1]; /* no token can have a name with '/' */
    if (token == NULL)
        snprintf(source, sizeof(source), "/%016" PRIx64, source_key(env, session, snapshot));
    int error = relay_token_account_take(env->token_accounts, token != NULL ? token : source,
                                         token != NULL ? snapshot->caps.tunnels_per_token : 0,
                                         relay_loop_now(env->loop), &ticket->payer_account);
    ticket->token = token != NULL ? ticket->payer_account : NULL;
    return error;
}

/* Its dials, on this worker. Only a token has a limit of them: many may stand behind one address. */
static int take_dialler(struct relay_ticket *ticket, struct relay_env *env,
                        const struct relay_snapshot *snapshot)
{
    int error;
    struct relay_account *dialler =
        take_account(env->admission->diallers, (uintptr_t)ticket->payer_account, 0, &error);
    ticket->dialler = dialler;
    if (dialler == NULL)
        return error;
    dialler->dials_max = ticket->token != NULL ? snapshot->caps.dials_per_token : 0;
    if (dialler->env == NULL) {
        dialler->env = env;
        dialler->payer_account = ticket->payer_account;
        dialler->payer.on_end = on_orphan_end;
        relay_token_account_hold(env->token_accounts, ticket->payer_account);
    }
    return 0;
}

/* ---- revocation ---- */

static void hold(struct relay_admission *admission, struct relay_ticket *ticket)
{
    ticket->next_held = admission->held;
    if (ticket->next_held != NULL)
        ticket->next_held->prev_held = ticket;
    admission->held = ticket;
}

static void let_go(struct relay_admission *admission, struct relay_ticket *ticket)
{
    *(ticket->prev_held != NULL ? &ticket->prev_held->next_held : &admission->held) = ticket->next_held;
    if (ticket->next_held != NULL)
        ticket->next_held->prev_held = ticket->prev_held;
}

/* Tickets are released in on_close, which no call of ours brings about at once: the list stands still. */
void relay_admission_revoke(struct relay_env *env)
{
    const struct relay_snapshot *snapshot = env->snapshot;
    if (env->admission == NULL || snapshot->auth_off)
        return;
    for (struct relay_ticket *ticket = env->admission->held; ticket != NULL; ticket = ticket->next_held)
        if (relay_token_account_is_revoked(ticket->token, &snapshot->tokens))
            relay_tunnel_abort(ticket->tunnel, RELAY_ERR_UNAUTHORIZED);
}

/* ---- the books ---- */

int relay_ticket_take(struct relay_ticket *ticket, h2o_req_t *req, struct relay_tunnel *tunnel,
                      const struct relay_snapshot *snapshot)
{
    struct relay_env *env = relay_env_of(req);
    struct relay_admission *admission = admission_of(env);
    const char *token = relay_auth_token_of(req);
    int error = 0;
    memset(ticket, 0, sizeof(*ticket));
    relay_task_init(&ticket->task, RELAY_LEVEL_EVENT, run_turn);
    if (env->is_draining || admission == NULL)
        return admission == NULL ? RELAY_ERR_NO_MEMORY : RELAY_ERR_SHUTDOWN;
    struct relay_account *connection = take_account(admission->connections, (uintptr_t)tunnel->session,
                                                    snapshot->caps.tunnels_per_connection, &error);
    if (connection != NULL)
        error = take_payer(ticket, token, env, tunnel->session, snapshot);
    if (error == 0 && (error = take_dialler(ticket, env, snapshot)) != 0)
        relay_token_account_release(env->token_accounts, ticket->payer_account);
    if (error != 0) {
        release_account(admission->connections, connection);
        ticket->payer_account = ticket->token = NULL;
        if (error == RELAY_ERR_LIMIT)
            relay_count(env->metrics->limit_tunnels, 1);
        return error;
    }
    connection->dials_max = snapshot->caps.dials_per_connection;
    ticket->connection = connection;
    ticket->env = env;
    ticket->tunnel = tunnel;
    if (ticket->token != NULL)
        hold(admission, ticket);
    ticket->is_metered = ticket->token != NULL &&
                         (snapshot->caps.udp_packets_per_token > 0 || snapshot->caps.udp_bytes_per_token > 0);
    return 0;
}

bool relay_ticket_meter(struct relay_ticket *ticket, const struct relay_snapshot *snapshot,
                        struct relay_run *run)
{
    const struct relay_token_rate rate = {.packets = snapshot->caps.udp_packets_per_token,
                                          .bytes = snapshot->caps.udp_bytes_per_token};
    struct relay_env *env = ticket->env;
    size_t count = relay_run_count(run);
    size_t passed = relay_token_lease_take(ticket->token, env->worker, &rate, count, run->segment, run->len,
                                           relay_loop_now(env->loop));
    if (passed < count) {
        relay_count(env->metrics->drop_token_rate, count - passed);
        run->len = passed * run->segment;
    }
    return passed > 0;
}

static unsigned place_of(enum relay_http_version version)
{
    return version == RELAY_HTTP_1_1 ? 0 : version == RELAY_HTTP_2 ? 1 : 2;
}

static void count_opened(struct relay_metrics *metrics, bool is_udp, enum relay_http_version version)
{
    uint64_t *tcp[] = {&metrics->tunnels_tcp_h1, &metrics->tunnels_tcp_h2, &metrics->tunnels_tcp_h3};
    uint64_t *udp[] = {&metrics->tunnels_udp_h1, &metrics->tunnels_udp_h2, &metrics->tunnels_udp_h3};
    relay_count(*(is_udp ? udp : tcp)[place_of(version)], 1);
}

static void count_open(struct relay_metrics *metrics, bool is_udp, enum relay_http_version version, int more)
{
    int64_t *tcp[] = {&metrics->open_tunnels_tcp_h1, &metrics->open_tunnels_tcp_h2,
                      &metrics->open_tunnels_tcp_h3};
    int64_t *udp[] = {&metrics->open_tunnels_udp_h1, &metrics->open_tunnels_udp_h2,
                      &metrics->open_tunnels_udp_h3};
    relay_count(*(is_udp ? udp : tcp)[place_of(version)], more);
}

static const char *method_name(const struct relay_ticket *ticket)
{
    return ticket->is_udp ? "connect-udp" : "connect";
}

/* What this hop sees, for the demo and for debugging. The HTTP peer is the client unless it is one of
 * `peers:`, which are relays: behind those the client is not seen. */
static void observe(const struct relay_ticket *ticket, const struct relay_snapshot *snapshot,
                    const struct relay_host *host, uint16_t port)
{
    char text[RELAY_ADDRESS_TEXT_SIZE], peer[RELAY_AUTHORITY_SIZE], target[RELAY_AUTHORITY_SIZE];
    struct relay_address address;
    uint16_t peer_port = 0;
    relay_address_from_sockaddr(&address, &peer_port, &ticket->tunnel->session->peer);
    relay_address_print(&address, text);
    snprintf(peer, sizeof(peer), address.family == 6 ? "[%s]:%u" : "%s:%u", text, peer_port);
    bool is_relay = relay_prefix_set_contains(&snapshot->peers, &address);
    if (relay_authority_write(host, port, target, sizeof(target)) < 0)
        return;
    relay_log(RELAY_LOG_INFO, "observe", "s:s, s:s, s:s?, s:s", "method", method_name(ticket), "peer", peer,
              "client", is_relay ? NULL : peer, "target", target);
}

void relay_ticket_opened(struct relay_ticket *ticket, bool is_udp, const struct relay_snapshot *snapshot,
                         const struct relay_host *host, uint16_t port)
{
    ticket->is_open = true;
    ticket->is_udp = is_udp;
    ticket->version = ticket->tunnel->session->version;
    count_opened(ticket->env->metrics, is_udp, ticket->version);
    count_open(ticket->env->metrics, is_udp, ticket->version, 1);
    if (relay_loop_now(ticket->env->loop) < snapshot->observe_until)
        observe(ticket, snapshot, host, port);
}

/* One line per tunnel, without client, target and token. Its exact time and sizes are equal at both hops: it is
 * for debugging only, since the logs of two relays could be joined by it (T71). */
static void log_close(const struct relay_ticket *ticket, int error)
{
    if (relay_log_get_level() > RELAY_LOG_DEBUG)
        return;
    const struct relay_tunnel *tunnel = ticket->tunnel;
    int verdict = relay_tunnel_verdict(tunnel, error);
    const uint64_t in = ticket->is_udp ? tunnel->count.payload_in : tunnel->count.bytes_in;
    const uint64_t out = ticket->is_udp ? tunnel->count.payload_out : tunnel->count.bytes_out;
    uint64_t lived = relay_loop_now(ticket->env->loop) - tunnel->opened_at;
    relay_log(RELAY_LOG_DEBUG, "tunnel_closed", "s:s, s:s, s:I, s:I, s:I, s:I, s:I", "method",
              method_name(ticket), "reason", verdict == RELAY_OK ? "OK" : relay_error_name(verdict),
              "seconds", (json_int_t)(lived / RELAY_SECOND), "bytes_in", (json_int_t)in, "bytes_out",
              (json_int_t)out, "datagrams_in", (json_int_t)tunnel->count.datagrams_in, "datagrams_out",
              (json_int_t)tunnel->count.datagrams_out);
}

void relay_ticket_release(struct relay_ticket *ticket, int error)
{
    struct relay_env *env = ticket->env;
    if (env == NULL)
        return;
    relay_task_cancel(&ticket->task);
    if (ticket->queue != NULL)
        stop_waiting(ticket);
    relay_ticket_dialled(ticket);
    if (ticket->is_open) {
        log_close(ticket, error);
        relay_count(env->metrics->tunnels_closed, 1);
        count_open(env->metrics, ticket->is_udp, ticket->version, -1);
    }
    release_account(env->admission->connections, ticket->connection);
    release_account(env->admission->diallers, ticket->dialler);
    if (ticket->token != NULL)
        let_go(env->admission, ticket);
    relay_token_account_release(env->token_accounts, ticket->payer_account);
    memset(ticket, 0, sizeof(*ticket));
}

void relay_admission_free(struct relay_admission *admission)
{
    free(admission);
}
