/* The directives of authentication. */
#ifndef RELAY_MODULES_AUTH_CONFIG_H
#define RELAY_MODULES_AUTH_CONFIG_H

#include "modules/directive.h"

extern const struct relay_directive relay_auth_directives[];

#endif
