/* What the local fronts share: the TCP listeners and the count of their connections. */
#ifndef RELAY_CLIENT_FRONT_H
#define RELAY_CLIENT_FRONT_H

#include "client/chain.h"

#define RELAY_FRONT_CONNECTIONS_MAX 4096
/* Descriptors that applications leave to the hops, or a quarter of all when that is fewer: an ingress that has died or
 * fallen silent is replaced by another while all tunnels live. */
#define RELAY_FRONT_RESERVE 32

struct relay_acceptor;

/* A listener; embedded by a front, zeroed before. */
struct relay_front {
    struct relay_chain *chain;
    struct relay_loop *loop;
    struct relay_acceptor *acceptor;
    struct sockaddr_storage address; /* where it listens, with the kernel's choice of the port */
    void (*on_accept)(struct relay_front *front, int fd, const struct sockaddr_storage *peer);
    size_t num_connections; /* counted by the front; above the maximum no more are accepted */
};

/* Listens: 0, or an error with the reason in `text`. */
int relay_front_listen(struct relay_front *front, struct relay_loop *loop, struct relay_chain *chain,
                       const struct sockaddr_storage *address, char *text, size_t size);
/* No more connections; those that are there live on. Fine on zeroed memory. */
void relay_front_stop(struct relay_front *front);

/* The three that listen on TCP; each makes its own connections from then on. */
int relay_front_http_listen(struct relay_front *front, struct relay_loop *loop, struct relay_chain *chain,
                            const struct sockaddr_storage *address, char *text, size_t size);
int relay_front_socks_listen(struct relay_front *front, struct relay_loop *loop, struct relay_chain *chain,
                             const struct sockaddr_storage *address, char *text, size_t size);

#endif
