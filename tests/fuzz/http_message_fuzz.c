/* What is accepted is written inside its bound, and means the same when it is read again; a body never takes more than
 * it was given. The first byte: an answer, one to HEAD, or a request. */
#include <stdlib.h>
#include <string.h>

#include "client/http_message.h"
#include "lib/wire/error.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void check_body(enum relay_http_framing framing, uint64_t length, uint8_t *bytes, size_t len)
{
    struct relay_http_body body;
    relay_http_body_init(&body, framing, length);
    for (size_t at = 0; at < len;) {
        size_t piece = len - at < 7 ? len - at : 7;
        ssize_t own = relay_http_body_take(&body, bytes + at, piece);
        require(own <= (ssize_t)piece);
        if (own < (ssize_t)piece) {
            require(own < 0 || body.is_complete);
            return;
        }
        at += piece;
    }
}

static void check_answer(uint8_t *bytes, size_t len, bool is_to_head)
{
    static struct relay_http_answer answer, again;
    int error = relay_http_answer_parse(&answer, (const char *)bytes, len, is_to_head);
    require(error == RELAY_OK || error == RELAY_ERR_INCOMPLETE || error == RELAY_ERR_INVALID ||
            error == RELAY_ERR_TOO_BIG);
    if (error != RELAY_OK)
        return;
    require(answer.len <= len && answer.len <= RELAY_HTTP_ANSWER_HEAD_MAX);
    uint8_t *out = malloc(relay_http_answer_size(&answer));
    if (out == NULL)
        return;
    size_t written = relay_http_answer_write(out, &answer, true);
    require(written <= relay_http_answer_size(&answer));
    /* Our own field may be the one too many. */
    error = relay_http_answer_parse(&again, (const char *)out, written, is_to_head);
    require(error == RELAY_OK || error == RELAY_ERR_TOO_BIG || error == RELAY_ERR_INVALID);
    if (answer.num_fields < RELAY_HTTP_ANSWER_FIELDS_MAX && written < RELAY_HTTP_ANSWER_HEAD_MAX &&
        (answer.minor_version > 0 || answer.framing != RELAY_HTTP_CHUNKED)) {
        require(error == RELAY_OK && again.len == written && again.status == answer.status);
        require(again.framing == answer.framing && again.length == answer.length);
    }
    check_body(answer.framing, answer.length, bytes + answer.len, len - answer.len);
    free(out);
}

static void check_request(uint8_t *bytes, size_t len)
{
    static struct relay_http1_head head;
    const struct relay_limits limits = RELAY_LIMITS_DEFAULT;
    if (relay_http1_head_parse(&head, (char *)bytes, len, "http", &limits) != RELAY_OK)
        return;
    uint8_t *out = malloc(relay_http_request_size(&head));
    if (out == NULL)
        return;
    require(relay_http_request_write(out, &head) <= relay_http_request_size(&head));
    relay_http_request_may_repeat(&head);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    uint8_t *bytes = malloc(size - 1);
    if (bytes == NULL)
        return 0;
    memcpy(bytes, data + 1, size - 1);
    if (data[0] == 'c')
        check_request(bytes, size - 1);
    else
        check_answer(bytes, size - 1, data[0] == 'b');
    free(bytes);
    return 0;
}
