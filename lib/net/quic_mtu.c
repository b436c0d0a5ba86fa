#include "lib/net/quic_mtu.h"

#include <string.h>

#include "lib/net/loop.h"

#define LEAST            1200 /* RFC 9000 section 14: what every path carries */
#define START_IPV4       1250
#define START_IPV6       1232
#define LAST             1452 /* the last size probed */
#define LESS             2    /* bytes, when a size is tried again */
#define IDLE_MAX         256
#define TRIES            3                /* ngtcp2's number of packets for a size */
#define GIVE_UP_AFTER    3                /* PTO after the last of them; the others are repeated after one */
#define DECIDE_AFTER     2                /* PTO after a probe */
#define PAUSE_FIRST      (250 * RELAY_MS) /* before the third packet */
#define PAUSE_GROWS      2                /* times */
#define PAUSE_MAX        (600 * RELAY_SECOND) /* RFC 8899 section 5.1.1: PMTU_RAISE_TIMER */
#define CWND_MIN         (2 * LAST)           /* the congestion controller's minimum, or less */
#define NARROW_AFTER     3                    /* PTO at the minimum */
#define UNANSWERED_AFTER 3                    /* PTO */
#define UNANSWERED_LEAST (400 * RELAY_MS)     /* a peer that waits for its processor is no black hole */
#define RAISE_AFTER      (10 * RELAY_SECOND)  /* the first time, then twice as long */
#define RAISE_MAX        (600 * RELAY_SECOND)
#define LOOK_FIRST       (20 * RELAY_MS)
#define LOOK_LAST        (4 * RELAY_SECOND)

void relay_quic_mtu_init(struct relay_quic_mtu *mtu, bool is_ipv6, bool is_nested, size_t path_mtu)
{
    static const uint16_t sockets[RELAY_QUIC_MTU_SIZES] = {1285, 1318, 1350, 1400, LAST},
                          nested[RELAY_QUIC_MTU_SIZES] = {1250, 1285, 1318, 1365, 1417};
    const uint16_t *sizes = is_nested ? nested : sockets;
    memset(mtu, 0, sizeof(*mtu));
    mtu->start = is_nested ? LEAST : is_ipv6 ? START_IPV6 : START_IPV4;
    for (size_t less = 0; less <= RELAY_QUIC_MTU_AGAIN * LESS; less += LESS)
        for (size_t i = 0; i < RELAY_QUIC_MTU_SIZES; i++)
            if (sizes[i] - less > mtu->start && (is_nested || sizes[i] - less <= path_mtu))
                mtu->probes[mtu->num_probes++] = (uint16_t)(sizes[i] - less);
    relay_quic_mtu_restart(mtu);
}

void relay_quic_mtu_restart(struct relay_quic_mtu *mtu)
{
    mtu->cap = mtu->start;
    mtu->too_big = SIZE_MAX;
    mtu->next = 0;
    mtu->sent = mtu->idle = 0;
    mtu->repeat_at = mtu->decide_at = mtu->again_at = mtu->pause = 0;
    mtu->look_at = mtu->look_wait = 0;
    mtu->narrow_since = mtu->raise_at = mtu->wait = 0;
    mtu->former = mtu->largest = mtu->seen_flight = 0;
}

void relay_quic_mtu_begin_least(struct relay_quic_mtu *mtu)
{
    mtu->cap = mtu->start = LEAST;
}

static void fall(struct relay_quic_mtu *mtu, size_t size, uint64_t now)
{
    if (mtu->former == 0) {
        mtu->former = mtu->cap;
        mtu->wait = mtu->wait == 0 ? RAISE_AFTER : 2 * mtu->wait;
        if (mtu->wait > RAISE_MAX)
            mtu->wait = RAISE_MAX;
    }
    mtu->raise_at = now + mtu->wait;
    mtu->cap = size;
    mtu->answered_at = now;
    mtu->narrow_since = mtu->largest = 0;
}

static size_t lower_of(const struct relay_quic_mtu *mtu)
{
    return mtu->cap > mtu->start ? mtu->start : LEAST;
}

/* It has not been waited for before it was sent: what was in flight at the last look may have been given up since,
 * without an answer, and long ago. */
void relay_quic_mtu_sent_larger(struct relay_quic_mtu *mtu, size_t len, uint64_t now)
{
    if (mtu->largest <= lower_of(mtu) && len > lower_of(mtu) && mtu->answered_at < now)
        mtu->answered_at = now;
    mtu->largest = len;
}

bool relay_quic_mtu_watch(struct relay_quic_mtu *mtu, const struct relay_quic_mtu_signs *signs)
{
    size_t lower = lower_of(mtu);
    /* Below the start the window says nothing: after much loss it stays at its minimum while little is sent. */
    bool is_narrow = lower != LEAST && signs->cwnd <= CWND_MIN;
    bool is_answered = signs->rtt != mtu->seen_rtt || mtu->seen_flight == 0 || signs->flight == 0;
    mtu->seen_rtt = signs->rtt;
    mtu->seen_flight = signs->flight;
    if (is_answered)
        mtu->answered_at = signs->now;
    if (!is_narrow)
        mtu->narrow_since = 0;
    if (is_answered && !is_narrow)
        mtu->largest = 0;
    if (mtu->largest <= lower || mtu->cap <= lower)
        return false;
    if (is_narrow && mtu->narrow_since == 0) {
        mtu->narrow_since = signs->now;
        mtu->largest = 0;
        return false;
    }
    uint64_t patience = UNANSWERED_AFTER * signs->pto;
    if (patience < UNANSWERED_LEAST)
        patience = UNANSWERED_LEAST;
    if (lower == LEAST)
        patience *= 2; /* because most outages end */
    if (signs->now < mtu->answered_at + patience &&
        !(is_narrow && signs->now >= mtu->narrow_since + NARROW_AFTER * signs->pto))
        return false;
    fall(mtu, lower, signs->now);
    return true;
}

