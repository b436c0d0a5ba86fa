#include "client/front.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "lib/net/acceptor.h"
#include "lib/net/log.h"
#include "lib/wire/error.h"

/* The first descriptor that is not for applications. */
static int reserve_begins(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur > INT_MAX)
        return INT_MAX;
    rlim_t kept = limit.rlim_cur / 4 < RELAY_FRONT_RESERVE ? limit.rlim_cur / 4 : RELAY_FRONT_RESERVE;
    return (int)(limit.rlim_cur - kept);
}

static void on_accept(void *user, int fd, const struct sockaddr_storage *peer)
{
    struct relay_front *front = user;
    if (front->num_connections >= RELAY_FRONT_CONNECTIONS_MAX)
        close(fd);
    else
        front->on_accept(front, fd, peer);
}

static bool is_loopback(const struct relay_address *address)
{
    static const uint8_t v6[16] = {[15] = 1};
    return address->family == 4 ? address->bytes[0] == 127 : memcmp(address->bytes, v6, sizeof(v6)) == 0;
}

int relay_front_listen(struct relay_front *front, struct relay_loop *loop, struct relay_chain *chain,
                       const struct sockaddr_storage *address, char *text, size_t size)
{
    char printed[RELAY_ADDRESS_TEXT_SIZE];
    struct relay_address parsed;
    uint16_t port;
    int fd;
    front->loop = loop;
    front->chain = chain;
    front->address = *address;
    relay_address_from_sockaddr(&parsed, &port, address);
    relay_address_print(&parsed, printed);
    int error = relay_acceptor_bind(&front->address, false, &fd);
    if (error != 0) {
        snprintf(text, size, "%s port %u: %s", printed, port, strerror(-error));
        return RELAY_ERR_REFUSED;
    }
    front->acceptor = relay_acceptor_new(loop, fd, on_accept, front);
    if (front->acceptor == NULL) {
        snprintf(text, size, "%s port %u: out of memory or descriptors", printed, port);
        return RELAY_ERR_NO_DESCRIPTORS;
    }
    relay_acceptor_keep_below(front->acceptor, reserve_begins());
    if (!is_loopback(&parsed))
        relay_log(RELAY_LOG_WARNING, "front_not_on_loopback", "s:s, s:s", "address", printed, "advice",
                  "it asks for no password: everybody who reaches it uses your tokens");
    return 0;
}

void relay_front_stop(struct relay_front *front)
{
    if (front->acceptor != NULL)
        relay_acceptor_close(front->acceptor);
    front->acceptor = NULL;
}
