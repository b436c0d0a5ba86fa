#include "lib/net/tunnel.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/net/metrics.h"
#include "lib/wire/error.h"
#include "lib/wire/varint.h"

enum flag {
    PAUSED = 1 << 0,         /* by the user */
    FIN_HELD = 1 << 1,       /* the peer's FIN waits behind held bytes or a pause */
    FIN_TOLD = 1 << 2,       /* on_fin was called */
    FIN_SENT = 1 << 3,       /* the user has ended its direction */
    RESPONDED = 1 << 4,      /* server: the head is out */
    WANTS_WRITABLE = 1 << 5, /* the user was told to wait */
    IS_WRITABLE = 1 << 6,    /* on_writable is due */
    IS_ACCEPTED = 1 << 7,    /* the host is to be told */
    IS_RESUMED = 1 << 8,     /* held bytes and credit are due */
    ABORTED = 1 << 9,        /* by the user: nothing is told any more but on_close */
    CLOSED = 1 << 10,        /* by the session: on_close is due */
    DELIVERING = 1 << 11,    /* inside a user's callback for bytes; keeps order when it resumes there */
    READING_OFF = 1 << 12    /* the session was told to stop reading */
};

static bool has(const struct relay_tunnel *tunnel, unsigned flags)
{
    return (tunnel->flags & flags) != 0;
}

static void queue(struct relay_tunnel *tunnel, enum flag why)
{
    tunnel->flags |= why;
    relay_task_queue(tunnel->loop, &tunnel->task);
}

/* ---- what comes ---- */

static void take_datagram(struct relay_tunnel *tunnel, const uint8_t *payload, size_t len)
{
    struct relay_run run;
    size_t used = relay_varint_read(payload, len, &run.context_id);
    if (used == 0) {
        relay_tunnel_abort(tunnel, RELAY_ERR_INCOMPLETE);
        return;
    }
    run.base = payload + used;
    run.len = run.segment = len - used;
    tunnel->count.datagrams_in++;
    tunnel->count.payload_in += run.len;
    if (tunnel->cb != NULL && tunnel->cb->on_datagrams != NULL)
        tunnel->cb->on_datagrams(tunnel->user, &run);
    else
        relay_count(tunnel->loop->metrics->drop_closed, 1);
}

static int64_t capsule_limit(void *user, uint64_t type)
{
    struct relay_tunnel *tunnel = user;
    if (type == RELAY_CAPSULE_DATAGRAM)
        return RELAY_DATAGRAM_CAPSULE_MAX;
    if (tunnel->cb != NULL && tunnel->cb->wants_capsule != NULL &&
        tunnel->cb->wants_capsule(tunnel->user, type))
        return RELAY_CONTROL_CAPSULE_MAX;
    return RELAY_CAPSULE_SKIP;
}

static int on_capsule(void *user, uint64_t type, const uint8_t *payload, size_t len)
{
    struct relay_tunnel *tunnel = user;
    if (has(tunnel, ABORTED))
        return 1;
    if (type == RELAY_CAPSULE_DATAGRAM)
        take_datagram(tunnel, payload, len);
    else if (tunnel->cb != NULL)
        tunnel->cb->on_capsule(tunnel->user, type, payload, len);
    return has(tunnel, PAUSED | ABORTED) ? 1 : 0;
}

static const struct relay_capsule_sink capsule_sink = {capsule_limit, on_capsule};

/* The user has taken `len` bytes of the stream. */
static void taken(struct relay_tunnel *tunnel, size_t len)
{
    if (has(tunnel, PAUSED))
        tunnel->unconsumed += len;
    else if (!has(tunnel, CLOSED))
        tunnel->ops->consume(tunnel, len);
}

/* How much was taken: all, unless the user paused between two capsules or they are too many. */
static size_t tell_capsules(struct relay_tunnel *tunnel, const uint8_t *bytes, size_t len)
{
    size_t used;
    int error = relay_capsule_parser_feed(&tunnel->capsules, bytes, len, &used);
    if (error != 0)
        relay_tunnel_abort(tunnel, error);
    return error != 0 ? len : used;
}

