/* The size of a connection's packets on the path as it is now: an own cap, passed to ngtcp2 as the size of
 * the buffer it writes into, because its own shaping begins at 1200 and it cannot look for a size again (the
 * library's shaping is off).
 *
 * The cap starts at 1250 (IPv6: 1232), which a path MTU of 1280 carries, and rises with ngtcp2's probes (RFC
 * 8899). A connection inside another one starts at 1200, because what is left of such a path is exactly that,
 * and so does the server of one: its client announces a small max_udp_payload_size (RFC 9000 section 18.2),
 * as one does whose way back is narrow.
 *
 * The sizes: what paths of 1500, of 1400 and a little less carry, and what is left of those inside (32 bytes
 * less), the smallest first. Each is tried three times: twice at once, and once more after a pause, which doubles with
 * each size that was tried so long, to 600 s (RFC 8899 section 5.1.1, PMTU_RAISE_TIMER). A size that did not arrive
 * then is over for ngtcp2, and so is every larger one; but one a little smaller is not, which is tried the same way,
 * and so on. So what a path comes to carry later is found, less some bytes, and after about as long again as it took
 * to come: above all in a connection whose path is inside another one that looks for its size at the same time.
 * That one begins its pauses half as long again, so that the two do not try at the same moment: what it sends before the
 * outer one knows of its success is lost. All are given up after about an hour.
 *
 * A probe longer than the buffer stays pending in ngtcp2, so it leaves exactly when relay_quic_mtu_probe_size
 * gives it room; that a larger size is probed next says that the one before has arrived, a smaller one that it
 * has not. Where no larger one may come, a size has arrived when ngtcp2 did not repeat it after its time was up; after
 * the third time, when it did not go on to a smaller one.
 *
 * Later the path may come to carry less without a word (a black hole: ngtcp2 does not look for one, nor does it
 * tell which packets are acknowledged). Its signs, when packets above the next lower size are sent: none of what
 * is in flight is acknowledged any more for three PTO and 400 ms, whatever else the peer sends; or something is,
 * but the congestion window stays at its minimum for three PTO (only small packets arrive). Then the cap falls to
 * that size: to the start, from there to 1200. Because an outage or a congested path looks the same, the former
 * cap is tried again after a while.
 */
#ifndef RELAY_NET_QUIC_MTU_H
#define RELAY_NET_QUIC_MTU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RELAY_QUIC_MTU_SIZES  5
#define RELAY_QUIC_MTU_AGAIN  15 /* how often a little smaller */
#define RELAY_QUIC_MTU_PROBES (RELAY_QUIC_MTU_SIZES * (1 + RELAY_QUIC_MTU_AGAIN))

struct relay_quic_mtu {
    uint16_t probes[RELAY_QUIC_MTU_PROBES]; /* what ngtcp2 was given */
    size_t num_probes;
    size_t start, cap;
    size_t too_big; /* the smallest probe that did not arrive */
    size_t next;    /* index of the probe that is pending or on its way; num_probes: no more */
    unsigned sent;  /* times it was sent */
    unsigned idle;  /* times ngtcp2 had no first probe: the peer's max_udp_payload_size forbids them all */
    uint64_t repeat_at; /* ns: from then on ngtcp2 repeats it as soon as it gets room */
    uint64_t decide_at; /* ns: from then on silence says something */
    uint64_t again_at;  /* ns: the third time */
    uint64_t pause;     /* ns: how long that was waited for last */
    uint64_t look_at,
        look_wait;  /* ns: when to see whether the path takes the next size, and how long that was */
    size_t largest; /* packet sent since the last good sign */
    uint64_t seen_rtt, seen_flight; /* as relay_quic_mtu_watch saw them last */
    uint64_t answered_at;           /* ns: the last time something was acknowledged, or nothing in flight, or
                                       the first packet after that which the hole would swallow */
    uint64_t narrow_since;          /* ns: the window has been at its minimum since; 0: it is not */
    size_t former;                  /* the cap before it fell; 0: it has not */
    uint64_t raise_at, wait;        /* ns: when it is tried again, and how long it was waited for last */
};

/* `path_mtu`: what the path says now; larger sizes are not probed. */
void relay_quic_mtu_init(struct relay_quic_mtu *mtu, bool is_ipv6, bool is_nested, size_t path_mtu);
/* Before anything was sent: the start is 1200. */
void relay_quic_mtu_begin_least(struct relay_quic_mtu *mtu);
struct relay_quic_mtu_signs {
    uint64_t rtt; /* anything that changes with each sample of the round trip */
    uint64_t flight, cwnd;
    uint64_t pto, now; /* ns */
};
/* At every expiry. True: the cap has fallen. */
bool relay_quic_mtu_watch(struct relay_quic_mtu *mtu, const struct relay_quic_mtu_signs *signs);
/* Tries the former cap again when its time has come. */
void relay_quic_mtu_raise(struct relay_quic_mtu *mtu, uint64_t now);
/* The path has changed: ngtcp2 probes anew. */
void relay_quic_mtu_restart(struct relay_quic_mtu *mtu);

void relay_quic_mtu_sent_larger(struct relay_quic_mtu *mtu, size_t len, uint64_t now);
static inline void relay_quic_mtu_sent(struct relay_quic_mtu *mtu, size_t len, uint64_t now)
{
    if (len > mtu->largest)
        relay_quic_mtu_sent_larger(mtu, len, now);
}
/* Not while the cap has fallen: first the former one is to come back. */
static inline bool relay_quic_mtu_is_probing(const struct relay_quic_mtu *mtu)
{
    return mtu->next < mtu->num_probes && mtu->former == 0;
}
/* The buffer for a probe: as large as the next size that may come. 0: no probe now: the path does not take it, or it
 * waits for its time. */
size_t relay_quic_mtu_probe_size(const struct relay_quic_mtu *mtu, size_t path_mtu, uint64_t now);
/* What ngtcp2 wrote into that buffer when nothing else was pending (0: nothing, although the congestion
 * window had room). `pto` is the probe timeout now. */
void relay_quic_mtu_probed(struct relay_quic_mtu *mtu, size_t written, uint64_t now, uint64_t pto);
/* When the ascent has to go on although nothing else happens on the connection: the last probe is to be
 * judged or repeated, or a nested path, which does not tell when the hop below has found a larger size, is to be looked
 * at again (with growing pauses, for a few seconds). UINT64_MAX: never. */
uint64_t relay_quic_mtu_due(struct relay_quic_mtu *mtu, size_t path_mtu, uint64_t now);

#endif
