/* The requests that open a tunnel through a hop, with its token. */
#ifndef RELAY_CLIENT_HOP_REQUEST_H
#define RELAY_CLIENT_HOP_REQUEST_H

#include "client/config.h"
#include "lib/net/http.h"

#define RELAY_REQUEST_PATH_SIZE 2048

/* A request and the memory behind it; do not copy it. Wipe it when it was sent: the token is in it. */
struct relay_hop_request {
    struct relay_request head;
    struct relay_field fields[2];
    char authority[RELAY_AUTHORITY_SIZE], path[RELAY_REQUEST_PATH_SIZE], credential[RELAY_TOKEN_MAX + 8];
};

/* CONNECT (RFC 9110 section 9.3.6), or CONNECT-UDP (RFC 9298) by the template of `place`. 0 or
 * RELAY_ERR_TOO_BIG. */
int relay_hop_request_init(struct relay_hop_request *request, const struct relay_hop_config *config,
                           const struct relay_hop_place *place, bool is_udp, const struct relay_host *host,
                           uint16_t port);
void relay_hop_request_wipe(struct relay_hop_request *request);

#endif
