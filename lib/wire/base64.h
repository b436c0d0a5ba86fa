/* Base64 of RFC 4648, both alphabets, into the caller's buffer. */
#ifndef RELAY_WIRE_BASE64_H
#define RELAY_WIRE_BASE64_H

#include <stddef.h>
#include <stdint.h>

enum relay_base64_alphabet {
    RELAY_BASE64,     /* section 4: + and /, written with padding */
    RELAY_BASE64_URL, /* section 5: - and _, written without padding */
};

/* Bytes that relay_base64_encode() may write for `len` bytes, NUL included; and an upper bound for decoded
 * text. */
#define RELAY_BASE64_ENCODED_SIZE(len) (((len) + 2) / 3 * 4 + 1)
#define RELAY_BASE64_DECODED_SIZE(len) ((len) / 4 * 3 + 3)

/* Decodes either alphabet, but not both in one text; padding may be there (then in full) or not. No space, no
 * line breaks; the unused bits must be zero, so that one value has one text. `bytes` may be `text` itself
 * (decode in place). RELAY_ERR_INVALID, or RELAY_ERR_TOO_BIG when `size` does not hold it. */
int relay_base64_decode(const char *text, size_t len, uint8_t *bytes, size_t size, size_t *decoded);

/* Writes text and NUL. RELAY_ERR_TOO_BIG when `size` is less than needed; nothing is written then. */
int relay_base64_encode(enum relay_base64_alphabet alphabet, const uint8_t *bytes, size_t len, char *text,
                        size_t size);

#endif
