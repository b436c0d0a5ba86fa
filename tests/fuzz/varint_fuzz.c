/* Whatever is read is written back shortest, and reads the same. */
#include <stdint.h>
#include <stdlib.h>

#include "lib/wire/varint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t value, again;
    for (size_t used; size > 0 && (used = relay_varint_read(data, size, &value)) > 0;
         data += used, size -= used) {
        uint8_t bytes[RELAY_VARINT_SIZE_MAX];
        size_t written = (size_t)(relay_varint_write(bytes, value) - bytes);
        if (value > RELAY_VARINT_MAX || written > used || written != relay_varint_size(value) ||
            relay_varint_read(bytes, written, &again) != written || again != value)
            abort();
    }
    return 0;
}
