#include "lib/net/limits.h"

/* Nothing is consumed for so long: the sender pauses, or the reader, or a loss is noticed late. */
#define PAUSE_RTTS 8
#define PAUSE_MIN  (100 * RELAY_MS)

bool relay_bucket_take(struct relay_bucket *bucket, double n, double burst, double rate, uint64_t now)
{
    if (!bucket->started) {
        *bucket = (struct relay_bucket){.level = burst, .at = now, .started = true};
    } else if (now > bucket->at) {
        bucket->level += (double)(now - bucket->at) / (double)RELAY_SECOND * rate;
        if (bucket->level > burst)
            bucket->level = burst;
        bucket->at = now;
    }
    if (bucket->level < n)
        return false;
    bucket->level -= n;
    return true;
}

void relay_window_init(struct relay_window *window, struct relay_budget *budget,
                       const struct relay_limits *limits)
{
    *window = (struct relay_window){.budget = budget, .size = limits->window_initial};
}

/* Doubles as far as the limit and the budget allow; returns the growth. */
static size_t grow(struct relay_window *window, const struct relay_limits *limits)
{
    size_t more = window->size;
    if (window->size + more > limits->window_max)
        more = limits->window_max > window->size ? limits->window_max - window->size : 0;
    if (window->budget->used + more > window->budget->limit)
        return 0;
    window->budget->used += more;
    window->charged += more;
    window->size += more;
    return more;
}

/* Half of the window was used in so long. At first, while the sender still looks for its rate, twice the window of a sender
 * whom it stops is of no harm. After that bytes which a lost packet held back, and which all come at once, look the same,
 * and a window that is larger than the path is a line in which everything else on the way waits: then two halves in a row
 * must be as quick as only a sender is whom the window stops. */
static bool is_too_small(struct relay_window *window, const struct relay_limits *limits, uint64_t took,
                         uint64_t rtt)
{
    const bool is_quick = took <= (window->is_settled ? rtt : 2 * rtt);
    const bool is_second = is_quick && window->was_quick;
    window->was_quick = is_quick && !is_second;
    if (window->is_settled)
        return is_second;
    window->is_settled = !is_quick && window->size > limits->window_initial;
    return is_quick;
}

/* How long a half took with a pause in it, or after one, when a whole window may wait, says nothing of the path. */
static void note_pause(struct relay_window *window, uint64_t now, uint64_t rtt)
{
    uint64_t gap = now - window->consumed_at;
    if (window->epoch_at == 0) {
        window->epoch_at = now;
    } else if (gap > PAUSE_MIN && gap > PAUSE_RTTS * rtt) {
        window->passed_over = window->size;
        window->epoch_bytes = 0;
    }
    window->consumed_at = now;
}

size_t relay_window_consume(struct relay_window *window, const struct relay_limits *limits, size_t len,
                            uint64_t now, uint64_t rtt, bool may_grow)
{
    size_t more = 0;
    window->consumed += len;
    note_pause(window, now, rtt);
    if (window->passed_over > 0) {
        window->passed_over -= len < window->passed_over ? len : window->passed_over;
        window->epoch_at = now;
    } else {
        window->epoch_bytes += len;
    }
    if (window->epoch_bytes >= window->size / 2) {
        if (is_too_small(window, limits, now - window->epoch_at, rtt) && may_grow)
            more = grow(window, limits);
        window->epoch_at = now;
        window->epoch_bytes = 0;
    }
    if (more == 0 && window->consumed < window->size / 4)
        return 0;
    size_t grant = window->consumed + more;
    window->consumed = 0;
    return grant;
}

void relay_window_dispose(struct relay_window *window)
{
    if (window->budget != NULL)
        window->budget->used -= window->charged;
    window->charged = 0;
}
