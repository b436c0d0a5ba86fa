#include "lib/net/http3_private.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/net/metrics.h"
#include "lib/net/refusal.h"
#include "lib/wire/error.h"

/* How much one stream gives nghttp3 before the others have their turn. By itself nghttp3 serves streams of
 * equal priority one after the other: a bulk transfer would starve all later ones. */
#define TURN 16384

static const struct relay_tunnel_ops tunnel_ops;

static struct relay_http3_stream *stream_of(struct relay_tunnel *tunnel)
{
    return (struct relay_http3_stream *)tunnel;
}

/* ---- the table of streams ---- */

static struct relay_http3_stream **bucket_of(const struct relay_http3 *session, int64_t id)
{
    return &session->buckets[((uint64_t)id / 4) & (session->num_buckets - 1)];
}

struct relay_http3_stream *relay_http3_stream_find(struct relay_http3 *session, int64_t id)
{
    if (session->found != NULL && session->found->id == id)
        return session->found;
    if (session->num_buckets == 0)
        return NULL;
    struct relay_http3_stream *stream = *bucket_of(session, id);
    while (stream != NULL && stream->id != id)
        stream = stream->next_in_bucket;
    if (stream != NULL)
        session->found = stream;
    return stream;
}

static int make_place(struct relay_http3 *session)
{
    if (session->num_streams < session->num_buckets)
        return 0;
    size_t num = session->num_buckets ? 2 * session->num_buckets : 8;
    struct relay_http3_stream **old = session->buckets,
                              **buckets = calloc(num, sizeof(struct relay_http3_stream *));
    if (buckets == NULL)
        return RELAY_ERR_NO_MEMORY;
    size_t num_old = session->num_buckets;
    session->buckets = buckets;
    session->num_buckets = num;
    for (size_t i = 0; i < num_old; i++) {
        struct relay_http3_stream *stream = old[i];
        while (stream != NULL) {
            struct relay_http3_stream *next = stream->next_in_bucket,
                                      **bucket = bucket_of(session, stream->id);
            stream->next_in_bucket = *bucket;
            *bucket = stream;
            stream = next;
        }
    }
    free(old);
    return 0;
}

struct relay_http3_stream *relay_http3_stream_new(struct relay_http3 *session, int64_t id,
                                                  enum relay_kind kind)
{
    struct relay_http3_stream *stream = calloc(1, sizeof(*stream));
    if (stream == NULL || make_place(session) != 0) {
        free(stream);
        return NULL;
    }
    relay_tunnel_init(&stream->tunnel, &tunnel_ops, &session->base, session->base.loop, kind);
    stream->id = id;
    stream->kind = kind;
    relay_http3_link_init(&stream->pending);
    relay_http3_link_init(&stream->yielded);
    relay_http3_link_init(&stream->blocked);
    relay_http3_link_init(&stream->heading);
    relay_http3_buffer_init(&stream->buffer, session->budget, session->base.limits);
    relay_window_init(&stream->window, session->budget, session->base.limits);
    struct relay_http3_stream **bucket = bucket_of(session, id);
    stream->next_in_bucket = *bucket;
    *bucket = stream;
    session->num_streams++;
    session->base.num_tunnels++;
    return stream;
}

static void stream_free(struct relay_http3_stream *stream)
{
    struct relay_http3 *session = relay_http3_of(stream);
    struct relay_http3_stream **place = bucket_of(session, stream->id);
    while (*place != stream)
        place = &(*place)->next_in_bucket;
    *place = stream->next_in_bucket;
    if (session->found == stream)
        session->found = NULL;
    relay_http3_link_remove(&stream->pending);
    relay_http3_link_remove(&stream->yielded);
    relay_http3_link_remove(&stream->blocked);
    relay_http3_link_remove(&stream->heading);
    relay_http3_head_dispose(&stream->head);
    relay_http3_buffer_dispose(&stream->buffer);
    relay_window_dispose(&stream->window);
    relay_tunnel_dispose(&stream->tunnel);
    session->num_open_tunnels -= stream->is_tunnel;
    session->num_over -= stream->is_over;
    session->num_streams--;
    session->base.num_tunnels--;
    session->idle_since = relay_loop_now(session->base.loop);
    free(stream->stash);
    free(stream);
    relay_http3_wake(session);
}

/* ---- ends ---- */

void relay_http3_stream_due(struct relay_http3_stream *stream, enum relay_http3_stream_due why)
{
    struct relay_http3 *session = relay_http3_of(stream);
    stream->due |= (uint8_t)why;
    if (relay_http3_link_alone(&stream->pending))
        relay_http3_link_append(&session->pending, &stream->pending);
    relay_http3_wake(session);
}

