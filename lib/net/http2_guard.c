#include "lib/net/http2_private.h"

#include <string.h>

#include "lib/wire/error.h"

#define PREFACE_LEN       24 /* RFC 9113 section 3.4 */
#define UPDATES_AT_START  100
#define UPDATES_PER_DATA  4
#define UPDATES_MAX       4096
#define LATE_LARGE        256 /* larger DATA frames are limited by what the wire takes */
#define LATE_FRAME        64  /* what a frame of nothing costs of what is forgiven */
#define LATE_BLOCK        256 /* so much of a header block is as one control frame */
#define LATE_MAX          (1024 * 1024)
#define DATA_WORTH_UPDATE 256 /* smaller DATA frames, of a one-byte window say, earn no WINDOW_UPDATE */

void relay_http2_guard_init(struct http2_guard *guard, bool is_server)
{
    *guard = (struct http2_guard){.update_credit = UPDATES_AT_START};
    if (is_server) {
        guard->head_len = HTTP2_FRAME_HEAD; /* the preface is like the payload of a frame */
        guard->head[3] = UINT8_MAX;         /* no DATA */
        guard->left = PREFACE_LEN;
    }
}

bool relay_http2_guard_control(struct http2_guard *guard, const struct relay_limits *limits, uint64_t now)
{
    return relay_bucket_take(&guard->control, 1, limits->control_frames, limits->control_frames, now);
}

bool relay_http2_guard_reset(struct http2_guard *guard, const struct relay_limits *limits, uint64_t now)
{
    return relay_bucket_take(&guard->resets, 1, limits->reset_burst, limits->reset_rate, now);
}

bool relay_http2_guard_own_reset(struct http2_guard *guard, const struct relay_limits *limits, uint64_t now)
{
    return relay_bucket_take(&guard->own_resets, 1, limits->own_reset_burst, limits->own_reset_rate, now);
}

void relay_http2_guard_sent_data(struct http2_guard *guard, size_t len)
{
    if (len >= DATA_WORTH_UPDATE && guard->update_credit < UPDATES_MAX)
        guard->update_credit += UPDATES_PER_DATA;
}

void relay_http2_guard_forgive(struct http2_guard *guard, size_t len)
{
    guard->late_credit += len < LATE_MAX ? len : LATE_MAX;
    if (guard->late_credit > LATE_MAX)
        guard->late_credit = LATE_MAX;
}

bool relay_http2_guard_late(struct http2_guard *guard, const struct relay_limits *limits, bool is_late,
                            uint64_t now)
{
    size_t len = (size_t)guard->head[0] << 16 | (size_t)guard->head[1] << 8 | guard->head[2];
    uint8_t type = guard->head[3];
    if (type == NGHTTP2_HEADERS)
        guard->is_late = is_late;
    else if (type == NGHTTP2_CONTINUATION)
        is_late = guard->is_late;
    else if (type != NGHTTP2_DATA || len >= LATE_LARGE)
        return true;
    if (!is_late)
        return true;
    if (guard->late_credit >= len + LATE_FRAME) {
        guard->late_credit -= len + LATE_FRAME;
        return true;
    }
    return relay_bucket_take(&guard->control, 1 + (double)(len / LATE_BLOCK), limits->control_frames,
                             limits->control_frames, now);
}

/* The frame's head is complete: false when it is one too many. RST_STREAM is judged with its stream. */
static bool admit(struct http2_guard *guard, const struct relay_limits *limits, uint64_t now)
{
    uint8_t flags = guard->head[4];
    switch (guard->head[3]) {
    case NGHTTP2_DATA:
        if (guard->left > 0 || (flags & NGHTTP2_FLAG_END_STREAM))
            return true;
        break;
    case NGHTTP2_HEADERS:
        guard->in_block = !(flags & NGHTTP2_FLAG_END_HEADERS);
        guard->continuations = 0;
        return true;
    case NGHTTP2_CONTINUATION:
        guard->in_block = !(flags & NGHTTP2_FLAG_END_HEADERS);
        return ++guard->continuations <= HTTP2_CONTINUATIONS;
    case NGHTTP2_RST_STREAM:
        return true;
    case NGHTTP2_WINDOW_UPDATE:
        if (guard->update_credit > 0) {
            guard->update_credit--;
            return true;
        }
        break;
    default:
        break;
    }
    return relay_http2_guard_control(guard, limits, now);
}

int relay_http2_guard_walk(struct http2_guard *guard, const struct relay_limits *limits, const uint8_t *bytes,
                           size_t len, uint64_t now, size_t *taken)
{
    size_t used = 0;
    guard->has_begun = false;
    if (guard->head_len < HTTP2_FRAME_HEAD) {
        used = HTTP2_FRAME_HEAD - guard->head_len;
        used = used < len ? used : len;
        memcpy(guard->head + guard->head_len, bytes, used);
        guard->head_len += (uint8_t)used;
        *taken = used;
        if (guard->head_len < HTTP2_FRAME_HEAD)
            return 0;
        guard->has_begun = true;
        guard->left = (uint32_t)guard->head[0] << 16 | (uint32_t)guard->head[1] << 8 | guard->head[2];
        if (!admit(guard, limits, now))
            return RELAY_ERR_EXCESSIVE_LOAD;
    }
    size_t payload = guard->left < len - used ? guard->left : len - used;
    guard->left -= (uint32_t)payload;
    if (guard->left == 0)
        guard->head_len = 0;
    *taken = used + payload;
    return 0;
}

bool relay_http2_guard_is_partial(const struct http2_guard *guard)
{
    bool in_payload = guard->head_len == HTTP2_FRAME_HEAD;
    return guard->in_block || (guard->head_len > 0 && !in_payload) ||
           (in_payload && guard->head[3] != NGHTTP2_DATA);
}
