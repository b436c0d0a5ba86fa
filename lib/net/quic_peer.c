/* The endpoint's side of one connection: its packet path over the shared socket, its connection IDs, and its
 * tombstone. */
#include "lib/net/quic_endpoint_internal.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <ngtcp2/ngtcp2_crypto.h>

#include "lib/net/metrics.h"
#include "lib/wire/error.h"

#define PATH_MTU       1452 /* what an interface of 1500 takes of either family */
#define PATH_MTU_SMALL 1232 /* after the kernel has refused more */
#define TOMBSTONES_MAX 4096

static struct relay_quic_peer *of(struct relay_packet_path *path)
{
    return (struct relay_quic_peer *)path;
}

/* ---- packet path ---- */

static size_t path_send(struct relay_packet_path *path, const uint8_t *run, size_t len, size_t segment)
{
    struct relay_quic_peer *peer = of(path);
    struct relay_quic_socket *socket = peer->socket;
    const struct sockaddr *local = socket->is_wildcard ? (const struct sockaddr *)&path->local : NULL;
    size_t taken = 0;
    switch (relay_udp_send(socket->fd, &socket->gso, (const struct sockaddr *)&path->peer, local, run, len,
                           segment, &taken)) {
    case RELAY_UDP_TOO_BIG:
        peer->mtu = PATH_MTU_SMALL;
        return len;
    case RELAY_UDP_BLOCKED:
        peer->is_blocked = socket->is_blocked = true;
        relay_io_arm(socket->io, RELAY_IO_READ | RELAY_IO_WRITE);
        return taken;
    case RELAY_UDP_SENT:
    case RELAY_UDP_REFUSED: /* an unconnected socket is not told whose datagram it was */
        return len;
    }
    return len;
}

static size_t path_mtu(struct relay_packet_path *path)
{
    return of(path)->mtu;
}

static size_t path_room(struct relay_packet_path *path)
{
    return of(path)->is_blocked ? 0 : SIZE_MAX;
}

static void path_close(struct relay_packet_path *path)
{
    (void)path; /* on_gone follows */
}

static const struct relay_packet_path_ops path_ops = {
    .send = path_send, .mtu = path_mtu, .room = path_room, .close = path_close};

void relay_quic_peer_unblock(struct relay_quic_peer *peer)
{
    if (!peer->is_blocked)
        return;
    peer->is_blocked = false;
    if (peer->conn != NULL)
        relay_quic_conn_mark_dirty(peer->conn);
}

/* ---- connection IDs ---- */

static int add_cid(struct relay_quic_peer *peer, const ngtcp2_cid *cid)
{
    if (peer->num_cids == peer->cids_size) {
        size_t size = peer->cids_size == 0 ? 8 : peer->cids_size * 2;
        ngtcp2_cid *larger = realloc(peer->cids, size * sizeof(*larger));
        if (larger == NULL)
            return RELAY_ERR_NO_MEMORY;
        peer->cids = larger;
        peer->cids_size = size;
    }
    int error = relay_quic_cids_add(&peer->endpoint->cids, cid->data, cid->datalen, peer);
    if (error == 0)
        peer->cids[peer->num_cids++] = *cid;
    return error;
}

static int make_cid(struct relay_quic_peer *peer, ngtcp2_cid *cid, uint8_t *token)
{
    struct relay_quic_endpoint *endpoint = peer->endpoint;
    const struct relay_quic_steering *steering = relay_quic_group_steering(endpoint->group);
    cid->datalen = RELAY_QUIC_CID_SIZE;
    do
        relay_quic_steering_issue(steering, endpoint->worker, cid->data, cid->datalen);
    while (relay_quic_cids_find(&endpoint->cids, cid->data, cid->datalen) != NULL);
    if (ngtcp2_crypto_generate_stateless_reset_token(
            token, relay_quic_credentials_reset_secret(endpoint->credentials), RELAY_QUIC_RESET_SIZE, cid) !=
        0)
        return RELAY_ERR_INTERNAL;
    return add_cid(peer, cid);
}

static int on_issue_cid(void *host, ngtcp2_cid *cid, uint8_t *token)
{
    return make_cid(host, cid, token);
}

static void on_retire_cid(void *host, const ngtcp2_cid *cid)
{
    struct relay_quic_peer *peer = host;
    relay_quic_cids_remove(&peer->endpoint->cids, cid->data, cid->datalen, peer);
    for (size_t i = 0; i < peer->num_cids; i++)
        if (ngtcp2_cid_eq(&peer->cids[i], cid)) {
            peer->cids[i] = peer->cids[--peer->num_cids];
            break;
        }
}

/* ---- life ---- */

