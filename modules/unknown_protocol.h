/* The last handler of the chain: a request for a tunnel that no module took. */
#ifndef RELAY_MODULES_UNKNOWN_PROTOCOL_H
#define RELAY_MODULES_UNKNOWN_PROTOCOL_H

#include <h2o.h>

/* Appends the handler to a path, behind every other one of ours. A :protocol or Upgrade token (or a path)
 * that nobody knows gets 501 (RFC 9220 section 3), a CONNECT where none is configured 403. Ordinary requests
 * pass. */
void relay_unknown_protocol_register(h2o_pathconf_t *path);

#endif
