/* The directives of what a peer may cost us. */
#ifndef RELAY_MODULES_LIMITS_CONFIG_H
#define RELAY_MODULES_LIMITS_CONFIG_H

#include "modules/directive.h"

extern const struct relay_directive relay_limits_directives[];

/* Checks limits against each other. NULL, or the name of the directive that is out of place and in *expected
 * what it should be. */
const char *relay_limits_config_check(const struct relay_snapshot *snapshot, const char **expected);

#endif
