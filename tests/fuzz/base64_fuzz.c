/* What decodes encodes to the same digits: one value has one text. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "lib/wire/base64.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const size_t text_size = RELAY_BASE64_ENCODED_SIZE(size + 3);
    uint8_t *bytes = malloc(RELAY_BASE64_DECODED_SIZE(size));
    char *text = malloc(text_size);
    size_t decoded;
    if (relay_base64_decode((const char *)data, size, bytes, RELAY_BASE64_DECODED_SIZE(size), &decoded) ==
        0) {
        const bool is_url = size > 0 && (memchr(data, '-', size) != NULL || memchr(data, '_', size) != NULL);
        if (relay_base64_encode(is_url ? RELAY_BASE64_URL : RELAY_BASE64, bytes, decoded, text, text_size) !=
            0)
            abort();
        const size_t common = strlen(text) < size ? strlen(text) : size;
        if (memcmp(text, data, common) != 0)
            abort();
    }
    free(text);
    free(bytes);
    return 0;
}
