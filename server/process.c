#include "server/process.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/net/log.h"
#include "lib/wire/error.h"

unsigned long relay_process_raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 1024;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    getrlimit(RLIMIT_NOFILE, &limit);
    return (unsigned long)limit.rlim_cur;
}

int relay_process_write_pid(const char *path, int *fd, char *why, size_t size)
{
    *fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (*fd < 0) {
        /* The user may have made one where it can write, and root empties what it leads to. */
        snprintf(why, size, "%s: %s", path, errno == ELOOP ? "expected no symbolic link" : strerror(errno));
        return RELAY_ERR_INVALID;
    }
    if (flock(*fd, LOCK_EX | LOCK_NB) != 0) {
        snprintf(why, size, "%s: another twohop is running with this pid file", path);
        close(*fd);
        *fd = -1;
        return RELAY_ERR_INVALID;
    }
    if (ftruncate(*fd, 0) != 0 || dprintf(*fd, "%ld\n", (long)getpid()) < 0) {
        snprintf(why, size, "%s: %s", path, strerror(errno));
        close(*fd);
        *fd = -1;
        return RELAY_ERR_INVALID;
    }
    return 0;
}

void relay_process_remove_pid(const char *path, int fd)
{
    int error = unlink(path);
    if (error != 0)
        error = ftruncate(fd, 0);
    (void)error; /* its lock ends with us, which says enough */
    close(fd);
}

static struct passwd *find_user(const char *user)
{
    struct passwd *entry = getpwnam(user);
    char *end;
    unsigned long uid = strtoul(user, &end, 10);
    if (entry == NULL && *user != '\0' && *end == '\0')
        entry = getpwuid((uid_t)uid);
    return entry;
}

/* In a folder of its own the user can make the path a link to anybody's file. */
static bool is_without_links(const char *path, const struct stat *open_one)
{
    struct stat status;
    return lstat(path, &status) == 0 && status.st_dev == open_one->st_dev &&
           status.st_ino == open_one->st_ino && status.st_nlink == 1;
}

void relay_process_give(const char *user, const char *path, int fd)
{
    const struct passwd *entry = find_user(user);
    struct stat status;
    if (entry == NULL || geteuid() != 0 || fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) ||
        status.st_uid == entry->pw_uid)
        return;
    if (!is_without_links(path, &status))
        relay_log(RELAY_LOG_WARNING, "log_not_given", "s:s, s:s, s:s", "user", user, "file", path, "reason",
                  "a link");
    else if (fchown(fd, entry->pw_uid, (gid_t)-1) != 0)
        relay_log(RELAY_LOG_WARNING, "log_not_given", "s:s, s:s", "user", user, "reason", strerror(errno));
}

int relay_process_become(const char *user, char *why, size_t size)
{
    struct passwd *entry = find_user(user);
    if (entry == NULL) {
        snprintf(why, size, "user %s: no such user", user);
        return RELAY_ERR_INVALID;
    }
    if (geteuid() != entry->pw_uid && (initgroups(entry->pw_name, entry->pw_gid) != 0 ||
                                       setgid(entry->pw_gid) != 0 || setuid(entry->pw_uid) != 0)) {
        snprintf(why, size, "user %s: %s (start as root, or as this user)", user, strerror(errno));
        return RELAY_ERR_INVALID;
    }
    struct rlimit none = {0, 0};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    setrlimit(RLIMIT_CORE, &none);
    return 0;
}
