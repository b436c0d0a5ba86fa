#include "client/udp_front.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/net/log.h"
#include "lib/net/metrics.h"
#include "lib/wire/error.h"
#include "lib/wire/http_datagram.h"
#include "lib/wire/socks5.h"

#define DATAGRAMS_PER_TURN 64
#define BUFFER_SIZE        (1024 * 1024)      /* of the socket, each way, if the kernel lets us */
#define FAILED_FOR         (1 * RELAY_SECOND) /* a target whose tunnel failed is not tried again before */

/* One source and one target. */
struct flow {
    struct relay_opening opening;  /* first */
    struct relay_udp_front *front; /* NULL: it was closed, and the flow waits for its tunnel's end */
    struct flow *prev, *next;
    struct relay_tunnel *tunnel;
    struct relay_timer timer;
    uint64_t last_used;
    bool failed;
    struct sockaddr_storage source;
    struct relay_host host;
    uint16_t port;
    uint8_t head[RELAY_SOCKS5_UDP_HEAD_MAX]; /* in front of what goes back */
    size_t head_len;
    size_t num_early, early_bytes, early_len[RELAY_UDP_FRONT_EARLY_MAX];
    uint8_t *early[RELAY_UDP_FRONT_EARLY_MAX];
};

struct relay_udp_front {
    struct relay_udp_front_config config;
    struct relay_io *io;
    int fd;
    struct flow *flows;
    size_t num_flows;
    uint16_t source_port; /* is_socks: of the first datagram; 0: none yet */
};

