#include "lib/net/http2_private.h"

#include <stdlib.h>
#include <string.h>

#include "lib/wire/error.h"

#define HEADER_TABLE    4096 /* HPACK's dynamic table, each way (T14) */
#define STREAMS_ASSUMED 100  /* a client's own limit until the peer's SETTINGS are in */
#define RTT_ASSUMED     (100 * RELAY_MS)
#define SHUTDOWN_NOTICE                                                                                      \
    RELAY_SECOND             /* from the first GOAWAY to the final one: requests in flight still count */
#define CONNECTION_WINDOWS 4 /* the connection's window in largest stream windows */

/* ---- the session's operations ---- */

static bool may_open(const struct http2_session *session, const struct relay_request *request)
{
    uint32_t max = STREAMS_ASSUMED;
    if (session->is_settings_in)
        max = nghttp2_session_get_remote_settings(session->nghttp, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
    if (session->dead || session->failing || session->draining || session->is_goaway_in ||
        session->super.is_server || session->num_live >= max ||
        !nghttp2_session_check_request_allowed(session->nghttp))
        return false;
    return request->kind != RELAY_KIND_CAPSULES ||
           (session->is_settings_in && !session->super.has_no_capsules);
}

static struct relay_tunnel *on_open(struct relay_session *super, const struct relay_request *request,
                                    const struct relay_tunnel_user *cb, void *user)
{
    struct http2_session *session = relay_http2_session_of(super);
    struct http2_stream *stream =
        may_open(session, request) ? relay_http2_stream_new(session, request->kind) : NULL;
    if (stream == NULL)
        return NULL;
    size_t count;
    nghttp2_nv *nv = relay_http2_head_write_request(request, &count);
    nghttp2_data_provider provider = relay_http2_stream_provider();
    int32_t id = -1;
    if (nv != NULL)
        id = nghttp2_submit_request(session->nghttp, NULL, nv, count, request->ends ? NULL : &provider,
                                    stream);
    free(nv);
    if (id < 0) {
        relay_http2_stream_free(stream);
        return NULL;
    }
    stream->id = id;
    stream->is_in_nghttp = stream->is_shown = true;
    stream->is_fin_out = request->ends;
    relay_tunnel_attach(&stream->tunnel, cb, user);
    relay_http2_session_flush_later(session);
    relay_http2_session_arm(session); /* from now on it is watched */
    return &stream->tunnel;
}

static void on_shutdown(struct relay_session *super)
{
    struct http2_session *session = relay_http2_session_of(super);
    if (session->draining || session->failing || session->dead)
        return;
    session->draining = true;
    if (!session->super.is_server) {
        relay_http2_session_goaway(session);
        return;
    }
    nghttp2_submit_shutdown_notice(session->nghttp);
    session->final_at = relay_loop_now(session->super.loop) + SHUTDOWN_NOTICE;
    relay_http2_session_flush_later(session);
    relay_http2_session_arm(session);
}

static void on_session_close(struct relay_session *super, int error)
{
    relay_http2_session_fail(relay_http2_session_of(super), error);
}

static void submit_settings(struct http2_session *session, const nghttp2_settings_entry *entries,
                            size_t count)
{
    nghttp2_submit_settings(session->nghttp, NGHTTP2_FLAG_NONE, entries, count);
    session->settings_at = relay_loop_now(session->super.loop);
    relay_http2_session_flush_later(session);
}

static void on_set_max_streams(struct relay_session *super, uint32_t max_streams)
{
    struct http2_session *session = relay_http2_session_of(super);
    nghttp2_settings_entry entry = {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, max_streams};
    if (session->super.is_server && !session->dead && !session->failing) {
        session->max_streams = max_streams;
        submit_settings(session, &entry, 1);
        relay_http2_session_arm(session);
    }
}

static const struct relay_session_ops session_ops = {
    .open = on_open,
    .shutdown = on_shutdown,
    .close = on_session_close,
    .set_max_streams = on_set_max_streams,
};

/* ---- making it ---- */

static void greet(struct http2_session *session)
{
    const struct relay_limits *limits = session->super.limits;
    bool is_server = session->super.is_server;
    const nghttp2_settings_entry entries[] = {
        {NGHTTP2_SETTINGS_HEADER_TABLE_SIZE, HEADER_TABLE},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, (uint32_t)limits->window_initial},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, limits->head_bytes},
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, session->max_streams},
        {is_server ? NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL : NGHTTP2_SETTINGS_ENABLE_PUSH,
         is_server ? 1 : 0},
        {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
    };
    /* The last is for servers: their streams then take turns (accept_stream). */
    submit_settings(session, entries, sizeof(entries) / sizeof(entries[0]) - (is_server ? 0 : 1));
    uint64_t window = (uint64_t)limits->window_max * CONNECTION_WINDOWS;
    nghttp2_session_set_local_window_size(session->nghttp, NGHTTP2_FLAG_NONE, 0,
                                          (int32_t)(window < INT32_MAX ? window : INT32_MAX));
}

