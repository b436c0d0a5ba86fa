/* A borrowed piece of text: not NUL-terminated, not owned. */
#ifndef RELAY_WIRE_SLICE_H
#define RELAY_WIRE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct relay_slice {
    const char *base;
    size_t len;
};

#define RELAY_SLICE(literal) ((struct relay_slice){(literal), sizeof(literal) - 1})
#define RELAY_SLICE_NONE     ((struct relay_slice){NULL, 0})

static inline struct relay_slice relay_slice(const char *text)
{
    return (struct relay_slice){text, text != NULL ? strlen(text) : 0};
}

static inline bool relay_slice_is(struct relay_slice slice, const char *text)
{
    size_t len = strlen(text);
    return slice.len == len && (len == 0 || memcmp(slice.base, text, len) == 0);
}

#endif
