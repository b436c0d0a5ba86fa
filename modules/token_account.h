/* What each token has open and may send, over all connections and workers: one structure per process. Whoever has no
 * token, because auth is off, has an account under a name that no token can have, and counts as one.
 *
 * Tunnels are counted under a lock, once per tunnel. While they leave half of the descriptors a token may open as many
 * as it asks for, then as long as it has no more than an eighth of what they leave; its first one always. So those who
 * have many leave room for those who have few, whatever limits are set.
 *
 * Datagrams toward UDP targets take no lock: the allowance of a token is two atomic words (packets and bytes), and
 * each worker takes credit from them in batches of a 256th of a second and spends it without touching what others
 * write (a lease). Credit that a worker has taken and not spent stays with it: at most one batch, or one run of
 * datagrams where that is more.
 *
 * An account lives until its last tunnel has ended, nobody holds it and its allowance is whole again, so that
 * closing and opening tunnels gives no new allowance.
 *
 * Order of calls: new, before the workers start; relay_token_account_take and _release for each tunnel,
 * relay_token_lease_take in between.
 */
#ifndef RELAY_MODULES_TOKEN_ACCOUNT_H
#define RELAY_MODULES_TOKEN_ACCOUNT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/wire/token_file.h"

struct relay_token_accounts;
struct relay_token_account;

/* `descriptors`: how many there are for tunnels, each of which needs one. NULL: out of memory. */
struct relay_token_accounts *relay_token_accounts_new(unsigned num_workers, uint32_t descriptors);
/* Random, for the hashes from which names of those without a token are made. */
uint64_t relay_token_accounts_seed(const struct relay_token_accounts *accounts);
/* When no tunnel is left. NULL is fine. */
void relay_token_accounts_free(struct relay_token_accounts *accounts);

/* One more tunnel of the token. 0, RELAY_ERR_LIMIT (it has `max` open, 0: no limit; or its share of the descriptors) or
 * RELAY_ERR_NO_MEMORY. Any thread. */
int relay_token_account_take(struct relay_token_accounts *accounts, const char *name, uint32_t max,
                             uint64_t now, struct relay_token_account **account);
void relay_token_account_release(struct relay_token_accounts *accounts, struct relay_token_account *account);
/* Keeps the account of a tunnel, whose address is who the token is, until it is let go; counts no tunnel. */
void relay_token_account_hold(struct relay_token_accounts *accounts, struct relay_token_account *account);
void relay_token_account_let_go(struct relay_token_accounts *accounts, struct relay_token_account *account);

/* After a reload, before the workers learn of it: notes whose names are in the file no more. A file that has no
 * token and does not say so (is_none) is auth that was switched off: nobody is noted then. */
void relay_token_accounts_judge(struct relay_token_accounts *accounts, const struct relay_token_file *tokens);
/* Whether the account's token is gone; `tokens` is asked for an account that is younger than the last judgement. */
bool relay_token_account_is_revoked(const struct relay_token_account *account,
                                    const struct relay_token_file *tokens);

/* Per second, and as much at once when the second before was quiet. 0: no limit. */
struct relay_token_rate {
    uint32_t packets;
    size_t bytes;
};

/* How many of the `count` datagrams the token may send now, the first ones: all have `segment` bytes but the
 * last, which may be shorter, `len` together. Takes the credit for them. Only on the thread of `worker`. */
size_t relay_token_lease_take(struct relay_token_account *account, unsigned worker,
                              const struct relay_token_rate *rate, size_t count, size_t segment, size_t len,
                              uint64_t now);

#endif