static struct http2_session *session_new(struct relay_stream *stream, const struct relay_limits *limits,
                                         struct relay_budget *budget, enum relay_level level, bool is_server)
{
    struct http2_session *session = calloc(1, sizeof(*session));
    if (session == NULL)
        return NULL;
    session->super = (struct relay_session){
        .ops = &session_ops,
        .loop = stream->loop,
        .limits = limits,
        .version = RELAY_HTTP_2,
        .is_server = is_server,
        .is_clear = !relay_stream_is_tls(stream),
        .peer = stream->peer,
    };
    session->transport = stream;
    relay_stream_share(stream);
    session->budget = budget;
    session->rtt = RTT_ASSUMED;
    session->active_at = session->heard_at = relay_loop_now(stream->loop);
    relay_http2_session_init_tasks(session, level);
    relay_http2_guard_init(&session->guard, is_server);
    session->partial_at = is_server ? session->active_at : 0;
    session->nghttp = relay_http2_frames_new(session);
    if (session->nghttp == NULL) {
        free(session);
        return NULL;
    }
    session->max_streams = is_server ? limits->max_streams : 0;
    greet(session);
    return session;
}

static struct relay_session *start(struct relay_stream *stream, struct http2_session *session,
                                   const struct relay_session_user *cb, void *user, const uint8_t *early,
                                   size_t early_len)
{
    if (session != NULL && early_len > 0) {
        if (relay_http2_session_keep(session, early, early_len) != 0) {
            relay_http2_session_free(session);
            session = NULL;
        } else {
            relay_task_queue(session->super.loop, &session->event);
        }
    }
    if (session == NULL) {
        relay_stream_close(stream);
        return NULL;
    }
    session->super.cb = cb;
    session->super.user = user;
    relay_stream_set_user(stream, &relay_http2_transport_user, session);
    relay_http2_session_arm(session);
    return &session->super;
}

struct relay_session *relay_http2_server(struct relay_stream *stream, const struct relay_limits *limits,
                                         struct relay_budget *budget, const struct relay_session_user *cb,
                                         void *user, const uint8_t *early, size_t early_len)
{
    struct http2_session *session = session_new(stream, limits, budget, RELAY_LEVEL_FLUSH_OUTER, true);
    return start(stream, session, cb, user, early, early_len);
}

struct relay_session *relay_http2_client(struct relay_stream *stream, const struct relay_limits *limits,
                                         struct relay_budget *budget, enum relay_level level,
                                         const struct relay_session_user *cb, void *user)
{
    struct http2_session *session = session_new(stream, limits, budget, level, false);
    socklen_t size = sizeof(session->super.local);
    int fd = relay_stream_descriptor(stream);
    if (session != NULL && fd >= 0)
        (void)getsockname(fd, (struct sockaddr *)&session->super.local, &size);
    return start(stream, session, cb, user, NULL, 0);
}
