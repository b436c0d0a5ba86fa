/* `access-log`: one line per ordinary request, as in h2o, whose formats it takes. It is ours because h2o's own
 * makes its file readable for everybody, never opens it again, waits for whoever reads it and sets no bound: a line over
 * RELAY_LOG_LINE_MAX is cut and ends with "...", one that cannot be written at once is dropped and counted with those of
 * lib/net/log.h.
 *
 * Requests for tunnels have no line, refused ones neither: they are counted. No line names a tunnel's target: one whose
 * path is a template's or below /.well-known/masque/, and one that a proxy was asked for (421), says "/" and no field of
 * the request.
 *
 * Use:  1. relay_access_log_register before the configuration is applied.
 *       2. relay_access_log_each: to give the files away, and to open them again when they were rotated.
 *       3. relay_access_log_free when the globalconf has gone.
 */
#ifndef RELAY_MODULES_ACCESS_LOG_H
#define RELAY_MODULES_ACCESS_LOG_H

#include <stdbool.h>
#include <h2o.h>

struct relay_access_log;

/* All of a configuration; zeroed: none. */
struct relay_access_logs {
    struct relay_access_log *first;
    bool checks_files; /* on a dry run: says which files could not be opened */
};

/* The directive writes to `logs`, which outlives `conf`. On a dry run no file is opened. */
void relay_access_log_register(h2o_globalconf_t *conf, struct relay_access_logs *logs);
/* Calls `cb` for every file that is open. */
void relay_access_log_each(const struct relay_access_logs *logs, void (*cb)(const char *path, int fd));
void relay_access_log_free(struct relay_access_logs *logs);

#endif
