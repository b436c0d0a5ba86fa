/* A head that is accepted has its parts inside its bytes and exactly one Host at 1.1; a chunked body never
 * yields more than it was given. */
#include <stdlib.h>
#include <string.h>

#include "lib/net/http1_head.h"
#include "lib/wire/error.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void check_chunked(char *bytes, size_t len)
{
    struct relay_http1_chunked chunked = {0};
    size_t used, piece, total = 0;
    uint8_t *body;
    int result = 0;
    for (size_t at = 0; at < len && result == 0; at += used) {
        result = relay_http1_chunked_next(&chunked, (uint8_t *)bytes + at, len - at, &used, &body, &piece);
        require(result != 0 || used > 0);
        total += piece;
    }
    require(total <= len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct relay_http1_head head;
    const struct relay_limits limits = RELAY_LIMITS_DEFAULT;
    char *bytes = malloc(size + 1);
    if (bytes == NULL)
        return 0;
    memcpy(bytes, data, size);
    int error = relay_http1_head_parse(&head, bytes, size, "https", &limits);
    relay_http1_head_is_tunnel(bytes, size);
    if (error == RELAY_OK) {
        size_t hosts;
        require(head.len <= size && head.len <= limits.head_bytes && memchr(bytes, '\0', head.len) == NULL);
        relay_fields_find(head.request.fields, head.request.num_fields, "host", &hosts);
        require(hosts == 1 || (hosts == 0 && head.minor_version == 0));
        for (size_t i = 0; i < head.request.num_fields; i++)
            require(head.fields[i].value.base + head.fields[i].value.len <= bytes + head.len);
        check_chunked(bytes + head.len, size - head.len);
    } else if (error != RELAY_ERR_INCOMPLETE) {
        require(head.status == 400 || head.status == 431 || head.status == 505);
    }
    check_chunked(bytes, size);
    free(bytes);
    return 0;
}
