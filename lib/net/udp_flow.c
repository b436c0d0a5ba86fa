#include "lib/net/udp_flow.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <linux/errqueue.h>
#include <linux/sock_diag.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/net/metrics.h"
#include "lib/net/reserve.h"
#include "lib/net/udp_queue.h"
#include "lib/wire/error.h"

#define DATAGRAM_MAX   65536 /* one recv: a GRO super-packet or a datagram */
#define TURN_DATAGRAMS 64    /* read per turn: other flows of the worker want their turn too */
#define SOCKET_BUFFER  (4 << 20)
#define REFUSED_MAX    5
#define CLOSING_READS                                                                                        \
    4096 /* to count what a closed socket had not given: more than its buffer holds; milliseconds (relay_loop_has_time) */

struct relay_udp_flow {
    struct relay_loop *loop;
    const struct relay_udp_flow_user *cb;
    void *user;
    int fd;
    int family;
    struct relay_io *io;
    struct relay_task flush_task, event_task;
    uint64_t last_received;
    unsigned refused;    /* since something was received */
    uint32_t overflowed; /* datagrams that the kernel dropped because the socket's buffer was full; wraps */
    int close_error;     /* to be told */
    bool blocked, resumed, told_close, in_callback, is_closed;
    struct relay_run held; /* what a blocked user left; held_bytes is ours */
    uint8_t *held_bytes;
    struct relay_udp_queue queue;
};

static void arm(struct relay_udp_flow *flow)
{
    relay_io_arm(flow->io,
                 (flow->blocked ? 0 : RELAY_IO_READ) | (flow->queue.is_blocked ? RELAY_IO_WRITE : 0));
}

/* ---- toward the target ---- */

static void flush(struct relay_udp_flow *flow)
{
    relay_udp_queue_flush(&flow->queue);
    arm(flow);
}

static void run_flush(struct relay_task *task)
{
    struct relay_udp_flow *flow =
        (struct relay_udp_flow *)((char *)task - offsetof(struct relay_udp_flow, flush_task));
    flush(flow);
}

void relay_udp_flow_send(struct relay_udp_flow *flow, const struct relay_run *run)
{
    if (flow->is_closed || flow->told_close) {
        relay_count(flow->loop->metrics->drop_closed, relay_run_count(run));
        return;
    }
    bool is_waiting = flow->queue.is_blocked;
    relay_udp_queue_add(&flow->queue, run);
    if (!is_waiting && !relay_udp_queue_is_empty(&flow->queue))
        relay_task_queue(flow->loop, &flow->flush_task);
}

/* ---- from the target ---- */

static void drop_held(struct relay_udp_flow *flow)
{
    free(flow->held_bytes);
    flow->held_bytes = NULL;
}

/* What is held already stays where it is: a tunnel that gets room for a few datagrams at a time must not copy
 * the others each time. */
static void hold(struct relay_udp_flow *flow, const struct relay_run *run)
{
    if (flow->held_bytes != NULL) {
        flow->held = *run;
        return;
    }
    uint8_t *bytes = malloc(run->len > 0 ? run->len : 1);
    if (bytes == NULL) {
        relay_count(flow->loop->metrics->drop_blocked, relay_run_count(run));
        return;
    }
    memcpy(bytes, run->base, run->len);
    flow->held_bytes = bytes;
    flow->held = *run;
    flow->held.base = bytes;
}

/* `total` as the kernel counts since the socket was made. */
static void note_overflow(struct relay_udp_flow *flow, uint32_t total)
{
    relay_count(flow->loop->metrics->drop_target_full, (uint32_t)(total - flow->overflowed));
    flow->overflowed = total;
}

/* The length, of what was cut off too, or -errno; *segment is what GRO says. */
static ssize_t receive(struct relay_udp_flow *flow, uint8_t *bytes, size_t size, size_t *segment)
{
    struct iovec iov = {bytes, size};
    union {
        char bytes[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(uint32_t))];
        struct cmsghdr align;
    } control;
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    ssize_t len;
    do
        len = recvmsg(flow->fd, &message, MSG_DONTWAIT | MSG_TRUNC);
    while (len < 0 && errno == EINTR);
    if (len < 0)
        return -errno;
    *segment = (size_t)len;
    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(&message); cmsg != NULL; cmsg = CMSG_NXTHDR(&message, cmsg)) {
        int one;
        uint32_t total;
        if (cmsg->cmsg_level == SOL_UDP && cmsg->cmsg_type == UDP_GRO) {
            memcpy(&one, CMSG_DATA(cmsg), sizeof(one));
            if (one > 0 && one < len)
                *segment = (size_t)one;
        } else if (cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SO_RXQ_OVFL) {
            memcpy(&total, CMSG_DATA(cmsg), sizeof(total));
            note_overflow(flow, total);
        }
    }
    return len;
}

/* What is lost with the socket: what is held, what it has not given yet, and what it could not take since it
 * gave the last one. */
