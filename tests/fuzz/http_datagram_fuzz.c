/* Both IDs of an HTTP Datagram: what is read is written back and reads the same. */
#include <stdint.h>
#include <stdlib.h>

#include "lib/wire/http_datagram.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t bytes[RELAY_HTTP_DATAGRAM_HEAD_MAX];
    int64_t stream_id, stream_id_again;
    int used = relay_quarter_stream_id_read(data, size, &stream_id);
    if (used < 0)
        return 0;
    uint8_t *end = relay_quarter_stream_id_write(bytes, stream_id);
    if (relay_quarter_stream_id_read(bytes, (size_t)(end - bytes), &stream_id_again) != end - bytes ||
        stream_id_again != stream_id)
        abort();
    uint64_t context_id, context_id_again;
    size_t at = relay_http_datagram_read(data + used, size - (size_t)used, &context_id);
    if (at == 0)
        return 0;
    end = relay_http_datagram_write(bytes, context_id);
    if (at > size - (size_t)used ||
        relay_http_datagram_read(bytes, (size_t)(end - bytes), &context_id_again) != (size_t)(end - bytes) ||
        context_id_again != context_id)
        abort();
    return 0;
}
