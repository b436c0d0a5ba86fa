/* Where HTTP/3 was blocked lately, so that HTTP/2 goes first there. One entry for each pair of our own
 * address (which stands for the network we are in) and the relay's; the oldest goes when there are too many.
 */
#ifndef RELAY_CLIENT_HOP_MEMORY_H
#define RELAY_CLIENT_HOP_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/wire/address.h"

#define RELAY_HOP_MEMORY_SIZE 32

struct relay_hop_memory {
    struct {
        struct relay_address local, peer;
        uint64_t until; /* ns */
    } entries[RELAY_HOP_MEMORY_SIZE];
    size_t next;
};

/* The address from which the kernel would send to `peer` now; family 0 when there is no route. */
struct relay_address relay_hop_memory_local(const struct relay_address *peer, uint16_t port);
void relay_hop_memory_add(struct relay_hop_memory *memory, const struct relay_address *local,
                          const struct relay_address *peer, uint64_t until);
bool relay_hop_memory_has(const struct relay_hop_memory *memory, const struct relay_address *local,
                          const struct relay_address *peer, uint64_t now);

#endif
