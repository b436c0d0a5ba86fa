#include "lib/net/quic_conn.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "lib/net/metrics.h"
#include "lib/net/quic_conn_internal.h"
#include "lib/net/udp_batch.h"
#include "lib/wire/error.h"

#define PACKET_SIZE_MAX 1452 /* the last size probed */
#define UNI_WINDOW      65536
#define CLIENT_CIDS     4 /* of the server's that a client keeps for migrations */
/* Of the client's that a server keeps: the most ngtcp2 takes, and more than the client can use up by its moves. A server
 * without a spare one at a move begins to count IDs that it has retired (1.11): CONNECTION_ID_LIMIT_ERROR. */
#define SERVER_CIDS        8
#define DATAGRAM_FRAME_MAX 65535
#define STRANGER_WINDOWS   4 /* stream windows: what a client may send at once while nobody knows it */
#define SILENT_AFTER       3 /* PTO */

static ngtcp2_conn *get_conn(ngtcp2_crypto_conn_ref *ref)
{
    return ((struct relay_quic_conn *)ref->user_data)->qc;
}

/* ---- the end ---- */

void relay_quic_conn_free(struct relay_quic_conn *conn)
{
    relay_timer_stop(conn->loop, &conn->timer);
    relay_task_cancel(&conn->flush);
    relay_task_cancel(&conn->event);
    if (conn->host_cb != NULL) {
        uint64_t until =
            conn->qc == NULL ? 0 : relay_loop_now(conn->loop) + 3 * ngtcp2_conn_get_pto(conn->qc);
        conn->host_cb->on_gone(conn->host, conn->farewell, conn->farewell_len,
                               until); /* the path is the host's */
    } else if (conn->path != NULL) {
        relay_quic_conn_leave_path(conn);
    }
    if (conn->qc != NULL)
        ngtcp2_conn_del(conn->qc);
    relay_quic_tls_dispose(&conn->tls);
    relay_quic_memory_unref(conn->memory);
    relay_quic_runs_dispose(&conn->runs);
    free(conn->farewell);
    free(conn);
}

static void on_event(struct relay_task *task)
{
    struct relay_quic_conn *conn =
        (struct relay_quic_conn *)((char *)task - offsetof(struct relay_quic_conn, event));
    const struct relay_quic_user *cb = conn->cb;
    conn->cb = NULL;
    if (cb != NULL)
        cb->on_close(conn->user, conn->close_error, conn->close_code);
    relay_quic_conn_free(conn);
}

static void start_failing(struct relay_quic_conn *conn, int error, bool is_silent)
{
    if (conn->state != RELAY_QUIC_OPEN)
        return;
    conn->state = RELAY_QUIC_FAILING;
    if (conn->close_error == 0)
        conn->close_error = error;
    conn->is_silent = is_silent;
    relay_task_queue(conn->loop, &conn->flush);
}

void relay_quic_conn_end(struct relay_quic_conn *conn, int error, bool is_silent)
{
    start_failing(conn, error, is_silent);
}

/* The peer has closed: what its CONNECTION_CLOSE means. */
static int judge_peer_close(struct relay_quic_conn *conn)
{
    const ngtcp2_ccerr *ccerr = ngtcp2_conn_get_ccerr(conn->qc);
    if (ccerr->type == NGTCP2_CCERR_TYPE_APPLICATION) {
        conn->close_code = ccerr->error_code;
        return RELAY_ERR_CLOSED;
    }
    if ((ccerr->error_code & ~(uint64_t)0xff) == NGTCP2_CRYPTO_ERROR)
        return RELAY_ERR_TLS;
    if (ccerr->error_code == NGTCP2_CONNECTION_REFUSED)
        return RELAY_ERR_REFUSED;
    return ccerr->error_code == NGTCP2_NO_ERROR ? RELAY_ERR_CLOSED : RELAY_ERR_PROTOCOL;
}

static int judge_silent(struct relay_quic_conn *conn, int liberr)
{
    switch (liberr) {
    case NGTCP2_ERR_DRAINING:
        return judge_peer_close(conn);
    case NGTCP2_ERR_IDLE_CLOSE:
        return RELAY_ERR_IDLE;
    case NGTCP2_ERR_HANDSHAKE_TIMEOUT:
        relay_count(conn->loop->metrics->handshakes_timeout, 1);
        return RELAY_ERR_TIMEOUT;
    case NGTCP2_ERR_RECV_VERSION_NEGOTIATION:
        return RELAY_ERR_UNSUPPORTED;
    case NGTCP2_ERR_CLOSING:
    case NGTCP2_ERR_DROP_CONN:
    case NGTCP2_ERR_RETRY:
        return RELAY_ERR_CLOSED;
    default:
        return 0;
    }
}

