#include "client/hop_internal.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/ssl.h>

#include "client/hop_request.h"
#include "lib/net/address_order.h"
#include "lib/net/http3.h"
#include "lib/net/plain_file.h"
#include "lib/net/quic_conn.h"
#include "lib/net/quic_memory.h"
#include "lib/net/quic_tls.h"
#include "lib/net/tls_context.h"
#include "lib/wire/error.h"

#define HTTP2_FIRST (600 * RELAY_SECOND) /* after HTTP/3 was blocked */

#define HOP_OF(member, pointer) ((struct relay_hop *)((char *)(pointer)-offsetof(struct relay_hop, member)))

/* ---- trust ---- */

/* Reading the system's authorities takes a while: places with the same trust share it. */
static bool share_trust(struct relay_hop_trust *trust, const struct relay_hop_config *config, size_t place)
{
    for (size_t i = 0; i < place; i++) {
        if (relay_hop_config_trust(config, &config->places[i]) !=
            relay_hop_config_trust(config, &config->places[place]))
            continue;
        trust->places[place].quic = relay_quic_credentials_ref(trust->places[i].quic);
        trust->places[place].tls = trust->places[i].tls;
        SSL_CTX_up_ref(trust->places[i].tls);
        return true;
    }
    return false;
}

static int init_trust(struct relay_hop_trust *trust, size_t place, const struct relay_hop_identity *wanted,
                      char *reason, size_t size)
{
    const uint8_t(*pins)[RELAY_PIN_SIZE] = wanted->has_pin ? &wanted->pin : NULL;
    struct relay_tls_client_config tls = {.ca_file = wanted->ca, .pins = pins, .num_pins = wanted->has_pin};
    const char *other =
        wanted->ca != NULL ? relay_plain_file_refusal(wanted->ca, RELAY_PLAIN_FILE_ONLY) : NULL;
    if (other != NULL) {
        snprintf(reason, size, "%s: expected a file, not %s", wanted->ca, other);
        return RELAY_ERR_CERTIFICATE;
    }
    int error =
        relay_quic_credentials_client(wanted->ca, pins, wanted->has_pin, &trust->places[place].quic, reason);
    if (error == 0 && (trust->places[place].tls = relay_tls_client_context(&tls, reason, size)) == NULL)
        error = RELAY_ERR_CERTIFICATE;
    return error;
}

int relay_hop_trust_init(struct relay_hop_trust *trust, const struct relay_hop_config *config,
                         unsigned number, struct relay_failure *failure)
{
    char reason[RELAY_QUIC_ERROR_SIZE] = "";
    int error = 0;
    memset(trust, 0, sizeof(*trust));
    for (size_t i = 0; i < config->num_places && error == 0; i++) {
        const struct relay_hop_place *place = &config->places[i];
        trust->places[i].memory = relay_quic_memory_new(); /* nothing is kept without it */
        if (share_trust(trust, config, i))
            continue;
        error = init_trust(trust, i, relay_hop_config_trust(config, place), reason, sizeof(reason));
        if (error != 0)
            relay_failure_set(failure, error, number, place->authority, "%s", reason);
    }
    if (error != 0)
        relay_hop_trust_dispose(trust);
    return error;
}

void relay_hop_trust_dispose(struct relay_hop_trust *trust)
{
    for (size_t i = 0; i < RELAY_HOP_PLACES_MAX; i++) {
        SSL_CTX_free(trust->places[i].tls);
        relay_quic_credentials_unref(trust->places[i].quic);
        relay_quic_memory_unref(trust->places[i].memory);
    }
    memset(trust, 0, sizeof(*trust));
}

/* ---- the end ---- */

static void stop_everything(struct relay_hop *hop)
{
    hop->state = RELAY_HOP_DEAD;
    relay_timer_stop(hop->loop, &hop->hedge);
    relay_timer_stop(hop->loop, &hop->next_address);
    relay_timer_stop(hop->loop, &hop->deadline);
    relay_lookup_cancel(&hop->lookup);
    for (int i = 0; i < RELAY_ATTEMPTS; i++)
        relay_attempt_stop(&hop->attempts[i]);
    relay_task_queue(hop->loop, &hop->task);
}

