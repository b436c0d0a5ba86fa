#include "lib/net/path_tunnel.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "lib/net/metrics.h"
#include "lib/wire/error.h"
#include "lib/wire/http_datagram.h"

#define EARLY_PACKETS 8
#define START_MTU     1200 /* RFC 9000 section 14: below it QUIC does not begin */
#define LOOK_EVERY    (10 * RELAY_MS)

/* What was sent before the 2xx. */
struct early {
    size_t count, len[EARLY_PACKETS];
    uint8_t packets[EARLY_PACKETS][RELAY_PATH_TUNNEL_MTU_MAX];
};

struct path {
    struct relay_packet_path head; /* first */
    struct relay_tunnel *tunnel;   /* NULL after its on_close */
    struct relay_path_tunnel_config config;
    struct early *early; /* NULL once it is answered */
    struct relay_loop *loop;
    struct relay_timer look; /* while the tunnel is too narrow to begin */
    int error;               /* why it was refused */
    bool heard;              /* a packet has come */
    bool blocked, closed;
};

static struct path *path_of(struct relay_packet_path *head)
{
    return (struct path *)head;
}

static void drop_early(struct path *path)
{
    free(path->early);
    path->early = NULL;
}

static void keep_early(struct path *path, const uint8_t *run, size_t len, size_t segment)
{
    struct early *early = path->early;
    while (len > 0 && early->count < EARLY_PACKETS) {
        size_t one = len < segment ? len : segment;
        if (one <= RELAY_PATH_TUNNEL_MTU_MAX) {
            memcpy(early->packets[early->count], run, one);
            early->len[early->count++] = one;
        }
        run += one;
        len -= one;
    }
}

/* Returns the bytes of `run` that are dealt with. */
static size_t send_run(struct path *path, const uint8_t *bytes, size_t len, size_t segment)
{
    struct relay_run run = {RELAY_CONTEXT_PAYLOAD, bytes, len, segment};
    while (run.len > 0) {
        enum relay_sent sent = relay_tunnel_send_datagrams(path->tunnel, &run);
        if (sent == RELAY_TOO_BIG) {
            relay_run_drop_one(&run);
            relay_count(path->tunnel->loop->metrics->drop_too_big, 1);
        } else if (sent != RELAY_SENT) {
            path->blocked = true; /* or gone: on_close comes, and the packets may go over another path */
            break;
        }
    }
    return len - run.len;
}

static size_t path_send(struct relay_packet_path *head, const uint8_t *run, size_t len, size_t segment)
{
    struct path *path = path_of(head);
    if (path->tunnel == NULL || path->blocked)
        return 0;
    size_t taken = send_run(path, run, len, segment);
    if (path->early != NULL)
        keep_early(path, run, taken, segment);
    return taken;
}

static size_t path_mtu(struct relay_packet_path *head)
{
    struct path *path = path_of(head);
    if (path->tunnel == NULL)
        return 0;
    size_t mtu = relay_tunnel_max_datagram(path->tunnel, RELAY_CONTEXT_PAYLOAD);
    return mtu < RELAY_PATH_TUNNEL_MTU_MAX ? mtu : RELAY_PATH_TUNNEL_MTU_MAX;
}

/* One packet more than the hop below takes, while it is not known to be blocked: it is the packet that is
 * refused which makes the tunnel call back when there is room again. It stays with the caller, so nothing is
 * lost by it. */
static size_t path_room(struct relay_packet_path *head)
{
    struct path *path = path_of(head);
    if (path->tunnel == NULL || path->blocked || relay_tunnel_is_closed(path->tunnel))
        return 0;
    size_t room =
        path->config.room != NULL ? path->config.room(path->config.carrier) : relay_tunnel_room(path->tunnel);
    return room + path_mtu(head);
}

static void on_look(struct relay_timer *timer)
{
    struct path *path = (struct path *)((char *)timer - offsetof(struct path, look));
    if (path->tunnel == NULL || path->head.cb == NULL)
        return;
    if (path_mtu(&path->head) < START_MTU)
        relay_timer_set_after(path->loop, &path->look, LOOK_EVERY);
    else
        path->head.cb->on_mtu(path->head.user);
}

static void dispose(struct path *path)
{
    relay_timer_stop(path->loop, &path->look);
    drop_early(path);
    free(path);
}

static void path_close(struct relay_packet_path *head)
{
    struct path *path = path_of(head);
    path->closed = true;
    path->head.cb = NULL;
    if (path->tunnel != NULL)
        relay_tunnel_abort(path->tunnel, RELAY_ERR_CANCELLED); /* freed in on_close */
    else
        dispose(path);
}

