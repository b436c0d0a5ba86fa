#include "modules/connect_udp.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "lib/net/metrics.h"
#include "lib/net/udp_flow.h"
#include "lib/wire/error.h"
#include "modules/admission.h"
#include "modules/oversize_hold.h"
#include "modules/refusal.h"
#include "modules/target.h"

#define EARLY_DATAGRAMS 8
#define EARLY_BYTES     ((size_t)64 << 10)
#define PAYLOAD_MAX     65527 /* RFC 9298 section 5: longer is malformed */

/* What is needed until the 2xx only. */
struct opening {
    struct udp_tunnel *owner;
    h2o_req_t *req;
    struct relay_target target;
    int error; /* of the first address that could not be connected to */
    struct {
        uint8_t *bytes;
        size_t len;
    } early[EARLY_DATAGRAMS];
    size_t num_early, early_bytes;
};

/* One UDP tunnel, from the request to the tunnel's on_close. */
struct udp_tunnel {
    struct relay_env *env;
    struct relay_snapshot *snapshot; /* a reference of ours */
    struct relay_tunnel *tunnel;
    struct opening *opening; /* NULL once accepted */
    struct relay_udp_flow *flow;
    struct relay_ticket ticket;
    struct relay_timer idle;
    uint64_t last_active;
    struct relay_oversize_hold hold;
    struct relay_bucket unanswered;
    bool is_answered;
};

struct handler {
    h2o_handler_t h2o; /* first */
    size_t policy_index;
};

/* ---- from the HTTP peer to the target ---- */

static void keep_early(struct opening *opening, struct relay_metrics *metrics, const struct relay_run *run)
{
    struct relay_run left = *run;
    do {
        size_t len = left.len < left.segment ? left.len : left.segment;
        bool is_kept = opening->num_early < EARLY_DATAGRAMS && opening->early_bytes + len <= EARLY_BYTES;
        uint8_t *bytes = is_kept ? malloc(len + 1) : NULL;
        if (bytes != NULL) {
            memcpy(bytes, left.base, len);
            opening->early[opening->num_early].bytes = bytes;
            opening->early[opening->num_early++].len = len;
            opening->early_bytes += len;
        } else {
            relay_count(metrics->drop_early, 1);
        }
        relay_run_drop_one(&left);
    } while (left.len > 0);
}

/* Shortens the run to what the target may be sent before it has answered. False: nothing is left. */
static bool take_unanswered(struct udp_tunnel *self, struct relay_run *run)
{
    size_t count = relay_run_count(run), passed = 0;
    uint32_t burst = self->snapshot->caps.udp_unanswered_burst,
             rate = self->snapshot->caps.udp_unanswered_rate;
    while (passed < count && relay_bucket_take(&self->unanswered, 1, burst, rate, self->last_active))
        passed++;
    if (passed < count) {
        relay_count(self->env->metrics->drop_unanswered, count - passed);
        run->len = passed * run->segment;
    }
    return passed > 0;
}

static void send_to_target(struct udp_tunnel *self, struct relay_run run)
{
    self->last_active = relay_loop_now(self->env->loop);
    if (!self->is_answered && !take_unanswered(self, &run))
        return;
    if (self->ticket.is_metered && !relay_ticket_meter(&self->ticket, self->snapshot, &run))
        return;
    relay_udp_flow_send(self->flow, &run);
}

static void on_datagrams(void *user, const struct relay_run *run)
{
    struct udp_tunnel *self = user;
    struct relay_metrics *metrics = self->env->metrics;
    if (run->context_id != 0)
        relay_count(metrics->drop_unknown_context, relay_run_count(run));
    else if ((run->len < run->segment ? run->len : run->segment) > PAYLOAD_MAX) {
        relay_count(metrics->drop_packet, relay_run_count(run));
        relay_tunnel_abort(self->tunnel, RELAY_ERR_INVALID);
    } else if (self->opening != NULL)
        keep_early(self->opening, metrics, run);
    else
        send_to_target(self, *run);
}

static void on_fin(void *user)
{
    struct udp_tunnel *self = user;
    relay_tunnel_send_fin(self->tunnel);
}

/* ---- from the target to the HTTP peer ---- */

/* `oversize: capsule`: the first datagram of the run as a DATAGRAM capsule with context ID 0. */
static void send_as_capsule(struct udp_tunnel *self, const struct relay_run *run)
{
    struct relay_metrics *metrics = self->env->metrics;
    size_t len = run->len < run->segment ? run->len : run->segment;
    uint8_t *value = relay_tunnel_room(self->tunnel) > 0 ? relay_loop_take_scratch(self->env->loop) : NULL;
    if (value == NULL) {
        relay_count(metrics->drop_blocked, 1);
        return;
    }
    value[0] = 0;
    memcpy(value + 1, run->base, len);
    relay_tunnel_send_capsule(self->tunnel, RELAY_CAPSULE_DATAGRAM, value, len + 1);
    relay_loop_return_scratch(self->env->loop);
    self->tunnel->count.datagrams_out++; /* as the tunnel does for those that it makes capsules of */
    self->tunnel->count.payload_out += len;
    relay_count(metrics->udp_bytes_out, len);
}

