/* A local UDP socket whose datagrams go through the chain: one CONNECT-UDP tunnel for each pair of source and
 * target.
 *
 * Either all go to one target (a forward), or each has the head of a SOCKS5 datagram that names its target
 * (an association). A tunnel ends after RELAY_UDP_FRONT_IDLE without a datagram either way; when there are too
 * many, the quietest makes room for a new one if it was quiet for RELAY_UDP_FRONT_YIELD. While a tunnel is being
 * opened the first datagrams wait; what is too big for the path, and what comes when no tunnel makes room, is
 * dropped and counted. Both ways datagrams go in runs: what one read brings for a tunnel is one
 * run, and what tunnels bring in one turn leaves at its end. When the chain is blocked by its congestion window the
 * socket is not read, as dropping costs the connection inside most of its speed.
 */
#ifndef RELAY_CLIENT_UDP_FRONT_H
#define RELAY_CLIENT_UDP_FRONT_H

#include "client/chain.h"

#define RELAY_UDP_FRONT_IDLE        (120 * RELAY_SECOND) /* RFC 9298 section 3.1: at least two minutes */
#define RELAY_UDP_FRONT_YIELD       (5 * RELAY_SECOND) /* one who waits for an answer does not wait longer */
#define RELAY_UDP_FRONT_FLOWS_MAX   256
#define RELAY_UDP_FRONT_EARLY_MAX   8 /* datagrams that wait for their tunnel; runs, for room in it */
#define RELAY_UDP_FRONT_EARLY_BYTES 65536

struct relay_udp_front;

struct relay_udp_front_config {
    struct relay_loop *loop;
    struct relay_chain *chain;
    struct sockaddr_storage local; /* port 0: the kernel's choice */
    bool is_socks;                 /* else all goes to host:port */
    struct relay_host host;
    uint16_t port;
    struct relay_address
        source; /* is_socks: only datagrams from this address, and from the port of the first of them */
};

/* NULL with errno. `*local` (may be NULL) is where it is bound. */
struct relay_udp_front *relay_udp_front_new(const struct relay_udp_front_config *config,
                                            struct sockaddr_storage *local);
/* Closes the socket and ends its tunnels. */
void relay_udp_front_close(struct relay_udp_front *front);

#endif
