#include "lib/net/http3_private.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/net/limit_log.h"
#include "lib/net/metrics.h"
#include "lib/wire/error.h"

/* And two round trips: between the notice of a shutdown and the last GOAWAY. A client may wait for its processor. */
#define SHUTDOWN_NOTICE (100 * RELAY_MS)

static bool is_request(int64_t id)
{
    return (id & 3) == 0;
}

void relay_http3_wake(struct relay_http3 *session)
{
    relay_task_queue(session->base.loop, &session->task);
}

void relay_http3_close(struct relay_http3 *session, uint64_t code, int error)
{
    if (session->is_close_due || session->is_closing)
        return;
    session->is_close_due = true;
    session->close_code = code;
    session->close_error = error;
    relay_http3_wake(session);
}

/* nghttp3 has failed for good: what to close the connection with. */
static uint64_t broken(struct relay_http3 *session, int rv)
{
    session->is_broken = true;
    if (rv == NGHTTP3_ERR_QPACK_HEADER_TOO_LARGE)
        return NGHTTP3_H3_EXCESSIVE_LOAD;
    return nghttp3_err_infer_quic_app_error_code(rv);
}

/* ---- limits ---- */

static void count(struct relay_http3 *session, struct relay_bucket *bucket, uint32_t size, uint32_t rate,
                  enum relay_limit limit)
{
    if (session->is_close_due || relay_bucket_take(bucket, 1, size, rate, relay_loop_now(session->base.loop)))
        return;
    if (session->base.is_server)
        relay_limit_log(session->base.loop, limit);
    relay_http3_close(session, NGHTTP3_H3_EXCESSIVE_LOAD, RELAY_ERR_EXCESSIVE_LOAD);
}

void relay_http3_count_reset(struct relay_http3 *session)
{
    const struct relay_limits *limits = session->base.limits;
    count(session, &session->resets, limits->reset_burst, limits->reset_rate, RELAY_LIMIT_RESETS);
}

void relay_http3_count_own_reset(struct relay_http3 *session)
{
    const struct relay_limits *limits = session->base.limits;
    count(session, &session->own_resets, limits->own_reset_burst, limits->own_reset_rate,
          RELAY_LIMIT_OWN_RESETS);
}

/* nghttp3 refuses PRIORITY_UPDATE for streams beyond the limit as it knows it (here never less than QUIC's
 * own), and fails the connection when more heads than it was told to expect are to be acknowledged at once; a
 * client's are the answers to its requests. */
static void tell_max_streams(struct relay_http3 *session)
{
    nghttp3_conn_set_max_concurrent_streams(session->h3, session->max_streams);
    if (session->base.is_server)
        nghttp3_conn_set_max_client_streams_bidi(session->h3, session->max_streams + session->num_closed);
}

/* ---- the task ---- */

static void session_free(struct relay_http3 *session)
{
    relay_task_cancel(&session->task);
    relay_timer_stop(session->base.loop, &session->timer);
    relay_http3_drop_early(session);
    nghttp3_conn_del(session->h3);
    free(session->buckets);
    free(session);
}

static void tell_ready(struct relay_http3 *session)
{
    if (session->is_ready_told || !session->is_open || !session->has_settings || session->base.is_server)
        return;
    session->is_ready_told = true;
    if (session->base.cb->on_ready != NULL)
        session->base.cb->on_ready(session->base.user);
}

static void tell_goaway(struct relay_http3 *session)
{
    if (session->is_goaway_told || !session->goaway_received)
        return;
    session->is_goaway_told = true;
    if (session->base.cb->on_goaway != NULL)
        session->base.cb->on_goaway(session->base.user);
}

static void run_streams(struct relay_http3 *session)
{
    while (!relay_http3_link_alone(&session->pending) && !session->is_close_due) {
        struct relay_http3_stream *stream =
            RELAY_HTTP3_OF(struct relay_http3_stream, pending, session->pending.next);
        relay_http3_link_remove(&stream->pending);
        relay_http3_stream_run(stream);
    }
}

static void finish(struct relay_http3 *session)
{
    if (session->quic != NULL || session->num_streams > 0)
        return;
    const struct relay_session_user *cb = session->base.cb;
    if (cb != NULL && cb->on_close != NULL)
        cb->on_close(session->base.user, session->final_error);
    session_free(session);
}

