/* A file that lines are appended to, until somebody moves it away to rotate it. The descriptor's number stays
 * the same for the process's life, so threads that write need not be told. */
#ifndef RELAY_NET_LOG_FILE_H
#define RELAY_NET_LOG_FILE_H

/* The descriptor, or -errno. A file that is made can be read by its owner and group only (0640): lines may hold
 * addresses of clients. */
int relay_log_file_open(const char *path);
/* What open would say, without making anything: 0 or -errno. */
int relay_log_file_check(const char *path);
/* When another file than the open one has the name now, or none has: opens that in its place. 0, or -errno;
 * the old file is written on then. */
int relay_log_file_reopen(const char *path, int fd);

#endif