static void dispose_of_oversize(struct udp_tunnel *self, struct relay_run *run)
{
    if (self->snapshot->oversize_capsule)
        send_as_capsule(self, run);
    else
        relay_oversize_hold_take(&self->hold, run);
    relay_run_drop_one(run);
}

static enum relay_sent on_flow_datagrams(void *user, struct relay_run *run)
{
    struct udp_tunnel *self = user;
    struct relay_metrics *metrics = self->env->metrics;
    enum relay_sent sent;
    bool is_empty = run->len == 0;
    self->is_answered = true;
    self->last_active = relay_loop_now(self->env->loop);
    run->context_id = 0;
    uint64_t before = self->tunnel->count.datagrams_out;
    do {
        size_t len = run->len;
        sent = relay_tunnel_send_datagrams(self->tunnel, run);
        relay_count(metrics->udp_bytes_out, len - run->len);
        if (sent == RELAY_TOO_BIG)
            dispose_of_oversize(self, run);
    } while (sent == RELAY_TOO_BIG && run->len > 0);
    relay_count(metrics->datagrams_out, self->tunnel->count.datagrams_out - before);
    if (sent == RELAY_GONE && (is_empty || run->len > 0))
        relay_count(metrics->drop_closed, relay_run_count(run));
    return sent == RELAY_TOO_BIG ? RELAY_SENT : sent;
}

static void on_flow_close(void *user, int error)
{
    struct udp_tunnel *self = user;
    relay_tunnel_abort(self->tunnel, error);
}

static void on_writable(void *user)
{
    struct udp_tunnel *self = user;
    if (self->flow != NULL)
        relay_udp_flow_resume(self->flow);
}

static const struct relay_udp_flow_user flow_cb = {.on_datagrams = on_flow_datagrams,
                                                   .on_close = on_flow_close};

/* ---- the end ---- */

/* Set once, and again only when it fires: activity moves nothing. */
static void on_idle(struct relay_timer *timer)
{
    struct udp_tunnel *self = (struct udp_tunnel *)((char *)timer - offsetof(struct udp_tunnel, idle));
    uint64_t end = self->last_active + self->snapshot->timeouts.udp_idle;
    if (relay_loop_now(self->env->loop) >= end)
        relay_tunnel_abort(self->tunnel, RELAY_ERR_IDLE);
    else
        relay_timer_set(self->env->loop, &self->idle, end);
}

static void free_opening(struct udp_tunnel *self)
{
    struct opening *opening = self->opening;
    self->opening = NULL;
    if (opening == NULL)
        return;
    relay_target_cancel(&opening->target);
    relay_count(self->env->metrics->drop_early, opening->num_early);
    for (size_t i = 0; i < opening->num_early; i++)
        free(opening->early[i].bytes);
    free(opening);
}

static void free_tunnel(struct udp_tunnel *self, int error)
{
    free_opening(self);
    relay_timer_stop(self->env->loop, &self->idle);
    relay_oversize_hold_dispose(&self->hold);
    if (self->flow != NULL)
        relay_udp_flow_close(self->flow);
    relay_ticket_release(&self->ticket, error);
    relay_snapshot_unref(self->snapshot);
    free(self);
}

static void on_close(void *user, int error)
{
    free_tunnel(user, error);
}

static const struct relay_tunnel_user tunnel_cb = {
    .on_datagrams = on_datagrams, .on_fin = on_fin, .on_writable = on_writable, .on_close = on_close};

/* ---- the beginning ---- */

static void refuse(struct udp_tunnel *self, int error, int rcode)
{
    h2o_req_t *req = self->opening->req;
    struct relay_tunnel *tunnel = self->tunnel;
    free_tunnel(self, error);
    relay_refuse(req, tunnel, error, rcode);
}

static void send_early(struct udp_tunnel *self, struct opening *opening)
{
    for (size_t i = 0; i < opening->num_early; i++) {
        size_t len = opening->early[i].len;
        send_to_target(self, (struct relay_run){.base = opening->early[i].bytes, .len = len, .segment = len});
        free(opening->early[i].bytes);
    }
    opening->num_early = 0;
}

static void accept_tunnel(struct udp_tunnel *self)
{
    struct opening *opening = self->opening;
    if (relay_tunnel_accept(self->tunnel, NULL, 0) != 0)
        return; /* the peer has gone: on_close comes */
    relay_ticket_opened(&self->ticket, true, self->snapshot, &opening->target.host, opening->target.port);
    self->last_active = relay_loop_now(self->env->loop);
    relay_timer_set(self->env->loop, &self->idle, self->last_active + self->snapshot->timeouts.udp_idle);
    send_early(self, opening);
    free_opening(self);
    relay_tunnel_resume(self->tunnel);
}

