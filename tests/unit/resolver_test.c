/* resolver.c against a small DNS server in a thread. What it answers is said by the name's first label. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/net/metrics.h"
#include "lib/net/resolver.h"
#include "lib/wire/error.h"

/* ---- the server ---- */

#define TYPE_A     1
#define TYPE_CNAME 5
#define TYPE_AAAA  28

static struct {
    int fd;
    uint16_t port;
    pthread_t thread, late[16];
    unsigned num_late;
    atomic_int questions;
} server;

struct reply {
    uint8_t bytes[2048];
    size_t len;
};

static void put(struct reply *reply, const void *bytes, size_t len)
{
    memcpy(reply->bytes + reply->len, bytes, len);
    reply->len += len;
}

/* An answer record for `name` (wire form); counted in the head. */
static void answer(struct reply *reply, const void *name, size_t name_len, uint8_t type, uint32_t ttl,
                   const void *data, uint16_t data_len)
{
    uint8_t fixed[10] = {0, type, 0, 1};
    ttl = htonl(ttl);
    memcpy(fixed + 4, &ttl, 4);
    fixed[8] = (uint8_t)(data_len >> 8);
    fixed[9] = (uint8_t)data_len;
    put(reply, name, name_len);
    put(reply, fixed, sizeof(fixed));
    put(reply, data, data_len);
    reply->bytes[7]++;
}

static const uint8_t question_name[2] = {0xc0, 12}, v4[4] = {192, 0, 2, 1},
                     v6[16] = {0x20, 1, 0xd, 0xb8, [15] = 1};

static void answer_address(struct reply *reply, uint8_t type, uint32_t ttl)
{
    if (type == TYPE_A)
        answer(reply, question_name, 2, TYPE_A, ttl, v4, 4);
    else
        answer(reply, question_name, 2, TYPE_AAAA, ttl, v6, 16);
}

static void answer_chain(struct reply *reply, uint8_t type)
{
    static const char first[] = "\3one\7example", second[] = "\3two\7example"; /* with their NUL */
    answer(reply, question_name, 2, TYPE_CNAME, 300, first, sizeof(first));
    answer(reply, first, sizeof(first), TYPE_CNAME, 300, second, sizeof(second));
    if (type == TYPE_A)
        answer(reply, second, sizeof(second), TYPE_A, 300, v4, 4);
}

/* "late4", "late6": the answer for this family comes LATE_MS after its question. */
#define LATE_MS 300

struct late_answer {
    struct reply reply;
    struct sockaddr_storage to;
    socklen_t to_len;
};

static void *send_late(void *arg)
{
    struct late_answer *late = arg;
    usleep(LATE_MS * 1000);
    sendto(server.fd, late->reply.bytes, late->reply.len, 0, (struct sockaddr *)&late->to, late->to_len);
    free(late);
    return NULL;
}

static void answer_late(const struct reply *reply, const struct sockaddr_storage *to, socklen_t to_len)
{
    struct late_answer *late = malloc(sizeof(*late));
    *late = (struct late_answer){*reply, *to, to_len};
    assert_int_equal(pthread_create(&server.late[server.num_late++], NULL, send_late, late), 0);
}

/* False: silence. */
static bool answer_question(struct reply *reply, const char *label, uint8_t type)
{
    uint8_t *rcode = &reply->bytes[3];
    if (strcmp(label, "silent") == 0 || (strcmp(label, "half") == 0 && type == TYPE_AAAA))
        return false;
    if (strcmp(label, "nx") == 0)
        *rcode |= 3;
    else if (strcmp(label, "servfail") == 0)
        *rcode |= 2;
    else if (strcmp(label, "refused") == 0)
        *rcode |= 5;
    else if (strcmp(label, "late4nx") == 0 && type == TYPE_A)
        *rcode |= 3;
    else if (strcmp(label, "cname") == 0)
        answer_chain(reply, type);
    else if (strcmp(label, "junk") == 0)
        answer(reply, question_name, 2, type, 300, v4, 3);
    else if (strcmp(label, "cut") == 0) {
        answer_address(reply, type, 300);
        reply->len -= 2;
    } else if (strcmp(label, "loop") == 0) {
        uint8_t self[2] = {0xc0, (uint8_t)reply->len};
        answer(reply, self, 2, type, 300, v4, 4);
    } else if (strcmp(label, "many") == 0)
        for (int i = 0; i < 60; i++)
            answer_address(reply, type, 300);
    else if (strcmp(label, "ttl0") == 0)
        answer_address(reply, type, 0);
    else if (strcmp(label, "ttl1") == 0)
        answer_address(reply, type, 1);
    else if (strcmp(label, "nodata") != 0)
        answer_address(reply, type, 300);
    return true;
}

