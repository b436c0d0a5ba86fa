/* Which worker a packet belongs to: a keyed hash of the first four bytes of its Destination Connection ID,
 * which the kernel computes too (cBPF on the SO_REUSEPORT group). Connection IDs stay random: a worker issues
 * one only when it hashes to itself, so an observer cannot tell which ones belong together (RFC 9000
 * section 5.1).
 */
#ifndef RELAY_NET_QUIC_STEERING_H
#define RELAY_NET_QUIC_STEERING_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

struct relay_quic_steering {
    uint32_t secret; /* odd */
    unsigned workers;
};

/* `cid` has at least four bytes; a shorter one belongs to worker 0. */
unsigned relay_quic_steering_worker(const struct relay_quic_steering *steering, const uint8_t *cid,
                                    size_t len);
/* A random connection ID of `len` >= 4 bytes that hashes to the worker. */
void relay_quic_steering_issue(const struct relay_quic_steering *steering, unsigned worker, uint8_t *cid,
                               size_t len);

/* Opens the group of an address: one UDP socket per worker in fds, in the workers' order, bound to it (port
 * 0: the kernel chooses one for all, and *address is updated), configured, and steered. Never close one of
 * them alone: the last moves into its slot. 0, or RELAY_ERR_NO_DESCRIPTORS, _DENIED (the port is privileged),
 * _UNREACHABLE (no such address), _LIMIT (in use), _INVALID; no descriptor is left open then. */
int relay_quic_steering_bind(const struct relay_quic_steering *steering, struct sockaddr_storage *address,
                             int *fds);

#endif
