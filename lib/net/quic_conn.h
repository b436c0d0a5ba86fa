/* One QUIC connection (RFC 9000), as a server or as a client, over a packet path. ngtcp2 and GnuTLS are
 * behind this header; above it is the HTTP/3 session, the only user.
 *
 * The user's callbacks marked "inside" come from inside ngtcp2: they may copy, mark, and queue tasks, but
 * call nothing below except the credit calls. All writing happens in the flush (one task per connection, at
 * its level): it asks the user to pull stream data until nothing is left or the path is blocked. Datagrams
 * are written at once into the connection's send run, unless a callback is running (then the answer is
 * RELAY_BLOCKED and on_writable comes).
 *
 * Lifetime: made by the endpoint (server) or relay_quic_connect (client); it lives until on_close was told,
 * which comes once, from a task; then it frees itself. The user may call it until then. A nested connection
 * (is_nested) whose path has died lives on without one until relay_quic_conn_migrate or its idle timeout; any
 * other one ends with its path.
 */
#ifndef RELAY_NET_QUIC_CONN_H
#define RELAY_NET_QUIC_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "lib/net/limits.h"
#include "lib/net/packet_path.h"
#include "lib/net/tunnel.h"

/* Of the peer's, open at once. HTTP/3 needs 3; greased ones come on top. */
#define RELAY_QUIC_UNI_STREAMS 8

struct relay_quic_conn;
struct relay_quic_credentials; /* quic_tls.h: certificates or trust, shared by the connections of a worker */

struct relay_quic_user {
    /* Inside. The handshake is complete: control streams may be opened now. Nonzero ends the connection. */
    int (*on_ready)(void *user);
    /* Inside. In order. `early` data never come (0-RTT is off). A nonzero answer is an H3 error code to
     * close with. */
    uint64_t (*on_stream_data)(void *user, int64_t stream, const uint8_t *bytes, size_t len, bool fin);
    /* Inside. The peer has acknowledged `len` more bytes of the stream: they need not be kept any longer. */
    void (*on_stream_acked)(void *user, int64_t stream, uint64_t len);
    /* Inside. RESET_STREAM came. */
    void (*on_stream_reset)(void *user, int64_t stream, uint64_t code);
    /* Inside. Both directions are done: forget the stream. */
    void (*on_stream_closed)(void *user, int64_t stream, uint64_t code);
    /* Inside. The peer gave the stream more credit: it may be pulled again. */
    void (*on_stream_credit)(void *user, int64_t stream);
    /* Inside. The peer allows more of our streams. */
    void (*on_streams_allowed)(void *user);
    /* Inside. One DATAGRAM frame. A nonzero answer is an H3 error code to close with. */
    uint64_t (*on_datagram)(void *user, const uint8_t *bytes, size_t len);
    /* Flush: what to send next. Fills up to `size` pieces and names the stream and whether its end is
     * included; returns the number of pieces (0 with *stream >= 0: only a FIN), -1 with *stream = -1:
     * nothing. */
    int (*pull)(void *user, int64_t *stream, bool *fin, struct iovec *pieces, int size);
    /* Flush: `len` bytes of what was pulled are in packets (kept by the user until acknowledged). */
    void (*on_pulled)(void *user, int64_t stream, size_t len);
    /* Flush: the stream cannot go on: out of the peer's credit (on_stream_credit comes), or shut for
     * writing: STOP_SENDING came, which ngtcp2 has answered with RESET_STREAM itself and tells only now,
     * at the next attempt to write. */
    void (*on_stream_blocked)(void *user, int64_t stream, bool shut);
    /* From the flush: cwnd has room again after a send_datagram answered RELAY_BLOCKED. */
    void (*on_writable)(void *user);
    /* From a task, once. `code`: the peer's application error code, if it closed with one. */
    void (*on_close)(void *user, int error, uint64_t code);
};

/* ---- server side: the endpoint makes connections and tells its owner (quic_endpoint.h) ---- */

/* What a server says first, on a unidirectional stream of its own and together with its handshake ("0.5-RTT",
 * RFC 9001 section 5.7), so that a client knows it a round trip earlier than what a user could send. It is
 * the same for every client, of whom nothing is known yet. */
struct relay_quic_preface {
    size_t len;
    uint8_t bytes[64];
};
/* The stream that it was sent on, which is the user's now; -1: none was. The user hears nothing of these bytes. */
int64_t relay_quic_conn_preface(const struct relay_quic_conn *conn);

/* Client: connects over the path, which it takes (also when it fails: NULL). `level` is its flush level
 * (loop.h): the outermost hop RELAY_LEVEL_FLUSH_OUTER, one less for each hop inside. */
