#include "lib/net/http3_private.h"

#include <stdlib.h>
#include <string.h>

#include "lib/wire/error.h"

#define CHUNK_MIN 1024
#define CHUNK_MAX 16384

struct relay_http3_chunk {
    struct relay_http3_chunk *next;
    size_t len, size;
    uint8_t bytes[];
};

void relay_http3_buffer_init(struct relay_http3_buffer *buffer, struct relay_budget *budget,
                             const struct relay_limits *limits)
{
    *buffer = (struct relay_http3_buffer){.budget = budget, .limit = limits->window_initial};
}

void relay_http3_buffer_begin_small(struct relay_http3_buffer *buffer)
{
    if (buffer->limit > CHUNK_MAX)
        buffer->limit = CHUNK_MAX;
}

static struct relay_http3_chunk *chunk_new(size_t len)
{
    size_t size = len < CHUNK_MIN ? CHUNK_MIN : len > CHUNK_MAX ? CHUNK_MAX : len;
    struct relay_http3_chunk *chunk = malloc(sizeof(*chunk) + size);
    if (chunk != NULL) {
        chunk->next = NULL;
        chunk->len = 0;
        chunk->size = size;
    }
    return chunk;
}

static void free_chain(struct relay_http3_chunk *chunk)
{
    while (chunk != NULL) {
        struct relay_http3_chunk *next = chunk->next;
        free(chunk);
        chunk = next;
    }
}

/* New chunks for `len` bytes, or NULL; all or nothing, so that a failure leaves the buffer as it was. */
static struct relay_http3_chunk *chain_new(size_t len)
{
    struct relay_http3_chunk *first = NULL, **end = &first;
    while (len > 0) {
        struct relay_http3_chunk *chunk = chunk_new(len);
        if (chunk == NULL) {
            free_chain(first);
            return NULL;
        }
        len -= len < chunk->size ? len : chunk->size;
        *end = chunk;
        end = &chunk->next;
    }
    return first;
}

/* Fills one chunk; returns how much went in. */
static size_t fill(struct relay_http3_buffer *buffer, struct relay_http3_chunk *chunk, const uint8_t *bytes,
                   size_t len)
{
    size_t n = chunk->size - chunk->len < len ? chunk->size - chunk->len : len;
    if (n == 0)
        return 0;
    if (buffer->unread == NULL) {
        buffer->unread = chunk;
        buffer->unread_at = chunk->len;
    }
    memcpy(chunk->bytes + chunk->len, bytes, n);
    chunk->len += n;
    return n;
}

int relay_http3_buffer_append(struct relay_http3_buffer *buffer, const uint8_t *bytes, size_t len)
{
    size_t spare = buffer->last != NULL ? buffer->last->size - buffer->last->len : 0;
    struct relay_http3_chunk *chunk = NULL;
    if (len > spare) {
        chunk = chain_new(len - spare);
        if (chunk == NULL)
            return RELAY_ERR_NO_MEMORY;
    }
    buffer->written += len;
    buffer->held += len;
    buffer->num_unread += len;
    size_t used = buffer->last != NULL ? fill(buffer, buffer->last, bytes, len) : 0;
    for (; chunk != NULL; chunk = chunk->next) {
        if (buffer->last != NULL)
            buffer->last->next = chunk;
        else
            buffer->first = chunk;
        buffer->last = chunk;
        used += fill(buffer, chunk, bytes + used, len - used);
    }
    return 0;
}

size_t relay_http3_buffer_room(const struct relay_http3_buffer *buffer)
{
    return buffer->held < buffer->limit ? buffer->limit - buffer->held : 0;
}

void relay_http3_buffer_full(struct relay_http3_buffer *buffer, uint64_t now)
{
    if (buffer->mark != 0)
        return;
    buffer->mark = buffer->written;
    buffer->marked_at = now;
}

size_t relay_http3_buffer_read(struct relay_http3_buffer *buffer, nghttp3_vec *pieces, size_t num_pieces,
                               size_t max)
{
    size_t filled = 0, total = 0;
    while (buffer->unread != NULL && filled < num_pieces && total < max) {
        struct relay_http3_chunk *chunk = buffer->unread;
        size_t len = chunk->len - buffer->unread_at;
        pieces[filled++] = (nghttp3_vec){chunk->bytes + buffer->unread_at, len};
        total += len;
        /* At the end of all: the next bytes may go into the rest of this chunk; `fill` sets the place. */
        buffer->unread = chunk->next;
        buffer->unread_at = 0;
    }
    buffer->num_unread -= total;
    return filled;
}

static void measure(struct relay_http3_buffer *buffer, const struct relay_limits *limits, uint64_t now,
                    uint64_t rtt)
{
    if (buffer->mark == 0 || buffer->acked < buffer->mark)
        return;
    bool was_quick = now - buffer->marked_at <= 2 * rtt;
    buffer->mark = 0;
    size_t more = buffer->limit;
    if (buffer->limit + more > limits->window_max)
        more = limits->window_max > buffer->limit ? limits->window_max - buffer->limit : 0;
    if (!was_quick || buffer->is_stalled || buffer->budget->used + more > buffer->budget->limit)
        return;
    buffer->budget->used += more;
    buffer->charged += more;
    buffer->limit += more;
}

void relay_http3_buffer_acked(struct relay_http3_buffer *buffer, const struct relay_limits *limits,
                              uint64_t len, uint64_t now, uint64_t rtt)
{
    buffer->acked += len;
    buffer->held -= len;
    buffer->first_acked += len;
    while (buffer->first != NULL && buffer->first != buffer->unread &&
           buffer->first_acked >= buffer->first->len) {
        struct relay_http3_chunk *chunk = buffer->first;
        buffer->first_acked -= chunk->len;
        buffer->first = chunk->next;
        if (buffer->first == NULL)
            buffer->last = NULL;
        free(chunk);
    }
    measure(buffer, limits, now, rtt);
}

static void give_back(struct relay_http3_buffer *buffer)
{
    if (buffer->budget != NULL)
        buffer->budget->used -= buffer->charged;
    buffer->charged = buffer->limit = 0;
}

void relay_http3_buffer_give_up(struct relay_http3_buffer *buffer)
{
    struct relay_http3_chunk **end = &buffer->first;
    buffer->last = NULL;
    while (*end != NULL && (*end != buffer->unread || buffer->unread_at > 0)) {
        buffer->last = *end;
        if (*end == buffer->unread) {
            buffer->last->len = buffer->unread_at;
            buffer->unread = buffer->last->next;
            buffer->unread_at = 0;
        }
        end = &buffer->last->next;
    }
    free_chain(*end);
    *end = buffer->unread = NULL;
    buffer->held -= buffer->num_unread;
    buffer->num_unread = 0;
    give_back(buffer);
}

void relay_http3_buffer_dispose(struct relay_http3_buffer *buffer)
{
    free_chain(buffer->first);
    give_back(buffer);
    memset(buffer, 0, sizeof(*buffer));
}
