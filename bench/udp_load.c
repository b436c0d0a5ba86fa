/* Datagrams through CONNECT-UDP tunnels over HTTP/3, as fast as they go: the client's side, and the target as
 * a thread of the same program. Prints what arrived and what the relay spent on it.
 *
 * up: client -> relay -> target; down: the other way; echo: both, the target sends back what comes. The
 * target answers the first datagram of a tunnel in any case, since the relay limits the rate of a tunnel
 * whose target has not answered.
 */
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/session.h"
#include "lib/net/quic_conn.h"
#include "lib/net/udp_batch.h"
#include "lib/wire/error.h"

#define TUNNELS_MAX 1024
#define SEGMENTS    48   /* datagrams handed over as one run */
#define WINDOW      4096 /* datagrams on their way down; a UDP sender has no other brake */
#define RUNS        64   /* per turn and tunnel */

enum direction { UP, DOWN, BOTH };

struct tunnel {
    struct relay_tunnel *tunnel;
    struct relay_task pump;
    bool is_answered; /* by the target: the tunnel is not limited any more */
};

static struct {
    struct relay_bench bench;
    enum direction direction;
    unsigned payload, seconds, num_connections, num_tunnels, num_ready, num_answered;
    struct relay_session *sessions[TUNNELS_MAX];
    struct tunnel tunnels[TUNNELS_MAX];
    struct relay_timer hello, end;
    bool is_running;
    int target;
    uint16_t target_port;
    atomic_bool has_begun, is_over;
    atomic_uint_fast64_t sent_up, at_target, sent_down, at_client;
    double cpu, seconds_begin;
    uint64_t counts[4];
} f = {.payload = 1200, .seconds = 5, .num_connections = 1, .num_tunnels = 1};

static uint8_t block[SEGMENTS * 65536];

/* ---- the target, a thread ---- */

struct peers {
    struct sockaddr_storage addresses[TUNNELS_MAX];
    size_t count;
};

static void know(struct peers *peers, const struct sockaddr_storage *address)
{
    const struct sockaddr_in *in = (const struct sockaddr_in *)address;
    for (size_t i = 0; i < peers->count; i++)
        if (((struct sockaddr_in *)&peers->addresses[i])->sin_port == in->sin_port)
            return;
    if (peers->count == TUNNELS_MAX)
        return;
    peers->addresses[peers->count++] = *address;
    (void)sendto(f.target, "hello", 5, 0, (const struct sockaddr *)address, sizeof(*in));
}

/* Echo: what the client does not take any more is lost, as on any path. */
static void answer(struct relay_udp_gso *gso, struct relay_udp_message *message)
{
    for (size_t at = 0; at < message->len;) {
        size_t most = RELAY_UDP_RUN_MAX / message->segment, len = message->len - at, taken;
        most = (most < RELAY_UDP_SEGMENTS_MAX ? most : RELAY_UDP_SEGMENTS_MAX) * message->segment;
        len = len < most ? len : most;
        (void)relay_udp_send(f.target, gso, (struct sockaddr *)&message->peer, NULL, message->base + at, len,
                             message->segment, &taken);
        at += len;
    }
}

/* Counts without copying: the load's core has enough to do. */
static int sink(void)
{
    uint8_t first[16];
    struct iovec piece = {first, sizeof(first)};
    struct sockaddr_storage peer;
    _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(int)) * 2];
    struct msghdr header = {.msg_name = &peer,
                            .msg_namelen = sizeof(peer),
                            .msg_iov = &piece,
                            .msg_iovlen = 1,
                            .msg_control = control,
                            .msg_controllen = sizeof(control)};
    ssize_t len = recvmsg(f.target, &header, MSG_TRUNC | MSG_DONTWAIT);
    if (len <= 0)
        return (int)len;
    atomic_fetch_add(&f.at_target, (uint64_t)(len + f.payload - 1) / f.payload);
    return 1;
}

static int receive(struct peers *peers, struct relay_udp_gso *gso, uint8_t *scratch)
{
    struct relay_udp_message messages[RELAY_UDP_BATCH];
    int count = relay_udp_receive(f.target, scratch, RELAY_UDP_FEW, messages);
    uint64_t datagrams = 0;
    for (int i = 0; i < count; i++) {
        if (messages[i].segment == 0)
            continue;
        datagrams += (messages[i].len + messages[i].segment - 1) / messages[i].segment;
        if (messages[i].len < f.payload)
            know(peers, &messages[i].peer);
        else if (f.direction == BOTH)
            answer(gso, &messages[i]);
    }
    atomic_fetch_add(&f.at_target, datagrams);
    return count;
}

/* As a network card with interrupt moderation would: a wake-up for every message would cost the relay an
 * inter-processor interrupt each. */
static void wait_a_little(void)
{
    struct timespec time = {0, 100 * 1000};
    (void)nanosleep(&time, NULL);
}