static void *serve(void *arg)
{
    for (;;) {
        struct reply reply = {0};
        struct sockaddr_storage from;
        socklen_t from_len = sizeof(from);
        ssize_t len = recvfrom(server.fd, reply.bytes, 512, 0, (struct sockaddr *)&from, &from_len);
        if (len < 18)
            return NULL; /* the test's end */
        server.questions++;
        char label[64] = "";
        memcpy(label, reply.bytes + 13, reply.bytes[12] & 63);
        size_t at = 12;
        while (reply.bytes[at] != 0)
            at += reply.bytes[at] + 1u;
        uint8_t type = reply.bytes[at + 2];
        reply.len = at + 5;
        reply.bytes[2] = 0x81; /* an answer, recursion desired */
        reply.bytes[3] = 0x80;
        memset(reply.bytes + 6, 0, 6);
        bool is_late = strncmp(label, "late", 4) == 0 && (label[4] == '4') == (type == TYPE_A);
        bool is_answered = answer_question(&reply, label, type);
        if (is_answered && is_late)
            answer_late(&reply, &from, from_len);
        else if (is_answered)
            sendto(server.fd, reply.bytes, reply.len, 0, (struct sockaddr *)&from, from_len);
    }
}

/* ---- the tests ---- */

static struct relay_loop loop;
static struct relay_metrics metrics;
static struct relay_resolver *resolver;

/* What was told, both times together. */
struct asked {
    struct relay_lookup lookup; /* first */
    int told, error, rcode;
    size_t num, num_early;
    uint64_t took, told_at;
    struct relay_address addresses[RELAY_RESOLVER_ADDRESSES_MAX];
};
static int outstanding;

static void on_resolved(struct relay_lookup *lookup, const struct relay_resolution *resolution)
{
    struct asked *asked = (struct asked *)lookup;
    asked->told++;
    asked->error = resolution->error;
    asked->rcode = resolution->rcode;
    asked->took = resolution->took;
    for (size_t i = 0; i < resolution->num_addresses; i++)
        asked->addresses[asked->num++] = resolution->addresses[i];
    if (asked->told == 1)
        asked->told_at = relay_loop_now(&loop);
    if (!resolution->is_final)
        asked->num_early = asked->num;
    if (resolution->is_final && --outstanding == 0)
        relay_loop_stop(&loop);
}

static void begin(struct asked *asked, const char *name)
{
    *asked =
        (struct asked){.lookup = {.on_resolved = on_resolved, .resolution_delay = RELAY_RESOLUTION_DELAY}};
    outstanding++;
    relay_resolver_ask(resolver, &asked->lookup, name);
    assert_int_equal(asked->told, 0); /* never from inside the call */
}

static void on_stop(struct relay_timer *timer)
{
    relay_loop_stop(&loop);
}

static void run_for(uint64_t time)
{
    struct relay_timer timer;
    relay_timer_init(&timer, on_stop);
    relay_timer_set_after(&loop, &timer, time);
    relay_loop_run(&loop);
}

static struct asked ask(const char *name)
{
    struct asked asked;
    begin(&asked, name);
    relay_loop_run(&loop);
    assert_int_equal(asked.told, asked.num_early > 0 ? 2 : 1);
    return asked;
}

static const char *hosts_file;

static void open_resolver(uint64_t timeout, size_t cache_names)
{
    char servers[32];
    snprintf(servers, sizeof(servers), "127.0.0.1:%u", server.port);
    resolver =
        relay_resolver_new(&loop, &(struct relay_resolver_config){servers, timeout, cache_names, hosts_file});
    assert_non_null(resolver);
}

