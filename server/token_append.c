#include "server/token_append.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/wire/error.h"
#include "lib/wire/token_file.h"

#define LINE_MAX (RELAY_TOKEN_NAME_MAX + 2 * RELAY_TOKEN_DIGEST_SIZE + 8)

static int refuse(char *why, size_t size, const char *path, const char *reason)
{
    snprintf(why, size, "%s: %s", path, reason);
    return RELAY_ERR_INVALID;
}

/* What is found is opened without O_CREAT, which in a folder like /tmp is refused for files of others. */
static int open_file(struct relay_token_append *self)
{
    const int flags = O_RDWR | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    self->fd = open(self->path, flags);
    if (self->fd < 0 && errno == ENOENT) {
        self->fd = open(self->path, flags | O_CREAT | O_EXCL, 0640);
        self->is_new = self->fd >= 0;
    }
    return self->fd >= 0 ? 0 : -errno;
}

/* After the lock: another may have put a file in its place meanwhile. */
static bool is_in_place(const struct relay_token_append *self, const struct stat *open_one)
{
    struct stat status;
    return lstat(self->path, &status) == 0 && status.st_dev == open_one->st_dev &&
           status.st_ino == open_one->st_ino;
}

static int lock_file(struct relay_token_append *self, char *why, size_t size)
{
    struct stat status;
    const int error = open_file(self);
    if (error != 0)
        return refuse(why, size, self->path,
                      error == -ELOOP ? "expected no symbolic link" : strerror(-error));
    if (fstat(self->fd, &status) != 0)
        return refuse(why, size, self->path, strerror(errno));
    if (!S_ISREG(status.st_mode))
        return refuse(why, size, self->path, "expected a regular file");
    if (status.st_nlink > 1)
        return refuse(why, size, self->path, "expected a file with one name: it has hard links");
    if (flock(self->fd, LOCK_EX) != 0 || fstat(self->fd, &status) != 0)
        return refuse(why, size, self->path, strerror(errno));
    const bool is_there = is_in_place(self, &status);
    self->is_new =
        self->is_new && is_there && status.st_size == 0; /* else another's, who had the lock before */
    if (!is_there)
        return refuse(why, size, self->path, "the file was replaced at the same time: try again");
    self->old_size = status.st_size;
    return status.st_size <= RELAY_TOKEN_FILE_BYTES_MAX ? 0 : refuse(why, size, self->path, strerror(EFBIG));
}

/* The whole file, to be freed; NULL with errno. */
static char *read_all(const struct relay_token_append *self)
{
    const size_t len = (size_t)self->old_size;
    char *bytes = malloc(len + 1);
    size_t at = 0;
    while (bytes != NULL && at < len) {
        const ssize_t n = pread(self->fd, bytes + at, len - at, (off_t)at);
        if (n > 0) {
            at += (size_t)n;
        } else if (n == 0 || errno != EINTR) {
            const int error = n == 0 ? EIO : errno;
            free(bytes);
            errno = error;
            return NULL;
        }
    }
    return bytes;
}

static int check_entries(const struct relay_token_append *self, const struct relay_token_file *file,
                         const char *name, char *why, size_t size)
{
    if (file->is_none)
        return refuse(why, size, self->path,
                      "it says none, which revokes all: take that line out before a token is added");
    if (file->count >= RELAY_TOKEN_FILE_MAX)
        return refuse(why, size, self->path, "it is full");
    for (size_t i = 0; i < file->count; i++)
        if (strcmp(file->entries[i].name, name) == 0)
            return refuse(why, size, self->path, "it has a token of this name: take its line out before");
    return 0;
}

/* *is_torn: the last line has no end. */
static int check_file(const struct relay_token_append *self, const char *name, bool *is_torn, char *why,
                      size_t size)
{
    struct relay_token_file file;
    struct relay_token_file_error fault = {0};
    char *bytes = read_all(self);
    if (bytes == NULL)
        return refuse(why, size, self->path, strerror(errno));
    *is_torn = self->old_size > 0 && bytes[self->old_size - 1] != '\n';
    int error = relay_token_file_parse(&file, bytes, (size_t)self->old_size, &fault);
    free(bytes);
    if (error == RELAY_ERR_NO_MEMORY)
        return refuse(why, size, self->path, strerror(ENOMEM));
    if (error != 0)
        snprintf(why, size, "%s:%u:%u: expected %s", self->path, fault.line, fault.column, fault.expected);
    else
        error = check_entries(self, &file, name, why, size);
    relay_token_file_dispose(&file);
    return error == 0 ? 0 : RELAY_ERR_INVALID;
}

/* On a full disk half of it may have been written; the end of the whole takes that out. */
static int write_line(const struct relay_token_append *self, bool is_torn, const char *line, char *why,
                      size_t size)
{
    char text[LINE_MAX];
    const int len = snprintf(text, sizeof(text), "%s%s\n", is_torn ? "\n" : "", line);
    errno = ENOSPC; /* for half of it */
    if (write(self->fd, text, (size_t)len) != len || fsync(self->fd) != 0)
        return refuse(why, size, self->path, strerror(errno));
    return 0;
}

int relay_token_append(struct relay_token_append *append, const char *path, const char *name,
                       const char *line, char *why, size_t size)
{
    bool is_torn = false;
    *append = (struct relay_token_append){.path = path, .fd = -1, .old_size = -1};
    int error = lock_file(append, why, size);
    if (error == 0)
        error = check_file(append, name, &is_torn, why, size);
    if (error == 0)
        error = write_line(append, is_torn, line, why, size);
    if (error != 0)
        relay_token_append_end(append, false);
    return error;
}

void relay_token_append_end(struct relay_token_append *append, bool keep)
{
    struct stat status;
    if (append->fd < 0)
        return;
    if (!keep && append->is_new)
        unlink(append->path);
    else if (!keep && append->old_size >= 0 && fstat(append->fd, &status) == 0 &&
             status.st_size > append->old_size && ftruncate(append->fd, append->old_size) != 0)
        fprintf(stderr, "%s: %s: its last line has no user\n", append->path, strerror(errno));
    close(append->fd);
    append->fd = -1;
}
