/* A link with a round trip of its own: makes two TUN devices and carries the packets of each to the other
 * after half of it. Whoever runs it moves the devices into two network namespaces. TCP and QUIC see the delay
 * as they would on a real path, which a forwarder of bytes does not give them.
 *
 * delay DEVICE DEVICE MILLISECONDS [MBIT-PER-SECOND [LOSS]]
 *
 * With a rate each direction is a bottleneck: what has to wait for more than QUEUE there is dropped. LOSS: per cent of all
 * packets, each way, lost at random.
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
#define QUEUE   0.05  /* s */
#define PACKETS 32768 /* of one direction: what comes above is dropped, as a router would */

/* One direction: a ring of packets in the order of their times. */
struct lane {
    int from, to;
    double rate, free_at; /* bytes per second, 0: no bottleneck; when it has sent what waits */
    double loss;          /* of all packets */
    uint64_t random_state;
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

/* The same packets in each run. */
static bool is_lost(struct lane *lane)
{
    lane->random_state = lane->random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(lane->random_state >> 11) * 0x1p-53 < lane->loss;
}

static void take(struct lane *lane, double delay)
{
    uint8_t waste[PACKET];
    double now = relay_bench_seconds();
    for (int i = 0; i < 256; i++) {
        struct packet *packet = &lane->ring[(lane->head + lane->count) % PACKETS];
        double begins = lane->rate > 0 && lane->free_at > now ? lane->free_at : now;
        bool is_full = lane->count == PACKETS || begins > now + QUEUE;
        ssize_t len = read(lane->from, is_full ? waste : packet->bytes, PACKET);
        if (len <= 0)
            return;
        if (is_full || is_lost(lane)) {
            lane->dropped++;
            continue;
        }
        packet->len = (size_t)len;
        lane->free_at = lane->rate > 0 ? begins + (double)len / lane->rate : now;
        packet->due = lane->free_at + delay;
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
    if (argc < 4 || argc > 6)
        relay_bench_die("delay DEVICE DEVICE MILLISECONDS [MBIT-PER-SECOND [LOSS]]");
    int a = open_tun(argv[1]), b = open_tun(argv[2]);
    double delay = atof(argv[3]) / 2000;
    double rate = argc > 4 ? atof(argv[4]) * 1e6 / 8 : 0, loss = argc > 5 ? atof(argv[5]) / 100 : 0;
    struct lane lanes[2] = {{.from = a, .to = b, .rate = rate, .loss = loss, .random_state = 1},
                            {.from = b, .to = a, .rate = rate, .loss = loss, .random_state = 2}};
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
