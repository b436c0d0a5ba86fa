/* What carries a QUIC connection's packets: a real UDP socket, or one CONNECT-UDP tunnel of the hop before.
 *
 * The path under a living connection can be replaced: when an ingress dies, the client goes through another
 * one and no tunnel of hop 2 is lost.
 */
#ifndef RELAY_NET_PACKET_PATH_H
#define RELAY_NET_PACKET_PATH_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

struct relay_packet_path;

/* Above: the QUIC connection. None of these is called from inside a call that the user made. */
struct relay_packet_path_user {
    /* A packet has come; its bytes live only during the call. `ecn` is the IP header's two bits. */
    void (*on_packet)(void *user, uint8_t *packet, size_t len, uint8_t ecn);
    /* There is room again: mark the connection dirty; never write here. */
    void (*on_writable)(void *user);
    /* mtu() has changed: mark dirty. */
    void (*on_mtu)(void *user);
    /* Once: the path is dead (RELAY_ERR_REFUSED after an ICMP refusal, _UNREACHABLE, _CLOSED). The
     * connection may live on over another path. The user still calls close. */
    void (*on_close)(void *user, int error);
};

struct relay_packet_path_ops {
    /* Whole packets of `segment` bytes each (the last may be shorter). Returns the bytes taken; less than
     * len: blocked, the caller keeps the rest until on_writable. */
    size_t (*send)(struct relay_packet_path *path, const uint8_t *run, size_t len, size_t segment);
    /* The largest packet it takes now; 0: none yet. Read for every packet: the inner connection shrinks at
     * once. */
    size_t (*mtu)(struct relay_packet_path *path);
    /* The bytes it takes now; asked before every packet, because ngtcp2 commits a packet when it writes
     * it. */
    size_t (*room)(struct relay_packet_path *path);
    /* Ends it; no callback comes after. */
    void (*close)(struct relay_packet_path *path);
    /* Only its `user` hears of it from now on, not whoever opened it, who may be gone. NULL: nobody else does. */
    void (*detach)(struct relay_packet_path *path);
};

/* The head of every kind of path. `local` and `peer` are what QUIC takes for the path's addresses; a
 * tunnel path makes its local one up, a new one for each path, so that a replacement is a migration. */
struct relay_packet_path {
    const struct relay_packet_path_ops *ops;
    const struct relay_packet_path_user *cb;
    void *user;
    struct sockaddr_storage local, peer;
};

#endif