/* What a read brought, for as long as the turn has time. */
static size_t tell_capsules_in_time(struct relay_tunnel *tunnel, const uint8_t *bytes, size_t len)
{
    size_t used = 0;
    while (used < len && !has(tunnel, PAUSED | ABORTED) && relay_loop_has_time(tunnel->loop))
        used += tell_capsules(tunnel, bytes + used, len - used);
    tunnel->is_unproven = used < len && !has(tunnel, PAUSED);
    return used;
}

/* Returns how much was taken: of bytes that are no capsules, all. */
static size_t tell_bytes(struct relay_tunnel *tunnel, uint8_t *bytes, size_t len, bool is_held)
{
    size_t used = len;
    tunnel->flags |= DELIVERING;
    if (tunnel->kind == RELAY_KIND_CAPSULES)
        used = is_held ? tell_capsules(tunnel, bytes, len) : tell_capsules_in_time(tunnel, bytes, len);
    else if (tunnel->cb != NULL && tunnel->cb->on_bytes != NULL)
        tunnel->cb->on_bytes(tunnel->user, bytes, len);
    tunnel->flags &= (uint16_t)~DELIVERING;
    if (has(tunnel, ABORTED) || (has(tunnel, CLOSED) && tunnel->close_error != RELAY_OK))
        return len;
    if (used > 0)
        taken(tunnel, used);
    return used;
}

/* Room for `more` bytes behind those that are held. What was told goes when it is half of the buffer, so that a byte is
 * moved once on average, however small the pieces are. */
static bool reserve(struct relay_tunnel *tunnel, size_t more)
{
    if (tunnel->held_at > 0 && tunnel->held_at >= tunnel->held_len) {
        uint8_t *bytes = tunnel->held + RELAY_HEADROOM;
        memmove(bytes, bytes + tunnel->held_at, tunnel->held_len);
        tunnel->held_at = 0;
    }
    size_t need = tunnel->held_at + tunnel->held_len + more;
    if (need <= tunnel->held_size)
        return true;
    size_t size = tunnel->held_size ? tunnel->held_size : 2048;
    while (size < need)
        size *= 4; /* what is not written costs nothing */
    uint8_t *held = realloc(tunnel->held, RELAY_HEADROOM + size);
    if (held == NULL)
        return false;
    tunnel->held = held;
    tunnel->held_size = size;
    return true;
}

static void hold(struct relay_tunnel *tunnel, const uint8_t *bytes, size_t len)
{
    if (!reserve(tunnel, len)) {
        relay_tunnel_abort(tunnel, RELAY_ERR_NO_MEMORY);
        return;
    }
    memcpy(tunnel->held + RELAY_HEADROOM + tunnel->held_at + tunnel->held_len, bytes, len);
    tunnel->held_len += len;
}

static void drop_held(struct relay_tunnel *tunnel)
{
    free(tunnel->held);
    tunnel->held = NULL;
    tunnel->held_at = tunnel->held_len = tunnel->held_size = 0;
}

/* What is held and what is paused stays with the peer from now on. */
static void update_reading(struct relay_tunnel *tunnel)
{
    bool is_off = has(tunnel, PAUSED) || tunnel->held_len > 0;
    if (is_off == has(tunnel, READING_OFF) || has(tunnel, ABORTED | CLOSED))
        return;
    tunnel->flags ^= READING_OFF;
    tunnel->ops->set_reading(tunnel, !is_off);
}

static void tell_fin(struct relay_tunnel *tunnel)
{
    if (has(tunnel, FIN_TOLD | ABORTED))
        return;
    tunnel->flags |= FIN_TOLD;
    int error = tunnel->kind == RELAY_KIND_CAPSULES ? relay_capsule_parser_finish(&tunnel->capsules) : 0;
    if (error != 0)
        relay_tunnel_abort(tunnel, error);
    else if (tunnel->cb != NULL && tunnel->cb->on_fin != NULL)
        tunnel->cb->on_fin(tunnel->user);
}

