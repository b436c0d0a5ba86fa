/* What a crowd of connections has left behind goes back to the system.
 *
 * The allocator keeps freed pages of the workers' threads below whatever is still in use above them. When more than half
 * of the connections have gone they are given back, from the main thread: never on the way of a datagram, and not
 * again before a new crowd has come and gone.
 */
#ifndef RELAY_SERVER_MEMORY_H
#define RELAY_SERVER_MEMORY_H

#include "server/worker.h"

#define RELAY_MEMORY_INTERVAL (10 * RELAY_SECOND)
#define RELAY_MEMORY_CROWD    32 /* fewer connections are not worth it */

struct relay_memory {
    struct relay_loop *loop;
    const struct relay_worker *workers;
    unsigned num_workers;
    struct relay_timer timer;
    int64_t peak; /* connections, since memory was given back last */
};

/* It and the workers live as long as the loop. */
void relay_memory_init(struct relay_memory *memory, struct relay_loop *loop,
                       const struct relay_worker *workers, unsigned num_workers);
/* Of `open` connections now: whether it is time; if so the next crowd is counted from here. */
bool relay_memory_is_due(struct relay_memory *memory, int64_t open);

#endif