void relay_quic_conn_fail(struct relay_quic_conn *conn, int liberr)
{
    if (conn->state != RELAY_QUIC_OPEN)
        return;
    int silent = judge_silent(conn, liberr);
    if (silent != 0) {
        start_failing(conn, silent, true);
    } else if (conn->app_error != 0) {
        ngtcp2_ccerr_set_application_error(&conn->ccerr, conn->app_error, NULL, 0);
        start_failing(conn, RELAY_ERR_PROTOCOL, false);
    } else if (liberr == NGTCP2_ERR_CRYPTO) {
        ngtcp2_ccerr_set_tls_alert(&conn->ccerr, ngtcp2_conn_get_tls_alert(conn->qc), NULL, 0);
        start_failing(conn, conn->tls.certificate_error != 0 ? conn->tls.certificate_error : RELAY_ERR_TLS,
                      false);
        relay_count(conn->loop->metrics->handshakes_failed, 1);
    } else {
        ngtcp2_ccerr_set_liberr(&conn->ccerr, liberr, NULL, 0);
        start_failing(conn, liberr == NGTCP2_ERR_NOMEM ? RELAY_ERR_NO_MEMORY : RELAY_ERR_PROTOCOL, false);
    }
}

void relay_quic_conn_close(struct relay_quic_conn *conn, uint64_t code, int error)
{
    if (conn->state != RELAY_QUIC_OPEN)
        return;
    ngtcp2_ccerr_set_application_error(&conn->ccerr, code, NULL, 0);
    start_failing(conn, error, false);
}

/* ---- time ---- */

static void watch_path(struct relay_quic_conn *conn)
{
    ngtcp2_conn_info info;
    ngtcp2_conn_get_conn_info(conn->qc, &info);
    struct relay_quic_mtu_signs signs = {.rtt = info.latest_rtt + info.smoothed_rtt,
                                         .flight = info.bytes_in_flight,
                                         .cwnd = info.cwnd,
                                         .pto = ngtcp2_conn_get_pto(conn->qc),
                                         .now = relay_loop_now(conn->loop)};
    if (relay_quic_mtu_watch(&conn->mtu, &signs))
        relay_count(conn->loop->metrics->quic_mtu_hole, 1);
}

static void on_timer(struct relay_timer *timer)
{
    struct relay_quic_conn *conn =
        (struct relay_quic_conn *)((char *)timer - offsetof(struct relay_quic_conn, timer));
    if (conn->state != RELAY_QUIC_OPEN)
        return;
    watch_path(conn);
    conn->inside++;
    int code = ngtcp2_conn_handle_expiry(conn->qc, relay_loop_now(conn->loop));
    conn->inside--;
    if (code != 0)
        relay_quic_conn_fail(conn, code);
    relay_task_queue(conn->loop, &conn->flush);
}

/* ---- what comes ---- */

/* A client that announces little is at the far end of a narrow path, and does not know how narrow. Its
 * transport parameters come with its first flight. */
static void heed_way_back(struct relay_quic_conn *conn)
{
    const ngtcp2_transport_params *params = ngtcp2_conn_get_remote_transport_params(conn->qc);
    if (params != NULL && params->max_udp_payload_size < PACKET_SIZE_MAX)
        relay_quic_mtu_begin_least(&conn->mtu);
}

void relay_quic_conn_read(struct relay_quic_conn *conn, const struct sockaddr *local,
                          const struct sockaddr *peer, const uint8_t *packet, size_t len, uint8_t ecn)
{
    ngtcp2_pkt_info info = {.ecn = ecn};
    ngtcp2_path path = {.local = {(ngtcp2_sockaddr *)local, relay_udp_address_size(local)},
                        .remote = {(ngtcp2_sockaddr *)peer, relay_udp_address_size(peer)}};
    if (conn->state != RELAY_QUIC_OPEN || conn->inside > 0)
        return;
    uint64_t now = relay_loop_now(conn->loop);
    if (conn->is_heard != NULL)
        *conn->is_heard = true;
    conn->inside++;
    relay_quic_has_opened();
    int code = ngtcp2_conn_read_pkt(conn->qc, &path, &info, packet, len, now);
    conn->inside--;
    if (code != 0)
        relay_quic_conn_fail(conn, code);
    else if (relay_quic_has_opened())
        conn->last_received = now;
    if (conn->is_server && !conn->is_ready)
        heed_way_back(conn);
    relay_task_queue(conn->loop, &conn->flush);
}