/* Sends down while fewer than WINDOW are under way; what has not come after a while is lost. */
static bool send_down(struct peers *peers, struct relay_udp_gso *gso, size_t *next)
{
    static uint64_t lost, last_came;
    static double last_progress;
    uint64_t came = atomic_load(&f.at_client), sent = atomic_load(&f.sent_down);
    double now = relay_bench_seconds();
    if (came != last_came) {
        last_came = came;
        last_progress = now;
    } else if (now - last_progress > 0.005) {
        lost = sent > came ? sent - came : 0;
        last_progress = now;
    }
    if (peers->count == 0 || sent > came + lost + WINDOW)
        return false;
    size_t taken = 0, len = SEGMENTS * (size_t)f.payload;
    (void)relay_udp_send(f.target, gso, (struct sockaddr *)&peers->addresses[*next], NULL, block, len,
                         f.payload, &taken);
    *next = (*next + 1) % peers->count;
    atomic_fetch_add(&f.sent_down, taken / f.payload);
    return taken > 0;
}

static void *run_target(void *unused)
{
    static struct peers peers;
    static uint8_t scratch[RELAY_SCRATCH_SIZE];
    struct relay_udp_gso gso = {false};
    size_t next = 0;
    while (!atomic_load(&f.is_over)) {
        bool sinks = f.direction == UP && peers.count >= f.num_tunnels && atomic_load(&f.has_begun);
        bool has_worked = (sinks ? sink() : receive(&peers, &gso, scratch)) > 0;
        if (f.direction == DOWN && peers.count >= f.num_tunnels)
            has_worked |= send_down(&peers, &gso, &next);
        if (!has_worked)
            wait_a_little();
    }
    return unused;
}

static void open_target(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof(address);
    pthread_t thread;
    f.target = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (f.target < 0 || bind(f.target, (struct sockaddr *)&address, size) != 0 ||
        getsockname(f.target, (struct sockaddr *)&address, &size) != 0)
        relay_bench_die("target: %s", strerror(errno));
    relay_udp_configure(f.target, AF_INET, false, false);
    f.target_port = ntohs(address.sin_port);
    if (pthread_create(&thread, NULL, run_target, NULL) != 0)
        relay_bench_die("no thread for the target");
}

/* ---- the client ---- */

static void on_pump(struct relay_task *task)
{
    struct tunnel *self = (struct tunnel *)((char *)task - offsetof(struct tunnel, pump));
    uint64_t sent_datagrams = 0;
    enum relay_sent sent = RELAY_SENT;
    for (int i = 0; i < RUNS && sent == RELAY_SENT; i++) {
        struct relay_run run = {0, block, SEGMENTS * (size_t)f.payload, f.payload};
        sent = relay_tunnel_send_datagrams(self->tunnel, &run);
        sent_datagrams += SEGMENTS - run.len / f.payload;
    }
    atomic_fetch_add(&f.sent_up, sent_datagrams);
    if (sent == RELAY_TOO_BIG)
        relay_bench_die("datagrams of %u bytes do not fit the path", f.payload);
    if (sent == RELAY_SENT)
        relay_task_defer(&f.bench.loop, &self->pump);
}

static void on_writable(void *user)
{
    struct tunnel *self = user;
    if (f.is_running && f.direction != DOWN)
        relay_task_queue(&f.bench.loop, &self->pump);
}

static void begin(void)
{
    f.is_running = true;
    atomic_store(&f.has_begun, true);
    for (unsigned i = 0; i < f.num_tunnels && f.direction != DOWN; i++)
        relay_task_queue(&f.bench.loop, &f.tunnels[i].pump);
    /* The first second belongs to slow start. */
    relay_timer_set_after(&f.bench.loop, &f.end, RELAY_SECOND);
}

static void on_datagrams(void *user, const struct relay_run *run)
{
    struct tunnel *self = user;
    atomic_fetch_add(&f.at_client, 1);
    if (run->len >= f.payload || self->is_answered)
        return;
    self->is_answered = true;
    if (++f.num_answered == f.num_tunnels)
        begin();
}

static void on_response(void *user, const struct relay_response *response)
{
    if (response->status != 200)
        relay_bench_die("the relay answers %d", response->status);
}

static void on_close(void *user, int error)
{
    relay_bench_die("a tunnel was closed: %s", relay_error_text(error));
}

static const struct relay_tunnel_user tunnel_user = {.on_response = on_response,
                                                     .on_datagrams = on_datagrams,
                                                     .on_writable = on_writable,
                                                     .on_close = on_close};

