/* Counts failed attempts per key: a bucket for each source prefix or offered name, in a table of fixed size.
 * When it is full the bucket of its set that failed longest ago makes room, so that a flood from many sources
 * costs memory once and no time.
 *
 * One for all workers; any thread may call. */
#ifndef RELAY_MODULES_FAILURE_LIMIT_H
#define RELAY_MODULES_FAILURE_LIMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/wire/address.h"

struct relay_failure_limit;

struct relay_failure_limit *relay_failure_limit_new(void); /* NULL: out of memory */
void relay_failure_limit_free(struct relay_failure_limit *limit);

/* One more failure; false when there were more than `per_minute` lately (0: no limit). `now` is
 * CLOCK_MONOTONIC ns. */
bool relay_failure_limit_source(struct relay_failure_limit *limit, const struct relay_address *source,
                                uint32_t per_minute,
                                uint64_t now); /* counted under its IPv4 address or IPv6 /64 */
bool relay_failure_limit_name(struct relay_failure_limit *limit, const char *name, size_t len,
                              uint32_t per_minute, uint64_t now);
bool relay_failure_limit_all(struct relay_failure_limit *limit, uint32_t per_minute, uint64_t now);

#endif