static void unlink_peer(struct relay_quic_peer **list, struct relay_quic_peer *peer)
{
    if (peer->prev != NULL)
        peer->prev->next = peer->next;
    else
        *list = peer->next;
    if (peer->next != NULL)
        peer->next->prev = peer->prev;
    peer->prev = peer->next = NULL;
}

static void link_peer(struct relay_quic_peer **list, struct relay_quic_peer *peer)
{
    peer->prev = NULL;
    peer->next = *list;
    if (*list != NULL)
        (*list)->prev = peer;
    *list = peer;
}

static void end_half_open(struct relay_quic_peer *peer)
{
    if (!peer->handshake.is_counted)
        return;
    relay_quic_half_open_remove(&peer->endpoint->half_open, &peer->handshake);
    relay_count(peer->endpoint->loop->metrics->open_half, -1);
}

/* Without a word, and only marked: it may be the one whose packets are being read. It is freed by a task of this turn. */
static void make_room(struct relay_quic_endpoint *endpoint)
{
    while (endpoint->half_open.count > endpoint->limits->half_open_max) {
        struct relay_quic_handshake *victim = relay_quic_half_open_victim(&endpoint->half_open);
        struct relay_quic_peer *peer =
            (struct relay_quic_peer *)((char *)victim - offsetof(struct relay_quic_peer, handshake));
        end_half_open(peer);
        relay_quic_conn_end(peer->conn, RELAY_ERR_LIMIT, true);
        relay_count(endpoint->loop->metrics->limit_half_open, 1);
    }
}

void relay_quic_peer_refuse(struct relay_quic_peer *peer)
{
    struct relay_quic_conn *conn = peer->conn;
    if (conn->cb != NULL || conn->state != RELAY_QUIC_OPEN)
        return;
    ngtcp2_ccerr_set_transport_error(&conn->ccerr, NGTCP2_CONNECTION_REFUSED, NULL, 0);
    relay_quic_conn_end(conn, RELAY_ERR_LIMIT, false);
}

/* What lets the client skip Retry when it comes again from this address (RFC 9000 section 8.1.3). */
static void give_token(struct relay_quic_peer *peer)
{
    uint8_t token[NGTCP2_CRYPTO_MAX_REGULAR_TOKENLEN];
    const struct sockaddr *from = relay_quic_conn_peer(peer->conn);
    ngtcp2_ssize len = ngtcp2_crypto_generate_regular_token(
        token, relay_quic_group_retry_secret(peer->endpoint->group), RELAY_QUIC_RETRY_SIZE, from,
        relay_udp_address_size(from), relay_loop_now(peer->endpoint->loop));
    if (len > 0) /* without one it makes another round trip, when there is a flood */
        (void)ngtcp2_conn_submit_new_token(peer->conn->qc, token, (size_t)len);
}

/* The client's address is validated: from now on the connection is the user's, who may count it against its source. */
static void offer(struct relay_quic_peer *peer)
{
    struct relay_quic_endpoint *endpoint = peer->endpoint;
    endpoint->cb->on_connection(endpoint->user, peer->conn);
    relay_quic_peer_refuse(peer);
}

static void on_handshake(void *host)
{
    struct relay_quic_peer *peer = host;
    end_half_open(peer);
    relay_count(peer->endpoint->loop->metrics->handshakes_ok, 1);
    give_token(peer);
    if (peer->conn->cb == NULL) /* else it was offered with its token */
        offer(peer);
}

static void on_migrated(void *host)
{
    struct relay_quic_peer *peer = host;
    peer->mtu = PATH_MTU;
    relay_count(peer->endpoint->loop->metrics->quic_migrations, 1);
}

static void free_memory(struct relay_quic_peer *peer)
{
    for (size_t i = 0; i < peer->num_cids; i++)
        relay_quic_cids_remove(&peer->endpoint->cids, peer->cids[i].data, peer->cids[i].datalen, peer);
    relay_timer_stop(peer->endpoint->loop, &peer->timer);
    free(peer->cids);
    free(peer->farewell);
    free(peer);
}

static void free_tombstone(struct relay_quic_peer *peer)
{
    unlink_peer(&peer->endpoint->tombstones, peer);
    peer->endpoint->num_tombstones--;
    free_memory(peer);
}

static void on_timer(struct relay_timer *timer)
{
    free_tombstone((struct relay_quic_peer *)((char *)timer - offsetof(struct relay_quic_peer, timer)));
}