static socklen_t size_of(const struct sockaddr_storage *address)
{
    return address->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

/* ---- flows ---- */

static void drop_early(struct flow *flow)
{
    for (size_t i = 0; i < flow->num_early; i++)
        free(flow->early[i]);
    flow->num_early = flow->early_bytes = 0;
}

/* Out of the list; freed now, or when its tunnel has ended. */
static void remove_flow(struct flow *flow)
{
    struct relay_udp_front *front = flow->front;
    relay_timer_stop(front->config.loop, &flow->timer);
    relay_opening_cancel(&flow->opening);
    drop_early(flow);
    if (flow->prev != NULL)
        flow->prev->next = flow->next;
    else
        front->flows = flow->next;
    if (flow->next != NULL)
        flow->next->prev = flow->prev;
    front->num_flows--;
    flow->front = NULL;
    if (flow->tunnel != NULL)
        relay_tunnel_abort(flow->tunnel, RELAY_ERR_CANCELLED);
    else
        free(flow);
}

static void on_timer(struct relay_timer *timer)
{
    struct flow *flow = (struct flow *)((char *)timer - offsetof(struct flow, timer));
    uint64_t end = flow->last_used + (flow->failed ? FAILED_FOR : RELAY_UDP_FRONT_IDLE);
    if (relay_loop_now(flow->front->config.loop) < end)
        relay_timer_set(flow->front->config.loop, timer, end);
    else
        remove_flow(flow);
}

static void send_to_target(struct flow *flow, const uint8_t *bytes, size_t len)
{
    struct relay_metrics *metrics = flow->front->config.loop->metrics;
    struct relay_run run = {RELAY_CONTEXT_PAYLOAD, bytes, len, len};
    enum relay_sent sent = relay_tunnel_send_datagrams(flow->tunnel, &run);
    if (sent == RELAY_TOO_BIG)
        relay_count(metrics->drop_too_big, 1);
    else if (sent == RELAY_BLOCKED)
        relay_count(metrics->drop_blocked, 1);
}

/* ---- the tunnel ---- */

static void send_to_source(struct flow *flow, const uint8_t *bytes, size_t len)
{
    struct iovec pieces[2] = {{flow->head, flow->head_len}, {(void *)(uintptr_t)bytes, len}};
    struct msghdr message = {
        .msg_name = &flow->source, .msg_namelen = size_of(&flow->source), .msg_iov = pieces, .msg_iovlen = 2};
    if (sendmsg(flow->front->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        relay_count(flow->front->config.loop->metrics->drop_socket, 1);
}

static void on_datagrams(void *user, const struct relay_run *run)
{
    struct flow *flow = user;
    if (flow->front == NULL || run->context_id != RELAY_CONTEXT_PAYLOAD)
        return;
    flow->last_used = relay_loop_now(flow->front->config.loop);
    const uint8_t *bytes = run->base;
    size_t left = run->len;
    do {
        size_t one = left < run->segment ? left : run->segment;
        send_to_source(flow, bytes, one);
        bytes += one;
        left -= one;
    } while (left > 0);
}

static void on_fin(void *user)
{
    struct flow *flow = user;
    relay_tunnel_abort(flow->tunnel, RELAY_ERR_CLOSED);
}

static void on_tunnel_close(void *user, int error)
{
    struct flow *flow = user;
    (void)error;
    flow->tunnel = NULL;
    if (flow->front != NULL)
        remove_flow(flow); /* the next datagram opens another */
    else
        free(flow);
}

static const struct relay_tunnel_user tunnel_cb = {
    .on_datagrams = on_datagrams, .on_fin = on_fin, .on_close = on_tunnel_close};

static void on_open(struct relay_opening *opening, struct relay_tunnel *tunnel)
{
    struct flow *flow = (struct flow *)opening;
    flow->tunnel = tunnel;
    relay_tunnel_attach(tunnel, &tunnel_cb, flow);
    for (size_t i = 0; i < flow->num_early; i++)
        send_to_target(flow, flow->early[i], flow->early_len[i]);
    drop_early(flow);
}

static void on_failed(struct relay_opening *opening, const struct relay_failure *failure)
{
    struct flow *flow = (struct flow *)opening;
    relay_log(RELAY_LOG_INFO, "udp_tunnel_failed", "s:s", "text", failure->text);
    drop_early(flow);
    flow->failed = true;
    flow->last_used = relay_loop_now(flow->front->config.loop);
    relay_timer_set(flow->front->config.loop, &flow->timer, flow->last_used + FAILED_FOR);
}

/* ---- the socket ---- */

static bool is_same(const struct flow *flow, const struct sockaddr_storage *source,
                    const struct relay_host *host, uint16_t port)
{
    return flow->port == port && memcmp(&flow->source, source, size_of(source)) == 0 &&
           strcmp(flow->host.name, host->name) == 0;
}

static struct flow *find_flow(struct relay_udp_front *front, const struct sockaddr_storage *source,
                              const struct relay_host *host, uint16_t port)
{
    struct flow *flow = front->flows;
    while (flow != NULL && !is_same(flow, source, host, port))
        flow = flow->next;
    if (flow == NULL || flow == front->flows)
        return flow;
    flow->prev->next = flow->next; /* the one used last stands first */
    if (flow->next != NULL)
        flow->next->prev = flow->prev;
    flow->prev = NULL;
    flow->next = front->flows;
    front->flows->prev = flow;
    front->flows = flow;
    return flow;
}

static struct flow *new_flow(struct relay_udp_front *front, const struct sockaddr_storage *source,
                             const struct relay_host *host, uint16_t port)
{
    struct flow *flow = front->num_flows < RELAY_UDP_FRONT_FLOWS_MAX ? calloc(1, sizeof(*flow)) : NULL;
    if (flow == NULL)
        return NULL;
    flow->opening.on_open = on_open;
    flow->opening.on_failed = on_failed;
    flow->front = front;
    flow->source = *source;
    flow->host = *host;
    flow->port = port;
    if (front->config.is_socks)
        flow->head_len = relay_socks5_write_datagram(flow->head, host, port);
    relay_timer_init(&flow->timer, on_timer);
    flow->next = front->flows;
    if (flow->next != NULL)
        flow->next->prev = flow;
    front->flows = flow;
    front->num_flows++;
    flow->last_used = relay_loop_now(front->config.loop);
    relay_timer_set_after(front->config.loop, &flow->timer, RELAY_UDP_FRONT_IDLE);
    relay_chain_open(front->config.chain, &flow->opening, true, host, port);
    return flow;
}

static void keep_early(struct flow *flow, const uint8_t *bytes, size_t len)
{
    uint8_t *copy = NULL;
    if (!flow->failed && flow->num_early < RELAY_UDP_FRONT_EARLY_MAX &&
        flow->early_bytes + len <= RELAY_UDP_FRONT_EARLY_BYTES)
        copy = malloc(len + 1);
    if (copy == NULL) {
        relay_count(flow->front->config.loop->metrics->drop_early, 1);
        return;
    }
    memcpy(copy, bytes, len);
    flow->early[flow->num_early] = copy;
    flow->early_len[flow->num_early++] = len;
    flow->early_bytes += len;
}

/* The association's owner: RFC 1928 section 7 lets nobody else use it. */
static bool is_owner(struct relay_udp_front *front, const struct sockaddr_storage *source)
{
    struct relay_address address;
    uint16_t port;
    if (relay_address_from_sockaddr(&address, &port, source) != 0 ||
        !relay_address_equal(&address, &front->config.source))
        return false;
    if (front->source_port == 0)
        front->source_port = port;
    return front->source_port == port;
}

static void take(struct relay_udp_front *front, const struct sockaddr_storage *source, const uint8_t *bytes,
                 size_t len)
{
    const struct relay_host *host = &front->config.host;
    uint16_t port = front->config.port;
    struct relay_socks5_datagram datagram;
    if (front->config.is_socks) {
        int head = relay_socks5_read_datagram(bytes, len, &datagram);
        if (head < 0 || datagram.fragment != 0 || !is_owner(front, source)) {
            relay_count(front->config.loop->metrics->drop_packet, 1);
            return;
        }
        bytes += head;
        len -= (size_t)head;
        host = &datagram.host;
        port = datagram.port;
    }
    struct flow *flow = find_flow(front, source, host, port);
    if (flow == NULL && (flow = new_flow(front, source, host, port)) == NULL) {
        relay_count(front->config.loop->metrics->drop_blocked, 1);
        return;
    }
    if (flow->tunnel == NULL) {
        keep_early(flow, bytes, len);
        return;
    }
    flow->last_used = relay_loop_now(front->config.loop);
    send_to_target(flow, bytes, len);
}

static void on_io(void *user, int events)
{
    struct relay_udp_front *front = user;
    uint8_t *scratch = relay_loop_take_scratch(front->config.loop);
    (void)events;
    if (scratch == NULL)
        return;
    for (int i = 0; i < DATAGRAMS_PER_TURN; i++) {
        struct sockaddr_storage source = {0};
        socklen_t source_len = sizeof(source);
        relay_loop_settle(front->config.loop); /* the buffer is used again */
        ssize_t len = recvfrom(front->fd, scratch, RELAY_SCRATCH_SIZE, MSG_DONTWAIT,
                               (struct sockaddr *)&source, &source_len);
        if (len < 0 && errno != ECONNREFUSED)
            break;
        if (len >= 0)
            take(front, &source, scratch, (size_t)len);
    }
    relay_loop_return_scratch(front->config.loop);
    relay_io_arm(front->io, RELAY_IO_READ);
}

/* ---- life ---- */

static int open_socket(struct sockaddr_storage *local)
{
    int size = BUFFER_SIZE;
    socklen_t len = sizeof(*local);
    int fd = socket(local->ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    if (bind(fd, (struct sockaddr *)local, size_of(local)) != 0 ||
        getsockname(fd, (struct sockaddr *)local, &len) != 0) {
        int code = errno;
        close(fd);
        errno = code;
        return -1;
    }
    return fd;
}

struct relay_udp_front *relay_udp_front_new(const struct relay_udp_front_config *config,
                                            struct sockaddr_storage *local)
{
    struct relay_udp_front *front = calloc(1, sizeof(*front));
    if (front == NULL)
        return NULL;
    front->config = *config;
    front->fd = open_socket(&front->config.local);
    if (front->fd >= 0)
        front->io = relay_io_new(config->loop, front->fd, on_io, front);
    if (front->io == NULL) {
        if (front->fd >= 0)
            close(front->fd);
        free(front);
        return NULL;
    }
    relay_io_arm(front->io, RELAY_IO_READ);
    if (local != NULL)
        *local = front->config.local;
    return front;
}

void relay_udp_front_close(struct relay_udp_front *front)
{
    while (front->flows != NULL)
        remove_flow(front->flows);
    relay_io_free(front->io);
    close(front->fd);
    free(front);
}