static void count_lost(struct relay_udp_flow *flow)
{
    struct relay_metrics *metrics = flow->loop->metrics;
    uint32_t info[SK_MEMINFO_VARS];
    socklen_t len = sizeof(info);
    if (flow->held_bytes != NULL)
        relay_count(metrics->drop_closed, relay_run_count(&flow->held));
    for (int i = 0; i < CLOSING_READS; i++) {
        size_t segment = 0;
        ssize_t n = receive(flow, NULL, 0, &segment);
        if (n == -EAGAIN)
            break;
        struct relay_run run = {.len = n > 0 ? (size_t)n : 0, .segment = segment};
        if (n >= 0)
            relay_count(metrics->drop_closed, relay_run_count(&run));
    }
    if (getsockopt(flow->fd, SOL_SOCKET, SO_MEMINFO, info, &len) == 0 &&
        len > SK_MEMINFO_DROPS * sizeof(info[0]))
        note_overflow(flow, info[SK_MEMINFO_DROPS]);
}

static void free_flow(struct relay_udp_flow *flow)
{
    if (flow->io != NULL)
        count_lost(flow);
    relay_task_cancel(&flow->flush_task);
    relay_task_cancel(&flow->event_task);
    relay_io_free(flow->io);
    if (flow->fd >= 0)
        close(flow->fd);
    relay_udp_queue_dispose(&flow->queue);
    drop_held(flow);
    free(flow);
}

/* False: no more now (blocked, or the flow is gone with its memory). */
static bool deliver(struct relay_udp_flow *flow, struct relay_run *run)
{
    bool is_empty = run->len == 0;
    flow->in_callback = true;
    enum relay_sent sent = flow->cb->on_datagrams(flow->user, run);
    flow->in_callback = false;
    if (flow->is_closed) {
        free_flow(flow);
        return false;
    }
    if (sent == RELAY_BLOCKED) {
        flow->blocked = true;
        if (is_empty || run->len > 0)
            hold(flow, run);
        else
            drop_held(flow);
        arm(flow);
    }
    return !flow->blocked;
}

static void close_later(struct relay_udp_flow *flow, int error)
{
    if (flow->close_error != RELAY_OK)
        return;
    flow->close_error = error;
    relay_task_queue(flow->loop, &flow->event_task);
}

static void read_socket(struct relay_udp_flow *flow)
{
    struct relay_loop *loop = flow->loop;
    uint8_t *scratch = relay_loop_take_scratch(loop);
    if (scratch == NULL)
        return;
    size_t at = 0, errors = 0;
    for (size_t datagrams = 0; datagrams < TURN_DATAGRAMS && RELAY_SCRATCH_SIZE - at >= DATAGRAM_MAX;) {
        size_t segment = 0;
        ssize_t len = receive(flow, scratch + at, DATAGRAM_MAX, &segment);
        if (len == -EAGAIN)
            break;
        if (len < 0) {
            /* The error of an ICMP message, which the error queue explains; it is gone with this call. */
            if (++errors > REFUSED_MAX)
                break;
            continue;
        }
        flow->last_received = relay_loop_now(loop);
        flow->refused = 0;
        struct relay_run run = {0, scratch + at, (size_t)len, segment};
        datagrams += relay_run_count(&run);
        at += (size_t)len;
        if (!deliver(flow, &run))
            goto out; /* the flow may be gone */
    }
out:
    relay_loop_return_scratch(loop);
}

/* RFC 9298 section 3.1 asks to close when the socket is unusable; a connected UDP socket never is, so
 * repeated refusals without anything received in between stand for it (T41). */
