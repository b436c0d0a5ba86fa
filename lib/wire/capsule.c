#include "lib/wire/capsule.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "lib/wire/error.h"
#include "lib/wire/varint.h"

_Static_assert(sizeof(struct relay_capsule_parser) <= 64, "every idle tunnel holds one");

enum {
    HEAD,    /* between capsules, or head_len bytes of a head are in `head` */
    SKIP,    /* in the payload of a capsule nobody wants */
    COLLECT, /* in the payload of a capsule that is wanted and was cut */
    DEAD,    /* `error` was returned */
};

/* The first allocation for a cut capsule that arrives in crumbs. */
#define FIRST_CAPACITY 128

void relay_capsule_parser_init(struct relay_capsule_parser *parser, const struct relay_capsule_sink *sink,
                               void *user)
{
    *parser = (struct relay_capsule_parser){.sink = sink, .user = user, .state = HEAD};
}

static void drop_buffer(struct relay_capsule_parser *parser)
{
    free(parser->buffer);
    parser->buffer = NULL;
    parser->filled = parser->capacity = 0;
}

void relay_capsule_parser_dispose(struct relay_capsule_parser *parser)
{
    drop_buffer(parser);
}

/* Makes room for `more` bytes behind those in the buffer. At most doubles what has come, so a peer pays for
 * the memory it makes us use with bytes of its own. */
static int reserve(struct relay_capsule_parser *parser, size_t more)
{
    uint64_t whole = parser->filled + parser->body.left, need = parser->filled + more;
    if (need <= parser->capacity)
        return 0;
    uint64_t capacity = parser->capacity == 0 ? FIRST_CAPACITY : 2 * (uint64_t)parser->capacity;
    if (capacity < need)
        capacity = need;
    if (capacity > whole)
        capacity = whole;
    uint8_t *buffer = realloc(parser->buffer, capacity);
    if (buffer == NULL)
        return RELAY_ERR_NO_MEMORY;
    parser->buffer = buffer;
    parser->capacity = (uint32_t)capacity;
    return 0;
}

static void expect_head(struct relay_capsule_parser *parser)
{
    parser->state = HEAD;
    parser->head_len = 0;
}

static int collect(struct relay_capsule_parser *parser, const uint8_t **p, const uint8_t *end)
{
    size_t take = (size_t)(end - *p);
    if (take > parser->body.left)
        take = (size_t)parser->body.left;
    int rv = reserve(parser, take);
    if (rv != 0)
        return rv;
    memcpy(parser->buffer + parser->filled, *p, take);
    parser->filled += (uint32_t)take;
    parser->body.left -= take;
    *p += take;
    if (parser->body.left > 0)
        return 0;
    uint64_t type = parser->body.type;
    expect_head(parser);
    rv = parser->sink->on_capsule(parser->user, type, parser->buffer, parser->filled);
    drop_buffer(parser);
    return rv;
}

static void skip(struct relay_capsule_parser *parser, const uint8_t **p, const uint8_t *end)
{
    size_t available = (size_t)(end - *p);
    size_t take = parser->body.left < available ? (size_t)parser->body.left : available;
    parser->body.left -= take;
    *p += take;
    if (parser->body.left == 0)
        expect_head(parser);
}

static size_t read_head(const uint8_t *p, size_t len, uint64_t *type, uint64_t *length)
{
    size_t first = relay_varint_read(p, len, type);
    if (first == 0)
        return 0;
    size_t second = relay_varint_read(p + first, len - first, length);
    return second == 0 ? 0 : first + second;
}

/* The head is complete and `*p` is at the payload. */
static int begin(struct relay_capsule_parser *parser, uint64_t type, uint64_t length, const uint8_t **p,
                 const uint8_t *end)
{
    int64_t limit = parser->sink->limit(parser->user, type);
    assert(limit <= UINT32_MAX);
    if (limit >= 0 && length > (uint64_t)limit)
        return RELAY_ERR_TOO_BIG;
    if (limit >= 0 && length <= (uint64_t)(end - *p)) {
        const uint8_t *payload = *p;
        *p += length;
        expect_head(parser);
        return parser->sink->on_capsule(parser->user, type, payload, (size_t)length);
    }
    parser->body.type = type;
    parser->body.left = length;
    parser->state = limit < 0 ? SKIP : COLLECT;
    if (parser->state == SKIP)
        skip(parser, p, end);
    return 0;
}

static int eat_head(struct relay_capsule_parser *parser, const uint8_t **p, const uint8_t *end)
{
    uint64_t type, length;
    size_t used = 0;
    if (parser->head_len == 0) {
        used = read_head(*p, (size_t)(end - *p), &type, &length);
        *p += used;
    }
    while (used == 0 && *p < end) {
        assert(parser->head_len < sizeof(parser->head));
        parser->head[parser->head_len++] = *(*p)++;
        used = read_head(parser->head, parser->head_len, &type, &length);
    }
    return used == 0 ? 0 : begin(parser, type, length, p, end);
}

int relay_capsule_parser_feed(struct relay_capsule_parser *parser, const uint8_t *bytes, size_t len,
                              size_t *consumed)
{
    const uint8_t *p = bytes, *end = bytes + len;
    int rv = parser->error, heads = 0;
    while (rv == 0 && p < end && (parser->state != HEAD || heads < RELAY_CAPSULES_AT_ONCE)) {
        if (parser->state == HEAD) {
            rv = eat_head(parser, &p, end);
            heads++;
        } else if (parser->state == SKIP) {
            skip(parser, &p, end);
        } else {
            rv = collect(parser, &p, end);
        }
    }
    if (rv < 0 && parser->state != DEAD) {
        drop_buffer(parser);
        parser->error = rv;
        parser->state = DEAD;
    }
    *consumed = (size_t)(p - bytes);
    return rv < 0 ? rv : 0;
}

int relay_capsule_parser_finish(const struct relay_capsule_parser *parser)
{
    if (parser->state == DEAD)
        return parser->error;
    return parser->state == HEAD && parser->head_len == 0 ? 0 : RELAY_ERR_INCOMPLETE;
}

uint8_t *relay_capsule_write_head(uint8_t *p, uint64_t type, uint64_t len)
{
    return relay_varint_write(relay_varint_write(p, type), len);
}