static void die(struct relay_hop *hop)
{
    if (hop->state == RELAY_HOP_DEAD)
        return;
    hop->close_due = true;
    stop_everything(hop);
}

void relay_hop_close(struct relay_hop *hop)
{
    hop->cb = NULL;
    stop_everything(hop);
}

void relay_hop_set_user(struct relay_hop *hop, void *user)
{
    hop->user = user;
}

static bool has_sessions(const struct relay_hop *hop)
{
    for (int i = 0; i < RELAY_ATTEMPTS; i++)
        if (hop->attempts[i].session != NULL)
            return true;
    return false;
}

static void run_task(struct relay_task *task)
{
    struct relay_hop *hop = HOP_OF(task, task);
    if (hop->cb != NULL && hop->ready_due) {
        hop->ready_due = false;
        hop->cb->on_ready(hop->user);
    }
    if (hop->cb != NULL && hop->goaway_due) {
        hop->goaway_due = false;
        hop->cb->on_goaway(hop->user, hop->failure.error != RELAY_OK ? &hop->failure : NULL);
    }
    if (hop->cb != NULL && hop->path_lost_due && hop->state == RELAY_HOP_READY) {
        hop->path_lost_due = false;
        hop->cb->on_path_lost(hop->user, hop->winner->is_carrier_fault ? &hop->winner->closed : NULL);
    }
    if (hop->cb != NULL && hop->close_due) {
        const struct relay_hop_user *cb = hop->cb;
        hop->cb = NULL;
        cb->on_close(hop->user, &hop->failure);
    }
    if (hop->cb == NULL && !has_sessions(hop)) {
        relay_task_cancel(&hop->task);
        hop->params.environment->num_hops--;
        free(hop);
    }
}

/* ---- connecting ---- */

static bool allows_http3(const struct relay_hop *hop)
{
    const struct relay_hop *carrier = hop->params.carrier;
    return hop->params.config->http != RELAY_HOP_HTTP2 &&
           (carrier == NULL || relay_hop_session(carrier)->version == RELAY_HTTP_3);
}

static bool allows_http2(const struct relay_hop *hop)
{
    return hop->params.config->http != RELAY_HOP_HTTP3;
}

static bool has_next_address(const struct relay_hop *hop)
{
    size_t most = hop->params.carrier != NULL ? 1 : hop->num_addresses;
    return hop->num_http3 < most && hop->num_http3 < RELAY_HOP_HTTP3_MAX;
}

/* RFC 8305 section 5, with QUIC's handshake for TCP's. Only when there is a next address. */
static void start_http3(struct relay_hop *hop)
{
    size_t index = hop->num_http3++;
    if (has_next_address(hop))
        relay_timer_set_after(hop->loop, &hop->next_address, RELAY_HOP_NEXT_ADDRESS);
    else
        relay_timer_stop(hop->loop, &hop->next_address);
    relay_attempt_start_http3(&hop->attempts[RELAY_ATTEMPT_HTTP3 + index], &hop->addresses[index]);
}

static void try_next_address(struct relay_hop *hop)
{
    if (hop->state == RELAY_HOP_CONNECTING && hop->num_http3 > 0 && has_next_address(hop))
        start_http3(hop);
}

static void try_http2(struct relay_hop *hop)
{
    struct relay_attempt *attempt = &hop->attempts[RELAY_ATTEMPT_HTTP2];
    if (hop->state == RELAY_HOP_CONNECTING && !attempt->started && allows_http2(hop))
        relay_attempt_start_http2(attempt);
}

static void try_http3(struct relay_hop *hop)
{
    if (hop->state == RELAY_HOP_CONNECTING && hop->num_http3 == 0 && hop->may_http3)
        start_http3(hop);
}

static bool is_trying(const struct relay_hop *hop)
{
    if (hop->more_follow)
        return true;
    for (int i = 0; i < RELAY_ATTEMPTS; i++)
        if (hop->attempts[i].started && !hop->attempts[i].failed)
            return true;
    return false;
}

static const char *text_of(const struct relay_attempt *attempt)
{
    return attempt->text[0] != '\0' ? attempt->text : relay_error_text(attempt->error);
}

static bool is_tls_error(const struct relay_attempt *attempt)
{
    return strncmp(relay_error_proxy_status(attempt->error), "tls_", 4) == 0;
}