static int setup(void **state)
{
    memset(&metrics, 0, sizeof(metrics));
    outstanding = 0;
    hosts_file = NULL;
    if (relay_loop_init(&loop, &metrics) != 0)
        return -1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    int size = 4 << 20;
    server.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    setsockopt(server.fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    bind(server.fd, (struct sockaddr *)&at, len);
    getsockname(server.fd, (struct sockaddr *)&at, &len);
    server.port = ntohs(at.sin_port);
    server.questions = 0;
    return pthread_create(&server.thread, NULL, serve, NULL);
}

static int teardown(void **state)
{
    struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(server.port)};
    sendto(server.fd, "", 0, 0, (struct sockaddr *)&at, sizeof(at));
    pthread_join(server.thread, NULL);
    while (server.num_late > 0)
        pthread_join(server.late[--server.num_late], NULL);
    close(server.fd);
    relay_resolver_free(resolver);
    relay_loop_dispose(&loop);
    return 0;
}

static bool has(const struct asked *asked, uint8_t family)
{
    for (size_t i = 0; i < asked->num; i++)
        if (asked->addresses[i].family == family &&
            memcmp(asked->addresses[i].bytes, family == 4 ? v4 : v6, family == 4 ? 4 : 16) == 0)
            return true;
    return false;
}

static void both_families(void **state)
{
    open_resolver(5 * RELAY_SECOND, 100);
    struct asked asked = ask("Ok.Example.");
    assert_int_equal(asked.error, RELAY_OK);
    assert_int_equal(asked.rcode, 0);
    assert_int_equal(asked.num, 2);
    assert_true(has(&asked, 4) && has(&asked, 6));
    assert_true(asked.took > 0);
    asked = ask("ok.example"); /* the same name */
    assert_int_equal(asked.num, 2);
    assert_int_equal(asked.took, 0);
    assert_int_equal(server.questions, 2);
    assert_int_equal(metrics.dns_ok, 1);
    assert_int_equal(metrics.dns_cached, 1);
}

static void response_codes(void **state)
{
    static const struct {
        const char *name;
        int error, rcode;
    } rows[] = {
        {"nx.example", RELAY_ERR_DNS, 3},      {"servfail.example", RELAY_ERR_DNS, 2},
        {"refused.example", RELAY_ERR_DNS, 5}, {"nodata.example", RELAY_ERR_DNS, 0},
        {"junk.example", RELAY_ERR_DNS, 0},    {"cut.example", RELAY_ERR_DNS, -1},
        {"loop.example", RELAY_ERR_DNS, -1},   {"", RELAY_ERR_DNS, -1},
    };
    open_resolver(5 * RELAY_SECOND, 100);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct asked asked = ask(rows[i].name);
        if (asked.error != rows[i].error || asked.rcode != rows[i].rcode)
            fail_msg("%s: error %d, rcode %d", rows[i].name, asked.error, asked.rcode);
    }
    int before = server.questions; /* negative answers are kept too */
    assert_int_equal(ask("nx.example").rcode, 3);
    assert_int_equal(ask("servfail.example").rcode, 2);
    assert_int_equal(server.questions, before);
    assert_int_equal(metrics.dns_failed, sizeof(rows) / sizeof(rows[0]));
    char long_name[400];
    memset(long_name, 'a', sizeof(long_name));
    long_name[sizeof(long_name) - 1] = '\0';
    assert_int_equal(ask(long_name).error, RELAY_ERR_DNS);
}

static void ttl_is_kept(void **state)
{
    open_resolver(5 * RELAY_SECOND, 100);
    for (int i = 1; i <= 3; i++) {
        assert_int_equal(ask("ttl0.example").num, 2);
        assert_int_equal(server.questions, 2 * i);
    }
    ask("ttl1.example");
    ask("ttl1.example");
    assert_int_equal(server.questions, 8);
    usleep(1100000);
    ask("ttl1.example");
    assert_int_equal(server.questions, 10);
}

static void aliases_are_followed(void **state)
{
    open_resolver(5 * RELAY_SECOND, 100);
    struct asked asked = ask("cname.example");
    assert_int_equal(asked.error, RELAY_OK);
    assert_int_equal(asked.num, 1);
    assert_true(has(&asked, 4));
}

