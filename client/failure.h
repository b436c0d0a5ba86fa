/* Why something did not work, as it is told to the user: which hop, and the reason. A plain value. No token
 * is ever in it. */
#ifndef RELAY_CLIENT_FAILURE_H
#define RELAY_CLIENT_FAILURE_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/net/refusal.h"

#define RELAY_FAILURE_TEXT_SIZE 384

struct relay_failure {
    int error;                          /* RELAY_ERR_* */
    unsigned hop;                       /* from 1; 0: the client itself */
    bool is_answer;                     /* the last hop's, to a request: it may be about the target */
    char text[RELAY_FAILURE_TEXT_SIZE]; /* one sentence without a full stop: "hop 1 (in.example:443):
                                           connection refused" */
};

/* "hop HOP (AUTHORITY): REASON"; REASON is printf-like. */
__attribute__((format(printf, 5, 6))) void relay_failure_set(struct relay_failure *failure, int error,
                                                             unsigned hop, const char *authority,
                                                             const char *format, ...);
/* What a relay says with the error code by which it closes the connection (relay_session.peer_code, not 0):
 * "closed by the relay: excessive load". Returns `text`. */
const char *relay_close_print(enum relay_http_version version, uint64_t code, char *text, size_t size);
/* What the refusal means in words: "the token was refused (407)", "name resolution failed: NXDOMAIN (502)".
 * `tokenless`: the number of the hop that refuses, when no token is configured for it; else 0. Returns `text`. */
const char *relay_refusal_print(const struct relay_refusal *refusal, unsigned tokenless, char *text,
                                size_t size);

#endif
