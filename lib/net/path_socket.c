#include "lib/net/path_socket.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/net/udp_batch.h"
#include "lib/wire/error.h"

#define RECEIVE_ROUNDS 16   /* of recvmmsg before others get their turn */
#define MTU_MIN        1200 /* RFC 9000 section 14: below it QUIC does not work anyway */

struct path_socket {
    struct relay_packet_path path;
    struct relay_loop *loop;
    struct relay_io *io;
    struct relay_task events; /* what came up inside a call of the user is told from here */
    struct relay_udp_gso gso;
    size_t mtu;
    int fd, family, error;
    bool is_blocked, is_trusted, mtu_changed, close_told;
};

static struct path_socket *of(struct relay_packet_path *path)
{
    return (struct path_socket *)path;
}

static void read_mtu(struct path_socket *self)
{
    size_t mtu = relay_udp_mtu(self->fd, self->family);
    if (mtu == 0)
        return;
    if (mtu < MTU_MIN)
        mtu = MTU_MIN;
    if (mtu != self->mtu) {
        self->mtu = mtu;
        self->mtu_changed = true;
        relay_task_queue(self->loop, &self->events);
    }
}

static void die(struct path_socket *self, int error)
{
    if (self->error == 0) {
        self->error = error;
        relay_io_arm(self->io, 0);
        relay_task_queue(self->loop, &self->events);
    }
}

static void on_events(struct relay_task *task)
{
    struct path_socket *self = (struct path_socket *)((char *)task - offsetof(struct path_socket, events));
    if (self->path.cb == NULL)
        return;
    if (self->error != 0) {
        if (!self->close_told) {
            self->close_told = true;
            self->path.cb->on_close(self->path.user, self->error);
        }
    } else if (self->mtu_changed) {
        self->mtu_changed = false;
        self->path.cb->on_mtu(self->path.user);
    }
}

static void arm(struct path_socket *self)
{
    if (self->error == 0)
        relay_io_arm(self->io, RELAY_IO_READ | (self->is_blocked ? RELAY_IO_WRITE : 0));
}

void relay_path_socket_trust(struct relay_packet_path *path)
{
    of(path)->is_trusted = true;
}

/* An ICMP message may be forged or pass by; only "nobody listens there" ends a path that has worked. */
static void on_socket_error(struct path_socket *self, int code)
{
    if (code == ECONNREFUSED)
        die(self, RELAY_ERR_REFUSED);
    else if (code != 0 && code != EAGAIN && code != EMSGSIZE && !self->is_trusted)
        die(self, RELAY_ERR_UNREACHABLE);
}

static void read_errors(struct path_socket *self)
{
    bool too_big = false;
    int pending = 0;
    socklen_t size = sizeof(pending);
    int code = relay_udp_read_errors(self->fd, &too_big);
    if (getsockopt(self->fd, SOL_SOCKET, SO_ERROR, &pending, &size) == 0 && code == 0)
        code = pending;
    if (too_big || code == EMSGSIZE)
        read_mtu(self);
    on_socket_error(self, code);
}

/* False: the user closed the path meanwhile, or it died. */
static bool deliver(struct path_socket *self, struct relay_udp_message *message)
{
    for (size_t at = 0; at < message->len; at += message->segment) {
        size_t len = message->len - at < message->segment ? message->len - at : message->segment;
        if (self->path.cb == NULL)
            return false;
        self->path.cb->on_packet(self->path.user, message->base + at, len, message->ecn);
    }
    return self->path.cb != NULL;
}

static void read_packets(struct path_socket *self)
{
    struct relay_udp_message messages[RELAY_UDP_BATCH];
    uint8_t *scratch = relay_loop_take_scratch(self->loop);
    int most = RELAY_UDP_FEW;
    if (scratch == NULL)
        return;
    for (int round = 0; round < RECEIVE_ROUNDS && most > 0; round++) {
        if (round > 0)
            relay_loop_settle(self->loop);
        int count = relay_udp_receive(self->fd, scratch, most, messages);
        most = relay_udp_receive_next(messages, count, most);
        if (count < 0) {
            on_socket_error(self, -count);
            break;
        }
        for (int i = 0; i < count; i++) {
            self->is_trusted = true;
            if (!deliver(self, &messages[i])) {
                most = 0;
                break;
            }
        }
    }
    relay_loop_return_scratch(self->loop);
}

