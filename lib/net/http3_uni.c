/* The client's unidirectional streams, on their way to nghttp3 (1.8), which aborts the process when the bytes that it is
 * given of a control stream end between the element ID of a PRIORITY_UPDATE frame (RFC 9218 section 7.2) and the rest of
 * that frame. So it is given the two together. */
#include "lib/net/http3_private.h"

#include <string.h>

#define CONTROL_STREAM  0       /* RFC 9114 section 6.2.1 */
#define PRIORITY_UPDATE 0xF0700 /* RFC 9218 section 7.2: of a request; of a push it is an error at once */

enum phase {
    STREAM_TYPE, /* first, and 0 */
    FRAME_TYPE,
    FRAME_LENGTH,
    ELEMENT, /* the beginning of a PRIORITY_UPDATE frame's payload */
    PAYLOAD,
    OTHER /* no control stream: nothing is looked at */
};

struct relay_http3_uni *relay_http3_uni_find(struct relay_http3 *session, int64_t id)
{
    struct relay_http3_uni *unused = NULL;
    for (size_t i = 0; i < RELAY_QUIC_UNI_STREAMS; i++) {
        if (session->unis[i].id == id)
            return &session->unis[i];
        if (session->unis[i].id == 0)
            unused = &session->unis[i];
    }
    if (unused != NULL)
        unused->id = id;
    return unused;
}

void relay_http3_uni_forget(struct relay_http3 *session, int64_t id)
{
    for (size_t i = 0; i < RELAY_QUIC_UNI_STREAMS; i++)
        if (session->unis[i].id == id)
            session->unis[i] = (struct relay_http3_uni){.id = 0};
}

static void begin_payload(struct relay_http3_uni *uni, uint64_t len)
{
    uni->left = len;
    uni->phase = len > 0 ? PAYLOAD : FRAME_TYPE;
}

/* A number of a head is complete. */
static void take_number(struct relay_http3_uni *uni)
{
    switch (uni->phase) {
    case STREAM_TYPE:
        uni->phase = uni->number == CONTROL_STREAM ? FRAME_TYPE : OTHER;
        break;
    case FRAME_TYPE:
        uni->is_priority = uni->number == PRIORITY_UPDATE;
        uni->phase = FRAME_LENGTH;
        break;
    default:
        begin_payload(uni, uni->number);
        if (uni->is_priority && uni->left > 0)
            uni->phase = ELEMENT;
        break;
    }
}

/* One byte of a head: RFC 9000 section 16. */
static void take_byte(struct relay_http3_uni *uni, uint8_t byte)
{
    if (uni->number_left == 0) {
        uni->number_left = (uint8_t)(1 << (byte >> 6));
        uni->number = byte & 0x3f;
    } else {
        uni->number = uni->number << 8 | byte;
    }
    if (--uni->number_left == 0)
        take_number(uni);
}

/* How many bytes must go together. */
static size_t element_size(const struct relay_http3_uni *uni)
{
    return uni->left < sizeof(uni->held) ? (size_t)uni->left : sizeof(uni->held);
}

size_t relay_http3_uni_complete(struct relay_http3_uni *uni, const uint8_t *bytes, size_t len)
{
    size_t size = element_size(uni), more = size - uni->num_held;
    if (uni->num_held == 0)
        return 0;
    if (more > len)
        more = len;
    memcpy(uni->held + uni->num_held, bytes, more);
    uni->num_held += (uint8_t)more;
    return more;
}

size_t relay_http3_uni_take_held(struct relay_http3_uni *uni)
{
    size_t len = uni->num_held;
    if (len == 0 || len < element_size(uni))
        return 0;
    begin_payload(uni, uni->left - len);
    uni->num_held = 0;
    return len;
}

size_t relay_http3_uni_pass(struct relay_http3_uni *uni, const uint8_t *bytes, size_t len)
{
    size_t at = 0;
    while (at < len && uni->phase != OTHER) {
        size_t rest = len - at;
        if (uni->phase == PAYLOAD) {
            size_t part = uni->left < rest ? (size_t)uni->left : rest;
            begin_payload(uni, uni->left - part);
            at += part;
        } else if (uni->phase != ELEMENT) {
            take_byte(uni, bytes[at++]);
        } else if (rest < element_size(uni)) {
            memcpy(uni->held, bytes + at, rest);
            uni->num_held = (uint8_t)rest;
            return at;
        } else {
            size_t part = element_size(uni);
            begin_payload(uni, uni->left - part);
            at += part;
        }
    }
    return len;
}
