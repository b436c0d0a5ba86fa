#include "lib/net/limits.h"

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

size_t relay_window_consume(struct relay_window *window, const struct relay_limits *limits, size_t len,
                            uint64_t now, uint64_t rtt, bool may_grow)
{
    size_t more = 0;
    window->consumed += len;
    window->epoch_bytes += len;
    if (window->epoch_at == 0)
        window->epoch_at = now;
    if (window->epoch_bytes >= window->size / 2) {
        if (may_grow && now - window->epoch_at <= 2 * rtt)
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
