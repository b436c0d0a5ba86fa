#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/net/yaml_depth.h"

/* `count` times `piece`, behind `before`. */
static char *repeat(const char *before, const char *piece, size_t count)
{
    char *text = malloc(strlen(before) + count * strlen(piece) + 1), *at = stpcpy(text, before);
    *at = '\0';
    while (count-- > 0)
        at = stpcpy(at, piece);
    return text;
}

static void what_is_too_deep(void **state)
{
    static const struct {
        const char *before, *piece;
        size_t count;
        bool is_too_deep;
        size_t line, column;
    } rows[] = {
        {"", "", 0, false, 0, 0},
        {"a: ", "[", 31, false, 0, 0},
        {"a: ", "[", 32, true, 0, 34},
        {"# comment\na: ", "{a: ", 32, true, 1, 3 + 31 * 4},
        {"", "- ", 33, true, 0, 64},
        {"", "? ", 33, true, 0, 64},
        {"a: ", "[],", 100, false, 0, 0},
        {"a: \t ]", "[", 100, false, 0, 0},
        /* These would take the loader minutes. */
        {"a: ", "{a: ", 200000, true, 0, 3 + 31 * 4},
        {"a: ", "[", 200000, true, 0, 34},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        size_t line = 0, column = 0;
        char *text = repeat(rows[i].before, rows[i].piece, rows[i].count);
        const bool is_too_deep = relay_yaml_is_too_deep(text, strlen(text), &line, &column);
        free(text);
        if (is_too_deep != rows[i].is_too_deep ||
            (is_too_deep && (line != rows[i].line || column != rows[i].column)))
            fail_msg("row %zu: %d at %zu:%zu", i, is_too_deep, line, column);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_too_deep)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
