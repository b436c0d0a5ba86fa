#include "lib/net/udp_queue.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "lib/net/udp_batch.h"

#define QUEUE_MAX    ((size_t)256 << 10)
#define QUEUE_BATCH  ((size_t)72 << 10) /* holds a whole batch: the size of the pool's buffers */
#define QUEUE_MIN    ((size_t)4 << 10)
#define QUEUE_CALLS  32 /* batches that wait: each is a system call */
#define POOL_SIZE    8
#define GSO_SEGMENTS 64    /* the kernel's UDP_MAX_SEGMENTS of old */
#define GSO_BYTES    65000 /* an IPv4 packet's payload, with room for any header */

/* A batch of equal datagrams (the last may be shorter), in front of their bytes in the queue. One batch is
 * one GSO send. */
struct batch {
    uint32_t len, segment;
};

static struct batch batch_at(const struct relay_udp_queue *queue, size_t at)
{
    struct batch batch;
    memcpy(&batch, queue->bytes + at, sizeof(batch));
    return batch;
}

static void put_batch(struct relay_udp_queue *queue, size_t at, struct batch batch)
{
    memcpy(queue->bytes + at, &batch, sizeof(batch));
}

/* Buffers of QUEUE_BATCH bytes for the queues of a thread; the last one to go frees them. */
static _Thread_local uint8_t *pool[POOL_SIZE];
static _Thread_local size_t pool_len, pool_users;

static void empty(struct relay_udp_queue *queue)
{
    if (queue->size == QUEUE_BATCH && pool_len < POOL_SIZE)
        pool[pool_len++] = queue->bytes;
    else
        free(queue->bytes);
    queue->bytes = NULL;
    queue->begin = queue->end = queue->size = queue->num_batches = 0;
    queue->last_is_open = false;
}

static size_t count_of(struct batch batch)
{
    return batch.len == 0 ? 1 : (batch.len + batch.segment - 1) / batch.segment;
}

void relay_udp_queue_drop(struct relay_udp_queue *queue)
{
    while (queue->begin < queue->end) {
        struct batch batch = batch_at(queue, queue->begin);
        relay_count(queue->metrics->drop_closed, count_of(batch));
        queue->begin += sizeof(batch) + batch.len;
    }
    empty(queue);
}

static void count_sent(struct relay_udp_queue *queue, struct batch batch)
{
    relay_count(queue->metrics->datagrams_in, count_of(batch));
    relay_count(queue->metrics->udp_bytes_in, batch.len);
}

/* A single datagram takes little, a flow of them a batch's buffer at once. */
static bool grow(struct relay_udp_queue *queue, size_t need)
{
    size_t size = queue->size == 0 && need <= QUEUE_MIN ? QUEUE_MIN
                  : need <= QUEUE_BATCH                 ? QUEUE_BATCH
                                                        : QUEUE_MAX;
    if (need > size)
        return false;
    uint8_t *bytes = size == QUEUE_BATCH && pool_len > 0 ? pool[--pool_len] : malloc(size);
    if (bytes == NULL)
        return false;
    if (queue->end > 0)
        memcpy(bytes, queue->bytes, queue->end);
    size_t end = queue->end, last = queue->last, num_batches = queue->num_batches;
    bool is_open = queue->last_is_open;
    empty(queue);
    queue->bytes = bytes;
    queue->size = size;
    queue->end = end;
    queue->last = last;
    queue->num_batches = num_batches;
    queue->last_is_open = is_open;
    return true;
}

static bool reserve(struct relay_udp_queue *queue, size_t more)
{
    if (queue->size - queue->end >= more)
        return true;
    if (queue->begin > 0) {
        memmove(queue->bytes, queue->bytes + queue->begin, queue->end - queue->begin);
        queue->last -= queue->begin;
        queue->end -= queue->begin;
        queue->begin = 0;
    }
    return queue->size - queue->end >= more || grow(queue, queue->end + more);
}

/* How many bytes of the run go behind the open batch: as many whole segments as it holds, and a shorter last
 * one, which closes it. 0: a batch of its own. */
