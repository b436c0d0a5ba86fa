/* A server's HTTP/2 session against raw frames: malformed requests, and section B of the threats, each with
 * its end. */
#include "tests/unit/http2_attacker.h"

#define GET     ":method\nGET\n:scheme\nhttps\n:authority\nrelay.example\n:path\n/hello\n"
#define HOLD    ":method\nCONNECT\n:authority\nhold:9\n"
#define CONNECT ":method\nCONNECT\n:authority\nsink:9\n"
#define UDP                                                                                                  \
    ":method\nCONNECT\n:protocol\nconnect-udp\n:scheme\nhttps\n:authority\nsink\n:path\n/.well-known/"       \
    "masque/udp/h/1/\n"

/* ---- requests ---- */

static const struct {
    const char *name, *fields;
    bool is_shown;
} heads[] = {
    {"a plain GET", GET, true},
    {"cookie crumbs", GET "cookie\na=1\ncookie\nb=2\n", true},
    {"te trailers", GET "te\ntrailers\n", true},
    {"Host that agrees", GET "host\nrelay.example\n", true},
    {"OPTIONS *", ":method\nOPTIONS\n:scheme\nhttps\n:authority\na\n:path\n*\n", true},
    {"CONNECT", CONNECT, true},
    {"extended CONNECT", UDP, true},
    {"extended CONNECT with capsule-protocol", UDP "capsule-protocol\n?1\n", true},
    {"te gzip", GET "te\ngzip\n", false},
    {"Host that differs", GET "host\nother.example\n", false},
    {"upper case", GET "X-A\n1\n", false},
    {"connection", GET "connection\nclose\n", false},
    {"proxy-connection", GET "proxy-connection\nkeep-alive\n", false},
    {"transfer-encoding", GET "transfer-encoding\nchunked\n", false},
    {"upgrade", GET "upgrade\nh2c\n", false},
    {"leading space", GET "x-a\n b\n", false},
    {"trailing tab", GET "x-a\nb\t\n", false},
    {"CR in a value", GET "x-a\nb\rc\n", false},
    {"space in a name", GET "x a\nb\n", false},
    {"empty name", GET "\nb\n", false},
    {"bad content-length", GET "content-length\n-1\n", false},
    {"two content-lengths", GET "content-length\n0\ncontent-length\n1\n", false},
    {"no method", ":scheme\nhttps\n:authority\na\n:path\n/\n", false},
    {"no scheme", ":method\nGET\n:authority\na\n:path\n/\n", false},
    {"no path", ":method\nGET\n:scheme\nhttps\n:authority\na\n", false},
    {"empty path", ":method\nGET\n:scheme\nhttps\n:authority\na\n:path\n\n", false},
    {"path with a space", ":method\nGET\n:scheme\nhttps\n:authority\na\n:path\n/a b\n", false},
    {"path with a fragment", ":method\nGET\n:scheme\nhttps\n:authority\na\n:path\n/#b\n", false},
    {"GET *", ":method\nGET\n:scheme\nhttps\n:authority\na\n:path\n*\n", false},
    {"method with a space", ":method\nG T\n:scheme\nhttps\n:authority\na\n:path\n/\n", false},
    {"two methods", ":method\nGET\n:method\nPUT\n:scheme\nhttps\n:authority\na\n:path\n/\n", false},
    {"unknown scheme", ":method\nGET\n:scheme\nftp\n:authority\na\n:path\n/\n", false},
    {"unknown pseudo-header field", ":method\nGET\n:scheme\nhttps\n:authority\na\n:path\n/\n:x\n1\n", false},
    {":status in a request", ":status\n200\n" GET, false},
    {"pseudo-header field behind a field", ":method\nGET\n:scheme\nhttps\nx-a\n1\n:authority\na\n:path\n/\n",
     false},
    {"CONNECT without authority", ":method\nCONNECT\n", false},
    {"CONNECT with an empty authority", ":method\nCONNECT\n:authority\n\n", false},
    {"CONNECT with a path", CONNECT ":path\n/\n", false},
    {"CONNECT with a scheme", CONNECT ":scheme\nhttps\n", false},
    {"extended CONNECT without a path",
     ":method\nCONNECT\n:protocol\nconnect-udp\n:scheme\nhttps\n:authority\na\n", false},
    {"extended CONNECT without a scheme",
     ":method\nCONNECT\n:protocol\nconnect-udp\n:authority\na\n:path\n/\n", false},
    {"extended CONNECT without an authority",
     ":method\nCONNECT\n:protocol\nconnect-udp\n:scheme\nhttps\n:path\n/\n", false},
    {"extended CONNECT with a wrong scheme",
     ":method\nCONNECT\n:protocol\nconnect-udp\n:scheme\nmasque\n:authority\na\n:path\n/\n", false},
    {"extended CONNECT with a content-length", UDP "content-length\n0\n", false},
    {":protocol without CONNECT",
     ":method\nGET\n:protocol\nconnect-udp\n:scheme\nhttps\n:authority\na\n:path\n/\n", false},
};

