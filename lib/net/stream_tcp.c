/* A TCP socket as a stream.
 *
 * Writes: bytes that lie in scratch are borrowed and written with one sendmsg when the reader settles. Small
 * pieces that do not (an HTTP/3 tunnel's come one QUIC packet at a time) are gathered in `queue` until the
 * end of the turn: a system call for each would be most of the tunnel's cost. Other bytes are written at once
 * while nothing waits. What the kernel refuses is copied into `queue`, and the writer is told to wait: a peer
 * that does not read costs QUEUE_MARK and one more piece, or the piece that was refused.
 *
 * An ending takes the user away (cb NULL). The socket is closed by it, or, released, when it has drained and
 * the peer has ended too; the memory is freed from a task, because an ending may come from inside a callback
 * of ours.
 *
 * The guard (stream.h) is SO_LINGER with a time of 0, which makes a RST of every close(2), the kernel's included. It
 * comes off where the FIN goes out and before an orderly close.
 */
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/net/buffer.h"
#include "lib/net/loop.h"
#include "lib/net/stream.h"
#include "lib/wire/error.h"

#define HIGH_MARK      (192 * 1024) /* what may be written at once */
#define QUEUE_MARK     (64 * 1024)  /* what may wait because the kernel refused it */
#define BORROWED_MARK  (64 * 1024)  /* borrowed bytes are written when there are so many of them */
#define LOW_MARK       (32 * 1024)  /* below it a source is asked for more */
#define MAX_BORROWED   16           /* pieces written at once; more are written in several calls */
#define GATHER_PIECE   (8 * 1024)   /* smaller pieces are gathered */
#define GATHER_MAX     (64 * 1024)  /* and written when there are so many of them */
#define UNSENT_MARK    (64 * 1024)  /* of a shared stream, in the kernel, beyond the congestion window */
#define LINGER_FIN     (2 * RELAY_SECOND)  /* a released stream waits that long for the peer's FIN */
#define LINGER_STALLED (30 * RELAY_SECOND) /* that long for a queue that does not move */
#define LINGER_MAX     (60 * RELAY_SECOND) /* and that long in all: nobody keeps a socket alive by the trickle */

struct tcp {
    struct relay_stream super;
    int fd; /* -1: closed */
    struct relay_io *io;
    struct relay_task tell;   /* what the user is told from the loop, or the end of the memory */
    struct relay_task settle; /* writes what was borrowed */
    struct relay_task gather; /* writes what was gathered */
    struct relay_timer linger;
    struct relay_task cut; /* among the loop's lingering ones while released */
    uint64_t linger_until;
    struct relay_buffer queue; /* copied; nothing is borrowed while it is not empty */
    struct iovec borrowed[MAX_BORROWED];
    unsigned num_borrowed;
    size_t borrowed_len;
    bool is_gathering; /* the queue was not offered to the kernel yet */
    int error;         /* the stream is dead; told by on_close */
    bool started, ready_told, close_told;
    bool paused;      /* by the user */
    bool hangup_told; /* a FIN came while paused: it is read after resume */
    bool fin_seen;    /* the peer's FIN was read */
    bool fin_wanted, fin_sent;
    bool is_guarded;     /* close(2) will send a RST, whoever calls it: also the kernel when we are dead */
    bool wants_writable; /* send returned false */
    bool released;       /* no user; draining and lingering */
    bool ended;          /* no user; only the memory is left */
};

static int error_of_errno(int number)
{
    switch (number) {
    case ETIMEDOUT:
        return RELAY_ERR_TIMEOUT;
    case ECONNREFUSED:
        return RELAY_ERR_REFUSED;
    case EHOSTUNREACH:
    case ENETUNREACH:
        return RELAY_ERR_UNREACHABLE;
    case ENOMEM:
    case ENOBUFS:
        return RELAY_ERR_NO_MEMORY;
    default:
        return RELAY_ERR_RESET;
    }
}

static size_t pending(const struct tcp *tcp)
{
    return tcp->queue.len + tcp->borrowed_len;
}

/* What send takes before it says no. */
static size_t room(const struct tcp *tcp)
{
    size_t mark = tcp->queue.len > 0 && !tcp->is_gathering ? QUEUE_MARK : HIGH_MARK;
    return pending(tcp) < mark ? mark - pending(tcp) : 0;
}

static void drop_writes(struct tcp *tcp)
{
    relay_task_cancel(&tcp->settle);
    relay_task_cancel(&tcp->gather);
    tcp->is_gathering = false;
    relay_buffer_dispose(&tcp->queue);
    tcp->num_borrowed = 0;
    tcp->borrowed_len = 0;
}

