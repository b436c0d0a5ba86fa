#include "server/place.h"

#include <stddef.h>

#include "lib/net/reserve.h"
#include "lib/wire/error.h"

/* Over all workers. */
static unsigned num_taken, max_taken = RELAY_PLACES_MAX_AT_LEAST;

void relay_places_set_max(unsigned long descriptors)
{
    max_taken =
        descriptors / 8 > RELAY_PLACES_MAX_AT_LEAST ? (unsigned)(descriptors / 8) : RELAY_PLACES_MAX_AT_LEAST;
}

static int take(struct relay_places *places)
{
    if (relay_reserve_is_reached())
        return RELAY_ERR_NO_DESCRIPTORS;
    if (__atomic_add_fetch(&num_taken, 1, __ATOMIC_RELAXED) > max_taken) {
        __atomic_sub_fetch(&num_taken, 1, __ATOMIC_RELAXED);
        return RELAY_ERR_LIMIT;
    }
    places->num_taken++;
    places->budget->used += RELAY_PLACE_BYTES;
    return RELAY_OK;
}

static bool is_anyone_waiting(const struct relay_places *places)
{
    return places->waiting.next != &places->waiting;
}

static void run_task(struct relay_task *task)
{
    struct relay_places *places = (struct relay_places *)((char *)task - offsetof(struct relay_places, task));
    while (places->num_taken < RELAY_PLACES && is_anyone_waiting(places)) {
        struct relay_place *place = places->waiting.next;
        relay_place_cancel(place);
        place->turn(place, take(places));
    }
}

static void on_timeout(struct relay_timer *timer)
{
    struct relay_place *place = (struct relay_place *)((char *)timer - offsetof(struct relay_place, timer));
    relay_place_cancel(place);
    place->turn(place, RELAY_ERR_TIMEOUT);
}

void relay_places_init(struct relay_places *places, struct relay_loop *loop, struct relay_budget *budget)
{
    *places = (struct relay_places){.loop = loop, .budget = budget};
    places->waiting.prev = places->waiting.next = &places->waiting;
    relay_task_init(&places->task, RELAY_LEVEL_EVENT, run_task);
}

void relay_places_dispose(struct relay_places *places)
{
    relay_task_cancel(&places->task);
}

void relay_place_init(struct relay_place *place, void (*turn)(struct relay_place *place, int error))
{
    *place = (struct relay_place){.turn = turn};
    relay_timer_init(&place->timer, on_timeout);
}

void relay_place_ask(struct relay_places *places, struct relay_place *place, size_t head_len,
                     uint64_t timeout)
{
    if (places->num_taken < RELAY_PLACES && !is_anyone_waiting(places)) {
        place->turn(place, take(places));
        return;
    }
    if (places->head_len + head_len > RELAY_PLACES_HEADS_MAX) {
        place->turn(place, RELAY_ERR_LIMIT);
        return;
    }
    place->places = places;
    place->head_len = head_len;
    places->head_len += head_len;
    place->next = &places->waiting;
    place->prev = places->waiting.prev;
    place->prev->next = place->next->prev = place;
    relay_timer_set_after(places->loop, &place->timer, timeout);
}

void relay_place_cancel(struct relay_place *place)
{
    if (place->next == NULL)
        return;
    place->prev->next = place->next;
    place->next->prev = place->prev;
    place->prev = place->next = NULL;
    place->places->head_len -= place->head_len;
    relay_timer_stop(place->places->loop, &place->timer);
}

void relay_places_leave(struct relay_places *places)
{
    __atomic_sub_fetch(&num_taken, 1, __ATOMIC_RELAXED);
    places->num_taken--;
    places->budget->used -= RELAY_PLACE_BYTES;
    if (is_anyone_waiting(places))
        relay_task_queue(places->loop, &places->task);
}
