#include "lib/net/plain_file.h"

#include <linux/magic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#define WAITED_FOR ": a pipe or a device would be waited for"

/* A named one is of the file system that its name is in. */
static bool has_no_name(const char *path)
{
    struct statfs system;
    return statfs(path, &system) == 0 && system.f_type == PIPEFS_MAGIC;
}

const char *relay_plain_file_refusal(const char *path, enum relay_plain_file_use use)
{
    struct stat status;
    if (stat(path, &status) != 0 || S_ISREG(status.st_mode))
        return NULL;
    if (S_ISDIR(status.st_mode))
        return "a folder";
    if (S_ISCHR(status.st_mode) || S_ISBLK(status.st_mode))
        return "a device" WAITED_FOR;
    if (S_ISSOCK(status.st_mode))
        return "a socket";
    if (!has_no_name(path))
        return "a named pipe" WAITED_FOR;
    return use == RELAY_PLAIN_FILE_OR_GIVEN_PIPE ? NULL : "a pipe" WAITED_FOR;
}
