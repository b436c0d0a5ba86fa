#include "lib/net/log_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int relay_log_file_open(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
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
