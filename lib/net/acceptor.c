#include "lib/net/acceptor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/net/metrics.h"

#define ACCEPTS_PER_TURN 64
#define ACCEPT_PAUSE     (100 * RELAY_MS)
#define REFUSALS_MAX     256             /* in one go */
#define REFUSALS_TIME    (10 * RELAY_MS) /* of one go: with the pause a tenth of a core at most */

struct relay_acceptor {
    struct relay_loop *loop;
    int fd, spare_fd, below;
    struct relay_io *io;
    relay_accept_cb cb;
    void *user;
    struct relay_timer resume;
    bool is_accepting, is_closed;
};

static int open_spare(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void on_resume(struct relay_timer *timer)
{
    struct relay_acceptor *self =
        (struct relay_acceptor *)((char *)timer - offsetof(struct relay_acceptor, resume));
    if (self->spare_fd < 0)
        self->spare_fd = open_spare();
    relay_io_arm(self->io, RELAY_IO_READ);
}

/* In the place of the spare descriptor, which another thread may take first: then on_resume tries again. */
static void refuse_waiting(struct relay_acceptor *self)
{
    if (self->spare_fd < 0)
        return;
    close(self->spare_fd);
    uint64_t end = relay_loop_clock() + REFUSALS_TIME;
    for (int i = 0; i < REFUSALS_MAX && relay_loop_clock() < end; i++) {
        int fd = accept4(self->fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            break;
        close(fd);
        relay_count(self->loop->metrics->limit_descriptors, 1);
    }
    self->spare_fd = open_spare();
}

static void out_of_descriptors(struct relay_acceptor *self)
{
    refuse_waiting(self);
    relay_io_arm(self->io, 0);
    relay_timer_set_after(self->loop, &self->resume, ACCEPT_PAUSE);
}

/* False: no more this turn. */
static bool accept_one(struct relay_acceptor *self)
{
    struct sockaddr_storage peer = {0};
    socklen_t len = sizeof(peer);
    int fd = accept4(self->fd, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
            out_of_descriptors(self);
        return errno == ECONNABORTED || errno == EINTR;
    }
    if (fd >= self->below) {
        close(fd);
        relay_count(self->loop->metrics->limit_descriptors, 1);
        out_of_descriptors(self);
        return false;
    }
    int on = 1;
    if (peer.ss_family != AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    self->cb(self->user, fd, &peer);
    return !self->is_closed;
}

static void dispose(struct relay_acceptor *self)
{
    relay_timer_stop(self->loop, &self->resume);
    relay_io_free(self->io);
    close(self->fd);
    if (self->spare_fd >= 0)
        close(self->spare_fd);
    free(self);
}

static void on_acceptable(void *user, int events)
{
    struct relay_acceptor *self = user;
    self->is_accepting = true;
    for (int i = 0; i < ACCEPTS_PER_TURN && accept_one(self); i++)
        ;
    self->is_accepting = false;
    if (self->is_closed)
        dispose(self);
}

static int bind_and_listen(int fd, struct sockaddr_storage *address, bool share)
{
    int on = 1;
    socklen_t len = address->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    if (address->ss_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) != 0)
        return -errno;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        (share && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) != 0) ||
        bind(fd, (struct sockaddr *)address, len) != 0 || listen(fd, SOMAXCONN) != 0 ||
        getsockname(fd, (struct sockaddr *)address, &len) != 0)
        return -errno;
    return 0;
}

int relay_acceptor_bind(struct sockaddr_storage *address, bool share, int *fd)
{
    *fd = socket(address->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (*fd < 0)
        return -errno;
    int error = bind_and_listen(*fd, address, share);
    if (error != 0) {
        close(*fd);
        *fd = -1;
    }
    return error;
}

struct relay_acceptor *relay_acceptor_new(struct relay_loop *loop, int fd, relay_accept_cb cb, void *user)
{
    struct relay_acceptor *self = calloc(1, sizeof(*self));
    struct relay_io *io = self != NULL ? relay_io_new(loop, fd, on_acceptable, self) : NULL;
    if (io == NULL) {
        free(self);
        close(fd);
        return NULL;
    }
    *self = (struct relay_acceptor){
        .loop = loop, .fd = fd, .spare_fd = open_spare(), .below = INT_MAX, .io = io, .cb = cb, .user = user};
    relay_timer_init(&self->resume, on_resume);
    relay_io_arm(io, RELAY_IO_READ);
    return self;
}

void relay_acceptor_keep_below(struct relay_acceptor *self, int descriptor)
{
    self->below = descriptor;
}

void relay_acceptor_close(struct relay_acceptor *self)
{
    self->is_closed = true;
    if (!self->is_accepting)
        dispose(self);
}