static void heads_are_shown_or_reset(void **state)
{
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        struct peers *peers = attacked();
        put_head(peers, 1, 0, heads[i].fields);
        put_head(peers, 3, END_STREAM, GET);
        struct answers answers = look(peers);
        size_t shown = heads[i].is_shown ? 1 : 0;
        if (peers->num_requests != 1 + shown || peers->metrics.malformed != 1 - shown)
            fail_msg("%s: %zu requests", heads[i].name, peers->num_requests);
        if (!heads[i].is_shown && answers.reset[0] != PROTOCOL_ERROR)
            fail_msg("%s: reset %d", heads[i].name, answers.reset[0]);
        assert_non_null(peers->server);
        peers_free(peers);
    }
}

static void http_is_a_scheme_only_in_the_clear(void **state)
{
    for (int clear = 0; clear < 2; clear++) {
        struct peers *peers = attacked();
        peers->server->is_clear = clear;
        put_head(peers, 1, 0,
                 ":method\nCONNECT\n:protocol\nconnect-udp\n:scheme\nhttp\n:authority\na\n:path\n/\n");
        look(peers);
        assert_int_equal(peers->num_requests, clear);
        peers_free(peers);
    }
}

static void a_connect_may_come_before_our_settings_and_half_closed(void **state)
{
    struct peers *peers = peers_new();
    put(peers, PREFACE, 24);
    put_frame(peers, SETTINGS, 0, 0, NULL, 0);
    put_head(peers, 1, END_STREAM, UDP);
    peers_start_server(peers, NULL, 0);
    struct answers answers = look(peers);
    assert_int_equal(answers.status, 200);
    assert_int_equal(peers->num_requests, 1);
    assert_true(peers->requests->ends);
    assert_int_equal(peers->requests->fins, 1);
    assert_int_equal(peers->requests->closes, 0);
    peers_free(peers);
}

static void early_bytes_and_single_bytes(void **state)
{
    static uint8_t block[256];
    uint8_t bytes[512], *p = bytes;
    size_t len = pack(block, CONNECT);
    memcpy(p, PREFACE "\0\0\0\4\0\0\0\0\0\0\0", 24 + 9);
    p += 24 + 9;
    memcpy(p, (uint8_t[]){0, 0, (uint8_t)len, HEADERS, END_HEADERS, 0, 0, 0, 1}, 9);
    memcpy(p + 9, block, len);
    p += 9 + len;
    memcpy(p, "\0\0\5\0\0\0\0\0\1bytes", 14);
    p += 14;
    for (size_t early = 0; early <= (size_t)(p - bytes); early += 7) {
        struct peers *peers = peers_new();
        peers_start_server(peers, bytes, early);
        assert_int_equal(peers->num_requests, 0); /* not before we have the session */
        for (const uint8_t *q = bytes + early; q < p; q++) {
            put(peers, q, 1);
            turns(peers, 2);
        }
        turns(peers, 2);
        assert_int_equal(peers->num_requests, 1);
        assert_string_equal(peers->requests->text, "bytes");
        peers_free(peers);
    }
}