static void path_detach(struct relay_packet_path *head)
{
    struct path *path = path_of(head);
    path->config.on_refused = NULL;
    path->config.on_lost = NULL;
}

static const struct relay_packet_path_ops path_ops = {
    .send = path_send, .mtu = path_mtu, .room = path_room, .close = path_close, .detach = path_detach};

/* ---- the tunnel's callbacks ---- */

static void on_response(void *user, const struct relay_response *response)
{
    struct path *path = user;
    if (response->status < 200 || path->closed)
        return;
    if (response->status >= 300) {
        struct relay_refusal refusal;
        relay_refusal_read(&refusal, response);
        path->error = refusal.error;
        if (path->config.on_refused != NULL)
            path->config.on_refused(path->config.user, &refusal);
        relay_tunnel_abort(path->tunnel, RELAY_ERR_CANCELLED);
        return;
    }
    struct early *early = path->early;
    for (size_t i = 0; early != NULL && i < early->count && !path->heard; i++)
        send_run(path, early->packets[i], early->len[i], early->len[i]);
    drop_early(path);
}

static void on_datagrams(void *user, const struct relay_run *run)
{
    struct path *path = user;
    if (run->context_id != RELAY_CONTEXT_PAYLOAD) {
        relay_count(path->tunnel->loop->metrics->drop_unknown_context, 1);
        return;
    }
    path->heard = true;
    const uint8_t *packet = run->base;
    for (size_t left = run->len; left > 0 && path->head.cb != NULL;) {
        size_t one = left < run->segment ? left : run->segment;
        path->head.cb->on_packet(path->head.user, (uint8_t *)(uintptr_t)packet, one, 0);
        packet += one;
        left -= one;
    }
}

static void on_fin(void *user)
{
    struct path *path = user;
    relay_tunnel_abort(path->tunnel, RELAY_ERR_CLOSED);
}

static void on_writable(void *user)
{
    struct path *path = user;
    path->blocked = false;
    if (path->head.cb != NULL)
        path->head.cb->on_writable(path->head.user);
}

static void on_close(void *user, int error)
{
    struct path *path = user;
    path->tunnel = NULL;
    if (path->closed) {
        dispose(path);
        return;
    }
    drop_early(path);
    if (path->error != RELAY_OK)
        error = path->error;
    if (error == RELAY_OK)
        error = RELAY_ERR_CLOSED;
    /* Above it may close the path, which frees it. */
    struct relay_path_tunnel_config config = path->config;
    if (path->head.cb != NULL)
        path->head.cb->on_close(path->head.user, error);
    if (config.on_lost != NULL)
        config.on_lost(config.user, error);
}

static const struct relay_tunnel_user tunnel_cb = {
    .on_response = on_response,
    .on_datagrams = on_datagrams,
    .on_fin = on_fin,
    .on_writable = on_writable,
    .on_close = on_close,
};

static void set_address(struct sockaddr_storage *out, uint32_t address, uint16_t port)
{
    struct sockaddr_in in = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(address), .sin_port = htons(port)};
    memset(out, 0, sizeof(*out));
    memcpy(out, &in, sizeof(in));
}

/* QUIC tells paths by their addresses; these are never seen on a wire. */
static void make_up_addresses(struct relay_packet_path *head)
{
    static uint32_t count;
    uint32_t number = __atomic_add_fetch(&count, 1, __ATOMIC_RELAXED);
    set_address(&head->local, 0xc0000201u /* 192.0.2.1 */ + number / 60000 % 250,
                (uint16_t)(number % 60000 + 1024));
    set_address(&head->peer, 0xc6336401u /* 198.51.100.1 */, 443);
}

struct relay_packet_path *relay_path_tunnel_open(const struct relay_path_tunnel_config *config)
{
    struct path *path = calloc(1, sizeof(*path));
    if (path == NULL || (path->early = calloc(1, sizeof(*path->early))) == NULL) {
        free(path);
        return NULL;
    }
    path->head.ops = &path_ops;
    path->loop = config->session->loop;
    relay_timer_init(&path->look, on_look);
    path->config = *config;
    path->config.request = NULL; /* borrowed */
    make_up_addresses(&path->head);
    path->tunnel = relay_session_open(config->session, config->request, &tunnel_cb, path);
    if (path->tunnel == NULL) {
        dispose(path);
        return NULL;
    }
    if (path_mtu(&path->head) < START_MTU)
        relay_timer_set_after(path->loop, &path->look, LOOK_EVERY);
    return &path->head;
}
