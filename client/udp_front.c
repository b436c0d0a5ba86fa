#include "client/udp_front.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <netinet/udp.h>
#include <unistd.h>

#include "lib/net/log.h"
#include "lib/net/metrics.h"
#include "lib/net/udp_batch.h"
#include "lib/net/udp_queue.h"
#include "lib/wire/error.h"
#include "lib/wire/http_datagram.h"
#include "lib/wire/socks5.h"

#define READS_PER_TURN 16
#define BUFFER_SIZE    (1024 * 1024)      /* of the socket, each way, if the kernel lets us */
#define FAILED_FOR     (1 * RELAY_SECOND) /* a target whose tunnel failed is not tried again before */
#define DATAGRAM_MAX   65536
#define PATIENCE       (250 * RELAY_MS) /* that the others have with a blocked flow: a few round trips */

/* Datagrams of `segment` bytes (the last may be shorter) toward the target. */
struct waiting {
    uint8_t *bytes;
    size_t at, len, segment; /* what is left begins at `at` */
};

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
    struct relay_udp_queue back; /* to the source */
    bool is_blocked;             /* the tunnel is open, and takes what waits when it is writable */
    struct relay_timer patience; /* set: the others wait too */
    size_t num_waiting, waiting_bytes;
    struct waiting waiting[RELAY_UDP_FRONT_EARLY_MAX];
};

struct relay_udp_front {
    struct relay_udp_front_config config;
    struct relay_io *io;
    struct relay_task flush; /* what goes back */
    int fd;
    struct flow *flows;
    size_t num_flows, num_blocked;
    bool is_full;         /* the socket takes nothing now */
    uint16_t source_port; /* is_socks: of the first datagram; 0: none yet */
};

