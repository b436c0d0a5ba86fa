#include "lib/wire/varint.h"

#include <assert.h>

size_t relay_varint_size(uint64_t v)
{
    assert(v <= RELAY_VARINT_MAX);
    if (v < UINT64_C(1) << 6)
        return 1;
    if (v < UINT64_C(1) << 14)
        return 2;
    return v < UINT64_C(1) << 30 ? 4 : 8;
}

uint8_t *relay_varint_write(uint8_t *p, uint64_t v)
{
    static const uint8_t prefixes[] = {[1] = 0x00, [2] = 0x40, [4] = 0x80, [8] = 0xc0};
    size_t size = relay_varint_size(v);
    for (size_t i = size; i > 0; i--, v >>= 8)
        p[i - 1] = (uint8_t)v;
    p[0] |= prefixes[size];
    return p + size;
}

size_t relay_varint_read(const uint8_t *p, size_t len, uint64_t *v)
{
    if (len == 0)
        return 0;
    size_t size = (size_t)1 << (p[0] >> 6);
    if (len < size)
        return 0;
    uint64_t value = p[0] & 0x3f;
    for (size_t i = 1; i < size; i++)
        value = value << 8 | p[i];
    *v = value;
    return size;
}