void relay_tunnel_deliver_response(struct relay_tunnel *tunnel, const struct relay_response *response)
{
    if (!has(tunnel, ABORTED | CLOSED) && tunnel->cb != NULL && tunnel->cb->on_response != NULL)
        tunnel->cb->on_response(tunnel->user, response);
}

void relay_tunnel_deliver(struct relay_tunnel *tunnel, uint8_t *bytes, size_t len)
{
    if (has(tunnel, ABORTED | CLOSED) || len == 0)
        return;
    tunnel->count.bytes_in += len;
    size_t used = 0;
    if (!has(tunnel, PAUSED | DELIVERING) && tunnel->held_len == 0)
        used = tell_bytes(tunnel, bytes, len, false);
    if (used < len && !has(tunnel, ABORTED))
        hold(tunnel, bytes + used, len - used);
    if (tunnel->held_len > 0 && !has(tunnel, PAUSED | DELIVERING | ABORTED)) {
        queue(tunnel, IS_RESUMED);
        update_reading(tunnel);
    }
}

void relay_tunnel_deliver_fin(struct relay_tunnel *tunnel)
{
    if (has(tunnel, ABORTED | CLOSED))
        return;
    if (has(tunnel, PAUSED | DELIVERING) || tunnel->held_len > 0)
        tunnel->flags |= FIN_HELD;
    else
        tell_fin(tunnel);
}

void relay_tunnel_deliver_datagram(struct relay_tunnel *tunnel, const uint8_t *payload, size_t len)
{
    if (!has(tunnel, ABORTED | CLOSED))
        take_datagram(tunnel, payload, len);
    else
        relay_count(tunnel->loop->metrics->drop_closed, 1);
}

/* Of capsules a piece, of other bytes all. The buffer is ours alone during the call: the user may let more bytes come
 * meanwhile. */
static void tell_held(struct relay_tunnel *tunnel)
{
    uint8_t *held = tunnel->held;
    size_t at = tunnel->held_at, len = tunnel->held_len, size = tunnel->held_size;
    tunnel->held = NULL;
    tunnel->held_at = tunnel->held_len = tunnel->held_size = 0;
    size_t used = tell_bytes(tunnel, held + RELAY_HEADROOM + at, len, true);
    if (used == len) {
        free(held);
        return;
    }
    uint8_t *newer = tunnel->held;
    size_t newer_len = tunnel->held_len;
    tunnel->held = held;
    tunnel->held_at = at + used;
    tunnel->held_len = len - used;
    tunnel->held_size = size;
    if (newer_len > 0)
        hold(tunnel, newer + RELAY_HEADROOM, newer_len);
    free(newer);
}

/* After resume, or in its turn: what was held, the credit for it, and the FIN behind it. */
static void deliver_held(struct relay_tunnel *tunnel)
{
    if (!has(tunnel, PAUSED) && tunnel->unconsumed > 0) {
        size_t len = tunnel->unconsumed;
        tunnel->unconsumed = 0;
        taken(tunnel, len);
    }
    if (!has(tunnel, PAUSED | ABORTED) && tunnel->held_len > 0) {
        if (tunnel->kind == RELAY_KIND_CAPSULES && !relay_loop_has_time(tunnel->loop)) {
            tunnel->flags |= IS_RESUMED;
            relay_task_defer(tunnel->loop, &tunnel->task);
            return;
        }
        tell_held(tunnel);
        /* Behind the others that wait: they all have a piece before this one has its next. */
        if (tunnel->held_len > 0 && !has(tunnel, PAUSED | ABORTED))
            queue(tunnel, IS_RESUMED);
    }
    update_reading(tunnel);
    if (!has(tunnel, PAUSED | ABORTED) && tunnel->held_len == 0 && has(tunnel, FIN_HELD)) {
        tunnel->flags &= (uint16_t)~FIN_HELD;
        tell_fin(tunnel);
    }
}