static void on_packet(void *user, uint8_t *packet, size_t len, uint8_t ecn)
{
    struct relay_quic_conn *conn = user;
    if (conn->path != NULL)
        relay_quic_conn_read(conn, (struct sockaddr *)&conn->path->local,
                             (struct sockaddr *)&conn->path->peer, packet, len, ecn);
}

static void on_path_event(void *user)
{
    relay_quic_conn_mark_dirty(user);
}

/* A nested connection that is up may go on over another path (relay_quic_conn_migrate); its idle timeout ends
 * it otherwise. */
static void on_path_close(void *user, int error)
{
    struct relay_quic_conn *conn = user;
    if (conn->path != NULL)
        conn->path->ops->close(conn->path);
    conn->path = NULL;
    if (!conn->is_nested || !conn->is_ready)
        start_failing(conn, error, true);
}

static const struct relay_packet_path_user path_user = {
    .on_packet = on_packet, .on_writable = on_path_event, .on_mtu = on_path_event, .on_close = on_path_close};

/* ---- the beginning ---- */

static struct relay_quic_conn *new_conn(struct relay_loop *loop, struct relay_packet_path *path,
                                        enum relay_level level)
{
    struct relay_quic_conn *conn = calloc(1, sizeof(*conn));
    if (conn == NULL)
        return NULL;
    conn->loop = loop;
    conn->path = path;
    conn->preface_stream = -1;
    conn->last_received = relay_loop_now(loop);
    relay_timer_init(&conn->timer, on_timer);
    relay_task_init(&conn->flush, level, relay_quic_conn_flush);
    relay_task_init(&conn->event, RELAY_LEVEL_EVENT, on_event);
    relay_quic_runs_init(&conn->runs);
    ngtcp2_ccerr_default(&conn->ccerr);
    return conn;
}

static void fill_settings(struct relay_quic_conn *conn, ngtcp2_settings *settings,
                          const struct relay_limits *limits)
{
    const struct sockaddr_in6 *peer = (const struct sockaddr_in6 *)&conn->path->peer;
    bool is_ipv6 = peer->sin6_family == AF_INET6 && !IN6_IS_ADDR_V4MAPPED(&peer->sin6_addr);
    relay_quic_mtu_init(&conn->mtu, is_ipv6, conn->is_nested, conn->path->ops->mtu(conn->path));
    ngtcp2_settings_default(settings);
    settings->cc_algo = NGTCP2_CC_ALGO_CUBIC;
    settings->initial_ts = relay_loop_now(conn->loop);
    settings->initial_rtt = 100 * RELAY_MS;
    settings->handshake_timeout = limits->handshake_timeout;
    settings->max_tx_udp_payload_size = PACKET_SIZE_MAX;
    settings->no_tx_udp_payload_size_shaping = 1;
    settings->no_pmtud = conn->mtu.num_probes == 0;
    settings->pmtud_probes = conn->mtu.probes;
    settings->pmtud_probeslen = conn->mtu.num_probes;
}

/* ngtcp2 keeps what comes out of order, in pieces of 4 KiB: one byte of each costs a client nearly nothing. */
static uint64_t stranger_window(const struct relay_limits *limits)
{
    uint64_t window = (uint64_t)STRANGER_WINDOWS * limits->window_initial;
    return window < limits->window_max ? window : limits->window_max;
}

static void fill_params(ngtcp2_transport_params *params, const struct relay_limits *limits, bool is_server)
{
    ngtcp2_transport_params_default(params);
    params->initial_max_stream_data_bidi_local = limits->window_initial;
    params->initial_max_stream_data_bidi_remote = limits->window_initial;
    params->initial_max_stream_data_uni = UNI_WINDOW;
    params->initial_max_data = is_server ? stranger_window(limits) : limits->window_max;
    params->initial_max_streams_bidi = is_server ? limits->max_streams : 0;
    params->initial_max_streams_uni = RELAY_QUIC_UNI_STREAMS;
    params->max_idle_timeout = limits->quic_idle_timeout;
    params->active_connection_id_limit = is_server ? SERVER_CIDS : CLIENT_CIDS;
    params->max_datagram_frame_size = DATAGRAM_FRAME_MAX;
}

