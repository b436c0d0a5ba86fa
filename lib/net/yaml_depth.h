/* How deep a YAML file nests, looked at before it is loaded: libyaml's time for `{a: {a: {a: ...` grows with the square of
 * the depth, and it loads a whole document before anybody sees a node. */
#ifndef RELAY_NET_YAML_DEPTH_H
#define RELAY_NET_YAML_DEPTH_H

#include <stdbool.h>
#include <stddef.h>

#define RELAY_YAML_DEPTH_MAX 32 /* mappings and lists inside each other */

#define RELAY_YAML_DEPTH_EXPECTED "at most 32 levels" /* for messages */

/* Whether a mapping or a list stands deeper than that; *line and *column, from 0, are then the first one's. False also
 * where the bytes are no YAML, and memory is out: the loader will say that. Aliases are not followed. */
bool relay_yaml_is_too_deep(const char *bytes, size_t len, size_t *line, size_t *column);

#endif