/* ---- the end, and the task ---- */

static bool is_close_due(const struct relay_tunnel *tunnel)
{
    if (!has(tunnel, CLOSED))
        return false;
    bool is_clean = tunnel->close_error == RELAY_OK && !has(tunnel, ABORTED);
    return !is_clean || (tunnel->held_len == 0 && !has(tunnel, FIN_HELD));
}

static void tell_close(struct relay_tunnel *tunnel)
{
    const struct relay_tunnel_user *cb = tunnel->cb;
    tunnel->cb = NULL;
    if (cb != NULL && cb->on_close != NULL)
        cb->on_close(tunnel->user, tunnel->close_error);
    if (tunnel->host_cb != NULL)
        tunnel->host_cb->on_closed(tunnel->host);
    tunnel->ops->release(tunnel);
}

static void run_task(struct relay_task *task)
{
    struct relay_tunnel *tunnel = (struct relay_tunnel *)((char *)task - offsetof(struct relay_tunnel, task));
    unsigned due = tunnel->flags;
    tunnel->flags &= (uint16_t) ~(IS_ACCEPTED | IS_RESUMED | IS_WRITABLE);
    if ((due & IS_ACCEPTED) && tunnel->host_cb != NULL)
        tunnel->host_cb->on_accepted(tunnel->host);
    if (due & IS_RESUMED)
        deliver_held(tunnel);
    if (is_close_due(tunnel)) {
        /* A connection's end closes all its tunnels, thousands of sockets, and nobody else may wait for that. */
        if (relay_loop_has_time(tunnel->loop))
            tell_close(tunnel);
        else
            relay_task_defer(tunnel->loop, &tunnel->task);
        return;
    }
    if ((due & IS_WRITABLE) && !has(tunnel, ABORTED | CLOSED) && tunnel->cb != NULL &&
        tunnel->cb->on_writable != NULL)
        tunnel->cb->on_writable(tunnel->user);
}

void relay_tunnel_init(struct relay_tunnel *tunnel, const struct relay_tunnel_ops *ops,
                       struct relay_session *session, struct relay_loop *loop, enum relay_kind kind)
{
    memset(tunnel, 0, sizeof(*tunnel));
    tunnel->ops = ops;
    tunnel->session = session;
    tunnel->loop = loop;
    tunnel->kind = kind;
    tunnel->opened_at = relay_loop_now(loop);
    relay_capsule_parser_init(&tunnel->capsules, &capsule_sink, tunnel);
    relay_task_init(&tunnel->task, RELAY_LEVEL_EVENT, run_task);
}

void relay_tunnel_dispose(struct relay_tunnel *tunnel)
{
    relay_task_cancel(&tunnel->task);
    relay_capsule_parser_dispose(&tunnel->capsules);
    drop_held(tunnel);
}

void relay_tunnel_closed(struct relay_tunnel *tunnel, int error)
{
    if (has(tunnel, CLOSED))
        return;
    tunnel->close_error = error;
    if (error != RELAY_OK)
        drop_held(tunnel); /* the end does not wait behind it */
    queue(tunnel, CLOSED);
}

bool relay_tunnel_is_closed(const struct relay_tunnel *tunnel)
{
    return has(tunnel, CLOSED);
}

void relay_tunnel_abort(struct relay_tunnel *tunnel, int error)
{
    if (has(tunnel, ABORTED))
        return;
    tunnel->flags |= ABORTED;
    drop_held(tunnel);
    if (has(tunnel, CLOSED)) {
        tunnel->close_error = error;
        queue(tunnel, CLOSED);
    } else {
        tunnel->ops->abort(tunnel, error);
    }
}

/* ---- the user's side ---- */

void relay_tunnel_attach(struct relay_tunnel *tunnel, const struct relay_tunnel_user *cb, void *user)
{
    tunnel->cb = cb;
    tunnel->user = user;
}

