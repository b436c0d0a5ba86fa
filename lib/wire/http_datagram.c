#include "lib/wire/http_datagram.h"

#include <assert.h>

#include "lib/wire/error.h"
#include "lib/wire/varint.h"

size_t relay_http_datagram_read(const uint8_t *p, size_t len, uint64_t *context_id)
{
    return relay_varint_read(p, len, context_id);
}

uint8_t *relay_http_datagram_write(uint8_t *p, uint64_t context_id)
{
    return relay_varint_write(p, context_id);
}

int relay_quarter_stream_id_read(const uint8_t *p, size_t len, int64_t *stream_id)
{
    uint64_t quarter;
    size_t used = relay_varint_read(p, len, &quarter);
    if (used == 0)
        return RELAY_ERR_INCOMPLETE;
    if (quarter > RELAY_QUARTER_STREAM_ID_MAX)
        return RELAY_ERR_INVALID;
    *stream_id = (int64_t)(quarter * 4);
    return (int)used;
}

static uint64_t quarter_of(int64_t stream_id)
{
    assert(stream_id >= 0 && stream_id % 4 == 0 && (uint64_t)stream_id / 4 <= RELAY_QUARTER_STREAM_ID_MAX);
    return (uint64_t)stream_id / 4;
}

size_t relay_quarter_stream_id_size(int64_t stream_id)
{
    return relay_varint_size(quarter_of(stream_id));
}

uint8_t *relay_quarter_stream_id_write(uint8_t *p, int64_t stream_id)
{
    return relay_varint_write(p, quarter_of(stream_id));
}
