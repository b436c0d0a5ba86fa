/* debug.observe, which breaks what the relay promises to its users: while it is on the log says so each minute,
 * and after an hour it is off, whatever the file says (threats section 3). A reload does not make the hour
 * longer; one without debug.observe ends it, and after that it may be asked for again.
 *
 * Embedded in the server. Order of calls, on the main thread: init; apply for each snapshot, before the workers
 * get it; stop. */
#ifndef RELAY_SERVER_OBSERVATION_H
#define RELAY_SERVER_OBSERVATION_H

#include "lib/net/loop.h"
#include "modules/snapshot.h"

#define RELAY_OBSERVATION_WARNING (60 * RELAY_SECOND)
#define RELAY_OBSERVATION_LENGTH  (3600 * RELAY_SECOND)

struct relay_observation {
    struct relay_loop *loop;
    struct relay_timer timer;
    uint64_t warning, length; /* ns */
    uint64_t until;           /* ns; 0: not asked for */
};

/* `warning` and `length`: the two above, or less in a test. */
void relay_observation_init(struct relay_observation *observation, struct relay_loop *loop, uint64_t warning,
                            uint64_t length);
/* Sets snapshot->observe_until. */
void relay_observation_apply(struct relay_observation *observation, struct relay_snapshot *snapshot);
void relay_observation_stop(struct relay_observation *observation);

#endif
