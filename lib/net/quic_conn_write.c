/* Writing: packets from ngtcp2 into runs, and runs onto the path. */
#include "lib/net/quic_conn_internal.h"

#include <stdlib.h>
#include <string.h>

#include "lib/net/metrics.h"
#include "lib/net/quic_farewell.h"
#include "lib/wire/error.h"

#define PACKETS_PER_FLUSH 512 /* then others get their turn */
#define PULLS_PER_FLUSH   8192
#define PIECES            16
#define DATAGRAM_RETRIES  8 /* packets with other frames that may come before ours */
#define FRAME_OVERHEAD    3 /* type and a length of two bytes, which ngtcp2 always writes */
#define PN_SIZE           2 /* holds under 32 768 unacknowledged packets */
#define AEAD_TAG          16

/* The largest packet that may be written now; 0: the path takes none. */
static size_t packet_size(const struct relay_quic_conn *conn)
{
    if (conn->path == NULL)
        return 0;
    size_t mtu = conn->path->ops->mtu(conn->path);
    size_t size = mtu < conn->mtu.cap ? mtu : conn->mtu.cap;
    if (size < NGTCP2_MAX_UDP_PAYLOAD_SIZE)
        return 0;
    return size;
}

static bool send_runs(struct relay_quic_conn *conn)
{
    if (conn->runs.num_runs == 0)
        return true;
    if (conn->path == NULL)
        return false;
    return relay_quic_runs_send(&conn->runs, conn->path, conn->is_server);
}

/* Where the next packet of up to `size` bytes may be written; NULL: the path is blocked. */
static uint8_t *next_packet(struct relay_quic_conn *conn, size_t size)
{
    if (relay_quic_runs_is_due(&conn->runs) && !send_runs(conn))
        return NULL;
    size_t room = conn->path->ops->room(conn->path);
    if (room < size || room - size < conn->runs.bytes) {
        if (conn->runs.bytes == 0 || !send_runs(conn) || conn->path->ops->room(conn->path) < size)
            return NULL;
    }
    return relay_quic_runs_room(&conn->runs);
}

static void append(struct relay_quic_conn *conn, const ngtcp2_path *path, size_t len)
{
    if (conn->flight_since <= conn->last_received)
        conn->flight_since = relay_loop_now(conn->loop);
    relay_quic_mtu_sent(&conn->mtu, len, relay_loop_now(conn->loop));
    relay_quic_runs_append(&conn->runs, path, len);
}

/* ---- datagrams ---- */

static size_t datagram_room(const struct relay_quic_conn *conn)
{
    size_t size = packet_size(conn);
    size_t overhead = 1 + ngtcp2_conn_get_dcid(conn->qc)->datalen + PN_SIZE + FRAME_OVERHEAD + AEAD_TAG;
    size_t room = size > overhead ? size - overhead : 0;
    size_t peer = conn->peer_datagram > FRAME_OVERHEAD ? conn->peer_datagram - FRAME_OVERHEAD : 0;
    return room < peer ? room : peer;
}

size_t relay_quic_conn_max_datagram(struct relay_quic_conn *conn)
{
    return conn->is_ready && conn->state == RELAY_QUIC_OPEN ? datagram_room(conn) : 0;
}

size_t relay_quic_conn_room(struct relay_quic_conn *conn)
{
    if (!conn->is_ready || conn->state != RELAY_QUIC_OPEN || conn->path == NULL || conn->inside > 0)
        return 0;
    size_t room = conn->path->ops->room(conn->path);
    room = room > conn->runs.bytes ? room - conn->runs.bytes : 0;
    uint64_t left = ngtcp2_conn_get_cwnd_left(conn->qc);
    return left < room ? (size_t)left : room;
}

/* What it waits for (an ACK, the path's on_writable, the end of this callback ...) brings a flush. */
static enum relay_sent block(struct relay_quic_conn *conn)
{
    conn->wants_writable = true;
    return RELAY_BLOCKED;
}

