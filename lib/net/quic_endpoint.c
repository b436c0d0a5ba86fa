#include "lib/net/quic_endpoint.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <gnutls/crypto.h>

#include "lib/net/metrics.h"
#include "lib/net/quic_endpoint_internal.h"
#include "lib/net/quic_ring.h"
#include "lib/wire/error.h"

#define RECEIVE_ROUNDS  16   /* of recvmmsg before others get their turn */
#define HANDED_PER_TURN 256  /* packets from other workers */
#define LONG_HEADER     0x80 /* the bit is clear in a short one */
#define FIXED_BIT       0x40 /* RFC 9000 section 17.3.1: without it it is not QUIC, and is not answered */

/* One worker, as the others see it. `loop` and `endpoint` are read and written on its own thread or under the
 * lock, `is_posted` under the lock. */
struct slot {
    struct relay_quic_group *group;
    struct relay_loop *loop;
    struct relay_quic_endpoint *endpoint;
    struct relay_quic_ring *ring; /* NULL: there is one worker alone */
    struct relay_post post;       /* wakes it to read the ring */
    bool is_posted;
};

struct relay_quic_group {
    atomic_uint refs;
    pthread_mutex_t lock;
    struct relay_quic_steering steering;
    uint8_t retry_secret[RELAY_QUIC_RETRY_SIZE];
    struct slot slots[];
};

/* ---- the group ---- */

static void on_woken(void *arg);

static int init_slots(struct relay_quic_group *group, unsigned workers)
{
    for (unsigned i = 0; i < workers; i++) {
        struct slot *slot = &group->slots[i];
        slot->group = group;
        slot->post = (struct relay_post){.run = on_woken, .arg = slot};
        if (workers > 1 && (slot->ring = relay_quic_ring_new()) == NULL)
            return RELAY_ERR_NO_MEMORY;
    }
    return 0;
}

struct relay_quic_group *relay_quic_group_new(unsigned workers)
{
    struct relay_quic_group *group = calloc(1, sizeof(*group) + workers * sizeof(group->slots[0]));
    if (group == NULL)
        return NULL;
    atomic_init(&group->refs, 1);
    group->steering.workers = workers;
    if (workers == 0 || pthread_mutex_init(&group->lock, NULL) != 0) {
        free(group);
        return NULL;
    }
    if (init_slots(group, workers) != 0 ||
        gnutls_rnd(GNUTLS_RND_KEY, group->retry_secret, sizeof(group->retry_secret)) != 0 ||
        gnutls_rnd(GNUTLS_RND_KEY, &group->steering.secret, sizeof(group->steering.secret)) != 0) {
        relay_quic_group_unref(group);
        return NULL;
    }
    group->steering.secret |= 1;
    return group;
}

void relay_quic_group_unref(struct relay_quic_group *group)
{
    if (group == NULL || atomic_fetch_sub(&group->refs, 1) != 1)
        return;
    for (unsigned i = 0; i < group->steering.workers; i++)
        relay_quic_ring_free(group->slots[i].ring);
    pthread_mutex_destroy(&group->lock);
    gnutls_memset(group->retry_secret, 0, sizeof(group->retry_secret));
    free(group);
}

int relay_quic_group_bind(struct relay_quic_group *group, struct sockaddr_storage *address, int *fds)
{
    return relay_quic_steering_bind(&group->steering, address, fds);
}

const uint8_t *relay_quic_group_retry_secret(const struct relay_quic_group *group)
{
    return group->retry_secret;
}

const struct relay_quic_steering *relay_quic_group_steering(const struct relay_quic_group *group)
{
    return &group->steering;
}

/* ---- routing ---- */

static void route(struct relay_quic_endpoint *endpoint, const struct relay_quic_packet *packet,
                  bool was_handed);

/* The socket of ours with the same bound address; the first one when there is none. */
static struct relay_quic_socket *find_socket(const struct relay_quic_endpoint *endpoint,
                                             const struct sockaddr *local)
{
    struct relay_quic_socket *found = endpoint->sockets;
    for (struct relay_quic_socket *s = endpoint->sockets; s != NULL; s = s->next) {
        const struct sockaddr_in6 *a = (const struct sockaddr_in6 *)&s->bound,
                                  *b = (const struct sockaddr_in6 *)local;
        /* The port is at the same place in both families. */
        if (a->sin6_family != b->sin6_family || a->sin6_port != b->sin6_port)
            continue;
        if (memcmp(&s->bound, local, relay_udp_address_size(local)) == 0)
            return s;
        if (s->is_wildcard)
            found = s;
    }
    return found;
}

