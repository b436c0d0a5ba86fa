/* The inside of a QUIC connection: what quic_conn.c, quic_callbacks.c, quic_conn_write.c and the endpoint
 * share. */
#ifndef RELAY_NET_QUIC_CONN_INTERNAL_H
#define RELAY_NET_QUIC_CONN_INTERNAL_H

#include <ngtcp2/ngtcp2.h>

#include "lib/net/quic_conn.h"
#include "lib/net/quic_memory.h"
#include "lib/net/quic_mtu.h"
#include "lib/net/quic_run.h"
#include "lib/net/quic_tls_session.h"

#define RELAY_QUIC_CID_SIZE 8 /* of every connection ID we issue: design, "MTU" */

/* The endpoint, as its connections see it. A client has none. */
struct relay_quic_host {
    /* Inside. A connection ID that is steered to this worker, registered, and its stateless reset token. 0 or
     * an error. */
    int (*issue_cid)(void *host, ngtcp2_cid *cid, uint8_t *token);
    void (*retire_cid)(void *host, const ngtcp2_cid *cid);
    /* Inside. The handshake is complete. */
    void (*on_handshake)(void *host);
    /* Inside. The client's address has changed and is validated. */
    void (*on_migrated)(void *host);
    /* Last: the connection is being freed. `farewell` (NULL: none) answers what still comes until `until`. */
    void (*on_gone)(void *host, const uint8_t *farewell, size_t len, uint64_t until);
};

enum relay_quic_state {
    RELAY_QUIC_OPEN,
    RELAY_QUIC_FAILING, /* `ccerr` says why; the flush writes CONNECTION_CLOSE, or not when `is_silent` */
    RELAY_QUIC_CLOSED   /* on_close is queued or was told */
};

struct relay_quic_conn {
    struct relay_loop *loop;
    ngtcp2_conn *qc;
    struct relay_quic_tls tls;
    struct relay_quic_memory *memory; /* a client's, or NULL */
    struct relay_packet_path *path;   /* NULL: none (a client's has died) */
    const struct relay_quic_user *cb; /* NULL until the endpoint's user has set it */
    void *user;
    const struct relay_quic_host *host_cb;
    void *host;
    struct relay_timer timer;
    struct relay_task flush, event;
    struct relay_quic_runs runs;
    struct relay_quic_mtu mtu;
    enum relay_quic_state state;
    unsigned inside; /* depth of ngtcp2 calls, and while a packet is being put together: nothing else is
                        written then */
    const struct relay_quic_preface *preface;
    int64_t preface_stream;                  /* -1: none */
    size_t preface_written, preface_unacked; /* bytes */
    bool is_flushing;
    bool is_server, is_nested, is_ready, is_silent;
    bool wants_writable;         /* a datagram was answered RELAY_BLOCKED */
    bool datagrams_first;        /* whose turn it was when both had last something to send and room */
    bool keeps_alive, asks_soon; /* asks_soon: quic_keep_alive.c paces the PINGs of a silence */
    bool restart_mtu;
    bool is_settled;     /* a client's: ngtcp2 has ended the handshake */
    bool *is_heard;      /* a client's, or NULL */
    uint64_t keep_alive; /* ns, of the client's configuration; 0: half of the negotiated idle timeout */
    uint64_t fed_at;     /* ns; when stream data or a datagram last came */
    uint64_t app_error;  /* a user's callback wants the connection closed with it; 0: no */
    ngtcp2_ccerr ccerr;
    int close_error;
    uint64_t close_code;
    size_t ceiling;                       /* a client's: see relay_quic_conn_ceiling */
    size_t peer_datagram;                 /* the peer's max_datagram_frame_size; 0: none */
    uint64_t max_streams, window_later;   /* a server's: see relay_quic_conn_widen */
    uint64_t last_received, flight_since; /* ns: for relay_quic_conn_is_silent; the peer's own packets */
    uint8_t *farewell;
    size_t farewell_len;
    size_t *closing;       /* a client's, or NULL */
    bool may_be_heard;     /* the peer may still be there to hear the farewell */
    bool is_farewell_sent; /* else the path was blocked */
};

/* ---- quic_conn.c ---- */

struct relay_quic_server_config {
    struct relay_loop *loop;
    struct relay_quic_credentials *credentials;
    const struct relay_limits *limits;
    const struct relay_quic_preface *preface; /* the endpoint's; outlives the connection */
    struct relay_packet_path *path;           /* the endpoint's, embedded in what it keeps per connection */
    const struct relay_quic_host *host_cb;
    void *host;
    const ngtcp2_pkt_hd *initial;
    const ngtcp2_cid *original_dcid; /* from the Retry token; NULL: no Retry was sent */
    bool is_known;                   /* its token is of an earlier connection (RFC 9000 section 8.1.3) */
    ngtcp2_cid scid;
    uint8_t reset_token[NGTCP2_STATELESS_RESET_TOKENLEN]; /* of scid */
};
int relay_quic_server_conn_new(const struct relay_quic_server_config *config, struct relay_quic_conn **conn);
/* One packet, from any address. May close the connection, but never frees it. */
void relay_quic_conn_read(struct relay_quic_conn *conn, const struct sockaddr *local,
                          const struct sockaddr *peer, const uint8_t *packet, size_t len, uint8_t ecn);
/* Frees without telling the user, as if it had never been: for an Initial that was none, and the end of the
 * endpoint. */
void relay_quic_conn_free(struct relay_quic_conn *conn);
/* Both only set flags and queue the flush. A `liberr` of ngtcp2. */
void relay_quic_conn_fail(struct relay_quic_conn *conn, int liberr);
void relay_quic_conn_end(struct relay_quic_conn *conn, int error, bool is_silent);

/* ---- quic_callbacks.c ---- */

extern const ngtcp2_callbacks relay_quic_client_callbacks, relay_quic_server_callbacks;
void relay_quic_random(uint8_t *bytes, size_t len, const ngtcp2_rand_ctx *ctx);
/* Whether ngtcp2 has opened a packet on this thread since the last call: what it drops silently because its
 * protection is not the peer's says nothing of the peer. */
bool relay_quic_has_opened(void);

/* ---- quic_keep_alive.c ---- */

/* The handshake has told the negotiated idle timeout. */
void relay_quic_keep_alive_begin(struct relay_quic_conn *conn, const ngtcp2_transport_params *remote);
/* At the end of a flush. */
void relay_quic_keep_alive_pace(struct relay_quic_conn *conn);

/* ---- quic_conn_write.c ---- */

void relay_quic_conn_flush(struct relay_task *task);
/* A client's, when the connection is being freed: closed, or kept for the closing period. */
void relay_quic_conn_leave_path(struct relay_quic_conn *conn);

#endif
