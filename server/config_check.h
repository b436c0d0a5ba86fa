/* What no single directive can see: what is missing, what contradicts, what of h2o's own language has no
 * meaning here. */
#ifndef RELAY_SERVER_CONFIG_CHECK_H
#define RELAY_SERVER_CONFIG_CHECK_H

#include "server/config.h"

/* What stands in the place of a file that is read once for each configuration: see lib/net/plain_file.h. A reload has no
 * pipe to read it from. */
const char *relay_config_file_refusal(const char *path, enum relay_config_use use);

/* Before the directives are applied. 0, or -1 after a message. */
int relay_config_check_tree(yoml_t *root, enum relay_config_use use);
/* After it: fills in what depends on the role, then checks. 0, or -1 after a message. */
int relay_config_check_finish(struct relay_config *config);

#endif
