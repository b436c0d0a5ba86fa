#include "server/config_error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <h2o.h>
#include <h2o/configurator.h>

static _Thread_local char *captured;
static _Thread_local size_t captured_size;

void relay_config_error_capture(char *buffer, size_t size)
{
    captured = buffer;
    captured_size = size;
    if (buffer != NULL)
        buffer[0] = '\0';
}

/* The library's words become those of all other messages: what was expected. */
static void reword(char *message, size_t size, const h2o_configurator_command_t *cmd, const yoml_t *node,
                   const char *reason)
{
    /* By the flags H2O_CONFIGURATOR_FLAG_EXPECT_*: of a value 1, of a list 2, of a mapping 4. */
    static const char *const wanted[8] = {NULL,
                                          "a value",
                                          "a list",
                                          "a value or a list",
                                          "a mapping",
                                          "a value or a mapping",
                                          "a list or a mapping",
                                          NULL};
    const char *expected = cmd != NULL ? wanted[cmd->flags / H2O_CONFIGURATOR_FLAG_EXPECT_SCALAR & 7] : NULL;
    if (strncmp(reason, "unknown command", 15) == 0)
        snprintf(message, size, "expected a directive, as `twohop --help-config` lists them, not %s",
                 node->type == YOML_TYPE_SCALAR ? node->data.scalar : "this");
    else if (strcmp(reason, "node must be a MAPPING") == 0)
        snprintf(message, size, "expected a mapping");
    else if (expected != NULL && strncmp(reason, "argument cannot be ", 19) == 0)
        snprintf(message, size, "expected %s, not %s", expected,
                 node->type == YOML_TYPE_SCALAR     ? "a value"
                 : node->type == YOML_TYPE_SEQUENCE ? "a list"
                                                    : "a mapping");
}

void relay_config_error_print(char *why, size_t size, const yoml_t *node, const char *directive,
                              const char *message)
{
    char place[256] = "";
    if (node != NULL)
        snprintf(place, sizeof(place), "%s:%zu:%zu: ", node->filename, node->line + 1, node->column + 1);
    const char *open = directive != NULL ? "[" : "", *close = directive != NULL ? "] " : "";
    snprintf(why, size, "%s%s%s%s%s", place, open, directive != NULL ? directive : "", close, message);
}

void h2o_configurator_errprintf(h2o_configurator_command_t *cmd, yoml_t *node, const char *reason, ...)
{
    char message[768], text[1024];
    va_list args;
    va_start(args, reason);
    vsnprintf(message, sizeof(message), reason, args);
    va_end(args);
    reword(message, sizeof(message), cmd, node, reason);
    relay_config_error_print(text, sizeof(text), node, cmd != NULL ? cmd->name : NULL, message);
    if (captured == NULL)
        fprintf(stderr, "%s\n", text);
    else if (captured[0] == '\0')
        snprintf(captured, captured_size, "%s", text);
}

#ifdef __SANITIZE_ADDRESS__
/* The library leaks the names of its header directives (80 bytes each time a file is read) and more where a
 * file is refused: not ours to repair. Leaks of our own allocations are still found. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_options(void);

const char *__lsan_default_suppressions(void)
{
    return "leak:libh2o.so\n";
}

const char *__lsan_default_options(void)
{
    return "print_suppressions=0";
}
#endif
