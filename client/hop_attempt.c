/* One try to connect to a hop with one HTTP version: a QUIC connection over a socket or a tunnel, or TLS over
 * either. */
#include "client/hop_internal.h"

#include <stdio.h>
#include <string.h>

#include "client/hop_request.h"
#include "lib/net/http2.h"
#include "lib/net/http3.h"
#include "lib/net/path_socket.h"
#include "lib/net/path_tunnel.h"
#include "lib/net/quic_conn.h"
#include "lib/net/stream_tunnel.h"
#include "lib/wire/error.h"

#define KEEP_ALIVE (20 * RELAY_SECOND) /* under the 30 s that address translators and other relays grant */
/* What a hop takes of each packet that it carries: 30 bytes of a packet with a DATAGRAM frame in it, quarter
 * stream ID and context ID. */
#define HOP_OVERHEAD 32

static enum relay_level level_of(const struct relay_hop *hop)
{
    return (enum relay_level)(RELAY_LEVEL_FLUSH_OUTER - (int)hop->params.number + 1);
}

static struct relay_quic_conn *quic_of(const struct relay_hop *hop)
{
    struct relay_session *session = relay_hop_session(hop);
    return session != NULL && session->version == RELAY_HTTP_3 ? relay_http3_conn(session) : NULL;
}

/* ---- the session's callbacks ---- */

static void on_session_ready(void *user)
{
    relay_hop_attempt_ready(user);
}

/* What the relay said about it is worth more than what we saw of it. */
static void note_peer_code(struct relay_attempt *attempt)
{
    const struct relay_session *session = attempt->session;
    if (session->peer_code != 0)
        relay_close_print(session->version, session->peer_code, attempt->text, sizeof(attempt->text));
}

static void on_session_goaway(void *user)
{
    note_peer_code(user);
    relay_hop_attempt_goaway(user);
}

static void on_session_close(void *user, int error)
{
    struct relay_attempt *attempt = user;
    note_peer_code(attempt);
    attempt->session = NULL;
    relay_hop_attempt_failed(attempt, error != RELAY_OK ? error : RELAY_ERR_CLOSED);
    relay_hop_attempt_gone(attempt);
}

static const struct relay_session_user session_cb = {
    .on_ready = on_session_ready, .on_goaway = on_session_goaway, .on_close = on_session_close};

/* ---- the carrier ---- */

/* Whose fault is it? Of a connection that this hop refused its carrier only tells. */
static void on_refused(void *user, const struct relay_refusal *refusal)
{
    struct relay_attempt *attempt = user;
    struct relay_hop *hop = attempt->hop, *carrier = hop->params.carrier;
    char why[160];
    if (refusal->error == RELAY_ERR_REFUSED) {
        if (hop->state == RELAY_HOP_CONNECTING)
            snprintf(attempt->text, sizeof(attempt->text), "%s, says hop %u",
                     relay_refusal_print(refusal, 0, why, sizeof(why)), relay_hop_number(carrier));
        return;
    }
    attempt->is_carrier_fault = true;
    relay_failure_set(&attempt->closed, refusal->error, relay_hop_number(carrier),
                      relay_hop_authority(carrier), "no way to hop %u (%s): %s", hop->params.number,
                      hop->place->authority,
                      relay_refusal_print(refusal, relay_hop_tokenless(carrier), why, sizeof(why)));
}

static void on_lost(void *user, int error)
{
    (void)error;
    relay_hop_attempt_path_lost(user);
}

static size_t room_of(void *session)
{
    struct relay_quic_conn *conn = relay_http3_conn(session);
    return conn != NULL ? relay_quic_conn_room(conn) : 0;
}

struct relay_packet_path *relay_hop_open_path(struct relay_hop *hop, struct relay_hop *carrier,
                                              struct relay_attempt *attempt)
{
    struct relay_hop_request request;
    struct relay_session *session = relay_hop_session(carrier);
    if (session == NULL || session->version != RELAY_HTTP_3 ||
        relay_hop_request_init(&request, carrier->params.config, carrier->place, true, &hop->place->host,
                               hop->place->port) != 0)
        return NULL;
    attempt->is_carrier_fault = false;
    struct relay_path_tunnel_config config = {
        .session = session,
        .request = &request.head,
        .room = room_of,
        .carrier = session,
        .on_refused = on_refused,
        .on_lost = on_lost,
        .user = attempt,
    };
    struct relay_packet_path *path = relay_path_tunnel_open(&config);
    relay_hop_request_wipe(&request);
    return path;
}

/* ---- HTTP/3 ---- */

void relay_attempt_start_http3(struct relay_attempt *attempt, const struct relay_address *address)
{
    struct relay_hop *hop = attempt->hop, *carrier = hop->params.carrier;
    struct relay_packet_path *path = NULL;
    int error = RELAY_ERR_LIMIT;
    struct relay_quic_client_config config = {
        .credentials = hop->params.trust->places[hop->params.place].quic,
        .server_name = hop->place->host.name,
        .limits = &hop->params.environment->limits,
        .budget = &hop->params.environment->budget,
        .level = level_of(hop),
        .keep_alive = hop->params.is_last ? KEEP_ALIVE : 0,
        .is_heard = &attempt->is_heard,
        .closing = &hop->params.environment->num_hops,
    };
    attempt->is_http3 = attempt->started = true;
    if (carrier != NULL) {
        config.is_nested = true;
        config.initial_rtt = relay_quic_conn_srtt(quic_of(carrier));
        config.max_udp_payload = relay_quic_conn_ceiling(quic_of(carrier)) - HOP_OVERHEAD;
        path = relay_hop_open_path(hop, carrier, attempt);
    } else {
        struct sockaddr_storage peer;
        relay_address_to_sockaddr(address, hop->place->port, &peer);
        config.memory = hop->params.trust->places[hop->params.place].memory;
        error = relay_path_socket_new(hop->loop, (struct sockaddr *)&peer, NULL, &path);
    }
    if (path != NULL) {
        error = RELAY_ERR_NO_MEMORY;
        attempt->session = relay_http3_connect(hop->loop, path, &config, &session_cb, attempt);
    }
    if (attempt->session == NULL)
        relay_hop_attempt_failed(attempt, error);
}

