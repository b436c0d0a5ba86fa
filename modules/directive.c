#include "modules/directive.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "lib/net/loop.h"
#include "modules/snapshot.h"

/* The table in h2o's clothes. */
struct table_configurator {
    h2o_configurator_t super; /* first */
    const struct relay_directive *table;
    struct relay_snapshot *snapshot;
    size_t seen[]; /* per directive: the line it was met in, from 1; 0: not yet */
};

static const char *kind_of(const yoml_t *node)
{
    return node->type == YOML_TYPE_SEQUENCE  ? "a list"
           : node->type == YOML_TYPE_MAPPING ? "a mapping"
                                             : "nothing";
}

const char *relay_directive_scalar(h2o_configurator_command_t *cmd, yoml_t *node, const char *expected)
{
    if (node->type == YOML_TYPE_SCALAR && node->data.scalar[0] != '\0')
        return node->data.scalar;
    h2o_configurator_errprintf(cmd, node, "expected %s, not %s", expected, kind_of(node));
    return NULL;
}

int relay_directive_each(h2o_configurator_command_t *cmd, yoml_t *node, const char *expected,
                         int (*each)(h2o_configurator_command_t *cmd, yoml_t *item,
                                     struct relay_snapshot *snapshot),
                         struct relay_snapshot *snapshot)
{
    if (node->type != YOML_TYPE_SEQUENCE)
        return relay_directive_scalar(cmd, node, expected) != NULL ? each(cmd, node, snapshot) : -1;
    for (size_t i = 0; i < node->data.sequence.size; i++) {
        yoml_t *item = node->data.sequence.elements[i];
        if (relay_directive_scalar(cmd, item, expected) == NULL || each(cmd, item, snapshot) != 0)
            return -1;
    }
    return 0;
}

/* ---- values ---- */

static bool is_size(enum relay_directive_type type)
{
    return type == RELAY_DIRECTIVE_SIZE || type == RELAY_DIRECTIVE_SIZE32;
}

/* "10", or "0.25" where a fraction is allowed; the rest of the text is its unit. Nothing else that strtod()
 * takes (signs, exponents, hexadecimal, "inf") is a number here. */
static bool take_number(const char **text, bool may_have_fraction, double *number)
{
    const size_t whole = strspn(*text, "0123456789");
    size_t len = whole;
    if (whole == 0 || whole > 15)
        return false;
    if (may_have_fraction && (*text)[len] == '.') {
        const size_t fraction = strspn(*text + len + 1, "0123456789");
        if (fraction == 0 || fraction > 9)
            return false;
        len += 1 + fraction;
    }
    *number = strtod(*text, NULL);
    *text += len;
    return true;
}

/* The value in the unit that is written: a number, bytes, seconds. */
static bool parse(enum relay_directive_type type, const char *text, double *value)
{
    if (!take_number(&text, type == RELAY_DIRECTIVE_SECONDS, value))
        return false;
    if (is_size(type) && *text != '\0') {
        const char *const suffixes = "KMG", *const suffix = strchr(suffixes, *text);
        if (suffix == NULL)
            return false;
        *value *= (double)(UINT64_C(1024) << 10 * (suffix - suffixes));
        text++;
    } else if (type == RELAY_DIRECTIVE_SECONDS && strcmp(text, "ms") == 0) {
        *value /= 1000;
        text += 2;
    } else if (type == RELAY_DIRECTIVE_SECONDS && *text == 's') {
        text++;
    }
    return *text == '\0';
}

static void print_bound(enum relay_directive_type type, double bound, char *text, size_t size)
{
    static const char suffixes[] = {'G', 'M', 'K'};
    for (size_t i = 0; is_size(type) && i < sizeof(suffixes); i++) {
        const uint64_t unit = UINT64_C(1) << (30 - 10 * i), bytes = (uint64_t)bound;
        if (bytes >= unit && bytes % unit == 0) {
            snprintf(text, size, "%" PRIu64 "%c", bytes / unit, suffixes[i]);
            return;
        }
    }
    snprintf(text, size, type == RELAY_DIRECTIVE_SECONDS ? "%g" : "%.0f", bound);
}

/* "a whole number from 1 to 100000" */
static void print_expected(const struct relay_directive *directive, char *text, size_t size)
{
    static const char *const names[] = {
        [RELAY_DIRECTIVE_U32] = "a whole number",
        [RELAY_DIRECTIVE_SIZE] = "a number of bytes (suffixes K, M, G)",
        [RELAY_DIRECTIVE_SIZE32] = "a number of bytes (suffixes K, M, G)",
        [RELAY_DIRECTIVE_SECONDS] = "seconds (or milliseconds with ms)",
    };
    char min[32], max[32];
    if (directive->type == RELAY_DIRECTIVE_SWITCH) {
        snprintf(text, size, "ON or OFF");
        return;
    }
    print_bound(directive->type, directive->min, min, sizeof(min));
    print_bound(directive->type, directive->max, max, sizeof(max));
    snprintf(text, size, "%s from %s to %s", names[directive->type], min, max);
}

