/* A module declares its directives in a table at its own top: name, bounds, default and help. The
 * configurator, the bounds check and the printed manual (`twohop --help-config`) are made from it, so that
 * they cannot disagree.
 *
 * Values go straight into the snapshot under construction, which relay_directive_target names.
 */
#ifndef RELAY_MODULES_DIRECTIVE_H
#define RELAY_MODULES_DIRECTIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <h2o.h>
#include <h2o/configurator.h>

struct relay_snapshot;

enum relay_directive_type {
    RELAY_DIRECTIVE_U32,     /* uint32_t */
    RELAY_DIRECTIVE_SIZE,    /* size_t, bytes; suffixes K, M, G */
    RELAY_DIRECTIVE_SIZE32,  /* uint32_t, the same */
    RELAY_DIRECTIVE_SECONDS, /* uint64_t ns; "10", "0.25", "300ms" */
    RELAY_DIRECTIVE_SWITCH,  /* bool: ON / OFF */
    RELAY_DIRECTIVE_CUSTOM   /* `apply` reads the node */
};

/* Sets a directive's type and offset; the field must have the type's C type. */
#define RELAY_DIRECTIVE_U32_AT(field)     RELAY_DIRECTIVE_AT(RELAY_DIRECTIVE_U32, uint32_t, field)
#define RELAY_DIRECTIVE_SIZE_AT(field)    RELAY_DIRECTIVE_AT(RELAY_DIRECTIVE_SIZE, size_t, field)
#define RELAY_DIRECTIVE_SIZE32_AT(field)  RELAY_DIRECTIVE_AT(RELAY_DIRECTIVE_SIZE32, uint32_t, field)
#define RELAY_DIRECTIVE_SECONDS_AT(field) RELAY_DIRECTIVE_AT(RELAY_DIRECTIVE_SECONDS, uint64_t, field)
#define RELAY_DIRECTIVE_SWITCH_AT(field)  RELAY_DIRECTIVE_AT(RELAY_DIRECTIVE_SWITCH, bool, field)
#define RELAY_DIRECTIVE_AT(type_, c_type, field)                                                             \
    .type = type_, .offset = offsetof(struct relay_snapshot, field) +                                        \
                             0 * _Generic(((struct relay_snapshot *)NULL)->field, c_type : 1)

struct relay_directive {
    const char *name;
    enum relay_directive_type type;
    size_t offset;   /* in struct relay_snapshot */
    double min, max; /* in the unit that is written */
    const char *default_text, *help;
    int level_flags; /* H2O_CONFIGURATOR_FLAG_*; 0: global, scalar */
    int (*apply)(h2o_configurator_command_t *cmd, h2o_configurator_context_t *ctx, yoml_t *node,
                 struct relay_snapshot
                     *snapshot); /* 0, or -1 after h2o_configurator_errprintf said what was expected */
    bool may_repeat;             /* else a second occurrence anywhere in the file is an error */
    const char *form;            /* CUSTOM: how the value is written, for the manual: "FILE", "[RULE, ...]" */
};

/* What a node must be made of; both say what was expected when it is not so and return NULL or -1.
 * A scalar that is not empty; `expected` completes "expected ...". */
const char *relay_directive_scalar(h2o_configurator_command_t *cmd, yoml_t *node, const char *expected);
/* A list of scalars, or one scalar alone; calls `each` for every one of them until it answers -1. */
int relay_directive_each(h2o_configurator_command_t *cmd, yoml_t *node, const char *expected,
                         int (*each)(h2o_configurator_command_t *cmd, yoml_t *item,
                                     struct relay_snapshot *snapshot),
                         struct relay_snapshot *snapshot);

/* Registers the table (its last entry has name NULL) with h2o's configurator of this globalconf. */
void relay_directives_register(h2o_globalconf_t *conf, const struct relay_directive *table,
                               struct relay_snapshot *snapshot);
/* Whether the table has a directive of this name. */
bool relay_directives_have(const struct relay_directive *table, const char *name);
/* Prints the manual of a table to stdout. */
void relay_directives_print(const char *title, const struct relay_directive *table);

#endif