/* ---- HTTP/2 ---- */

static void on_tls_ready(void *user)
{
    struct relay_attempt *attempt = user;
    struct relay_hop *hop = attempt->hop;
    struct relay_stream *stream = attempt->stream;
    attempt->stream = NULL;
    if (strcmp(relay_stream_alpn(stream), "h2") != 0) {
        relay_stream_close(stream);
        snprintf(attempt->text, sizeof(attempt->text), "the relay does not speak HTTP/2");
        relay_hop_attempt_failed(attempt, RELAY_ERR_UNSUPPORTED);
        return;
    }
    attempt->session =
        relay_http2_client(stream, &hop->params.environment->limits, &hop->params.environment->budget,
                           level_of(hop), &session_cb, attempt);
    if (attempt->session == NULL)
        relay_hop_attempt_failed(attempt, RELAY_ERR_NO_MEMORY);
    else if (hop->params.is_last)
        relay_http2_ask_soon(attempt->session);
}

static void on_tls_close(void *user, int error)
{
    struct relay_attempt *attempt = user;
    relay_stream_close(attempt->stream);
    attempt->stream = NULL;
    relay_hop_attempt_failed(attempt, error);
}

static void on_tls_bytes(void *user, uint8_t *bytes, size_t len)
{
    (void)user; /* none before on_ready, and after it the session is the user */
    (void)bytes;
    (void)len;
}

static void on_tls_fin(void *user)
{
    on_tls_close(user, RELAY_ERR_CLOSED);
}

static void on_tls_writable(void *user)
{
    (void)user; /* nothing was sent */
}

static const struct relay_stream_user tls_cb = {on_tls_ready, on_tls_bytes, on_tls_fin, on_tls_writable,
                                                on_tls_close};

/* Takes `lower`. */
static void start_tls(struct relay_attempt *attempt, struct relay_stream *lower)
{
    struct relay_hop *hop = attempt->hop;
    if (lower != NULL)
        attempt->stream = relay_stream_tls_connect(lower, hop->params.trust->places[hop->params.place].tls,
                                                   hop->place->host.name);
    if (attempt->stream != NULL)
        relay_stream_start(attempt->stream, &tls_cb, attempt);
    else
        relay_hop_attempt_failed(attempt, RELAY_ERR_NO_MEMORY);
}

static void on_dialled(void *user, int fd, const struct relay_address *address, int error)
{
    struct relay_attempt *attempt = user;
    struct sockaddr_storage peer;
    attempt->dial = NULL;
    if (fd < 0) {
        relay_hop_attempt_failed(attempt, error);
        return;
    }
    relay_address_to_sockaddr(address, attempt->hop->place->port, &peer);
    start_tls(attempt, relay_stream_tcp(attempt->hop->loop, fd, (struct sockaddr *)&peer));
}

static struct relay_stream *open_stream(struct relay_attempt *attempt)
{
    struct relay_hop *hop = attempt->hop, *carrier = hop->params.carrier;
    struct relay_hop_request request;
    struct relay_session *session = relay_hop_session(carrier);
    if (session == NULL || relay_hop_request_init(&request, carrier->params.config, carrier->place, false,
                                                  &hop->place->host, hop->place->port) != 0)
        return NULL;
    struct relay_stream *stream = relay_stream_tunnel_open(session, &request.head, on_refused, attempt);
    relay_hop_request_wipe(&request);
    return stream;
}

void relay_attempt_start_http2(struct relay_attempt *attempt)
{
    static const struct relay_dial_config config = {.attempt_delay = 250 * RELAY_MS,
                                                    .timeout = RELAY_HOP_TIMEOUT};
    struct relay_hop *hop = attempt->hop;
    attempt->started = true;
    if (hop->params.carrier != NULL) {
        start_tls(attempt, open_stream(attempt));
        return;
    }
    attempt->dial = relay_tcp_dial_start(hop->loop, &config, hop->addresses, hop->num_addresses,
                                         hop->more_follow, hop->place->port, on_dialled, attempt);
    if (attempt->dial == NULL)
        relay_hop_attempt_failed(attempt, RELAY_ERR_NO_MEMORY);
}

void relay_attempt_add_addresses(struct relay_attempt *attempt, const struct relay_address *addresses,
                                 size_t num)
{
    if (attempt->dial != NULL)
        relay_tcp_dial_add(attempt->dial, addresses, num);
}

void relay_attempt_stop(struct relay_attempt *attempt)
{
    if (attempt->dial != NULL)
        relay_tcp_dial_cancel(attempt->dial);
    attempt->dial = NULL;
    if (attempt->stream != NULL)
        relay_stream_close(attempt->stream);
    attempt->stream = NULL;
    if (attempt->session != NULL && !attempt->stopped)
        relay_session_close(attempt->session, RELAY_ERR_CANCELLED);
    attempt->stopped = true;
}
