#include "lib/net/log_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

int relay_log_file_open(const char *path)
{
    const int flags = O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    int fd = open(path, O_WRONLY | flags, 0640);
    if (fd < 0 && errno == ENXIO) /* a named pipe without a reader: with us as one it waits for another */
        fd = open(path, O_RDWR | flags, 0640);
    return fd >= 0 ? fd : -errno;
}

/* The folder of the path, to `folder` of PATH_MAX bytes. */
static int folder_of(const char *path, char *folder)
{
    const char *slash = strrchr(path, '/');
    int len = slash == NULL ? 0 : slash == path ? 1 : (int)(slash - path);
    if (len >= PATH_MAX)
        return -ENAMETOOLONG;
    snprintf(folder, PATH_MAX, "%.*s", len, path);
    if (slash == NULL)
        strcpy(folder, ".");
    return 0;
}

int relay_log_file_check(const char *path)
{
    char folder[PATH_MAX];
    struct stat status;
    if (stat(path, &status) == 0) {
        if (S_ISDIR(status.st_mode))
            return -EISDIR;
        return access(path, W_OK) == 0 ? 0 : -errno;
    }
    int error = errno == ENOENT ? folder_of(path, folder) : -errno;
    if (error != 0)
        return error;
    return access(folder, W_OK | X_OK) == 0 ? 0 : -errno;
}

int relay_log_file_reopen(const char *path, int fd)
{
    struct stat now, open_one;
    if (stat(path, &now) == 0 && fstat(fd, &open_one) == 0 && now.st_dev == open_one.st_dev &&
        now.st_ino == open_one.st_ino)
        return 0;
    int fresh = relay_log_file_open(path);
    if (fresh < 0)
        return fresh;
    int error = dup3(fresh, fd, O_CLOEXEC) >= 0 ? 0 : -errno;
    close(fresh);
    return error;
}

int relay_log_file_own(int fd)
{
    char path[32];
    struct stat status;
    if (fstat(fd, &status) != 0 || !(S_ISFIFO(status.st_mode) || S_ISCHR(status.st_mode)))
        return fd;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    const int own = open(path, O_WRONLY | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    return own >= 0 ? own : fd;
}

bool relay_log_file_write(int fd, atomic_bool *is_torn, const char *line, size_t len)
{
    struct pollfd file = {.fd = fd, .events = POLLOUT};
    if (poll(&file, 1, 0) != 1 || (file.revents & POLLOUT) == 0)
        return false;
    const ssize_t before = atomic_exchange(is_torn, false) ? 1 : 0;
    const struct iovec parts[] = {{"\n", (size_t)before}, {(char *)line, len}};
    const ssize_t written = writev(fd, parts, 2);
    if (written == before + (ssize_t)len)
        return true;
    if (written < 0 ? before > 0 : written != before)
        atomic_store(is_torn, true);
    return false;
}