/* A relay that answered says more than one that did not. */
static const struct relay_attempt *most_telling_http3(const struct relay_hop *hop)
{
    const struct relay_attempt *first = &hop->attempts[RELAY_ATTEMPT_HTTP3];
    for (size_t i = 0; i < hop->num_http3; i++)
        if (is_tls_error(&first[i]))
            return &first[i];
    return first;
}

/* What to tell when nothing is left to try. */
static void give_up(struct relay_hop *hop)
{
    const struct relay_attempt *http3 = most_telling_http3(hop), *http2 = &hop->attempts[RELAY_ATTEMPT_HTTP2];
    const struct relay_attempt *only = http2->started ? http2 : http3;
    unsigned number = hop->params.number;
    const char *authority = hop->place->authority;
    for (int i = 0; i < RELAY_ATTEMPTS; i++) {
        if (hop->attempts[i].is_carrier_fault) {
            hop->failure = hop->attempts[i].closed;
            die(hop);
            return;
        }
    }
    int error = is_tls_error(http3) ? http3->error : only->error;
    if (http2->started && http3->started && http2->error != http3->error)
        relay_failure_set(&hop->failure, error, number, authority, "HTTP/3: %s; HTTP/2: %s", text_of(http3),
                          text_of(http2));
    else
        relay_failure_set(&hop->failure, error, number, authority, "%s", text_of(only));
    die(hop);
}

static void on_deadline(struct relay_timer *timer)
{
    struct relay_hop *hop = HOP_OF(deadline, timer);
    for (int i = 0; i < RELAY_ATTEMPTS; i++)
        if (hop->attempts[i].started && !hop->attempts[i].failed)
            hop->attempts[i].error = RELAY_ERR_TIMEOUT;
    give_up(hop);
}

static void on_hedge(struct relay_timer *timer)
{
    try_http2(HOP_OF(hedge, timer));
}

static void on_next_address(struct relay_timer *timer)
{
    try_next_address(HOP_OF(next_address, timer));
}

/* The addresses are known, or there is a carrier. */
static void begin(struct relay_hop *hop)
{
    const struct relay_hop *carrier = hop->params.carrier;
    struct relay_hop_environment *environment = hop->params.environment;
    bool http3 = hop->may_http3 = allows_http3(hop), http2 = allows_http2(hop), http2_first = false;
    uint64_t now = relay_loop_now(hop->loop), hedge = RELAY_HOP_HEDGE;
    relay_timer_set_after(hop->loop, &hop->deadline, RELAY_HOP_TIMEOUT);
    if (!http3 && !http2) {
        relay_failure_set(&hop->failure, RELAY_ERR_UNSUPPORTED, hop->params.number, hop->place->authority,
                          "HTTP/3 is asked for, but the hop before runs over TCP");
        die(hop);
        return;
    }
    if (carrier == NULL) {
        hop->local = relay_hop_memory_local(&hop->addresses[0], hop->place->port);
        http2_first =
            http2 && relay_hop_memory_has(&environment->memory, &hop->local, &hop->addresses[0], now);
    } else if (http3) { /* a round trip through the hops before is no silence */
        hedge += 3 * relay_quic_conn_srtt(relay_http3_conn(relay_hop_session(carrier)));
    }
    if (http3 && http2 && !http2_first)
        relay_timer_set_after(hop->loop, &hop->hedge, hedge);
    if (http3 && !http2_first)
        start_http3(hop);
    else
        try_http2(hop);
}

/* The other family's addresses, behind those that are known. The first one keeps its place: it is what the
 * memory knows. */
static void take_late(struct relay_hop *hop, const struct relay_resolution *resolution)
{
    size_t next = hop->num_http3 > 0 ? hop->num_http3 : 1;
    if (hop->state != RELAY_HOP_CONNECTING)
        return;
    relay_attempt_add_addresses(&hop->attempts[RELAY_ATTEMPT_HTTP2], resolution->addresses,
                                resolution->num_addresses);
    relay_address_interleave(hop->addresses + next - 1, hop->num_addresses - next + 1);
    if (!is_trying(hop)) {
        try_next_address(hop);
        try_http3(hop);
    } else if (hop->num_http3 > 0 && has_next_address(hop) && !relay_timer_is_set(&hop->next_address))
        relay_timer_set_after(hop->loop, &hop->next_address, RELAY_HOP_NEXT_ADDRESS);
    if (hop->state == RELAY_HOP_CONNECTING && !is_trying(hop))
        give_up(hop);
}