static void set_guarded(struct tcp *tcp, bool is_guarded)
{
    const struct linger linger = {.l_onoff = is_guarded, .l_linger = 0};
    if (tcp->fd == -1 || tcp->is_guarded == is_guarded)
        return;
    tcp->is_guarded = is_guarded;
    setsockopt(tcp->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

static void close_socket(struct tcp *tcp)
{
    drop_writes(tcp);
    relay_timer_stop(tcp->super.loop, &tcp->linger);
    relay_task_cancel(&tcp->cut);
    relay_io_free(tcp->io);
    tcp->io = NULL;
    if (tcp->fd != -1)
        close(tcp->fd);
    tcp->fd = -1;
}

/* The memory is freed from the task. */
static void end(struct tcp *tcp)
{
    close_socket(tcp);
    tcp->ended = true;
    relay_task_queue(tcp->super.loop, &tcp->tell);
}

static void die(struct tcp *tcp, int error)
{
    if (tcp->released) {
        end(tcp);
        return;
    }
    if (tcp->error != RELAY_OK)
        return;
    tcp->error = error;
    close_socket(tcp);
    relay_task_queue(tcp->super.loop, &tcp->tell);
}

static void arm(struct tcp *tcp)
{
    if (tcp->io == NULL || !tcp->started)
        return;
    int events = tcp->queue.len > 0 && !tcp->is_gathering ? RELAY_IO_WRITE : 0;
    if (!tcp->fin_seen) {
        if (!tcp->paused || tcp->released)
            events |= RELAY_IO_READ;
        else if (!tcp->hangup_told)
            events |= RELAY_IO_HANGUP;
    }
    relay_io_arm(tcp->io, events);
}

/* A released stream: what it waits for now. */
static void linger_on(struct tcp *tcp)
{
    if (!tcp->released || tcp->ended)
        return;
    if (tcp->fin_sent && tcp->fin_seen) {
        end(tcp);
        return;
    }
    uint64_t until = relay_loop_now(tcp->super.loop) + (tcp->fin_sent ? LINGER_FIN : LINGER_STALLED);
    relay_timer_set(tcp->super.loop, &tcp->linger, until < tcp->linger_until ? until : tcp->linger_until);
}

/* After something was written: the half-close, the user's writability, a released stream's next wait. */
static void wrote(struct tcp *tcp)
{
    if (tcp->fin_wanted && !tcp->fin_sent && pending(tcp) == 0) {
        set_guarded(tcp, false); /* the kernel has all; it delivers that without us too */
        shutdown(tcp->fd, SHUT_WR);
        tcp->fin_sent = true;
    }
    if (tcp->wants_writable && pending(tcp) <= LOW_MARK)
        relay_task_queue(tcp->super.loop, &tcp->tell);
    arm(tcp);
    linger_on(tcp);
}

/* How much the kernel took; -1 when the stream has died of it. */
static ssize_t write_pieces(struct tcp *tcp, struct iovec *pieces, size_t num_pieces)
{
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = num_pieces};
    ssize_t len;
    do
        len = sendmsg(tcp->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (len < 0 && errno == EINTR);
    if (len >= 0)
        return len;
    if (errno == EAGAIN)
        return 0;
    die(tcp, error_of_errno(errno));
    return -1;
}

/* Writes what is borrowed and then `bytes` in one call, and copies what the kernel refused. */
static void write_borrowed(struct tcp *tcp, const uint8_t *bytes, size_t len)
{
    struct iovec pieces[MAX_BORROWED + 1];
    size_t num_pieces = tcp->num_borrowed;
    memcpy(pieces, tcp->borrowed, num_pieces * sizeof(pieces[0]));
    if (len > 0)
        pieces[num_pieces++] = (struct iovec){(void *)bytes, len};
    relay_task_cancel(&tcp->settle);
    tcp->num_borrowed = 0;
    tcp->borrowed_len = 0;
    if (num_pieces == 0)
        return;
    ssize_t taken = write_pieces(tcp, pieces, num_pieces);
    if (taken < 0)
        return;
    for (size_t i = 0; i < num_pieces; i++) {
        size_t skip = (size_t)taken < pieces[i].iov_len ? (size_t)taken : pieces[i].iov_len;
        taken -= (ssize_t)skip;
        const uint8_t *rest = (const uint8_t *)pieces[i].iov_base + skip;
        if (relay_buffer_append(&tcp->queue, rest, pieces[i].iov_len - skip) != RELAY_OK) {
            die(tcp, RELAY_ERR_NO_MEMORY);
            return;
        }
    }
}

static void write_queue(struct tcp *tcp)
{
    if (tcp->queue.len == 0)
        return;
    struct iovec piece = {relay_buffer_bytes(&tcp->queue), tcp->queue.len};
    ssize_t taken = write_pieces(tcp, &piece, 1);
    if (taken <= 0)
        return;
    relay_buffer_consume(&tcp->queue, (size_t)taken);
    wrote(tcp);
}

static void on_settle(struct relay_task *task)
{
    struct tcp *tcp = (struct tcp *)((char *)task - offsetof(struct tcp, settle));
    write_borrowed(tcp, NULL, 0);
    if (tcp->fd != -1)
        wrote(tcp);
}

static void end_gathering(struct tcp *tcp)
{
    if (!tcp->is_gathering)
        return;
    tcp->is_gathering = false;
    relay_task_cancel(&tcp->gather);
    write_queue(tcp);
    arm(tcp);
}

static void on_gather(struct relay_task *task)
{
    end_gathering((struct tcp *)((char *)task - offsetof(struct tcp, gather)));
}

static void gather(struct tcp *tcp, const uint8_t *bytes, size_t len)
{
    size_t room = tcp->is_gathering ? len : len + GATHER_PIECE;
    if (relay_buffer_reserve(&tcp->queue, room) == NULL ||
        relay_buffer_append(&tcp->queue, bytes, len) != RELAY_OK) {
        die(tcp, RELAY_ERR_NO_MEMORY);
        return;
    }
    tcp->is_gathering = true;
    relay_task_queue(tcp->super.loop, &tcp->gather);
    if (tcp->queue.len >= GATHER_MAX)
        end_gathering(tcp);
}

static void borrow(struct tcp *tcp, const uint8_t *bytes, size_t len)
{
    struct iovec *last = tcp->num_borrowed > 0 ? &tcp->borrowed[tcp->num_borrowed - 1] : NULL;
    if (last != NULL && (const uint8_t *)last->iov_base + last->iov_len == bytes)
        last->iov_len += len;
    else
        tcp->borrowed[tcp->num_borrowed++] = (struct iovec){(void *)bytes, len};
    tcp->borrowed_len += len;
    if (!relay_task_is_queued(&tcp->settle))
        relay_loop_settle_later(tcp->super.loop, &tcp->settle);
}

static void tcp_start(struct relay_stream *stream)
{
    struct tcp *tcp = (struct tcp *)stream;
    tcp->started = true;
    relay_task_queue(stream->loop, &tcp->tell);
    arm(tcp);
}

static size_t tcp_room(struct relay_stream *stream)
{
    struct tcp *tcp = (struct tcp *)stream;
    size_t len = room(tcp);
    tcp->wants_writable |= len == 0; /* borrowed bytes may have been refused since the last send */
    return len;
}

static bool tcp_send(struct relay_stream *stream, const uint8_t *bytes, size_t len)
{
    struct tcp *tcp = (struct tcp *)stream;
    if (tcp->fd == -1 || tcp->fin_wanted)
        return true;
    bool is_borrowable = relay_loop_is_borrowable(stream->loop, bytes), is_small = len < GATHER_PIECE;
    if (is_borrowable || !is_small)
        end_gathering(tcp);
    if (tcp->fd == -1)
        return true; /* on_close comes */
    if (tcp->is_gathering || (is_small && !is_borrowable && len > 0 && pending(tcp) == 0)) {
        gather(tcp, bytes, len);
    } else if (tcp->queue.len > 0) {
        if (relay_buffer_append(&tcp->queue, bytes, len) != RELAY_OK)
            die(tcp, RELAY_ERR_NO_MEMORY);
    } else if (len > 0 && is_borrowable) {
        borrow(tcp, bytes, len);
        if (tcp->num_borrowed == MAX_BORROWED || tcp->borrowed_len >= BORROWED_MARK)
            write_borrowed(tcp, NULL, 0);
    } else {
        write_borrowed(tcp, bytes, len);
    }
    arm(tcp);
    if (room(tcp) > 0)
        return true;
    tcp->wants_writable = true;
    return false;
}

static size_t tcp_unacknowledged(struct relay_stream *stream)
{
    struct tcp *tcp = (struct tcp *)stream;
    int in_kernel = 0;
    if (tcp->fd == -1 || ioctl(tcp->fd, SIOCOUTQ, &in_kernel) != 0)
        in_kernel = 0;
    return pending(tcp) + (size_t)in_kernel;
}

static enum relay_stream_peer tcp_look(struct relay_stream *stream)
{
    struct tcp *tcp = (struct tcp *)stream;
    struct pollfd poll_fd = {.fd = tcp->fd, .events = POLLRDHUP};
    int unread = 0;
    if (tcp->fd == -1)
        return RELAY_PEER_GONE;
    if (poll(&poll_fd, 1, 0) <= 0)
        return RELAY_PEER_THERE;
    if (poll_fd.revents & (POLLERR | POLLHUP))
        return RELAY_PEER_GONE;
    return ioctl(tcp->fd, FIONREAD, &unread) == 0 && unread > 0 ? RELAY_PEER_SAID_ALL : RELAY_PEER_ENDED;
}

static int tcp_descriptor(struct relay_stream *stream)
{
    return ((struct tcp *)stream)->fd;
}

static void tcp_guard(struct relay_stream *stream)
{
    struct tcp *tcp = (struct tcp *)stream;
    if (!tcp->fin_sent)
        set_guarded(tcp, true);
}

/* The kernel sizes its buffer for one flow's throughput: megabytes, which at 20 Mbit/s are a second. */
static void tcp_share(struct relay_stream *stream)
{
    const int unsent = UNSENT_MARK;
    setsockopt(((struct tcp *)stream)->fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent));
}

static void tcp_fin(struct relay_stream *stream)
{
    struct tcp *tcp = (struct tcp *)stream;
    if (tcp->fd == -1 || tcp->fin_wanted)
        return;
    tcp->fin_wanted = true;
    wrote(tcp);
}

static void tcp_pause(struct relay_stream *stream)
{
    struct tcp *tcp = (struct tcp *)stream;
    tcp->paused = true;
    arm(tcp);
}

static void tcp_resume(struct relay_stream *stream)
{
    struct tcp *tcp = (struct tcp *)stream;
    tcp->paused = false;
    tcp->hangup_told = false;
    arm(tcp);
}

static void drop(struct tcp *tcp)
{
    tcp->super.cb = NULL;
    /* What was gathered counts as sent: an alert is followed by a close. */
    if (tcp->is_gathering && tcp->fd != -1) {
        struct iovec piece = {relay_buffer_bytes(&tcp->queue), tcp->queue.len};
        (void)write_pieces(tcp, &piece, 1);
    }
    end(tcp);
}

static void tcp_close(struct relay_stream *stream)
{
    set_guarded((struct tcp *)stream, false);
    drop((struct tcp *)stream);
}

static void tcp_release(struct relay_stream *stream)
{
    struct tcp *tcp = (struct tcp *)stream;
    stream->cb = NULL;
    if (tcp->fd == -1) {
        end(tcp);
        return;
    }
    tcp->started = true;
    tcp->released = true;
    tcp->fin_wanted = true;
    tcp->wants_writable = false;
    tcp->linger_until = relay_loop_now(stream->loop) + LINGER_MAX;
    relay_loop_linger(stream->loop, &tcp->cut);
    wrote(tcp);
}

static void tcp_reset(struct relay_stream *stream)
{
    set_guarded((struct tcp *)stream, true);
    drop((struct tcp *)stream);
}

static const struct relay_stream_ops tcp_ops = {
    .start = tcp_start,
    .room = tcp_room,
    .send = tcp_send,
    .unacknowledged = tcp_unacknowledged,
    .look = tcp_look,
    .descriptor = tcp_descriptor,
    .guard = tcp_guard,
    .share = tcp_share,
    .fin = tcp_fin,
    .pause = tcp_pause,
    .resume = tcp_resume,
    .release = tcp_release,
    .close = tcp_close,
    .reset = tcp_reset,
};

static void dispose(struct tcp *tcp)
{
    close_socket(tcp);
    relay_task_cancel(&tcp->tell);
    if (tcp->super.on_gone != NULL)
        tcp->super.on_gone(tcp->super.gone_user, &tcp->super);
    free(tcp);
}

/* Every callback may end the stream: look at cb again after each. */
static void on_tell(struct relay_task *task)
{
    struct tcp *tcp = (struct tcp *)((char *)task - offsetof(struct tcp, tell));
    struct relay_stream *stream = &tcp->super;
    if (tcp->ended) {
        dispose(tcp);
        return;
    }
    if (stream->cb != NULL && tcp->started && !tcp->ready_told && tcp->error == RELAY_OK) {
        tcp->ready_told = true;
        if (stream->cb->on_ready != NULL)
            stream->cb->on_ready(stream->user);
    }
    if (stream->cb != NULL && tcp->wants_writable && tcp->fd != -1 && pending(tcp) <= LOW_MARK) {
        tcp->wants_writable = false;
        stream->cb->on_writable(stream->user);
    }
    if (stream->cb != NULL && tcp->error != RELAY_OK && !tcp->close_told) {
        tcp->close_told = true;
        stream->cb->on_close(stream->user, tcp->error);
    }
}

/* What did not get out must not look complete (T80). */
static void stop_lingering(struct tcp *tcp)
{
    if (!tcp->fin_sent)
        set_guarded(tcp, true);
    end(tcp);
}

static void on_linger(struct relay_timer *timer)
{
    stop_lingering((struct tcp *)((char *)timer - offsetof(struct tcp, linger)));
}

static void on_cut(struct relay_task *task)
{
    stop_lingering((struct tcp *)((char *)task - offsetof(struct tcp, cut)));
}

static void read_fin(struct tcp *tcp)
{
    tcp->fin_seen = true;
    arm(tcp);
    if (tcp->released)
        linger_on(tcp);
    else
        tcp->super.cb->on_fin(tcp->super.user);
}

/* One read per readiness: what is left comes with the loop's next turn, so that one stream cannot keep the
 * others waiting. */
static void read_some(struct tcp *tcp)
{
    struct relay_loop *loop = tcp->super.loop;
    uint8_t *scratch = relay_loop_take_scratch(loop);
    if (scratch == NULL) {
        die(tcp, RELAY_ERR_NO_MEMORY);
        return;
    }
    size_t max = tcp->super.read_max;
    max = max > 0 && max < RELAY_SCRATCH_SIZE ? max : RELAY_SCRATCH_SIZE;
    ssize_t len = recv(tcp->fd, scratch, max, MSG_DONTWAIT);
    int number = errno;
    if (len > 0 && !tcp->released)
        tcp->super.cb->on_bytes(tcp->super.user, scratch, (size_t)len);
    relay_loop_return_scratch(loop);
    if (len == 0)
        read_fin(tcp);
    else if (len < 0 && number != EAGAIN && number != EINTR)
        die(tcp, error_of_errno(number));
}

static void on_io(void *user, int events)
{
    struct tcp *tcp = user;
    int number = 0;
    socklen_t size = sizeof(number);
    if (events & (RELAY_IO_ERROR | RELAY_IO_HANGUP))
        getsockopt(tcp->fd, SOL_SOCKET, SO_ERROR, &number, &size);
    if ((events & RELAY_IO_ERROR) || number != 0) {
        die(tcp, error_of_errno(number));
        return;
    }
    if (events & RELAY_IO_HANGUP)
        tcp->hangup_told = true;
    if (events & RELAY_IO_WRITE)
        write_queue(tcp);
    if ((events & RELAY_IO_READ) && tcp->fd != -1 && !tcp->fin_seen && (!tcp->paused || tcp->released))
        read_some(tcp);
}

struct relay_stream *relay_stream_tcp(struct relay_loop *loop, int fd, const struct sockaddr *peer)
{
    struct tcp *tcp = calloc(1, sizeof(*tcp));
    if (tcp == NULL) {
        close(fd);
        return NULL;
    }
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    tcp->super.ops = &tcp_ops;
    tcp->super.loop = loop;
    tcp->fd = fd;
    if (peer != NULL && peer->sa_family == AF_INET)
        memcpy(&tcp->super.peer, peer, sizeof(struct sockaddr_in));
    else if (peer != NULL && peer->sa_family == AF_INET6)
        memcpy(&tcp->super.peer, peer, sizeof(struct sockaddr_in6));
    relay_task_init(&tcp->tell, RELAY_LEVEL_EVENT, on_tell);
    relay_task_init(&tcp->settle, RELAY_LEVEL_FLUSH_SOCKET, on_settle);
    relay_task_init(&tcp->gather, RELAY_LEVEL_FLUSH_SOCKET, on_gather);
    relay_timer_init(&tcp->linger, on_linger);
    relay_task_init(&tcp->cut, RELAY_LEVEL_EVENT, on_cut);
    tcp->io = relay_io_new(loop, fd, on_io, tcp);
    if (tcp->io == NULL) {
        dispose(tcp);
        return NULL;
    }
    return &tcp->super;
}
