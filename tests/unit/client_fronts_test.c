/* The local fronts and `check`, over a real relay: each test is a program of its own that talks to a front as
 * applications do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <poll.h>
#include <cmocka.h>

#include "client/check.h"
#include "client/front.h"
#include "client/front_forward.h"
#include "tests/unit/client_relay.h"

#define TOKEN "out-secret"

static struct certificate certificate;
static struct child tcp_echo, udp_echo, egress;
static struct relay_loop loop;
static struct relay_metrics metrics;
static struct relay_hop_environment environment;
static struct relay_client_config config;
static struct relay_chain *chain;
static struct relay_front http, socks;
static struct relay_front_forward tcp_forward, udp_forward;
static int egress_flags; /* of start_relay */
static const char *egress_http = "auto";

/* ---- what the application's process does: blocking, and any failure is an exit status ---- */

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                  \
            _exit(1);                                                                                        \
        }                                                                                                    \
    } while (0)

static int dial(int type, const struct sockaddr_storage *address)
{
    struct timeval limit = {.tv_sec = 10};
    int fd = socket(AF_INET, type, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    CHECK(connect(fd, (const struct sockaddr *)address, sizeof(struct sockaddr_in)) == 0);
    return fd;
}

static void put(int fd, const char *bytes, size_t len)
{
    CHECK(send(fd, bytes, len, MSG_NOSIGNAL) == (ssize_t)len);
}

/* Reads exactly what is expected. */
static void expect(int fd, const char *bytes, size_t len)
{
    char got[4096] = "";
    CHECK(recv(fd, got, len, MSG_WAITALL) == (ssize_t)len);
    CHECK(memcmp(got, bytes, len) == 0);
}

/* Reads to the end. */
static void read_all(int fd, char *text, size_t size)
{
    size_t len = 0;
    ssize_t n;
    while (len + 1 < size && (n = recv(fd, text + len, size - 1 - len, 0)) > 0)
        len += (size_t)n;
    text[len] = '\0';
}

static void expect_quiet(int fd)
{
    struct timeval limit = {.tv_usec = 300000};
    char byte;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    CHECK(recv(fd, &byte, 1, 0) < 0);
}

static void http_connect(void)
{
    char text[256];
    int fd = dial(SOCK_STREAM, &http.address);
    int len = snprintf(text, sizeof(text), "CONNECT target.example:%u HTTP/1.1\r\nHost: x\r\n\r\nearly",
                       tcp_echo.port);
    put(fd, text, (size_t)len);
    static const char established[] = "HTTP/1.1 200 Connection established\r\n\r\nearly";
    expect(fd, established, sizeof(established) - 1);
    put(fd, "late", 4);
    shutdown(fd, SHUT_WR);
    read_all(fd, text, sizeof(text));
    CHECK(strcmp(text, "late") == 0);
}

/* The server is an echo, which is no HTTP: an answer of ours, and what came behind the request is not one. */
static void http_get(void)
{
    char text[1024];
    int fd = dial(SOCK_STREAM, &http.address);
    int len =
        snprintf(text, sizeof(text),
                 "POST http://target.example:%u/a?b HTTP/1.1\r\nHost: other\r\nContent-Length: 5\r\n\r\n"
                 "helloGET http://victim.example/ HTTP/1.1\r\nHost: victim.example\r\n\r\n",
                 tcp_echo.port);
    put(fd, text, (size_t)len);
    read_all(fd, text, sizeof(text));
    CHECK(strncmp(text, "HTTP/1.1 502 ", 13) == 0 && strstr(text, "malformed") != NULL);
    CHECK(strstr(text + 1, "HTTP/1.1") == NULL);
}

static void http_failures(void)
{
    static const struct {
        const char *request, *status, *text;
    } table[] = {
        {"CONNECT nowhere.example:80 HTTP/1.1\r\nHost: x\r\n\r\n", "502", "NXDOMAIN"},
        {"GET http://nowhere.example/ HTTP/1.1\r\nHost: x\r\n\r\n", "502", "hop 1 (127.0.0.1:"},
        {"CONNECT target.example:1 HTTP/1.1\r\nHost: x\r\n\r\n", "502", "connection refused"},
        {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "400", "this is a proxy"},
        {"GET https://a/ HTTP/1.1\r\nHost: x\r\n\r\n", "400", "this is a proxy"},
        {"GET ftp://a/b HTTP/1.1\r\nHost: a\r\n\r\n", "400", "CONNECT and http:// URLs only"},
        {"GET http://a/b HTTP/1.1\r\nHost\r\n\r\n", "400", "the request is malformed"},
        {"GET http://nowhere.example/ HTTP/1.1\r\nHost: x\r\nUpgrade: connect-udp\r\nConnection: "
         "upgrade\r\n\r\n",
         "400", "CONNECT and http:// URLs only"},
        {"CONNECT target.example HTTP/1.1\r\nHost: x\r\n\r\n", "400", ""},
        {"\x16\x03\x01\r\n\r\n", "400", ""},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        char text[2048];
        int fd = dial(SOCK_STREAM, &http.address);
        put(fd, table[i].request, strlen(table[i].request));
        read_all(fd, text, sizeof(text));
        if (strncmp(text + 9, table[i].status, 3) != 0 || strstr(text, table[i].text) == NULL)
            fprintf(stderr, "%s gave %s\n", table[i].request, text);
        CHECK(strncmp(text + 9, table[i].status, 3) == 0 && strstr(text, table[i].text) != NULL);
        close(fd);
    }
}

/* The request's target "target.example" and what the reply must say; the descriptor goes on. */
static int socks_request(uint8_t command, const char *name, uint16_t port, uint8_t reply,
                         struct sockaddr_storage *bound)
{
    uint8_t bytes[300] = {5, command, 0, 3, (uint8_t)strlen(name)}, answer[10];
    int fd = dial(SOCK_STREAM, &socks.address);
    put(fd, "\5\2\0\2", 4);
    expect(fd, "\5\0", 2);
    size_t len = strlen(name);
    memcpy(bytes + 5, name, len);
    bytes[5 + len] = (uint8_t)(port >> 8);
    bytes[6 + len] = (uint8_t)port;
    put(fd, (char *)bytes, 7 + len);
    CHECK(recv(fd, answer, sizeof(answer), MSG_WAITALL) == sizeof(answer));
    CHECK(answer[0] == 5 && answer[1] == reply && answer[3] == 1);
    struct sockaddr_in in = {.sin_family = AF_INET};
    memcpy(&in.sin_addr, answer + 4, 4);
    memcpy(&in.sin_port, answer + 8, 2);
    if (bound != NULL)
        memcpy(bound, &in, sizeof(in));
    return fd;
}

static void socks_connect(void)
{
    int fd = socks_request(1, "target.example", tcp_echo.port, 0, NULL);
    put(fd, "hello", 5);
    expect(fd, "hello", 5);
    close(socks_request(1, "nowhere.example", 80, 4, NULL));
    close(socks_request(1, "target.example", 1, 5, NULL));
    close(socks_request(2, "target.example", 80, 7, NULL));
}

/* An application that was told of a SOCKS proxy without its version: the refusal that it understands, and the end. */
static void socks4(void)
{
    static const struct {
        const char *bytes;
        size_t len;
    } requests[] = {{"\4\1\0\x50\x7f\0\0\1user", 13}, {"\4\1\0\x50\0\0\0\1\0target.example", 24}, {"\4", 1}};
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        char end;
        int fd = dial(SOCK_STREAM, &socks.address);
        put(fd, requests[i].bytes, requests[i].len);
        expect(fd, "\0\x5b\0\0\0\0\0\0", 8);
        CHECK(recv(fd, &end, 1, 0) == 0);
        close(fd);
    }
}