static void silence_ends(void **state)
{
    open_resolver(300 * RELAY_MS, 100);
    uint64_t before = relay_loop_now(&loop);
    struct asked asked = ask("silent.example");
    assert_int_equal(asked.error, RELAY_ERR_DNS_TIMEOUT);
    assert_int_equal(asked.rcode, -1);
    uint64_t took = relay_loop_now(&loop) - before;
    assert_true(took > 200 * RELAY_MS && took < 600 * RELAY_MS);
    assert_int_equal(metrics.dns_timeout, 1);
}

/* RFC 8305 section 3: IPv4 waits for the resolution delay, IPv6 does not wait; the late family is told as
 * well, and the cache holds both. */
static void late_family_is_told(void **state)
{
    static const struct {
        const char *name;
        uint8_t early;
        uint64_t least, most;
    } rows[] = {{"late6.example", 4, 45 * RELAY_MS, 200 * RELAY_MS}, {"late4.example", 6, 0, 40 * RELAY_MS}};
    open_resolver(5 * RELAY_SECOND, 100);
    for (size_t i = 0; i < 2; i++) {
        uint64_t before = relay_loop_now(&loop);
        struct asked asked = ask(rows[i].name);
        uint64_t early = asked.told_at - before, all = relay_loop_now(&loop) - before;
        assert_int_equal(asked.error, RELAY_OK);
        assert_int_equal(asked.num_early, 1);
        assert_int_equal(asked.num, 2);
        assert_int_equal(asked.addresses[0].family, rows[i].early);
        assert_true(has(&asked, 4) && has(&asked, 6));
        assert_true(early >= rows[i].least && early < rows[i].most);
        assert_true(all >= (LATE_MS - 20) * RELAY_MS && all < RELAY_SECOND);
        asked = ask(rows[i].name); /* the cache */
        assert_int_equal(asked.told, 1);
        assert_int_equal(asked.num, 2);
    }
    assert_int_equal(server.questions, 4);
    assert_int_equal(metrics.dns_ok, 2);
    struct asked asked = ask("late4nx.example"); /* the late answer: there is none */
    assert_int_equal(asked.told, 2);
    assert_int_equal(asked.error, RELAY_OK);
    assert_int_equal(asked.num, 1);
}

/* The late family never comes: its absence is told at the limit of time, and is not believed for long. */
static void lost_family_ends(void **state)
{
    open_resolver(400 * RELAY_MS, 100);
    uint64_t before = relay_loop_now(&loop);
    struct asked asked = ask("half.example");
    assert_int_equal(asked.error, RELAY_OK);
    assert_int_equal(asked.told, 2);
    assert_int_equal(asked.num, 1);
    assert_true(asked.told_at - before < 200 * RELAY_MS);
    uint64_t took = relay_loop_now(&loop) - before;
    assert_true(took > 300 * RELAY_MS && took < 800 * RELAY_MS);
    run_for(2100 * RELAY_MS);
    int questions = server.questions;
    ask("half.example");
    assert_true(server.questions > questions);
}

/* One joins before the early family is told, one between the two, and one goes away there. */
static void joins_between_the_families(void **state)
{
    struct asked asked[3];
    open_resolver(5 * RELAY_SECOND, 100);
    begin(&asked[0], "late4.example");
    begin(&asked[1], "late4.example");
    for (int i = 0; i < 60 && asked[0].told == 0; i++)
        run_for(10 * RELAY_MS);
    assert_int_equal(asked[0].told, 1);
    relay_lookup_cancel(&asked[1].lookup);
    outstanding--;
    begin(&asked[2], "late4.example");
    relay_loop_run(&loop);
    assert_int_equal(asked[0].told, 2);
    assert_int_equal(asked[1].told, 1);
    assert_int_equal(asked[2].told, 2);
    assert_int_equal(asked[2].num_early, 1);
    assert_int_equal(asked[2].num, 2);
    assert_int_equal(server.questions, 2);
    assert_int_equal(metrics.dns_ok, 1);
}

