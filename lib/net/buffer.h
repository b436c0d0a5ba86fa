/* A growing run of bytes that is filled at its end and emptied at its front. Zeroed memory is an empty
 * buffer, and an empty buffer owns no memory: what is idle costs nothing. Its owner bounds it. */
#ifndef RELAY_NET_BUFFER_H
#define RELAY_NET_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct relay_buffer {
    uint8_t *base;
    size_t start, len, size; /* the bytes are base[start .. start + len) */
};

static inline uint8_t *relay_buffer_bytes(const struct relay_buffer *buffer)
{
    return buffer->base != NULL ? buffer->base + buffer->start : NULL;
}

/* At least `room` writable bytes behind the last one; fill them and add to `len`. NULL: out of memory,
 * nothing changed. */
uint8_t *relay_buffer_reserve(struct relay_buffer *buffer, size_t room);
/* 0 or RELAY_ERR_NO_MEMORY (nothing changed). */
int relay_buffer_append(struct relay_buffer *buffer, const void *bytes, size_t len);
/* Drops the first `len` bytes; frees the memory with the last one. */
void relay_buffer_consume(struct relay_buffer *buffer, size_t len);
void relay_buffer_dispose(struct relay_buffer *buffer);

#endif