struct relay_quic_memory;
struct relay_quic_client_config {
    struct relay_quic_credentials *credentials;
    const char *server_name; /* SNI and the name to verify */
    const struct relay_limits *limits;
    struct relay_budget *budget;
    enum relay_level level;
    uint64_t initial_rtt;   /* ns; 0: the default of 100 ms. A nested hop: the srtt of the hop below */
    size_t max_udp_payload; /* our transport parameter for the way back; 0: the default */
    bool is_nested; /* over a tunnel: begins with packets of 1200 bytes, PMTUD sizes of nested paths */
    /* ns: a PING after so long without a packet, and the first ones of a silence sooner: 1 s after the last stream data or
     * datagram came, then each after as long again. 0: as relay_quic_conn_keep_alive says. */
    uint64_t keep_alive;
    struct relay_quic_memory *memory; /* of this server; NULL: none */
    /* Set with the first packet that comes, whatever it says and whoever wrote it; outlives the connection. NULL:
     * nobody asks. */
    bool *is_heard;
    /* One more while the connection, of which on_close was told, repeats its CONNECTION_CLOSE (quic_farewell.h); until
     * then the loop and what carries the path should live. Outlives the connection. NULL: it is sent once. */
    size_t *closing;
};
struct relay_quic_conn *relay_quic_connect(struct relay_loop *loop, struct relay_packet_path *path,
                                           const struct relay_quic_client_config *config,
                                           const struct relay_quic_user *cb, void *user);
/* Moves the living connection to another path (RFC 9000 section 9), which it takes (also when it fails);
 * the old one is closed. 0, RELAY_ERR_DENIED (the peer lets no connection move: RFC 9000 section 18.2,
 * disable_active_migration, or empty connection IDs), RELAY_ERR_LIMIT (it gave no spare connection ID),
 * RELAY_ERR_UNSUPPORTED (not confirmed yet) or RELAY_ERR_NO_MEMORY. */
int relay_quic_conn_migrate(struct relay_quic_conn *conn, struct relay_packet_path *path);
/* Nothing was received for 3 PTO while bytes are in flight (facts: about 0.25 s): the path or the peer may
 * be dead. A hint to probe or to try a second path, not a reason to close. */
bool relay_quic_conn_is_silent(struct relay_quic_conn *conn);
/* When the last packet came that the peer itself has written; ns. */
uint64_t relay_quic_conn_last_received(const struct relay_quic_conn *conn);

void relay_quic_conn_set_user(struct relay_quic_conn *conn, const struct relay_quic_user *cb, void *user);

/* ---- streams. `stream` is the QUIC stream ID ---- */

/* 0 or RELAY_ERR_LIMIT (the peer's limit; on_streams_allowed comes). */
int relay_quic_conn_open_bidi(struct relay_quic_conn *conn, int64_t *stream);
int relay_quic_conn_open_uni(struct relay_quic_conn *conn, int64_t *stream);
/* RESET_STREAM and STOP_SENDING with the H3 error code; on_stream_closed comes later. */
void relay_quic_conn_reset_stream(struct relay_quic_conn *conn, int64_t stream, uint64_t code);
/* Only STOP_SENDING: the rest of the peer's direction is not wanted. */
void relay_quic_conn_stop_stream(struct relay_quic_conn *conn, int64_t stream, uint64_t code);
/* Credit: the connection's as soon as bytes are buffered, the stream's when its consumer took them. */
void relay_quic_conn_credit_stream(struct relay_quic_conn *conn, int64_t stream, uint64_t len);
void relay_quic_conn_credit(struct relay_quic_conn *conn, uint64_t len);
/* A server's: the client has got a tunnel. Until then its connection's window is that of a few streams, from now on
 * window_max. */
void relay_quic_conn_widen(struct relay_quic_conn *conn);
/* How many request streams the peer may have open at once from now on (never fewer than before). */
void relay_quic_conn_allow_streams(struct relay_quic_conn *conn, uint64_t max_streams);

/* ---- datagrams ---- */

/* One DATAGRAM frame from up to 4 pieces. RELAY_TOO_BIG: does not fit the path or the peer's
 * max_datagram_frame_size now. RELAY_GONE: the peer takes no DATAGRAM frames, or the connection is
 * closing. */
enum relay_sent relay_quic_conn_send_datagram(struct relay_quic_conn *conn, const struct iovec *pieces,
                                              int num_pieces);
/* The largest DATAGRAM frame payload that fits now; 0: none can be sent. */
size_t relay_quic_conn_max_datagram(struct relay_quic_conn *conn);
/* Bytes that can be sent now: min(cwnd left, the path's room); 0 before the handshake is done. */
size_t relay_quic_conn_room(struct relay_quic_conn *conn);

/* ---- the connection ---- */

struct relay_loop *relay_quic_conn_loop(struct relay_quic_conn *conn);
const struct sockaddr *relay_quic_conn_peer(struct relay_quic_conn *conn);
const struct sockaddr *relay_quic_conn_local(struct relay_quic_conn *conn);
uint64_t relay_quic_conn_srtt(struct relay_quic_conn *conn); /* ns */
/* Of a client: the largest packet that may ever come to it. What the route's MTU leaves, for a nested
 * connection what it announced itself. */
size_t relay_quic_conn_ceiling(struct relay_quic_conn *conn);
bool relay_quic_conn_is_ready(struct relay_quic_conn *conn); /* the handshake is complete */
/* There is something to pull: flush at the end of this turn. May be called from anywhere. */
void relay_quic_conn_mark_dirty(struct relay_quic_conn *conn);
/* Keep-alive PINGs at half of the negotiated idle timeout while on (T82: while it has tunnels). */
void relay_quic_conn_keep_alive(struct relay_quic_conn *conn, bool on);
/* CONNECTION_CLOSE with an H3 error code; on_close comes from a task. */
void relay_quic_conn_close(struct relay_quic_conn *conn, uint64_t code, int error);

#endif
