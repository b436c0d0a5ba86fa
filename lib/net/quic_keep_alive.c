/* When a connection that says nothing is asked for a sign of life (PING, RFC 9000 section 10.1.2). */
#include "lib/net/quic_conn_internal.h"

/* ns. Whoever would close sooner than twice as much is not kept open: our PINGs would be a flood. */
#define KEEP_ALIVE_MIN (100 * RELAY_MS)
#define ASKED_FIRST    (1 * RELAY_SECOND)

void relay_quic_keep_alive_begin(struct relay_quic_conn *conn, const ngtcp2_transport_params *remote)
{
    uint64_t idle = ngtcp2_conn_get_local_transport_params(conn->qc)->max_idle_timeout;
    if (remote->max_idle_timeout != 0 && (idle == 0 || remote->max_idle_timeout < idle))
        idle = remote->max_idle_timeout;
    if (idle != 0 && (conn->keep_alive == 0 || conn->keep_alive > idle / 2))
        conn->keep_alive = idle / 2 > KEEP_ALIVE_MIN ? idle / 2 : KEEP_ALIVE_MIN;
    if (conn->keeps_alive && conn->keep_alive != 0)
        ngtcp2_conn_set_keep_alive_timeout(conn->qc, conn->keep_alive);
}

/* One who only receives has nothing in flight when its peer dies, and would hear of it at the next PING: the first comes
 * soon, the next after as long again, until they are as rare as those that only keep address translators. */
void relay_quic_keep_alive_pace(struct relay_quic_conn *conn)
{
    if (!conn->asks_soon || !conn->keeps_alive || !conn->is_ready)
        return;
    uint64_t silence = relay_loop_now(conn->loop) - conn->fed_at;
    uint64_t pause = silence > ASKED_FIRST ? silence : ASKED_FIRST;
    ngtcp2_conn_set_keep_alive_timeout(conn->qc, pause < conn->keep_alive ? pause : conn->keep_alive);
}

void relay_quic_conn_keep_alive(struct relay_quic_conn *conn, bool on)
{
    conn->keeps_alive = on;
    if (conn->is_ready && conn->state == RELAY_QUIC_OPEN) {
        ngtcp2_conn_set_keep_alive_timeout(conn->qc,
                                           on && conn->keep_alive != 0 ? conn->keep_alive : UINT64_MAX);
        relay_quic_conn_mark_dirty(conn); /* the timer */
    }
}
