#include "lib/net/quic_memory.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct relay_quic_memory {
    size_t refs;
    struct sockaddr_storage local; /* its port does not count */
    struct {
        uint8_t *bytes;
        size_t len;
    } kept[RELAY_QUIC_MEMORY_KINDS];
};

struct relay_quic_memory *relay_quic_memory_new(void)
{
    struct relay_quic_memory *memory = calloc(1, sizeof(*memory));
    if (memory != NULL)
        memory->refs = 1;
    return memory;
}

struct relay_quic_memory *relay_quic_memory_ref(struct relay_quic_memory *memory)
{
    if (memory != NULL)
        memory->refs++;
    return memory;
}

static void forget(struct relay_quic_memory *memory, enum relay_quic_memory_kind kind)
{
    if (memory->kept[kind].bytes != NULL)
        explicit_bzero(memory->kept[kind].bytes, memory->kept[kind].len);
    free(memory->kept[kind].bytes);
    memory->kept[kind].bytes = NULL;
    memory->kept[kind].len = 0;
}

void relay_quic_memory_unref(struct relay_quic_memory *memory)
{
    if (memory == NULL || --memory->refs > 0)
        return;
    for (unsigned kind = 0; kind < RELAY_QUIC_MEMORY_KINDS; kind++)
        forget(memory, kind);
    free(memory);
}

static bool is_same_host(const struct sockaddr *a, const struct sockaddr *b)
{
    if (a->sa_family != b->sa_family)
        return false;
    if (a->sa_family == AF_INET6)
        return memcmp(&((const struct sockaddr_in6 *)a)->sin6_addr,
                      &((const struct sockaddr_in6 *)b)->sin6_addr, sizeof(struct in6_addr)) == 0;
    return ((const struct sockaddr_in *)a)->sin_addr.s_addr ==
           ((const struct sockaddr_in *)b)->sin_addr.s_addr;
}

/* Forgets all that was learnt at another address. */
static void come_from(struct relay_quic_memory *memory, const struct sockaddr *local)
{
    if (is_same_host((const struct sockaddr *)&memory->local, local))
        return;
    for (unsigned kind = 0; kind < RELAY_QUIC_MEMORY_KINDS; kind++)
        forget(memory, kind);
    memcpy(&memory->local, local,
           local->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in));
}

void relay_quic_memory_keep(struct relay_quic_memory *memory, enum relay_quic_memory_kind kind,
                            const struct sockaddr *local, const void *bytes, size_t len)
{
    if (memory == NULL)
        return;
    come_from(memory, local);
    forget(memory, kind);
    if (len == 0 || len > RELAY_QUIC_MEMORY_MAX || (memory->kept[kind].bytes = malloc(len)) == NULL)
        return;
    memcpy(memory->kept[kind].bytes, bytes, len);
    memory->kept[kind].len = len;
}

uint8_t *relay_quic_memory_take(struct relay_quic_memory *memory, enum relay_quic_memory_kind kind,
                                const struct sockaddr *local, size_t *len)
{
    *len = 0;
    if (memory == NULL)
        return NULL;
    come_from(memory, local);
    uint8_t *bytes = memory->kept[kind].bytes;
    *len = memory->kept[kind].len;
    memory->kept[kind].bytes = NULL;
    memory->kept[kind].len = 0;
    return bytes;
}
