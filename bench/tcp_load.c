/* Bytes through one CONNECT tunnel of each HTTP version, hashed at both ends: the client's side, and the
 * target as a thread of the same program (with --target-netns in the relay's network namespace). Prints the
 * rate and what the relay spent; fails when the SHA-256 differ.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/session.h"
#include "lib/net/http2.h"
#include "lib/net/stream.h"
#include "lib/wire/error.h"

#define BLOCK ((1 << 20) + 4099) /* no multiple of any buffer or record: a swapped piece changes the hash */
#define TURN  ((size_t)1 << 20)  /* sent per turn: what comes wants its turn too */

static struct {
    struct relay_bench bench;
    int version; /* 1, 2 or 3 */
    bool is_down, is_head_over, is_sending, is_fin_seen;
    uint64_t bytes, sent;
    const char *target_host, *target_netns;
    int listener;
    struct sockaddr_in target;
    struct relay_tunnel *tunnel;
    struct relay_stream *stream;
    struct relay_task pump;
    struct relay_timer watch;
    EVP_MD_CTX *here, *there;
    atomic_bool is_target_over, is_listening;
    double begin, end, target_end, cpu;
} f = {.version = 3, .bytes = (uint64_t)2 << 30, .target_host = "127.0.0.1"};

static uint8_t block[BLOCK];

static EVP_MD_CTX *new_hash(void)
{
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    if (hash == NULL || EVP_DigestInit_ex(hash, EVP_sha256(), NULL) != 1)
        relay_bench_die("no SHA-256");
    return hash;
}

/* The piece of the endless stream of blocks that begins at `at`. */
static size_t piece(uint64_t at, size_t most, const uint8_t **bytes)
{
    size_t offset = at % BLOCK, len = BLOCK - offset;
    *bytes = block + offset;
    if (len > f.bytes - at)
        len = f.bytes - at;
    return len < most ? len : most;
}

/* ---- the target, a thread ---- */

static void sink(int fd)
{
    static uint8_t buffer[1 << 18];
    ssize_t len;
    while ((len = recv(fd, buffer, sizeof(buffer), 0)) > 0)
        EVP_DigestUpdate(f.there, buffer, (size_t)len);
    if (len < 0)
        relay_bench_die("target: %s", strerror(errno));
}

static void source(int fd)
{
    for (uint64_t at = 0; at < f.bytes;) {
        const uint8_t *bytes;
        ssize_t len = send(fd, bytes, piece(at, (size_t)1 << 18, &bytes), MSG_NOSIGNAL);
        if (len <= 0)
            relay_bench_die("target: %s", strerror(errno));
        EVP_DigestUpdate(f.there, bytes, (size_t)len);
        at += (uint64_t)len;
    }
}

static void enter_netns(const char *name)
{
    char path[128];
    snprintf(path, sizeof(path), "/run/netns/%s", name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET) != 0)
        relay_bench_die("%s: %s", path, strerror(errno));
    close(fd);
}

static void *run_target(void *unused)
{
    socklen_t size = sizeof(f.target);
    if (f.target_netns != NULL)
        enter_netns(f.target_netns);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    f.target.sin_family = AF_INET;
    if (inet_pton(AF_INET, f.target_host, &f.target.sin_addr) != 1 || listener < 0 ||
        bind(listener, (struct sockaddr *)&f.target, size) != 0 || listen(listener, 1) != 0 ||
        getsockname(listener, (struct sockaddr *)&f.target, &size) != 0)
        relay_bench_die("target: %s", strerror(errno));
    atomic_store(&f.is_listening, true);
    int fd = accept(listener, NULL, NULL);
    if (fd < 0)
        relay_bench_die("target: %s", strerror(errno));
    if (f.is_down)
        source(fd);
    else
        sink(fd);
    f.target_end = relay_bench_seconds();
    close(fd);
    atomic_store(&f.is_target_over, true);
    return unused;
}

/* ---- the client ---- */