static ngtcp2_path path_of(struct relay_packet_path *path)
{
    return (ngtcp2_path){
        .local = {(ngtcp2_sockaddr *)&path->local, relay_udp_address_size((struct sockaddr *)&path->local)},
        .remote = {(ngtcp2_sockaddr *)&path->peer, relay_udp_address_size((struct sockaddr *)&path->peer)}};
}

int relay_quic_server_conn_new(const struct relay_quic_server_config *config, struct relay_quic_conn **made)
{
    ngtcp2_settings settings;
    ngtcp2_transport_params params;
    const ngtcp2_pkt_hd *initial = config->initial;
    struct relay_quic_conn *conn = new_conn(config->loop, config->path, RELAY_LEVEL_FLUSH_OUTER);
    *made = NULL;
    if (conn == NULL)
        return RELAY_ERR_NO_MEMORY;
    conn->is_server = true;
    conn->preface = config->preface;
    conn->max_streams = config->limits->max_streams;
    conn->window_later = config->limits->window_max - stranger_window(config->limits);
    fill_settings(conn, &settings, config->limits);
    fill_params(&params, config->limits, true);
    params.original_dcid_present = 1;
    params.original_dcid = initial->dcid;
    if (config->original_dcid != NULL) {
        params.original_dcid = *config->original_dcid;
        params.retry_scid_present = 1;
        params.retry_scid = initial->dcid;
        settings.token_type = NGTCP2_TOKEN_TYPE_RETRY;
    } else if (config->is_known) {
        settings.token_type = NGTCP2_TOKEN_TYPE_NEW_TOKEN;
    }
    if (settings.token_type != NGTCP2_TOKEN_TYPE_UNKNOWN) {
        settings.token = initial->token;
        settings.tokenlen = initial->tokenlen;
    }
    params.stateless_reset_token_present = 1;
    memcpy(params.stateless_reset_token, config->reset_token, sizeof(params.stateless_reset_token));
    ngtcp2_path path = path_of(config->path);
    int code = ngtcp2_conn_server_new(&conn->qc, &initial->scid, &config->scid, &path, initial->version,
                                      &relay_quic_server_callbacks, &settings, &params, NULL, conn);
    if (code != 0)
        conn->qc = NULL; /* ngtcp2 has set and freed it */
    int error = code == 0 ? relay_quic_tls_init(&conn->tls, config->credentials, NULL, get_conn, conn)
                          : RELAY_ERR_NO_MEMORY;
    if (error != 0) {
        conn->path = NULL;
        relay_quic_conn_free(conn);
        return error;
    }
    ngtcp2_conn_set_tls_native_handle(conn->qc, conn->tls.session);
    conn->host_cb = config->host_cb;
    conn->host = config->host;
    *made = conn;
    return 0;
}