static size_t fits_open_batch(const struct relay_udp_queue *queue, const struct relay_run *run,
                              size_t segment)
{
    if (!queue->last_is_open || run->len == 0)
        return 0;
    struct batch batch = batch_at(queue, queue->last);
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

/* Takes the first bytes of the run, or its empty datagram, into the queue. False: no room. */
static bool append(struct relay_udp_queue *queue, const struct relay_run *run, size_t *taken)
{
    size_t segment = run->segment > 0 && run->segment < run->len ? run->segment : run->len;
    size_t len = fits_open_batch(queue, run, segment);
    if (len > 0) {
        if (!reserve(queue, len))
            return false;
        struct batch batch = batch_at(queue, queue->last);
        batch.len += (uint32_t)len;
        queue->last_is_open = segment == batch.segment;
        put_batch(queue, queue->last, batch);
    } else {
        len = new_batch_len(run, segment);
        if (!reserve(queue, sizeof(struct batch) + len))
            return false;
        put_batch(queue, queue->end, (struct batch){(uint32_t)len, (uint32_t)segment});
        queue->last = queue->end;
        queue->last_is_open = len > 0;
        queue->end += sizeof(struct batch);
        queue->num_batches++;
    }
    if (len > 0)
        memcpy(queue->bytes + queue->end, run->base, len);
    queue->end += len;
    *taken = len;
    return true;
}

/* One system call; bytes sent, or -errno. */
static ssize_t send_batch(struct relay_udp_queue *queue, const uint8_t *bytes, size_t len, size_t segment)
{
    struct iovec iov = {(void *)bytes, len};
    union {
        char bytes[CMSG_SPACE(sizeof(uint16_t))];
        struct cmsghdr align;
    } control;
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (queue->peer != NULL) {
        message.msg_name = (void *)(uintptr_t)queue->peer;
        message.msg_namelen = relay_udp_address_size(queue->peer);
    }
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
        sent = sendmsg(queue->fd, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : sent;
}

/* One datagram. An ICMP error that waits on the socket fails the next send, whatever that is: only the second
 * failure is this datagram's own. False: the socket is full. */
static bool send_one(struct relay_udp_queue *queue, const uint8_t *bytes, size_t len, bool *sent)
{
    ssize_t n = send_batch(queue, bytes, len, len);
    if (n < 0 && n != -EAGAIN)
        n = send_batch(queue, bytes, len, len);
    *sent = n >= 0;
    if (n == -EAGAIN)
        return false;
    if (n == -EMSGSIZE)
        relay_count(queue->metrics->drop_target_too_big, 1);
    else if (n < 0)
        relay_count(queue->metrics->drop_socket, 1);
    else
        count_sent(queue, (struct batch){(uint32_t)len, (uint32_t)len});
    return true;
}

/* A batch one by one: a single datagram, or one whose GSO send failed. GSO is given up when the datagrams
 * pass alone (a path MTU that fell fails both). False: the socket is full; *done bytes were dealt with. */
static bool send_plainly(struct relay_udp_queue *queue, const uint8_t *bytes, struct batch batch,
                         size_t *done)
{
    size_t num_sent = 0;
    bool all = true;
    *done = 0;
    do {
        size_t one = batch.len - *done < batch.segment ? batch.len - *done : batch.segment;
        bool sent;
        if (!send_one(queue, bytes + *done, one, &sent)) {
            all = false;
            break;
        }
        num_sent += sent;
        *done += one;
    } while (*done < batch.len);
    if (batch.len > batch.segment && num_sent > 0)
        queue->gso = false;
    return all;
}

static bool is_gso_failure(ssize_t n)
{
    return n == -EIO || n == -EINVAL || n == -EMSGSIZE || n == -EOPNOTSUPP ||
           n == -524 /* ENOTSUPP, kernel's own */;
}

/* Sends the first batch. False: the socket is full and what is left stands first in the queue. */
static bool flush_batch(struct relay_udp_queue *queue)
{
    struct batch batch = batch_at(queue, queue->begin);
    const uint8_t *bytes = queue->bytes + queue->begin + sizeof(batch);
    if (batch.len > batch.segment && queue->gso) {
        ssize_t n = send_batch(queue, bytes, batch.len, batch.segment);
        if (n < 0 && n != -EAGAIN)
            n = send_batch(queue, bytes, batch.len, batch.segment);
        if (n == -EAGAIN)
            return false;
        if (n >= 0)
            count_sent(queue, batch);
        else if (!is_gso_failure(n))
            relay_count(queue->metrics->drop_socket, count_of(batch));
        if (n >= 0 || !is_gso_failure(n)) {
            queue->begin += sizeof(batch) + batch.len;
            return true;
        }
    }
    size_t done;
    bool all = send_plainly(queue, bytes, batch, &done);
    queue->begin += done;
    if (all) {
        queue->begin += sizeof(batch);
        return true;
    }
    batch.len -= (uint32_t)done; /* its head moves right in front of what is left */
    put_batch(queue, queue->begin, batch);
    return false;
}

void relay_udp_queue_flush(struct relay_udp_queue *queue)
{
    queue->is_blocked = false;
    queue->last_is_open = false;
    while (queue->begin < queue->end) {
        if (!flush_batch(queue)) {
            queue->is_blocked = true;
            return;
        }
        queue->num_batches--;
    }
    empty(queue);
}

/* Another datagram of its size would need a batch of its own. */
static bool last_is_full(const struct relay_udp_queue *queue)
{
    if (!queue->last_is_open)
        return false;
    struct batch batch = batch_at(queue, queue->last);
    return batch.len / batch.segment >= GSO_SEGMENTS || batch.len + batch.segment > GSO_BYTES;
}

/* Takes the run's first bytes, or its empty datagram, for which it makes room by sending when it must. */
static bool take(struct relay_udp_queue *queue, struct relay_run *run)
{
    for (int attempt = 0; attempt < 2; attempt++) {
        size_t taken;
        if (append(queue, run, &taken)) {
            run->base += taken;
            run->len -= taken;
            return true;
        }
        if (queue->is_blocked)
            return false;
        relay_udp_queue_flush(queue);
    }
    return false;
}

void relay_udp_queue_add(struct relay_udp_queue *queue, const struct relay_run *run)
{
    struct relay_run left = *run;
    do {
        if (!take(queue, &left)) {
            relay_count(queue->metrics->drop_socket, relay_run_count(&left));
            break;
        }
        /* Full batches leave while their bytes are in the cache, and the target can begin. */
        if (!queue->is_blocked && (last_is_full(queue) || queue->num_batches >= QUEUE_CALLS))
            relay_udp_queue_flush(queue);
    } while (left.len > 0);
}

/* ---- life ---- */

void relay_udp_queue_init(struct relay_udp_queue *queue, struct relay_metrics *metrics, int fd)
{
    *queue = (struct relay_udp_queue){.metrics = metrics, .fd = fd, .gso = true};
    pool_users++;
}

void relay_udp_queue_dispose(struct relay_udp_queue *queue)
{
    relay_udp_queue_drop(queue);
    if (--pool_users == 0)
        while (pool_len > 0)
            free(pool[--pool_len]);
}
