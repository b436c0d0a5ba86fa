/* `twohop token new NAME --append FILE`: adds a token's line to the file of auth.tokens, in its place, so that owner, mode
 * and ACL stay. One write under a lock: a reload sees the file without the line or with it, and of two that append at
 * once the second sees the first one's line.
 *
 *   relay_token_append; hand the secret over; relay_token_append_end, with false when that failed
 */
#ifndef RELAY_SERVER_TOKEN_APPEND_H
#define RELAY_SERVER_TOKEN_APPEND_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct relay_token_append {
    const char *path;
    int fd; /* locked; -1: there is nothing to end */
    off_t old_size;
    bool is_new; /* the file was made, 0640 */
};

/* 0: the line, given without its end, is in the file and on its disk. RELAY_ERR_INVALID and `why`, and the file is as it
 * was: it is a link or no regular file, cannot be read as a token file, says `none`, is full, or has a token of this name.
 * Path and name are the caller's and stay until the end. */
int relay_token_append(struct relay_token_append *append, const char *path, const char *name,
                       const char *line, char *why, size_t size);
/* Without `keep` the line is taken out again, or the file that was made for it. */
void relay_token_append_end(struct relay_token_append *append, bool keep);

#endif
