/* How a question to c-ares ended, one of its ARES_* codes or RELAY_RESOLVER_NO_DESCRIPTORS, and what that means: the
 * response code, the error, and which of two endings tells more. */
#ifndef RELAY_NET_RESOLVER_STATUS_H
#define RELAY_NET_RESOLVER_STATUS_H

#include <stdbool.h>

/* No socket could be opened: nobody was asked. Beside c-ares' own codes, which are not negative. */
#define RELAY_RESOLVER_NO_DESCRIPTORS (-2)

/* RFC 1035 section 4.1.1. */
enum { RELAY_RCODE_NOERROR = 0, RELAY_RCODE_SERVFAIL = 2, RELAY_RCODE_NXDOMAIN = 3 };

/* What c-ares says of a question that has just ended. It tells no lack of descriptors from a server that refuses
 * (ARES_ECONNREFUSED): while there are none for it (lib/net/reserve.h), that was the reason. */
int relay_resolver_status_of(int ares_status);

/* -1: no answer came. */
int relay_resolver_status_rcode(int status);
/* RELAY_ERR_DNS, _DNS_TIMEOUT or _NO_DESCRIPTORS, of a name without addresses. */
int relay_resolver_status_error(int status);
/* RFC 2308: NXDOMAIN and "no such data" are answers, and so are addresses. */
bool relay_resolver_status_is_answer(int status);
/* Neither family has an address: which of the two endings tells more? A denial first, then silence, then a
 * failure. */
int relay_resolver_status_worse(int a, int b);

#endif
