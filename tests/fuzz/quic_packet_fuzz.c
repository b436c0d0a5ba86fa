/* Datagrams at an endpoint: the input is a list of them, each after two bytes of length. Nothing may crash,
 * and what they opened is gone afterwards.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <netinet/in.h>

#include "lib/net/metrics.h"
#include "lib/net/quic_endpoint.h"
#include "lib/net/quic_endpoint_internal.h"
#include "tests/unit/quic_harness.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct {
    bool is_up;
    struct relay_metrics metrics;
    struct relay_loop loop;
    struct relay_limits limits;
    struct certificate certificate;
    struct relay_quic_credentials *credentials;
    struct relay_quic_group *group;
    struct relay_quic_endpoint *endpoint;
    struct sockaddr_in address;
    int client;
} f;

static void on_close(void *user, int error, uint64_t code)
{
}

static void on_connection(void *user, struct relay_quic_conn *conn)
{
    /* No handshake is completed by these inputs: nothing else is called. */
    static const struct relay_quic_user cb = {.on_close = on_close};
    relay_quic_conn_set_user(conn, &cb, NULL);
}

static void start(void)
{
    static const struct relay_quic_endpoint_user cb = {.on_connection = on_connection};
    char reason[RELAY_QUIC_ERROR_SIZE];
    struct sockaddr_storage address = {.ss_family = AF_INET};
    int fd;
    ((struct sockaddr_in *)&address)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    f.is_up = true;
    f.limits = RELAY_LIMITS_DEFAULT;
    f.limits.half_open_retry = 4;
    f.limits.half_open_max = 16;
    certificate_make(&f.certificate, "relay.example");
    f.group = relay_quic_group_new(1);
    if (relay_loop_init(&f.loop, &f.metrics) != 0 || relay_quic_group_bind(f.group, &address, &fd) != 0 ||
        relay_quic_credentials_server(f.certificate.chain, f.certificate.key, "here", NULL, &f.credentials,
                                      reason) != 0)
        abort();
    certificate_remove(&f.certificate);
    memcpy(&f.address, &address, sizeof(f.address));
    struct relay_quic_endpoint_config config = {
        .loop = &f.loop, .group = f.group, .credentials = f.credentials, .limits = &f.limits, .cb = &cb};
    if (relay_quic_endpoint_new(&config, &f.endpoint) != 0 ||
        relay_quic_endpoint_add_socket(f.endpoint, fd) != 0)
        abort();
    f.client = socket(AF_INET, SOCK_DGRAM, 0);
    if (connect(f.client, (struct sockaddr *)&f.address, sizeof(f.address)) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t packet[65536];
    if (!f.is_up)
        start();
    for (size_t at = 0; at + 2 <= size;) {
        size_t len = (size_t)data[at] << 8 | data[at + 1];
        bool is_padded = len & 0x8000; /* Initials are at least 1200 bytes long: zeros stand for the rest */
        len &= 0x7fff;
        at += 2;
        len = len < size - at ? len : size - at;
        memcpy(packet, data + at, len);
        at += len;
        if (is_padded && len < 1250) {
            memset(packet + len, 0, 1250 - len);
            len = 1250;
        }
        (void)send(f.client, packet, len, MSG_DONTWAIT);
        uv_run(&f.loop.uv, UV_RUN_NOWAIT);
    }
    while (recv(f.client, packet, sizeof(packet), MSG_DONTWAIT) > 0)
        ;
    while (f.endpoint->peers != NULL)
        relay_quic_peer_free(f.endpoint->peers);
    if (f.endpoint->half_open.count != 0)
        abort();
    return 0;
}