/* Server: the stream is no tunnel, and its deadline begins. */
static void watch(struct relay_http3_stream *stream)
{
    struct relay_http3 *session = relay_http3_of(stream);
    stream->progress_at = relay_loop_now(session->base.loop);
    if (session->message_at == 0)
        session->message_at = stream->progress_at + session->base.limits->idle_timeout;
}

/* It is no tunnel, or none any more. */
static void end_use(struct relay_http3_stream *stream)
{
    struct relay_http3 *session = relay_http3_of(stream);
    session->num_open_tunnels -= stream->is_tunnel;
    stream->is_tunnel = false;
    session->num_over += !stream->is_over;
    stream->is_over = true;
    session->idle_since = relay_loop_now(session->base.loop);
    relay_http3_wake(session);
}

void relay_http3_stream_fail(struct relay_http3_stream *stream, uint64_t code, int error)
{
    struct relay_http3 *session = relay_http3_of(stream);
    if (!stream->is_failed && !stream->is_quic_closed) {
        stream->is_failed = true;
        stream->reset_code = code;
        end_use(stream);
        relay_http3_link_remove(&stream->heading);
        relay_http3_stream_due(stream, RELAY_HTTP3_DUE_RESET);
        if (!session->base.is_server && session->num_over > session->max_streams)
            relay_http3_close(session, NGHTTP3_H3_EXCESSIVE_LOAD, RELAY_ERR_EXCESSIVE_LOAD);
    }
    relay_tunnel_closed(&stream->tunnel, error);
}

void relay_http3_stream_ended(struct relay_http3_stream *stream, int error)
{
    stream->is_quic_closed = true;
    relay_http3_link_remove(&stream->yielded);
    relay_http3_link_remove(&stream->heading);
    if ((stream->due & RELAY_HTTP3_DUE_SHOW) && relay_http3_of(stream)->quic != NULL) {
        /* A short response came with its end: it is shown first. */
        stream->due = RELAY_HTTP3_DUE_SHOW;
        stream->end_error = error;
        return;
    }
    stream->due = 0;
    relay_http3_link_remove(&stream->pending);
    if (stream->is_released)
        stream_free(stream);
    else
        relay_tunnel_closed(&stream->tunnel, error);
}

static void op_release(struct relay_tunnel *tunnel)
{
    struct relay_http3_stream *stream = stream_of(tunnel);
    stream->is_released = true;
    relay_http3_link_remove(&stream->blocked);
    if (stream->is_quic_closed)
        stream_free(stream);
}

/* Which H3 error code says `error` (RFC 9114 section 8.1). */
static uint64_t code_of(const struct relay_http3_stream *stream, int error)
{
    bool is_capsules = stream->kind == RELAY_KIND_CAPSULES;
    switch (error) {
    case RELAY_ERR_INVALID:
    case RELAY_ERR_INCOMPLETE:
    case RELAY_ERR_PROTOCOL:
        return NGHTTP3_H3_MESSAGE_ERROR;
    case RELAY_ERR_TOO_BIG:
        return is_capsules ? RELAY_H3_DATAGRAM_ERROR : NGHTTP3_H3_MESSAGE_ERROR;
    case RELAY_ERR_LIMIT:
    case RELAY_ERR_SHUTDOWN:
        return NGHTTP3_H3_REQUEST_REJECTED;
    case RELAY_ERR_EXCESSIVE_LOAD:
        return NGHTTP3_H3_EXCESSIVE_LOAD;
    case RELAY_ERR_CANCELLED:
        return NGHTTP3_H3_REQUEST_CANCELLED;
    case RELAY_ERR_INTERNAL:
    case RELAY_ERR_NO_MEMORY:
        return NGHTTP3_H3_INTERNAL_ERROR;
    default: /* of the target, or of the client's application */
        break;
    }
    if (!stream->tunnel.session->is_server)
        return NGHTTP3_H3_REQUEST_CANCELLED;
    return stream->kind == RELAY_KIND_MESSAGE ? NGHTTP3_H3_INTERNAL_ERROR : NGHTTP3_H3_CONNECT_ERROR;
}

static void op_abort(struct relay_tunnel *tunnel, int error)
{
    struct relay_http3_stream *stream = stream_of(tunnel);
    relay_http3_stream_fail(stream, code_of(stream, error), error);
}

/* ---- sending ---- */

