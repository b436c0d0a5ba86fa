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

void h2o_configurator_errprintf(h2o_configurator_command_t *cmd, yoml_t *node, const char *reason, ...)
{
    char message[768], place[256] = "";
    va_list args;
    va_start(args, reason);
    vsnprintf(message, sizeof(message), reason, args);
    va_end(args);
    if (strncmp(reason, "unknown command", 15) ==
        0) /* the library's words: say what was expected, as everywhere */
        snprintf(message, sizeof(message),
                 "expected a directive, as `twohop --help-config` lists them, not %s",
                 node->type == YOML_TYPE_SCALAR ? node->data.scalar : "this");
    if (node != NULL)
        snprintf(place, sizeof(place), "%s:%zu:%zu: ", node->filename, node->line + 1, node->column + 1);
    const char *open = cmd != NULL ? "[" : "", *name = cmd != NULL ? cmd->name : "",
               *close = cmd != NULL ? "] " : "";
    if (captured == NULL)
        fprintf(stderr, "%s%s%s%s%s\n", place, open, name, close, message);
    else if (captured[0] == '\0')
        snprintf(captured, captured_size, "%s%s%s%s%s", place, open, name, close, message);
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
