/* What a relay says when it closes a connection, an open one or a new one, because of a limit.
 *
 * One line for all of them, at most one a minute for each limit: it names the limit and how many connections were
 * closed since the last one, and nothing of theirs (log.h). Any thread; one state for the process.
 */
#ifndef RELAY_NET_LIMIT_LOG_H
#define RELAY_NET_LIMIT_LOG_H

#include "lib/net/loop.h"

#define RELAY_LIMIT_LOG_EVERY (60 * RELAY_SECOND)

enum relay_limit {
    RELAY_LIMIT_RESETS,         /* limits.reset-burst and -rate */
    RELAY_LIMIT_OWN_RESETS,     /* limits.own-reset-burst and -rate */
    RELAY_LIMIT_CONTROL_FRAMES, /* limits.control-frames */
    RELAY_LIMIT_CONNECTIONS,    /* limits.connections */
    RELAY_LIMIT_SOURCE,         /* limits.connections-per-source */
    RELAY_LIMITS
};

/* A connection of this loop is closed because of the limit: counts it (metrics.h), and perhaps logs. */
void relay_limit_log(struct relay_loop *loop, enum relay_limit limit);

#endif
