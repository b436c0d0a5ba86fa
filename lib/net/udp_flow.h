/* A connected UDP socket to one target: GRO receive, GSO send, DF set, ECN cleared. The connect-udp
 * module's target side and the client's forwards. */
#ifndef RELAY_NET_UDP_FLOW_H
#define RELAY_NET_UDP_FLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "lib/net/loop.h"
#include "lib/net/tunnel.h"

struct relay_udp_flow;

struct relay_udp_flow_user {
    /* A run of datagrams has come; it lives during the call. Returns how it fared: after RELAY_BLOCKED the
     * flow keeps what is left in the run (at most 128 datagrams or 256 KiB, the rest stays in the socket)
     * and reads no more until resume. */
    enum relay_sent (*on_datagrams)(void *user, struct relay_run *run);
    /* The socket is unusable: ECONNREFUSED `refused_max` times without anything received in between, or
     * another hard error. Once; the user closes the flow. */
    void (*on_close)(void *user, int error);
};

/* Opens and connects the socket: 0 or RELAY_ERR_UNREACHABLE, _NO_DESCRIPTORS, _NO_MEMORY. */
int relay_udp_flow_new(struct relay_loop *loop, const struct sockaddr *target,
                       const struct relay_udp_flow_user *cb, void *user, struct relay_udp_flow **flow);
/* Copies into the send buffer, which leaves as few GSO sends as possible at the end of the turn; what has left
 * is counted (datagrams_in, udp_bytes_in). What the path to the target cannot carry is dropped and counted
 * (drop_target_too_big), and so is what the socket's buffer refuses (drop_socket) or comes after on_close
 * (drop_closed). */
void relay_udp_flow_send(struct relay_udp_flow *flow, const struct relay_run *run);
/* The tunnel has room again. */
void relay_udp_flow_resume(struct relay_udp_flow *flow);
/* No callback comes after. What the target sent and nobody took is counted: drop_closed, or drop_target_full
 * when the socket's buffer had no room for it (which is counted while the flow lives, too). */
void relay_udp_flow_close(struct relay_udp_flow *flow);

/* ns, when something was last received from the target; 0: never. */
uint64_t relay_udp_flow_last_received(const struct relay_udp_flow *flow);

#endif
