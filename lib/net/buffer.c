#include "lib/net/buffer.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/wire/error.h"

#define SMALLEST 1024

uint8_t *relay_buffer_reserve(struct relay_buffer *buffer, size_t room)
{
    if (buffer->size - buffer->start - buffer->len >= room)
        return buffer->base != NULL ? buffer->base + buffer->start + buffer->len : NULL;
    if (buffer->size - buffer->len >= room && buffer->start >= buffer->len) {
        memmove(buffer->base, buffer->base + buffer->start, buffer->len);
        buffer->start = 0;
        return buffer->base + buffer->len;
    }
    size_t size = buffer->len * 2 > SMALLEST ? buffer->len * 2 : SMALLEST;
    if (size < buffer->len + room)
        size = buffer->len + room;
    uint8_t *base = malloc(size);
    if (base == NULL)
        return NULL;
    if (buffer->len > 0)
        memcpy(base, buffer->base + buffer->start, buffer->len);
    free(buffer->base);
    *buffer = (struct relay_buffer){base, 0, buffer->len, size};
    return base + buffer->len;
}

int relay_buffer_append(struct relay_buffer *buffer, const void *bytes, size_t len)
{
    if (len == 0)
        return RELAY_OK;
    uint8_t *end = relay_buffer_reserve(buffer, len);
    if (end == NULL)
        return RELAY_ERR_NO_MEMORY;
    memcpy(end, bytes, len);
    buffer->len += len;
    return RELAY_OK;
}

void relay_buffer_consume(struct relay_buffer *buffer, size_t len)
{
    assert(len <= buffer->len);
    buffer->start += len;
    buffer->len -= len;
    if (buffer->len == 0)
        relay_buffer_dispose(buffer);
}

void relay_buffer_dispose(struct relay_buffer *buffer)
{
    free(buffer->base);
    *buffer = (struct relay_buffer){NULL, 0, 0, 0};
}
