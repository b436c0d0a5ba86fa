/* Batched UDP on one socket: recvmmsg with UDP_GRO, sendmsg with UDP_SEGMENT, path MTU and ECN. What a QUIC
 * client's path, a QUIC endpoint and a UDP flow have in common; it holds no buffer and no state but
 * `relay_udp_gso`.
 */
#ifndef RELAY_NET_UDP_BATCH_H
#define RELAY_NET_UDP_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "lib/net/loop.h"

#define RELAY_UDP_SEGMENTS_MAX 64    /* of one UDP_SEGMENT send */
#define RELAY_UDP_RUN_MAX      65000 /* and its bytes */
#define RELAY_UDP_BATCH        8     /* messages of one recvmmsg: as many 64 KiB buffers as scratch holds */
#define RELAY_UDP_QUOTE        32    /* of a payload in an error: holds a QUIC packet's connection ID */

/* Sets what is best effort on a fresh UDP socket: GRO, DF without the kernel's own fragmentation
 * (IP_PMTUDISC_PROBE), the ECN bits of what comes, 4 MiB buffers. `want_local`: also the destination address
 * of what comes (a socket on a wildcard address); `want_errors`: the error queue. */
void relay_udp_configure(int fd, int family, bool want_local, bool want_errors);

/* One received message: `segment` bytes per datagram, the last may be shorter. `local` has no port; ss_family
 * AF_UNSPEC: not known. */
struct relay_udp_message {
    uint8_t *base;
    size_t len, segment;
    uint8_t ecn;
    bool is_to_many; /* `local` is known, and a multicast or broadcast address */
    struct sockaddr_storage peer, local;
};

/* Up to `most` (at most RELAY_UDP_BATCH) messages into scratch (64 KiB each). Returns their number, 0:
 * nothing there, or -errno. */
int relay_udp_receive(int fd, uint8_t *scratch, int most, struct relay_udp_message *messages);
/* How many to ask for in the next call, after `most` were asked for and `count` came: few where GRO makes
 * them large, so that they are still in the core's cache when they are decrypted (12 % of all CPU), many
 * where they are small. 0: the socket is empty, or failed. Begin with RELAY_UDP_FEW. */
#define RELAY_UDP_FEW 2
int relay_udp_receive_next(const struct relay_udp_message *messages, int count, int most);

/* Whether the socket's interface takes UDP_SEGMENT. Zero is a good start. */
struct relay_udp_gso {
    bool is_off;
    uint8_t refusals; /* in a row, of runs that passed singly: one may have been another's ICMP message */
};

enum relay_udp_sent {
    RELAY_UDP_SENT,    /* all bytes are gone (some datagrams may have been lost) */
    RELAY_UDP_BLOCKED, /* the socket's buffer is full: *taken bytes, whole datagrams, are gone */
    RELAY_UDP_TOO_BIG, /* all gone, but datagrams were above the path MTU: read it anew (relay_udp_mtu) */
    RELAY_UDP_REFUSED  /* ECONNREFUSED from an earlier datagram; *taken bytes are gone */
};

/* Sends a run of datagrams of `segment` bytes (the last may be shorter; at most RELAY_UDP_SEGMENTS_MAX and
 * RELAY_UDP_RUN_MAX). `peer` NULL: the socket is connected. `local`: the source address, NULL or AF_UNSPEC:
 * the kernel's choice. When the kernel refuses the run as one it goes out singly. An ICMP message about
 * another peer's datagram makes the next call on an unconnected socket fail, whoever that is for: it is
 * tried again. */
enum relay_udp_sent relay_udp_send(int fd, struct relay_udp_gso *gso, const struct sockaddr *peer,
                                   const struct sockaddr *local, const uint8_t *run, size_t len,
                                   size_t segment, size_t *taken);

/* The largest UDP payload that the kernel thinks the path of a connected socket carries now; 0: not known. */
size_t relay_udp_mtu(int fd, int family);

/* One entry of the error queue. */
struct relay_udp_error {
    int code;     /* an errno: EMSGSIZE, ECONNREFUSED, EHOSTUNREACH ... */
    bool is_icmp; /* a router or the peer is said to have told it: anybody can. Else the kernel refused */
    size_t mtu;   /* EMSGSIZE: the UDP payload that passes, as told; may be 0 */
    struct sockaddr_storage peer, local; /* of the datagram that failed; local: as in a message */
    uint8_t quote[RELAY_UDP_QUOTE];      /* the beginning of its payload: what ICMP quotes, often nothing */
    size_t quote_len;
};
/* True: the oldest entry is taken from the queue. */
bool relay_udp_read_error(int fd, struct relay_udp_error *error);
/* Empties the error queue; returns the last error's errno (ECONNREFUSED, EHOSTUNREACH ...) or 0. EMSGSIZE
 * sets *too_big. */
int relay_udp_read_errors(int fd, bool *too_big);

socklen_t relay_udp_address_size(const struct sockaddr *address);

#endif
