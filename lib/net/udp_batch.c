#include "lib/net/udp_batch.h"

#include <errno.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <string.h>

#include "lib/net/loop.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

#define MESSAGE_SIZE  (RELAY_SCRATCH_SIZE / RELAY_UDP_BATCH)
#define SMALL         8192 /* a message worth asking for many at once */
#define PENDING_MAX   6    /* errors of others that one send takes from the socket */
#define REFUSALS_MAX  4    /* of runs that then pass singly, before UDP_SEGMENT is given up */
#define ERRORS_MAX    64   /* of the queue at once */
#define SOCKET_BUFFER (4 * 1024 * 1024)
#define IPV4_OVERHEAD 28 /* an IP and a UDP header */
#define IPV6_OVERHEAD 48
#define CONTROL_SIZE                                                                                         \
    (CMSG_SPACE(sizeof(int)) * 2 + CMSG_SPACE(sizeof(struct in6_pktinfo)) +                                  \
     CMSG_SPACE(sizeof(struct in_pktinfo)))

socklen_t relay_udp_address_size(const struct sockaddr *address)
{
    return address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

static void set(int fd, int level, int name, int value)
{
    /* Best effort: an old kernel without it only costs speed, or the caller's probe of the path MTU. */
    (void)setsockopt(fd, level, name, &value, sizeof(value));
}

void relay_udp_configure(int fd, int family, bool want_local, bool want_errors)
{
    /* Forced where we are privileged: the default net.core.rmem_max is far below a bandwidth-delay product.
     */
    set(fd, SOL_SOCKET, SO_RCVBUF, SOCKET_BUFFER);
    set(fd, SOL_SOCKET, SO_SNDBUF, SOCKET_BUFFER);
    set(fd, SOL_SOCKET, SO_RCVBUFFORCE, SOCKET_BUFFER);
    set(fd, SOL_SOCKET, SO_SNDBUFFORCE, SOCKET_BUFFER);
    set(fd, SOL_UDP, UDP_GRO, 1);
    if (family == AF_INET6) {
        set(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE);
        set(fd, IPPROTO_IPV6, IPV6_DONTFRAG, 1);
        set(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
        if (want_local)
            set(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
        if (want_errors)
            set(fd, IPPROTO_IPV6, IPV6_RECVERR, 1);
    }
    /* An IPv6 socket may carry IPv4-mapped addresses. */
    set(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE);
    set(fd, IPPROTO_IP, IP_RECVTOS, 1);
    if (want_local)
        set(fd, IPPROTO_IP, IP_PKTINFO, 1);
    if (want_errors)
        set(fd, IPPROTO_IP, IP_RECVERR, 1);
}

static void read_control(struct msghdr *header, struct relay_udp_message *message)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c != NULL; c = CMSG_NXTHDR(header, c)) {
        int value = 0;
        if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
            memcpy(&value, CMSG_DATA(c), sizeof(value));
            if (value > 0)
                message->segment = (size_t)value;
        } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS) {
            message->ecn = *CMSG_DATA(c) & 3;
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS) {
            memcpy(&value, CMSG_DATA(c), sizeof(value));
            message->ecn = (uint8_t)(value & 3);
        } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof(info));
            struct sockaddr_in *local = (struct sockaddr_in *)&message->local;
            local->sin_family = AF_INET;
            local->sin_addr = info.ipi_addr;
            /* The address to answer from is another one: only the kernel knows which ends in a broadcast. */
            message->is_to_many = info.ipi_addr.s_addr != info.ipi_spec_dst.s_addr;
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof(info));
            struct sockaddr_in6 *local = (struct sockaddr_in6 *)&message->local;
            local->sin6_family = AF_INET6;
            local->sin6_addr = info.ipi6_addr;
            message->is_to_many = IN6_IS_ADDR_MULTICAST(&info.ipi6_addr);
            if (IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr))
                local->sin6_scope_id = info.ipi6_ifindex;
        }
    }
}

int relay_udp_receive_next(const struct relay_udp_message *messages, int count, int most)
{
    if (count < most)
        return 0;
    return messages[count - 1].len < SMALL ? RELAY_UDP_BATCH : RELAY_UDP_FEW;
}

