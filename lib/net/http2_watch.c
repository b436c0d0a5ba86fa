/* A client's watch over its relay: one that has gone silently, or does nothing any more, is told of by nobody else. TCP takes
 * a quarter of an hour, and for ever if the relay's kernel still answers. QUIC sees to that by itself. */
#include "lib/net/http2_private.h"

#define ASKED_FIRST  (1 * RELAY_SECOND)
#define SILENT_AFTER (2 * RELAY_SECOND) /* a PING that was lost twice has been sent again by then */

void relay_http2_watch_used(struct http2_session *session, bool is_out)
{
    uint64_t now = relay_loop_now(session->super.loop);
    bool is_sooner = now > session->used_at + ASKED_FIRST;
    session->used_at = now;
    if (is_out && session->told_at <= session->heard_at) {
        session->told_at = now;
        is_sooner = true;
    }
    if (is_sooner)
        relay_http2_session_arm(session);
}

void relay_http2_watch_heard(struct http2_session *session)
{
    session->heard_at = relay_loop_now(session->super.loop);
    session->pinged_at = 0;
}

/* How long nothing may come until it is asked for. Something soon when the relay has been told something; in a silence of
 * both, when this connection has to look after itself, first soon and then after as long again. */
static uint64_t patience(const struct http2_session *session, uint64_t most)
{
    uint64_t soon = ASKED_FIRST < most ? ASKED_FIRST : most;
    if (session->told_at > session->heard_at)
        return soon;
    if (!session->asks_soon)
        return most;
    uint64_t silence = session->heard_at - session->used_at;
    return silence < soon ? soon : silence < most ? silence : most;
}

uint64_t relay_http2_watch_due(const struct http2_session *session)
{
    uint64_t timeout = session->super.limits->idle_timeout;
    if (session->super.is_server || session->num_live == 0)
        return UINT64_MAX;
    if (session->pinged_at != 0)
        return session->pinged_at + timeout;
    uint64_t since = session->told_at > session->heard_at ? session->told_at : session->heard_at;
    return since + patience(session, timeout / 2);
}

bool relay_http2_watch(struct http2_session *session, uint64_t now)
{
    if (now < relay_http2_watch_due(session))
        return true;
    if (session->pinged_at != 0)
        return false;
    session->pinged_at = now;
    nghttp2_submit_ping(session->nghttp, NGHTTP2_FLAG_NONE, NULL);
    relay_http2_session_flush_later(session);
    return true;
}

bool relay_http2_is_silent(const struct relay_session *super)
{
    const struct http2_session *session = (const struct http2_session *)super;
    return session->pinged_at != 0 && relay_loop_now(super->loop) >= session->pinged_at + SILENT_AFTER;
}

void relay_http2_ask_soon(struct relay_session *super)
{
    relay_http2_session_of(super)->asks_soon = true;
}
