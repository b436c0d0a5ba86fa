/* c-ares on a loop: its sockets are watched and its timer is kept. The resolver asks its questions here.
 *
 * Embedded in its owner; zeroed memory may be disposed of. Order of calls: init; ask, as often as one likes;
 * dispose, which ends every question that is still on its way with ARES_EDESTRUCTION. */
#ifndef RELAY_NET_RESOLVER_CHANNEL_H
#define RELAY_NET_RESOLVER_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <ares.h>

#include "lib/net/loop.h"
#include "lib/wire/address.h"

struct relay_resolver_channel {
    struct relay_loop *loop;
    ares_channel ares;
    bool has_ares, has_library;
    struct relay_timer timer;
    struct relay_resolver_watch *watches;
};

/* `servers` as in struct relay_resolver_config; `timeout`: ns, in which a question is asked twice.
 * RELAY_ERR_NO_MEMORY, also when the servers cannot be parsed. */
int relay_resolver_channel_init(struct relay_resolver_channel *channel, struct relay_loop *loop,
                                const char *servers, uint64_t timeout);
void relay_resolver_channel_dispose(struct relay_resolver_channel *channel);

/* Asks for the records of `type` (ns_t_a ...). The callback comes once, maybe from inside the call. A question
 * cannot be cancelled. */
void relay_resolver_channel_ask(struct relay_resolver_channel *channel, const char *name, int type,
                                ares_callback cb, void *arg);

/* The addresses of the servers, at most `size`. Returns how many. */
size_t relay_resolver_channel_servers(const struct relay_resolver_channel *channel, struct relay_address *out,
                                      size_t size);

#endif
