#include "lib/net/quic_half_open.h"

#include "lib/wire/address.h"

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 31)) * 0x9e3779b97f4a7c15;
    return x ^ (x >> 29);
}

void relay_quic_half_open_add(struct relay_quic_half_open *half_open, struct relay_quic_handshake *handshake,
                              const struct sockaddr_storage *peer)
{
    struct relay_address address;
    uint16_t port;
    relay_address_from_sockaddr(&address, &port, peer);
    struct relay_prefix prefix = relay_prefix_of(&address, 32, 64);
    handshake->source =
        (unsigned)(relay_prefix_hash(&prefix, half_open->seed) % RELAY_QUIC_HALF_OPEN_SOURCES);
    handshake->port = (unsigned)(mix(half_open->seed ^ port) % RELAY_QUIC_HALF_OPEN_PORTS);
    handshake->number = half_open->next_number++;
    struct relay_quic_half_open_source *source = &half_open->sources[handshake->source];
    struct relay_quic_half_open_port *of_port = &source->ports[handshake->port];
    handshake->newer = NULL;
    handshake->older = of_port->newest;
    *(handshake->older != NULL ? &handshake->older->newer : &of_port->oldest) = handshake;
    of_port->newest = handshake;
    handshake->is_counted = true;
    of_port->count++;
    source->count++;
    half_open->count++;
}

void relay_quic_half_open_remove(struct relay_quic_half_open *half_open,
                                 struct relay_quic_handshake *handshake)
{
    if (!handshake->is_counted)
        return;
    struct relay_quic_half_open_source *source = &half_open->sources[handshake->source];
    struct relay_quic_half_open_port *port = &source->ports[handshake->port];
    *(handshake->newer != NULL ? &handshake->newer->older : &port->newest) = handshake->older;
    *(handshake->older != NULL ? &handshake->older->newer : &port->oldest) = handshake->newer;
    handshake->newer = handshake->older = NULL;
    handshake->is_counted = false;
    port->count--;
    source->count--;
    half_open->count--;
}

/* Both are the oldest of their ports. */
static bool goes_first(const struct relay_quic_half_open *half_open, const struct relay_quic_handshake *a,
                       const struct relay_quic_handshake *b)
{
    const struct relay_quic_half_open_source *source_a = &half_open->sources[a->source],
                                             *source_b = &half_open->sources[b->source];
    if (source_a->count != source_b->count)
        return source_a->count > source_b->count;
    if (source_a->ports[a->port].count != source_b->ports[b->port].count)
        return source_a->ports[a->port].count > source_b->ports[b->port].count;
    return a->number < b->number;
}

struct relay_quic_handshake *relay_quic_half_open_victim(const struct relay_quic_half_open *half_open)
{
    struct relay_quic_handshake *victim = NULL;
    for (size_t i = 0; i < RELAY_QUIC_HALF_OPEN_SOURCES; i++) {
        for (size_t j = 0; j < RELAY_QUIC_HALF_OPEN_PORTS; j++) {
            struct relay_quic_handshake *oldest = half_open->sources[i].ports[j].oldest;
            if (oldest != NULL && (victim == NULL || goes_first(half_open, oldest, victim)))
                victim = oldest;
        }
    }
    return victim;
}