static void socks_udp(void)
{
    struct sockaddr_storage bound;
    uint8_t head[] = "\0\0\0\3\016target.example\0\0";
    char message[64], answer[64];
    int control = socks_request(3, "0.0.0.0", 0, 0, &bound);
    int fd = dial(SOCK_DGRAM, &bound);
    head[19] = (uint8_t)(udp_echo.port >> 8);
    head[20] = (uint8_t)udp_echo.port;
    memcpy(message, head, 21);
    for (int i = 0; i < 20; i++) {
        memcpy(message + 21, "datagram", 8);
        message[28] = (char)('a' + i);
        put(fd, message, 29);
        CHECK(recv(fd, answer, sizeof(answer), 0) == 29);
        CHECK(memcmp(answer, message, 29) == 0);
    }
    message[2] = 1; /* a fragment */
    put(fd, message, 29);
    message[2] = 0;
    struct sockaddr_in own = {.sin_family = AF_INET};
    int stranger = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(bind(stranger, (struct sockaddr *)&own, sizeof(own)) == 0);
    CHECK(sendto(stranger, message, 29, 0, (struct sockaddr *)&bound, sizeof(struct sockaddr_in)) == 29);
    expect_quiet(fd);
    expect_quiet(stranger);
    close(control);
    usleep(200000);
    (void)send(fd, message, 29, 0);
    CHECK(recv(fd, answer, sizeof(answer), 0) < 0); /* the association ended with its connection */
}

