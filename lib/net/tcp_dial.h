/* Connects to the first of several addresses that answers: Happy Eyeballs v2 (RFC 8305 sections 4 and 5).
 * The addresses are those that policy has judged; nothing else is dialled. */
#ifndef RELAY_NET_TCP_DIAL_H
#define RELAY_NET_TCP_DIAL_H

#include "lib/net/loop.h"
#include "lib/net/resolver.h"
#include "lib/wire/address.h"

struct relay_dial_config {
    uint64_t attempt_delay; /* ns before the next address is tried in parallel; 250 ms */
    uint64_t timeout;       /* ns for all together; 10 s */
};

struct relay_tcp_dial;

/* `fd` is the caller's then: connected, non-blocking, TCP_NODELAY set; -1 with an error: the most telling
 * of the attempts' (REFUSED, UNREACHABLE, TIMEOUT, NO_DESCRIPTORS). Comes once, from a task. */
typedef void (*relay_dial_cb)(void *user, int fd, const struct relay_address *address, int error);

/* Interleaves the families itself; at most RELAY_RESOLVER_ADDRESSES_MAX are tried. NULL: out of memory. */
struct relay_tcp_dial *relay_tcp_dial_start(struct relay_loop *loop, const struct relay_dial_config *config,
                                            const struct relay_address *addresses, size_t num_addresses,
                                            uint16_t port, relay_dial_cb cb, void *user);
/* No callback comes after; attempts are closed at once. */
void relay_tcp_dial_cancel(struct relay_tcp_dial *dial);

#endif
