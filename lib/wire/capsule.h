/* Capsules, RFC 9297 section 3.2: type, length and payload, one after the other on the stream of a tunnel.
 *
 * The parser eats a byte stream in pieces of any size. A capsule that is complete in the piece is handed over
 * where it lies; one that is cut is copied to a buffer which grows with the bytes that came (never with the
 * length that was declared) and is freed when the capsule ends. Types nobody wants are skipped and never
 * buffered (RFC 9297 section 3.2: unknown types MUST be skipped), however long.
 *
 *   init, then feed for every piece that arrives, finish when the peer ended its stream, dispose.
 */
#ifndef RELAY_WIRE_CAPSULE_H
#define RELAY_WIRE_CAPSULE_H

#include <stddef.h>
#include <stdint.h>

#define RELAY_CAPSULE_DATAGRAM            0x00 /* RFC 9297 section 3.5 */
#define RELAY_CAPSULE_ADDRESS_ASSIGN      0x01 /* RFC 9484 section 4.7 */
#define RELAY_CAPSULE_ADDRESS_REQUEST     0x02
#define RELAY_CAPSULE_ROUTE_ADVERTISEMENT 0x03

/* The longest DATAGRAM capsule we take: a UDP payload of 65527 bytes behind a context ID of any size. */
#define RELAY_DATAGRAM_CAPSULE_MAX (65527 + 8)
/* The limit for capsules of control (addresses, routes). */
#define RELAY_CONTROL_CAPSULE_MAX 4096
#define RELAY_CAPSULE_HEAD_MAX    16

/* How many capsules one feed eats at most, also of those that are skipped: they cost their sender two bytes each, and
 * everybody else on the thread waits meanwhile. */
#define RELAY_CAPSULES_AT_ONCE 64

/* What `limit` answers for a type that is to be skipped. */
#define RELAY_CAPSULE_SKIP (-1)

/* Who receives the capsules. One constant object for all parsers of a kind; `user` is the parser's. The
 * callbacks must not call feed, finish or dispose of the parser that calls them. */
struct relay_capsule_sink {
    /* The longest payload the owner takes of this type, at most UINT32_MAX, or RELAY_CAPSULE_SKIP. Asked once
     * per capsule, when its head is complete. */
    int64_t (*limit)(void *user, uint64_t type);
    /* A whole capsule; `payload` is never NULL and is lent until the callback returns. 0: go on. Positive:
     * this capsule is taken, feed returns 0 at once and says how much it ate (to pause, or to give other
     * tunnels a turn). Negative: an error, which feed returns; the parser is then dead. */
    int (*on_capsule)(void *user, uint64_t type, const uint8_t *payload, size_t len);
};

/* One per stream direction, in the owner's memory; a parser between two capsules holds nothing else. Read no
 * field. */
struct relay_capsule_parser {
    const struct relay_capsule_sink *sink;
    void *user;
    uint8_t *buffer; /* payload so far of a cut capsule that is wanted, else NULL */
    union {
        uint8_t head[RELAY_CAPSULE_HEAD_MAX]; /* while the head is cut */
        struct {
            uint64_t type;
            uint64_t left; /* payload bytes still to come */
        } body;            /* once the head is complete */
    };
    uint32_t filled, capacity; /* of buffer */
    int error;                 /* what feed answered when it failed; it answers so for ever */
    uint8_t state, head_len;
};

/* `sink` and `user` are borrowed for the life of the parser. */
void relay_capsule_parser_init(struct relay_capsule_parser *parser, const struct relay_capsule_sink *sink,
                               void *user);
/* Frees the buffer. Safe on a zeroed parser and twice. */
void relay_capsule_parser_dispose(struct relay_capsule_parser *parser);

/* Eats bytes and calls the sink for every capsule that they complete. Returns 0 with the bytes eaten in
 * `*consumed` (less than `len` only if the sink answered positive or after RELAY_CAPSULES_AT_ONCE capsules: feed the
 * rest later), or RELAY_ERR_TOO_BIG  a wanted capsule declares more than its limit, RELAY_ERR_NO_MEMORY  the buffer
 * could not grow, what on_capsule returned, if negative. After an error the parser is dead and gives the same answer
 * again; abort the stream. */
int relay_capsule_parser_feed(struct relay_capsule_parser *parser, const uint8_t *bytes, size_t len,
                              size_t *consumed);

/* The stream ended. 0, or RELAY_ERR_INCOMPLETE if it ended inside a capsule, which makes the message
 * malformed (RFC 9297 section 3.3); or the error of a dead parser. Call it after every byte was eaten. */
int relay_capsule_parser_finish(const struct relay_capsule_parser *parser);

/* Writes type and length (both at most RELAY_VARINT_MAX) in front of a payload of `len` bytes and returns the
 * end, at most RELAY_CAPSULE_HEAD_MAX bytes on. */
uint8_t *relay_capsule_write_head(uint8_t *p, uint64_t type, uint64_t len);

#endif