/* ---- attacks: each ends the connection as the table of threats says, and nothing else may ---- */

static void expect_goaway(struct peers *peers, int code)
{
    struct answers answers = look(peers);
    assert_int_equal(answers.goaway, code);
    assert_null(peers->server);
    assert_int_equal(peers->server_end.ending, PIPE_RELEASED);
    for (struct seen *seen = peers->requests; seen != NULL; seen = seen->next)
        assert_int_equal(seen->closes, 1);
}

static void t10_rapid_reset(void **state)
{
    struct peers *peers = attacked();
    for (uint32_t id = 1; id < 20000; id += 2) {
        put_head(peers, id, 0, HOLD);
        put_frame(peers, RST_STREAM, 0, id, "\0\0\0\10", 4);
    }
    expect_goaway(peers, ENHANCE_YOUR_CALM);
    assert_true(peers->num_requests < 500);
    assert_int_equal(peers->metrics.limit_resets, 1);
    peers_free(peers);
}

/* Answered while the head was read, but the answer has not gone out: nobody waited for it. */
static void t10_what_is_answered_at_once_is_no_excuse(void **state)
{
    static const char *const requests[] = {CONNECT, GET};
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        struct peers *peers = attacked();
        for (uint32_t id = 1; id < 20000; id += 2) {
            put_head(peers, id, END_STREAM, requests[i]);
            put_frame(peers, RST_STREAM, 0, id, "\0\0\0\10", 4);
        }
        expect_goaway(peers, ENHANCE_YOUR_CALM);
        assert_true(peers->num_requests < 500);
        assert_int_equal(peers->metrics.limit_resets, 1);
        peers_free(peers);
    }
}

static void t10_resets_of_answered_requests_are_no_attack(void **state)
{
    struct peers *peers = attacked();
    peers->limits.reset_burst = 1;
    peers->limits.reset_rate = 1;
    for (uint32_t id = 1; id < 60; id += 2) {
        put_head(peers, id, 0, CONNECT);
        turns(peers, 5);
        assert_int_equal(peers->requests->closes, 0);
        put_frame(peers, RST_STREAM, 0, id, "\0\0\0\10", 4);
        turns(peers, 5);
    }
    assert_int_equal(look(peers).goaway, -1);
    assert_int_equal(peers->num_requests, 30);
    for (struct seen *seen = peers->requests; seen != NULL; seen = seen->next)
        assert_int_equal(seen->error, RELAY_ERR_RESET);
    peers_free(peers);
}

/* Behind the end of their streams: frames without use. */
static void t10_resets_of_nothing(void **state)
{
    struct peers *peers = attacked();
    put_head(peers, 1, END_STREAM, GET);
    turns(peers, 5);
    for (int i = 0; i < 3000; i++)
        put_frame(peers, RST_STREAM, 0, 1, "\0\0\0\10", 4);
    expect_goaway(peers, ENHANCE_YOUR_CALM);
    assert_int_equal(peers->metrics.limit_control, 1);
    peers_free(peers);
}

/* MadeYouReset: the server is made to reset. */
static void t11_own_resets(void **state)
{
    for (int variant = 0; variant < 4; variant++) {
        struct peers *peers = attacked();
        for (uint32_t id = 1; id < 4000; id += 2) {
            if (variant == 0) { /* WINDOW_UPDATE of 0 */
                put_head(peers, id, 0, HOLD);
                put_frame(peers, WINDOW_UPDATE, 0, id, "\0\0\0\0", 4);
            } else if (variant == 1) { /* window overflow */
                put_head(peers, id, 0, HOLD);
                put_frame(peers, WINDOW_UPDATE, 0, id, "\x7f\xff\xff\xff", 4);
            } else if (variant == 2) { /* DATA past content-length */
                put_head(peers, id, 0, GET "content-length\n1\n");
                put_frame(peers, DATA, 0, id, "12", 2);
            } else { /* malformed */
                put_head(peers, id, 0, GET "upgrade\nh2c\n");
            }
            if (id % 50 == 1)
                turns(peers, 2);
        }
        /* nghttp2 ends the connection at the first WINDOW_UPDATE of 0. */
        expect_goaway(peers, variant == 0 ? PROTOCOL_ERROR : ENHANCE_YOUR_CALM);
        assert_true(peers->num_requests < 500);
        assert_int_equal(peers->metrics.limit_resets, variant == 0 ? 0 : 1);
        peers_free(peers);
    }
}