struct relay_quic_conn *relay_quic_connect(struct relay_loop *loop, struct relay_packet_path *path,
                                           const struct relay_quic_client_config *config,
                                           const struct relay_quic_user *cb, void *user)
{
    ngtcp2_settings settings;
    ngtcp2_transport_params params;
    ngtcp2_cid dcid = {.datalen = RELAY_QUIC_CID_SIZE}, scid = {.datalen = RELAY_QUIC_CID_SIZE};
    struct relay_quic_conn *conn = new_conn(loop, path, config->level);
    if (conn == NULL) {
        path->ops->close(path);
        return NULL;
    }
    conn->cb = cb;
    conn->user = user;
    conn->is_nested = config->is_nested;
    conn->keep_alive = config->keep_alive;
    conn->keeps_alive = conn->asks_soon = config->keep_alive != 0;
    conn->is_heard = config->is_heard;
    conn->closing = config->closing;
    fill_settings(conn, &settings, config->limits);
    fill_params(&params, config->limits, false);
    if (config->initial_rtt != 0)
        settings.initial_rtt = config->initial_rtt;
    conn->ceiling = path->ops->mtu(path);
    if (config->max_udp_payload != 0) {
        conn->ceiling = config->max_udp_payload;
        if (conn->ceiling < NGTCP2_MAX_UDP_PAYLOAD_SIZE)
            conn->ceiling = NGTCP2_MAX_UDP_PAYLOAD_SIZE;
        params.max_udp_payload_size = conn->ceiling;
    }
    relay_quic_random(dcid.data, dcid.datalen, NULL);
    relay_quic_random(scid.data, scid.datalen, NULL);
    ngtcp2_path ng_path = path_of(path);
    conn->memory = relay_quic_memory_ref(config->memory);
    uint8_t *token = relay_quic_memory_take(conn->memory, RELAY_QUIC_TOKEN, (struct sockaddr *)&path->local,
                                            &settings.tokenlen);
    settings.token = token;
    settings.token_type = token != NULL ? NGTCP2_TOKEN_TYPE_NEW_TOKEN : NGTCP2_TOKEN_TYPE_UNKNOWN;
    int code = ngtcp2_conn_client_new(&conn->qc, &dcid, &scid, &ng_path, NGTCP2_PROTO_VER_V1,
                                      &relay_quic_client_callbacks, &settings, &params, NULL, conn);
    free(token); /* ngtcp2 has a copy */
    if (code != 0)
        conn->qc = NULL; /* ngtcp2 has set and freed it */
    if (code != 0 ||
        relay_quic_tls_init(&conn->tls, config->credentials, config->server_name, get_conn, conn) != 0) {
        relay_quic_conn_free(conn);
        return NULL;
    }
    relay_quic_tls_remember(&conn->tls, conn->memory, (struct sockaddr *)&path->local);
    ngtcp2_conn_set_tls_native_handle(conn->qc, conn->tls.session);
    path->cb = &path_user;
    path->user = conn;
    relay_task_queue(loop, &conn->flush);
    return conn;
}

static int migration_error(struct relay_quic_conn *conn, int code)
{
    const ngtcp2_transport_params *params = ngtcp2_conn_get_remote_transport_params(conn->qc);
    if (code == NGTCP2_ERR_NOMEM)
        return RELAY_ERR_NO_MEMORY;
    if (code == NGTCP2_ERR_CONN_ID_BLOCKED)
        return RELAY_ERR_LIMIT;
    bool is_denied =
        (params != NULL && params->disable_active_migration) || ngtcp2_conn_get_dcid(conn->qc)->datalen == 0;
    return is_denied ? RELAY_ERR_DENIED : RELAY_ERR_UNSUPPORTED;
}

int relay_quic_conn_migrate(struct relay_quic_conn *conn, struct relay_packet_path *path)
{
    ngtcp2_path ng_path = path_of(path);
    int code = NGTCP2_ERR_INVALID_STATE;
    if (conn->state == RELAY_QUIC_OPEN && !conn->is_server && conn->inside == 0)
        code = ngtcp2_conn_initiate_immediate_migration(conn->qc, &ng_path, relay_loop_now(conn->loop));
    if (code != 0) {
        path->ops->close(path);
        return migration_error(conn, code);
    }
    if (conn->path != NULL)
        conn->path->ops->close(conn->path);
    conn->path = path;
    path->cb = &path_user;
    path->user = conn;
    relay_quic_mtu_restart(&conn->mtu);
    relay_count(conn->loop->metrics->quic_migrations, 1);
    relay_task_queue(conn->loop, &conn->flush);
    return 0;
}

void relay_quic_conn_set_user(struct relay_quic_conn *conn, const struct relay_quic_user *cb, void *user)
{
    conn->cb = cb;
    conn->user = user;
}

/* ---- streams ---- */

static int open_error(int code)
{
    if (code == 0)
        return 0;
    return code == NGTCP2_ERR_STREAM_ID_BLOCKED ? RELAY_ERR_LIMIT : RELAY_ERR_NO_MEMORY;
}

int relay_quic_conn_open_bidi(struct relay_quic_conn *conn, int64_t *stream)
{
    if (conn->state != RELAY_QUIC_OPEN || !conn->is_ready)
        return RELAY_ERR_LIMIT;
    return open_error(ngtcp2_conn_open_bidi_stream(conn->qc, stream, NULL));
}

