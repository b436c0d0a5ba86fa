/* The file of tokens: one per line, fields separated by spaces or tabs, `#` begins a comment, blank lines are
 * skipped.
 *
 *   NAME SHA256-OF-THE-SECRET [expires=WHEN]
 *
 *   alice 5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8 expires=2027-01-01
 *
 * NAME is 1-64 of A-Z a-z 0-9 . _ - and unique in the file; the digest is 64 hexadecimal digits of either
 * case, unique too: who has one secret under two names keeps the access when one line is taken out; WHEN is a
 * date (RFC 3339 full-date: from its 00:00 UTC on the token is refused), a date and time
 * ("2027-01-01T12:00:00Z", "...+01:00", fractions are dropped) or seconds since 1970. The file holds no
 * secret. A line `none` says that it has no token on purpose. Reading the file and comparing digests (in
 * constant time, over all entries) is the caller's.
 */
#ifndef RELAY_WIRE_TOKEN_FILE_H
#define RELAY_WIRE_TOKEN_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RELAY_TOKEN_NAME_MAX    64
#define RELAY_TOKEN_DIGEST_SIZE 32
#define RELAY_TOKEN_FILE_MAX    100000 /* entries */

#define RELAY_TOKEN_FILE_BYTES_MAX (16 << 20) /* for who reads one: so many lines fit */

struct relay_token_entry {
    char name[RELAY_TOKEN_NAME_MAX + 1];
    uint8_t digest[RELAY_TOKEN_DIGEST_SIZE];
    int64_t expires; /* seconds since 1970; valid while now < expires; 0: never expires */
};

/* In the order of the file. Owned by whoever parsed it; dispose also works on zeroed memory. */
struct relay_token_file {
    struct relay_token_entry *entries;
    size_t count, capacity;
    bool is_none; /* by the line `none`; without it no token at all looks like a file half written */
};

/* Where and why a file was refused: "FILE:LINE:COLUMN: expected EXPECTED". Both count from 1, columns in
 * bytes. */
struct relay_token_file_error {
    unsigned line, column;
    const char *expected; /* static */
};

/* Parses `len` bytes into *file, which needs no initialisation. RELAY_ERR_INVALID, RELAY_ERR_TOO_BIG (too
 * many entries): *error is filled. RELAY_ERR_NO_MEMORY: it is not. After a failure *file is empty: keep the
 * old one until success. */
int relay_token_file_parse(struct relay_token_file *file, const char *text, size_t len,
                           struct relay_token_file_error *error);
void relay_token_file_dispose(struct relay_token_file *file);

#endif
