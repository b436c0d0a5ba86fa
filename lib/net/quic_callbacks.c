/* What ngtcp2 tells a connection. Everything here runs inside ngtcp2: it copies, marks and queues, but writes
 * nothing. */
#include "lib/net/quic_conn_internal.h"

#include <string.h>
#include <gnutls/crypto.h>
#include <ngtcp2/ngtcp2_crypto.h>

#include "lib/net/metrics.h"
#include "lib/net/quic_aead.h"
#include "lib/wire/error.h"

#define TOKEN_MAX 512 /* it must fit into an Initial beside the ClientHello */

void relay_quic_random(uint8_t *bytes, size_t len, const ngtcp2_rand_ctx *ctx)
{
    (void)ctx;
    if (gnutls_rnd(GNUTLS_RND_RANDOM, bytes, len) != 0)
        memset(bytes, 0, len); /* GnuTLS's generator does not fail once it is seeded; what ngtcp2 takes from
                                  here is no key */
}

static int user_error(struct relay_quic_conn *conn, uint64_t code)
{
    if (code == 0)
        return 0;
    conn->app_error = code;
    return NGTCP2_ERR_CALLBACK_FAILURE;
}

static int on_recv_crypto_data(ngtcp2_conn *qc, ngtcp2_encryption_level level, uint64_t offset,
                               const uint8_t *bytes, size_t len, void *user)
{
    struct relay_quic_conn *conn = user;
    if (!relay_quic_tls_admit(&conn->tls, level, bytes, len)) {
        ngtcp2_conn_set_tls_alert(qc, 10); /* unexpected_message */
        return NGTCP2_ERR_CRYPTO;
    }
    return ngtcp2_crypto_recv_crypto_data_cb(qc, level, offset, bytes, len, user);
}

/* A server may send from here on, a round trip before its handshake is complete. A client that allows no stream has
 * none (the user finds out). */
static int on_send_key(ngtcp2_conn *qc, ngtcp2_encryption_level level, void *user)
{
    struct relay_quic_conn *conn = user;
    if (level == NGTCP2_ENCRYPTION_LEVEL_1RTT && conn->preface != NULL && conn->preface->len > 0 &&
        ngtcp2_conn_open_uni_stream(qc, &conn->preface_stream, NULL) == 0)
        conn->preface_unacked = conn->preface->len;
    return 0;
}

static int on_handshake_completed(ngtcp2_conn *qc, void *user)
{
    struct relay_quic_conn *conn = user;
    const ngtcp2_transport_params *remote = ngtcp2_conn_get_remote_transport_params(qc);
    if (!relay_quic_tls_is_h3(&conn->tls)) {
        ngtcp2_conn_set_tls_alert(qc, 120); /* no_application_protocol */
        return NGTCP2_ERR_CRYPTO;
    }
    conn->is_ready = true;
    conn->peer_datagram =
        remote->max_datagram_frame_size < UINT16_MAX ? remote->max_datagram_frame_size : UINT16_MAX;
    relay_quic_keep_alive_begin(conn, remote);
    if (conn->is_server)
        relay_quic_tls_send_ticket(&conn->tls);
    if (conn->host_cb != NULL)
        conn->host_cb->on_handshake(conn->host);
    if (conn->cb == NULL)
        return 0;
    return conn->cb->on_ready(conn->user) == 0 ? 0 : NGTCP2_ERR_CALLBACK_FAILURE;
}

static int on_recv_stream_data(ngtcp2_conn *qc, uint32_t flags, int64_t stream, uint64_t offset,
                               const uint8_t *bytes, size_t len, void *user, void *stream_user)
{
    struct relay_quic_conn *conn = user;
    bool fin = (flags & NGTCP2_STREAM_DATA_FLAG_FIN) != 0;
    conn->fed_at = relay_loop_now(conn->loop);
    return conn->cb == NULL ? 0
                            : user_error(conn, conn->cb->on_stream_data(conn->user, stream, bytes, len, fin));
}

