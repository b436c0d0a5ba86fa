#include "client/hop_memory.h"

#include <sys/socket.h>
#include <unistd.h>

struct relay_address relay_hop_memory_local(const struct relay_address *peer, uint16_t port)
{
    struct relay_address local = {0};
    struct sockaddr_storage address;
    socklen_t len = relay_address_to_sockaddr(peer, port, &address);
    int fd = socket(address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return local;
    if (len > 0 && connect(fd, (struct sockaddr *)&address, len) == 0) {
        len = sizeof(address);
        if (getsockname(fd, (struct sockaddr *)&address, &len) == 0)
            (void)relay_address_from_sockaddr(&local, NULL, &address);
    }
    close(fd);
    return local;
}

void relay_hop_memory_add(struct relay_hop_memory *memory, const struct relay_address *local,
                          const struct relay_address *peer, uint64_t until)
{
    size_t at = memory->next;
    for (size_t i = 0; i < RELAY_HOP_MEMORY_SIZE; i++)
        if (relay_address_equal(&memory->entries[i].local, local) &&
            relay_address_equal(&memory->entries[i].peer, peer))
            at = i;
    if (at == memory->next)
        memory->next = (memory->next + 1) % RELAY_HOP_MEMORY_SIZE;
    memory->entries[at].local = *local;
    memory->entries[at].peer = *peer;
    memory->entries[at].until = until;
}

bool relay_hop_memory_has(const struct relay_hop_memory *memory, const struct relay_address *local,
                          const struct relay_address *peer, uint64_t now)
{
    for (size_t i = 0; i < RELAY_HOP_MEMORY_SIZE; i++)
        if (now < memory->entries[i].until && relay_address_equal(&memory->entries[i].local, local) &&
            relay_address_equal(&memory->entries[i].peer, peer))
            return true;
    return false;
}