int relay_udp_receive(int fd, uint8_t *scratch, int most, struct relay_udp_message *messages)
{
    struct mmsghdr headers[RELAY_UDP_BATCH];
    struct iovec pieces[RELAY_UDP_BATCH];
    _Alignas(struct cmsghdr) uint8_t control[RELAY_UDP_BATCH][CONTROL_SIZE];
    int count;
    memset(headers, 0, sizeof(headers));
    for (int i = 0; i < most; i++) {
        pieces[i] = (struct iovec){scratch + (size_t)i * MESSAGE_SIZE, MESSAGE_SIZE};
        headers[i].msg_hdr = (struct msghdr){.msg_name = &messages[i].peer,
                                             .msg_namelen = sizeof(messages[i].peer),
                                             .msg_iov = &pieces[i],
                                             .msg_iovlen = 1,
                                             .msg_control = control[i],
                                             .msg_controllen = CONTROL_SIZE};
    }
    do
        count = recvmmsg(fd, headers, (unsigned)most, MSG_DONTWAIT, NULL);
    while (count < 0 && errno == EINTR);
    if (count < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
    for (int i = 0; i < count; i++) {
        messages[i].base = pieces[i].iov_base;
        messages[i].len = messages[i].segment = headers[i].msg_len;
        messages[i].ecn = 0;
        messages[i].is_to_many = false;
        memset(&messages[i].local, 0, sizeof(messages[i].local));
        read_control(&headers[i].msg_hdr, &messages[i]);
    }
    return count;
}

static struct cmsghdr *add_control(struct msghdr *header, struct cmsghdr *last, int level, int type,
                                   size_t size)
{
    struct cmsghdr *c = last == NULL ? CMSG_FIRSTHDR(header) : CMSG_NXTHDR(header, last);
    c->cmsg_level = level;
    c->cmsg_type = type;
    c->cmsg_len = CMSG_LEN(size);
    return c;
}

/* What an ICMP message can leave behind on a socket (Linux: icmp_err_convert and tab_unreach): the next call
 * fails with it. */
static bool may_be_pending(int error)
{
    static const int codes[] = {EMSGSIZE,  ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, EPROTO,
                                EHOSTDOWN, ENONET,       ENOPROTOOPT,  EOPNOTSUPP,  EACCES};
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
        if (codes[i] == error)
            return true;
    return false;
}

/* Returns 0 or errno. */
static int send_message(int fd, const struct msghdr *header, bool is_connected)
{
    for (int pending = 0;;) {
        if (sendmsg(fd, header, MSG_DONTWAIT) >= 0)
            return 0;
        if (errno != EINTR && (is_connected || !may_be_pending(errno) || ++pending == PENDING_MAX))
            return errno;
    }
}

/* One sendmsg; `segment` 0: a single datagram. Returns 0 or errno. */
static int send_once(int fd, const struct sockaddr *peer, const struct sockaddr *local, const uint8_t *bytes,
                     size_t len, size_t segment)
{
    struct iovec piece = {(void *)bytes, len};
    _Alignas(struct cmsghdr)
        uint8_t control[CMSG_SPACE(sizeof(uint16_t)) + CMSG_SPACE(sizeof(struct in6_pktinfo))] = {0};
    struct msghdr header = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control};
    struct cmsghdr *last = NULL;
    size_t used = 0;
    header.msg_controllen = sizeof(control);
    if (peer != NULL) {
        header.msg_name = (void *)peer;
        header.msg_namelen = relay_udp_address_size(peer);
    }
    if (segment > 0) {
        uint16_t size = (uint16_t)segment;
        last = add_control(&header, last, SOL_UDP, UDP_SEGMENT, sizeof(size));
        memcpy(CMSG_DATA(last), &size, sizeof(size));
        used += CMSG_SPACE(sizeof(size));
    }
    if (local != NULL && local->sa_family == AF_INET) {
        struct in_pktinfo info = {.ipi_spec_dst = ((const struct sockaddr_in *)local)->sin_addr};
        last = add_control(&header, last, IPPROTO_IP, IP_PKTINFO, sizeof(info));
        memcpy(CMSG_DATA(last), &info, sizeof(info));
        used += CMSG_SPACE(sizeof(info));
    } else if (local != NULL && local->sa_family == AF_INET6) {
        struct in6_pktinfo info = {.ipi6_addr = ((const struct sockaddr_in6 *)local)->sin6_addr,
                                   .ipi6_ifindex = ((const struct sockaddr_in6 *)local)->sin6_scope_id};
        last = add_control(&header, last, IPPROTO_IPV6, IPV6_PKTINFO, sizeof(info));
        memcpy(CMSG_DATA(last), &info, sizeof(info));
        used += CMSG_SPACE(sizeof(info));
    }
    header.msg_controllen = used;
    if (used == 0)
        header.msg_control = NULL;
    return send_message(fd, &header, peer == NULL);
}

/* What an errno of a datagram means: 0 stands for "gone, or lost like any datagram" (no route, no buffer in a
 * queue ...). */
