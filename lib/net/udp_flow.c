#include "lib/net/udp_flow.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <linux/errqueue.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/net/metrics.h"
#include "lib/wire/error.h"

#define DATAGRAM_MAX   65536 /* one recv: a GRO super-packet or a datagram */
#define TURN_DATAGRAMS 64    /* read per turn: other flows of the worker want their turn too */
#define QUEUE_MAX      ((size_t)256 << 10)
#define QUEUE_BATCH    ((size_t)72 << 10) /* holds a whole batch: the size of the pool's buffers */
#define QUEUE_MIN      ((size_t)4 << 10)
#define POOL_SIZE      8
#define GSO_SEGMENTS   64    /* the kernel's UDP_MAX_SEGMENTS of old */
#define GSO_BYTES      65000 /* an IPv4 packet's payload, with room for any header */
#define SOCKET_BUFFER  (4 << 20)
#define REFUSED_MAX    5

/* A batch of equal datagrams (the last may be shorter), in front of their bytes in the queue. One batch is
 * one GSO send. */
struct batch {
    uint32_t len, segment;
};

struct relay_udp_flow {
    struct relay_loop *loop;
    const struct relay_udp_flow_user *cb;
    void *user;
    int fd;
    int family;
    struct relay_io *io;
    struct relay_task flush_task, event_task;
    uint64_t last_received;
    unsigned refused; /* since something was received */
    int close_error;  /* to be told */
    bool gso, wants_write, blocked, resumed, told_close, in_callback, is_closed;
    struct relay_run held; /* what a blocked user left; held_bytes is ours */
    uint8_t *held_bytes;
    uint8_t *queue; /* NULL while nothing waits to be sent */
    size_t begin, end, size;
    size_t last; /* where the batch stands that may still grow */
    bool last_is_open;
};

/* ---- the queue toward the target ---- */

static struct batch batch_at(const struct relay_udp_flow *flow, size_t at)
{
    struct batch batch;
    memcpy(&batch, flow->queue + at, sizeof(batch));
    return batch;
}

static void put_batch(struct relay_udp_flow *flow, size_t at, struct batch batch)
{
    memcpy(flow->queue + at, &batch, sizeof(batch));
}

static size_t datagrams_in(size_t len, size_t segment)
{
    return len == 0 || segment == 0 ? 1 : (len + segment - 1) / segment;
}

/* Buffers of QUEUE_BATCH bytes for the flows of a thread; the last flow to go frees them. */
static _Thread_local uint8_t *pool[POOL_SIZE];
static _Thread_local size_t pool_len, pool_users;

static void drop_queue(struct relay_udp_flow *flow)
{
    if (flow->size == QUEUE_BATCH && pool_len < POOL_SIZE)
        pool[pool_len++] = flow->queue;
    else
        free(flow->queue);
    flow->queue = NULL;
    flow->begin = flow->end = flow->size = 0;
    flow->last_is_open = false;
}

/* A single datagram takes little, a flow of them a batch's buffer at once. */
static bool grow(struct relay_udp_flow *flow, size_t need)
{
    size_t size = flow->size == 0 && need <= QUEUE_MIN ? QUEUE_MIN
                  : need <= QUEUE_BATCH                ? QUEUE_BATCH
                                                       : QUEUE_MAX;
    if (need > size)
        return false;
    uint8_t *queue = size == QUEUE_BATCH && pool_len > 0 ? pool[--pool_len] : malloc(size);
    if (queue == NULL)
        return false;
    if (flow->end > 0)
        memcpy(queue, flow->queue, flow->end);
    size_t end = flow->end, last = flow->last;
    bool is_open = flow->last_is_open;
    drop_queue(flow);
    flow->queue = queue;
    flow->size = size;
    flow->end = end;
    flow->last = last;
    flow->last_is_open = is_open;
    return true;
}

static bool reserve(struct relay_udp_flow *flow, size_t more)
{
    if (flow->size - flow->end >= more)
        return true;
    if (flow->begin > 0) {
        memmove(flow->queue, flow->queue + flow->begin, flow->end - flow->begin);
        flow->last -= flow->begin;
        flow->end -= flow->begin;
        flow->begin = 0;
    }
    return flow->size - flow->end >= more || grow(flow, flow->end + more);
}

/* How many bytes of the run go behind the open batch: as many whole segments as it holds, and a shorter last
 * one, which closes it. 0: a batch of its own. */
static size_t fits_open_batch(const struct relay_udp_flow *flow, const struct relay_run *run, size_t segment)
{
    if (!flow->last_is_open || run->len == 0)
        return 0;
    struct batch batch = batch_at(flow, flow->last);
    size_t free_segments = GSO_SEGMENTS - batch.len / batch.segment;
    size_t free_bytes = GSO_BYTES > batch.len ? GSO_BYTES - batch.len : 0;
    if (segment > batch.segment || segment > free_bytes || free_segments == 0)
        return 0;
    if (segment < batch.segment)
        return segment;
    size_t whole = free_bytes / segment < free_segments ? free_bytes / segment : free_segments;
    size_t all = run->len / segment;
    return (all < whole ? all : whole) * segment;
}

