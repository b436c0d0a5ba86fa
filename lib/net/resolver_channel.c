#include "lib/net/resolver_channel.h"

#include <arpa/nameser.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "lib/net/reserve.h"
#include "lib/wire/error.h"

/* A socket of c-ares. */
struct relay_resolver_watch {
    struct relay_resolver_watch *next;
    ares_socket_t fd;
    struct relay_resolver_channel *channel;
    struct relay_io *io;
    int events;
};

static void set_timer(struct relay_resolver_channel *channel)
{
    struct timeval space, *next = ares_timeout(channel->ares, NULL, &space);
    if (next == NULL)
        relay_timer_stop(channel->loop, &channel->timer);
    else
        relay_timer_set_after(channel->loop, &channel->timer,
                              (uint64_t)next->tv_sec * RELAY_SECOND + (uint64_t)next->tv_usec * 1000 +
                                  RELAY_MS);
}

static void on_timer(struct relay_timer *timer)
{
    struct relay_resolver_channel *channel =
        (struct relay_resolver_channel *)((char *)timer - offsetof(struct relay_resolver_channel, timer));
    ares_process_fd(channel->ares, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    set_timer(channel);
}

static struct relay_resolver_watch **find_watch(struct relay_resolver_channel *channel, ares_socket_t fd)
{
    struct relay_resolver_watch **at = &channel->watches;
    while (*at != NULL && (*at)->fd != fd)
        at = &(*at)->next;
    return at;
}

static void on_io(void *user, int events)
{
    struct relay_resolver_watch *watch = user;
    struct relay_resolver_channel *channel = watch->channel;
    ares_socket_t fd = watch->fd;
    bool is_error = events & RELAY_IO_ERROR;
    ares_process_fd(channel->ares, is_error || (events & RELAY_IO_READ) ? fd : ARES_SOCKET_BAD,
                    is_error || (events & RELAY_IO_WRITE) ? fd : ARES_SOCKET_BAD);
    /* c-ares may have closed it, and then the watch is gone; after an error nothing is armed. */
    struct relay_resolver_watch *still = *find_watch(channel, fd);
    if (still == watch)
        relay_io_arm(still->io, still->events);
    set_timer(channel);
}

static void on_socket_state(void *arg, ares_socket_t fd, int readable, int writable)
{
    struct relay_resolver_channel *channel = arg;
    struct relay_resolver_watch **at = find_watch(channel, fd), *watch = *at;
    if (!readable && !writable) {
        if (watch == NULL)
            return;
        *at = watch->next;
        relay_io_free(watch->io);
        free(watch);
        return;
    }
    if (watch == NULL) {
        watch = calloc(1, sizeof(*watch));
        struct relay_io *io = watch != NULL ? relay_io_new(channel->loop, fd, on_io, watch) : NULL;
        if (io == NULL) { /* unwatched, its questions time out */
            free(watch);
            return;
        }
        *watch = (struct relay_resolver_watch){channel->watches, fd, channel, io, 0};
        channel->watches = watch;
    }
    watch->events = (readable ? RELAY_IO_READ : 0) | (writable ? RELAY_IO_WRITE : 0);
    relay_io_arm(watch->io, watch->events);
}

/* c-ares closes it then, as one that it could not open. */
static int on_socket(ares_socket_t fd, int type, void *arg)
{
    return relay_reserve_has(fd) ? -1 : 0;
}

/* The library's own counter of initialisations is not safe between threads. */
static pthread_mutex_t library_lock = PTHREAD_MUTEX_INITIALIZER;

static bool begin_library(void)
{
    pthread_mutex_lock(&library_lock);
    bool ok = ares_library_init(ARES_LIB_INIT_ALL) == ARES_SUCCESS;
    pthread_mutex_unlock(&library_lock);
    return ok;
}

static void end_library(void)
{
    pthread_mutex_lock(&library_lock);
    ares_library_cleanup();
    pthread_mutex_unlock(&library_lock);
}

/* NOCHECKRESP: else SERVFAIL and REFUSED come as "connection refused", and the response code is lost. Two
 * tries of 1.5 and 3 seconds fit into the 5 seconds of a lookup. */
static bool begin_channel(struct relay_resolver_channel *channel, const char *servers, uint64_t timeout)
{
    struct ares_options options = {
        .flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES | ARES_FLAG_NOCHECKRESP | ARES_FLAG_EDNS,
        .timeout = (int)(timeout * 3 / 10 / RELAY_MS),
        .tries = 2,
        .ednspsz = 1232,
        .socket_receive_buffer_size = 1 << 20,
        .sock_state_cb = on_socket_state,
        .sock_state_cb_data = channel,
    };
    int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_EDNSPSZ |
               ARES_OPT_SOCK_RCVBUF | ARES_OPT_SOCK_STATE_CB;
    if (ares_init_options(&channel->ares, &options, mask) != ARES_SUCCESS)
        return false;
    channel->has_ares = true;
    ares_set_socket_callback(channel->ares, on_socket, NULL);
    return servers == NULL || ares_set_servers_ports_csv(channel->ares, servers) == ARES_SUCCESS;
}

int relay_resolver_channel_init(struct relay_resolver_channel *channel, struct relay_loop *loop,
                                const char *servers, uint64_t timeout)
{
    *channel = (struct relay_resolver_channel){.loop = loop};
    relay_timer_init(&channel->timer, on_timer);
    channel->has_library = begin_library();
    return channel->has_library && begin_channel(channel, servers, timeout) ? RELAY_OK : RELAY_ERR_NO_MEMORY;
}

void relay_resolver_channel_dispose(struct relay_resolver_channel *channel)
{
    if (channel->has_ares)
        ares_destroy(channel->ares);
    if (channel->loop != NULL)
        relay_timer_stop(channel->loop, &channel->timer);
    if (channel->has_library)
        end_library();
    *channel = (struct relay_resolver_channel){0};
}

void relay_resolver_channel_ask(struct relay_resolver_channel *channel, const char *name, int type,
                                ares_callback cb, void *arg)
{
    ares_query(channel->ares, name, ns_c_in, type, cb, arg);
    set_timer(channel);
}

size_t relay_resolver_channel_servers(const struct relay_resolver_channel *channel, struct relay_address *out,
                                      size_t size)
{
    struct ares_addr_port_node *servers = NULL;
    size_t num = 0;
    if (ares_get_servers_ports(channel->ares, &servers) != ARES_SUCCESS)
        return 0;
    for (struct ares_addr_port_node *at = servers; at != NULL && num < size; at = at->next) {
        out[num] = (struct relay_address){.family = at->family == AF_INET6 ? 6 : 4};
        memcpy(out[num].bytes, &at->addr, at->family == AF_INET6 ? 16 : 4);
        num++;
    }
    ares_free_data(servers);
    return num;
}
