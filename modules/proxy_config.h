/* The directives of connect and connect-udp: access lists, template, relays, timeouts. */
#ifndef RELAY_MODULES_PROXY_CONFIG_H
#define RELAY_MODULES_PROXY_CONFIG_H

#include "modules/directive.h"

/* The policy does not depend on host or path: a client chooses its :authority freely, and a CONNECT has none
 * of ours. So each directive may stand at global, host or path level, once in the file, and holds everywhere.
 */
extern const struct relay_directive relay_proxy_directives[];

/* After the file is read and the role is known: the default template, one policy for each template, and at an
 * ingress without a list the rules that admit `relays:` and nothing else. 0 or RELAY_ERR_NO_MEMORY. */
int relay_proxy_config_finish(struct relay_snapshot *snapshot);

#endif