static void t11_frames_on_half_closed_streams(void **state)
{
    struct peers *peers = attacked();
    for (uint32_t id = 1; id < 4000; id += 2) {
        put_head(peers, id, END_STREAM, HOLD);
        put_head(peers, id, END_STREAM, HOLD);
    }
    struct answers answers = look(peers);
    assert_int_equal(answers.num_goaways, 1);
    assert_true(answers.goaway > 0);
    assert_null(peers->server);
    assert_true(peers->num_requests < 500);
    peers_free(peers);
}

static void t12_continuation_flood(void **state)
{
    static uint8_t block[1024];
    for (size_t piece = 0; piece < 2; piece++) { /* empty ones, and with a field each */
        struct peers *peers = attacked();
        put_frame(peers, HEADERS, 0, 1, block, pack(block, GET));
        size_t len = pack(block, "x-a\nb\n");
        for (int i = 0; i < 1000; i++)
            put_frame(peers, CONTINUATION, 0, 1, block, piece * len);
        expect_goaway(peers, ENHANCE_YOUR_CALM);
        assert_int_equal(peers->num_requests, 0);
        peers_free(peers);
    }
    struct peers *peers = attacked(); /* eight are allowed */
    put_frame(peers, HEADERS, 0, 1, block, pack(block, GET));
    for (int i = 0; i < 8; i++)
        put_frame(peers, CONTINUATION, i == 7 ? END_HEADERS : 0, 1, NULL, 0);
    assert_int_equal(look(peers).status, 200);
    peers_free(peers);
}

static const struct {
    const char *name;
    uint8_t type, flags;
    uint32_t id;
    const char *payload;
    size_t len;
} floods[] = {
    {"PING", PING, 0, 0, "12345678", 8},
    {"PING ACK", PING, ACK, 0, "12345678", 8},
    {"SETTINGS", SETTINGS, 0, 0, NULL, 0},
    {"empty DATA", DATA, 0, 1, NULL, 0},
    {"DATA of padding", DATA, PADDED, 1, "\1\0", 2},
    {"PRIORITY", PRIORITY, 0, 1, "\0\0\0\0\1", 5},
    {"WINDOW_UPDATE of the connection", WINDOW_UPDATE, 0, 0, "\0\0\0\1", 4},
    {"WINDOW_UPDATE of a stream", WINDOW_UPDATE, 0, 1, "\0\0\0\1", 4},
    {"an unknown type", 0x77, 0, 0, "x", 1},
};

static void t13_control_frame_floods(void **state)
{
    for (size_t i = 0; i < sizeof(floods) / sizeof(floods[0]); i++) {
        struct peers *peers = attacked();
        put_head(peers, 1, 0, CONNECT);
        for (int n = 0; n < 10000; n++)
            put_frame(peers, floods[i].type, floods[i].flags, floods[i].id, floods[i].payload, floods[i].len);
        struct answers answers = look(peers);
        if (answers.goaway != ENHANCE_YOUR_CALM || peers->server != NULL || peers->metrics.limit_control != 1)
            fail_msg("%s: goaway %d", floods[i].name, answers.goaway);
        assert_true(peers->client_end.max_in < 64 * 1024);
        peers_free(peers);
    }
}

