#include "modules/connect.h"

#include <stdlib.h>
#include <unistd.h>

#include "lib/net/metrics.h"
#include "lib/net/splice.h"
#include "lib/net/tcp_dial.h"
#include "lib/wire/authority.h"
#include "lib/wire/error.h"
#include "modules/admission.h"
#include "modules/env.h"
#include "modules/refusal.h"
#include "modules/target.h"

struct connect_handler {
    h2o_handler_t super; /* first */
    size_t policy_index;
};

/* One CONNECT: waits for its turn, is judged, resolved, dialled, accepted, and then spliced to its target. It
 * lives until the tunnel's on_close, or until it is refused. */
struct connect {
    struct relay_env *env;
    struct relay_snapshot *snapshot; /* the one it began with */
    struct relay_tunnel *tunnel;
    h2o_req_t *req; /* until it is accepted or refused */
    struct relay_ticket ticket;
    struct relay_target target;
    struct relay_tcp_dial *dial;
};

static void free_connect(struct connect *connect, int error)
{
    relay_target_cancel(&connect->target);
    if (connect->dial != NULL)
        relay_tcp_dial_cancel(connect->dial);
    relay_ticket_release(&connect->ticket, error);
    relay_snapshot_unref(connect->snapshot);
    free(connect);
}

static void refuse(struct connect *connect, int error, int rcode)
{
    h2o_req_t *req = connect->req;
    struct relay_tunnel *tunnel = connect->tunnel;
    free_connect(connect, error);
    relay_refuse(req, tunnel, error, rcode);
}

/* The client has gone while its target was looked for. */
static void on_close(void *user, int error)
{
    free_connect(user, error);
}

static const struct relay_tunnel_user dialling_user = {.on_close = on_close};

static void on_splice_end(void *user, int error)
{
    free_connect(user, error);
}

static void open_tunnel(struct connect *connect, struct relay_stream *stream)
{
    /* The target's first bytes may come at once: the head must be before them. */
    if (relay_tunnel_accept(connect->tunnel, NULL, 0) != RELAY_OK) {
        relay_stream_reset(stream); /* on_close comes */
        return;
    }
    connect->req = NULL;
    int error =
        relay_splice(connect->tunnel, stream, connect->snapshot->timeouts.tcp_idle, on_splice_end, connect);
    if (error != RELAY_OK) {
        relay_stream_reset(stream);
        relay_tunnel_abort(connect->tunnel, error);
        return;
    }
    relay_ticket_opened(&connect->ticket, false, connect->snapshot, &connect->target.host,
                        connect->target.port);
}

static void on_dialled(void *user, int fd, const struct relay_address *address, int error)
{
    struct connect *connect = user;
    connect->dial = NULL;
    relay_target_cancel(&connect->target); /* the late family is not wanted any more */
    relay_ticket_dialled(&connect->ticket);
    if (error != RELAY_OK) {
        refuse(connect, error, -1);
        return;
    }
    struct sockaddr_storage peer;
    relay_address_to_sockaddr(address, connect->target.port, &peer);
    struct relay_stream *stream = relay_stream_tcp(connect->env->loop, fd, (struct sockaddr *)&peer);
    if (stream == NULL)
        refuse(connect, RELAY_ERR_NO_DESCRIPTORS, -1);
    else
        open_tunnel(connect, stream);
}

static void on_judged(struct relay_target *target)
{
    struct connect *connect = (struct connect *)((char *)target - offsetof(struct connect, target));
    if (target->error != RELAY_OK) {
        refuse(connect, target->error, target->rcode);
        return;
    }
    if (connect->dial != NULL) {
        relay_tcp_dial_add(connect->dial, target->addresses, target->num_addresses);
        return;
    }
    connect->dial =
        relay_tcp_dial_start(connect->env->loop, &connect->snapshot->dial, target->addresses,
                             target->num_addresses, !target->is_final, target->port, on_dialled, connect);
    if (connect->dial == NULL)
        refuse(connect, RELAY_ERR_NO_MEMORY, -1);
}

static void on_turn(struct relay_ticket *ticket)
{
    struct connect *connect = (struct connect *)((char *)ticket - offsetof(struct connect, ticket));
    relay_target_begin(&connect->target, relay_ticket_payer(ticket), on_judged);
}

static int begin(h2o_req_t *req, struct relay_tunnel *tunnel, const struct relay_acl *acl,
                 const struct relay_host *host, uint16_t port)
{
    struct relay_env *env = relay_env_of(req);
    struct connect *connect = calloc(1, sizeof(*connect));
    if (connect == NULL)
        return RELAY_ERR_NO_MEMORY;
    int error = relay_ticket_take(&connect->ticket, req, tunnel, env->snapshot);
    if (error != RELAY_OK) {
        free(connect);
        return error;
    }
    connect->env = env;
    connect->snapshot = relay_snapshot_ref(env->snapshot);
    connect->tunnel = tunnel;
    connect->req = req;
    relay_target_init(&connect->target, env, connect->snapshot, acl, RELAY_TRANSPORT_TCP, host, port);
    relay_tunnel_attach(tunnel, &dialling_user, connect);
    relay_tunnel_pause(tunnel); /* early bytes wait in the client's flow-control window */
    relay_ticket_dial(&connect->ticket, on_turn);
    return RELAY_OK;
}

static int on_req(h2o_handler_t *super, h2o_req_t *req)
{
    size_t index = ((struct connect_handler *)super)->policy_index;
    struct relay_tunnel *tunnel = relay_tunnel_of(req);
    const struct relay_snapshot *snapshot = relay_env_of(req)->snapshot;
    if (tunnel == NULL || tunnel->kind != RELAY_KIND_BYTES || index >= snapshot->num_connect)
        return -1;
    struct relay_slice authority = relay_request_of(req)->authority;
    struct relay_host host;
    uint16_t port;
    if (authority.base == NULL || relay_authority_parse(&host, &port, authority.base, authority.len) != 0)
        return relay_refuse(req, tunnel, RELAY_ERR_INVALID, -1);
    int error = begin(req, tunnel, &snapshot->connect[index].acl, &host, port);
    return error == RELAY_OK ? 0 : relay_refuse(req, tunnel, error, -1);
}

void relay_connect_register(h2o_pathconf_t *path, size_t policy_index)
{
    struct connect_handler *handler = (struct connect_handler *)h2o_create_handler(path, sizeof(*handler));
    handler->super.on_req = on_req;
    handler->policy_index = policy_index;
}
