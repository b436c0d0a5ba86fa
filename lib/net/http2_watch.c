/* A client's watch over its relay: one that has gone silently, or does nothing any more, is told of by nobody else. TCP takes
 * a quarter of an hour, and for ever if the relay's kernel still answers. QUIC sees to that by itself. */
#include "lib/net/http2_private.h"

#include <netinet/in.h>
#include <netinet/tcp.h>

#define ASKED_FIRST  (1 * RELAY_SECOND)
#define SILENT_AFTER (2 * RELAY_SECOND) /* a PING that was lost twice has been sent again by then */
#define KERNEL_CLOCK (20 * RELAY_MS)    /* what its times may be wrong by: they are in ticks */

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
    session->pinged_at = session->doubted_at = 0;
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

static uint64_t answer_due(const struct http2_session *session)
{
    uint64_t timeout = session->super.limits->idle_timeout;
    if (session->super.is_server || session->num_live == 0)
        return UINT64_MAX;
    if (session->pinged_at != 0)
        return session->pinged_at + timeout;
    uint64_t since = session->told_at > session->heard_at ? session->told_at : session->heard_at;
    return since + patience(session, timeout / 2);
}

uint64_t relay_http2_watch_due(const struct http2_session *session)
{
    uint64_t at = answer_due(session);
    if (session->doubted_at != 0 && session->doubted_at + session->doubt < at)
        at = session->doubted_at + session->doubt;
    return at;
}

/* Whether the peer's machine has said anything since it was asked: the answer may wait behind much else, and the question
 * itself before a window that the peer has closed. */
static bool is_acknowledged(const struct http2_session *session)
{
    struct tcp_info info;
    socklen_t size = sizeof(info);
    int fd = relay_stream_descriptor(session->transport);
    if (fd < 0 || getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0)
        return false;
    bool is_window_closed = info.tcpi_unacked == 0 && info.tcpi_probes < 2; /* each answer makes it 0 */
    return is_window_closed ||
           info.tcpi_last_ack_recv * RELAY_MS <= relay_loop_clock() - session->doubted_at + KERNEL_CLOCK;
}

static bool end_doubt(struct http2_session *session)
{
    bool is_there = is_acknowledged(session);
    session->doubted_at = 0;
    return is_there;
}

void relay_http2_doubt(struct relay_session *base, uint64_t timeout)
{
    struct http2_session *session = relay_http2_session_of(base);
    if (session->dead || session->failing || session->doubted_at != 0)
        return;
    session->doubted_at = relay_loop_now(base->loop);
    session->doubt = timeout;
    nghttp2_submit_ping(session->nghttp, NGHTTP2_FLAG_NONE, NULL);
    relay_http2_session_flush_later(session);
    relay_http2_session_arm(session);
}

bool relay_http2_watch(struct http2_session *session, uint64_t now)
{
    bool is_doubt_over = session->doubted_at != 0 && now >= session->doubted_at + session->doubt;
    if (is_doubt_over && !end_doubt(session))
        return false;
    if (now < answer_due(session))
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