static void read_errors(struct relay_udp_flow *flow)
{
    for (int i = 0; i < TURN_DATAGRAMS; i++) {
        char control[512], byte;
        struct iovec iov = {&byte, sizeof(byte)};
        struct msghdr message = {
            .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
        if (recvmsg(flow->fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
            break;
        for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(&message); cmsg != NULL;
             cmsg = CMSG_NXTHDR(&message, cmsg)) {
            struct sock_extended_err said;
            bool is_error = (cmsg->cmsg_level == IPPROTO_IP && cmsg->cmsg_type == IP_RECVERR) ||
                            (cmsg->cmsg_level == IPPROTO_IPV6 && cmsg->cmsg_type == IPV6_RECVERR);
            if (!is_error || cmsg->cmsg_len < CMSG_LEN(sizeof(said)))
                continue;
            memcpy(&said, CMSG_DATA(cmsg), sizeof(said));
            if (said.ee_errno == ECONNREFUSED && ++flow->refused == REFUSED_MAX) {
                relay_count(flow->loop->metrics->udp_refused, 1);
                close_later(flow, RELAY_ERR_REFUSED);
            }
        }
    }
    int number;
    socklen_t len = sizeof(number);
    getsockopt(flow->fd, SOL_SOCKET, SO_ERROR, &number, &len); /* takes it off the socket */
}

static void on_io(void *user, int events)
{
    struct relay_udp_flow *flow = user;
    if (events & RELAY_IO_ERROR) {
        read_errors(flow);
        arm(flow);
        return;
    }
    if (events & RELAY_IO_WRITE)
        flush(flow);
    if (events & RELAY_IO_READ)
        read_socket(flow);
}

/* on_close, and what was held at a resume. */
static void run_event(struct relay_task *task)
{
    struct relay_udp_flow *flow =
        (struct relay_udp_flow *)((char *)task - offsetof(struct relay_udp_flow, event_task));
    if (flow->close_error != RELAY_OK && !flow->told_close) {
        flow->told_close = true;
        relay_task_cancel(&flow->flush_task);
        relay_udp_queue_drop(&flow->queue);
        relay_io_arm(flow->io, 0);
        flow->cb->on_close(flow->user, flow->close_error);
        return;
    }
    if (!flow->resumed)
        return;
    flow->resumed = flow->blocked = false;
    struct relay_run run = flow->held;
    if (flow->held_bytes != NULL && !deliver(flow, &run))
        return;
    drop_held(flow);
    arm(flow);
}

void relay_udp_flow_resume(struct relay_udp_flow *flow)
{
    if (!flow->blocked || flow->is_closed || flow->told_close)
        return;
    flow->resumed = true;
    relay_task_queue(flow->loop, &flow->event_task);
}

/* ---- life ---- */

static void set_options(struct relay_udp_flow *flow)
{
    int one = 1, zero = 0, size = SOCKET_BUFFER;
    setsockopt(flow->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    setsockopt(flow->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    setsockopt(flow->fd, SOL_UDP, UDP_GRO, &one, sizeof(one));
    setsockopt(flow->fd, SOL_SOCKET, SO_RXQ_OVFL, &one, sizeof(one));
    if (flow->family == AF_INET) {
        int discover = IP_PMTUDISC_DO;
        setsockopt(flow->fd, IPPROTO_IP, IP_MTU_DISCOVER, &discover, sizeof(discover));
        setsockopt(flow->fd, IPPROTO_IP, IP_TOS, &zero, sizeof(zero));
        setsockopt(flow->fd, IPPROTO_IP, IP_RECVERR, &one, sizeof(one));
    } else {
        int discover = IPV6_PMTUDISC_DO;
        setsockopt(flow->fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, &discover, sizeof(discover));
        setsockopt(flow->fd, IPPROTO_IPV6, IPV6_DONTFRAG, &one, sizeof(one));
        setsockopt(flow->fd, IPPROTO_IPV6, IPV6_TCLASS, &zero, sizeof(zero));
        setsockopt(flow->fd, IPPROTO_IPV6, IPV6_RECVERR, &one, sizeof(one));
    }
}

static int open_socket(struct relay_udp_flow *flow, const struct sockaddr *target)
{
    flow->family = target->sa_family;
    flow->fd = relay_reserve_socket(flow->family, SOCK_DGRAM);
    if (flow->fd < 0)
        return errno == EMFILE || errno == ENFILE    ? RELAY_ERR_NO_DESCRIPTORS
               : errno == ENOBUFS || errno == ENOMEM ? RELAY_ERR_NO_MEMORY
                                                     : RELAY_ERR_UNREACHABLE;
    flow->queue.fd = flow->fd;
    set_options(flow);
    socklen_t len = flow->family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    if (connect(flow->fd, target, len) != 0)
        return RELAY_ERR_UNREACHABLE;
    flow->io = relay_io_new(flow->loop, flow->fd, on_io, flow);
    return flow->io != NULL ? RELAY_OK : RELAY_ERR_NO_MEMORY;
}

int relay_udp_flow_new(struct relay_loop *loop, const struct sockaddr *target,
                       const struct relay_udp_flow_user *cb, void *user, struct relay_udp_flow **flow)
{
    struct relay_udp_flow *made = calloc(1, sizeof(*made));
    if (made == NULL)
        return RELAY_ERR_NO_MEMORY;
    made->loop = loop;
    made->cb = cb;
    made->user = user;
    made->fd = -1;
    relay_udp_queue_init(&made->queue, loop->metrics, -1);
    relay_task_init(&made->flush_task, RELAY_LEVEL_FLUSH_SOCKET, run_flush);
    relay_task_init(&made->event_task, RELAY_LEVEL_EVENT, run_event);
    int error = open_socket(made, target);
    if (error != RELAY_OK) {
        free_flow(made);
        return error;
    }
    arm(made);
    *flow = made;
    return RELAY_OK;
}

void relay_udp_flow_close(struct relay_udp_flow *flow)
{
    /* What was queued in this turn still goes: the user's last datagrams were sent before its close. */
    if (relay_task_is_queued(&flow->flush_task))
        flush(flow);
    if (flow->in_callback) {
        flow->is_closed = true;
        relay_io_arm(flow->io, 0);
    } else {
        free_flow(flow);
    }
}

uint64_t relay_udp_flow_last_received(const struct relay_udp_flow *flow)
{
    return flow->last_received;
}
