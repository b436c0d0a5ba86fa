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

/* The other way round: the Proxy-Status of what a session refuses by itself, before anyone has seen the
 * request. */
struct relay_refusal_field {
    struct relay_field field;
    char value[RELAY_PROXY_STATUS_SIZE];
};
/* How many fields there are: 1, or 0 when it has no name or the error has no type. */
size_t relay_refusal_write(struct relay_refusal_field *field, const char *proxy_name, int error);

#endif