static socklen_t size_of(const struct sockaddr_storage *address)
{
    return address->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

/* ---- flows ---- */

static void drop_waiting(struct flow *flow)
{
    for (size_t i = 0; i < flow->num_waiting; i++)
        free(flow->waiting[i].bytes);
    flow->num_waiting = flow->waiting_bytes = 0;
}

static void arm(struct relay_udp_front *front)
{
    relay_io_arm(front->io,
                 (front->num_blocked == 0 ? RELAY_IO_READ : 0) | (front->is_full ? RELAY_IO_WRITE : 0));
}

static void end_patience(struct flow *flow)
{
    struct relay_udp_front *front = flow->front;
    if (!relay_timer_is_set(&flow->patience))
        return;
    relay_timer_stop(front->config.loop, &flow->patience);
    front->num_blocked--;
    arm(front);
}

static void on_patience_over(struct relay_timer *timer)
{
    struct flow *flow = (struct flow *)((char *)timer - offsetof(struct flow, patience));
    flow->front->num_blocked--;
    arm(flow->front);
}

/* While one is blocked the socket is not read: its buffer holds what comes, and then the application learns. Most
 * often the connection is blocked and all flows are; but over HTTP/2 each has a window of its own, which a proxy may
 * give to the others alone. So they do not wait for long: then what comes for this flow is dropped when its queue is
 * full (keep), until all that waits has left. */
static void set_blocked(struct flow *flow, bool is_blocked)
{
    struct relay_udp_front *front = flow->front;
    if (flow->is_blocked == is_blocked)
        return;
    flow->is_blocked = is_blocked;
    if (!is_blocked) {
        end_patience(flow);
        return;
    }
    relay_timer_set_after(front->config.loop, &flow->patience, PATIENCE);
    front->num_blocked++;
    arm(front);
}

/* Out of the list; freed now, or when its tunnel has ended. */
static void remove_flow(struct flow *flow)
{
    struct relay_udp_front *front = flow->front;
    relay_timer_stop(front->config.loop, &flow->timer);
    relay_opening_cancel(&flow->opening);
    set_blocked(flow, false);
    drop_waiting(flow);
    relay_udp_queue_dispose(&flow->back);
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

/* Full: dropped and counted. */
static void keep(struct flow *flow, const struct relay_run *run, uint64_t *counter)
{
    struct waiting *last = &flow->waiting[flow->num_waiting];
    uint8_t *copy = flow->num_waiting < RELAY_UDP_FRONT_EARLY_MAX ? malloc(run->len + 1) : NULL;
    if (copy == NULL) {
        relay_count(*counter, relay_run_count(run));
        return;
    }
    if (run->len > 0)
        memcpy(copy, run->base, run->len);
    *last = (struct waiting){.bytes = copy, .len = run->len, .segment = run->segment};
    flow->num_waiting++;
    flow->waiting_bytes += run->len;
}

/* What the tunnel does not take now is left in the run, and true returned. */
static bool try_to_send(struct flow *flow, struct relay_run *run)
{
    struct relay_metrics *metrics = flow->front->config.loop->metrics;
    enum relay_sent sent;
    while ((sent = relay_tunnel_send_datagrams(flow->tunnel, run)) == RELAY_TOO_BIG) {
        relay_count(metrics->drop_too_big, 1);
        relay_run_drop_one(run);
        if (run->len == 0)
            return false;
    }
    return sent == RELAY_BLOCKED;
}

static void send_to_target(struct flow *flow, struct relay_run *run)
{
    if (flow->num_waiting > 0 || try_to_send(flow, run)) {
        keep(flow, run, &flow->front->config.loop->metrics->drop_blocked);
        set_blocked(flow, true);
    }
}

static void send_waiting(struct flow *flow)
{
    size_t done = 0;
    bool is_blocked = false;
    for (; done < flow->num_waiting; done++) {
        struct waiting *first = &flow->waiting[done];
        struct relay_run run = {RELAY_CONTEXT_PAYLOAD, first->bytes + first->at, first->len, first->segment};
        if ((is_blocked = try_to_send(flow, &run))) {
            first->at += first->len - run.len;
            first->len = run.len;
            break;
        }
        free(first->bytes);
    }
    flow->num_waiting -= done;
    memmove(flow->waiting, flow->waiting + done, flow->num_waiting * sizeof(flow->waiting[0]));
    flow->waiting_bytes = 0; /* a limit for what comes before the tunnel is open only */
    set_blocked(flow, is_blocked);
}

/* ---- the tunnel ---- */

/* Each datagram behind the head of the flow. */
static void queue_with_head(struct flow *flow, const struct relay_run *run)
{
    uint8_t datagram[RELAY_SOCKS5_UDP_HEAD_MAX + DATAGRAM_MAX];
    const uint8_t *bytes = run->base;
    size_t left = run->len;
    memcpy(datagram, flow->head, flow->head_len);
    do {
        size_t one = left < run->segment ? left : run->segment;
        struct relay_run with_head = {.base = datagram, .len = flow->head_len + one};
        with_head.segment = with_head.len;
        memcpy(datagram + flow->head_len, bytes, one);
        relay_udp_queue_add(&flow->back, &with_head);
        bytes += one;
        left -= one;
    } while (left > 0);
}

static void flush_all(struct relay_udp_front *front)
{
    front->is_full = false;
    for (struct flow *flow = front->flows; flow != NULL; flow = flow->next) {
        if (!relay_udp_queue_is_empty(&flow->back))
            relay_udp_queue_flush(&flow->back);
        front->is_full = front->is_full || flow->back.is_blocked;
    }
    arm(front);
}

static void on_flush(struct relay_task *task)
{
    flush_all((struct relay_udp_front *)((char *)task - offsetof(struct relay_udp_front, flush)));
}

static void on_datagrams(void *user, const struct relay_run *run)
{
    struct flow *flow = user;
    if (flow->front == NULL || run->context_id != RELAY_CONTEXT_PAYLOAD)
        return;
    flow->last_used = relay_loop_now(flow->front->config.loop);
    if (flow->head_len > 0)
        queue_with_head(flow, run);
    else
        relay_udp_queue_add(&flow->back, run);
    relay_task_queue(flow->front->config.loop, &flow->front->flush);
}

static void on_writable(void *user)
{
    struct flow *flow = user;
    if (flow->front != NULL)
        send_waiting(flow);
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
    .on_datagrams = on_datagrams, .on_fin = on_fin, .on_writable = on_writable, .on_close = on_tunnel_close};

static void on_open(struct relay_opening *opening, struct relay_tunnel *tunnel)
{
    struct flow *flow = (struct flow *)opening;
    flow->tunnel = tunnel;
    relay_tunnel_attach(tunnel, &tunnel_cb, flow);
    send_waiting(flow);
}

static void on_failed(struct relay_opening *opening, const struct relay_failure *failure)
{
    struct flow *flow = (struct flow *)opening;
    relay_log(RELAY_LOG_INFO, "udp_tunnel_failed", "s:s", "text", failure->text);
    drop_waiting(flow);
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

/* False: all are in use. */
static bool make_room(struct relay_udp_front *front)
{
    struct flow *quietest = front->flows;
    if (front->num_flows < RELAY_UDP_FRONT_FLOWS_MAX)
        return true;
    for (struct flow *flow = quietest->next; flow != NULL; flow = flow->next) {
        if (flow->last_used < quietest->last_used)
            quietest = flow;
    }
    if (relay_loop_now(front->config.loop) - quietest->last_used < RELAY_UDP_FRONT_YIELD)
        return false;
    remove_flow(quietest);
    return true;
}

static struct flow *new_flow(struct relay_udp_front *front, const struct sockaddr_storage *source,
                             const struct relay_host *host, uint16_t port)
{
    struct flow *flow = make_room(front) ? calloc(1, sizeof(*flow)) : NULL;
    if (flow == NULL)
        return NULL;
    flow->opening.on_open = on_open;
    flow->opening.on_failed = on_failed;
    flow->front = front;
    flow->source = *source;
    flow->host = *host;
    flow->port = port;
    relay_udp_queue_init(&flow->back, front->config.loop->metrics, front->fd);
    flow->back.peer = (const struct sockaddr *)&flow->source;
    if (front->config.is_socks)
        flow->head_len = relay_socks5_write_datagram(flow->head, host, port);
    relay_timer_init(&flow->timer, on_timer);
    relay_timer_init(&flow->patience, on_patience_over);
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

/* One by one: so few are kept that they are counted. */
static void keep_early(struct flow *flow, struct relay_run *run)
{
    uint64_t *counter = &flow->front->config.loop->metrics->drop_early;
    do {
        struct relay_run one = *run;
        one.len = one.segment = run->len < run->segment ? run->len : run->segment;
        if (flow->failed || flow->waiting_bytes + one.len > RELAY_UDP_FRONT_EARLY_BYTES)
            relay_count(*counter, 1);
        else
            keep(flow, &one, counter);
        run->base += one.len;
        run->len -= one.len;
    } while (run->len > 0);
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

static void pass_on(struct relay_udp_front *front, const struct sockaddr_storage *source,
                    const struct relay_host *host, uint16_t port, struct relay_run run)
{
    struct flow *flow = find_flow(front, source, host, port);
    if (flow == NULL && (flow = new_flow(front, source, host, port)) == NULL) {
        relay_count(front->config.loop->metrics->drop_blocked, relay_run_count(&run));
    } else if (flow->tunnel == NULL) {
        keep_early(flow, &run);
    } else {
        flow->last_used = relay_loop_now(front->config.loop);
        send_to_target(flow, &run);
    }
}

/* The datagrams of one message name their targets themselves. Those for the same one move together, over the heads
 * between them. */
static void take_socks(struct relay_udp_front *front, struct relay_udp_message *message)
{
    struct relay_socks5_datagram first, next;
    struct relay_run run = {.context_id = RELAY_CONTEXT_PAYLOAD};
    uint8_t *end = NULL; /* of the run */
    size_t at = 0;
    do {
        size_t one = message->len - at < message->segment ? message->len - at : message->segment;
        uint8_t *datagram = message->base + at;
        at += one;
        int head = relay_socks5_read_datagram(datagram, one, &next);
        if (head < 0 || next.fragment != 0 || !is_owner(front, &message->peer)) {
            relay_count(front->config.loop->metrics->drop_packet, 1);
            continue;
        }
        size_t payload = one - (size_t)head;
        bool joins = run.base != NULL && payload > 0 && payload <= run.segment &&
                     run.len % run.segment == 0 && next.port == first.port &&
                     strcmp(next.host.name, first.host.name) == 0;
        if (joins) {
            memmove(end, datagram + head, payload);
            end += payload;
            run.len += payload;
            continue;
        }
        if (run.base != NULL)
            pass_on(front, &message->peer, &first.host, first.port, run);
        first = next;
        run.base = datagram + head;
        run.len = run.segment = payload;
        end = datagram + one;
    } while (at < message->len);
    if (run.base != NULL)
        pass_on(front, &message->peer, &first.host, first.port, run);
}

static void read_datagrams(struct relay_udp_front *front, uint8_t *scratch)
{
    struct relay_udp_message messages[RELAY_UDP_BATCH];
    int most = RELAY_UDP_FEW;
    for (int round = 0; round < READS_PER_TURN && most > 0 && front->num_blocked == 0; round++) {
        relay_loop_settle(front->config.loop); /* the buffer is used again */
        int count = relay_udp_receive(front->fd, scratch, most, messages);
        most = relay_udp_receive_next(messages, count, most);
        for (int i = 0; i < count; i++) {
            struct relay_udp_message *message = &messages[i];
            if (front->config.is_socks)
                take_socks(front, message);
            else
                pass_on(
                    front, &message->peer, &front->config.host, front->config.port,
                    (struct relay_run){RELAY_CONTEXT_PAYLOAD, message->base, message->len, message->segment});
        }
    }
}

static void on_io(void *user, int events)
{
    struct relay_udp_front *front = user;
    uint8_t *scratch = relay_loop_take_scratch(front->config.loop);
    (void)events;
    if (scratch != NULL) {
        read_datagrams(front, scratch);
        relay_loop_return_scratch(front->config.loop);
    }
    flush_all(front);
}

/* ---- life ---- */

static int open_socket(struct sockaddr_storage *local)
{
    int size = BUFFER_SIZE, one = 1;
    socklen_t len = sizeof(*local);
    int fd = socket(local->ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    setsockopt(fd, SOL_UDP, UDP_GRO, &one, sizeof(one));
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
    relay_task_init(&front->flush, RELAY_LEVEL_FLUSH_SOCKET, on_flush);
    front->fd = open_socket(&front->config.local);
    if (front->fd >= 0)
        front->io = relay_io_new(config->loop, front->fd, on_io, front);
    if (front->io == NULL) {
        if (front->fd >= 0)
            close(front->fd);
        free(front);
        return NULL;
    }
    arm(front);
    if (local != NULL)
        *local = front->config.local;
    return front;
}

void relay_udp_front_close(struct relay_udp_front *front)
{
    while (front->flows != NULL)
        remove_flow(front->flows);
    relay_task_cancel(&front->flush);
    relay_io_free(front->io);
    close(front->fd);
    free(front);
}
