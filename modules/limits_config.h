/* The directives of what a peer may cost us. */
#ifndef RELAY_MODULES_LIMITS_CONFIG_H
#define RELAY_MODULES_LIMITS_CONFIG_H

#include "modules/directive.h"

extern const struct relay_directive relay_limits_directives[];

/* A limit that is out of place. When it is not written, but has its default, the one that does not go with it is:
 * `other`, of which `other_expected` is to be said (NULL: it does not depend on another one). */
struct relay_limits_fault {
    const char *name, *expected;
    const char *other, *other_expected;
};

/* Checks limits against each other. NULL, or the first fault. */
const struct relay_limits_fault *relay_limits_config_check(const struct relay_snapshot *snapshot);

#endif