static void run_task(struct relay_task *task)
{
    struct relay_http3 *session = RELAY_HTTP3_OF(struct relay_http3, task, task);
    if (!relay_http3_is_dead(session)) {
        tell_ready(session);
        run_streams(session);
        tell_goaway(session);
        if (session->is_draining && session->is_goaway_sent && session->num_streams == 0)
            relay_http3_close(session, NGHTTP3_H3_NO_ERROR, RELAY_ERR_SHUTDOWN);
        if (session->is_kept_alive != (session->num_open_tunnels > 0)) {
            session->is_kept_alive = !session->is_kept_alive;
            relay_quic_conn_keep_alive(session->quic, session->is_kept_alive); /* T82 */
        }
    }
    if (session->is_close_due && session->quic != NULL && !session->is_closing) {
        session->is_closing = true;
        relay_quic_conn_close(session->quic, session->close_code, session->close_error);
    }
    relay_http3_set_timer(session);
    finish(session);
}

/* ---- QUIC's callbacks ---- */

static int on_ready(void *user)
{
    struct relay_http3 *session = user;
    int64_t control = relay_quic_conn_preface(session->quic), encoder, decoder;
    bool has_preface = control >= 0;
    if (session->is_open || relay_http3_is_dead(session))
        return 0;
    if ((!has_preface && relay_quic_conn_open_uni(session->quic, &control) != 0) ||
        relay_quic_conn_open_uni(session->quic, &encoder) != 0 ||
        relay_quic_conn_open_uni(session->quic, &decoder) != 0)
        return RELAY_ERR_PROTOCOL; /* RFC 9114 section 6.2: a peer must allow three */
    if (nghttp3_conn_bind_control_stream(session->h3, control) != 0 ||
        nghttp3_conn_bind_qpack_streams(session->h3, encoder, decoder) != 0)
        return RELAY_ERR_NO_MEMORY;
    if (has_preface && relay_http3_take_settings(session->h3, control, NULL) != 0)
        return RELAY_ERR_NO_MEMORY;
    const struct sockaddr *peer = relay_quic_conn_peer(session->quic),
                          *local = relay_quic_conn_local(session->quic);
    memcpy(&session->base.peer, peer,
           peer->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in));
    memcpy(&session->base.local, local,
           local->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in));
    session->is_open = true;
    session->idle_since = relay_loop_now(session->base.loop);
    relay_quic_conn_mark_dirty(session->quic);
    relay_http3_wake(session);
    return 0;
}

/* A request stream's first bytes: it exists from now on, and its head may take so long. */
static int begin_request(struct relay_http3 *session, int64_t id)
{
    struct relay_http3_stream *stream = relay_http3_stream_new(session, id, RELAY_KIND_MESSAGE);
    if (stream == NULL)
        return RELAY_ERR_NO_MEMORY;
    relay_http3_link_append(&session->heading, &stream->heading);
    if (id > session->max_seen)
        session->max_seen = id;
    relay_http3_wake(session);
    return 0;
}

static bool is_client_uni(int64_t id)
{
    return (id & 3) == 2;
}

/* What came on a client's unidirectional stream. Like nghttp3_conn_read_stream, but what is held is taken too. */
static nghttp3_ssize read_uni(struct relay_http3 *session, int64_t id, const uint8_t *bytes, size_t len,
                              bool fin)
{
    struct relay_http3_uni *uni = relay_http3_uni_find(session, id);
    if (uni == NULL)
        return NGHTTP3_ERR_H3_STREAM_CREATION_ERROR;
    size_t more = relay_http3_uni_complete(uni, bytes, len), held = relay_http3_uni_take_held(uni);
    nghttp3_ssize used = held > 0 ? nghttp3_conn_read_stream(session->h3, id, uni->held, held, false) : 0;
    if (used < 0)
        return used;
    size_t passed = relay_http3_uni_pass(uni, bytes + more, len - more);
    used = nghttp3_conn_read_stream(session->h3, id, bytes + more, passed, fin);
    return used < 0 ? used : (nghttp3_ssize)len;
}