static void forwards(void)
{
    int fd = dial(SOCK_STREAM, &tcp_forward.address);
    put(fd, "hello", 5);
    expect(fd, "hello", 5);
    int udp = dial(SOCK_DGRAM, &udp_forward.address);
    for (int i = 0; i < 20; i++) {
        put(udp, "ping", 4);
        expect(udp, "ping", 4);
    }
}

/* ---- around it ---- */

static void run_application(void (*application)(void))
{
    int status = 0;
    bool is_over = false;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        application();
        _exit(0);
    }
    for (int i = 0; i < 6000 && !is_over; i++) {
        run_until(&loop, NULL, 5);
        is_over = waitpid(pid, &status, WNOHANG) == pid;
    }
    if (!is_over) {
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
    }
    assert_true(is_over);
    assert_int_equal(status, 0);
}

static void add_hop(const char *token)
{
    const char *expected = NULL;
    char url[64];
    struct relay_hop_config *hop = relay_client_config_add_hop(&config, &expected);
    snprintf(url, sizeof(url), "https://127.0.0.1:%u", egress.port);
    assert_int_equal(relay_hop_config_add_url(hop, url, &expected), 0);
    if (token != NULL)
        assert_int_equal(relay_hop_identity_set_token(&hop->identity, token, &expected), 0);
    memcpy(hop->identity.pin, certificate.pin, sizeof(hop->identity.pin));
    hop->identity.has_pin = true;
    assert_int_equal(relay_hop_config_set_http(hop, egress_http, &expected), 0);
}

static int start_loop(void **state)
{
    relay_log_set_level(RELAY_LOG_ERROR);
    egress = start_relay(&certificate, TOKEN, egress_flags);
    assert_int_equal(relay_loop_init(&loop, &metrics), 0);
    environment = (struct relay_hop_environment){.loop = &loop, .limits = RELAY_LIMITS_DEFAULT};
    environment.budget.limit = 64 * 1024 * 1024;
    struct relay_resolver_config resolver = {.timeout = 5 * RELAY_SECOND, .cache_names = 100};
    environment.resolver = relay_resolver_new(&loop, &resolver);
    relay_client_config_init(&config);
    return 0;
}

static int stop_loop(void **state)
{
    stop_child(&egress);
    for (int i = 0; i < 1000 && environment.num_hops > 0; i++)
        run_until(&loop, NULL, 5);
    assert_int_equal(environment.num_hops, 0);
    run_until(&loop, NULL, 50);
    relay_resolver_free(environment.resolver);
    relay_loop_dispose(&loop);
    relay_client_config_dispose(&config);
    return 0;
}

static int setup(void **state)
{
    char text[256], tcp[64], udp[64];
    const char *expected;
    struct sockaddr_storage any;
    start_loop(state);
    add_hop(TOKEN);
    snprintf(tcp, sizeof(tcp), "tcp:127.0.0.1:0=target.example:%u", tcp_echo.port);
    snprintf(udp, sizeof(udp), "udp:127.0.0.1:0=target.example:%u", udp_echo.port);
    assert_int_equal(relay_client_config_add_forward(&config, tcp, &expected), 0);
    assert_int_equal(relay_client_config_add_forward(&config, udp, &expected), 0);
    assert_int_equal(relay_listen_address_parse(&any, "127.0.0.1:0", 11, &expected), 0);
    chain = relay_chain_new(&environment, &config, text, sizeof(text));
    assert_non_null(chain);
    assert_int_equal(relay_front_http_listen(&http, &loop, chain, &any, text, sizeof(text)), 0);
    assert_int_equal(relay_front_socks_listen(&socks, &loop, chain, &any, text, sizeof(text)), 0);
    assert_int_equal(
        relay_front_forward_listen(&tcp_forward, &loop, chain, &config.forwards[0], text, sizeof(text)), 0);
    assert_int_equal(
        relay_front_forward_listen(&udp_forward, &loop, chain, &config.forwards[1], text, sizeof(text)), 0);
    return 0;
}