static void on_resolved(struct relay_lookup *lookup, const struct relay_resolution *resolution)
{
    struct relay_hop *hop = HOP_OF(lookup, lookup);
    if (resolution->error != 0) {
        const char *rcode = relay_rcode_name(resolution->rcode);
        relay_failure_set(&hop->failure, resolution->error, hop->params.number, hop->place->authority,
                          "%s%s%s", relay_error_text(resolution->error), rcode != NULL ? ": " : "",
                          rcode != NULL ? rcode : "");
        die(hop);
        return;
    }
    bool is_early = hop->num_addresses == 0;
    hop->more_follow = !resolution->is_final;
    memcpy(hop->addresses + hop->num_addresses, resolution->addresses,
           resolution->num_addresses * sizeof(hop->addresses[0]));
    hop->num_addresses += resolution->num_addresses;
    if (!is_early) {
        take_late(hop, resolution);
        return;
    }
    relay_address_interleave(hop->addresses, hop->num_addresses);
    begin(hop);
}

static void find_addresses(struct relay_hop *hop)
{
    const struct relay_host *host = &hop->place->host;
    if (host->kind == RELAY_HOST_NAME) {
        hop->lookup.on_resolved = on_resolved;
        hop->lookup.resolution_delay = RELAY_RESOLUTION_DELAY;
        relay_resolver_ask(hop->params.environment->resolver, &hop->lookup, host->name);
        return;
    }
    hop->addresses[0].family = host->kind == RELAY_HOST_IPV6 ? 6 : 4;
    memcpy(hop->addresses[0].bytes, host->address, sizeof(hop->addresses[0].bytes));
    hop->num_addresses = 1;
    begin(hop);
}

struct relay_hop *relay_hop_new(const struct relay_hop_params *params, const struct relay_hop_user *cb,
                                void *user)
{
    struct relay_hop *hop = calloc(1, sizeof(*hop));
    if (hop == NULL)
        return NULL;
    hop->params = *params;
    hop->place = &params->config->places[params->place];
    hop->loop = params->environment->loop;
    hop->cb = cb;
    hop->user = user;
    params->environment->num_hops++;
    relay_task_init(&hop->task, RELAY_LEVEL_EVENT, run_task);
    relay_timer_init(&hop->hedge, on_hedge);
    relay_timer_init(&hop->next_address, on_next_address);
    relay_timer_init(&hop->deadline, on_deadline);
    for (int i = 0; i < RELAY_ATTEMPTS; i++)
        hop->attempts[i].hop = hop;
    if (params->carrier != NULL)
        begin(hop);
    else
        find_addresses(hop);
    return hop;
}

/* ---- what attempts tell ---- */

static bool is_silence(int error)
{
    return error == RELAY_ERR_REFUSED || error == RELAY_ERR_UNREACHABLE || error == RELAY_ERR_TIMEOUT;
}

/* Whether the network has let nothing of HTTP/3 through, which the next connection need not find out again. What did
 * come is no reason to go without HTTP/3 for long: before the handshake is complete anybody who sees it can write
 * such packets (Version Negotiation, a Retry, the end of the connection). */
static bool is_http3_blocked(const struct relay_hop *hop)
{
    const struct relay_attempt *attempts = &hop->attempts[RELAY_ATTEMPT_HTTP3];
    for (size_t i = 0; i < hop->num_http3; i++)
        if (attempts[i].is_heard || (attempts[i].failed && !is_silence(attempts[i].error)))
            return false;
    return hop->num_http3 > 0;
}