static enum relay_sent write_datagram(struct relay_quic_conn *conn, const ngtcp2_vec *pieces,
                                      size_t num_pieces)
{
    uint64_t now = relay_loop_now(conn->loop);
    size_t size = packet_size(conn);
    for (int i = 0; i < DATAGRAM_RETRIES; i++) {
        ngtcp2_path_storage ps;
        ngtcp2_pkt_info info;
        int accepted = 0;
        uint8_t *packet = next_packet(conn, size);
        if (packet == NULL)
            return block(conn);
        ngtcp2_path_storage_zero(&ps);
        ngtcp2_ssize n = ngtcp2_conn_writev_datagram(conn->qc, &ps.path, &info, packet, size, &accepted, 0, 0,
                                                     pieces, num_pieces, now);
        if (n > 0)
            append(conn, &ps.path, (size_t)n);
        if (n > 0 && accepted)
            return RELAY_SENT;
        if (n == 0)
            /* Blocked, or one byte too long because the packet number needed three: the window tells. */
            return ngtcp2_conn_get_cwnd_left(conn->qc) >= size ? RELAY_TOO_BIG : block(conn);
        if (n == NGTCP2_ERR_INVALID_ARGUMENT)
            return RELAY_TOO_BIG;
        if (n == NGTCP2_ERR_INVALID_STATE)
            return RELAY_GONE;
        if (n < 0) {
            relay_quic_conn_fail(conn, (int)n);
            return RELAY_GONE;
        }
    }
    relay_task_defer(conn->loop, &conn->flush);
    return block(conn);
}

enum relay_sent relay_quic_conn_send_datagram(struct relay_quic_conn *conn, const struct iovec *pieces,
                                              int num_pieces)
{
    ngtcp2_vec copy[4];
    size_t len = 0;
    if (conn->state != RELAY_QUIC_OPEN || (conn->is_ready && conn->peer_datagram == 0))
        return RELAY_GONE;
    if (conn->inside > 0 || !conn->is_ready || conn->path == NULL)
        return block(conn);
    for (int i = 0; i < num_pieces && i < 4; i++) {
        copy[i] = (ngtcp2_vec){pieces[i].iov_base, pieces[i].iov_len};
        len += pieces[i].iov_len;
    }
    if (len > datagram_room(conn))
        return packet_size(conn) == 0 ? block(conn) : RELAY_TOO_BIG;
    if (!conn->is_flushing)
        relay_task_queue(conn->loop, &conn->flush);
    return write_datagram(conn, copy, (size_t)num_pieces);
}

/* ---- streams ---- */

enum wrote { WROTE_ALL, WROTE_BLOCKED, WROTE_SLICE };

struct pulled {
    int64_t stream;
    bool fin;
    bool is_preface;
    ngtcp2_vec pieces[PIECES];
    size_t num_pieces;
};

static void pull(struct relay_quic_conn *conn, struct pulled *pulled)
{
    struct iovec pieces[PIECES];
    pulled->stream = -1;
    pulled->fin = false;
    pulled->num_pieces = 0;
    pulled->is_preface = conn->preface_stream >= 0 && conn->preface_written < conn->preface->len;
    if (pulled->is_preface) {
        pulled->stream = conn->preface_stream;
        pulled->pieces[pulled->num_pieces++] =
            (ngtcp2_vec){(uint8_t *)(uintptr_t)conn->preface->bytes + conn->preface_written,
                         conn->preface->len - conn->preface_written};
        return;
    }
    /* Out of the connection's credit: a stream would be told it is out of its own, and wait for ever. */
    if (conn->cb == NULL || !conn->is_ready || conn->state != RELAY_QUIC_OPEN ||
        ngtcp2_conn_get_max_data_left(conn->qc) == 0)
        return;
    int count = conn->cb->pull(conn->user, &pulled->stream, &pulled->fin, pieces, PIECES);
    if (count < 0)
        pulled->stream = -1;
    for (int i = 0; i < count; i++)
        pulled->pieces[pulled->num_pieces++] = (ngtcp2_vec){pieces[i].iov_base, pieces[i].iov_len};
}

/* ngtcp2 has taken so much of it. */
static void tell_pulled(struct relay_quic_conn *conn, const struct pulled *pulled, size_t taken)
{
    if (pulled->is_preface)
        conn->preface_written += taken;
    else
        conn->cb->on_pulled(conn->user, pulled->stream, taken);
}

static void tell_blocked(struct relay_quic_conn *conn, const struct pulled *pulled, bool shut)
{
    if (!pulled->is_preface) {
        conn->cb->on_stream_blocked(conn->user, pulled->stream, shut);
        return;
    }
    /* No credit even for this, or STOP_SENDING: RFC 9114 section 6.2.1 forbids both. */
    conn->preface_written = conn->preface->len;
    relay_quic_conn_end(conn, RELAY_ERR_PROTOCOL, false);
}

