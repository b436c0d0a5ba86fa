/* The order in which a name's addresses are tried: RFC 6724 section 6, by asking the kernel which source each
 * would have; and then the families in turns. */
#ifndef RELAY_NET_ADDRESS_ORDER_H
#define RELAY_NET_ADDRESS_ORDER_H

#include <stddef.h>

#include "lib/wire/address.h"

/* Sorts in place, stable: those with a route first (rule 1), then matching scope (2), matching label (5),
 * higher precedence (6; so IPv6 before IPv4), smaller scope (8). At most 64 addresses are sorted. Sends
 * nothing. */
void relay_address_order(struct relay_address *addresses, size_t num);

/* RFC 8305 section 4: the families take turns, the first address's family begins; each keeps its own order.
 * In place. */
void relay_address_interleave(struct relay_address *addresses, size_t num);

#endif