static int on_acked_stream_data(ngtcp2_conn *qc, int64_t stream, uint64_t offset, uint64_t len, void *user,
                                void *stream_user)
{
    struct relay_quic_conn *conn = user;
    if (stream == conn->preface_stream && conn->preface_unacked > 0) {
        size_t own = len < conn->preface_unacked ? (size_t)len : conn->preface_unacked;
        conn->preface_unacked -= own;
        len -= own;
    }
    if (conn->cb != NULL && len > 0)
        conn->cb->on_stream_acked(conn->user, stream, len);
    return 0;
}

static int on_stream_close(ngtcp2_conn *qc, uint32_t flags, int64_t stream, uint64_t code, void *user,
                           void *stream_user)
{
    struct relay_quic_conn *conn = user;
    /* The peer may open one more for each one that is done, up to what is allowed at once. */
    if (!ngtcp2_conn_is_local_stream(qc, stream)) {
        if (ngtcp2_is_bidi_stream(stream))
            ngtcp2_conn_extend_max_streams_bidi(qc, 1);
        else
            ngtcp2_conn_extend_max_streams_uni(qc, 1);
    }
    if (conn->cb != NULL)
        conn->cb->on_stream_closed(conn->user, stream,
                                   flags & NGTCP2_STREAM_CLOSE_FLAG_APP_ERROR_CODE_SET ? code : 0);
    return 0;
}

static int on_stream_reset(ngtcp2_conn *qc, int64_t stream, uint64_t final_size, uint64_t code, void *user,
                           void *stream_user)
{
    struct relay_quic_conn *conn = user;
    if (conn->cb != NULL)
        conn->cb->on_stream_reset(conn->user, stream, code);
    return 0;
}

static int on_extend_max_stream_data(ngtcp2_conn *qc, int64_t stream, uint64_t max_data, void *user,
                                     void *stream_user)
{
    struct relay_quic_conn *conn = user;
    if (conn->cb != NULL)
        conn->cb->on_stream_credit(conn->user, stream);
    return 0;
}

static int on_extend_max_streams(ngtcp2_conn *qc, uint64_t max_streams, void *user)
{
    struct relay_quic_conn *conn = user;
    if (conn->cb != NULL && conn->is_ready)
        conn->cb->on_streams_allowed(conn->user);
    return 0;
}

static int on_recv_datagram(ngtcp2_conn *qc, uint32_t flags, const uint8_t *bytes, size_t len, void *user)
{
    struct relay_quic_conn *conn = user;
    conn->fed_at = relay_loop_now(conn->loop);
    return conn->cb == NULL ? 0 : user_error(conn, conn->cb->on_datagram(conn->user, bytes, len));
}

static int on_new_connection_id(ngtcp2_conn *qc, ngtcp2_cid *cid, uint8_t *token, size_t len, void *user)
{
    struct relay_quic_conn *conn = user;
    if (conn->host_cb != NULL)
        return conn->host_cb->issue_cid(conn->host, cid, token) == 0 ? 0 : NGTCP2_ERR_CALLBACK_FAILURE;
    cid->datalen = RELAY_QUIC_CID_SIZE;
    relay_quic_random(cid->data, cid->datalen, NULL);
    relay_quic_random(token, NGTCP2_STATELESS_RESET_TOKENLEN, NULL);
    return 0;
}

static int on_remove_connection_id(ngtcp2_conn *qc, const ngtcp2_cid *cid, void *user)
{
    struct relay_quic_conn *conn = user;
    if (conn->host_cb != NULL)
        conn->host_cb->retire_cid(conn->host, cid);
    return 0;
}

/* A client's: ngtcp2 ends the handshake when it writes next. What a server may do only later it can say before, in
 * packets that are read together with its Finished, and then ngtcp2 aborts the process (its first connection ID is
 * retired) or reads what it has freed (the handshake is confirmed). Such a connection fails. */
static int on_dcid_status(ngtcp2_conn *qc, ngtcp2_connection_id_status_type type, uint64_t sequence,
                          const ngtcp2_cid *cid, const uint8_t *token, void *user)
{
    struct relay_quic_conn *conn = user;
    if (type != NGTCP2_CONNECTION_ID_STATUS_TYPE_ACTIVATE || conn->is_settled)
        return 0;
    conn->is_settled = sequence == 0;
    return conn->is_settled ? 0 : NGTCP2_ERR_CALLBACK_FAILURE;
}

