#include "modules/access_log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <h2o/configurator.h>

#include "lib/net/log.h"
#include "lib/net/log_file.h"
#include "modules/directive.h"
#include "modules/env.h"

#define MASQUE_PATHS  "/.well-known/masque/" /* RFC 9298 section 3.1, RFC 9484 section 4.1 */
#define COMMON_FORMAT "%h %l %u %t \"%r\" %s %b \"%{Referer}i\" \"%{User-agent}i\""

struct relay_access_log {
    struct relay_access_log *next;
    char *path;
    int fd; /* -1: a dry run's */
    atomic_bool is_torn;
    h2o_logconf_t *format;
    unsigned depth; /* of the level where it stands */
    bool is_over;   /* that level has been left */
};

struct configurator {
    h2o_configurator_t super; /* first */
    struct relay_access_logs *logs;
    unsigned depth;
};

struct logger {
    h2o_logger_t super; /* first */
    struct relay_access_log *log;
};

/* The library knows no HTTP/3 and would print HTTP/2; ours takes precedence over its function. */
size_t h2o_stringify_protocol_version(char *dst, int version)
{
    return (size_t)sprintf(dst, version < 0x200 ? "HTTP/%d.%d" : "HTTP/%d", version >> 8, version & 0xff);
}

/* A target stands in such a path, whatever became of the request. */
static bool is_tunnel_path(const struct relay_snapshot *snapshot, h2o_iovec_t path)
{
    struct relay_host host;
    uint16_t port;
    while (path.len > 1 && path.base[0] == '/' && path.base[1] == '/') /* a URL's last and a path's first */
        path = h2o_iovec_init(path.base + 1, path.len - 1);
    if (path.len >= strlen(MASQUE_PATHS) && memcmp(path.base, MASQUE_PATHS, strlen(MASQUE_PATHS)) == 0)
        return true;
    for (size_t i = 0; i < snapshot->num_connect_udp; i++)
        if (relay_uri_template_match(&snapshot->connect_udp[i].template, path.base, path.len, &host, &port) !=
            RELAY_URI_TEMPLATE_OTHER)
            return true;
    return false;
}

/* Whether somebody took us for a tunnel's other end, or for a proxy of http:// URLs, in an ordinary request. */
static bool names_target(h2o_req_t *req)
{
    const struct relay_snapshot *snapshot = relay_env_of(req)->snapshot;
    return req->res.status == 421 || is_tunnel_path(snapshot, req->input.path) ||
           is_tunnel_path(snapshot, req->path_normalized);
}

/* All that could name the target: formats can ask for the path, the host, and fields of request and answer (Referer,
 * Location). To log is the last that happens to a request. */
static void hide_target(h2o_req_t *req)
{
    req->input.path = h2o_iovec_init(H2O_STRLIT("/"));
    req->input.query_at = SIZE_MAX;
    req->input.authority = req->authority = h2o_iovec_init(NULL, 0);
    req->headers.size = req->res.headers.size = 0;
}

static void log_access(h2o_logger_t *super, h2o_req_t *req)
{
    static const char cut_off[] = "...\n";
    struct relay_access_log *log = ((struct logger *)super)->log;
    if (relay_request_of(req)->kind != RELAY_KIND_MESSAGE)
        return;
    char buffer[RELAY_LOG_LINE_MAX];
    size_t len = sizeof(buffer);
    if (names_target(req))
        hide_target(req);
    char *line = h2o_log_request(log->format, req, &len, buffer); /* allocated when it is longer */
    if (len > RELAY_LOG_LINE_MAX) {
        len = RELAY_LOG_LINE_MAX;
        memcpy(line + len - strlen(cut_off), cut_off, strlen(cut_off));
    }
    if (!relay_log_file_write(log->fd, &log->is_torn, line, len))
        relay_log_count_dropped();
    if (line != buffer)
        free(line);
}

/* ---- the directive ---- */

/* What its mapping says. */
struct words {
    const char *path, *format, *escape;
};

static const char **word_named(struct words *words, const yoml_t *key)
{
    const char *name = key->type == YOML_TYPE_SCALAR ? key->data.scalar : "";
    return strcmp(name, "path") == 0     ? &words->path
           : strcmp(name, "format") == 0 ? &words->format
           : strcmp(name, "escape") == 0 ? &words->escape
                                         : NULL;
}

static int read_words(h2o_configurator_command_t *cmd, yoml_t *node, struct words *words)
{
    static const char expected[] = "the path of a file, or a mapping of path, format and escape";
    if (node->type != YOML_TYPE_MAPPING) {
        words->path = relay_directive_scalar(cmd, node, expected);
        return words->path != NULL ? 0 : -1;
    }
    for (size_t i = 0; i < node->data.mapping.size; i++) {
        yoml_t *key = node->data.mapping.elements[i].key;
        const char **word = word_named(words, key);
        if (word == NULL || *word != NULL) {
            h2o_configurator_errprintf(cmd, key, "expected path, format and escape, each once");
            return -1;
        }
        *word = relay_directive_scalar(cmd, node->data.mapping.elements[i].value, "a text");
        if (*word == NULL)
            return -1;
    }
    if (words->path == NULL)
        h2o_configurator_errprintf(cmd, node, "expected %s", expected);
    return words->path != NULL ? 0 : -1;
}

