/* The first handler of the chain: verifies the token of a request that wants a tunnel. An ordinary GET
 * passes. */
#ifndef RELAY_MODULES_AUTH_H
#define RELAY_MODULES_AUTH_H

#include <h2o.h>

/* Appends the handler to a path. Called at startup for every path of every host; whether a token is needed is
 * read from the snapshot of each request (`auth_off` can change with a reload). */
void relay_auth_register(h2o_pathconf_t *path);

#endif