static nghttp3_ssize on_read(nghttp3_conn *h3, int64_t id, nghttp3_vec *pieces, size_t num_pieces,
                             uint32_t *flags, void *user, void *stream_user)
{
    struct relay_http3 *session = user;
    struct relay_http3_stream *stream = relay_http3_stream_find(session, id);
    session->is_reader_blocked = true;
    if (stream == NULL || stream->is_failed)
        return NGHTTP3_ERR_WOULDBLOCK;
    if (stream->buffer.num_unread > 0 && stream->had_turn) {
        if (relay_http3_link_alone(&stream->yielded))
            relay_http3_link_append(&session->yielded, &stream->yielded);
        return NGHTTP3_ERR_WOULDBLOCK;
    }
    size_t n = relay_http3_buffer_read(&stream->buffer, pieces, num_pieces, TURN);
    stream->had_turn = true;
    if (stream->buffer.num_unread == 0 && stream->fin_queued) {
        stream->fin_read = true;
        *flags |= NGHTTP3_DATA_FLAG_EOF;
        if (session->base.is_server && !stream->fin_received)
            relay_http3_stream_due(stream, RELAY_HTTP3_DUE_STOP);
    } else if (n == 0) {
        stream->is_waiting = true;
        stream->had_turn = false;
        return NGHTTP3_ERR_WOULDBLOCK;
    }
    session->is_reader_blocked = false;
    return (nghttp3_ssize)n;
}

static const nghttp3_data_reader reader = {on_read};

/* The round is over: who yielded may go on. False: nobody did. */
bool relay_http3_resume_yielded(struct relay_http3 *session)
{
    if (relay_http3_link_alone(&session->yielded))
        return false;
    while (!relay_http3_link_alone(&session->yielded)) {
        struct relay_http3_stream *stream =
            RELAY_HTTP3_OF(struct relay_http3_stream, yielded, session->yielded.next);
        relay_http3_link_remove(&stream->yielded);
        stream->had_turn = false;
        nghttp3_conn_resume_stream(session->h3, stream->id);
    }
    return true;
}

/* There is something to read again. */
static void resume(struct relay_http3_stream *stream)
{
    struct relay_http3 *session = relay_http3_of(stream);
    if (session->h3 == NULL || session->is_broken)
        return;
    if (stream->is_waiting) {
        stream->is_waiting = false;
        nghttp3_conn_resume_stream(session->h3, stream->id);
    }
    relay_quic_conn_mark_dirty(session->quic);
}

static size_t op_room(struct relay_tunnel *tunnel)
{
    struct relay_http3_stream *stream = stream_of(tunnel);
    size_t room = relay_http3_buffer_room(&stream->buffer);
    if (room == 0)
        relay_http3_buffer_full(&stream->buffer, relay_loop_now(tunnel->loop));
    return room;
}

static bool op_send(struct relay_tunnel *tunnel, const uint8_t *bytes, size_t len)
{
    struct relay_http3_stream *stream = stream_of(tunnel);
    if (len > 0 && relay_http3_buffer_append(&stream->buffer, bytes, len) != 0) {
        relay_http3_stream_fail(stream, NGHTTP3_H3_INTERNAL_ERROR, RELAY_ERR_NO_MEMORY);
        return true;
    }
    resume(stream);
    return op_room(tunnel) > 0;
}

static void op_send_fin(struct relay_tunnel *tunnel)
{
    struct relay_http3_stream *stream = stream_of(tunnel);
    stream->fin_queued = true;
    resume(stream);
}

static int op_respond(struct relay_tunnel *tunnel, const struct relay_response *response)
{
    struct relay_http3_stream *stream = stream_of(tunnel);
    struct relay_http3 *session = relay_http3_of(stream);
    if (session->h3 == NULL || session->is_broken || stream->is_failed)
        return RELAY_ERR_CLOSED;
    bool is_tunnel = stream->kind != RELAY_KIND_MESSAGE && response->status / 100 == 2;
    struct relay_http3_nvs nvs;
    int error = relay_http3_nvs_response(&nvs, response, is_tunnel);
    if (error != 0)
        return error;
    int rv = nghttp3_conn_submit_response(session->h3, stream->id, nvs.nv, nvs.num,
                                          response->ends ? NULL : &reader);
    relay_http3_nvs_dispose(&nvs);
    if (rv != 0)
        return rv == NGHTTP3_ERR_NOMEM ? RELAY_ERR_NO_MEMORY : RELAY_ERR_CLOSED;
    stream->is_submitted = true;
    if (is_tunnel) {
        relay_quic_conn_widen(session->quic);
    } else {
        end_use(stream);
        watch(stream);
        relay_http3_buffer_begin_small(&stream->buffer);
    }
    if (!is_tunnel && stream->kind != RELAY_KIND_MESSAGE) {
        stream->is_discarding = true; /* what was meant for a tunnel that there is not */
        tunnel->kind = RELAY_KIND_MESSAGE;
    }
    if (response->ends) {
        stream->fin_queued = stream->fin_read = true;
        if (!stream->fin_received)
            relay_http3_stream_due(stream, RELAY_HTTP3_DUE_STOP);
    }
    relay_quic_conn_mark_dirty(session->quic);
    return 0;
}

