/* The same stream, once whole and once in pieces with stops, gives the same capsules and the same end.
 *
 * The first byte seeds the sizes of the pieces. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/wire/capsule.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct digest {
    uint64_t sum, count;
    int stop_every;
};

static int64_t limit(void *user, uint64_t type)
{
    if (type == RELAY_CAPSULE_DATAGRAM)
        return RELAY_DATAGRAM_CAPSULE_MAX;
    return type < 8 ? (int64_t)(16 * type) : RELAY_CAPSULE_SKIP;
}

static void mix(struct digest *digest, uint64_t value)
{
    digest->sum = (digest->sum ^ value) * UINT64_C(0x100000001b3);
}

static int on_capsule(void *user, uint64_t type, const uint8_t *payload, size_t len)
{
    struct digest *digest = user;
    if ((int64_t)len > limit(NULL, type))
        abort();
    mix(digest, type);
    mix(digest, len);
    for (size_t i = 0; i < len; i++)
        mix(digest, payload[i]);
    digest->count++;
    return digest->stop_every != 0 && digest->count % (uint64_t)digest->stop_every == 0;
}

static const struct relay_capsule_sink sink = {limit, on_capsule};

/* Pieces of 1 to 16 bytes out of `seed`, or everything at once if it is 0. Returns the error or finish's
 * answer. */
static int run(const uint8_t *data, size_t size, unsigned seed, struct digest *digest)
{
    struct relay_capsule_parser parser;
    relay_capsule_parser_init(&parser, &sink, digest);
    int rv = 0;
    for (size_t at = 0, consumed; at < size && rv == 0; at += consumed) {
        size_t piece = seed == 0 ? size - at : 1 + (seed = seed * 1103515245 + 12345) / 65536 % 16;
        if (piece > size - at)
            piece = size - at;
        uint8_t *copy = malloc(piece);
        memcpy(copy, data + at, piece);
        rv = relay_capsule_parser_feed(&parser, copy, piece, &consumed);
        free(copy);
        if (consumed > piece || (rv == 0 && consumed == 0))
            abort();
        if (parser.capacity > 2 * (at + consumed) + 128)
            abort();
    }
    int finish = relay_capsule_parser_finish(&parser);
    if (rv != 0 && finish != rv)
        abort();
    relay_capsule_parser_dispose(&parser);
    return finish;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct digest whole = {0}, pieces = {.stop_every = 1 + data[0] % 3};
    int rv = run(data + 1, size - 1, 0, &whole);
    if (run(data + 1, size - 1, data[0] + 1u, &pieces) != rv || whole.sum != pieces.sum ||
        whole.count != pieces.count)
        abort();
    return 0;
}
