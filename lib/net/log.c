#include "lib/net/log.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/net/log_file.h"

static atomic_int fd_of_log = 2, fd_of_errors = -1, level_of_log = RELAY_LOG_INFO;
static atomic_bool is_log_torn, is_errors_torn;
static atomic_ulong dropped;

static const char *const level_names[] = {"debug", "info", "warning", "error"};

void relay_log_set_level(enum relay_log_level level)
{
    atomic_store(&level_of_log, (int)level);
}

enum relay_log_level relay_log_get_level(void)
{
    return (enum relay_log_level)atomic_load(&level_of_log);
}

void relay_log_set_fd(int fd)
{
    atomic_store(&fd_of_log, fd);
}

void relay_log_copy_errors(int fd)
{
    atomic_store(&fd_of_errors, fd);
}

unsigned long relay_log_dropped(void)
{
    return atomic_load(&dropped);
}

void relay_log_count_dropped(void)
{
    atomic_fetch_add(&dropped, 1);
}

static void now_text(char *text, size_t size)
{
    struct timespec at;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &at);
    gmtime_r(&at.tv_sec, &tm);
    size_t len = strftime(text, size, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(text + len, size - len, ".%03ldZ", at.tv_nsec / 1000000);
}

/* {"time":..,"level":..,"event":.., and the caller's fields}; NULL when a value is not valid UTF-8 or memory
 * is out. */
static json_t *make_line(enum relay_log_level level, const char *event, const char *format, va_list fields)
{
    char time[40];
    now_text(time, sizeof(time));
    json_t *line = json_pack("{s:s, s:s, s:s}", "time", time, "level", level_names[level], "event", event);
    if (line == NULL || format == NULL)
        return line;
    char braced[256];
    snprintf(braced, sizeof(braced), "{%s}", format);
    json_error_t error;
    json_t *more = json_vpack_ex(&error, 0, braced, fields);
    if (more == NULL || json_object_update(line, more) != 0) {
        json_decref(line);
        line = NULL;
    }
    json_decref(more);
    return line;
}

void relay_log(enum relay_log_level level, const char *event, const char *format, ...)
{
    if ((int)level < atomic_load(&level_of_log))
        return;
    va_list fields;
    va_start(fields, format);
    json_t *line = make_line(level, event, format, fields);
    va_end(fields);
    if (line == NULL) {
        relay_log_count_dropped();
        return;
    }
    char text[RELAY_LOG_LINE_MAX];
    size_t len = json_dumpb(line, text, sizeof(text) - 1, JSON_COMPACT | JSON_ENSURE_ASCII);
    json_decref(line);
    if (len == 0 || len > sizeof(text) - 1) {
        relay_log_count_dropped();
        return;
    }
    text[len++] = '\n';
    if (!relay_log_file_write(atomic_load(&fd_of_log), &is_log_torn, text, len))
        relay_log_count_dropped();
    const int copy = atomic_load(&fd_of_errors);
    if (level == RELAY_LOG_ERROR && copy >= 0 && !relay_log_file_write(copy, &is_errors_torn, text, len))
        relay_log_count_dropped();
}