static uint64_t on_stream_data(void *user, int64_t id, const uint8_t *bytes, size_t len, bool fin)
{
    struct relay_http3 *session = user;
    if (relay_http3_is_dead(session))
        return 0;
    bool is_new = session->base.is_server && is_request(id) && relay_http3_stream_find(session, id) == NULL;
    if (is_new && begin_request(session, id) != 0)
        return NGHTTP3_H3_INTERNAL_ERROR;
    nghttp3_ssize used = session->base.is_server && is_client_uni(id)
                             ? read_uni(session, id, bytes, len, fin)
                             : nghttp3_conn_read_stream(session->h3, id, bytes, len, fin);
    if (used < 0) {
        relay_count(session->base.loop->metrics->malformed, session->base.is_server ? 1 : 0);
        return broken(session, (int)used);
    }
    if (used > 0) {
        struct relay_http3_stream *stream = relay_http3_stream_find(session, id);
        if (stream == NULL || !stream->is_discarding) /* what nobody wants has no more room than its window */
            relay_quic_conn_credit_stream(session->quic, id, (uint64_t)used);
        relay_quic_conn_credit(session->quic, (uint64_t)used);
    }
    /* Answers on the QPACK streams may have to go. */
    relay_quic_conn_mark_dirty(session->quic);
    return 0;
}

static void on_stream_acked(void *user, int64_t id, uint64_t len)
{
    struct relay_http3 *session = user;
    struct relay_http3_stream *stream = is_request(id) ? relay_http3_stream_find(session, id) : NULL;
    session->idle_since = relay_loop_now(session->base.loop);
    if (stream != NULL && (stream->taken += len) >= RELAY_PROGRESS_MIN) {
        stream->taken = 0;
        stream->progress_at = session->idle_since;
    }
    if (!relay_http3_is_dead(session) && nghttp3_conn_add_ack_offset(session->h3, id, len) != 0)
        relay_http3_close(session, broken(session, NGHTTP3_ERR_NOMEM), RELAY_ERR_NO_MEMORY);
}

/* Not wanted any more. Rapid is what did not wait for its answer (T10): others cost what other limits count. */
static void cancelled(struct relay_http3 *session, struct relay_http3_stream *stream)
{
    if (session->base.is_server && !stream->is_failed && !stream->is_head_sent)
        relay_http3_count_reset(session);
    relay_http3_stream_fail(stream, NGHTTP3_H3_REQUEST_CANCELLED, RELAY_ERR_RESET);
}

static void on_stream_reset(void *user, int64_t id, uint64_t code)
{
    struct relay_http3 *session = user;
    if (relay_http3_is_dead(session) || !is_request(id))
        return;
    struct relay_http3_stream *stream = relay_http3_stream_find(session, id);
    /* Reset before anything of it arrived: our direction must be ended too, or QUIC keeps the stream, and the
     * peer is short of one for good. */
    if (stream == NULL && session->base.is_server && begin_request(session, id) == 0)
        stream = relay_http3_stream_find(session, id);
    if (stream != NULL && !stream->is_discarding)
        cancelled(session, stream);
}

static void on_stream_closed(void *user, int64_t id, uint64_t code)
{
    struct relay_http3 *session = user;
    if (relay_http3_is_dead(session))
        return;
    struct relay_http3_stream *stream = relay_http3_stream_find(session, id);
    int rv = nghttp3_conn_close_stream(session->h3, id, code);
    if (rv != 0 && rv != NGHTTP3_ERR_STREAM_NOT_FOUND)
        relay_http3_close(session, broken(session, rv), RELAY_ERR_PROTOCOL);
    if (!is_request(id)) {
        relay_http3_uni_forget(session, id);
        return;
    }
    session->num_closed++;
    if (!session->is_broken)
        tell_max_streams(session);
    if (stream == NULL)
        return;
    bool is_clean = (stream->fin_received || stream->is_discarding) && stream->fin_queued;
    bool is_answered =
        !session->base.is_server && stream->fin_received; /* the rest of our request was not wanted */
    relay_http3_stream_ended(stream, is_clean || is_answered ? RELAY_OK : RELAY_ERR_RESET);
    relay_http3_wake(session);
}

static void on_stream_credit(void *user, int64_t id)
{
    struct relay_http3 *session = user;
    if (relay_http3_is_dead(session))
        return;
    struct relay_http3_stream *stream = relay_http3_stream_find(session, id);
    if (stream != NULL)
        stream->buffer.is_stalled = false;
    if (nghttp3_conn_unblock_stream(session->h3, id) != 0)
        relay_http3_close(session, NGHTTP3_H3_INTERNAL_ERROR, RELAY_ERR_NO_MEMORY);
    relay_quic_conn_mark_dirty(session->quic);
}

/* open() asks QUIC each time; nobody waits for it. */
static void on_streams_allowed(void *user)
{
}

