/* The tree of a configuration file as libh2o's configurator reads it. The package's <h2o/configurator.h>
 * includes this header by name but does not bring it, so the layout here is a contract with the binary
 * (x86-64 and other LP64 machines): the asserts below hold it. server/config_yaml.h makes such trees and owns
 * them; nobody else frees a node.
 */
#ifndef RELAY_MODULES_YOML_H
#define RELAY_MODULES_YOML_H

#include <stddef.h>

typedef enum {
    YOML_TYPE_SCALAR,
    YOML_TYPE_SEQUENCE,
    YOML_TYPE_MAPPING,
    YOML_TYPE_UNRESOLVED_ALIAS /* never in our trees: aliases point at the node itself */
} yoml_type_t;

typedef struct st_yoml_t yoml_t;

typedef struct {
    yoml_t *key, *value;
} yoml_mapping_element_t;

/* A node. In a tree with aliases it may be the child of several nodes. */
struct st_yoml_t {
    yoml_type_t type;
    char *filename;
    size_t line, column; /* both from 0 */
    char *anchor, *tag;  /* NULL in our trees */
    size_t _refcnt;
    union {
        char *scalar;
        struct {
            size_t size;
            yoml_t *elements[1]; /* `size` of them */
        } sequence;
        struct {
            size_t size;
            yoml_mapping_element_t elements[1]; /* `size` of them, in the order of the file */
        } mapping;
    } data;
};

_Static_assert(sizeof(yoml_t) == 80, "layout of libh2o 2.2.5");
_Static_assert(offsetof(yoml_t, filename) == 8, "layout of libh2o 2.2.5");
_Static_assert(offsetof(yoml_t, line) == 16, "layout of libh2o 2.2.5");
_Static_assert(offsetof(yoml_t, column) == 24, "layout of libh2o 2.2.5");
_Static_assert(offsetof(yoml_t, anchor) == 32, "layout of libh2o 2.2.5");
_Static_assert(offsetof(yoml_t, _refcnt) == 48, "layout of libh2o 2.2.5");
_Static_assert(offsetof(yoml_t, data) == 56, "layout of libh2o 2.2.5");
_Static_assert(offsetof(yoml_t, data.sequence.elements) == 64, "layout of libh2o 2.2.5");
_Static_assert(offsetof(yoml_t, data.mapping.elements) == 64, "layout of libh2o 2.2.5");

#endif