int relay_quic_conn_open_uni(struct relay_quic_conn *conn, int64_t *stream)
{
    if (conn->state != RELAY_QUIC_OPEN || !conn->is_ready)
        return RELAY_ERR_LIMIT;
    return open_error(ngtcp2_conn_open_uni_stream(conn->qc, stream, NULL));
}

static void check(struct relay_quic_conn *conn, int code)
{
    if (code != 0)
        relay_quic_conn_fail(conn, code);
    relay_quic_conn_mark_dirty(conn);
}

void relay_quic_conn_reset_stream(struct relay_quic_conn *conn, int64_t stream, uint64_t code)
{
    if (conn->state == RELAY_QUIC_OPEN)
        check(conn, ngtcp2_conn_shutdown_stream(conn->qc, 0, stream, code));
}

void relay_quic_conn_stop_stream(struct relay_quic_conn *conn, int64_t stream, uint64_t code)
{
    if (conn->state == RELAY_QUIC_OPEN)
        check(conn, ngtcp2_conn_shutdown_stream_read(conn->qc, 0, stream, code));
}

void relay_quic_conn_credit_stream(struct relay_quic_conn *conn, int64_t stream, uint64_t len)
{
    if (conn->state == RELAY_QUIC_OPEN)
        check(conn, ngtcp2_conn_extend_max_stream_offset(conn->qc, stream, len));
}

void relay_quic_conn_credit(struct relay_quic_conn *conn, uint64_t len)
{
    if (conn->state != RELAY_QUIC_OPEN)
        return;
    ngtcp2_conn_extend_max_offset(conn->qc, len);
    relay_quic_conn_mark_dirty(conn);
}

void relay_quic_conn_widen(struct relay_quic_conn *conn)
{
    if (conn->window_later > 0)
        relay_quic_conn_credit(conn, conn->window_later);
    conn->window_later = 0;
}

void relay_quic_conn_allow_streams(struct relay_quic_conn *conn, uint64_t max_streams)
{
    if (conn->state != RELAY_QUIC_OPEN || max_streams <= conn->max_streams)
        return;
    ngtcp2_conn_extend_max_streams_bidi(conn->qc, (size_t)(max_streams - conn->max_streams));
    conn->max_streams = max_streams;
    relay_quic_conn_mark_dirty(conn);
}

/* ---- its figures ---- */

struct relay_loop *relay_quic_conn_loop(struct relay_quic_conn *conn)
{
    return conn->loop;
}

const struct sockaddr *relay_quic_conn_peer(struct relay_quic_conn *conn)
{
    return (const struct sockaddr *)ngtcp2_conn_get_path(conn->qc)->remote.addr;
}

const struct sockaddr *relay_quic_conn_local(struct relay_quic_conn *conn)
{
    return (const struct sockaddr *)ngtcp2_conn_get_path(conn->qc)->local.addr;
}

uint64_t relay_quic_conn_srtt(struct relay_quic_conn *conn)
{
    ngtcp2_conn_info info;
    ngtcp2_conn_get_conn_info(conn->qc, &info);
    return info.smoothed_rtt;
}

int64_t relay_quic_conn_preface(const struct relay_quic_conn *conn)
{
    return conn->preface_stream;
}

bool relay_quic_conn_is_ready(struct relay_quic_conn *conn)
{
    return conn->is_ready && conn->state == RELAY_QUIC_OPEN;
}

bool relay_quic_conn_is_silent(struct relay_quic_conn *conn)
{
    ngtcp2_conn_info info;
    uint64_t since = conn->flight_since > conn->last_received ? conn->flight_since : conn->last_received;
    ngtcp2_conn_get_conn_info(conn->qc, &info);
    return info.bytes_in_flight > 0 &&
           relay_loop_now(conn->loop) > since + SILENT_AFTER * ngtcp2_conn_get_pto(conn->qc);
}

uint64_t relay_quic_conn_last_received(const struct relay_quic_conn *conn)
{
    return conn->last_received;
}

void relay_quic_conn_mark_dirty(struct relay_quic_conn *conn)
{
    if (conn->state != RELAY_QUIC_CLOSED)
        relay_task_queue(conn->loop, &conn->flush);
}

size_t relay_quic_conn_ceiling(struct relay_quic_conn *conn)
{
    return conn->ceiling < PACKET_SIZE_MAX ? conn->ceiling : PACKET_SIZE_MAX;
}