static void op_consume(struct relay_tunnel *tunnel, size_t len)
{
    struct relay_http3_stream *stream = stream_of(tunnel);
    struct relay_http3 *session = relay_http3_of(stream);
    if (session->quic == NULL || stream->is_quic_closed || stream->fin_received)
        return;
    size_t grant =
        relay_window_consume(&stream->window, session->base.limits, len, relay_loop_now(tunnel->loop),
                             relay_quic_conn_srtt(session->quic), !tunnel->is_unproven);
    if (grant > 0) {
        relay_quic_conn_credit_stream(session->quic, stream->id, grant);
        relay_quic_conn_mark_dirty(session->quic);
    }
}

/* Nothing to do: a paused tunnel's bytes are bounded by its window. */
static void op_set_reading(struct relay_tunnel *tunnel, bool reading)
{
}

static const struct relay_tunnel_ops tunnel_ops = {
    .respond = op_respond,
    .room = op_room,
    .send = op_send,
    .send_fin = op_send_fin,
    .send_datagrams = relay_http3_send_datagrams,
    .max_datagram = relay_http3_max_datagram,
    .consume = op_consume,
    .set_reading = op_set_reading,
    .abort = op_abort,
    .release = op_release,
};

/* ---- client: a request ---- */

struct relay_tunnel *relay_http3_stream_open(struct relay_session *base, const struct relay_request *request,
                                             const struct relay_tunnel_user *cb, void *user)
{
    struct relay_http3 *session = (struct relay_http3 *)base;
    struct relay_http3_nvs nvs;
    int64_t id;
    if (!session->is_ready_told || session->goaway_received || session->is_draining || session->is_closing ||
        session->is_close_due)
        return NULL;
    if (relay_http3_nvs_request(&nvs, request) != 0)
        return NULL;
    struct relay_http3_stream *stream = NULL;
    if (relay_quic_conn_open_bidi(session->quic, &id) != 0)
        goto Exit;
    stream = relay_http3_stream_new(session, id, request->kind);
    if (stream == NULL) {
        relay_quic_conn_reset_stream(session->quic, id, NGHTTP3_H3_REQUEST_CANCELLED);
        goto Exit;
    }
    if (nghttp3_conn_submit_request(session->h3, id, nvs.nv, nvs.num, request->ends ? NULL : &reader, NULL) !=
        0) {
        relay_http3_stream_fail(stream, NGHTTP3_H3_REQUEST_CANCELLED, RELAY_ERR_NO_MEMORY);
        stream = NULL; /* nobody is attached; it frees itself */
        goto Exit;
    }
    stream->is_submitted = true;
    stream->fin_queued = stream->fin_read = request->ends;
    stream->is_tunnel = request->kind != RELAY_KIND_MESSAGE;
    session->num_open_tunnels += stream->is_tunnel;
    relay_tunnel_attach(&stream->tunnel, cb, user);
    relay_quic_conn_mark_dirty(session->quic);
    relay_http3_wake(session);
Exit:
    relay_http3_nvs_dispose(&nvs);
    return stream != NULL ? &stream->tunnel : NULL;
}

/* ---- what is due ---- */

/* What came behind the head before it could be shown. */
static void deliver_stash(struct relay_http3_stream *stream)
{
    uint8_t *stash = stream->stash;
    size_t len = stream->stash_len;
    stream->stash = NULL;
    stream->stash_len = stream->stash_size = 0;
    if (len > 0 && !stream->is_discarding)
        relay_tunnel_deliver(&stream->tunnel, stash + RELAY_HEADROOM, len);
    free(stash);
    if (stream->fin_received && !stream->is_discarding)
        relay_tunnel_deliver_fin(&stream->tunnel);
    relay_http3_deliver_early(stream);
}

static void show_request(struct relay_http3_stream *stream)
{
    struct relay_http3 *session = relay_http3_of(stream);
    struct relay_request request;
    int error = relay_http3_head_request(&stream->head, &request);
    if (error != 0) {
        relay_count(session->base.loop->metrics->malformed, 1);
        relay_http3_count_own_reset(session);
        relay_http3_stream_fail(stream, NGHTTP3_H3_MESSAGE_ERROR, error);
        return;
    }
    relay_count(session->base.loop->metrics->requests_h3, 1);
    request.ends = stream->fin_received && stream->stash_len == 0;
    stream->kind = stream->tunnel.kind = request.kind;
    stream->is_shown = true;
    stream->is_tunnel = request.kind != RELAY_KIND_MESSAGE;
    session->num_open_tunnels += stream->is_tunnel;
    if (!stream->is_tunnel)
        watch(stream);
    session->base.cb->on_request(session->base.user, &stream->tunnel, &request);
    deliver_stash(stream);
}

