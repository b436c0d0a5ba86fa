#include "lib/net/resolver_status.h"

#include <ares.h>
#include <stddef.h>

#include "lib/net/reserve.h"
#include "lib/wire/error.h"

int relay_resolver_status_of(int ares_status)
{
    return ares_status == ARES_ECONNREFUSED && relay_reserve_is_reached() ? RELAY_RESOLVER_NO_DESCRIPTORS
                                                                          : ares_status;
}

int relay_resolver_status_rcode(int status)
{
    switch (status) {
    case ARES_SUCCESS:
    case ARES_ENODATA:
        return RELAY_RCODE_NOERROR;
    case ARES_EFORMERR:
        return 1;
    case ARES_ESERVFAIL:
        return RELAY_RCODE_SERVFAIL;
    case ARES_ENOTFOUND:
        return RELAY_RCODE_NXDOMAIN;
    case ARES_ENOTIMP:
        return 4;
    case ARES_EREFUSED:
        return 5;
    default:
        return -1;
    }
}

int relay_resolver_status_error(int status)
{
    if (status == RELAY_RESOLVER_NO_DESCRIPTORS)
        return RELAY_ERR_NO_DESCRIPTORS;
    return status == ARES_ETIMEOUT ? RELAY_ERR_DNS_TIMEOUT : RELAY_ERR_DNS;
}

bool relay_resolver_status_is_answer(int status)
{
    return status == ARES_SUCCESS || status == ARES_ENODATA || status == ARES_ENOTFOUND;
}

int relay_resolver_status_worse(int a, int b)
{
    static const int order[] = {ARES_ENOTFOUND, ARES_ETIMEOUT, ARES_ESERVFAIL, ARES_EREFUSED};
    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
        if (a == order[i] || b == order[i])
            return order[i];
    return a == ARES_ENODATA || a == ARES_SUCCESS ? b : a;
}
