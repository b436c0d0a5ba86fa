/* The order in which a name's addresses are tried: RFC 6724 section 6, by asking the kernel which source each
 * would have. */
#ifndef RELAY_NET_ADDRESS_ORDER_H
#define RELAY_NET_ADDRESS_ORDER_H

#include <stddef.h>

#include "lib/wire/address.h"

/* Sorts in place, stable: those with a route first (rule 1), then matching scope (2), matching label (5),
 * higher precedence (6; so IPv6 before IPv4), smaller scope (8). At most 64 addresses are sorted. Sends
 * nothing. */
void relay_address_order(struct relay_address *addresses, size_t num);

#endif
