/* The running relay: binds, starts the workers, serves the admin listener and the signals on the main thread,
 * ends.
 *
 * SIGTERM and SIGINT: stop accepting, GOAWAY, up to `limits.drain` for tunnels, exit status 0; a second one
 * does at once what the end of that time does: tunnels are reset, connections closed, and who does not come to it
 * within half a second is left to the kernel, which resets TCP sockets with open tunnels. A third one waits for
 * nothing. SIGHUP: a new snapshot and new certificates from the file; what a living process cannot change is named in
 * the log.
 */
#ifndef RELAY_SERVER_SERVER_H
#define RELAY_SERVER_SERVER_H

#include "server/config.h"

/* Returns the exit status. Takes the configuration. `file` is read again on SIGHUP. */
int relay_server_run(const char *file, struct relay_config *config);

#endif