static void read_handed(struct relay_quic_endpoint *endpoint, struct relay_quic_ring_packet *handed)
{
    struct relay_quic_packet packet = {.socket = find_socket(endpoint, (struct sockaddr *)&handed->local),
                                       .local = (struct sockaddr *)&handed->local,
                                       .peer = (struct sockaddr *)&handed->peer,
                                       .bytes = handed->bytes,
                                       .len = handed->len,
                                       .too_big = handed->too_big,
                                       .ecn = handed->ecn};
    if (packet.too_big != 0)
        (void)relay_quic_icmp_too_big(endpoint, &packet);
    else
        route(endpoint, &packet, true);
}

/* Under the lock, which keeps the other worker's loop in being. */
static void wake(struct slot *slot)
{
    if (slot->endpoint == NULL || slot->is_posted)
        return;
    slot->is_posted = true;
    atomic_fetch_add(&slot->group->refs, 1);
    relay_loop_wake(slot->loop, &slot->post);
}

static void on_woken(void *arg)
{
    struct slot *slot = arg;
    struct relay_quic_group *group = slot->group;
    struct relay_quic_ring_packet *handed = NULL;
    pthread_mutex_lock(&group->lock);
    slot->is_posted = false;
    pthread_mutex_unlock(&group->lock);
    relay_quic_ring_rest(slot->ring);
    for (int i = 0; i < HANDED_PER_TURN && (handed = relay_quic_ring_first(slot->ring)) != NULL; i++) {
        if (slot->endpoint != NULL && slot->endpoint->sockets != NULL)
            read_handed(slot->endpoint, handed);
        relay_quic_ring_drop_first(slot->ring);
    }
    if (handed != NULL) {
        pthread_mutex_lock(&group->lock);
        wake(slot);
        pthread_mutex_unlock(&group->lock);
    }
    relay_quic_group_unref(group);
}

static void hand_over(struct relay_quic_endpoint *endpoint, const struct relay_quic_packet *packet,
                      unsigned worker)
{
    struct slot *slot = &endpoint->group->slots[worker];
    struct relay_quic_ring_packet *handed = NULL;
    if (packet->len <= RELAY_QUIC_RING_PACKET)
        handed = relay_quic_ring_claim(slot->ring);
    if (handed == NULL) {
        relay_count(endpoint->loop->metrics->drop_ring, 1);
        return;
    }
    memcpy(&handed->local, packet->local, relay_udp_address_size(packet->local));
    memcpy(&handed->peer, packet->peer, relay_udp_address_size(packet->peer));
    handed->len = packet->len;
    handed->too_big = packet->too_big;
    handed->ecn = packet->ecn;
    memcpy(handed->bytes, packet->bytes, packet->len);
    if (relay_quic_ring_publish(slot->ring, handed)) {
        pthread_mutex_lock(&endpoint->group->lock);
        wake(slot);
        pthread_mutex_unlock(&endpoint->group->lock);
    }
}

void relay_quic_endpoint_hand_to_others(struct relay_quic_endpoint *endpoint,
                                        const struct relay_quic_packet *packet)
{
    for (unsigned worker = 0; worker < endpoint->group->steering.workers; worker++)
        if (worker != endpoint->worker)
            hand_over(endpoint, packet, worker);
}

static void route(struct relay_quic_endpoint *endpoint, const struct relay_quic_packet *packet,
                  bool was_handed)
{
    ngtcp2_version_cid ids;
    int code = ngtcp2_pkt_decode_version_cid(&ids, packet->bytes, packet->len, RELAY_QUIC_CID_SIZE);
    if (code == NGTCP2_ERR_VERSION_NEGOTIATION) {
        relay_quic_stateless_version(endpoint, packet, &ids);
        return;
    }
    if (code != 0) {
        relay_count(endpoint->loop->metrics->drop_packet, 1);
        return;
    }
    struct relay_quic_peer *peer = relay_quic_cids_find(&endpoint->cids, ids.dcid, ids.dcidlen);
    if (peer != NULL) {
        relay_quic_peer_read(peer, packet);
        return;
    }
    unsigned worker = relay_quic_steering_worker(&endpoint->group->steering, ids.dcid, ids.dcidlen);
    if (worker != endpoint->worker && !was_handed)
        hand_over(endpoint, packet, worker);
    else if (packet->bytes[0] & LONG_HEADER)
        relay_quic_stateless_initial(endpoint, packet);
    else if (packet->bytes[0] & FIXED_BIT)
        relay_quic_stateless_reset(endpoint, packet, ids.dcid, ids.dcidlen);
    else
        relay_count(endpoint->loop->metrics->drop_packet, 1);
}