static void equal_names_are_asked_once(void **state)
{
    open_resolver(5 * RELAY_SECOND, 100);
    struct asked asked[5];
    for (int i = 0; i < 5; i++)
        begin(&asked[i], i & 1 ? "OK.example" : "ok.example");
    relay_lookup_cancel(&asked[2].lookup);
    outstanding--;
    relay_loop_run(&loop);
    for (int i = 0; i < 5; i++)
        assert_int_equal(asked[i].told, i != 2);
    assert_int_equal(server.questions, 2);
}

static void cancelled_and_freed_in_flight(void **state)
{
    open_resolver(5 * RELAY_SECOND, 100);
    struct asked asked, never = {0};
    begin(&asked, "silent.example");
    relay_lookup_cancel(&asked.lookup);
    relay_lookup_cancel(&asked.lookup);
    relay_lookup_cancel(&never.lookup);
    begin(&asked, "cached-in-vain.example");
    relay_lookup_cancel(&asked.lookup);
    outstanding = 0;
    ask("ok.example"); /* the answers to nobody come meanwhile; the silent one is left to free */
}

static int orphans_ended;

static void on_orphan_end(struct relay_lookup_payer *payer)
{
    orphans_ended++;
}

static void begin_paid(struct asked *asked, const char *name, struct relay_lookup_payer *payer)
{
    *asked = (struct asked){.lookup = {.on_resolved = on_resolved, .payer = payer}};
    outstanding++;
    relay_resolver_ask(resolver, &asked->lookup, name);
}

static void drop(struct asked *asked)
{
    relay_lookup_cancel(&asked->lookup);
    outstanding--;
}

/* Another name that the server is silent about, for somebody who goes at once. */
static void ask_in_vain(struct relay_lookup_payer *payer, int number)
{
    struct asked asked;
    char name[64];
    payer->on_end = on_orphan_end;
    snprintf(name, sizeof(name), "silent.n%d.example", number);
    begin_paid(&asked, name, payer);
    drop(&asked);
}

/* Whoever began a query pays from when it goes until the query has ended. */
static void what_is_asked_in_vain_is_paid(void **state)
{
    struct relay_lookup_payer payer = {.on_end = on_orphan_end}, other = {.on_end = on_orphan_end};
    struct asked asked, joined;
    orphans_ended = 0;
    open_resolver(300 * RELAY_MS, 100);
    begin_paid(&asked, "ok.example", &payer); /* answered */
    relay_loop_run(&loop);
    begin_paid(&asked, "ok.example", &payer); /* from the cache */
    drop(&asked);
    assert_int_equal(payer.orphans, 0);
    begin_paid(&asked, "silent.one.example", &payer);
    begin_paid(&joined, "silent.one.example", &other);
    assert_true(payer.names == 1 && other.names == 0);
    assert_int_equal(payer.orphans, 0);
    drop(&joined);
    drop(&asked);
    assert_true(payer.orphans == 1 && other.orphans == 0);
    begin_paid(&asked, "silent.two.example", &payer);
    drop(&asked);
    assert_int_equal(payer.orphans, 2);
    run_for(2 * RELAY_SECOND);
    assert_true(payer.orphans == 0 && orphans_ended == 2);
    begin_paid(&asked, "half.example", &payer); /* one family is enough */
    run_for(60 * RELAY_MS);
    drop(&asked);
    assert_int_equal(payer.orphans, 1);
    run_for(2 * RELAY_SECOND);
    assert_true(payer.orphans == 0 && orphans_ended == 3);
    begin_paid(&asked, "silent.three.example", &payer);
    drop(&asked);
    relay_resolver_free(resolver);
    assert_true(payer.orphans == 0 && payer.names == 0 && orphans_ended == 4);
    open_resolver(300 * RELAY_MS, 100);
}

