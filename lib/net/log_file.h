/* A file that lines are appended to, until somebody moves it away to rotate it. The descriptor's number stays
 * the same for the process's life, so threads that write need not be told.
 *
 * It may be a pipe, a terminal or a socket whose reader stands still, a container's standard error for one. Nobody
 * waits for it: what cannot be written at once is not written. (A file on a disk takes the time that the disk takes.) */
#ifndef RELAY_NET_LOG_FILE_H
#define RELAY_NET_LOG_FILE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

/* Of a line with its newline: a pipe takes this much in one piece or not at all (PIPE_BUF). */
#define RELAY_LOG_LINE_MAX 4096

/* The descriptor, which does not block, or -errno. A file that is made can be read by its owner and group only (0640):
 * lines may hold addresses of clients. A named pipe needs no reader yet. */
int relay_log_file_open(const char *path);
/* What open would say, without making anything: 0 or -errno. */
int relay_log_file_check(const char *path);
/* When another file than the open one has the name now, or none has: opens that in its place. 0, or -errno;
 * the old file is written on then. */
int relay_log_file_reopen(const char *path, int fd);
/* The pipe or terminal behind a descriptor that we were started with, opened a second time: whether that one blocks is
 * also the shell's matter, and of everybody who writes there. `fd` itself when it is something else or may not be
 * opened; relay_log_file_write then looks before it writes, which several writers at once can defeat. */
int relay_log_file_own(int fd);
/* One line of at most RELAY_LOG_LINE_MAX bytes, newline included, in one write: lines of several threads do not mix.
 * Never waits. False: it was not written, or only in part; *is_torn, false at first and one per file, makes the next
 * line begin on a line of its own then. */
bool relay_log_file_write(int fd, atomic_bool *is_torn, const char *line, size_t len);

#endif
