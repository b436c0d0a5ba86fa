/* The order in which the handlers of the relay are asked about a request. */
#ifndef RELAY_SERVER_CONFIG_CHAIN_H
#define RELAY_SERVER_CONFIG_CHAIN_H

#include <h2o.h>

#include "modules/snapshot.h"

/* Puts the chain in front of the stock handlers (the file handler would answer 405 to a CONNECT) of every
 * path of every host, the catch-all path included. Not only "/": a path template may lie below a path that
 * the file configures. */
void relay_config_chain_register(h2o_globalconf_t *conf, const struct relay_snapshot *snapshot);

#endif
