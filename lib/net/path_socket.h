/* A packet path (packet_path.h) over a connected UDP socket of its own: hop 1 of a client. */
#ifndef RELAY_NET_PATH_SOCKET_H
#define RELAY_NET_PATH_SOCKET_H

#include <sys/socket.h>

#include "lib/net/loop.h"
#include "lib/net/packet_path.h"

/* Opens and connects the socket; `local` NULL: the kernel chooses. The path belongs to whoever closes it; set
 * its cb and user (relay_quic_connect and _migrate do) in the same turn. 0 or RELAY_ERR_UNREACHABLE,
 * _NO_DESCRIPTORS, _NO_MEMORY, _INVALID. */
int relay_path_socket_new(struct relay_loop *loop, const struct sockaddr *peer, const struct sockaddr *local,
                          struct relay_packet_path **path);
/* For a connection that has worked on another socket: from now on only "nobody listens there" ends the path. */
void relay_path_socket_trust(struct relay_packet_path *path);

#endif
