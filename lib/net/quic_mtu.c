#include "lib/net/quic_mtu.h"

#include <string.h>

#define START_IPV4   1250
#define START_IPV6   1232
#define IDLE_MAX     256
#define TRIES        3 /* ngtcp2's number of packets for a size */
#define DECIDE_AFTER 2 /* PTO after a probe; ngtcp2 repeats it after one */

void relay_quic_mtu_init(struct relay_quic_mtu *mtu, bool is_ipv6, bool is_nested, size_t path_mtu)
{
    static const uint16_t sockets[] = {1350, 1400, 1452}, nested[] = {1220, 1250, 1300, 1350, 1417};
    const uint16_t *sizes = is_nested ? nested : sockets;
    size_t count = is_nested ? sizeof(nested) / sizeof(nested[0]) : sizeof(sockets) / sizeof(sockets[0]);
    memset(mtu, 0, sizeof(*mtu));
    mtu->start = is_ipv6 ? START_IPV6 : START_IPV4;
    for (size_t i = 0; i < count; i++)
        if (sizes[i] > mtu->start && (is_nested || sizes[i] <= path_mtu))
            mtu->probes[mtu->num_probes++] = sizes[i];
    relay_quic_mtu_restart(mtu);
}

void relay_quic_mtu_restart(struct relay_quic_mtu *mtu)
{
    mtu->cap = mtu->start;
    mtu->next = 0;
    mtu->sent = mtu->idle = 0;
    mtu->decide_at = 0;
}

void relay_quic_mtu_retreat(struct relay_quic_mtu *mtu)
{
    if (mtu->cap > mtu->start) {
        mtu->cap = mtu->start;
        mtu->next = mtu->num_probes;
    }
}

size_t relay_quic_mtu_probe_size(const struct relay_quic_mtu *mtu, size_t path_mtu)
{
    if (!relay_quic_mtu_is_probing(mtu) || mtu->probes[mtu->next] > path_mtu)
        return 0;
    size_t size = mtu->probes[mtu->next];
    /* With a probe on its way its follower must have room as well: that it comes is the answer. */
    if (mtu->sent > 0 && mtu->next + 1 < mtu->num_probes && mtu->probes[mtu->next + 1] <= path_mtu)
        size = mtu->probes[mtu->next + 1];
    return size;
}

void relay_quic_mtu_probed(struct relay_quic_mtu *mtu, size_t written, uint64_t now, uint64_t pto)
{
    if (written == 0) {
        if (mtu->sent == 0 && ++mtu->idle < IDLE_MAX)
            return;
        if (mtu->sent > 0 && now < mtu->decide_at)
            return;
        if (mtu->sent > 0 && mtu->sent < TRIES)
            mtu->cap = mtu->probes[mtu->next];
        mtu->next = mtu->num_probes;
        return;
    }
    if (mtu->next + 1 < mtu->num_probes && written == mtu->probes[mtu->next + 1]) {
        mtu->cap = mtu->probes[mtu->next];
        mtu->next++;
        mtu->sent = 0;
    } else if (written != mtu->probes[mtu->next]) {
        return;
    }
    mtu->sent++;
    mtu->decide_at = now + pto * (mtu->sent < TRIES ? DECIDE_AFTER : 4 * DECIDE_AFTER);
}
