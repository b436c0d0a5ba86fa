#include "server/server.h"

#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/net/log_file.h"
#include "lib/net/reserve.h"
#include "lib/wire/error.h"
#include "modules/failure_limit.h"
#include "modules/token_account.h"
#include "server/admin.h"
#include "server/config_error.h"
#include "server/listeners.h"
#include "server/memory.h"
#include "server/observation.h"
#include "server/place.h"
#include "server/process.h"
#include "server/reload_files.h"
#include "server/worker.h"

#define END_MAX         (500 * RELAY_MS) /* what the workers get to say goodbye after a second SIGTERM */
#define DESCRIPTORS_LOW 4096             /* below this an operator is warned at start */

struct server {
    const char *file;
    struct relay_config *config;
    struct relay_snapshot *snapshot;    /* the current one */
    struct relay_loop loop;             /* the main thread's: admin and signals */
    struct relay_metrics metrics;       /* the main thread's own events */
    struct relay_metrics admin_metrics; /* of admin.listen's visitors: in no total, they are not users */
    struct relay_worker *workers;
    unsigned num_workers, num_joined;
    struct relay_token_accounts *token_accounts; /* lent to the workers, as auth_failures */
    struct relay_failure_limit *auth_failures;
    struct relay_source_limit sources; /* lent as well */
    unsigned undrained;                /* lent as well */
    struct relay_listeners *listeners;
    struct relay_admin *admin;
    struct relay_admin_socket admin_socket;
    struct relay_admin_source source;
    struct relay_memory memory;
    struct relay_observation observation;
    uv_signal_t terminate, interrupt, hangup;
    struct relay_task reload_task;
    struct relay_timer end_timer; /* runs from the second SIGTERM on */
    uv_thread_t joiner;
    int pid_fd, log_fd; /* -1: none. log_fd: of error-log */
    unsigned num_terminations;
};

/* The process ends with workers and contexts alive (h2o_context_dispose is not safe); this keeps them
 * reachable. */
static struct server server;

static void fail(const char *why)
{
    relay_log(RELAY_LOG_ERROR, "cannot_start", "s:s", "reason", why);
}

/* ---- signals ---- */

static void on_all_joined(void *arg)
{
    relay_loop_stop(&server.loop);
}

static void join_all(void *arg)
{
    for (unsigned i = 0; i < server.num_workers; i++)
        relay_worker_join(&server.workers[i]);
    relay_loop_post(&server.loop, on_all_joined, NULL);
}

static void drain(void)
{
    server.source.is_draining = true;
    relay_log(RELAY_LOG_INFO, "draining", "s:i", "seconds", (int)server.snapshot->caps.drain_seconds);
    for (unsigned i = 0; i < server.num_workers; i++)
        relay_worker_drain(&server.workers[i]);
    if (uv_thread_create(&server.joiner, join_all, NULL) != 0)
        _exit(0);
}

static void on_end_timer(struct relay_timer *timer)
{
    relay_log(RELAY_LOG_WARNING, "cut_off", "s:s", "reason", "not all workers ended in time");
    _exit(0);
}

/* A client over QUIC would wait for its timeout if nothing told it. */
static void end_drain(void)
{
    relay_log(RELAY_LOG_WARNING, "ended_at_once", NULL);
    relay_timer_set_after(&server.loop, &server.end_timer, END_MAX);
    for (unsigned i = 0; i < server.num_workers; i++)
        relay_worker_end_drain(&server.workers[i]);
}

static void on_terminate(uv_signal_t *handle, int number)
{
    switch (server.num_terminations++) {
    case 0:
        drain();
        break;
    case 1:
        end_drain();
        break;
    default:
        _exit(0);
    }
}

static void reopen_log(const char *path, int fd)
{
    int error = relay_log_file_reopen(path, fd);
    if (error != 0)
        relay_log(RELAY_LOG_ERROR, "log_not_reopened", "s:s, s:s", "file", path, "reason", strerror(-error));
}

static void each_log(void (*cb)(const char *path, int fd))
{
    if (server.log_fd >= 0)
        cb(server.config->error_log, server.log_fd);
    relay_access_log_each(&server.config->access_logs, cb);
}

static void warn_of_uselessness(void)
{
    const char *doubt = relay_config_doubt(server.snapshot),
               *policy_doubt = relay_config_policy_doubt(server.snapshot);
    if (doubt != NULL)
        relay_log(RELAY_LOG_WARNING, "no_tokens", "s:s", "reason", doubt);
    if (policy_doubt != NULL)
        relay_log(RELAY_LOG_WARNING, "no_targets", "s:s", "reason", policy_doubt);
}

static void warn_of_rule(const char *text)
{
    relay_log(RELAY_LOG_WARNING, "doubtful_rule", "s:s", "reason", text);
}

static void count_failed_reload(const char *why)
{
    relay_count(server.metrics.reload_failed, 1);
    relay_log(RELAY_LOG_ERROR, "reload_failed", "s:s", "reason", why);
}