/* NULL after a message. */
static h2o_logconf_t *compile(h2o_configurator_command_t *cmd, yoml_t *node, const struct words *words)
{
    char reason[256] = "";
    int escape = H2O_LOGCONF_ESCAPE_APACHE;
    if (words->escape != NULL && strcasecmp(words->escape, "json") == 0) {
        escape = H2O_LOGCONF_ESCAPE_JSON;
    } else if (words->escape != NULL && strcasecmp(words->escape, "apache") != 0) {
        h2o_configurator_errprintf(cmd, node, "expected escape: apache or escape: json");
        return NULL;
    }
    h2o_logconf_t *format =
        h2o_logconf_compile(words->format != NULL ? words->format : COMMON_FORMAT, escape, reason);
    if (format == NULL)
        h2o_configurator_errprintf(cmd, node, "expected a format as of h2o's access-log: %s", reason);
    return format;
}

/* Opens it, or only looks. */
static int open_file(h2o_configurator_command_t *cmd, h2o_configurator_context_t *ctx, yoml_t *node,
                     const char *path, int *fd)
{
    const struct relay_access_logs *logs = ((struct configurator *)cmd->configurator)->logs;
    int error = 0;
    *fd = -1;
    if (!ctx->dry_run)
        error = *fd = relay_log_file_open(path);
    else if (logs->checks_files)
        error = relay_log_file_check(path);
    if (error < 0)
        h2o_configurator_errprintf(cmd, node, "expected a file that can be written to: %s: %s", path,
                                   strerror(-error));
    return error < 0 ? -1 : 0;
}

static int on_command(h2o_configurator_command_t *cmd, h2o_configurator_context_t *ctx, yoml_t *node)
{
    struct configurator *self = (struct configurator *)cmd->configurator;
    struct words words = {0};
    if (read_words(cmd, node, &words) != 0)
        return -1;
    if (words.path[strspn(words.path, " \t")] == '|') {
        h2o_configurator_errprintf(cmd, node, "expected a file: no command is run");
        return -1;
    }
    struct relay_access_log *log = calloc(1, sizeof(*log)), **last = &self->logs->first;
    if (log == NULL)
        return -1;
    while (*last != NULL)
        last = &(*last)->next;
    *last = log; /* freed with the list from here on */
    log->fd = -1;
    log->depth = self->depth;
    log->path = strdup(words.path);
    log->format = compile(cmd, node, &words);
    return log->path != NULL && log->format != NULL ? open_file(cmd, ctx, node, log->path, &log->fd) : -1;
}

static int on_enter(h2o_configurator_t *super, h2o_configurator_context_t *ctx, yoml_t *node)
{
    ((struct configurator *)super)->depth++;
    return 0;
}

/* Leaving a path: all that stand at its level and above log it. */
static int on_exit_level(h2o_configurator_t *super, h2o_configurator_context_t *ctx, yoml_t *node)
{
    struct configurator *self = (struct configurator *)super;
    bool is_path = ctx->pathconf != NULL && (ctx->parent == NULL || ctx->parent->pathconf == NULL);
    for (struct relay_access_log *log = self->logs->first; log != NULL; log = log->next) {
        if (is_path && !log->is_over && log->fd >= 0) {
            struct logger *logger = (struct logger *)h2o_create_logger(ctx->pathconf, sizeof(*logger));
            logger->super.log_access = log_access;
            logger->log = log;
        }
        log->is_over |= log->depth == self->depth;
    }
    self->depth--;
    return 0;
}

void relay_access_log_register(h2o_globalconf_t *conf, struct relay_access_logs *logs)
{
    struct configurator *self = (struct configurator *)h2o_configurator_create(conf, sizeof(*self));
    self->super.enter = on_enter;
    self->super.exit = on_exit_level;
    self->logs = logs;
    self->depth = 0;
    h2o_configurator_define_command(
        &self->super, "access-log",
        H2O_CONFIGURATOR_FLAG_GLOBAL | H2O_CONFIGURATOR_FLAG_HOST | H2O_CONFIGURATOR_FLAG_PATH, on_command);
}

/* ---- the files ---- */

void relay_access_log_each(const struct relay_access_logs *logs, void (*cb)(const char *path, int fd))
{
    for (const struct relay_access_log *log = logs->first; log != NULL; log = log->next)
        if (log->fd >= 0)
            cb(log->path, log->fd);
}

void relay_access_log_free(struct relay_access_logs *logs)
{
    struct relay_access_log *next;
    for (struct relay_access_log *log = logs->first; log != NULL; log = next) {
        next = log->next;
        if (log->format != NULL)
            h2o_logconf_dispose(log->format);
        if (log->fd >= 0)
            close(log->fd);
        free(log->path);
        free(log);
    }
    logs->first = NULL;
}