static int teardown(void **state)
{
    relay_front_stop(&http);
    relay_front_stop(&socks);
    relay_front_forward_stop(&tcp_forward);
    relay_front_forward_stop(&udp_forward);
    relay_chain_stop(chain);
    run_until(&loop, NULL, 50); /* connections end with their tunnels */
    relay_chain_free(chain);
    stop_loop(state);
    assert_int_equal(http.num_connections, 0);
    assert_int_equal(socks.num_connections, 0);
    assert_int_equal(tcp_forward.tcp.num_connections, 0);
    return 0;
}

/* Nothing comes back from hop 1. */
static int setup_deaf(void **state)
{
    egress_flags = RELAY_DEAF_UDP;
    egress_http = "3";
    return setup(state);
}

static int teardown_deaf(void **state)
{
    egress_flags = 0;
    egress_http = "auto";
    return teardown(state);
}

static void test_http_connect(void **state)
{
    run_application(http_connect);
}

static void test_http_get(void **state)
{
    run_application(http_get);
}

static void test_http_failures(void **state)
{
    run_application(http_failures);
}

static void test_socks_connect(void **state)
{
    run_application(socks_connect);
}

static void test_socks4(void **state)
{
    run_application(socks4);
}

static void test_socks_udp(void **state)
{
    run_application(socks_udp);
}

static void test_forwards(void **state)
{
    run_application(forwards);
}

/* ---- the line, while no hop answers ---- */

#define PLACES RELAY_CHAIN_WAITING_MAX

enum application {
    HTTP_CONNECT,
    HTTP_GET,
    SOCKS_CONNECT,
    FORWARD_SILENT, /* what it wants is the server's greeting */
    FORWARD_SAID_ALL
};

static int come(enum application application)
{
    static const char connect[] = "CONNECT target.example:80 HTTP/1.1\r\nHost: x\r\n\r\n",
                      get[] = "GET http://target.example/ HTTP/1.1\r\nHost: target.example\r\n\r\n",
                      socks5[] = "\5\1\0\5\1\0\3\1x\0\x50";
    switch (application) {
    case HTTP_CONNECT:
    case HTTP_GET: {
        int fd = dial(SOCK_STREAM, &http.address);
        put(fd, application == HTTP_GET ? get : connect,
            application == HTTP_GET ? sizeof(get) - 1 : sizeof(connect) - 1);
        return fd;
    }
    case SOCKS_CONNECT: {
        int fd = dial(SOCK_STREAM, &socks.address);
        put(fd, socks5, sizeof(socks5) - 1);
        return fd;
    }
    case FORWARD_SILENT:
        return dial(SOCK_STREAM, &tcp_forward.address);
    case FORWARD_SAID_ALL: {
        int fd = dial(SOCK_STREAM, &tcp_forward.address);
        put(fd, "all", 3);
        shutdown(fd, SHUT_WR);
        return fd;
    }
    }
    return -1;
}

static void come_all(int *fds, const enum application *who, size_t num_who)
{
    char method[2];
    for (size_t i = 0; i < PLACES; i++) {
        fds[i] = come(who[i % num_who]);
        if (i % 16 == 15)
            run_until(&loop, NULL, 5);
    }
    run_until(&loop, NULL, 50);
    for (size_t i = 0; i < PLACES; i++)
        if (who[i % num_who] == SOCKS_CONNECT)
            assert_int_equal(recv(fds[i], method, 2, MSG_DONTWAIT), 2);
}

static size_t connections(void)
{
    return http.num_connections + socks.num_connections + tcp_forward.tcp.num_connections;
}

/* It has heard nothing: neither an answer nor an end. */
static bool is_waiting(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    return poll(&poll_fd, 1, 0) == 0;
}

