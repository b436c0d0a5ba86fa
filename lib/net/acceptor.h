/* Accepts connections from a listening stream socket, TCP or unix. Running out of descriptors never spins: a
 * spare descriptor is given up to accept and close those who wait, up to 256 at a time and for 10 ms, so that they
 * are told at once; then accepting pauses for 100 ms (T74). */
#ifndef RELAY_NET_ACCEPTOR_H
#define RELAY_NET_ACCEPTOR_H

#include <sys/socket.h>

#include "lib/net/loop.h"

struct relay_acceptor;

/* The descriptor is the callee's: non-blocking, TCP_NODELAY set where it is TCP. It may close the acceptor.
 */
typedef void (*relay_accept_cb)(void *user, int fd, const struct sockaddr_storage *peer);

/* Binds and listens: 0 or -errno. With `share` SO_REUSEPORT. *fd is non-blocking. Port 0 is replaced in
 * *address by the kernel's choice. */
int relay_acceptor_bind(struct sockaddr_storage *address, bool share, int *fd);
/* Takes `fd`, also when it fails (NULL: out of memory or descriptors). */
struct relay_acceptor *relay_acceptor_new(struct relay_loop *loop, int fd, relay_accept_cb cb, void *user);
/* From now on it accepts only into descriptors below this number, as if there were no others: what is accepted
 * needs some too. Without this call it takes all there are. */
void relay_acceptor_keep_below(struct relay_acceptor *acceptor, int descriptor);
/* Stops, closes and frees. */
void relay_acceptor_close(struct relay_acceptor *acceptor);

#endif