void relay_quic_mtu_raise(struct relay_quic_mtu *mtu, uint64_t now)
{
    if (mtu->former == 0 || now < mtu->raise_at)
        return;
    mtu->cap = mtu->former;
    mtu->former = 0;
}

/* ---- probes, of which ngtcp2 goes through its list by the same rules ---- */

/* The one that follows the one on its way when that arrives; num_probes: none. */
static size_t next_larger(const struct relay_quic_mtu *mtu)
{
    size_t i = mtu->next + 1;
    while (i < mtu->num_probes &&
           (mtu->probes[i] <= mtu->probes[mtu->next] || mtu->probes[i] >= mtu->too_big))
        i++;
    return i;
}

/* Whether one follows when it does not. */
static bool has_smaller(const struct relay_quic_mtu *mtu)
{
    for (size_t i = mtu->next + 1; i < mtu->num_probes; i++)
        if (mtu->probes[i] > mtu->cap && mtu->probes[i] < mtu->probes[mtu->next])
            return true;
    return false;
}

/* It would be repeated for the last time, and that is kept for later. */
static bool is_held(const struct relay_quic_mtu *mtu, uint64_t now)
{
    return mtu->sent == TRIES - 1 && now >= mtu->repeat_at && now < mtu->again_at;
}

size_t relay_quic_mtu_probe_size(const struct relay_quic_mtu *mtu, size_t path_mtu, uint64_t now)
{
    if (!relay_quic_mtu_is_probing(mtu) || mtu->probes[mtu->next] > path_mtu || is_held(mtu, now))
        return 0;
    /* With a probe on its way the larger one that may follow must have room as well: that it comes is the
     * answer. */
    size_t larger = mtu->sent > 0 ? next_larger(mtu) : mtu->num_probes;
    return larger < mtu->num_probes && mtu->probes[larger] <= path_mtu ? mtu->probes[larger]
                                                                       : mtu->probes[mtu->next];
}

static void judge_silence(struct relay_quic_mtu *mtu, uint64_t now)
{
    if (mtu->sent == 0) {
        if (++mtu->idle >= IDLE_MAX)
            mtu->next = mtu->num_probes;
        return;
    }
    if (now < mtu->decide_at)
        return;
    size_t larger = mtu->num_probes;
    if (mtu->sent < TRIES || has_smaller(mtu)) {
        larger = next_larger(mtu);
        mtu->cap = mtu->probes[mtu->next];
    }
    mtu->next = larger;
    mtu->sent = mtu->idle = 0;
}

/* Inside another connection that looks for its size at the same time, each try comes half a pause after that one's: beside
 * it, its packets would be lost as long as that one does not know yet that it may send more. */
static uint64_t first_pause(const struct relay_quic_mtu *mtu)
{
    return mtu->start == LEAST ? PAUSE_FIRST + PAUSE_FIRST / 2 : PAUSE_FIRST;
}

/* Its probe, or the repetition, has left. */
static void set_times(struct relay_quic_mtu *mtu, uint64_t now, uint64_t pto)
{
    bool is_last = ++mtu->sent == TRIES;
    mtu->repeat_at = now + pto;
    mtu->decide_at = now + pto * (is_last ? GIVE_UP_AFTER + DECIDE_AFTER : DECIDE_AFTER);
    if (mtu->sent != TRIES - 1)
        return;
    mtu->pause = mtu->pause == 0 ? first_pause(mtu) : PAUSE_GROWS * mtu->pause;
    if (mtu->pause > PAUSE_MAX)
        mtu->pause = PAUSE_MAX;
    mtu->again_at = now + mtu->pause;
}

void relay_quic_mtu_probed(struct relay_quic_mtu *mtu, size_t written, uint64_t now, uint64_t pto)
{
    size_t i = mtu->next;
    if (written == 0) {
        judge_silence(mtu, now);
        return;
    }
    while (i < mtu->num_probes && mtu->probes[i] != written)
        i++;
    if (i == mtu->num_probes)
        return;
    if (written > mtu->probes[mtu->next] && mtu->sent > 0)
        mtu->cap = mtu->probes[mtu->next];
    else if (written < mtu->probes[mtu->next])
        mtu->too_big = mtu->probes[mtu->next];
    if (i != mtu->next)
        mtu->sent = 0;
    mtu->next = i;
    set_times(mtu, now, pto);
}

uint64_t relay_quic_mtu_due(struct relay_quic_mtu *mtu, size_t path_mtu, uint64_t now)
{
    if (!relay_quic_mtu_is_probing(mtu))
        return UINT64_MAX;
    if (is_held(mtu, now))
        return mtu->again_at;
    if (mtu->sent > 0)
        return mtu->decide_at > now ? mtu->decide_at : UINT64_MAX;
    if (mtu->probes[mtu->next] <= path_mtu) {
        mtu->look_at = mtu->look_wait = 0;
        return UINT64_MAX;
    }
    if (mtu->look_at <= now) {
        mtu->look_wait = mtu->look_wait == 0 ? LOOK_FIRST : 2 * mtu->look_wait;
        mtu->look_at = now + mtu->look_wait;
    }
    return mtu->look_wait > LOOK_LAST ? UINT64_MAX : mtu->look_at;
}
