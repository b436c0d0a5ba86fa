/* What the load programs share: the relay under test, as a command line names it, and HTTP connections to it.
 *
 * Order of calls: options, then relay_bench_init, then any number of connections, then the program ends. One
 * thread. A load program ends with `relay_bench_die` when anything is not as it should be: a figure made from
 * half a run is worth nothing.
 */
#ifndef BENCH_SESSION_H
#define BENCH_SESSION_H

#include <stdint.h>
#include <sys/types.h>
#include <openssl/types.h>

#include "lib/net/loop.h"
#include "lib/net/metrics.h"
#include "lib/net/session.h"

struct relay_bench {
    struct relay_loop loop;
    struct relay_metrics metrics;
    struct relay_limits limits;
    struct relay_budget budget;
    struct sockaddr_storage relay;
    const char *host, *port, *ca_file, *token;
    pid_t pid; /* the relay's, 0: not known */
    struct relay_quic_credentials *credentials;
    SSL_CTX *tls;
    struct relay_field authorization;
    char bearer[256];
};

__attribute__((noreturn, format(printf, 1, 2))) void relay_bench_die(const char *format, ...);

/* The options of every load program, for its getopt_long table. */
#define RELAY_BENCH_OPTIONS                                                                                  \
    {"host", 1, 0, 'h'}, {"port", 1, 0, 'p'}, {"ca", 1, 0, 'a'}, {"token", 1, 0, 't'},                       \
    {                                                                                                        \
        "pid", 1, 0, 'i'                                                                                     \
    }
/* Takes one of them; ends the program when `code` is none of them, nor of the program's own. */
void relay_bench_option(struct relay_bench *bench, int code, const char *value);

/* Makes the loop and the credentials from `host` (NULL: 127.0.0.1), `port`, `ca_file` and `token`; ends the
 * program when one of the others is missing. */
void relay_bench_init(struct relay_bench *bench);

/* HTTP/3 or HTTP/2 with TLS; `cb` as of session.h. */
struct relay_session *relay_bench_http3(struct relay_bench *bench, const struct relay_session_user *cb,
                                        void *user);
struct relay_stream *relay_bench_tls(struct relay_bench *bench, bool offers_http2);

/* CONNECT-UDP to the target on loopback, or CONNECT. */
struct relay_tunnel *relay_bench_connect_udp(struct relay_bench *bench, struct relay_session *session,
                                             const char *host, uint16_t port,
                                             const struct relay_tunnel_user *cb, void *user);
struct relay_tunnel *relay_bench_connect(struct relay_bench *bench, struct relay_session *session,
                                         const char *host, uint16_t port, const struct relay_tunnel_user *cb,
                                         void *user);

/* CPU seconds (user and system) that the relay has used, from /proc; 0 without a pid. */
double relay_bench_cpu(const struct relay_bench *bench);
/* Its resident memory in KiB. */
long relay_bench_rss(const struct relay_bench *bench);
double relay_bench_seconds(void); /* CLOCK_MONOTONIC */

#endif
