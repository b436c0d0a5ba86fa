/* Name resolution on a worker's loop: c-ares, with the response code kept, a bounded cache and one limit
 * of time. */
#ifndef RELAY_NET_RESOLVER_H
#define RELAY_NET_RESOLVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/net/loop.h"
#include "lib/wire/address.h"

#define RELAY_RESOLVER_ADDRESSES_MAX 32 /* of one name, both families together; the rest is not looked at */

struct relay_resolver;

struct relay_resolver_config {
    const char *servers; /* "192.0.2.1:53,[2001:db8::1]:53"; NULL: the system's (resolv.conf) */
    uint64_t timeout;    /* ns for a whole lookup; 5 s */
    size_t cache_names;  /* entries kept; 10 000 */
};

/* NULL: out of memory, or `servers` cannot be parsed. */
struct relay_resolver *relay_resolver_new(struct relay_loop *loop,
                                          const struct relay_resolver_config *config);
/* Every lookup must have been cancelled or told before. */
void relay_resolver_free(struct relay_resolver *resolver);
/* The addresses of the servers it asks (for the policy: port 53 is allowed to these only). Returns how
 * many. */
size_t relay_resolver_servers(const struct relay_resolver *resolver, struct relay_address *out, size_t size);

/* RFC 1035 section 4.1.1 response codes: 0 NOERROR, 2 SERVFAIL, 3 NXDOMAIN ...; -1 when no answer came. */
struct relay_resolution {
    int error; /* RELAY_OK, RELAY_ERR_DNS, RELAY_ERR_DNS_TIMEOUT */
    int rcode;
    const struct relay_address *addresses; /* sorted by RFC 6724 (IPv6 and IPv4 as the system prefers them) */
    size_t num_addresses;
    uint64_t took; /* ns; 0 from the cache */
};

/* Embedded by who asks. on_resolved comes once, from a task, never from inside relay_resolver_ask; the
 * result lives during the call. */
struct relay_lookup {
    void (*on_resolved)(struct relay_lookup *lookup, const struct relay_resolution *resolution);
    /* private */
    void *query;
    struct relay_lookup *prev, *next;
};

void relay_resolver_ask(struct relay_resolver *resolver, struct relay_lookup *lookup, const char *name);
/* No callback comes after. Fine on one that was told or never asked (zeroed). */
void relay_lookup_cancel(struct relay_lookup *lookup);

/* "NOERROR", "NXDOMAIN", ...; NULL for -1 and unknown codes. */
const char *relay_rcode_name(int rcode);

#endif
