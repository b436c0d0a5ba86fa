/* Variable-length integers of QUIC, RFC 9000 section 16: 1, 2, 4 or 8 bytes, the length in the first two
 * bits. */
#ifndef RELAY_WIRE_VARINT_H
#define RELAY_WIRE_VARINT_H

#include <stddef.h>
#include <stdint.h>

#define RELAY_VARINT_MAX      ((UINT64_C(1) << 62) - 1)
#define RELAY_VARINT_SIZE_MAX 8

/* Bytes of the shortest encoding of `v`, which must be at most RELAY_VARINT_MAX. */
size_t relay_varint_size(uint64_t v);

/* Writes the shortest encoding of `v` (at most RELAY_VARINT_MAX) and returns its end. `p` needs
 * relay_varint_size(v) bytes. */
uint8_t *relay_varint_write(uint8_t *p, uint64_t v);

/* Reads one integer and returns the bytes it took, or 0 (and leaves `*v` alone) if it is cut. Encodings
 * longer than necessary are accepted, as RFC 9000 asks. */
size_t relay_varint_read(const uint8_t *p, size_t len, uint64_t *v);

#endif
