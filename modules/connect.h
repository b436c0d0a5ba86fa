/* The handler of CONNECT: a TCP target. */
#ifndef RELAY_MODULES_CONNECT_H
#define RELAY_MODULES_CONNECT_H

#include <stddef.h>
#include <h2o.h>

/* Appends the handler to a path. Called at startup for every path of every host, also when the file does not
 * switch it on: it returns -1 for every request while snapshot->num_connect <= policy_index, and
 * snapshot->connect[policy_index] judges else. */
void relay_connect_register(h2o_pathconf_t *path, size_t policy_index);

#endif