/* ---- sockets ---- */

void relay_quic_socket_answer(const struct relay_quic_packet *packet, const uint8_t *bytes, size_t len)
{
    size_t taken;
    (void)relay_udp_send(packet->socket->fd, &packet->socket->gso, packet->peer,
                         packet->socket->is_wildcard ? packet->local : NULL, bytes, len, len, &taken);
}

static void deliver(struct relay_quic_socket *socket, struct relay_udp_message *message)
{
    struct relay_quic_packet packet = {.socket = socket,
                                       .local = (const struct sockaddr *)&socket->bound,
                                       .peer = (const struct sockaddr *)&message->peer,
                                       .ecn = message->ecn};
    if (message->len == 0 || message->is_to_many) {
        /* To many: no connection begins there, and an answer would tell every relay of a network. */
        relay_count(socket->endpoint->loop->metrics->drop_packet,
                    message->len == 0 ? 1 : (message->len + message->segment - 1) / message->segment);
        return;
    }
    if (socket->is_wildcard && message->local.ss_family == socket->bound.ss_family) {
        ((struct sockaddr_in *)&message->local)->sin_port = ((struct sockaddr_in *)&socket->bound)->sin_port;
        packet.local = (const struct sockaddr *)&message->local;
    }
    /* Segments of one message mostly carry one connection ID: it is looked up once. Nothing that a packet
     * does frees the peer before the turn's tasks. */
    struct relay_quic_peer *peer = NULL;
    const uint8_t *known = NULL;
    for (size_t at = 0; at < message->len; at += message->segment) {
        packet.bytes = message->base + at;
        packet.len = message->len - at < message->segment ? message->len - at : message->segment;
        if (!(packet.bytes[0] & LONG_HEADER) && packet.len > RELAY_QUIC_CID_SIZE) {
            if (known == NULL || memcmp(packet.bytes + 1, known, RELAY_QUIC_CID_SIZE) != 0) {
                known = packet.bytes + 1;
                peer = relay_quic_cids_find(&socket->endpoint->cids, known, RELAY_QUIC_CID_SIZE);
            }
            if (peer != NULL) {
                relay_quic_peer_read(peer, &packet);
                continue;
            }
        }
        known = NULL;
        route(socket->endpoint, &packet, false);
    }
}

static void read_packets(struct relay_quic_socket *socket)
{
    struct relay_udp_message messages[RELAY_UDP_BATCH];
    struct relay_loop *loop = socket->endpoint->loop;
    uint8_t *scratch = relay_loop_take_scratch(loop);
    int most = RELAY_UDP_FEW;
    if (scratch == NULL)
        return;
    for (int round = 0; round < RECEIVE_ROUNDS && most > 0; round++) {
        if (round > 0)
            relay_loop_settle(loop);
        int count = relay_udp_receive(socket->fd, scratch, most, messages);
        for (int i = 0; i < count; i++)
            deliver(socket, &messages[i]);
        most = relay_udp_receive_next(messages, count, most);
    }
    relay_loop_return_scratch(loop);
}

static void arm(struct relay_quic_socket *socket)
{
    relay_io_arm(socket->io, RELAY_IO_READ | (socket->is_blocked ? RELAY_IO_WRITE : 0));
}

static void on_io(void *user, int events)
{
    struct relay_quic_socket *socket = user;
    if (events & RELAY_IO_ERROR) {
        int pending;
        socklen_t size = sizeof(pending);
        relay_quic_icmp_read(socket);
        /* Reading it clears it; it is about one datagram, not about the socket. */
        (void)getsockopt(socket->fd, SOL_SOCKET, SO_ERROR, &pending, &size);
        /* While errors come nothing else is told: it is tried. */
        events |= RELAY_IO_READ | RELAY_IO_WRITE;
    }
    if (events & RELAY_IO_WRITE && socket->is_blocked) {
        socket->is_blocked = false;
        for (struct relay_quic_peer *peer = socket->endpoint->peers; peer != NULL; peer = peer->next)
            if (peer->socket == socket)
                relay_quic_peer_unblock(peer);
    }
    if (events & RELAY_IO_READ)
        read_packets(socket);
    arm(socket);
}

static bool is_wildcard(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET6)
        return IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)address)->sin6_addr);
    return ((const struct sockaddr_in *)address)->sin_addr.s_addr == INADDR_ANY;
}