/* Fills one packet. Returns its length, 0 (nothing to send, or blocked) or ngtcp2's error. */
static ngtcp2_ssize write_packet(struct relay_quic_conn *conn, uint8_t *packet, size_t size,
                                 ngtcp2_path *path, int *pulls)
{
    uint64_t now = relay_loop_now(conn->loop);
    ngtcp2_pkt_info info;
    for (conn->inside++;;) {
        struct pulled pulled;
        ngtcp2_ssize taken = -1;
        pull(conn, &pulled);
        if (++*pulls >= PULLS_PER_FLUSH)
            pulled.stream = -1;
        uint32_t flags = (pulled.stream >= 0 ? NGTCP2_WRITE_STREAM_FLAG_MORE : 0) |
                         (pulled.fin ? NGTCP2_WRITE_STREAM_FLAG_FIN : 0);
        ngtcp2_ssize n = ngtcp2_conn_writev_stream(conn->qc, path, &info, packet, size, &taken, flags,
                                                   pulled.stream, pulled.pieces, pulled.num_pieces, now);
        if (taken >= 0 && pulled.stream >= 0)
            tell_pulled(conn, &pulled, (size_t)taken);
        if (n == NGTCP2_ERR_STREAM_DATA_BLOCKED)
            tell_blocked(conn, &pulled, false);
        else if (pulled.stream >= 0 && (n == NGTCP2_ERR_STREAM_SHUT_WR || n == NGTCP2_ERR_STREAM_NOT_FOUND))
            tell_blocked(conn, &pulled, true);
        else if (n != NGTCP2_ERR_WRITE_MORE) {
            conn->inside--;
            return n;
        }
    }
}

static enum wrote write_streams(struct relay_quic_conn *conn)
{
    int pulls = 0;
    for (int i = 0; i < PACKETS_PER_FLUSH; i++) {
        ngtcp2_path_storage ps;
        size_t size = packet_size(conn);
        uint8_t *packet = size == 0 ? NULL : next_packet(conn, size);
        if (packet == NULL)
            return WROTE_BLOCKED;
        ngtcp2_path_storage_zero(&ps);
        ngtcp2_ssize n = write_packet(conn, packet, size, &ps.path, &pulls);
        if (n < 0) {
            relay_quic_conn_fail(conn, (int)n);
            return WROTE_BLOCKED;
        }
        if (n == 0)
            return pulls >= PULLS_PER_FLUSH ? WROTE_SLICE : WROTE_ALL;
        append(conn, &ps.path, (size_t)n);
    }
    return WROTE_SLICE;
}

/* ---- probes of the path MTU ---- */

/* One packet without stream data into a buffer of `size`. */
static ngtcp2_ssize write_bare(struct relay_quic_conn *conn, size_t size)
{
    ngtcp2_path_storage ps;
    ngtcp2_pkt_info info;
    uint8_t *packet = next_packet(conn, size);
    if (packet == NULL)
        return 0;
    ngtcp2_path_storage_zero(&ps);
    ngtcp2_ssize n = ngtcp2_conn_writev_stream(conn->qc, &ps.path, &info, packet, size, NULL, 0, -1, NULL, 0,
                                               relay_loop_now(conn->loop));
    if (n > 0)
        append(conn, &ps.path, (size_t)n);
    else if (n < 0)
        relay_quic_conn_fail(conn, (int)n);
    return n;
}

/* First everything else that is due leaves in packets under the cap; then only a probe can fill the larger
 * buffer. */
static void probe_mtu(struct relay_quic_conn *conn)
{
    uint64_t now = relay_loop_now(conn->loop);
    size_t probe = relay_quic_mtu_probe_size(&conn->mtu, conn->path->ops->mtu(conn->path), now);
    size_t size = packet_size(conn);
    /* An expiry that is due may be ngtcp2's repetition of the probe: the timer comes first. */
    if (probe == 0 || size == 0 || ngtcp2_conn_get_expiry(conn->qc) <= now)
        return;
    ngtcp2_ssize n = 1;
    for (int i = 0; i < PACKETS_PER_FLUSH && n > 0; i++)
        n = write_bare(conn, size);
    if (n != 0 || conn->runs.num_runs == RELAY_QUIC_RUNS || ngtcp2_conn_get_cwnd_left(conn->qc) < 2 * probe ||
        conn->path->ops->room(conn->path) < probe)
        return;
    n = write_bare(conn, probe);
    if (n >= 0)
        relay_quic_mtu_probed(&conn->mtu, (size_t)n, now, ngtcp2_conn_get_pto(conn->qc));
}

/* ---- the flush ---- */

/* Somebody waits to send a datagram, and it could go. */
static bool has_datagrams(struct relay_quic_conn *conn)
{
    if (!conn->wants_writable || conn->cb == NULL || !conn->is_ready || conn->state != RELAY_QUIC_OPEN)
        return false;
    size_t size = packet_size(conn);
    return size > 0 && relay_quic_conn_room(conn) >= size;
}

static void tell_writable(struct relay_quic_conn *conn)
{
    if (!has_datagrams(conn))
        return;
    conn->wants_writable = false;
    conn->cb->on_writable(conn->user);
}