static void t13_a_peer_that_never_reads(void **state)
{
    struct peers *peers = attacked();
    peers->limits.control_frames = 1000000;
    put_head(peers, 1, 0,
             ""
             ":method\nCONNECT\n:authority\nsource:9\n");
    put_frame(peers, WINDOW_UPDATE, 0, 0, "\x10\0\0\0", 4);
    put_frame(peers, WINDOW_UPDATE, 0, 1, "\x10\0\0\0", 4);
    look(peers);
    size_t stuck = peers->client_end.in_len;
    assert_true(stuck < PIPE_CAPACITY + 64 * 1024);
    assert_true(peers->requests->sent < stuck + peers->limits.window_initial + 64 * 1024);
    for (int n = 0; n < 10000; n++)
        put_frame(peers, PING, 0, 0, "12345678", 8);
    turns(peers, 10);
    assert_null(peers->server); /* the queue of ACKs is full */
    assert_int_equal(peers->server_error, RELAY_ERR_EXCESSIVE_LOAD);
    assert_true(peers->client_end.in_len < stuck + 1024);
    peers_free(peers);
}

static void t14_heads_beyond_the_limits(void **state)
{
    char fields[32 * 1024], *p = fields;
    for (int big = 0; big < 2; big++) {
        struct peers *peers = attacked();
        p = fields + sprintf(fields, "%s", GET);
        for (int i = 0; i < (big ? 80 : 101); i++)
            p += sprintf(p, "cookie\n%0*d\n", big ? 200 : 1, i % 10);
        put_head(peers, 1, 0, fields);
        put_head(peers, 3, END_STREAM, GET);
        struct answers answers = look(peers);
        assert_int_equal(answers.first_status, 431);
        assert_int_equal(answers.status, 200);
        assert_int_equal(answers.reset[0], NO_ERROR); /* behind the 431 */
        assert_int_equal(peers->num_requests, 1);
        assert_int_equal(peers->metrics.malformed, 1);
        peers_free(peers);
    }
}

/* One long entry in the dynamic table, referred to by one byte each (an HPACK bomb). */
static void t14_hpack_bomb(void **state)
{
    struct peers *peers = attacked();
    static uint8_t block[16000];
    for (uint32_t id = 1; id < 2000; id += 2) {
        size_t len = pack(block, GET);
        block[len++] = 0x40;
        block[len++] = 1;
        block[len++] = 'a';
        block[len++] = 0x7f; /* 3000 bytes of value */
        block[len++] = 0x80 | ((3000 - 127) & 0x7f);
        block[len++] = (3000 - 127) >> 7;
        memset(block + len, 'v', 3000);
        len += 3000;
        memset(block + len, 0x80 | 62, sizeof(block) - len);
        put_frame(peers, HEADERS, END_HEADERS, id, block, sizeof(block));
        turns(peers, 2);
    }
    expect_goaway(peers, ENHANCE_YOUR_CALM); /* each costs one of our own resets */
    assert_int_equal(peers->num_requests, 0);
    peers_free(peers);
}

static void t15_settings(void **state)
{
    uint8_t entries[33 * 6];
    for (int i = 0; i < 33; i++)
        memcpy(entries + i * 6, "\0\4\0\0\0\1", 6);
    struct peers *peers = attacked();
    put_frame(peers, SETTINGS, 0, 0, entries, sizeof(entries));
    turns(peers, 10);
    assert_null(peers->server);
    peers_free(peers);

    /* A window of 0 for ever: no tunnel, so it is idle in the end. */
    peers = attacked();
    peers->limits.idle_timeout = 300 * RELAY_MS;
    put_frame(peers, SETTINGS, 0, 0, "\0\4\0\0\0\0", 6);
    put_head(peers, 1, END_STREAM, GET);
    assert_int_equal(look(peers).data_bytes, 0);
    assert_non_null(peers->server);
    wait_gone(peers, &peers->server, 1000);
    expect_goaway(peers, NO_ERROR);
    peers_free(peers);

    /* A window of one byte: slow, bounded, alive. */
    peers = attacked();
    put_frame(peers, SETTINGS, 0, 0, "\0\4\0\0\0\1", 6);
    put_head(peers, 1, 0, ":method\nCONNECT\n:authority\nsource:9\n");
    for (int i = 0; i < 100; i++) {
        put_frame(peers, WINDOW_UPDATE, 0, 1, "\0\0\0\1", 4);
        turns(peers, 2);
    }
    assert_int_equal(look(peers).data_bytes, 101);
    assert_true(peers->requests->sent < peers->limits.window_initial + 64 * 1024);
    peers_free(peers);
}