static void on_gone(void *host, const uint8_t *farewell, size_t len, uint64_t until)
{
    struct relay_quic_peer *peer = host;
    struct relay_quic_endpoint *endpoint = peer->endpoint;
    peer->conn = NULL;
    end_half_open(peer);
    unlink_peer(&endpoint->peers, peer);
    endpoint->num_peers--;
    if (until == 0 || endpoint->num_tombstones >= TOMBSTONES_MAX) {
        free_memory(peer);
        return;
    }
    if (len > 0 && (peer->farewell = malloc(len)) != NULL) {
        memcpy(peer->farewell, farewell, len);
        peer->farewell_len = len;
    }
    peer->answer_at = 1;
    link_peer(&endpoint->tombstones, peer);
    endpoint->num_tombstones++;
    relay_timer_set(endpoint->loop, &peer->timer, until);
}

static const struct relay_quic_host host = {.issue_cid = on_issue_cid,
                                            .retire_cid = on_retire_cid,
                                            .on_handshake = on_handshake,
                                            .on_migrated = on_migrated,
                                            .on_gone = on_gone};

void relay_quic_peer_free(struct relay_quic_peer *peer)
{
    if (peer->conn == NULL) {
        free_tombstone(peer);
        return;
    }
    size_t tombstones = peer->endpoint->num_tombstones;
    relay_quic_conn_free(peer->conn);
    if (peer->endpoint->num_tombstones > tombstones)
        free_tombstone(peer);
}

static struct relay_quic_peer *new_peer(struct relay_quic_endpoint *endpoint,
                                        const struct relay_quic_packet *packet)
{
    struct relay_quic_peer *peer = calloc(1, sizeof(*peer));
    if (peer == NULL)
        return NULL;
    peer->path.ops = &path_ops;
    memcpy(&peer->path.local, packet->local, relay_udp_address_size(packet->local));
    memcpy(&peer->path.peer, packet->peer, relay_udp_address_size(packet->peer));
    peer->endpoint = endpoint;
    peer->socket = packet->socket;
    peer->mtu = PATH_MTU;
    relay_timer_init(&peer->timer, on_timer);
    return peer;
}

static int make_conn(struct relay_quic_peer *peer, const ngtcp2_pkt_hd *initial,
                     const ngtcp2_cid *original_dcid, bool is_known)
{
    struct relay_quic_endpoint *endpoint = peer->endpoint;
    struct relay_quic_server_config config = {.loop = endpoint->loop,
                                              .credentials = endpoint->credentials,
                                              .limits = endpoint->limits,
                                              .preface = &endpoint->preface,
                                              .path = &peer->path,
                                              .host_cb = &host,
                                              .host = peer,
                                              .initial = initial,
                                              .original_dcid = original_dcid,
                                              .is_known = is_known};
    int error = make_cid(peer, &config.scid, config.reset_token);
    /* More packets with the client's first choice may come; after a Retry it is one that we issued. */
    if (error == 0)
        error = add_cid(peer, &initial->dcid);
    return error != 0 ? error : relay_quic_server_conn_new(&config, &peer->conn);
}

void relay_quic_peer_accept(struct relay_quic_endpoint *endpoint, const struct relay_quic_packet *packet,
                            const ngtcp2_pkt_hd *initial, const ngtcp2_cid *original_dcid, bool is_known)
{
    struct relay_quic_peer *peer = new_peer(endpoint, packet);
    if (peer == NULL)
        return;
    if (make_conn(peer, initial, original_dcid, is_known) != 0) {
        free_memory(peer);
        return;
    }
    link_peer(&endpoint->peers, peer);
    endpoint->num_peers++;
    relay_quic_half_open_add(&endpoint->half_open, &peer->handshake, &peer->path.peer);
    relay_count(endpoint->loop->metrics->open_half, 1);
    relay_quic_peer_read(peer, packet);
    /* Not a byte of a handshake in it: it was never a connection. */
    if (peer->conn->state != RELAY_QUIC_OPEN && peer->conn->is_silent) {
        relay_count(endpoint->loop->metrics->drop_packet, 1);
        relay_quic_peer_free(peer);
        return;
    }
    make_room(endpoint);
    if ((original_dcid != NULL || is_known) && peer->conn->state == RELAY_QUIC_OPEN)
        offer(peer);
}

void relay_quic_peer_read(struct relay_quic_peer *peer, const struct relay_quic_packet *packet)
{
    if (peer->conn != NULL) {
        relay_quic_conn_read(peer->conn, packet->local, packet->peer, packet->bytes, packet->len,
                             packet->ecn);
        return;
    }
    /* The first, second, fourth, eighth ... packet is answered: RFC 9000 section 10.2.1. */
    if (peer->farewell == NULL || ++peer->came < peer->answer_at)
        return;
    peer->answer_at *= 2;
    relay_quic_socket_answer(packet, peer->farewell, peer->farewell_len);
}