static size_t room(void)
{
    return f.tunnel != NULL ? relay_tunnel_room(f.tunnel) : relay_stream_room(f.stream);
}

static bool send_bytes(const uint8_t *bytes, size_t len)
{
    return f.tunnel != NULL ? relay_tunnel_send(f.tunnel, bytes, len)
                            : relay_stream_send(f.stream, bytes, len);
}

static void send_fin(void)
{
    f.is_sending = false;
    if (f.tunnel != NULL)
        relay_tunnel_send_fin(f.tunnel);
    else
        relay_stream_fin(f.stream);
}

static void on_pump(struct relay_task *task)
{
    bool more = true;
    size_t turn = 0, most;
    while (f.sent < f.bytes && more && turn < TURN && (most = room()) > 0) {
        const uint8_t *bytes;
        size_t len = piece(f.sent, most, &bytes);
        EVP_DigestUpdate(f.here, bytes, len);
        more = send_bytes(bytes, len);
        f.sent += len;
        turn += len;
    }
    if (f.sent == f.bytes)
        send_fin();
    else if (turn >= TURN && more)
        relay_task_defer(&f.bench.loop, task);
}

static void on_writable(void *user)
{
    if (f.is_sending)
        relay_task_queue(&f.bench.loop, &f.pump);
}

static void begin(void)
{
    f.begin = relay_bench_seconds();
    f.cpu = relay_bench_cpu(&f.bench);
    f.is_sending = !f.is_down;
    if (f.is_sending)
        relay_task_queue(&f.bench.loop, &f.pump);
}

static void take(const uint8_t *bytes, size_t len)
{
    if (f.is_down)
        EVP_DigestUpdate(f.here, bytes, len);
}

static void on_response(void *user, const struct relay_response *response)
{
    if (response->status != 200)
        relay_bench_die("the relay answers %d", response->status);
    begin();
}

static void on_bytes(void *user, uint8_t *bytes, size_t len)
{
    take(bytes, len);
}

static void on_fin(void *user)
{
    f.is_fin_seen = true;
    f.end = relay_bench_seconds();
}

static void on_tunnel_close(void *user, int error)
{
    if (error != RELAY_OK)
        relay_bench_die("the tunnel was closed: %s", relay_error_text(error));
}

static const struct relay_tunnel_user tunnel_user = {.on_response = on_response,
                                                     .on_bytes = on_bytes,
                                                     .on_fin = on_fin,
                                                     .on_writable = on_writable,
                                                     .on_close = on_tunnel_close};

static void on_session_close(void *user, int error)
{
    relay_bench_die("the connection was closed: %s", relay_error_text(error));
}

static struct relay_session *session;

static void on_session_ready(void *user)
{
    f.tunnel =
        relay_bench_connect(&f.bench, session, f.target_host, ntohs(f.target.sin_port), &tunnel_user, NULL);
}

static const struct relay_session_user session_user = {.on_ready = on_session_ready,
                                                       .on_close = on_session_close};

/* ---- HTTP/1.1, by hand; HTTP/2 begins as the same TLS stream ---- */

static void on_stream_ready(void *user)
{
    char head[512];
    if (f.version == 2) {
        session = relay_http2_client(f.stream, &f.bench.limits, &f.bench.budget, RELAY_LEVEL_FLUSH_OUTER,
                                     &session_user, NULL);
        f.stream = NULL;
        return;
    }
    int len = snprintf(
        head, sizeof(head), "CONNECT %s:%u HTTP/1.1\r\nHost: %s:%u\r\nProxy-Authorization: %s\r\n\r\n",
        f.target_host, ntohs(f.target.sin_port), f.target_host, ntohs(f.target.sin_port), f.bench.bearer);
    relay_stream_send(f.stream, (const uint8_t *)head, (size_t)len);
}