/* Whether it goes next, behind what waits. */
static bool write_close(struct relay_quic_conn *conn)
{
    ngtcp2_path_storage ps;
    ngtcp2_pkt_info info;
    uint8_t packet[NGTCP2_MAX_UDP_PAYLOAD_SIZE];
    ngtcp2_path_storage_zero(&ps);
    ngtcp2_ssize n = ngtcp2_conn_write_connection_close(conn->qc, &ps.path, &info, packet, sizeof(packet),
                                                        &conn->ccerr, relay_loop_now(conn->loop));
    if (n <= 0) /* nothing to close towards yet, or the amplification limit */
        return false;
    if ((conn->farewell = malloc((size_t)n)) != NULL) {
        memcpy(conn->farewell, packet, (size_t)n);
        conn->farewell_len = (size_t)n;
    }
    uint8_t *slot = relay_quic_runs_room(&conn->runs);
    if (slot != NULL) {
        memcpy(slot, packet, (size_t)n);
        append(conn, &ps.path, (size_t)n);
    }
    return slot != NULL;
}

static void finish(struct relay_quic_conn *conn)
{
    conn->may_be_heard = conn->is_ready && !conn->is_silent && !relay_quic_conn_is_silent(conn);
    bool is_next = !conn->is_silent && write_close(conn);
    conn->is_farewell_sent = send_runs(conn) && is_next;
    conn->state = RELAY_QUIC_CLOSED;
    relay_timer_stop(conn->loop, &conn->timer);
    relay_task_queue(conn->loop, &conn->event);
}

void relay_quic_conn_leave_path(struct relay_quic_conn *conn)
{
    if (conn->closing == NULL || conn->farewell == NULL || !conn->may_be_heard) {
        conn->path->ops->close(conn->path);
        return;
    }
    struct relay_quic_farewell_params params = {.loop = conn->loop,
                                                .path = conn->path,
                                                .level = conn->flush.level,
                                                .packet = conn->farewell,
                                                .len = conn->farewell_len,
                                                .is_sent = conn->is_farewell_sent,
                                                .pto = ngtcp2_conn_get_pto(conn->qc),
                                                .count = conn->closing};
    relay_quic_farewell_begin(&params);
}

static void set_timer(struct relay_quic_conn *conn)
{
    uint64_t at = ngtcp2_conn_get_expiry(conn->qc);
    if (conn->is_ready && conn->path != NULL) {
        uint64_t due =
            relay_quic_mtu_due(&conn->mtu, conn->path->ops->mtu(conn->path), relay_loop_now(conn->loop));
        at = due < at ? due : at;
    }
    if (at == UINT64_MAX)
        relay_timer_stop(conn->loop, &conn->timer);
    else
        relay_timer_set(conn->loop, &conn->timer, at);
}

/* Datagrams and streams take turns at being first: neither may starve the other. A flush without room is nobody's
 * turn: bulk data brings one after each ACK's, and would have all the others. */
static enum wrote write_all(struct relay_quic_conn *conn)
{
    if (conn->restart_mtu) {
        conn->restart_mtu = false;
        relay_quic_mtu_restart(&conn->mtu);
    }
    relay_quic_mtu_raise(&conn->mtu, relay_loop_now(conn->loop));
    if (conn->is_ready && relay_quic_mtu_is_probing(&conn->mtu))
        probe_mtu(conn);
    if (has_datagrams(conn)) {
        conn->datagrams_first = !conn->datagrams_first;
        if (conn->datagrams_first) {
            /* They are sent by tasks, which come before this one does again. */
            tell_writable(conn);
            relay_task_queue(conn->loop, &conn->flush);
            return WROTE_BLOCKED;
        }
    }
    enum wrote wrote = conn->state == RELAY_QUIC_OPEN ? write_streams(conn) : WROTE_BLOCKED;
    tell_writable(conn);
    return wrote;
}

void relay_quic_conn_flush(struct relay_task *task)
{
    struct relay_quic_conn *conn =
        (struct relay_quic_conn *)((char *)task - offsetof(struct relay_quic_conn, flush));
    enum wrote wrote = WROTE_BLOCKED;
    if (conn->state == RELAY_QUIC_CLOSED)
        return;
    conn->is_flushing = true;
    if (conn->state == RELAY_QUIC_OPEN && conn->path != NULL)
        wrote = write_all(conn);
    conn->is_flushing = false;
    if (conn->state == RELAY_QUIC_FAILING) {
        finish(conn);
        return;
    }
    (void)send_runs(conn);
    relay_quic_keep_alive_pace(conn);
    set_timer(conn);
    if (wrote == WROTE_SLICE) {
        relay_task_cancel(&conn->flush);
        relay_task_defer(conn->loop, &conn->flush);
    }
}
