#include "lib/net/http3_private.h"

#include <stdlib.h>
#include <string.h>

#include "lib/net/metrics.h"
#include "lib/wire/error.h"

/* ---- heads ---- */

static int on_begin_headers(nghttp3_conn *h3, int64_t id, void *user, void *stream_user)
{
    struct relay_http3_stream *stream = relay_http3_stream_find(user, id);
    if (stream != NULL)
        relay_http3_head_dispose(&stream->head);
    return 0;
}

static int on_header(nghttp3_conn *h3, int64_t id, int32_t token, nghttp3_rcbuf *name, nghttp3_rcbuf *value,
                     uint8_t flags, void *user, void *stream_user)
{
    struct relay_http3 *session = user;
    struct relay_http3_stream *stream = relay_http3_stream_find(session, id);
    if (stream == NULL || stream->is_failed || stream->is_discarding || stream->head.error != 0)
        return 0;
    nghttp3_vec n = nghttp3_rcbuf_get_buf(name), v = nghttp3_rcbuf_get_buf(value);
    relay_http3_head_add(&stream->head, session->base.limits, (const char *)n.base, n.len,
                         (const char *)v.base, v.len);
    if (stream->head.error == RELAY_ERR_TOO_BIG && session->base.is_server)
        relay_http3_stream_due(stream, RELAY_HTTP3_DUE_REFUSE);
    else if (stream->head.error != 0)
        relay_http3_stream_fail(stream, NGHTTP3_H3_EXCESSIVE_LOAD, stream->head.error);
    return 0;
}

/* A 1xx is not shown; the final response follows on the same stream. */
static bool is_interim(const struct relay_http3_head *head)
{
    const struct relay_http3_span *span = head->spans;
    return head->num_spans > 0 && span->value_len == 3 && span->name_len == 7 &&
           memcmp(head->bytes + span->name, ":status", 7) == 0 && head->bytes[span->value] == '1';
}

static int on_end_headers(nghttp3_conn *h3, int64_t id, int fin, void *user, void *stream_user)
{
    struct relay_http3 *session = user;
    struct relay_http3_stream *stream = relay_http3_stream_find(session, id);
    if (stream == NULL || stream->is_failed || stream->is_discarding || stream->head.error != 0)
        return 0;
    if (!session->base.is_server && is_interim(&stream->head)) {
        relay_http3_head_dispose(&stream->head);
        return 0;
    }
    stream->head.is_complete = true;
    relay_http3_link_remove(&stream->heading);
    relay_http3_stream_due(stream, RELAY_HTTP3_DUE_SHOW);
    return 0;
}

/* ---- bodies ---- */

/* Bounded by the stream's window, like what a paused tunnel holds. */
static int put_aside(struct relay_http3_stream *stream, const uint8_t *bytes, size_t len)
{
    if (stream->stash_len + len > stream->stash_size) {
        size_t size = stream->stash_size ? stream->stash_size : 2048;
        while (size < stream->stash_len + len)
            size *= 2;
        uint8_t *stash = realloc(stream->stash, RELAY_HEADROOM + size);
        if (stash == NULL)
            return RELAY_ERR_NO_MEMORY;
        stream->stash = stash;
        stream->stash_size = size;
    }
    memcpy(stream->stash + RELAY_HEADROOM + stream->stash_len, bytes, len);
    stream->stash_len += len;
    return 0;
}

static int on_data(nghttp3_conn *h3, int64_t id, const uint8_t *bytes, size_t len, void *user,
                   void *stream_user)
{
    struct relay_http3 *session = user;
    struct relay_http3_stream *stream = relay_http3_stream_find(session, id);
    relay_quic_conn_credit(session->quic, len);
    if (stream == NULL || stream->is_failed || stream->is_discarding)
        return 0;
    if (stream->is_shown)
        relay_tunnel_deliver(&stream->tunnel, (uint8_t *)bytes, len);
    else if (put_aside(stream, bytes, len) != 0)
        relay_http3_stream_fail(stream, NGHTTP3_H3_INTERNAL_ERROR, RELAY_ERR_NO_MEMORY);
    return 0;
}