/* Names that a server is silent about do not keep it from answering others. */
static void silence_keeps_nobody_waiting(void **state)
{
    enum { SILENT = RELAY_RESOLVER_QUERIES_MAX - 10 };
    static struct relay_lookup_payer payers[SILENT]; /* queries end in teardown */
    char name[64];
    open_resolver(5 * RELAY_SECOND, 100);
    for (int i = 0; i < SILENT; i++)
        ask_in_vain(&payers[i], i);
    for (int i = 0; i < SILENT; i++)
        assert_int_equal(payers[i].orphans, 1);
    for (int i = 0; i < 5; i++) {
        snprintf(name, sizeof(name), "ok%d.example", i);
        assert_int_equal(ask(name).error, RELAY_OK);
    }
    for (int i = 0; i < SILENT; i++)
        assert_int_equal(payers[i].orphans, 1);
}

/* Sixteen tokens with as many dials as each may have by default, which together are all the places. */
static void who_asks_for_much_leaves_room(void **state)
{
    enum { GREEDY = 16, EACH = RELAY_RESOLVER_QUERIES_MAX / GREEDY, MODEST = 50 };
    static struct relay_lookup_payer greedy[GREEDY], modest[MODEST];
    static struct asked asked[MODEST];
    struct asked refused;
    char name[64];
    open_resolver(5 * RELAY_SECOND, 100);
    for (int i = 0; i < GREEDY * EACH; i++)
        ask_in_vain(&greedy[i % GREEDY], i);
    for (int i = 0; i < GREEDY; i++)
        assert_true(greedy[i].names > EACH / 2 && greedy[i].names < EACH);
    begin_paid(&refused, "ok.example", &greedy[0]);
    begin_paid(&asked[0], "ok.example", &modest[0]); /* the refusal is not his */
    for (int i = 1; i < MODEST; i++) {
        snprintf(name, sizeof(name), "ok%d.example", i);
        begin_paid(&asked[i], name, &modest[i]);
    }
    relay_loop_run(&loop);
    assert_int_equal(refused.error, RELAY_ERR_LIMIT);
    for (int i = 0; i < MODEST; i++) {
        assert_int_equal(asked[i].error, RELAY_OK);
        assert_int_equal(modest[i].names, 0);
    }
}

static void one_alone_has_half(void **state)
{
    static struct relay_lookup_payer payer, other; /* queries end in teardown */
    open_resolver(5 * RELAY_SECOND, 100);
    for (int i = 0; i < RELAY_RESOLVER_QUERIES_MAX; i++)
        ask_in_vain(&payer, i);
    assert_int_equal(payer.names, RELAY_RESOLVER_QUERIES_MAX / 2);
    for (int i = 0; i < RELAY_RESOLVER_QUERIES_MAX; i++)
        ask_in_vain(&other, RELAY_RESOLVER_QUERIES_MAX + i);
    assert_in_range(other.names, RELAY_RESOLVER_QUERIES_MAX / 20, RELAY_RESOLVER_QUERIES_MAX / 8);
}

static void on_resolved_ask_again(struct relay_lookup *lookup, const struct relay_resolution *resolution)
{
    struct asked *asked = (struct asked *)lookup;
    if (!resolution->is_final)
        return;
    if (asked->told++ == 0)
        relay_resolver_ask(resolver, lookup, "ttl0.example");
    else
        relay_loop_stop(&loop);
}

static void asked_again_from_its_callback(void **state)
{
    open_resolver(5 * RELAY_SECOND, 100);
    struct asked asked = {.lookup.on_resolved = on_resolved_ask_again};
    relay_resolver_ask(resolver, &asked.lookup, "ttl0.example");
    relay_loop_run(&loop);
    assert_int_equal(asked.told, 2);
    assert_int_equal(server.questions, 4);
}

static void localhost_is_loopback(void **state)
{
    static const char *const names[] = {"localhost", "LOCALHOST.", "a.localhost"};
    open_resolver(5 * RELAY_SECOND, 100);
    for (size_t i = 0; i < 3; i++) {
        struct asked asked = ask(names[i]);
        assert_int_equal(asked.num, 2);
        assert_int_equal(asked.addresses[0].bytes[15], 1);
        assert_int_equal(asked.addresses[1].bytes[0], 127);
    }
    assert_int_equal(server.questions, 0);
    assert_true(has(&(struct asked){.num = 0}, 4) == false);
    assert_int_equal(ask("notlocalhost").num, 2);
    assert_int_equal(server.questions, 2);
}

