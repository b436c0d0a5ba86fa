/* Relays and targets for the tests of the client, each a process of its own, so that one can be killed or
 * stopped like a real one.
 *
 * A relay here takes every name for 127.0.0.1 and knows no policy but its token. The name "nowhere.example"
 * does not exist.
 */
#ifndef TESTS_UNIT_CLIENT_RELAY_H
#define TESTS_UNIT_CLIENT_RELAY_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <openssl/ssl.h>

#include "lib/net/acceptor.h"
#include "lib/net/http2.h"
#include "lib/net/http3.h"
#include "lib/net/metrics.h"
#include "lib/net/quic_endpoint.h"
#include "lib/net/splice.h"
#include "lib/net/tcp_dial.h"
#include "lib/net/tls_context.h"
#include "lib/net/udp_flow.h"
#include "lib/wire/error.h"
#include "lib/wire/uri_template.h"
#include "tests/unit/quic_harness.h"

/* Deaf: the port is open and nobody reads it, like behind a firewall that drops. Lied to: somebody on the way answers
 * what comes for it. */
/* Draining: it refuses every tunnel as server/ does after SIGTERM. Restarting: the first one so, with a GOAWAY; then it
 * is its own successor. */
enum {
    RELAY_WITHOUT_UDP = 1,
    RELAY_WITHOUT_TCP = 2,
    RELAY_DEAF_UDP = 4,
    RELAY_DRAINING = 8,
    RELAY_RESTARTING = 16,
    RELAY_LIED_TO_UDP = 32
};

#define CHILD_SESSIONS 64

struct child {
    pid_t pid;
    uint16_t port;
};

struct child_relay {
    struct relay_loop loop;
    struct relay_metrics metrics;
    struct relay_limits limits;
    struct relay_budget budget;
    struct relay_uri_template udp;
    SSL_CTX *tls;
    const char *token;
    bool is_draining, is_restarting;
    uv_signal_t drain; /* SIGUSR1: GOAWAY on every connection */
    struct relay_session *sessions[CHILD_SESSIONS];
};

static struct child_relay child_relay;

/* ---- one request ---- */

struct child_request {
    struct relay_tunnel *tunnel;
    struct relay_tcp_dial *dial;
    struct relay_udp_flow *flow;
};

static void child_refuse(struct relay_tunnel *tunnel, int status, const char *proxy_status)
{
    struct relay_field field = {RELAY_SLICE("proxy-status"), relay_slice(proxy_status)};
    struct relay_response response = {.status = status,
                                      .fields = &field,
                                      .num_fields = proxy_status != NULL,
                                      .content_length = -1,
                                      .ends = true};
    relay_tunnel_respond(tunnel, &response);
}

static void child_on_datagrams(void *user, const struct relay_run *run)
{
    struct child_request *request = user;
    if (request->flow != NULL)
        relay_udp_flow_send(request->flow, run);
}

static void child_on_writable(void *user)
{
    struct child_request *request = user;
    if (request->flow != NULL)
        relay_udp_flow_resume(request->flow);
}

static void child_on_fin(void *user)
{
    struct child_request *request = user;
    if (request->flow != NULL)
        relay_tunnel_abort(request->tunnel, RELAY_ERR_CLOSED);
}

static void child_on_close(void *user, int error)
{
    struct child_request *request = user;
    (void)error;
    if (request->dial != NULL)
        relay_tcp_dial_cancel(request->dial);
    if (request->flow != NULL)
        relay_udp_flow_close(request->flow);
    free(request);
}

static const struct relay_tunnel_user child_tunnel_cb = {.on_datagrams = child_on_datagrams,
                                                         .on_fin = child_on_fin,
                                                         .on_writable = child_on_writable,
                                                         .on_close = child_on_close};

static enum relay_sent child_from_target(void *user, struct relay_run *run)
{
    struct child_request *request = user;
    enum relay_sent sent;
    while ((sent = relay_tunnel_send_datagrams(request->tunnel, run)) == RELAY_TOO_BIG)
        relay_run_drop_one(run);
    return sent;
}

static void child_target_closed(void *user, int error)
{
    struct child_request *request = user;
    relay_tunnel_abort(request->tunnel, error);
}

static const struct relay_udp_flow_user child_flow_cb = {child_from_target, child_target_closed};