static int on_end_stream(nghttp3_conn *h3, int64_t id, void *user, void *stream_user)
{
    struct relay_http3_stream *stream = relay_http3_stream_find(user, id);
    if (stream == NULL || stream->is_failed)
        return 0;
    stream->fin_received = true;
    if (stream->is_shown && !stream->is_discarding)
        relay_tunnel_deliver_fin(&stream->tunnel);
    return 0;
}

/* Bytes of a stream that waited for the compression table. */
static int on_deferred_consume(nghttp3_conn *h3, int64_t id, size_t len, void *user, void *stream_user)
{
    struct relay_http3 *session = user;
    if (session->quic == NULL)
        return 0;
    relay_quic_conn_credit_stream(session->quic, id, len);
    relay_quic_conn_credit(session->quic, len);
    return 0;
}

static int on_acked(nghttp3_conn *h3, int64_t id, uint64_t len, void *user, void *stream_user)
{
    struct relay_http3 *session = user;
    struct relay_http3_stream *stream = relay_http3_stream_find(session, id);
    if (stream == NULL)
        return 0;
    relay_http3_buffer_acked(&stream->buffer, session->base.limits, len, relay_loop_now(session->base.loop),
                             relay_quic_conn_srtt(session->quic));
    /* Not for every packet: a user that wakes for a few bytes makes tiny writes. */
    if (relay_http3_buffer_room(&stream->buffer) >= stream->buffer.limit / 4)
        relay_tunnel_writable(&stream->tunnel);
    return 0;
}

/* ---- nghttp3 wants a stream gone: a malformed head, or a request after the last GOAWAY ---- */

static int on_reset_wanted(nghttp3_conn *h3, int64_t id, uint64_t code, void *user, void *stream_user)
{
    struct relay_http3 *session = user;
    struct relay_http3_stream *stream = relay_http3_stream_find(session, id);
    if (code == NGHTTP3_H3_MESSAGE_ERROR && session->base.is_server) {
        relay_count(session->base.loop->metrics->malformed, 1);
        relay_http3_count_own_reset(session);
    }
    if (stream != NULL)
        relay_http3_stream_fail(stream, code, RELAY_ERR_PROTOCOL);
    return 0;
}

/* ---- the connection ---- */

static int on_settings(nghttp3_conn *h3, const nghttp3_settings *settings, void *user)
{
    struct relay_http3 *session = user;
    session->has_settings = true;
    session->peer_datagrams = settings->h3_datagram != 0;
    relay_http3_wake_blocked(session);
    relay_http3_wake(session);
    return 0;
}

/* Requests from `id` on were not processed (RFC 9114 section 5.2). */
static int on_goaway(nghttp3_conn *h3, int64_t id, void *user)
{
    struct relay_http3 *session = user;
    if (session->base.is_server)
        return 0;
    session->goaway_received = true;
    for (size_t i = 0; i < session->num_buckets; i++)
        for (struct relay_http3_stream *stream = session->buckets[i]; stream != NULL;
             stream = stream->next_in_bucket)
            if (stream->id >= id)
                relay_http3_stream_fail(stream, NGHTTP3_H3_REQUEST_CANCELLED, RELAY_ERR_SHUTDOWN);
    relay_http3_wake(session);
    return 0;
}

int relay_http3_read_init(struct relay_http3 *session)
{
    static const nghttp3_callbacks callbacks = {
        .acked_stream_data = on_acked,
        .recv_data = on_data,
        .deferred_consume = on_deferred_consume,
        .begin_headers = on_begin_headers,
        .recv_header = on_header,
        .end_headers = on_end_headers,
        .end_stream = on_end_stream,
        .reset_stream = on_reset_wanted,
        .shutdown = on_goaway,
        .recv_settings = on_settings,
    };
    nghttp3_settings settings;
    nghttp3_settings_default(&settings);
    settings.max_field_section_size = session->base.limits->head_bytes;
    settings.qpack_max_dtable_capacity = 4096;
    settings.qpack_blocked_streams = 16;
    settings.enable_connect_protocol = 1;
    settings.h3_datagram = 1;
    int rv = session->base.is_server
                 ? nghttp3_conn_server_new(&session->h3, &callbacks, &settings, NULL, session)
                 : nghttp3_conn_client_new(&session->h3, &callbacks, &settings, NULL, session);
    if (rv != 0)
        session->h3 = NULL;
    return rv == 0 ? 0 : RELAY_ERR_NO_MEMORY;
}