static void show_response(struct relay_http3_stream *stream)
{
    struct relay_response response;
    int error = relay_http3_head_response(&stream->head, stream->kind, &response);
    if (error != 0) {
        relay_http3_stream_fail(stream, NGHTTP3_H3_MESSAGE_ERROR, RELAY_ERR_PROTOCOL);
        return;
    }
    response.ends = stream->fin_received && stream->stash_len == 0;
    if (response.status / 100 != 2)
        stream->tunnel.kind = RELAY_KIND_MESSAGE; /* a body follows, no capsules */
    stream->is_shown = true;
    relay_tunnel_deliver_response(&stream->tunnel, &response);
    deliver_stash(stream);
}

static void show(struct relay_http3_stream *stream)
{
    if (relay_tunnel_is_closed(&stream->tunnel) || stream->is_failed)
        return;
    if (stream->tunnel.session->is_server)
        show_request(stream);
    else
        show_response(stream);
    relay_http3_head_dispose(&stream->head);
}

/* 431 for a head over the limits (T14). The rest of it is not decoded. */
static void refuse(struct relay_http3_stream *stream)
{
    struct relay_http3 *session = relay_http3_of(stream);
    struct relay_refusal_field proxy_status;
    struct relay_response response = {
        .status = 431, .fields = &proxy_status.field, .content_length = 0, .ends = true};
    if (stream->is_failed)
        return;
    if (relay_http3_head_is_connect(&stream->head))
        response.num_fields = relay_refusal_write(&proxy_status, session->base.proxy_name, RELAY_ERR_TOO_BIG);
    relay_count(session->base.loop->metrics->malformed, 1);
    relay_http3_count_own_reset(session);
    relay_http3_link_remove(&stream->heading);
    stream->is_discarding = true;
    if (op_respond(&stream->tunnel, &response) != 0)
        relay_http3_stream_fail(stream, NGHTTP3_H3_EXCESSIVE_LOAD, RELAY_ERR_TOO_BIG);
    relay_http3_head_dispose(&stream->head);
}

/* What still comes is thrown away, undecoded. */
static void stop_reading(struct relay_http3_stream *stream)
{
    struct relay_http3 *session = relay_http3_of(stream);
    stream->is_discarding = true;
    if (nghttp3_conn_shutdown_stream_read(session->h3, stream->id) != 0)
        relay_http3_close(session, NGHTTP3_H3_INTERNAL_ERROR, RELAY_ERR_INTERNAL);
}

/* The reply is complete: the peer need not send the rest (RFC 9114 section 4.1). */
static void stop(struct relay_http3_stream *stream)
{
    struct relay_http3 *session = relay_http3_of(stream);
    if (stream->is_failed || stream->fin_received)
        return;
    if (stream->kind != RELAY_KIND_MESSAGE && stream->tunnel.kind == stream->kind && stream->is_shown)
        return; /* a tunnel that is half-closed */
    relay_quic_conn_stop_stream(session->quic, stream->id, NGHTTP3_H3_NO_ERROR);
    stop_reading(stream);
}

static void reset(struct relay_http3_stream *stream)
{
    struct relay_http3 *session = relay_http3_of(stream);
    relay_quic_conn_reset_stream(session->quic, stream->id, stream->reset_code);
    nghttp3_conn_shutdown_stream_write(session->h3, stream->id);
    relay_http3_buffer_give_up(&stream->buffer);
    relay_window_dispose(&stream->window); /* what still comes is not kept */
    stop_reading(stream);
    relay_quic_conn_mark_dirty(session->quic);
}

void relay_http3_stream_run(struct relay_http3_stream *stream)
{
    unsigned due = stream->due;
    stream->due = 0;
    if (due & RELAY_HTTP3_DUE_RESET)
        reset(stream);
    else if (due & RELAY_HTTP3_DUE_REFUSE)
        refuse(stream);
    else if (due & RELAY_HTTP3_DUE_SHOW)
        show(stream);
    if (stream->is_quic_closed)
        relay_http3_stream_ended(stream, stream->end_error);
    else if (due & RELAY_HTTP3_DUE_STOP)
        stop(stream);
}
