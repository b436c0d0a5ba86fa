/* The files that a reload reads: the configuration, the tokens, certificates and keys. A relay that is started as root and
 * becomes another user (`user:`) reads them at start as root and at SIGHUP as that user: what it cannot read then is told
 * at the start, and not months later when a certificate has expired. */
#ifndef RELAY_SERVER_RELOAD_FILES_H
#define RELAY_SERVER_RELOAD_FILES_H

#include <stddef.h>

#include "server/config.h"

/* After relay_process_become(config->user): 0, or RELAY_ERR_INVALID with the first file or folder in `why` that this user
 * may not read or enter, and what would let it. `file` is the configuration's own. */
int relay_reload_files_check(const struct relay_config *config, const char *file, char *why, size_t size);

#endif
