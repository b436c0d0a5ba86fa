#include "bench/session.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lib/net/http3.h"
#include "lib/net/path_socket.h"
#include "lib/net/quic_conn.h"
#include "lib/net/quic_tls.h"
#include "lib/net/stream.h"
#include "lib/net/udp_batch.h"

void relay_bench_die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

void relay_bench_option(struct relay_bench *bench, int code, const char *value)
{
    switch (code) {
    case 'h':
        bench->host = value;
        break;
    case 'p':
        bench->port = value;
        break;
    case 'a':
        bench->ca_file = value;
        break;
    case 't':
        bench->token = value;
        break;
    case 'i':
        bench->pid = atoi(value);
        break;
    default:
        relay_bench_die("see bench/README.md");
    }
}

static void resolve(struct relay_bench *bench)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM}, *found;
    if (getaddrinfo(bench->host, bench->port, &hints, &found) != 0)
        relay_bench_die("%s %s: not an address and a port", bench->host, bench->port);
    memcpy(&bench->relay, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
}

void relay_bench_init(struct relay_bench *bench)
{
    char reason[RELAY_QUIC_ERROR_SIZE];
    if (bench->port == NULL || bench->ca_file == NULL || bench->token == NULL)
        relay_bench_die("--port, --ca and --token are needed; see bench/README.md");
    if (bench->host == NULL)
        bench->host = "127.0.0.1";
    bench->limits = RELAY_LIMITS_DEFAULT;
    bench->budget.limit = (size_t)256 << 20;
    resolve(bench);
    snprintf(bench->bearer, sizeof(bench->bearer), "Bearer %s", bench->token);
    bench->authorization =
        (struct relay_field){RELAY_SLICE("proxy-authorization"), relay_slice(bench->bearer)};
    if (relay_loop_init(&bench->loop, &bench->metrics) != 0)
        relay_bench_die("no event loop");
    if (relay_quic_credentials_client(bench->ca_file, NULL, 0, &bench->credentials, reason) != 0)
        relay_bench_die("%s: %s", bench->ca_file, reason);
    bench->tls = SSL_CTX_new(TLS_client_method());
    if (bench->tls == NULL || SSL_CTX_load_verify_locations(bench->tls, bench->ca_file, NULL) != 1)
        relay_bench_die("%s: no certificate in it", bench->ca_file);
    SSL_CTX_set_verify(bench->tls, SSL_VERIFY_PEER, NULL);
}

struct relay_session *relay_bench_http3(struct relay_bench *bench, const struct relay_session_user *cb,
                                        void *user)
{
    struct relay_packet_path *path;
    struct relay_quic_client_config config = {.credentials = bench->credentials,
                                              .server_name = "localhost",
                                              .limits = &bench->limits,
                                              .budget = &bench->budget,
                                              .level = RELAY_LEVEL_FLUSH_OUTER};
    if (relay_path_socket_new(&bench->loop, (struct sockaddr *)&bench->relay, NULL, &path) != 0)
        relay_bench_die("no UDP socket toward the relay");
    struct relay_session *session = relay_http3_connect(&bench->loop, path, &config, cb, user);
    if (session == NULL)
        relay_bench_die("no HTTP/3 session");
    return session;
}

struct relay_stream *relay_bench_tls(struct relay_bench *bench, bool offers_http2)
{
    int fd = socket(bench->relay.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    if (fd < 0 || connect(fd, (struct sockaddr *)&bench->relay,
                          relay_udp_address_size((struct sockaddr *)&bench->relay)) != 0)
        relay_bench_die("connecting to the relay: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    fcntl(fd, F_SETFL, O_NONBLOCK);
    SSL_CTX_set_alpn_protos(bench->tls,
                            offers_http2 ? (const uint8_t *)"\x02h2" : (const uint8_t *)"\x08http/1.1",
                            offers_http2 ? 3 : 9);
    struct relay_stream *lower = relay_stream_tcp(&bench->loop, fd, (struct sockaddr *)&bench->relay);
    struct relay_stream *stream =
        lower == NULL ? NULL : relay_stream_tls_connect(lower, bench->tls, "localhost");
    if (stream == NULL)
        relay_bench_die("no TLS stream");
    return stream;
}

static struct relay_tunnel *open_tunnel(struct relay_bench *bench, struct relay_session *session,
                                        struct relay_request *request, const struct relay_tunnel_user *cb,
                                        void *user)
{
    request->method = RELAY_SLICE("CONNECT");
    request->fields = &bench->authorization;
    request->num_fields = 1;
    request->content_length = -1;
    struct relay_tunnel *tunnel = relay_session_open(session, request, cb, user);
    if (tunnel == NULL)
        relay_bench_die("the relay takes no more tunnels");
    return tunnel;
}

struct relay_tunnel *relay_bench_connect_udp(struct relay_bench *bench, struct relay_session *session,
                                             const char *host, uint16_t port,
                                             const struct relay_tunnel_user *cb, void *user)
{
    char path[128];
    snprintf(path, sizeof(path), "/.well-known/masque/udp/%s/%u/", host, port);
    struct relay_request request = {.kind = RELAY_KIND_CAPSULES,
                                    .scheme = RELAY_SLICE("https"),
                                    .authority = RELAY_SLICE("localhost"),
                                    .path = relay_slice(path),
                                    .protocol = RELAY_SLICE("connect-udp")};
    return open_tunnel(bench, session, &request, cb, user);
}

struct relay_tunnel *relay_bench_connect(struct relay_bench *bench, struct relay_session *session,
                                         const char *host, uint16_t port, const struct relay_tunnel_user *cb,
                                         void *user)
{
    char authority[80];
    snprintf(authority, sizeof(authority), "%s:%u", host, port);
    struct relay_request request = {.kind = RELAY_KIND_BYTES, .authority = relay_slice(authority)};
    return open_tunnel(bench, session, &request, cb, user);
}

/* ---- what the relay has used ---- */

double relay_bench_cpu(const struct relay_bench *bench)
{
    char path[64], line[1024] = "";
    unsigned long user = 0, kernel = 0;
    if (bench->pid == 0)
        return 0;
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)bench->pid);
    FILE *file = fopen(path, "r");
    if (file == NULL || fgets(line, sizeof(line), file) == NULL)
        relay_bench_die("the relay has gone");
    fclose(file);
    const char *fields = strrchr(line, ')'); /* the name may hold anything */
    if (fields == NULL ||
        sscanf(fields + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &kernel) != 2)
        relay_bench_die("%s: not understood", path);
    return (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK);
}

long relay_bench_rss(const struct relay_bench *bench)
{
    char path[64], line[256];
    long kib = -1;
    snprintf(path, sizeof(path), "/proc/%d/status", (int)bench->pid);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        relay_bench_die("the relay has gone");
    while (kib < 0 && fgets(line, sizeof(line), file) != NULL)
        if (strncmp(line, "VmRSS:", 6) == 0)
            kib = strtol(line + 6, NULL, 10);
    fclose(file);
    return kib;
}

double relay_bench_seconds(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}
