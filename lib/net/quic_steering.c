#include "lib/net/quic_steering.h"

#include <errno.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>
#include <gnutls/crypto.h>

#include "lib/net/udp_batch.h"
#include "lib/wire/error.h"

#ifndef SO_ATTACH_REUSEPORT_CBPF
#define SO_ATTACH_REUSEPORT_CBPF 51
#endif

#define SHIFT        16 /* the product's upper half depends on all bytes */
#define LONG_HEADER  0x80
#define LONG_OFFSET  6 /* of the Destination Connection ID, RFC 8999 section 5.1 */
#define SHORT_OFFSET 1

unsigned relay_quic_steering_worker(const struct relay_quic_steering *steering, const uint8_t *cid,
                                    size_t len)
{
    if (len < 4 || steering->workers <= 1)
        return 0;
    uint32_t head = (uint32_t)cid[0] << 24 | (uint32_t)cid[1] << 16 | (uint32_t)cid[2] << 8 | cid[3];
    return (head * steering->secret >> SHIFT) % steering->workers;
}

void relay_quic_steering_issue(const struct relay_quic_steering *steering, unsigned worker, uint8_t *cid,
                               size_t len)
{
    do
        gnutls_rnd(GNUTLS_RND_RANDOM, cid, len);
    while (relay_quic_steering_worker(steering, cid, len) != worker);
}

static int attach(int fd, const struct relay_quic_steering *steering)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, LONG_HEADER, 0, 2),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, LONG_OFFSET),
        BPF_JUMP(BPF_JMP | BPF_JA, 1, 0, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, SHORT_OFFSET),
        BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, steering->secret),
        BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, SHIFT),
        BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, steering->workers),
        BPF_STMT(BPF_RET | BPF_A, 0),
    };
    struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof(program));
}

static int judge(int code)
{
    switch (code) {
    case EMFILE:
    case ENFILE:
        return RELAY_ERR_NO_DESCRIPTORS;
    case EACCES:
        return RELAY_ERR_DENIED;
    case EADDRNOTAVAIL:
        return RELAY_ERR_UNREACHABLE;
    case EADDRINUSE:
        return RELAY_ERR_LIMIT;
    default:
        return RELAY_ERR_INVALID;
    }
}

static bool is_wildcard(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET6)
        return IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)address)->sin6_addr);
    return ((const struct sockaddr_in *)address)->sin_addr.s_addr == INADDR_ANY;
}

static int open_one(struct sockaddr_storage *address, int *fd)
{
    int on = 1;
    socklen_t size = sizeof(*address);
    *fd = socket(address->ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (*fd < 0)
        return judge(errno);
    if (setsockopt(*fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) != 0 ||
        (address->ss_family == AF_INET6 &&
         setsockopt(*fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) != 0) ||
        bind(*fd, (struct sockaddr *)address, relay_udp_address_size((struct sockaddr *)address)) != 0 ||
        getsockname(*fd, (struct sockaddr *)address, &size) != 0)
        return judge(errno);
    relay_udp_configure(*fd, address->ss_family, is_wildcard(address), true);
    return 0;
}

int relay_quic_steering_bind(const struct relay_quic_steering *steering, struct sockaddr_storage *address,
                             int *fds)
{
    unsigned opened = 0;
    int error = 0;
    while (opened < steering->workers && error == 0) {
        error = open_one(address, &fds[opened]);
        if (fds[opened] >= 0)
            opened++;
    }
    /* Without the program the kernel spreads by address; workers then hand packets to each other. */
    if (error == 0 && steering->workers > 1)
        (void)attach(fds[0], steering);
    while (error != 0 && opened > 0)
        close(fds[--opened]);
    return error;
}
