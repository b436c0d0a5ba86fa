/* What a relay's answer outside 2xx says: whose fault it is, and why (RFC 9209). A plain value without
 * pointers. */
#ifndef RELAY_NET_REFUSAL_H
#define RELAY_NET_REFUSAL_H

#include <stdbool.h>

#include "lib/net/http.h"
#include "lib/wire/proxy_status.h"

struct relay_refusal {
    int status;
    /* RELAY_ERR_*: of the Proxy-Status error type when there is a known one, else by the status. 401 and 407
     * are always RELAY_ERR_UNAUTHORIZED. */
    int error;
    struct relay_proxy_status proxy_status; /* empty: not sent, or malformed */
};

void relay_refusal_read(struct relay_refusal *refusal, const struct relay_response *response);

#endif