static bool is_switch(const char *text)
{
    return strcasecmp(text, "ON") == 0 || strcasecmp(text, "OFF") == 0;
}

static void store(const struct relay_directive *directive, const char *text, double value, void *field)
{
    switch (directive->type) {
    case RELAY_DIRECTIVE_U32:
    case RELAY_DIRECTIVE_SIZE32:
        *(uint32_t *)field = (uint32_t)value;
        break;
    case RELAY_DIRECTIVE_SIZE:
        *(size_t *)field = (size_t)value;
        break;
    case RELAY_DIRECTIVE_SECONDS:
        *(uint64_t *)field = (uint64_t)(value * 1e9 + 0.5);
        break;
    case RELAY_DIRECTIVE_SWITCH:
        *(bool *)field = strcasecmp(text, "ON") == 0;
        break;
    case RELAY_DIRECTIVE_CUSTOM:
        break;
    }
}

static int apply_scalar(h2o_configurator_command_t *cmd, yoml_t *node,
                        const struct relay_directive *directive, struct relay_snapshot *snapshot)
{
    char expected[128];
    double value = 0;
    print_expected(directive, expected, sizeof(expected));
    const char *text = relay_directive_scalar(cmd, node, expected);
    if (text == NULL)
        return -1;
    const bool is_good =
        directive->type == RELAY_DIRECTIVE_SWITCH
            ? is_switch(text)
            : parse(directive->type, text, &value) && value >= directive->min && value <= directive->max;
    if (!is_good) {
        h2o_configurator_errprintf(cmd, node, "expected %s", expected);
        return -1;
    }
    store(directive, text, value, (char *)snapshot + directive->offset);
    return 0;
}

/* ---- the table ---- */

static const struct relay_directive *find(const struct relay_directive *table, const char *name)
{
    for (; table->name != NULL; table++)
        if (strcmp(table->name, name) == 0)
            return table;
    return NULL;
}

bool relay_directives_have(const struct relay_directive *table, const char *name)
{
    return find(table, name) != NULL;
}

static int on_command(h2o_configurator_command_t *cmd, h2o_configurator_context_t *ctx, yoml_t *node)
{
    struct table_configurator *configurator = (struct table_configurator *)cmd->configurator;
    const struct relay_directive *directive = find(configurator->table, cmd->name);
    assert(directive != NULL);
    size_t *seen = &configurator->seen[directive - configurator->table];
    if (*seen != 0 && !directive->may_repeat) {
        h2o_configurator_errprintf(cmd, node, "expected only once: it is already given in line %zu", *seen);
        return -1;
    }
    *seen = node->line + 1;
    if (directive->type == RELAY_DIRECTIVE_CUSTOM)
        return directive->apply(cmd, ctx, node, configurator->snapshot);
    return apply_scalar(cmd, node, directive, configurator->snapshot);
}

void relay_directives_register(h2o_globalconf_t *conf, const struct relay_directive *table,
                               struct relay_snapshot *snapshot)
{
    size_t count = 0;
    while (table[count].name != NULL)
        count++;
    struct table_configurator *configurator = (struct table_configurator *)h2o_configurator_create(
        conf, sizeof(*configurator) + count * sizeof(size_t));
    configurator->table = table;
    configurator->snapshot = snapshot;
    for (size_t i = 0; i < count; i++)
        h2o_configurator_define_command(
            &configurator->super, table[i].name,
            table[i].level_flags != 0 ? table[i].level_flags : H2O_CONFIGURATOR_FLAG_GLOBAL, on_command);
}

/* Breaks the help between words. */
static void print_wrapped(const char *text)
{
    size_t column = 0;
    while (*text != '\0') {
        const size_t len = strcspn(text, " ");
        if (column == 0 || column + 1 + len > 92) {
            printf(column == 0 ? "        %.*s" : "\n        %.*s", (int)len, text);
            column = 8 + len;
        } else {
            printf(" %.*s", (int)len, text);
            column += 1 + len;
        }
        text += len + strspn(text + len, " ");
    }
    printf("\n");
}

void relay_directives_print(const char *title, const struct relay_directive *table)
{
    printf("%s\n\n", title);
    for (; table->name != NULL; table++) {
        char expected[128];
        if (table->type != RELAY_DIRECTIVE_CUSTOM)
            print_expected(table, expected, sizeof(expected));
        printf("    %s: %s", table->name, table->type == RELAY_DIRECTIVE_CUSTOM ? table->form : expected);
        if (table->default_text != NULL)
            printf(" [%s]", table->default_text);
        printf("\n");
        print_wrapped(table->help);
        printf("\n");
    }
}
