/* A configuration file as a tree of yoml_t, which libh2o's configurator reads (modules/yoml.h).
 *
 * Anchors, aliases and merge keys (`<<: *name`) are resolved; a repeated key stays, as two `listen:` need it.
 * Every node knows its line and column. A file that is too big, too deep (lib/net/yaml_depth.h, aliases followed) or that
 * grows beyond measure through its aliases is refused.
 */
#ifndef RELAY_SERVER_CONFIG_YAML_H
#define RELAY_SERVER_CONFIG_YAML_H

#include <stddef.h>

#include "modules/yoml.h"

#define RELAY_YAML_FILE_MAX  (1 << 20) /* bytes */
#define RELAY_YAML_NODES_MAX 100000    /* each alias counted with all that is below it */

/* Owns its nodes and their texts. */
struct relay_yaml {
    yoml_t *root;
    /* private */
    char *file;
    void **blocks;
    size_t num_blocks, capacity;
};

/* Parses `len` bytes into *yaml, which needs no initialisation; `file` is its name in messages.
 * RELAY_ERR_INVALID, RELAY_ERR_TOO_BIG, RELAY_ERR_NO_MEMORY: `why` then says "FILE:LINE:COLUMN: what was
 * expected". Dispose in every case. */
int relay_yaml_parse(struct relay_yaml *yaml, const char *file, const char *bytes, size_t len, char *why,
                     size_t why_size);
/* The same for the contents of a file; one that cannot be read is RELAY_ERR_INVALID. */
int relay_yaml_load(struct relay_yaml *yaml, const char *file, char *why, size_t why_size);
/* Also on a half-built or zeroed one. */
void relay_yaml_dispose(struct relay_yaml *yaml);

/* Appends the first pair of the root mapping of `from`, which must live as long, to that of `yaml`. Once
 * only. */
void relay_yaml_adopt(struct relay_yaml *yaml, const struct relay_yaml *from);

/* The value of a key of a mapping, the first one; NULL when it is not there or the node is no mapping. */
yoml_t *relay_yaml_get(const yoml_t *mapping, const char *key);

#endif
