/* What nghttp2 forgets of closed streams and does not judge: the frames that RFC 9113 gives a peer no excuse
 * for. */
#include "lib/net/http2_private.h"

static bool has_ended(const struct http2_past *past, uint32_t id)
{
    for (size_t i = 0; i < HTTP2_PAST_ENDED; i++)
        if (past->ended[i] == id)
            return true;
    return false;
}

/* Section 5.1.1: a new stream's ID is greater than all before it. */
static bool is_backwards(struct http2_past *past, uint32_t id)
{
    if (id > past->last) {
        if (id > past->last + 2) {
            past->skipped_from = past->last + 1;
            past->skipped_to = id;
        }
        past->last = id;
        return false;
    }
    return id >= past->skipped_from && id < past->skipped_to;
}

uint32_t relay_http2_past_judge(struct http2_past *past, const uint8_t *frame_head, uint32_t id,
                                bool is_alive)
{
    uint8_t type = frame_head[3];
    bool carries = type == NGHTTP2_DATA || type == NGHTTP2_HEADERS;
    if (id == 0)
        return type == NGHTTP2_PRIORITY ? NGHTTP2_PROTOCOL_ERROR : NGHTTP2_NO_ERROR;
    if (carries && !is_alive && has_ended(past, id))
        return NGHTTP2_STREAM_CLOSED;
    if (type == NGHTTP2_HEADERS && is_backwards(past, id))
        return NGHTTP2_PROTOCOL_ERROR;
    if (type == NGHTTP2_RST_STREAM || (carries && frame_head[4] & NGHTTP2_FLAG_END_STREAM))
        past->ended[past->next++ % HTTP2_PAST_ENDED] = id;
    return NGHTTP2_NO_ERROR;
}
