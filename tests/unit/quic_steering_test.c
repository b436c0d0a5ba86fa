/* Packets reach the socket that the hash of their connection ID names; what the kernel got wrong is handed
 * over. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <cmocka.h>

#include "lib/net/metrics.h"
#include "lib/net/path_socket.h"
#include "lib/net/quic_cid.h"
#include "lib/net/quic_endpoint.h"
#include "lib/net/quic_steering.h"
#include "lib/wire/error.h"
#include "tests/unit/quic_harness.h"

#define WORKERS 3
#define PACKETS 300

static const struct relay_quic_steering steering = {.secret = 0x9e3779b1, .workers = WORKERS};

static void loopback(struct sockaddr_storage *address)
{
    memset(address, 0, sizeof(*address));
    address->ss_family = AF_INET;
    ((struct sockaddr_in *)address)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
}

static void test_issue(void **state)
{
    unsigned seen[256] = {0};
    uint8_t cid[8];
    for (unsigned i = 0; i < 3000; i++) {
        relay_quic_steering_issue(&steering, i % WORKERS, cid, sizeof(cid));
        assert_int_equal(relay_quic_steering_worker(&steering, cid, sizeof(cid)), i % WORKERS);
        seen[cid[0]]++;
    }
    for (unsigned i = 0; i < 256; i++)
        assert_in_range(seen[i], 1, 40); /* no byte gives the worker away */
    assert_int_equal(relay_quic_steering_worker(&steering, cid, 3), 0);
}

static bool has_packet(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    return poll(&poll_fd, 1, 0) == 1;
}

static void test_kernel(void **state)
{
    struct sockaddr_storage address;
    int fds[WORKERS], fd = socket(AF_INET, SOCK_DGRAM, 0);
    loopback(&address);
    assert_int_equal(relay_quic_steering_bind(&steering, &address, fds), 0);
    assert_int_not_equal(((struct sockaddr_in *)&address)->sin_port, 0);
    for (unsigned i = 0; i < PACKETS; i++) {
        uint8_t packet[32] = {0}, *cid = packet + (i % 2 ? 6 : 1), got[64];
        unsigned worker = i % WORKERS;
        packet[0] = i % 2 ? 0xc0 : 0x40;
        relay_quic_steering_issue(&steering, worker, cid, 8);
        assert_int_equal(
            sendto(fd, packet, sizeof(packet), 0, (struct sockaddr *)&address, sizeof(struct sockaddr_in)),
            sizeof(packet));
        for (unsigned k = 0; k < WORKERS; k++)
            assert_int_equal(has_packet(fds[k]), k == worker);
        assert_int_equal(recv(fds[worker], got, sizeof(got), MSG_DONTWAIT), sizeof(packet));
        assert_memory_equal(got, packet, sizeof(packet));
    }
    /* Too short for a hash: the first worker's. */
    assert_int_equal(sendto(fd, "\x40", 1, 0, (struct sockaddr *)&address, sizeof(struct sockaddr_in)), 1);
    assert_true(has_packet(fds[0]));
    for (unsigned k = 0; k < WORKERS; k++)
        close(fds[k]);
    close(fd);
}

static void test_bind_errors(void **state)
{
    struct sockaddr_storage address;
    int fds[WORKERS], fd = socket(AF_INET, SOCK_DGRAM, 0);
    socklen_t size = sizeof(address);
    loopback(&address);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(struct sockaddr_in)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    assert_int_equal(relay_quic_steering_bind(&steering, &address, fds), RELAY_ERR_LIMIT);
    close(fd);
    loopback(&address);
    ((struct sockaddr_in *)&address)->sin_addr.s_addr = htonl(0xc0000201);
    assert_int_equal(relay_quic_steering_bind(&steering, &address, fds), RELAY_ERR_UNREACHABLE);
}

static void test_cids(void **state)
{
    static const uint64_t key[2] = {1, 2};
    static uint8_t ids[4000][20];
    struct relay_quic_cids cids;
    int owners[2];
    assert_int_equal(relay_quic_cids_init(&cids, key), 0);
    for (unsigned i = 0; i < 4000; i++) {
        relay_quic_steering_issue(&steering, 0, ids[i], 20);
        assert_int_equal(relay_quic_cids_add(&cids, ids[i], 8 + i % 13, &owners[i % 2]), 0);
    }
    assert_int_equal(relay_quic_cids_add(&cids, ids[7], 8 + 7 % 13, &owners[0]), RELAY_ERR_INVALID);
    for (unsigned i = 0; i < 4000; i += 3) {
        relay_quic_cids_remove(&cids, ids[i], 8 + i % 13, &owners[(i + 1) % 2]); /* not its owner */
        assert_ptr_equal(relay_quic_cids_find(&cids, ids[i], 8 + i % 13), &owners[i % 2]);
        relay_quic_cids_remove(&cids, ids[i], 8 + i % 13, &owners[i % 2]);
    }
    for (unsigned i = 0; i < 4000; i++) {
        void *found = relay_quic_cids_find(&cids, ids[i], 8 + i % 13);
        if (i % 3 == 0)
            assert_null(found);
        else
            assert_ptr_equal(found, &owners[i % 2]);
    }
    assert_null(relay_quic_cids_find(&cids, ids[1], 21));
    relay_quic_cids_dispose(&cids);
}

/* ---- two workers in two threads ---- */