/* False: none of the addresses can be connected to; opening->error says why. */
static bool connect_first(struct udp_tunnel *self, const struct relay_target *target)
{
    struct opening *opening = self->opening;
    for (size_t i = 0; i < target->num_addresses && self->flow == NULL; i++) {
        struct sockaddr_storage address;
        relay_address_to_sockaddr(&target->addresses[i], target->port, &address);
        int error =
            relay_udp_flow_new(self->env->loop, (struct sockaddr *)&address, &flow_cb, self, &self->flow);
        if (error != 0)
            self->flow = NULL;
        opening->error = opening->error != 0 ? opening->error : error;
    }
    return self->flow != NULL;
}

static void on_judged(struct relay_target *target)
{
    struct opening *opening = (struct opening *)((char *)target - offsetof(struct opening, target));
    struct udp_tunnel *self = opening->owner;
    bool is_connected = target->error == 0 && connect_first(self, target);
    if (!is_connected && target->error == 0 && !target->is_final)
        return; /* the other family may have one */
    relay_target_cancel(target);
    relay_ticket_dialled(&self->ticket);
    if (is_connected)
        accept_tunnel(self);
    else
        refuse(self, target->error != 0 ? target->error : opening->error, target->rcode);
}

static void on_turn(struct relay_ticket *ticket)
{
    struct udp_tunnel *self = (struct udp_tunnel *)((char *)ticket - offsetof(struct udp_tunnel, ticket));
    relay_target_begin(&self->opening->target, relay_ticket_payer(ticket), on_judged);
}

static struct udp_tunnel *new_tunnel(h2o_req_t *req, size_t policy_index, const struct relay_host *host,
                                     uint16_t port)
{
    struct relay_env *env = relay_env_of(req);
    struct udp_tunnel *self = calloc(1, sizeof(*self));
    struct opening *opening = calloc(1, sizeof(*opening));
    if (self == NULL || opening == NULL) {
        free(self);
        free(opening);
        return NULL;
    }
    self->env = env;
    self->snapshot = relay_snapshot_ref(env->snapshot);
    self->tunnel = relay_tunnel_of(req);
    self->opening = opening;
    relay_timer_init(&self->idle, on_idle);
    relay_oversize_hold_init(&self->hold, self->tunnel);
    opening->owner = self;
    opening->req = req;
    relay_target_init(&opening->target, env, self->snapshot, &self->snapshot->connect_udp[policy_index].acl,
                      RELAY_TRANSPORT_UDP, host, port);
    return self;
}

static bool is_connect_udp(const struct relay_request *head)
{
    /* RFC 9110 section 7.8: an Upgrade token is compared without regard to case. */
    return head->kind == RELAY_KIND_CAPSULES && head->protocol.len == strlen("connect-udp") &&
           strncasecmp(head->protocol.base, "connect-udp", head->protocol.len) == 0;
}

/* Matches the path as it came. A path that a later template claims is that handler's, also to call it
 * invalid. */
static int match(const struct relay_snapshot *snapshot, size_t index, struct relay_slice path,
                 struct relay_host *host, uint16_t *port)
{
    int result =
        relay_uri_template_match(&snapshot->connect_udp[index].template, path.base, path.len, host, port);
    for (size_t i = index + 1; result == RELAY_ERR_INVALID && i < snapshot->num_connect_udp; i++)
        if (relay_uri_template_match(&snapshot->connect_udp[i].template, path.base, path.len, host, port) !=
            RELAY_URI_TEMPLATE_OTHER)
            result = RELAY_URI_TEMPLATE_OTHER;
    return result;
}

static int on_req(h2o_handler_t *handler, h2o_req_t *req)
{
    size_t index = ((struct handler *)handler)->policy_index;
    const struct relay_snapshot *snapshot = relay_env_of(req)->snapshot;
    const struct relay_request *head = relay_request_of(req);
    struct relay_tunnel *tunnel = relay_tunnel_of(req);
    struct relay_host host;
    uint16_t port;
    if (index >= snapshot->num_connect_udp || !is_connect_udp(head))
        return -1;
    int result = match(snapshot, index, head->path, &host, &port);
    if (result == RELAY_URI_TEMPLATE_OTHER)
        return -1;
    struct udp_tunnel *self = result == 0 ? new_tunnel(req, index, &host, port) : NULL;
    if (self == NULL)
        return relay_refuse(req, tunnel, result != 0 ? result : RELAY_ERR_NO_MEMORY, -1);
    relay_tunnel_attach(tunnel, &tunnel_cb, self);
    relay_tunnel_pause(tunnel);
    int error = relay_ticket_take(&self->ticket, req, tunnel, self->snapshot);
    if (error != 0)
        refuse(self, error, -1);
    else
        relay_ticket_dial(&self->ticket, on_turn);
    return 0;
}

void relay_connect_udp_register(h2o_pathconf_t *path, size_t policy_index)
{
    struct handler *handler = (struct handler *)h2o_create_handler(path, sizeof(*handler));
    handler->h2o.on_req = on_req;
    handler->policy_index = policy_index;
}
