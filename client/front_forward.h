/* Fixed forwards: a local TCP or UDP port that stands for one target behind the chain. */
#ifndef RELAY_CLIENT_FRONT_FORWARD_H
#define RELAY_CLIENT_FRONT_FORWARD_H

#include "client/front.h"
#include "client/udp_front.h"

/* Zeroed before. */
struct relay_front_forward {
    struct relay_front tcp; /* first */
    const struct relay_forward_config *config;
    struct relay_udp_front *udp;     /* when the configuration says so */
    struct sockaddr_storage address; /* where it listens */
};

/* 0, or an error with the reason in `text`. */
int relay_front_forward_listen(struct relay_front_forward *forward, struct relay_loop *loop,
                               struct relay_chain *chain, const struct relay_forward_config *config,
                               char *text, size_t size);
void relay_front_forward_stop(struct relay_front_forward *forward);

#endif
