/* A link with a round trip of its own: makes two TUN devices and carries the packets of each to the other
 * after half of it. Whoever runs it moves the devices into two network namespaces. TCP and QUIC see the delay
 * as they would on a real path, which a forwarder of bytes does not give them.
 *
 * delay DEVICE DEVICE MILLISECONDS
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "bench/session.h"

#define PACKET  2048
#define PACKETS 32768 /* of one direction: what comes above is dropped, as a router would */

/* One direction: a ring of packets in the order of their times. */
struct lane {
    int from, to;
    struct packet {
        double due;
        size_t len;
        uint8_t bytes[PACKET];
    } * ring;
    size_t head, count, dropped;
};

static int open_tun(const char *name)
{
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &request) != 0)
        relay_bench_die("%s: %s", name, strerror(errno));
    return fd;
}

static void take(struct lane *lane, double delay)
{
    uint8_t waste[PACKET];
    double due = relay_bench_seconds() + delay;
    for (int i = 0; i < 256; i++) {
        struct packet *packet = &lane->ring[(lane->head + lane->count) % PACKETS];
        bool is_full = lane->count == PACKETS;
        ssize_t len = read(lane->from, is_full ? waste : packet->bytes, PACKET);
        if (len <= 0)
            return;
        if (is_full) {
            lane->dropped++;
            continue;
        }
        packet->len = (size_t)len;
        packet->due = due;
        lane->count++;
    }
}

static void give(struct lane *lane)
{
    double now = relay_bench_seconds();
    while (lane->count > 0 && lane->ring[lane->head].due <= now) {
        struct packet *packet = &lane->ring[lane->head];
        if (write(lane->to, packet->bytes, packet->len) < 0 && errno == EAGAIN)
            return;
        lane->head = (lane->head + 1) % PACKETS;
        lane->count--;
    }
}

static int wait_ms(const struct lane *lanes)
{
    double first = relay_bench_seconds() + 0.1;
    for (int i = 0; i < 2; i++)
        if (lanes[i].count > 0 && lanes[i].ring[lanes[i].head].due < first)
            first = lanes[i].ring[lanes[i].head].due;
    double left = (first - relay_bench_seconds()) * 1000;
    return left > 0 ? (int)left + 1 : 0;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        relay_bench_die("delay DEVICE DEVICE MILLISECONDS");
    int a = open_tun(argv[1]), b = open_tun(argv[2]);
    double delay = atof(argv[3]) / 2000;
    struct lane lanes[2] = {{.from = a, .to = b}, {.from = b, .to = a}};
    for (int i = 0; i < 2; i++)
        if ((lanes[i].ring = malloc(PACKETS * sizeof(struct packet))) == NULL)
            relay_bench_die("no memory");
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct pollfd fds[2] = {{.fd = a, .events = POLLIN}, {.fd = b, .events = POLLIN}};
        (void)poll(fds, 2, wait_ms(lanes));
        for (int i = 0; i < 2; i++) {
            take(&lanes[i], delay);
            give(&lanes[i]);
        }
    }
}