void relay_hop_attempt_ready(struct relay_attempt *attempt)
{
    struct relay_hop *hop = attempt->hop;
    if (hop->state != RELAY_HOP_CONNECTING)
        return;
    hop->state = RELAY_HOP_READY;
    hop->winner = attempt;
    relay_lookup_cancel(&hop->lookup); /* the late family is not wanted any more */
    relay_timer_stop(hop->loop, &hop->hedge);
    relay_timer_stop(hop->loop, &hop->next_address);
    relay_timer_stop(hop->loop, &hop->deadline);
    for (int i = 0; i < RELAY_ATTEMPTS; i++)
        if (&hop->attempts[i] != attempt)
            relay_attempt_stop(&hop->attempts[i]);
    if (!attempt->is_http3 && hop->params.carrier == NULL && is_http3_blocked(hop))
        relay_hop_memory_add(&hop->params.environment->memory, &hop->local, &hop->addresses[0],
                             relay_loop_now(hop->loop) + HTTP2_FIRST);
    hop->ready_due = true;
    relay_task_queue(hop->loop, &hop->task);
}

/* Of the connection in use. */
static void note_loss(struct relay_hop *hop, int error)
{
    const char *why = hop->winner->text;
    relay_failure_set(
        &hop->failure, error, hop->params.number, hop->place->authority, "%s%s",
        why[0] != '\0' ? "" : "the connection was lost: ", why[0] != '\0' ? why : relay_error_text(error));
}

void relay_hop_attempt_failed(struct relay_attempt *attempt, int error)
{
    struct relay_hop *hop = attempt->hop;
    if (attempt->failed || attempt->stopped)
        return;
    attempt->failed = true;
    attempt->error = error;
    if (hop->state == RELAY_HOP_READY && attempt == hop->winner) {
        note_loss(hop, error);
        die(hop);
    } else if (hop->state == RELAY_HOP_CONNECTING) {
        if (attempt->is_http3)
            try_next_address(hop);
        try_http2(hop);
        try_http3(hop);
        if (hop->state == RELAY_HOP_CONNECTING && !is_trying(hop))
            give_up(hop);
    }
}

void relay_hop_attempt_goaway(struct relay_attempt *attempt)
{
    struct relay_hop *hop = attempt->hop;
    hop->goaway_due = attempt == hop->winner;
    if (hop->goaway_due && attempt->text[0] != '\0')
        note_loss(hop, RELAY_ERR_CLOSED);
    relay_task_queue(hop->loop, &hop->task);
}

void relay_hop_attempt_path_lost(struct relay_attempt *attempt)
{
    struct relay_hop *hop = attempt->hop;
    if (hop->state != RELAY_HOP_READY || attempt != hop->winner)
        return; /* the session says so itself, or its loss is welcome */
    hop->params.carrier = NULL;
    hop->path_lost_due = true;
    relay_task_queue(hop->loop, &hop->task);
}

void relay_hop_attempt_gone(struct relay_attempt *attempt)
{
    relay_task_queue(attempt->hop->loop, &attempt->hop->task);
}

/* ---- its use ---- */

struct relay_session *relay_hop_session(const struct relay_hop *hop)
{
    return hop->state == RELAY_HOP_READY ? hop->winner->session : NULL;
}

bool relay_hop_can_carry(const struct relay_hop *hop)
{
    struct relay_session *session = relay_hop_session(hop);
    return session != NULL && (session->version != RELAY_HTTP_3 || relay_http3_conn(session) != NULL);
}

const char *relay_hop_authority(const struct relay_hop *hop)
{
    return hop->place->authority;
}

unsigned relay_hop_number(const struct relay_hop *hop)
{
    return hop->params.number;
}

unsigned relay_hop_tokenless(const struct relay_hop *hop)
{
    return relay_hop_config_token(hop->params.config, hop->place) == NULL ? hop->params.number : 0;
}

const struct relay_hop *relay_hop_carrier(const struct relay_hop *hop)
{
    return hop->params.carrier;
}

struct relay_tunnel *relay_hop_open(struct relay_hop *hop, bool is_udp, const struct relay_host *host,
                                    uint16_t port, const struct relay_tunnel_user *cb, void *user)
{
    struct relay_hop_request request;
    struct relay_session *session = relay_hop_session(hop);
    if (session == NULL ||
        relay_hop_request_init(&request, hop->params.config, hop->place, is_udp, host, port) != 0)
        return NULL;
    struct relay_tunnel *tunnel = relay_session_open(session, &request.head, cb, user);
    relay_hop_request_wipe(&request);
    return tunnel;
}
