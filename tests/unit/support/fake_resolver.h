/* A resolver of the test's making: it is linked in the place of lib/net/resolver.c. env->resolver may be NULL
 * or anything. */
#ifndef RELAY_TESTS_FAKE_RESOLVER_H
#define RELAY_TESTS_FAKE_RESOLVER_H

#include "lib/net/resolver.h"

struct fake_name {
    const char *name;
    int error, rcode;
    const char *addresses[8]; /* NULL-terminated */
    bool is_silent;           /* never answers */
    bool has_late;            /* the addresses are not all; `late` come `late_after` ns later */
    const char *late[8];
    uint64_t late_after;
};

/* The zone, its last entry has no name; a name that is not in it gives NXDOMAIN. Lives as long as it is used.
 */
void fake_resolver_init(struct relay_loop *loop, const struct fake_name *zone);
/* How many were asked, and how many of those wait. */
unsigned fake_resolver_asked(void);
unsigned fake_resolver_pending(void);

#endif