static void child_on_splice_end(void *user, int error)
{
    (void)error;
    free(user);
}

static void child_on_dialled(void *user, int fd, const struct relay_address *address, int error)
{
    struct child_request *request = user;
    struct sockaddr_storage peer;
    (void)error;
    request->dial = NULL;
    if (fd < 0) {
        child_refuse(request->tunnel, 502, "test; error=connection_refused");
        return;
    }
    relay_address_to_sockaddr(address, 1, &peer);
    relay_tunnel_accept(request->tunnel, NULL, 0);
    relay_splice(request->tunnel, relay_stream_tcp(&child_relay.loop, fd, (struct sockaddr *)&peer),
                 600 * RELAY_SECOND, child_on_splice_end, request);
}

static bool child_token_is_good(const struct relay_request *head)
{
    char wanted[64];
    snprintf(wanted, sizeof(wanted), "Bearer %s", child_relay.token);
    return relay_slice_is(relay_fields_find(head->fields, head->num_fields, "proxy-authorization", NULL),
                          wanted);
}

static void child_on_request(void *user, struct relay_tunnel *tunnel, const struct relay_request *head)
{
    static const struct relay_dial_config dial = {250 * RELAY_MS, 5 * RELAY_SECOND, 0};
    static const struct relay_address loopback = {4, {127, 0, 0, 1}};
    struct child_request *request = calloc(1, sizeof(*request));
    struct relay_host host = {0};
    struct sockaddr_storage target;
    uint16_t port = 0;
    (void)user;
    request->tunnel = tunnel;
    relay_tunnel_attach(tunnel, &child_tunnel_cb, request);
    bool is_udp = relay_slice_is(head->protocol, "connect-udp");
    int error =
        is_udp ? relay_uri_template_match(&child_relay.udp, head->path.base, head->path.len, &host, &port)
               : relay_authority_parse(&host, &port, head->authority.base, head->authority.len);
    if (!child_token_is_good(head)) {
        child_refuse(tunnel, is_udp ? 401 : 407, NULL);
    } else if (child_relay.is_draining) {
        if (child_relay.is_restarting) {
            child_relay.is_draining = false;
            relay_session_shutdown(tunnel->session);
        }
        child_refuse(tunnel, 503, "test; error=proxy_internal_response");
    } else if (error != 0) {
        child_refuse(tunnel, 400, NULL);
    } else if (strcmp(host.name, "nowhere.example") == 0) {
        child_refuse(tunnel, 502, "test; error=dns_error; rcode=\"NXDOMAIN\"");
    } else if (is_udp) {
        relay_address_to_sockaddr(&loopback, port, &target);
        if (relay_udp_flow_new(&child_relay.loop, (struct sockaddr *)&target, &child_flow_cb, request,
                               &request->flow) == 0)
            relay_tunnel_accept(tunnel, NULL, 0);
        else
            child_refuse(tunnel, 502, NULL);
    } else {
        request->dial = relay_tcp_dial_start(&child_relay.loop, &dial, &loopback, 1, false, port,
                                             child_on_dialled, request);
    }
}

static void child_on_session_close(void *user, int error)
{
    struct relay_session **slot = user;
    (void)error;
    *slot = NULL;
}

static struct relay_session **child_slot(void)
{
    for (size_t i = 0; i < CHILD_SESSIONS; i++)
        if (child_relay.sessions[i] == NULL)
            return &child_relay.sessions[i];
    abort();
}

static void child_on_drain(uv_signal_t *handle, int number)
{
    (void)handle;
    (void)number;
    for (size_t i = 0; i < CHILD_SESSIONS; i++)
        if (child_relay.sessions[i] != NULL)
            relay_session_shutdown(child_relay.sessions[i]);
}

static const struct relay_session_user child_session_cb = {.on_request = child_on_request,
                                                           .on_close = child_on_session_close};

/* ---- the listeners ---- */

static void child_on_connection(void *user, struct relay_quic_conn *conn)
{
    (void)user;
    struct relay_session **slot = child_slot();
    *slot = relay_http3_server(conn, &child_relay.limits, &child_relay.budget, &child_session_cb, slot);
}

static const struct relay_quic_endpoint_user child_endpoint_cb = {child_on_connection};

static void child_on_tls_ready(void *user)
{
    struct relay_stream **stream = user;
    struct relay_session **slot = child_slot();
    *slot = relay_http2_server(*stream, &child_relay.limits, &child_relay.budget, &child_session_cb, slot,
                               NULL, 0);
    free(stream);
}

