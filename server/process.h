/* What the process is to the system: descriptor limit, pid file, user. All return 0 or RELAY_ERR_INVALID with
 * a sentence in `why`. */
#ifndef RELAY_SERVER_PROCESS_H
#define RELAY_SERVER_PROCESS_H

#include <stddef.h>

/* Raises RLIMIT_NOFILE to its hard limit and returns it. */
unsigned long relay_process_raise_descriptors(void);

/* Locks and writes the pid file; it stays locked as long as the process lives, so that a second relay on the
 * same file says so. The descriptor stays open (*fd). */
int relay_process_write_pid(const char *path, int *fd, char *why, size_t size);
/* At the end: removes it, or empties it where the user that we have become may not. */
void relay_process_remove_pid(const char *path, int fd);

/* Before relay_process_become: makes the log file, open at `path`, the user's, who must be able to open it again. What is no
 * regular file stays as it is, and so does what a link leads to: that may be anybody's file. */
void relay_process_give(const char *user, const char *path, int fd);

/* Becomes the user (name or number) with its groups, for good: no new privileges, no core dumps. Nothing
 * happens when it is us already. */
int relay_process_become(const char *user, char *why, size_t size);

#endif
