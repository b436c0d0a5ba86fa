/* The places that the ordinary requests of one connection have inside h2o.
 *
 * A request in its place may hold a file open and a piece of it in memory for as long as its reader takes, so a
 * connection has few places; the rest of its requests wait as heads alone and get their turn in order. Over all
 * connections and workers there are at most as many as relay_places_set_max said, so that most descriptors remain for
 * tunnels, which need no place and wait for none.
 *
 * A place is held until the stream has ended: until then what was not read is in our memory.
 */
#ifndef RELAY_SERVER_PLACE_H
#define RELAY_SERVER_PLACE_H

#include "lib/net/limits.h"
#include "lib/net/loop.h"

#define RELAY_PLACES              6
#define RELAY_PLACE_BYTES         (16 * 1024)  /* what one is charged to the budget with */
#define RELAY_PLACES_HEADS_MAX    (256 * 1024) /* bytes of the heads that wait on one connection */
#define RELAY_PLACES_MAX_AT_LEAST 64

/* Before the workers start: an eighth of the descriptors. */
void relay_places_set_max(unsigned long descriptors);

/* Embedded in a request that may wait. */
struct relay_place {
    struct relay_place *prev, *next; /* of those that wait; NULL: it does not */
    struct relay_places *places;
    struct relay_timer timer;
    size_t head_len;
    void (*turn)(struct relay_place *place, int error);
};

/* Embedded in the connection, which outlives its requests. */
struct relay_places {
    struct relay_loop *loop;
    struct relay_budget *budget;
    struct relay_place waiting; /* list head */
    struct relay_task task;
    size_t head_len; /* of all that wait */
    unsigned num_taken;
};

void relay_places_init(struct relay_places *places, struct relay_loop *loop, struct relay_budget *budget);
/* Nobody waits or has one any more. */
void relay_places_dispose(struct relay_places *places);

void relay_place_init(struct relay_place *place, void (*turn)(struct relay_place *place, int error));
/* `turn` is called once, from in here or later from a task or timer. RELAY_OK: it has a place, which is to be left;
 * RELAY_ERR_LIMIT: there are too many, here or over all; RELAY_ERR_NO_DESCRIPTORS: there is none for a file
 * (lib/net/reserve.h); RELAY_ERR_TIMEOUT: it has waited for `timeout` ns. */
void relay_place_ask(struct relay_places *places, struct relay_place *place, size_t head_len,
                     uint64_t timeout);
/* It goes away, waiting or not: no turn comes. */
void relay_place_cancel(struct relay_place *place);
void relay_places_leave(struct relay_places *places);

#endif
