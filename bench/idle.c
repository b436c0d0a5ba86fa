/* What idle CONNECT-UDP tunnels cost: opens them, waits, and prints by how much the relay's resident memory
 * has grown since before the first connection. */
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/session.h"
#include "lib/wire/error.h"

static struct {
    struct relay_bench bench;
    unsigned num_connections, num_tunnels, seconds, num_ready, num_open;
    struct relay_session **sessions;
    struct relay_timer end;
    uint16_t target_port;
    long before;
} f = {.num_connections = 10, .num_tunnels = 100, .seconds = 3};

static void on_response(void *user, const struct relay_response *response)
{
    if (response->status != 200)
        relay_bench_die("the relay answers %d", response->status);
    if (++f.num_open == f.num_connections * f.num_tunnels)
        relay_timer_set_after(&f.bench.loop, &f.end, f.seconds * RELAY_SECOND);
}

static void on_close(void *user, int error)
{
    relay_bench_die("closed: %s", relay_error_text(error));
}

static const struct relay_tunnel_user tunnel_user = {.on_response = on_response, .on_close = on_close};

static void on_ready(void *user)
{
    if (++f.num_ready < f.num_connections)
        return;
    for (unsigned i = 0; i < f.num_connections * f.num_tunnels; i++)
        relay_bench_connect_udp(&f.bench, f.sessions[i % f.num_connections], "127.0.0.1", f.target_port,
                                &tunnel_user, NULL);
}

static const struct relay_session_user session_user = {.on_ready = on_ready, .on_close = on_close};

static void on_end(struct relay_timer *timer)
{
    long more = relay_bench_rss(&f.bench) - f.before;
    printf("before_kib=%ld more_kib=%ld kib_per_tunnel=%.2f\n", f.before, more, (double)more / f.num_open);
    fflush(stdout);
    _exit(0);
}

static void open_target(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) != 0)
        relay_bench_die("target: %s", strerror(errno));
    f.target_port = ntohs(address.sin_port);
}

static void parse(int argc, char **argv)
{
    static const struct option options[] = {
        RELAY_BENCH_OPTIONS, {"tunnels", 1, 0, 'n'}, {"connections", 1, 0, 'c'}, {"seconds", 1, 0, 's'}, {0}};
    for (int code; (code = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (code) {
        case 'n':
            f.num_tunnels = (unsigned)atoi(optarg);
            break;
        case 'c':
            f.num_connections = (unsigned)atoi(optarg);
            break;
        case 's':
            f.seconds = (unsigned)atoi(optarg);
            break;
        default:
            relay_bench_option(&f.bench, code, optarg);
        }
    }
    if (f.bench.pid == 0 || f.num_connections == 0 || f.num_tunnels == 0)
        relay_bench_die("--pid is needed, and tunnels; see bench/README.md");
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    relay_bench_init(&f.bench);
    relay_timer_init(&f.end, on_end);
    open_target();
    f.before = relay_bench_rss(&f.bench);
    f.sessions = calloc(f.num_connections, sizeof(struct relay_session *));
    for (unsigned i = 0; f.sessions != NULL && i < f.num_connections; i++)
        f.sessions[i] = relay_bench_http3(&f.bench, &session_user, NULL);
    relay_loop_run(&f.bench.loop);
    return 0;
}