static void t16_truncated_frames_and_heads(void **state)
{
    const struct {
        const char *bytes;
        size_t len;
    } cuts[] = {
        {"\0\0", 2},
        {"\0\0\10\6\0\0\0\0\0"
         "123",
         12},                            /* PING */
        {"\0\0\1\1\0\0\0\0\1\x82", 10},  /* HEADERS, END_HEADERS to follow */
        {"\0\0\50\1\4\0\0\0\1\x82", 10}, /* HEADERS, cut */
    };
    for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
        struct peers *peers = attacked();
        peers->limits.head_timeout = 200 * RELAY_MS;
        put(peers, cuts[i].bytes, cuts[i].len);
        turns(peers, 5);
        assert_non_null(peers->server);
        wait_gone(peers, &peers->server, 1000);
        assert_null(peers->server);
        assert_int_equal(peers->server_error, RELAY_ERR_TIMEOUT);
        peers_free(peers);
    }
    struct peers *peers = attacked(); /* DATA under way is no attack */
    peers->limits.head_timeout = 200 * RELAY_MS;
    put_head(peers, 1, 0, CONNECT);
    put(peers,
        "\0\0\10\0\0\0\0\0\1"
        "123",
        12);
    wait_gone(peers, &peers->server, 500);
    assert_non_null(peers->server);
    peers_free(peers);
}

static void t16_silence(void **state)
{
    struct peers *peers = peers_new(); /* no preface */
    peers->limits.head_timeout = 200 * RELAY_MS;
    peers_start_server(peers, NULL, 0);
    wait_gone(peers, &peers->server, 1000);
    assert_null(peers->server);
    peers_free(peers);

    peers = peers_new(); /* no ACK of our SETTINGS, with a tunnel open */
    peers->limits.idle_timeout = 300 * RELAY_MS;
    peers_start_server(peers, NULL, 0);
    put(peers, PREFACE, 24);
    put_frame(peers, SETTINGS, 0, 0, NULL, 0);
    put_head(peers, 1, 0, CONNECT);
    wait_gone(peers, &peers->server, 1000);
    expect_goaway(peers, SETTINGS_TIMEOUT);
    peers_free(peers);
}

static void t16_goaway_then_malformed(void **state)
{
    struct peers *peers = attacked();
    peers->limits.control_frames = 1;
    put_head(peers, 1, 0, CONNECT);
    put_frame(peers, PING, 0, 0, "12345678", 8);
    put_frame(peers, PING, 0, 0, "12345678", 8);
    put_frame(peers, SETTINGS, 0, 5, "x", 1);
    put_frame(peers, PING, 0, 0, "x", 1);
    expect_goaway(peers, ENHANCE_YOUR_CALM);
    peers_free(peers);

    peers = attacked();
    put_frame(peers, GOAWAY, 0, 0, "\0\0\0\0\0\0\0\0", 8);
    put_frame(peers, DATA, 0, 0, "x", 1);
    put_frame(peers, PING, 0, 0, "x", 1);
    turns(peers, 10);
    assert_null(peers->server);
    peers_free(peers);
}

static void not_http2_at_all(void **state)
{
    struct peers *peers = peers_new();
    peers_start_server(peers, NULL, 0);
    put(peers, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 28);
    turns(peers, 5);
    assert_null(peers->server);
    assert_int_equal(peers->server_end.ending, PIPE_CLOSED);
    peers_free(peers);
}

static void trailers_end_a_request(void **state)
{
    struct peers *peers = attacked();
    put_head(peers, 1, 0, GET);
    put_frame(peers, DATA, 0, 1, "body", 4);
    put_head(peers, 1, END_STREAM, "x-trailer\n1\n");
    look(peers);
    assert_string_equal(peers->requests->text, "body");
    assert_int_equal(peers->requests->error, RELAY_OK);
    peers_free(peers);
}