/* A name in the file is not asked of DNS; without the file it is, and so is every other. */
static void hosts_are_found(void **state)
{
    char path[] = "/tmp/twohop-hosts-XXXXXX";
    int fd = mkstemp(path);
    assert_int_equal(write(fd, "192.0.2.9 nx.example\n2001:db8::9 nx.example\n", 45), 45);
    close(fd);
    hosts_file = path;
    open_resolver(5 * RELAY_SECOND, 100);
    for (int i = 0; i < 2; i++) {
        struct asked asked = ask("NX.example.");
        assert_int_equal(asked.error, RELAY_OK);
        assert_int_equal(asked.num, 2);
        unlink(path); /* the second time it is the cache */
    }
    assert_int_equal(server.questions, 0);
    assert_int_equal(ask("servfail.example").rcode, 2);
    relay_resolver_free(resolver);
    hosts_file = NULL;
    open_resolver(5 * RELAY_SECOND, 100);
    assert_int_equal(ask("nx.example").rcode, 3);
}

static void many_addresses_and_names(void **state)
{
    open_resolver(5 * RELAY_SECOND, 50);
    struct asked asked = ask("many.example");
    assert_true(asked.num <= RELAY_RESOLVER_ADDRESSES_MAX);
    assert_true(has(&asked, 4));
    /* More names than the cache holds, and more at once than may be on their way. */
    static struct asked many[5000];
    for (int i = 0; i < 5000; i++) {
        char name[32];
        snprintf(name, sizeof(name), "n%d.example", i);
        begin(&many[i], name);
    }
    relay_loop_run(&loop);
    size_t ok = 0, refused = 0;
    for (int i = 0; i < 5000; i++) {
        assert_int_equal(many[i].told, many[i].num_early > 0 ? 2 : 1);
        ok += many[i].error == RELAY_OK;
        refused += many[i].error == RELAY_ERR_LIMIT;
    }
    assert_true(ok > 0 && ok <= RELAY_RESOLVER_QUERIES_MAX);
    assert_int_equal(refused, 5000 - RELAY_RESOLVER_QUERIES_MAX);
    int before = server.questions;
    ask("many.example"); /* it has left the cache */
    assert_true(server.questions > before);
}

static void its_servers(void **state)
{
    struct relay_address servers[4], expected;
    resolver =
        relay_resolver_new(&loop, &(struct relay_resolver_config){"not an address", RELAY_SECOND, 10, NULL});
    assert_null(resolver);
    resolver = relay_resolver_new(
        &loop, &(struct relay_resolver_config){"192.0.2.1:53,[2001:db8::1]:5353", RELAY_SECOND, 10, NULL});
    assert_non_null(resolver);
    assert_int_equal(relay_resolver_servers(resolver, servers, 4), 2);
    assert_int_equal(relay_address_parse("2001:db8::1", 11, &expected), 0);
    assert_true(relay_address_equal(&servers[1], &expected));
    assert_int_equal(relay_resolver_servers(resolver, servers, 1), 1);
}

static void names_of_response_codes(void **state)
{
    open_resolver(RELAY_SECOND, 0);
    assert_string_equal(relay_rcode_name(0), "NOERROR");
    assert_string_equal(relay_rcode_name(3), "NXDOMAIN");
    assert_null(relay_rcode_name(-1));
    ask("ok.example");
    ask("ok.example"); /* a cache of no size keeps nothing */
    assert_int_equal(server.questions, 4);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(both_families),
        TEST(response_codes),
        TEST(ttl_is_kept),
        TEST(aliases_are_followed),
        TEST(silence_ends),
        TEST(late_family_is_told),
        TEST(lost_family_ends),
        TEST(joins_between_the_families),
        TEST(equal_names_are_asked_once),
        TEST(cancelled_and_freed_in_flight),
        TEST(what_is_asked_in_vain_is_paid),
        TEST(silence_keeps_nobody_waiting),
        TEST(who_asks_for_much_leaves_room),
        TEST(one_alone_has_half),
        TEST(asked_again_from_its_callback),
        TEST(localhost_is_loopback),
        TEST(hosts_are_found),
        TEST(many_addresses_and_names),
        TEST(its_servers),
        TEST(names_of_response_codes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