static int pull(void *user, int64_t *id, bool *fin, struct iovec *pieces, int size)
{
    struct relay_http3 *session = user;
    *id = -1;
    *fin = false;
    while (!relay_http3_is_dead(session) && !session->is_close_due) {
        int end = 0;
        session->is_reader_blocked = false;
        nghttp3_ssize n =
            nghttp3_conn_writev_stream(session->h3, id, &end, (nghttp3_vec *)pieces, (size_t)size);
        if (n < 0) {
            relay_http3_close(session, broken(session, (int)n), RELAY_ERR_INTERNAL);
            break;
        }
        *fin = end != 0;
        if (n > 0 || *id >= 0)
            return (int)n;
        /* A reader without bytes ends nghttp3's search, though other streams may have some. */
        if (!session->is_reader_blocked && !relay_http3_resume_yielded(session))
            break;
    }
    *id = -1;
    return -1;
}

static void on_pulled(void *user, int64_t id, size_t len)
{
    struct relay_http3 *session = user;
    struct relay_http3_stream *stream = is_request(id) ? relay_http3_stream_find(session, id) : NULL;
    if (stream != NULL)
        stream->is_head_sent = true; /* what goes first */
    if (!relay_http3_is_dead(session) && nghttp3_conn_add_write_offset(session->h3, id, len) != 0)
        relay_http3_close(session, broken(session, NGHTTP3_ERR_NOMEM), RELAY_ERR_NO_MEMORY);
}

/* STOP_SENDING came. A server stops the rest of a request that it has answered (RFC 9114 section 4.1): then
 * the response says how it ends. */
static void stopped(struct relay_http3 *session, struct relay_http3_stream *stream)
{
    bool has_tunnel = stream->is_shown && stream->tunnel.kind != RELAY_KIND_MESSAGE;
    if (stream->fin_read || (!session->base.is_server && !has_tunnel))
        return;
    cancelled(session, stream);
}

static void on_stream_blocked(void *user, int64_t id, bool shut)
{
    struct relay_http3 *session = user;
    if (relay_http3_is_dead(session))
        return;
    struct relay_http3_stream *stream = relay_http3_stream_find(session, id);
    if (stream != NULL)
        stream->buffer.is_stalled = true;
    if (shut)
        nghttp3_conn_shutdown_stream_write(session->h3, id);
    else
        nghttp3_conn_block_stream(session->h3, id);
    if (shut && stream != NULL)
        stopped(session, stream);
}

static void on_writable(void *user)
{
    relay_http3_wake_blocked(user);
}

static void on_quic_close(void *user, int error, uint64_t code)
{
    struct relay_http3 *session = user;
    session->base.peer_code = code != NGHTTP3_H3_NO_ERROR ? code : 0;
    session->final_error = session->is_close_due ? session->close_error : error;
    session->quic = NULL;
    session->is_closing = true;
    nghttp3_conn_del(session->h3);
    session->h3 = NULL;
    int told = session->final_error != RELAY_OK ? session->final_error : RELAY_ERR_CLOSED;
    for (size_t i = 0; i < session->num_buckets; i++) {
        struct relay_http3_stream *stream = session->buckets[i], *next;
        for (; stream != NULL; stream = next) {
            next = stream->next_in_bucket;
            relay_http3_stream_ended(stream, told);
        }
    }
    relay_http3_wake(session);
}

static const struct relay_quic_user quic_user = {
    .on_ready = on_ready,
    .on_stream_data = on_stream_data,
    .on_stream_acked = on_stream_acked,
    .on_stream_reset = on_stream_reset,
    .on_stream_closed = on_stream_closed,
    .on_stream_credit = on_stream_credit,
    .on_streams_allowed = on_streams_allowed,
    .on_datagram = relay_http3_on_datagram,
    .pull = pull,
    .on_pulled = on_pulled,
    .on_stream_blocked = on_stream_blocked,
    .on_writable = on_writable,
    .on_close = on_quic_close,
};

/* ---- the session's operations ---- */

static void op_shutdown(struct relay_session *base)
{
    struct relay_http3 *session = (struct relay_http3 *)base;
    if (relay_http3_is_dead(session) || session->is_draining)
        return;
    session->is_draining = true;
    if (!session->is_open) {
        relay_http3_close(session, NGHTTP3_H3_NO_ERROR, RELAY_ERR_SHUTDOWN);
        return;
    }
    /* First a notice; the last GOAWAY follows when requests that were on their way have come (RFC 9114
     * section 5.2). */
    if (nghttp3_conn_submit_shutdown_notice(session->h3) != 0)
        relay_http3_close(session, NGHTTP3_H3_INTERNAL_ERROR, RELAY_ERR_NO_MEMORY);
    session->drain_at =
        relay_loop_now(base->loop) + 2 * relay_quic_conn_srtt(session->quic) + SHUTDOWN_NOTICE;
    relay_quic_conn_mark_dirty(session->quic);
    relay_http3_wake(session);
}

