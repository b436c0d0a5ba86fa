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
#define RELAY_RESOLUTION_DELAY       (50 * RELAY_MS) /* what RFC 8305 section 8 recommends */

#define RELAY_RESOLVER_QUERIES_MAX 4096 /* names on their way; the next lookup gets RELAY_ERR_LIMIT */

struct relay_resolver;

struct relay_resolver_config {
    const char *servers;    /* "192.0.2.1:53,[2001:db8::1]:53"; NULL: the system's (resolv.conf) */
    uint64_t timeout;       /* ns for a whole lookup; 5 s */
    size_t cache_names;     /* entries kept; 10 000 */
    const char *hosts_file; /* lives as long as the resolver; a name that is in it is not asked of DNS. NULL:
                               none. For names that our own side chose: it is read, without regard to the time
                               that takes, whenever a name is not in the cache, where a find stays for 10 s */
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
    int error; /* RELAY_OK, RELAY_ERR_DNS, RELAY_ERR_DNS_TIMEOUT, RELAY_ERR_NO_DESCRIPTORS (for the questions),
                  RELAY_ERR_LIMIT, RELAY_ERR_NO_MEMORY */
    int rcode;
    /* What was not told before, sorted by RFC 6724 (IPv6 and IPv4 as the system prefers them). */
    const struct relay_address *addresses;
    size_t num_addresses;
    bool is_final; /* false: the other family's answer is to come */
    uint64_t took; /* ns until the first telling; 0 from the cache */
};

/* Who pays for the names that are asked of DNS for its lookups. While half of the resolver's places are free it may hold
 * as many as it asks for, then fewer than an eighth of those that are still free, or one; the next lookup gets
 * RELAY_ERR_LIMIT. So those who ask for much leave room for those who ask for little.
 *
 * c-ares cannot cancel a question: when the lookup that began it has been cancelled, or told at its limit of time, it
 * goes on for up to the limit of time and holds its place. Such names are counted here, so that their owner can be
 * bounded. Zeroed but for on_end; outlives `orphans`. */
struct relay_lookup_payer {
    unsigned names;   /* on their way, those whose lookup has gone among them */
    unsigned orphans; /* names on their way whose lookup has gone */
    void (*on_end)(
        struct relay_lookup_payer *payer); /* one of them less; nothing may be asked or cancelled in it */
};

/* Embedded by who asks. on_resolved comes from a task, never from inside relay_resolver_ask; the result lives
 * during the call. It comes once, with is_final; or, when one family's answer is much later than the other's
 * (RFC 8305 section 3), twice: first with the early family and without is_final, and then with the late one,
 * RELAY_OK and maybe no address, not after the resolver's limit of time. IPv6 addresses do not wait for IPv4,
 * IPv4 addresses wait `resolution_delay` for IPv6; the answer that there are none waits for the other one. One
 * that was told without is_final still asks: it must be cancelled before it may ask again. */
struct relay_lookup {
    void (*on_resolved)(struct relay_lookup *lookup, const struct relay_resolution *resolution);
    uint64_t resolution_delay; /* ns; of several that ask for one name at once the first one's counts */
    struct relay_lookup_payer *payer; /* NULL: nobody's */
    /* private */
    void *query;
    bool is_told; /* of the early family */
    struct relay_lookup *prev, *next;
};

void relay_resolver_ask(struct relay_resolver *resolver, struct relay_lookup *lookup, const char *name);
/* No callback comes after. Fine on one that was told all or never asked (zeroed). */
void relay_lookup_cancel(struct relay_lookup *lookup);

/* "NOERROR", "NXDOMAIN", ...; NULL for -1 and unknown codes. */
const char *relay_rcode_name(int rcode);

#endif