static void child_on_tls_close(void *user, int error)
{
    struct relay_stream **stream = user;
    (void)error;
    relay_stream_close(*stream);
    free(stream);
}

static void child_on_tls_bytes(void *user, uint8_t *bytes, size_t len)
{
    (void)user;
    (void)bytes;
    (void)len;
    abort(); /* a client speaks after on_ready */
}

static void child_on_tls_nothing(void *user)
{
    (void)user;
}

static const struct relay_stream_user child_tls_cb = {
    child_on_tls_ready, child_on_tls_bytes, child_on_tls_nothing, child_on_tls_nothing, child_on_tls_close};

static void child_on_accept(void *user, int fd, const struct sockaddr_storage *peer)
{
    struct relay_stream **stream = malloc(sizeof(*stream));
    (void)user;
    *stream = relay_stream_tls_accept(relay_stream_tcp(&child_relay.loop, fd, (const struct sockaddr *)peer),
                                      child_relay.tls);
    relay_stream_start(*stream, &child_tls_cb, stream);
}

/* Version Negotiation (RFC 9000 section 17.2.1): no version that anybody speaks. */
static void child_on_lie(void *user, int events)
{
    int fd = (int)(intptr_t)user;
    uint8_t in[2048], out[64] = {0x80 | 0x40};
    struct sockaddr_storage peer;
    socklen_t size = sizeof(peer);
    ssize_t len = recvfrom(fd, in, sizeof(in), MSG_DONTWAIT, (struct sockaddr *)&peer, &size);
    (void)events;
    if (len < 7 || in[5] > 20 || len < 7 + in[5] || in[6 + in[5]] > 20 || len < 7 + in[5] + in[6 + in[5]])
        return;
    size_t dcid = in[5], scid = in[6 + dcid], at = 5;
    out[at++] = (uint8_t)scid;
    memcpy(out + at, in + 7 + dcid, scid);
    at += scid;
    out[at++] = (uint8_t)dcid;
    memcpy(out + at, in + 6, dcid);
    at += dcid;
    memcpy(out + at, "\xfa\xce\xb0\x0c", 4);
    (void)sendto(fd, out, at + 4, 0, (struct sockaddr *)&peer, size);
}

static void child_listen_udp(struct relay_quic_endpoint *endpoint, int flags, int fd)
{
    if (flags & RELAY_WITHOUT_UDP) {
        close(fd);
    } else if (flags & RELAY_LIED_TO_UDP) {
        struct relay_io *io = relay_io_new(&child_relay.loop, fd, child_on_lie, (void *)(intptr_t)fd);
        if (io == NULL)
            abort();
        relay_io_arm(io, RELAY_IO_READ);
    } else if (!(flags & RELAY_DEAF_UDP) && relay_quic_endpoint_add_socket(endpoint, fd) != 0) {
        abort();
    }
}

static void child_listen(const struct certificate *certificate, int flags, struct sockaddr_storage *address)
{
    char reason[RELAY_QUIC_ERROR_SIZE];
    struct relay_quic_credentials *credentials;
    struct relay_quic_endpoint *endpoint;
    struct relay_quic_group *group = relay_quic_group_new(1);
    struct relay_tls_server_config tls = {certificate->chain, certificate->key};
    if ((child_relay.tls = relay_tls_server_context(&tls, reason, sizeof(reason))) == NULL ||
        relay_quic_credentials_server(certificate->chain, certificate->key, "here", NULL, &credentials,
                                      reason) != 0)
        abort();
    struct relay_quic_endpoint_config config = {.loop = &child_relay.loop,
                                                .group = group,
                                                .credentials = credentials,
                                                .limits = &child_relay.limits,
                                                .cb = &child_endpoint_cb};
    if (relay_http3_preface(config.limits, &config.preface) != 0 ||
        relay_quic_endpoint_new(&config, &endpoint) != 0)
        abort();
    int tcp, udp = -1;
    for (struct sockaddr_storage any = *address;
         udp < 0;) { /* one port for both, which other tests look for too */
        *address = any;
        if (relay_acceptor_bind(address, false, &tcp) != 0)
            abort();
        if (relay_quic_group_bind(group, address, &udp) != 0) {
            udp = -1;
            close(tcp);
        }
    }
    child_listen_udp(endpoint, flags, udp);
    if (flags & RELAY_WITHOUT_TCP)
        close(tcp);
    else if (relay_acceptor_new(&child_relay.loop, tcp, child_on_accept, NULL) == NULL)
        abort();
}

