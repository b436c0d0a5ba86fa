#include "lib/net/http3_private.h"

#include "lib/wire/error.h"

/* Nothing is open but what the peer does not read or end. */
static bool is_idle(const struct relay_http3 *session)
{
    return session->base.is_server && session->num_streams == session->num_over;
}

void relay_http3_set_timer(struct relay_http3 *session)
{
    uint64_t at = UINT64_MAX;
    const struct relay_limits *limits = session->base.limits;
    if (relay_http3_is_dead(session) || !session->is_open)
        at = UINT64_MAX;
    else if (is_idle(session))
        at = session->idle_since + limits->idle_timeout;
    else if (!relay_http3_link_alone(&session->heading))
        at = RELAY_HTTP3_OF(struct relay_http3_stream, heading, session->heading.next)->tunnel.opened_at +
             limits->head_timeout;
    if (session->is_draining && !session->is_goaway_sent && session->drain_at < at &&
        !relay_http3_is_dead(session))
        at = session->drain_at;
    if (session->message_at != 0 && session->message_at < at && !relay_http3_is_dead(session))
        at = session->message_at;
    if (at == UINT64_MAX)
        relay_timer_stop(session->base.loop, &session->timer);
    else
        relay_timer_set(session->base.loop, &session->timer, at);
}

static void expire_heads(struct relay_http3 *session, uint64_t now)
{
    while (!relay_http3_link_alone(&session->heading)) {
        struct relay_http3_stream *stream =
            RELAY_HTTP3_OF(struct relay_http3_stream, heading, session->heading.next);
        if (stream->tunnel.opened_at + session->base.limits->head_timeout > now)
            break;
        relay_http3_count_own_reset(session);
        relay_http3_stream_fail(stream, NGHTTP3_H3_REQUEST_REJECTED, RELAY_ERR_TIMEOUT);
    }
}

/* A request whose end does not come, and an answer that is not read. A tunnel, a dial and a handler at work have timers
 * of their own. */
static bool is_expiring(const struct relay_http3_stream *stream)
{
    bool is_waiting = stream->kind == RELAY_KIND_MESSAGE && !stream->fin_received;
    return stream->is_shown && !stream->is_failed && (is_waiting || stream->is_over);
}

static void expire_messages(struct relay_http3 *session, uint64_t now)
{
    session->message_at = 0;
    for (size_t i = 0; i < session->num_buckets; i++)
        for (struct relay_http3_stream *stream = session->buckets[i]; stream != NULL;
             stream = stream->next_in_bucket) {
            uint64_t at = stream->progress_at + session->base.limits->idle_timeout;
            if (!is_expiring(stream))
                continue;
            if (at <= now)
                relay_http3_stream_fail(stream, NGHTTP3_H3_REQUEST_CANCELLED, RELAY_ERR_IDLE);
            else if (session->message_at == 0 || at < session->message_at)
                session->message_at = at;
        }
}

void relay_http3_on_timer(struct relay_timer *timer)
{
    struct relay_http3 *session = RELAY_HTTP3_OF(struct relay_http3, timer, timer);
    uint64_t now = relay_loop_now(session->base.loop);
    if (relay_http3_is_dead(session))
        return;
    expire_heads(session, now);
    if (session->is_draining && !session->is_goaway_sent && now >= session->drain_at) {
        session->is_goaway_sent = true;
        if (nghttp3_conn_shutdown(session->h3) != 0)
            relay_http3_close(session, NGHTTP3_H3_INTERNAL_ERROR, RELAY_ERR_NO_MEMORY);
        relay_quic_conn_mark_dirty(session->quic);
    }
    if (session->message_at != 0 && now >= session->message_at)
        expire_messages(session, now);
    if (is_idle(session) && now >= session->idle_since + session->base.limits->idle_timeout)
        relay_http3_close(session, NGHTTP3_H3_NO_ERROR, RELAY_ERR_IDLE);
    relay_http3_wake(session);
}
