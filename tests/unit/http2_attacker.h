/* A client of raw frames, and what it saw of the server. For the HTTP/2 attack tests. */
#ifndef RELAY_TESTS_HTTP2_ATTACKER_H
#define RELAY_TESTS_HTTP2_ATTACKER_H

#include "tests/unit/http2_peers.h"

enum {
    DATA,
    HEADERS,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    PUSH_PROMISE,
    PING,
    GOAWAY,
    WINDOW_UPDATE,
    CONTINUATION
};
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4, PADDED = 8 };
enum {
    NO_ERROR = 0,
    PROTOCOL_ERROR = 1,
    FLOW_CONTROL_ERROR = 3,
    SETTINGS_TIMEOUT = 4,
    STREAM_CLOSED = 5,
    ENHANCE_YOUR_CALM = 11,
    CANCEL = 8
};

#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

/* What the server sent, as far as these tests look at it. */
struct answers {
    int goaway, num_goaways; /* its error code, or -1 */
    int reset[64];           /* by stream ID / 2: error code, or -1 */
    int num_resets, num_settings_acks, num_ping_acks, num_heads;
    int status; /* of the last head, when indexed or literal as the server writes it; else 0 */
    int first_status;
    size_t data_bytes;
};

static inline void put(struct peers *peers, const void *bytes, size_t len)
{
    if (!peers->client_end.is_ended)
        pipe_send(&peers->client_end.super, bytes, len);
}

static inline void put_frame(struct peers *peers, uint8_t type, uint8_t flags, uint32_t id,
                             const void *payload, size_t len)
{
    uint8_t head[9] = {(uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len,       type,       flags,
                       (uint8_t)(id >> 24),  (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id};
    put(peers, head, sizeof(head));
    if (len > 0)
        put(peers, payload, len);
}

/* "name\nvalue\n..." as literals without indexing. */
static inline size_t pack(uint8_t *block, const char *fields)
{
    uint8_t *p = block;
    while (*fields != '\0') {
        *p++ = 0;
        for (int part = 0; part < 2; part++) {
            size_t len = strcspn(fields, "\n");
            assert_true(len < 127 + 128);
            *p++ = (uint8_t)(len < 127 ? len : 127);
            if (len >= 127)
                *p++ = (uint8_t)(len - 127);
            memcpy(p, fields, len);
            p += len;
            fields += len + 1;
        }
    }
    return (size_t)(p - block);
}

static inline void put_head(struct peers *peers, uint32_t id, uint8_t flags, const char *fields)
{
    static uint8_t block[64 * 1024];
    size_t len = pack(block, fields), first = len < 16384 ? len : 16384;
    put_frame(peers, HEADERS, flags | (first == len ? END_HEADERS : 0), id, block, first);
    if (first < len)
        put_frame(peers, CONTINUATION, END_HEADERS, id, block + first, len - first);
}

static inline uint32_t read32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline void see_frame(struct answers *answers, const uint8_t *head, const uint8_t *payload, size_t len)
{
    uint32_t id = read32(head + 5);
    switch (head[3]) {
    case DATA:
        answers->data_bytes += len;
        break;
    case HEADERS:
        answers->num_heads++;
        answers->status = 0;
        if (payload[0] == 0x88)
            answers->status = 200;
        else if (len > 4 && payload[0] == 0x48 && payload[1] == 3) /* literal, indexed, not Huffman-coded */
            answers->status = atoi((char[]){(char)payload[2], (char)payload[3], (char)payload[4], 0});
        if (answers->num_heads == 1)
            answers->first_status = answers->status;
        break;
    case RST_STREAM:
        answers->num_resets++;
        if (id / 2 < 64)
            answers->reset[id / 2] = (int)read32(payload);
        break;
    case SETTINGS:
        answers->num_settings_acks += head[4] & ACK;
        break;
    case PING:
        answers->num_ping_acks += head[4] & ACK;
        break;
    case GOAWAY:
        answers->num_goaways++;
        answers->goaway = (int)read32(payload + 4);
        break;
    default:
        break;
    }
}

static inline struct answers look(struct peers *peers)
{
    struct answers answers = {.goaway = -1};
    memset(answers.reset, -1, sizeof(answers.reset));
    turns(peers, 10);
    const uint8_t *p = peers->client_end.in, *end = p + peers->client_end.in_len;
    while (end - p >= 9) {
        size_t len = read32(p) >> 8;
        assert_true((size_t)(end - p) >= 9 + len);
        see_frame(&answers, p, p + 9, len);
        p += 9 + len;
    }
    return answers;
}

static inline struct peers *attacked(void)
{
    struct peers *peers = peers_new();
    peers_start_server(peers, NULL, 0);
    put(peers, PREFACE, 24);
    put_frame(peers, SETTINGS, 0, 0, NULL, 0);
    put_frame(peers, SETTINGS, ACK, 0, NULL, 0);
    turns(peers, 5);
    assert_non_null(peers->server);
    return peers;
}

#endif
