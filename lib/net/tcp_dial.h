/* Connects to the first of several addresses that answers: Happy Eyeballs v2 (RFC 8305 sections 4 and 5).
 * The addresses are those that policy has judged; nothing else is dialled. */
#ifndef RELAY_NET_TCP_DIAL_H
#define RELAY_NET_TCP_DIAL_H

#include "lib/net/loop.h"
#include "lib/net/resolver.h"
#include "lib/wire/address.h"

struct relay_dial_config {
    uint64_t attempt_delay;    /* ns before the next address is tried in parallel; 250 ms */
    uint64_t timeout;          /* ns for all together; 10 s */
    uint64_t resolution_delay; /* ns; not the dial's: of the lookup before it (lib/net/resolver.h) */
};

struct relay_tcp_dial;

/* `fd` is the caller's then: connected, non-blocking, TCP_NODELAY set; -1 with an error: the most telling
 * of the attempts' (REFUSED, UNREACHABLE, TIMEOUT, NO_DESCRIPTORS). Comes once, from a task. */
typedef void (*relay_dial_cb)(void *user, int fd, const struct relay_address *address, int error);

/* Interleaves the families itself; at most RELAY_RESOLVER_ADDRESSES_MAX are tried. `more_follow`: the other
 * family's addresses are not known yet; when all of these have failed the dial waits for relay_tcp_dial_add
 * before it fails, though not longer than config->timeout. NULL: out of memory. */
struct relay_tcp_dial *relay_tcp_dial_start(struct relay_loop *loop, const struct relay_dial_config *config,
                                            const struct relay_address *addresses, size_t num_addresses,
                                            bool more_follow, uint16_t port, relay_dial_cb cb, void *user);
/* The late addresses, none when there are none; after `more_follow`, once, and only until the callback. They
 * take turns with those that were not tried yet (RFC 8305 section 5). */
void relay_tcp_dial_add(struct relay_tcp_dial *dial, const struct relay_address *addresses,
                        size_t num_addresses);
/* No callback comes after; attempts are closed at once. */
void relay_tcp_dial_cancel(struct relay_tcp_dial *dial);

#endif