int relay_tunnel_respond(struct relay_tunnel *tunnel, const struct relay_response *response)
{
    if (has(tunnel, ABORTED | CLOSED))
        return RELAY_ERR_CLOSED;
    assert(!has(tunnel, RESPONDED));
    tunnel->flags |= RESPONDED;
    int error = tunnel->ops->respond(tunnel, response);
    if (error == 0 && tunnel->kind != RELAY_KIND_MESSAGE && response->status / 100 == 2)
        queue(tunnel, IS_ACCEPTED);
    return error;
}

#define ACCEPT_FIELDS_MAX 8

int relay_tunnel_accept(struct relay_tunnel *tunnel, const struct relay_field *fields, size_t num_fields)
{
    struct relay_field all[ACCEPT_FIELDS_MAX + 1];
    assert(num_fields <= ACCEPT_FIELDS_MAX);
    for (size_t i = 0; i < num_fields; i++)
        all[i] = fields[i];
    if (tunnel->kind == RELAY_KIND_CAPSULES)
        all[num_fields++] = (struct relay_field){RELAY_SLICE("capsule-protocol"), RELAY_SLICE("?1")};
    struct relay_response response = {
        .status = 200, .fields = all, .num_fields = num_fields, .content_length = -1};
    return relay_tunnel_respond(tunnel, &response);
}

size_t relay_tunnel_room(struct relay_tunnel *tunnel)
{
    if (has(tunnel, ABORTED | CLOSED | FIN_SENT))
        return 0;
    size_t room = tunnel->ops->room(tunnel);
    if (room == 0)
        tunnel->flags |= WANTS_WRITABLE;
    return room;
}

bool relay_tunnel_send(struct relay_tunnel *tunnel, const uint8_t *bytes, size_t len)
{
    if (has(tunnel, ABORTED | CLOSED | FIN_SENT))
        return true; /* on_close comes; waiting for room would be in vain */
    tunnel->count.bytes_out += len;
    bool more = tunnel->ops->send(tunnel, bytes, len);
    if (!more)
        tunnel->flags |= WANTS_WRITABLE;
    return more;
}

void relay_tunnel_send_fin(struct relay_tunnel *tunnel)
{
    if (has(tunnel, ABORTED | CLOSED | FIN_SENT))
        return;
    tunnel->flags |= FIN_SENT;
    tunnel->ops->send_fin(tunnel);
}

void relay_tunnel_writable(struct relay_tunnel *tunnel)
{
    if (!has(tunnel, WANTS_WRITABLE) || has(tunnel, ABORTED | CLOSED))
        return;
    tunnel->flags &= (uint16_t)~WANTS_WRITABLE;
    queue(tunnel, IS_WRITABLE);
}

size_t relay_run_count(const struct relay_run *run)
{
    return run->len == 0 ? 1 : (run->len + run->segment - 1) / run->segment;
}

void relay_run_drop_one(struct relay_run *run)
{
    size_t one = run->len < run->segment ? run->len : run->segment;
    run->base += one;
    run->len -= one;
}

/* The datagram's DATAGRAM capsule, written to `p`; the end. */
static uint8_t *write_datagram_capsule(uint8_t *p, uint64_t context_id, const uint8_t *payload, size_t len)
{
    p = relay_capsule_write_head(p, RELAY_CAPSULE_DATAGRAM, relay_varint_size(context_id) + len);
    p = relay_varint_write(p, context_id);
    if (len > 0)
        memcpy(p, payload, len);
    return p + len;
}

/* As many whole capsules as there is room for, in one send: on HTTP/1.1 that is one TLS record run and one
 * system call. */