/* Until the target's answer has come back, in case the first datagram was lost. */
static void on_hello(struct relay_timer *timer)
{
    for (unsigned i = 0; i < f.num_tunnels; i++)
        if (!f.tunnels[i].is_answered) {
            struct relay_run run = {0, block, 4, 4};
            (void)relay_tunnel_send_datagrams(f.tunnels[i].tunnel, &run);
        }
    if (f.num_answered < f.num_tunnels)
        relay_timer_set_after(&f.bench.loop, timer, 50 * RELAY_MS);
}

static void on_ready(void *user)
{
    if (++f.num_ready < f.num_connections)
        return;
    for (unsigned i = 0; i < f.num_tunnels; i++) {
        relay_task_init(&f.tunnels[i].pump, RELAY_LEVEL_EVENT, on_pump);
        f.tunnels[i].tunnel =
            relay_bench_connect_udp(&f.bench, f.sessions[i % f.num_connections], "127.0.0.1", f.target_port,
                                    &tunnel_user, &f.tunnels[i]);
    }
    relay_timer_set_after(&f.bench.loop, &f.hello, 100 * RELAY_MS);
}

static void on_session_close(void *user, int error)
{
    relay_bench_die("a connection was closed: %s", relay_error_text(error));
}

static const struct relay_session_user session_user = {.on_ready = on_ready, .on_close = on_session_close};

/* ---- the figures ---- */

static void read_counts(uint64_t *counts)
{
    counts[0] = atomic_load(&f.sent_up);
    counts[1] = atomic_load(&f.at_target);
    counts[2] = atomic_load(&f.sent_down);
    counts[3] = atomic_load(&f.at_client);
}

static void print_figures(void)
{
    uint64_t counts[4];
    double seconds = relay_bench_seconds() - f.seconds_begin, cpu = relay_bench_cpu(&f.bench) - f.cpu;
    read_counts(counts);
    for (int i = 0; i < 4; i++)
        counts[i] -= f.counts[i];
    double up = (double)counts[1], down = f.direction == UP ? 0 : (double)counts[3];
    if (f.direction == DOWN)
        up = 0;
    printf("pps=%.0f up_pps=%.0f down_pps=%.0f gbit=%.2f relay_cpu=%.2f relay_core=%.2f ns_per_packet=%.0f "
           "lost_up=%.4f\n",
           (up + down) / seconds, up / seconds, down / seconds, (up + down) * f.payload * 8 / seconds / 1e9,
           cpu, cpu / seconds, cpu * 1e9 / (up + down), counts[0] == 0 ? 0 : 1 - up / (double)counts[0]);
    fflush(stdout);
}

static void on_end(struct relay_timer *timer)
{
    if (f.seconds_begin > 0) {
        atomic_store(&f.is_over, true);
        print_figures();
        _exit(0); /* the sessions and their close are not what is measured */
    }
    f.seconds_begin = relay_bench_seconds();
    f.cpu = relay_bench_cpu(&f.bench);
    read_counts(f.counts);
    relay_timer_set_after(&f.bench.loop, timer, f.seconds * RELAY_SECOND);
}

static enum direction parse_direction(const char *text)
{
    if (strcmp(text, "up") == 0)
        return UP;
    if (strcmp(text, "down") == 0)
        return DOWN;
    if (strcmp(text, "echo") != 0)
        relay_bench_die("--direction up, down or echo");
    return BOTH;
}

static void parse(int argc, char **argv)
{
    static const struct option options[] = {RELAY_BENCH_OPTIONS,
                                            {"payload", 1, 0, 'l'},
                                            {"seconds", 1, 0, 's'},
                                            {"direction", 1, 0, 'd'},
                                            {"tunnels", 1, 0, 'n'},
                                            {"connections", 1, 0, 'c'},
                                            {0}};
    for (int code; (code = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (code) {
        case 'l':
            f.payload = (unsigned)atoi(optarg);
            break;
        case 's':
            f.seconds = (unsigned)atoi(optarg);
            break;
        case 'd':
            f.direction = parse_direction(optarg);
            break;
        case 'n':
            f.num_tunnels = (unsigned)atoi(optarg);
            break;
        case 'c':
            f.num_connections = (unsigned)atoi(optarg);
            break;
        default:
            relay_bench_option(&f.bench, code, optarg);
        }
    }
    if (f.payload < 16 || f.payload > RELAY_UDP_RUN_MAX / SEGMENTS || f.num_tunnels < 1 ||
        f.num_tunnels > TUNNELS_MAX || f.num_connections < 1 || f.num_connections > f.num_tunnels)
        relay_bench_die("an option is out of its bounds; see bench/README.md");
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    relay_bench_init(&f.bench);
    relay_timer_init(&f.hello, on_hello);
    relay_timer_init(&f.end, on_end);
    open_target();
    for (unsigned i = 0; i < f.num_connections; i++)
        f.sessions[i] = relay_bench_http3(&f.bench, &session_user, NULL);
    relay_loop_run(&f.bench.loop);
    return 0;
}