/* A peer that pads gets its credit back for the padding too. */
static void padding_is_credited(void **state)
{
    struct peers *peers = attacked();
    uint8_t payload[201] = {100};
    put_head(peers, 1, 0, CONNECT);
    for (int i = 0; i < 3000; i++) {
        put_frame(peers, DATA, PADDED, 1, payload, sizeof(payload));
        if (i % 100 == 0)
            turns(peers, 2);
    }
    struct answers answers = look(peers);
    assert_int_equal(answers.num_resets, 0);
    assert_int_equal(peers->requests->bytes, 3000 * 100);
    peers_free(peers);
}

/* RFC 9113 sections 5.1, 5.1.1 and 6.3. */
static void frames_without_an_excuse(void **state)
{
    static const struct {
        const char *name;
        uint32_t first;
        uint8_t end, type;
        uint32_t id;
        int goaway;
    } cases[] = {
        {"DATA behind END_STREAM", 1, HEADERS, DATA, 1, STREAM_CLOSED},
        {"HEADERS behind END_STREAM", 1, HEADERS, HEADERS, 1, STREAM_CLOSED},
        {"DATA behind RST_STREAM", 1, RST_STREAM, DATA, 1, STREAM_CLOSED},
        {"HEADERS behind RST_STREAM", 1, RST_STREAM, HEADERS, 1, STREAM_CLOSED},
        {"WINDOW_UPDATE behind END_STREAM", 1, HEADERS, WINDOW_UPDATE, 1, -1},
        {"RST_STREAM behind END_STREAM", 1, HEADERS, RST_STREAM, 1, -1},
        {"a stream that was passed over", 5, HEADERS, HEADERS, 3, PROTOCOL_ERROR},
        {"the next stream but one", 5, HEADERS, HEADERS, 9, -1},
        {"PRIORITY of no stream", 1, HEADERS, PRIORITY, 0, PROTOCOL_ERROR},
        {"PRIORITY of a closed stream", 1, HEADERS, PRIORITY, 1, -1},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct peers *peers = attacked();
        put_head(peers, cases[i].first, cases[i].end == HEADERS ? END_STREAM : 0, GET);
        turns(peers, 10);
        if (cases[i].end == RST_STREAM)
            put_frame(peers, RST_STREAM, 0, cases[i].first, "\0\0\0\x8", 4);
        if (cases[i].type == HEADERS)
            put_head(peers, cases[i].id, END_STREAM, GET);
        else
            put_frame(peers, cases[i].type, 0, cases[i].id, "\0\0\0\1\0", cases[i].type == PRIORITY ? 5 : 4);
        struct answers answers = look(peers);
        if (answers.goaway != cases[i].goaway)
            fail_msg("%s: GOAWAY %d", cases[i].name, answers.goaway);
        peers_free(peers);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heads_are_shown_or_reset),
        cmocka_unit_test(http_is_a_scheme_only_in_the_clear),
        cmocka_unit_test(a_connect_may_come_before_our_settings_and_half_closed),
        cmocka_unit_test(early_bytes_and_single_bytes),
        cmocka_unit_test(t10_rapid_reset),
        cmocka_unit_test(t10_what_is_answered_at_once_is_no_excuse),
        cmocka_unit_test(t10_resets_of_nothing),
        cmocka_unit_test(t10_resets_of_answered_requests_are_no_attack),
        cmocka_unit_test(t11_own_resets),
        cmocka_unit_test(t11_frames_on_half_closed_streams),
        cmocka_unit_test(t12_continuation_flood),
        cmocka_unit_test(t13_control_frame_floods),
        cmocka_unit_test(t13_a_peer_that_never_reads),
        cmocka_unit_test(t14_heads_beyond_the_limits),
        cmocka_unit_test(t14_hpack_bomb),
        cmocka_unit_test(t15_settings),
        cmocka_unit_test(t16_truncated_frames_and_heads),
        cmocka_unit_test(t16_silence),
        cmocka_unit_test(t16_goaway_then_malformed),
        cmocka_unit_test(not_http2_at_all),
        cmocka_unit_test(trailers_end_a_request),
        cmocka_unit_test(frames_without_an_excuse),
        cmocka_unit_test(padding_is_credited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