static enum relay_sent send_as_capsules(struct relay_tunnel *tunnel, struct relay_run *run)
{
    size_t room = relay_tunnel_room(tunnel);
    if (room == 0)
        return RELAY_BLOCKED;
    uint8_t *scratch = relay_loop_take_scratch(tunnel->loop);
    if (scratch == NULL)
        return RELAY_BLOCKED;
    uint8_t *end = scratch;
    size_t limit = room < RELAY_SCRATCH_SIZE ? room : RELAY_SCRATCH_SIZE;
    bool more = true, all = false;
    while (!all) {
        size_t one = run->len < run->segment ? run->len : run->segment, used = (size_t)(end - scratch);
        size_t need = one + RELAY_CAPSULE_HEAD_MAX + 8;
        /* The first one goes in any case: a buffer smaller than one datagram would block for ever. */
        if (used > 0 && (used + need > limit || used + need > RELAY_SCRATCH_SIZE))
            break;
        end = write_datagram_capsule(end, run->context_id, run->base, one);
        tunnel->count.datagrams_out++;
        tunnel->count.payload_out += one;
        relay_run_drop_one(run);
        all = run->len == 0;
    }
    more = relay_tunnel_send(tunnel, scratch, (size_t)(end - scratch));
    relay_loop_return_scratch(tunnel->loop);
    if (all)
        return RELAY_SENT;
    if (more)
        tunnel->flags |= WANTS_WRITABLE;
    return RELAY_BLOCKED;
}

enum relay_sent relay_tunnel_send_datagrams(struct relay_tunnel *tunnel, struct relay_run *run)
{
    if (has(tunnel, ABORTED | CLOSED | FIN_SENT) || tunnel->kind != RELAY_KIND_CAPSULES)
        return RELAY_GONE;
    if (tunnel->ops->max_datagram(tunnel, run->context_id) == 0)
        return send_as_capsules(tunnel, run);
    size_t before = run->len;
    enum relay_sent sent = tunnel->ops->send_datagrams(tunnel, run);
    tunnel->count.datagrams_out +=
        before == 0 ? sent == RELAY_SENT : (before - run->len + run->segment - 1) / run->segment;
    tunnel->count.payload_out += before - run->len;
    if (sent == RELAY_BLOCKED)
        tunnel->flags |= WANTS_WRITABLE;
    return sent;
}

#define UDP_PAYLOAD_MAX 65527

size_t relay_tunnel_max_datagram(struct relay_tunnel *tunnel, uint64_t context_id)
{
    if (has(tunnel, ABORTED | CLOSED))
        return 0;
    size_t max = tunnel->ops->max_datagram(tunnel, context_id);
    return max > 0 ? max : UDP_PAYLOAD_MAX;
}

bool relay_tunnel_send_capsule(struct relay_tunnel *tunnel, uint64_t type, const uint8_t *value, size_t len)
{
    uint8_t *scratch = relay_loop_take_scratch(tunnel->loop);
    if (scratch == NULL)
        return false;
    assert(len + RELAY_CAPSULE_HEAD_MAX <= RELAY_SCRATCH_SIZE);
    uint8_t *end = relay_capsule_write_head(scratch, type, len);
    memcpy(end, value, len);
    bool more = relay_tunnel_send(tunnel, scratch, (size_t)(end - scratch) + len);
    relay_loop_return_scratch(tunnel->loop);
    return more;
}

void relay_tunnel_pause(struct relay_tunnel *tunnel)
{
    if (has(tunnel, PAUSED | ABORTED))
        return;
    tunnel->flags |= PAUSED;
    update_reading(tunnel);
}

void relay_tunnel_resume(struct relay_tunnel *tunnel)
{
    if (!has(tunnel, PAUSED) || has(tunnel, ABORTED))
        return;
    tunnel->flags &= (uint16_t)~PAUSED;
    update_reading(tunnel);
    if (tunnel->held_len > 0 || tunnel->unconsumed > 0 || has(tunnel, FIN_HELD | CLOSED))
        queue(tunnel, IS_RESUMED);
}

int relay_tunnel_verdict(const struct relay_tunnel *tunnel, int error)
{
    if (error != RELAY_ERR_RESET || has(tunnel, ABORTED))
        return error;
    return has(tunnel, FIN_TOLD) ? RELAY_OK : RELAY_ERR_CANCELLED;
}