static void op_close(struct relay_session *base, int error)
{
    uint64_t code = NGHTTP3_H3_NO_ERROR;
    if (error == RELAY_ERR_EXCESSIVE_LOAD)
        code = NGHTTP3_H3_EXCESSIVE_LOAD;
    else if (error == RELAY_ERR_INTERNAL || error == RELAY_ERR_NO_MEMORY)
        code = NGHTTP3_H3_INTERNAL_ERROR;
    else if (error == RELAY_ERR_PROTOCOL)
        code = NGHTTP3_H3_GENERAL_PROTOCOL_ERROR;
    relay_http3_close((struct relay_http3 *)base, code, error);
}

static void op_set_max_streams(struct relay_session *base, uint32_t max_streams)
{
    struct relay_http3 *session = (struct relay_http3 *)base;
    if (relay_http3_is_dead(session) || !base->is_server || max_streams <= session->max_streams)
        return;
    session->max_streams = max_streams;
    relay_quic_conn_allow_streams(session->quic, max_streams);
    tell_max_streams(session);
    relay_quic_conn_mark_dirty(session->quic);
}

static const struct relay_session_ops session_ops = {
    .open = relay_http3_stream_open,
    .shutdown = op_shutdown,
    .close = op_close,
    .set_max_streams = op_set_max_streams,
};

static struct relay_http3 *session_new(struct relay_loop *loop, const struct relay_limits *limits,
                                       struct relay_budget *budget, bool is_server,
                                       const struct relay_session_user *cb, void *user)
{
    struct relay_http3 *session = calloc(1, sizeof(*session));
    if (session == NULL)
        return NULL;
    session->base.ops = &session_ops;
    session->base.cb = cb;
    session->base.user = user;
    session->base.loop = loop;
    session->base.limits = limits;
    session->base.version = RELAY_HTTP_3;
    session->base.is_server = is_server;
    session->budget = budget;
    session->max_seen = -1;
    session->max_streams = is_server ? limits->max_streams : limits->max_streams_authenticated;
    relay_http3_link_init(&session->pending);
    relay_http3_link_init(&session->yielded);
    relay_http3_link_init(&session->heading);
    relay_http3_link_init(&session->starved);
    relay_http3_link_init(&session->served);
    relay_task_init(&session->task, RELAY_LEVEL_EVENT, run_task);
    relay_timer_init(&session->timer, relay_http3_on_timer);
    if (relay_http3_read_init(session) != 0) {
        session_free(session);
        return NULL;
    }
    tell_max_streams(session);
    return session;
}

struct relay_session *relay_http3_server(struct relay_quic_conn *conn, const struct relay_limits *limits,
                                         struct relay_budget *budget, const struct relay_session_user *cb,
                                         void *user)
{
    struct relay_http3 *session = session_new(relay_quic_conn_loop(conn), limits, budget, true, cb, user);
    if (session == NULL)
        return NULL;
    session->quic = conn;
    relay_quic_conn_set_user(conn, &quic_user, session);
    if (relay_quic_conn_is_ready(conn) && on_ready(session) != 0)
        relay_http3_close(session, NGHTTP3_H3_GENERAL_PROTOCOL_ERROR, RELAY_ERR_PROTOCOL);
    return &session->base;
}

struct relay_session *relay_http3_connect(struct relay_loop *loop, struct relay_packet_path *path,
                                          const struct relay_quic_client_config *config,
                                          const struct relay_session_user *cb, void *user)
{
    struct relay_http3 *session = session_new(loop, config->limits, config->budget, false, cb, user);
    if (session == NULL) {
        path->ops->close(path);
        return NULL;
    }
    session->quic = relay_quic_connect(loop, path, config, &quic_user, session);
    if (session->quic == NULL) {
        session_free(session);
        return NULL;
    }
    return &session->base;
}

struct relay_quic_conn *relay_http3_conn(struct relay_session *session)
{
    return ((struct relay_http3 *)session)->quic;
}
