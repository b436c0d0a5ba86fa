/* The directives of the process itself: role, threads, user, files, administration, resolver, listeners. All
 * but `role` and `proxy-name`, which the snapshot carries, are fixed until a restart. */
#ifndef RELAY_SERVER_CONFIG_PROCESS_H
#define RELAY_SERVER_CONFIG_PROCESS_H

#include "modules/directive.h"
#include "server/config.h"

extern const struct relay_directive relay_process_directives[];
extern const struct relay_directive relay_listen_directives[]; /* config_listen.c */

/* The configuration under construction, in which ctx->globalconf is embedded. */
static inline struct relay_config *relay_config_of(h2o_configurator_context_t *ctx)
{
    return (struct relay_config *)ctx->globalconf;
}

/* CPUs this process may run on: the default of num-threads. */
uint32_t relay_config_cpus(void);

#endif