static int on_handshake_confirmed(ngtcp2_conn *qc, void *user)
{
    struct relay_quic_conn *conn = user;
    return conn->is_settled ? 0 : NGTCP2_ERR_CALLBACK_FAILURE;
}

static int on_path_validation(ngtcp2_conn *qc, uint32_t flags, const ngtcp2_path *path,
                              const ngtcp2_path *old_path, ngtcp2_path_validation_result result, void *user)
{
    struct relay_quic_conn *conn = user;
    if (result != NGTCP2_PATH_VALIDATION_RESULT_SUCCESS)
        return 0;
    conn->restart_mtu = true; /* ngtcp2 has begun to probe the new path */
    if (conn->host_cb != NULL)
        conn->host_cb->on_migrated(conn->host);
    return 0;
}

static int on_recv_stateless_reset(ngtcp2_conn *qc, const ngtcp2_pkt_stateless_reset *reset, void *user)
{
    struct relay_quic_conn *conn = user;
    conn->close_error = RELAY_ERR_RESET;
    return 0;
}

static int on_recv_new_token(ngtcp2_conn *qc, const uint8_t *token, size_t len, void *user)
{
    struct relay_quic_conn *conn = user;
    if (len <= TOKEN_MAX)
        relay_quic_memory_keep(conn->memory, RELAY_QUIC_TOKEN, relay_quic_conn_local(conn), token, len);
    return 0;
}

static _Thread_local bool has_opened;

bool relay_quic_has_opened(void)
{
    bool has = has_opened;
    has_opened = false;
    return has;
}

static int on_decrypt(uint8_t *dest, const ngtcp2_crypto_aead *aead, const ngtcp2_crypto_aead_ctx *ctx,
                      const uint8_t *sealed, size_t len, const uint8_t *nonce, size_t nonce_len,
                      const uint8_t *head, size_t head_len)
{
    int code = relay_quic_aead_decrypt(dest, aead, ctx, sealed, len, nonce, nonce_len, head, head_len);
    has_opened |= code == 0;
    return code;
}

#define COMMON_CALLBACKS                                                                                     \
    .recv_crypto_data = on_recv_crypto_data, .encrypt = relay_quic_aead_encrypt, .decrypt = on_decrypt,      \
    .hp_mask = relay_quic_aead_hp_mask, .update_key = relay_quic_aead_update_key,                            \
    .delete_crypto_aead_ctx = relay_quic_aead_delete_aead,                                                   \
    .delete_crypto_cipher_ctx = relay_quic_aead_delete_cipher,                                               \
    .get_path_challenge_data = ngtcp2_crypto_get_path_challenge_data_cb,                                     \
    .version_negotiation = ngtcp2_crypto_version_negotiation_cb, .rand = relay_quic_random,                  \
    .handshake_completed = on_handshake_completed, .recv_stream_data = on_recv_stream_data,                  \
    .acked_stream_data_offset = on_acked_stream_data, .stream_close = on_stream_close,                       \
    .stream_reset = on_stream_reset, .extend_max_stream_data = on_extend_max_stream_data,                    \
    .extend_max_local_streams_bidi = on_extend_max_streams,                                                  \
    .extend_max_local_streams_uni = on_extend_max_streams, .recv_datagram = on_recv_datagram,                \
    .get_new_connection_id = on_new_connection_id, .remove_connection_id = on_remove_connection_id,          \
    .path_validation = on_path_validation, .recv_stateless_reset = on_recv_stateless_reset

const ngtcp2_callbacks relay_quic_client_callbacks = {COMMON_CALLBACKS,
                                                      .client_initial = ngtcp2_crypto_client_initial_cb,
                                                      .recv_retry = ngtcp2_crypto_recv_retry_cb,
                                                      .recv_new_token = on_recv_new_token,
                                                      .dcid_status = on_dcid_status,
                                                      .handshake_confirmed = on_handshake_confirmed};

const ngtcp2_callbacks relay_quic_server_callbacks = {
    COMMON_CALLBACKS, .recv_client_initial = ngtcp2_crypto_recv_client_initial_cb,
    .recv_tx_key = on_send_key};