static void on_io(void *user, int events)
{
    struct path_socket *self = user;
    if (self->path.cb == NULL)
        return;
    if (events & RELAY_IO_ERROR) {
        read_errors(self);
        arm(self);
        return;
    }
    if (events & RELAY_IO_READ)
        read_packets(self);
    if (events & RELAY_IO_WRITE && self->is_blocked) {
        self->is_blocked = false;
        if (self->path.cb != NULL)
            self->path.cb->on_writable(self->path.user);
    }
    arm(self);
}

static size_t path_send(struct relay_packet_path *path, const uint8_t *run, size_t len, size_t segment)
{
    struct path_socket *self = of(path);
    size_t taken = 0;
    if (self->error != 0)
        return len; /* lost; on_close is on its way */
    switch (relay_udp_send(self->fd, &self->gso, NULL, NULL, run, len, segment, &taken)) {
    case RELAY_UDP_SENT:
        return len;
    case RELAY_UDP_TOO_BIG:
        read_mtu(self);
        return len;
    case RELAY_UDP_REFUSED:
        die(self, RELAY_ERR_REFUSED);
        return len;
    case RELAY_UDP_BLOCKED:
        self->is_blocked = true;
        arm(self);
        return taken;
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

static void free_socket(struct path_socket *self)
{
    relay_io_free(self->io);
    if (self->fd >= 0)
        close(self->fd);
    free(self);
}

static void on_free(struct relay_task *task)
{
    free_socket((struct path_socket *)((char *)task - offsetof(struct path_socket, events)));
}

/* It may be called from on_packet: the memory goes at the end of the turn. */
static void path_close(struct relay_packet_path *path)
{
    struct path_socket *self = of(path);
    self->path.cb = NULL;
    relay_task_cancel(&self->events);
    relay_io_free(self->io);
    self->io = NULL;
    self->error = RELAY_ERR_CLOSED;
    relay_task_init(&self->events, RELAY_LEVEL_FLUSH_SOCKET, on_free);
    relay_task_queue(self->loop, &self->events);
}

static const struct relay_packet_path_ops path_ops = {
    .send = path_send, .mtu = path_mtu, .room = path_room, .close = path_close};

static int open_socket(struct path_socket *self, const struct sockaddr *peer, const struct sockaddr *local)
{
    socklen_t size = sizeof(self->path.local);
    self->family = peer->sa_family;
    self->fd = socket(self->family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (self->fd < 0)
        return errno == EMFILE || errno == ENFILE ? RELAY_ERR_NO_DESCRIPTORS : RELAY_ERR_INVALID;
    relay_udp_configure(self->fd, self->family, false, true);
    if (local != NULL && bind(self->fd, local, relay_udp_address_size(local)) != 0)
        return RELAY_ERR_INVALID;
    if (connect(self->fd, peer, relay_udp_address_size(peer)) != 0)
        return RELAY_ERR_UNREACHABLE;
    if (getsockname(self->fd, (struct sockaddr *)&self->path.local, &size) != 0)
        return RELAY_ERR_INVALID;
    memcpy(&self->path.peer, peer, relay_udp_address_size(peer));
    self->mtu = relay_udp_mtu(self->fd, self->family);
    if (self->mtu < MTU_MIN)
        self->mtu = MTU_MIN;
    return 0;
}

int relay_path_socket_new(struct relay_loop *loop, const struct sockaddr *peer, const struct sockaddr *local,
                          struct relay_packet_path **path)
{
    struct path_socket *self = calloc(1, sizeof(*self));
    int error = RELAY_ERR_NO_MEMORY;
    *path = NULL;
    if (self == NULL)
        return RELAY_ERR_NO_MEMORY;
    self->path.ops = &path_ops;
    self->loop = loop;
    self->fd = -1;
    relay_task_init(&self->events, RELAY_LEVEL_EVENT, on_events);
    if ((error = open_socket(self, peer, local)) != 0)
        goto Exit;
    if ((self->io = relay_io_new(loop, self->fd, on_io, self)) == NULL) {
        error = RELAY_ERR_NO_MEMORY;
        goto Exit;
    }
    arm(self);
    *path = &self->path;
Exit:
    if (error != 0)
        free_socket(self);
    return error;
}