static enum relay_udp_sent judge(int error)
{
    if (error == EAGAIN || error == EWOULDBLOCK)
        return RELAY_UDP_BLOCKED;
    if (error == ECONNREFUSED)
        return RELAY_UDP_REFUSED;
    return error == EMSGSIZE ? RELAY_UDP_TOO_BIG : RELAY_UDP_SENT;
}

static enum relay_udp_sent send_singly(int fd, const struct sockaddr *peer, const struct sockaddr *local,
                                       const uint8_t *run, size_t len, size_t segment, size_t *taken)
{
    enum relay_udp_sent result = RELAY_UDP_SENT;
    for (*taken = 0; *taken < len;) {
        size_t size = len - *taken < segment ? len - *taken : segment;
        enum relay_udp_sent sent = judge(send_once(fd, peer, local, run + *taken, size, 0));
        if (sent == RELAY_UDP_BLOCKED || sent == RELAY_UDP_REFUSED)
            return sent;
        if (sent == RELAY_UDP_TOO_BIG)
            result = sent;
        *taken += size;
    }
    return result;
}

enum relay_udp_sent relay_udp_send(int fd, struct relay_udp_gso *gso, const struct sockaddr *peer,
                                   const struct sockaddr *local, const uint8_t *run, size_t len,
                                   size_t segment, size_t *taken)
{
    *taken = 0;
    if (len <= segment || gso->is_off)
        return send_singly(fd, peer, local, run, len, segment, taken);
    int error = send_once(fd, peer, local, run, len, segment);
    if (error == EIO || error == EOPNOTSUPP || error == EMSGSIZE || error == EINVAL) {
        /* The run does not pass as one: the interface takes no GSO, or the path MTU has changed: then the
         * single ones fail too. */
        enum relay_udp_sent result = send_singly(fd, peer, local, run, len, segment, taken);
        if (result == RELAY_UDP_SENT && ++gso->refusals == REFUSALS_MAX)
            gso->is_off = true;
        return result;
    }
    enum relay_udp_sent result = judge(error);
    if (result == RELAY_UDP_SENT) {
        *taken = len;
        gso->refusals = 0;
    }
    return result;
}

size_t relay_udp_mtu(int fd, int family)
{
    int mtu = 0;
    socklen_t size = sizeof(mtu);
    int overhead = family == AF_INET6 ? IPV6_OVERHEAD : IPV4_OVERHEAD;
    int code = family == AF_INET6 ? getsockopt(fd, IPPROTO_IPV6, IPV6_MTU, &mtu, &size)
                                  : getsockopt(fd, IPPROTO_IP, IP_MTU, &mtu, &size);
    return code == 0 && mtu > overhead ? (size_t)(mtu - overhead) : 0;
}

static void read_extended(const uint8_t *control, uint32_t overhead, struct relay_udp_error *error)
{
    struct sock_extended_err extended;
    memcpy(&extended, control, sizeof(extended));
    error->code = (int)extended.ee_errno;
    error->is_icmp = extended.ee_origin == SO_EE_ORIGIN_ICMP || extended.ee_origin == SO_EE_ORIGIN_ICMP6;
    if (error->code == EMSGSIZE && extended.ee_info > overhead)
        error->mtu = extended.ee_info - overhead;
}

bool relay_udp_read_error(int fd, struct relay_udp_error *error)
{
    _Alignas(struct cmsghdr) uint8_t control[512];
    struct iovec piece = {error->quote, sizeof(error->quote)};
    struct relay_udp_message message = {.len = 0};
    memset(error, 0, sizeof(*error));
    struct msghdr header = {.msg_name = &error->peer,
                            .msg_namelen = sizeof(error->peer),
                            .msg_iov = &piece,
                            .msg_iovlen = 1,
                            .msg_control = control,
                            .msg_controllen = sizeof(control)};
    ssize_t len = recvmsg(fd, &header, MSG_ERRQUEUE | MSG_DONTWAIT);
    if (len < 0)
        return false;
    error->quote_len = (size_t)len;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&header); c != NULL; c = CMSG_NXTHDR(&header, c)) {
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_RECVERR)
            read_extended(CMSG_DATA(c), IPV4_OVERHEAD, error);
        else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_RECVERR)
            read_extended(CMSG_DATA(c), IPV6_OVERHEAD, error);
    }
    read_control(&header, &message);
    error->local = message.local;
    return true;
}

int relay_udp_read_errors(int fd, bool *too_big)
{
    struct relay_udp_error error;
    int last = 0;
    for (int i = 0; i < ERRORS_MAX && relay_udp_read_error(fd, &error); i++) {
        if (error.code == EMSGSIZE)
            *too_big = true;
        else if (error.code != 0)
            last = error.code;
    }
    return last;
}
