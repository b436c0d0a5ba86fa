#include "lib/wire/base64.h"

#include <string.h>

#include "lib/wire/error.h"

static const char alphabets[2][65] = {
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
};

/* Which alphabets a text has used so far; both is an error. */
#define USES_STANDARD 1
#define USES_URL      2

static int value_of(char c, unsigned *uses)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '+' || c == '/')
        *uses |= USES_STANDARD;
    else if (c == '-' || c == '_')
        *uses |= USES_URL;
    else
        return -1;
    return c == '+' || c == '-' ? 62 : 63;
}

/* The length without padding; SIZE_MAX when the padding is not the full one. */
static size_t strip_padding(const char *text, size_t len)
{
    size_t padding = 0;
    while (padding < len && padding < 2 && text[len - 1 - padding] == '=')
        padding++;
    if (padding > 0 && len % 4 != 0)
        return SIZE_MAX;
    return len - padding;
}

int relay_base64_decode(const char *text, size_t len, uint8_t *bytes, size_t size, size_t *decoded)
{
    const size_t digits = strip_padding(text, len);
    if (digits == SIZE_MAX || digits % 4 == 1)
        return RELAY_ERR_INVALID;
    const size_t total = digits / 4 * 3 + (digits % 4 != 0 ? digits % 4 - 1 : 0);
    if (total > size)
        return RELAY_ERR_TOO_BIG;

    uint32_t bits = 0;
    unsigned count = 0, uses = 0;
    size_t written = 0;
    for (size_t i = 0; i < digits; i++) {
        const int value = value_of(text[i], &uses);
        if (value < 0 || uses == (USES_STANDARD | USES_URL))
            return RELAY_ERR_INVALID;
        bits = bits << 6 | (uint32_t)value;
        count += 6;
        if (count >= 8) {
            count -= 8;
            bytes[written++] = (uint8_t)(bits >> count);
            bits &= (1u << count) - 1;
        }
    }
    if (bits != 0)
        return RELAY_ERR_INVALID;
    *decoded = written;
    return 0;
}

int relay_base64_encode(enum relay_base64_alphabet alphabet, const uint8_t *bytes, size_t len, char *text,
                        size_t size)
{
    const char *digits = alphabets[alphabet];
    const size_t rest = len % 3;
    const size_t last = rest == 0 ? 0 : alphabet == RELAY_BASE64 ? 4 : rest + 1;
    if (len / 3 * 4 + last + 1 > size)
        return RELAY_ERR_TOO_BIG;
    for (size_t i = 0; i < len; i += 3) {
        const size_t here = len - i < 3 ? len - i : 3;
        const uint32_t group = (uint32_t)bytes[i] << 16 | (here > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) |
                               (here > 2 ? bytes[i + 2] : 0);
        for (size_t digit = 0; digit < 4; digit++)
            if (digit <= here)
                *text++ = digits[group >> (18 - 6 * digit) & 63];
            else if (alphabet == RELAY_BASE64)
                *text++ = '=';
    }
    *text = '\0';
    return 0;
}