static void reload(struct relay_task *task)
{
    /* First: what follows is logged, and a broken file must not keep a log from rotating. */
    each_log(reopen_log);
    char why[RELAY_CONFIG_WHY_SIZE], restart[RELAY_CONFIG_WHY_SIZE];
    struct relay_snapshot *snapshot;
    int error = relay_config_reload(server.file, server.config, &snapshot, why, sizeof(why), restart,
                                    sizeof(restart));
    if (error == 0 && (error = relay_listeners_reload(server.listeners, why, sizeof(why))) != 0)
        relay_snapshot_unref(snapshot);
    if (error != 0) {
        count_failed_reload(why);
        return;
    }
    relay_snapshot_adopt(snapshot);
    relay_token_accounts_judge(server.token_accounts, &snapshot->tokens);
    relay_observation_apply(&server.observation, snapshot);
    for (unsigned i = 0; i < server.num_workers; i++)
        if (relay_worker_set_snapshot(&server.workers[i], snapshot) != 0)
            error = RELAY_ERR_NO_MEMORY;
    relay_snapshot_unref(snapshot);
    relay_snapshot_retire(server.snapshot);
    server.snapshot = snapshot;
    if (error != 0) {
        count_failed_reload("out of memory: some workers keep the old configuration");
        return;
    }
    relay_count(server.metrics.reload_ok, 1);
    relay_log(RELAY_LOG_INFO, "reloaded", "s:I, s:s*", "tokens", (json_int_t)snapshot->tokens.count,
              "needs_restart", restart[0] != '\0' ? restart : NULL);
    warn_of_uselessness();
}

/* Signals queue up: many of these are one reload, and a SIGTERM behind them does not wait for it. */
static void on_hangup(uv_signal_t *handle, int number)
{
    relay_task_queue(&server.loop, &server.reload_task);
}

static void watch_signals(void)
{
    relay_task_init(&server.reload_task, RELAY_LEVEL_EVENT, reload);
    relay_timer_init(&server.end_timer, on_end_timer);
    uv_signal_init(&server.loop.uv, &server.terminate);
    uv_signal_init(&server.loop.uv, &server.interrupt);
    uv_signal_init(&server.loop.uv, &server.hangup);
    uv_signal_start(&server.terminate, on_terminate, SIGTERM);
    uv_signal_start(&server.interrupt, on_terminate, SIGINT);
    uv_signal_start(&server.hangup, on_hangup, SIGHUP);
}

/* ---- start ---- */

/* What says why the start fails must not only stand in a file, which may be a living process's. */
static void copy_errors_to_stderr(void)
{
    struct stat log, standard;
    const bool is_same = fstat(server.log_fd, &log) == 0 && fstat(STDERR_FILENO, &standard) == 0 &&
                         log.st_dev == standard.st_dev && log.st_ino == standard.st_ino;
    relay_log_copy_errors(is_same ? -1 : STDERR_FILENO);
}

/* `why`, behind the place of the directive that it is about. */
static int say_place(const struct relay_config *config, const char *directive, char *why, size_t size)
{
    char message[RELAY_CONFIG_WHY_SIZE];
    snprintf(message, sizeof(message), "%s", why);
    relay_config_error_print(why, size, relay_yaml_get(config->yaml.root, directive), directive, message);
    return RELAY_ERR_INVALID;
}

static int open_log(const struct relay_config *config, char *why, size_t size)
{
    relay_log_set_level(config->log_level);
    if (config->error_log == NULL) {
        relay_log_set_fd(relay_log_file_own(STDERR_FILENO));
        return 0;
    }
    server.log_fd = relay_log_file_open(config->error_log);
    if (server.log_fd < 0) {
        snprintf(why, size, "%s: %s", config->error_log, strerror(-server.log_fd));
        return say_place(config, "error-log", why, size);
    }
    relay_log_set_fd(server.log_fd);
    copy_errors_to_stderr();
    return 0;
}

static int init_workers(const struct relay_config *config)
{
    server.num_workers = config->num_threads;
    server.workers = calloc(server.num_workers, sizeof(*server.workers));
    server.source.shards = calloc(server.num_workers + 1, sizeof(*server.source.shards));
    server.token_accounts =
        relay_token_accounts_new(server.num_workers, (uint32_t)relay_reserve_num_others());
    server.auth_failures = relay_failure_limit_new();
    relay_source_limit_init(&server.sources);
    server.undrained = server.num_workers;
    if (server.workers == NULL || server.source.shards == NULL || server.token_accounts == NULL ||
        server.auth_failures == NULL)
        return RELAY_ERR_NO_MEMORY;
    for (unsigned i = 0; i < server.num_workers; i++) {
        int error =
            relay_worker_init(&server.workers[i], i, &server.config->h2o, server.snapshot, &config->resolver);
        if (error != 0)
            return error;
        server.workers[i].env.token_accounts = server.token_accounts;
        server.workers[i].env.auth_failures = server.auth_failures;
        server.workers[i].sources = &server.sources;
        server.workers[i].undrained = &server.undrained;
        server.source.shards[i] = &server.workers[i].metrics;
    }
    server.source.shards[server.num_workers] = &server.metrics;
    server.source.num_shards = server.num_workers + 1;
    return 0;
}