static size_t new_batch_len(const struct relay_run *run, size_t segment)
{
    if (run->len == 0)
        return 0;
    size_t whole = GSO_BYTES / segment < GSO_SEGMENTS ? GSO_BYTES / segment : GSO_SEGMENTS;
    if (whole == 0)
        whole = 1;
    size_t all = run->len / segment;
    return (all < whole ? all : whole) * segment;
}

/* Takes the run's first bytes into the queue. 0 bytes of a non-empty run: no room. */
static size_t append(struct relay_udp_flow *flow, const struct relay_run *run)
{
    size_t segment = run->segment > 0 && run->segment < run->len ? run->segment : run->len;
    size_t len = fits_open_batch(flow, run, segment);
    if (len > 0) {
        if (!reserve(flow, len))
            return 0;
        struct batch batch = batch_at(flow, flow->last);
        batch.len += (uint32_t)len;
        flow->last_is_open = segment == batch.segment;
        put_batch(flow, flow->last, batch);
    } else {
        len = new_batch_len(run, segment);
        if (!reserve(flow, sizeof(struct batch) + len))
            return 0;
        put_batch(flow, flow->end, (struct batch){(uint32_t)len, (uint32_t)segment});
        flow->last = flow->end;
        flow->last_is_open = len > 0;
        flow->end += sizeof(struct batch);
    }
    if (len > 0)
        memcpy(flow->queue + flow->end, run->base, len);
    flow->end += len;
    return len;
}

/* One system call; bytes sent, or -errno. */
static ssize_t send_batch(struct relay_udp_flow *flow, const uint8_t *bytes, size_t len, size_t segment)
{
    struct iovec iov = {(void *)bytes, len};
    union {
        char bytes[CMSG_SPACE(sizeof(uint16_t))];
        struct cmsghdr align;
    } control;
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (len > segment) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof(control.bytes);
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&message);
        cmsg->cmsg_level = SOL_UDP;
        cmsg->cmsg_type = UDP_SEGMENT;
        cmsg->cmsg_len = CMSG_LEN(sizeof(uint16_t));
        uint16_t size = (uint16_t)segment;
        memcpy(CMSG_DATA(cmsg), &size, sizeof(size));
    }
    ssize_t sent;
    do
        sent = sendmsg(flow->fd, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : sent;
}

/* One datagram. An ICMP error that waits on the socket fails the next send, whatever that is: only the second
 * failure is this datagram's own. False: the socket is full. */
static bool send_one(struct relay_udp_flow *flow, const uint8_t *bytes, size_t len, bool *sent)
{
    ssize_t n = send_batch(flow, bytes, len, len);
    if (n < 0 && n != -EAGAIN)
        n = send_batch(flow, bytes, len, len);
    *sent = n >= 0;
    if (n == -EAGAIN)
        return false;
    if (n == -EMSGSIZE)
        relay_count(flow->loop->metrics->drop_target_too_big, 1);
    else if (n < 0)
        relay_count(flow->loop->metrics->drop_socket, 1);
    return true;
}

/* A batch one by one: a single datagram, or one whose GSO send failed. GSO is given up when the datagrams
 * pass alone (a path MTU that fell fails both). False: the socket is full; *done bytes were dealt with. */
static bool send_plainly(struct relay_udp_flow *flow, const uint8_t *bytes, struct batch batch, size_t *done)
{
    size_t num_sent = 0;
    bool all = true;
    *done = 0;
    do {
        size_t one = batch.len - *done < batch.segment ? batch.len - *done : batch.segment;
        bool sent;
        if (!send_one(flow, bytes + *done, one, &sent)) {
            all = false;
            break;
        }
        num_sent += sent;
        *done += one;
    } while (*done < batch.len);
    if (batch.len > batch.segment && num_sent > 0)
        flow->gso = false;
    return all;
}

static bool is_gso_failure(ssize_t n)
{
    return n == -EIO || n == -EINVAL || n == -EMSGSIZE || n == -EOPNOTSUPP ||
           n == -524 /* ENOTSUPP, kernel's own */;
}

/* Sends the first batch. False: the socket is full and what is left stands first in the queue. */
static bool flush_batch(struct relay_udp_flow *flow)
{
    struct batch batch = batch_at(flow, flow->begin);
    const uint8_t *bytes = flow->queue + flow->begin + sizeof(batch);
    if (batch.len > batch.segment && flow->gso) {
        ssize_t n = send_batch(flow, bytes, batch.len, batch.segment);
        if (n < 0 && n != -EAGAIN)
            n = send_batch(flow, bytes, batch.len, batch.segment);
        if (n == -EAGAIN)
            return false;
        if (n < 0 && !is_gso_failure(n))
            relay_count(flow->loop->metrics->drop_socket, datagrams_in(batch.len, batch.segment));
        if (n >= 0 || !is_gso_failure(n)) {
            flow->begin += sizeof(batch) + batch.len;
            return true;
        }
    }
    size_t done;
    bool all = send_plainly(flow, bytes, batch, &done);
    flow->begin += done;
    if (all) {
        flow->begin += sizeof(batch);
        return true;
    }
    batch.len -= (uint32_t)done; /* its head moves right in front of what is left */
    put_batch(flow, flow->begin, batch);
    return false;
}