static void test_who_has_gone_makes_room(void **state)
{
    static const enum application leaving[] = {HTTP_CONNECT, HTTP_GET, SOCKS_CONNECT, FORWARD_SILENT},
                                  staying[] = {HTTP_CONNECT, HTTP_GET, SOCKS_CONNECT, FORWARD_SILENT,
                                               FORWARD_SAID_ALL};
    int fds[PLACES];
    char text[1024];
    come_all(fds, leaving, 4);
    assert_int_equal(connections(), PLACES);
    for (size_t i = 0; i < PLACES; i++)
        close(fds[i]);
    run_until(&loop, NULL, 50);
    come_all(fds, staying, 5);
    assert_int_equal(connections(), PLACES);
    int late = come(HTTP_CONNECT);
    for (int i = 0; i < 200 && is_waiting(late); i++)
        run_until(&loop, NULL, 10);
    read_all(late, text, sizeof(text));
    assert_non_null(strstr(text, "too many connections wait for the chain"));
    close(late);
    for (size_t i = 0; i < PLACES; i++)
        assert_true(is_waiting(fds[i]));
    assert_int_equal(connections(), PLACES);
    for (size_t i = 0; i < PLACES; i++)
        close(fds[i]);
}

/* ---- check ---- */

static int run_check(char *text, size_t size)
{
    memset(text, 0, size);
    FILE *out = fmemopen(text, size - 1, "w");
    int error = relay_check_run(&environment, &config, NULL, 0, out);
    fclose(out);
    return error;
}

static void test_check_good(void **state)
{
    char text[2048];
    add_hop(TOKEN);
    add_hop(TOKEN);
    assert_int_equal(run_check(text, sizeof(text)), 0);
    assert_non_null(strstr(text, "hop 2"));
    assert_non_null(strstr(text, "HTTP/3"));
    assert_non_null(strstr(text, "CONNECT-UDP at the last hop  ok, token accepted"));
    assert_non_null(strstr(text, "the chain works"));
}

static void test_check_bad_token(void **state)
{
    char text[2048];
    add_hop("wrong");
    assert_int_equal(run_check(text, sizeof(text)), RELAY_ERR_UNAUTHORIZED);
    assert_non_null(strstr(text, "FAILED: the token was refused (407)"));
    assert_null(strstr(text, "wrong"));
}

static void test_check_no_token(void **state)
{
    char text[2048];
    add_hop(NULL);
    add_hop(TOKEN);
    assert_int_equal(run_check(text, sizeof(text)), RELAY_ERR_UNAUTHORIZED);
    assert_non_null(strstr(text, "hop 2 "));
    assert_non_null(strstr(text, "no way to hop 2"));
    assert_non_null(strstr(text, ": no token is configured for hop 1 (401)\n"));
}

static void test_check_no_token_for_the_last_hop(void **state)
{
    char text[2048];
    add_hop(TOKEN);
    add_hop(NULL);
    assert_int_equal(run_check(text, sizeof(text)), RELAY_ERR_UNAUTHORIZED);
    assert_non_null(strstr(text, "FAILED: no token is configured for hop 2 (407)"));
    assert_non_null(strstr(text, "FAILED: no token is configured for hop 2 (401)"));
}

static void test_check_dead_relay(void **state)
{
    char text[2048];
    add_hop(TOKEN);
    add_hop(TOKEN);
    stop_child(&egress);
    assert_int_equal(run_check(text, sizeof(text)), RELAY_ERR_REFUSED);
    assert_non_null(strstr(text, "connection refused"));
    assert_null(strstr(text, "hop 2 "));
}

static int start_targets(void **state)
{
    certificate_make(&certificate, "relay.example");
    tcp_echo = start_echo(false);
    udp_echo = start_echo(true);
    return 0;
}

static int stop_targets(void **state)
{
    stop_child(&tcp_echo);
    stop_child(&udp_echo);
    certificate_remove(&certificate);
    return 0;
}

#define FRONT(name)  cmocka_unit_test_setup_teardown(name, setup, teardown)
#define DEAF(name)   cmocka_unit_test_setup_teardown(name, setup_deaf, teardown_deaf)
#define CHECKS(name) cmocka_unit_test_setup_teardown(name, start_loop, stop_loop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRONT(test_http_connect),
        FRONT(test_http_get),
        FRONT(test_http_failures),
        FRONT(test_socks_connect),
        FRONT(test_socks4),
        FRONT(test_socks_udp),
        FRONT(test_forwards),
        CHECKS(test_check_good),
        CHECKS(test_check_bad_token),
        CHECKS(test_check_no_token),
        CHECKS(test_check_no_token_for_the_last_hop),
        CHECKS(test_check_dead_relay),
        DEAF(test_who_has_gone_makes_room),
    };
    return cmocka_run_group_tests(tests, start_targets, stop_targets);
}
