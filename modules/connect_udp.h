/* The handler of CONNECT-UDP (RFC 9298): a UDP target named by the path. */
#ifndef RELAY_MODULES_CONNECT_UDP_H
#define RELAY_MODULES_CONNECT_UDP_H

#include <stddef.h>
#include <h2o.h>

/* Appends the handler to a path. Called at startup for every path of every host and for every template of
 * `proxy.connect-udp.template`: snapshot->connect_udp[policy_index] holds the template and judges. It returns
 * -1 for every request while snapshot->num_connect_udp <= policy_index. Before it answers 400 because its
 * template calls a path invalid it must see that no later policy's template matches. */
void relay_connect_udp_register(h2o_pathconf_t *path, size_t policy_index);

#endif