static void on_stream_bytes(void *user, uint8_t *bytes, size_t len)
{
    if (f.is_head_over) {
        take(bytes, len);
        return;
    }
    const uint8_t *end = memmem(bytes, len, "\r\n\r\n", 4);
    if (end == NULL || memcmp(bytes, "HTTP/1.1 200", 12) != 0)
        relay_bench_die("not a 200 in one piece: %.*s", (int)len, (const char *)bytes);
    f.is_head_over = true;
    begin();
    take(end + 4, len - (size_t)(end + 4 - bytes));
}

static void on_stream_close(void *user, int error)
{
    if (!f.is_fin_seen)
        relay_bench_die("the stream was closed: %s", relay_error_text(error));
}

static const struct relay_stream_user stream_user = {.on_ready = on_stream_ready,
                                                     .on_bytes = on_stream_bytes,
                                                     .on_fin = on_fin,
                                                     .on_writable = on_writable,
                                                     .on_close = on_stream_close};

/* ---- the figures ---- */

static void on_watch(struct relay_timer *timer)
{
    uint8_t here[EVP_MAX_MD_SIZE], there[EVP_MAX_MD_SIZE];
    unsigned size;
    if (!f.is_fin_seen || !atomic_load(&f.is_target_over)) {
        relay_timer_set_after(&f.bench.loop, timer, 5 * RELAY_MS);
        return;
    }
    EVP_DigestFinal_ex(f.here, here, &size);
    EVP_DigestFinal_ex(f.there, there, &size);
    if (memcmp(here, there, size) != 0)
        relay_bench_die("the SHA-256 of the two ends differ");
    double seconds = (f.is_down ? f.end : f.target_end) - f.begin, gbit = (double)f.bytes * 8 / 1e9;
    double cpu = relay_bench_cpu(&f.bench) - f.cpu;
    printf("sha256=equal mbit=%.0f seconds=%.2f relay_cpu=%.2f relay_core=%.2f cpu_per_gbit=%.4f\n",
           gbit * 1000 / seconds, seconds, cpu, cpu / seconds, cpu / gbit);
    fflush(stdout);
    _exit(0);
}

static void parse(int argc, char **argv)
{
    static const struct option options[] = {RELAY_BENCH_OPTIONS,
                                            {"megabytes", 1, 0, 'm'},
                                            {"version", 1, 0, 'v'},
                                            {"direction", 1, 0, 'd'},
                                            {"target-netns", 1, 0, 'n'},
                                            {"target", 1, 0, 'g'},
                                            {0}};
    for (int code; (code = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (code) {
        case 'm':
            f.bytes = (uint64_t)atoi(optarg) << 20;
            break;
        case 'v':
            f.version = atoi(optarg);
            break;
        case 'd':
            f.is_down = strcmp(optarg, "down") == 0;
            break;
        case 'n':
            f.target_netns = optarg;
            break;
        case 'g':
            f.target_host = optarg;
            break;
        default:
            relay_bench_option(&f.bench, code, optarg);
        }
    }
    if (f.bytes == 0 || f.version < 1 || f.version > 3)
        relay_bench_die("an option is out of its bounds; see bench/README.md");
}

int main(int argc, char **argv)
{
    pthread_t thread;
    parse(argc, argv);
    relay_bench_init(&f.bench);
    f.here = new_hash();
    f.there = new_hash();
    for (size_t i = 0; i < BLOCK; i++)
        block[i] = (uint8_t)(i * 2654435761u >> 13);
    if (pthread_create(&thread, NULL, run_target, NULL) != 0)
        relay_bench_die("no thread for the target");
    while (!atomic_load(&f.is_listening))
        usleep(1000);
    relay_task_init(&f.pump, RELAY_LEVEL_EVENT, on_pump);
    relay_timer_init(&f.watch, on_watch);
    relay_timer_set_after(&f.bench.loop, &f.watch, 5 * RELAY_MS);
    if (f.version == 3) {
        session = relay_bench_http3(&f.bench, &session_user, NULL);
    } else {
        f.stream = relay_bench_tls(&f.bench, f.version == 2);
        relay_stream_start(f.stream, &stream_user, NULL);
    }
    relay_loop_run(&f.bench.loop);
    return 0;
}