struct worker {
    pthread_t thread;
    struct relay_metrics metrics;
    struct relay_loop loop;
    struct relay_limits limits;
    struct relay_quic_endpoint *endpoint;
    struct relay_quic_conn *conn;
    bool stop, connected;
};

static struct {
    struct worker workers[2];
    struct relay_quic_group *group;
    struct relay_quic_credentials *server, *client;
} two;

static int on_ready(void *user)
{
    ((struct worker *)user)->connected = true;
    return 0;
}

static uint64_t on_datagram(void *user, const uint8_t *bytes, size_t len)
{
    return 0;
}

static int on_pull(void *user, int64_t *stream, bool *fin, struct iovec *pieces, int size)
{
    return -1;
}

static void on_close(void *user, int error, uint64_t code)
{
    ((struct worker *)user)->conn = NULL;
}

static void on_streams_allowed(void *user)
{
}

static const struct relay_quic_user quic_user = {.on_streams_allowed = on_streams_allowed,

                                                 .on_ready = on_ready,
                                                 .on_datagram = on_datagram,
                                                 .pull = on_pull,
                                                 .on_close = on_close};

static void on_connection(void *user, struct relay_quic_conn *conn)
{
    relay_quic_conn_set_user(conn, &quic_user, user);
}

static void stop(void *arg)
{
    ((struct worker *)arg)->stop = true;
}

static void *run_worker(void *arg)
{
    struct worker *worker = arg;
    while (!worker->stop)
        uv_run(&worker->loop.uv, UV_RUN_ONCE);
    relay_quic_endpoint_free(worker->endpoint);
    relay_loop_dispose(&worker->loop);
    return NULL;
}

static void start_worker(unsigned index, int fd)
{
    static const struct relay_quic_endpoint_user cb = {.on_connection = on_connection};
    struct worker *worker = &two.workers[index];
    worker->limits = RELAY_LIMITS_DEFAULT;
    assert_int_equal(relay_loop_init(&worker->loop, &worker->metrics), 0);
    struct relay_quic_endpoint_config config = {.loop = &worker->loop,
                                                .group = two.group,
                                                .worker = index,
                                                .credentials = two.server,
                                                .limits = &worker->limits,
                                                .cb = &cb,
                                                .user = worker};
    assert_int_equal(relay_quic_endpoint_new(&config, &worker->endpoint), 0);
    assert_int_equal(relay_quic_endpoint_add_socket(worker->endpoint, fd), 0);
}

static void test_hand_over(void **state)
{
    struct certificate certificate;
    char reason[RELAY_QUIC_ERROR_SIZE];
    struct sockaddr_storage address;
    struct worker client = {.limits = RELAY_LIMITS_DEFAULT};
    int fds[2];
    memset(&two, 0, sizeof(two));
    certificate_make(&certificate, "relay.example");
    assert_int_equal(
        relay_quic_credentials_server(certificate.chain, certificate.key, "here", NULL, &two.server, reason),
        0);
    assert_int_equal(relay_quic_credentials_client(certificate.chain, NULL, 0, &two.client, reason), 0);
    two.group = relay_quic_group_new(2);
    /* The kernel steers with another secret: about half of all packets come to the wrong worker. */
    const struct relay_quic_steering other = {.secret = 0x12345679, .workers = 2};
    loopback(&address);
    assert_int_equal(relay_quic_steering_bind(&other, &address, fds), 0);
    for (int i = 0; i < 2; i++)
        start_worker((unsigned)i, fds[i]);
    for (int i = 0; i < 2; i++)
        pthread_create(&two.workers[i].thread, NULL, run_worker, &two.workers[i]);
    assert_int_equal(relay_loop_init(&client.loop, &client.metrics), 0);
    for (int i = 0; i < 12; i++) {
        struct relay_packet_path *path;
        struct relay_quic_client_config config = {.credentials = two.client,
                                                  .server_name = "relay.example",
                                                  .limits = &client.limits,
                                                  .level = RELAY_LEVEL_FLUSH_OUTER};
        client.connected = false;
        assert_int_equal(relay_path_socket_new(&client.loop, (struct sockaddr *)&address, NULL, &path), 0);
        client.conn = relay_quic_connect(&client.loop, path, &config, &quic_user, &client);
        assert_true(run_until(&client.loop, &client.connected, 5000));
        relay_quic_conn_close(client.conn, 0, RELAY_ERR_CANCELLED);
        run_until(&client.loop, NULL, 10);
    }
    relay_loop_dispose(&client.loop);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(relay_loop_post(&two.workers[i].loop, stop, &two.workers[i]), 0);
        pthread_join(two.workers[i].thread, NULL);
    }
    assert_int_equal(two.workers[0].metrics.handshakes_ok + two.workers[1].metrics.handshakes_ok, 12);
    assert_true(two.workers[0].metrics.handshakes_ok > 0 && two.workers[1].metrics.handshakes_ok > 0);
    assert_int_equal(two.workers[0].metrics.drop_ring, 0);
    relay_quic_group_unref(two.group);
    relay_quic_credentials_unref(two.server);
    relay_quic_credentials_unref(two.client);
    certificate_remove(&certificate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_issue), cmocka_unit_test(test_kernel),
                                       cmocka_unit_test(test_bind_errors), cmocka_unit_test(test_cids),
                                       cmocka_unit_test(test_hand_over)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