static void arm(struct relay_udp_flow *flow)
{
    relay_io_arm(flow->io, (flow->blocked ? 0 : RELAY_IO_READ) | (flow->wants_write ? RELAY_IO_WRITE : 0));
}

static void flush(struct relay_udp_flow *flow)
{
    flow->wants_write = false;
    flow->last_is_open = false;
    while (flow->begin < flow->end) {
        if (!flush_batch(flow)) {
            flow->wants_write = true;
            break;
        }
    }
    if (flow->begin == flow->end)
        drop_queue(flow);
    arm(flow);
}

static void run_flush(struct relay_task *task)
{
    struct relay_udp_flow *flow =
        (struct relay_udp_flow *)((char *)task - offsetof(struct relay_udp_flow, flush_task));
    flush(flow);
}

/* Another datagram of its size would need a batch of its own. */
static bool last_is_full(const struct relay_udp_flow *flow)
{
    if (!flow->last_is_open)
        return false;
    struct batch batch = batch_at(flow, flow->last);
    return batch.len / batch.segment >= GSO_SEGMENTS || batch.len + batch.segment > GSO_BYTES;
}

void relay_udp_flow_send(struct relay_udp_flow *flow, const struct relay_run *run)
{
    struct relay_run left = *run;
    if (flow->is_closed || flow->told_close)
        return;
    bool flushed = false;
    do {
        size_t before = flow->end, taken = append(flow, &left);
        if (taken == 0 && flow->end == before) {
            if (!flushed && !flow->wants_write) {
                flush(flow);
                flushed = true;
                continue;
            }
            relay_count(flow->loop->metrics->drop_socket, datagrams_in(left.len, left.segment));
            break;
        }
        flushed = false;
        left.base += taken;
        left.len -= taken;
        /* Full batches leave while their bytes are in the cache, and the target can begin. */
        if (!flow->wants_write && last_is_full(flow))
            flush(flow);
    } while (left.len > 0);
    if (!flow->wants_write && flow->end > flow->begin)
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
        relay_count(flow->loop->metrics->drop_blocked, datagrams_in(run->len, run->segment));
        return;
    }
    memcpy(bytes, run->base, run->len);
    flow->held_bytes = bytes;
    flow->held = *run;
    flow->held.base = bytes;
}

static void free_flow(struct relay_udp_flow *flow)
{
    relay_task_cancel(&flow->flush_task);
    relay_task_cancel(&flow->event_task);
    relay_io_free(flow->io);
    if (flow->fd >= 0)
        close(flow->fd);
    drop_queue(flow);
    drop_held(flow);
    free(flow);
    if (--pool_users == 0)
        while (pool_len > 0)
            free(pool[--pool_len]);
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

/* The length, or -errno; *segment is what GRO says. */
static ssize_t receive(struct relay_udp_flow *flow, uint8_t *bytes, size_t *segment)
{
    struct iovec iov = {bytes, DATAGRAM_MAX};
    union {
        char bytes[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(struct timeval))];
        struct cmsghdr align;
    } control;
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    ssize_t len;
    do
        len = recvmsg(flow->fd, &message, MSG_DONTWAIT);
    while (len < 0 && errno == EINTR);
    if (len < 0)
        return -errno;
    *segment = (size_t)len;
    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(&message); cmsg != NULL; cmsg = CMSG_NXTHDR(&message, cmsg)) {
        int size;
        if (cmsg->cmsg_level == SOL_UDP && cmsg->cmsg_type == UDP_GRO) {
            memcpy(&size, CMSG_DATA(cmsg), sizeof(size));
            if (size > 0 && size < len)
                *segment = (size_t)size;
        }
    }
    return len;
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
        ssize_t len = receive(flow, scratch + at, &segment);
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
        datagrams += datagrams_in((size_t)len, segment);
        struct relay_run run = {0, scratch + at, (size_t)len, segment};
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
            if (said.ee_errno == ECONNREFUSED && ++flow->refused == REFUSED_MAX)
                close_later(flow, RELAY_ERR_REFUSED);
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
        drop_queue(flow);
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
    flow->fd = socket(flow->family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (flow->fd < 0)
        return errno == EMFILE || errno == ENFILE    ? RELAY_ERR_NO_DESCRIPTORS
               : errno == ENOBUFS || errno == ENOMEM ? RELAY_ERR_NO_MEMORY
                                                     : RELAY_ERR_UNREACHABLE;
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
    made->gso = true;
    pool_users++;
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
    if (relay_task_is_queued(&flow->flush_task) && flow->queue != NULL)
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