static int open_admin(const struct relay_config *config, char *why, size_t size)
{
    server.source.role = server.snapshot->role == RELAY_ROLE_INGRESS ? "ingress" : "egress";
    server.source.started_at = relay_loop_now(&server.loop);
    if (!config->admin.is_given)
        return 0;
    int error = relay_listeners_bind_admin(config, &server.admin_socket, why, size);
    if (error != 0)
        return error;
    server.admin = relay_admin_new(&server.loop, server.admin_socket.fd, &server.source);
    return server.admin != NULL ? 0 : RELAY_ERR_NO_MEMORY;
}

/* The user must be able to open it again after a rotation. */
static void give_log(const char *path, int fd)
{
    relay_process_give(server.config->user, path, fd);
}

/* Everything that can fail, in the order in which an operator would look for the fault. */
static int start(const struct relay_config *config, char *why, size_t size)
{
    unsigned long descriptors = relay_process_raise_descriptors();
    int error = open_log(config, why, size);
    relay_reserve_set(descriptors);
    relay_places_set_max(descriptors);
    if (descriptors < DESCRIPTORS_LOW)
        relay_log(RELAY_LOG_WARNING, "few_descriptors", "s:I, s:s", "limit", (json_int_t)descriptors,
                  "advice", "raise the hard limit of open files (LimitNOFILE=), each tunnel needs up to two");
    if (error == 0 && config->pid_file != NULL &&
        relay_process_write_pid(config->pid_file, &server.pid_fd, why, size) != 0)
        error = say_place(config, "pid-file", why, size);
    if (error == 0 && (error = relay_loop_init(&server.loop, &server.admin_metrics)) != 0)
        snprintf(why, size, "%s", relay_error_text(error));
    if (error == 0 && (error = init_workers(config)) != 0)
        snprintf(why, size, "worker: %s", relay_error_text(error));
    if (error == 0) {
        server.listeners = relay_listeners_open(config, server.workers, server.num_workers, why, size);
        error = server.listeners != NULL ? 0 : RELAY_ERR_INVALID;
    }
    if (error == 0)
        error = open_admin(config, why, size);
    if (error == 0 && config->user != NULL)
        each_log(give_log);
    if (error == 0 && config->user != NULL)
        error = relay_process_become(config->user, why, size);
    if (error == 0 && config->user != NULL)
        error = relay_reload_files_check(config, server.file, why, size);
    return error;
}

static void list_listener(void *list, const char *text)
{
    json_array_append_new(list, json_string(text));
}

static json_t *list_listeners(void)
{
    json_t *list = json_array();
    relay_listeners_each(server.listeners, list_listener, list);
    return list;
}

/* Of the files that say we are there, also when we did not come to be. */
static void remove_traces(const struct relay_config *config)
{
    relay_listeners_remove_admin(config, &server.admin_socket);
    if (server.pid_fd >= 0)
        relay_process_remove_pid(config->pid_file, server.pid_fd);
}

int relay_server_run(const char *file, struct relay_config *config)
{
    char why[RELAY_CONFIG_WHY_SIZE] = "out of memory";
    server.file = file;
    server.config = config;
    server.snapshot = relay_snapshot_adopt(config->snapshot);
    server.pid_fd = server.log_fd = -1;
    signal(SIGPIPE, SIG_IGN); /* before the first line of the log, which nobody may read */
    if (start(config, why, sizeof(why)) != 0) {
        fail(why);
        remove_traces(config);
        return 1;
    }
    watch_signals();
    relay_observation_init(&server.observation, &server.loop, RELAY_OBSERVATION_WARNING,
                           RELAY_OBSERVATION_LENGTH);
    relay_observation_apply(&server.observation, server.snapshot);
    relay_memory_init(&server.memory, &server.loop, server.workers, server.num_workers);
    for (unsigned i = 0; i < server.num_workers; i++)
        if (relay_worker_start(&server.workers[i]) != 0) {
            fail("a thread cannot be started");
            remove_traces(config);
            return 1;
        }
    relay_log_copy_errors(-1);
    relay_log(RELAY_LOG_INFO, "ready", "s:s, s:s, s:i, s:I, s:o", "version", TWOHOP_VERSION, "role",
              server.source.role, "workers", (int)server.num_workers, "tokens",
              (json_int_t)server.snapshot->tokens.count, "listeners", list_listeners());
    warn_of_uselessness();
    relay_config_each_doubtful_rule(config, warn_of_rule);
    relay_loop_run(&server.loop);
    uv_thread_join(&server.joiner);
    remove_traces(config);
    relay_log(RELAY_LOG_INFO, "ended", NULL);
    return 0;
}
