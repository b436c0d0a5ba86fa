#include "lib/net/reserve.h"

#include <errno.h>
#include <limits.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

static int first = INT_MAX; /* of the reserve */

void relay_reserve_set(unsigned long limit)
{
    unsigned long kept = limit / 16 < RELAY_RESERVE_MAX ? limit / 16 : RELAY_RESERVE_MAX;
    first = limit - kept < INT_MAX ? (int)(limit - kept) : INT_MAX;
}

int relay_reserve_num_others(void)
{
    return first;
}

bool relay_reserve_has(int fd)
{
    return fd >= first;
}

/* The descriptor, or -1 with EMFILE in the place of one of the reserve. */
static int unless_reserved(int fd)
{
    if (!relay_reserve_has(fd))
        return fd;
    close(fd);
    errno = EMFILE;
    return -1;
}

int relay_reserve_socket(int family, int type)
{
    return unless_reserved(socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

bool relay_reserve_is_reached(void)
{
    int fd = unless_reserved(eventfd(0, EFD_CLOEXEC));
    if (fd >= 0)
        close(fd);
    return fd < 0;
}
