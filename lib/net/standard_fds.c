#include "lib/net/standard_fds.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int relay_standard_fds_fill(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 &&
            open("/dev/null", O_RDWR) != fd) /* the kernel gives the lowest free number */
            return -errno;
    return 0;
}
