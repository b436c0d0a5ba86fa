/* The admin listener: /metrics (Prometheus text), /status.json, /healthz, on loopback or a unix socket only.
 * It runs on the main thread's loop and reads the workers' shards; it never touches a worker. When the tunnels have used
 * up all descriptors it is served out of the reserve (lib/net/reserve.h). */
#ifndef RELAY_SERVER_ADMIN_H
#define RELAY_SERVER_ADMIN_H

#include <stddef.h>

#include "lib/net/limits.h"
#include "lib/net/metrics.h"
#include "lib/wire/slice.h"

struct relay_admin;

/* What it shows. Lives as long as the process. */
struct relay_admin_source {
    const char *role;
    struct relay_metrics **shards; /* one per worker, and the main thread's */
    size_t num_shards;
    uint64_t started_at; /* CLOCK_MONOTONIC ns */
    bool is_draining;    /* /healthz answers 503 then */
};

/* Takes the listening descriptor. It serves until the process ends, while the relay drains too. NULL: out of memory or
 * descriptors. */
struct relay_admin *relay_admin_new(struct relay_loop *loop, int fd, const struct relay_admin_source *source);

/* The text of each page, malloc'ed; NULL: out of memory. */
char *relay_admin_metrics_text(const struct relay_admin_source *source, size_t *len);
char *relay_admin_status_json(const struct relay_admin_source *source, uint64_t now, size_t *len);

#endif