int relay_quic_endpoint_add_socket(struct relay_quic_endpoint *endpoint, int fd)
{
    struct relay_quic_socket *socket = calloc(1, sizeof(*socket));
    socklen_t size = sizeof(socket->bound);
    if (socket == NULL || getsockname(fd, (struct sockaddr *)&socket->bound, &size) != 0 ||
        (socket->io = relay_io_new(endpoint->loop, fd, on_io, socket)) == NULL) {
        free(socket);
        close(fd);
        return RELAY_ERR_NO_MEMORY;
    }
    socket->endpoint = endpoint;
    socket->fd = fd;
    socket->is_wildcard = is_wildcard(&socket->bound);
    socket->next = endpoint->sockets;
    endpoint->sockets = socket;
    arm(socket);
    return 0;
}

/* ---- the endpoint ---- */

static void set_slot(struct relay_quic_endpoint *endpoint, bool on)
{
    struct slot *slot = &endpoint->group->slots[endpoint->worker];
    pthread_mutex_lock(&endpoint->group->lock);
    slot->loop = on ? endpoint->loop : NULL;
    slot->endpoint = on ? endpoint : NULL;
    if (on && slot->ring != NULL)
        wake(slot); /* whoever brought something before it was there could not */
    pthread_mutex_unlock(&endpoint->group->lock);
}

int relay_quic_endpoint_new(const struct relay_quic_endpoint_config *config,
                            struct relay_quic_endpoint **made)
{
    struct relay_quic_endpoint *endpoint = calloc(1, sizeof(*endpoint));
    uint64_t key[2], seeds[2];
    *made = NULL;
    if (endpoint == NULL || gnutls_rnd(GNUTLS_RND_KEY, key, sizeof(key)) != 0 ||
        gnutls_rnd(GNUTLS_RND_KEY, seeds, sizeof(seeds)) != 0 ||
        relay_quic_cids_init(&endpoint->cids, key) != 0) {
        free(endpoint);
        return RELAY_ERR_NO_MEMORY;
    }
    endpoint->source_seed = seeds[0];
    endpoint->half_open.seed = seeds[1];
    endpoint->loop = config->loop;
    endpoint->group = config->group;
    atomic_fetch_add(&config->group->refs, 1);
    endpoint->worker = config->worker;
    endpoint->credentials = relay_quic_credentials_ref(config->credentials);
    endpoint->limits = config->limits;
    endpoint->preface = config->preface;
    endpoint->cb = config->cb;
    endpoint->user = config->user;
    set_slot(endpoint, true);
    *made = endpoint;
    return 0;
}

void relay_quic_endpoint_set_credentials(struct relay_quic_endpoint *endpoint,
                                         struct relay_quic_credentials *credentials)
{
    struct relay_quic_credentials *old = endpoint->credentials;
    endpoint->credentials = relay_quic_credentials_ref(credentials);
    relay_quic_credentials_unref(old);
}

size_t relay_quic_endpoint_num_connections(const struct relay_quic_endpoint *endpoint)
{
    return endpoint->num_peers;
}

void relay_quic_endpoint_shutdown(struct relay_quic_endpoint *endpoint)
{
    endpoint->is_shut = true;
    for (struct relay_quic_peer *peer = endpoint->peers; peer != NULL; peer = peer->next)
        relay_quic_peer_refuse(peer);
}

void relay_quic_endpoint_close(struct relay_quic_endpoint *endpoint, uint64_t code)
{
    endpoint->is_shut = true;
    for (struct relay_quic_peer *peer = endpoint->peers; peer != NULL; peer = peer->next)
        relay_quic_conn_close(peer->conn, code, RELAY_ERR_SHUTDOWN);
}

void relay_quic_endpoint_free(struct relay_quic_endpoint *endpoint)
{
    if (endpoint == NULL)
        return;
    set_slot(endpoint, false);
    while (endpoint->peers != NULL)
        relay_quic_peer_free(endpoint->peers);
    while (endpoint->tombstones != NULL)
        relay_quic_peer_free(endpoint->tombstones);
    for (struct relay_quic_socket *socket; (socket = endpoint->sockets) != NULL;) {
        endpoint->sockets = socket->next;
        relay_io_free(socket->io);
        close(socket->fd);
        free(socket);
    }
    relay_quic_cids_dispose(&endpoint->cids);
    relay_quic_credentials_unref(endpoint->credentials);
    relay_quic_group_unref(endpoint->group);
    free(endpoint);
}
