/* What no single directive can see: what is missing, what contradicts, what of h2o's own language has no
 * meaning here. */
#ifndef RELAY_SERVER_CONFIG_CHECK_H
#define RELAY_SERVER_CONFIG_CHECK_H

#include "server/config.h"

/* Whether reading the file might wait for somebody: it is a pipe or a device. A file that is not there is none. */
bool relay_config_would_block(const char *file);
#define RELAY_CONFIG_NO_PIPE "a file: at a reload a pipe or a device would be waited for"

/* Before the directives are applied. 0, or -1 after a message. */
int relay_config_check_tree(yoml_t *root, enum relay_config_use use);
/* After it: fills in what depends on the role, then checks. 0, or -1 after a message. */
int relay_config_check_finish(struct relay_config *config);

#endif