/* Forks; the child has the write end of a pipe for its port. 0 in the child. */
static pid_t child_fork(int *fd)
{
    int fds[2];
    if (pipe(fds) != 0)
        abort();
    pid_t pid = fork();
    if (pid < 0)
        abort();
    close(fds[pid == 0 ? 0 : 1]);
    *fd = fds[pid == 0 ? 1 : 0];
    if (pid == 0)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    return pid;
}

static void child_read_port(struct child *child, int fd)
{
    if (read(fd, &child->port, sizeof(child->port)) != sizeof(child->port))
        abort();
    close(fd);
}

static void child_write_port(int fd, uint16_t port)
{
    if (write(fd, &port, sizeof(port)) != sizeof(port))
        abort();
    close(fd);
}

static struct child start_relay(const struct certificate *certificate, const char *token, int flags)
{
    struct child child = {0};
    int fd;
    child.pid = child_fork(&fd);
    if (child.pid != 0) {
        child_read_port(&child, fd);
        return child;
    }
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_storage address = {0};
    memcpy(&address, &in, sizeof(in));
    child_relay.limits = RELAY_LIMITS_DEFAULT;
    child_relay.budget.limit = 64 * 1024 * 1024;
    child_relay.token = token;
    child_relay.is_draining = flags & (RELAY_DRAINING | RELAY_RESTARTING);
    child_relay.is_restarting = flags & RELAY_RESTARTING;
    if (relay_loop_init(&child_relay.loop, &child_relay.metrics) != 0 ||
        relay_uri_template_parse(&child_relay.udp, RELAY_URI_TEMPLATE_UDP_DEFAULT, NULL) != 0)
        abort();
    child_listen(certificate, flags, &address);
    uv_signal_init(&child_relay.loop.uv, &child_relay.drain);
    uv_signal_start(&child_relay.drain, child_on_drain, SIGUSR1);
    child_write_port(fd, ntohs(((struct sockaddr_in *)&address)->sin_port));
    relay_loop_run(&child_relay.loop);
    _exit(0);
}

/* ---- targets ---- */

static int child_bind(int type, uint16_t *port)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(in);
    int fd = socket(AF_INET, type, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&in, sizeof(in)) != 0 ||
        getsockname(fd, (struct sockaddr *)&in, &len) != 0)
        abort();
    *port = ntohs(in.sin_port);
    return fd;
}

static void echo_connection(int fd)
{
    char bytes[65536];
    ssize_t len;
    while ((len = read(fd, bytes, sizeof(bytes))) > 0)
        for (ssize_t at = 0, n; at < len; at += n)
            if ((n = write(fd, bytes + at, (size_t)(len - at))) <= 0)
                _exit(0);
    _exit(0);
}

/* Sends back what comes. */
static struct child start_echo(bool is_udp)
{
    struct child child = {0};
    char bytes[65536];
    int out, fd;
    child.pid = child_fork(&out);
    if (child.pid != 0) {
        child_read_port(&child, out);
        return child;
    }
    fd = child_bind(is_udp ? SOCK_DGRAM : SOCK_STREAM, &child.port);
    if (!is_udp && listen(fd, 16) != 0)
        abort();
    signal(SIGCHLD, SIG_IGN);
    child_write_port(out, child.port);
    for (;;) {
        struct sockaddr_storage from;
        socklen_t len = sizeof(from);
        if (is_udp) {
            ssize_t n = recvfrom(fd, bytes, sizeof(bytes), 0, (struct sockaddr *)&from, &len);
            if (n >= 0)
                (void)sendto(fd, bytes, (size_t)n, 0, (struct sockaddr *)&from, len);
        } else {
            int connection = accept(fd, NULL, NULL);
            if (connection >= 0 && fork() == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                echo_connection(connection);
            }
            close(connection);
        }
    }
}

static void stop_child(struct child *child)
{
    if (child->pid > 0) {
        kill(child->pid, SIGKILL);
        waitpid(child->pid, NULL, 0);
    }
    child->pid = 0;
}

#endif
