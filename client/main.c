/* twohop-client: the user's side. Reads the configuration, listens on the local fronts, keeps the chain. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "client/chain.h"
#include "client/check.h"
#include "client/config.h"
#include "client/front.h"
#include "client/front_forward.h"
#include "lib/net/hosts_file.h"
#include "lib/net/log.h"
#include "lib/net/log_file.h"
#include "lib/net/metrics.h"
#include "lib/net/standard_fds.h"
#include "lib/wire/error.h"

#define BUDGET       (256 * 1024 * 1024) /* flow-control credit beyond each tunnel's first window */
#define CLOSING_MAX  (2 * RELAY_SECOND)  /* for the relays to be told that we go */
#define CLOSING_LOOK (10 * RELAY_MS)
#define EXIT_USAGE   2

/* The whole program. Static, so that what still lives at the end is reachable. */
static struct client {
    struct relay_client_config config;
    struct relay_metrics metrics;
    struct relay_loop loop;
    struct relay_hop_environment environment;
    struct relay_chain *chain;
    struct relay_front http, socks;
    struct relay_front_forward forwards[RELAY_FORWARDS_MAX];
    uv_signal_t terminate, interrupt, hangup;
    bool has_terminal; /* it is expected to end with it */
    struct relay_timer closing;
    uint64_t closing_until;
    bool is_closing;
} client;

/* ---- signals ---- */

static void on_closing(struct relay_timer *timer)
{
    if (client.environment.num_hops == 0 || relay_loop_now(&client.loop) >= client.closing_until)
        relay_loop_stop(&client.loop);
    else
        relay_timer_set_after(&client.loop, timer, CLOSING_LOOK);
}

static void begin_closing(int number)
{
    client.is_closing = true;
    relay_log(RELAY_LOG_INFO, "closing", "s:i", "signal", number);
    relay_front_stop(&client.http);
    relay_front_stop(&client.socks);
    for (size_t i = 0; i < client.config.num_forwards; i++)
        relay_front_forward_stop(&client.forwards[i]);
    relay_chain_stop(client.chain);
    client.closing_until = relay_loop_now(&client.loop) + CLOSING_MAX;
    relay_timer_set_after(&client.loop, &client.closing, CLOSING_LOOK);
}

static void on_terminate(uv_signal_t *handle, int number)
{
    (void)handle;
    if (client.is_closing)
        _exit(0);
    begin_closing(number);
}

/* Only the kernel's word that there is none counts, and no lack of descriptors. */
static bool has_terminal(void)
{
    int fd = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    bool is_gone = fd < 0 && (errno == ENXIO || errno == EIO);
    if (fd >= 0)
        close(fd);
    return !is_gone;
}

static void fail_reload(const char *why)
{
    relay_log(RELAY_LOG_ERROR, "reload_failed", "s:s", "reason", why);
}

/* Of the two each is read wholly or stays what it was. */
static void reload(void)
{
    char text[512] = "";
    int tokens = relay_client_config_reload_tokens(&client.config),
        trust = relay_chain_renew_trust(client.chain, text, sizeof(text));
    if (tokens != 0)
        fail_reload(client.config.error);
    if (trust != 0)
        fail_reload(text);
    if (tokens == 0 && trust == 0)
        relay_log(RELAY_LOG_INFO, "reloaded", NULL);
}

/* The terminal says it when it goes, and whoever runs a service when files have changed. */
static void on_hangup(uv_signal_t *handle, int number)
{
    (void)handle;
    if (client.is_closing)
        return;
    if (client.has_terminal && !has_terminal())
        begin_closing(number);
    else
        reload();
}

/* Under nohup a terminal may go. */
static bool is_hangup_ignored(void)
{
    struct sigaction action;
    return sigaction(SIGHUP, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

static void catch_signals(void)
{
    client.has_terminal = has_terminal() && !is_hangup_ignored();
    relay_timer_init(&client.closing, on_closing);
    uv_signal_init(&client.loop.uv, &client.terminate);
    uv_signal_init(&client.loop.uv, &client.interrupt);
    uv_signal_init(&client.loop.uv, &client.hangup);
    uv_signal_start(&client.terminate, on_terminate, SIGTERM);
    uv_signal_start(&client.interrupt, on_terminate, SIGINT);
    uv_signal_start(&client.hangup, on_hangup, SIGHUP);
}

/* ---- the start ---- */

static int complain(const char *text)
{
    fprintf(stderr, "twohop-client: %s\n", text);
    return EXIT_FAILURE;
}

static void raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static const char *init_environment(void)
{
    static const struct relay_resolver_config resolver = {
        .timeout = 5 * RELAY_SECOND, .cache_names = 100, .hosts_file = RELAY_HOSTS_FILE};
    if (relay_loop_init(&client.loop, &client.metrics) != 0)
        return "cannot make an event loop: out of memory or descriptors";
    client.environment.loop = &client.loop;
    client.environment.limits = RELAY_LIMITS_DEFAULT;
    client.environment.budget.limit = BUDGET;
    client.environment.resolver = relay_resolver_new(&client.loop, &resolver);
    return client.environment.resolver == NULL ? "cannot read the system's DNS configuration" : NULL;
}

static void log_front(const char *kind, const struct sockaddr_storage *address)
{
    char text[RELAY_ADDRESS_TEXT_SIZE];
    struct relay_address parsed;
    uint16_t port;
    relay_address_from_sockaddr(&parsed, &port, address);
    relay_log(RELAY_LOG_INFO, "listening", "s:s, s:s, s:i", "front", kind, "address",
              relay_address_print(&parsed, text), "port", (int)port);
}

static int listen_fronts(char *text, size_t size)
{
    const struct relay_client_config *config = &client.config;
    int error = 0;
    if (config->http_proxy.ss_family != AF_UNSPEC) {
        error = relay_front_http_listen(&client.http, &client.loop, client.chain, &config->http_proxy, text,
                                        size);
        if (error == 0)
            log_front("http-proxy", &client.http.address);
    }
    if (error == 0 && config->socks.ss_family != AF_UNSPEC) {
        error =
            relay_front_socks_listen(&client.socks, &client.loop, client.chain, &config->socks, text, size);
        if (error == 0)
            log_front("socks", &client.socks.address);
    }
    for (size_t i = 0; error == 0 && i < config->num_forwards; i++) {
        struct relay_front_forward *forward = &client.forwards[i];
        error =
            relay_front_forward_listen(forward, &client.loop, client.chain, &config->forwards[i], text, size);
        if (error == 0)
            log_front(config->forwards[i].is_udp ? "udp-forward" : "tcp-forward", &forward->address);
    }
    return error;
}

/* The only place that tells what was lost: the client has no admin listener. */
static void log_closed(void)
{
    const struct relay_metrics *metrics = &client.metrics;
    relay_log(RELAY_LOG_INFO, "closed", "s:{s:I, s:I, s:I, s:I, s:I}", "dropped", "too_big",
              (long long)metrics->drop_too_big, "blocked", (long long)metrics->drop_blocked, "before_accept",
              (long long)metrics->drop_early, "bad_packet", (long long)metrics->drop_packet, "socket_error",
              (long long)metrics->drop_socket);
}

/* A line in the log for who serves; for who only asks as the errors are told. */
static void tell_doubts(bool is_asked)
{
    for (size_t i = 0; i < client.config.num_doubts; i++)
        if (is_asked)
            fprintf(stderr, "%s\n", client.config.doubts[i]);
        else
            relay_log(RELAY_LOG_WARNING, "doubtful_config", "s:s", "reason", client.config.doubts[i]);
}

static int serve(void)
{
    char text[512] = "";
    if (listen_fronts(text, sizeof(text)) != 0)
        return complain(text);
    catch_signals();
    relay_chain_start(client.chain);
    relay_log(RELAY_LOG_INFO, "ready", NULL);
    relay_loop_run(&client.loop);
    log_closed();
    return EXIT_SUCCESS;
}

static int run(const struct relay_client_command *command)
{
    char text[512] = "";
    const char *wrong = init_environment();
    if (wrong != NULL)
        return complain(wrong);
    if (command->check)
        return relay_check_run(&client.environment, &client.config,
                               command->target_port != 0 ? &command->target : NULL, command->target_port,
                               stdout) == 0
                   ? EXIT_SUCCESS
                   : EXIT_FAILURE;
    client.chain = relay_chain_new(&client.environment, &client.config, text, sizeof(text));
    if (client.chain == NULL)
        return complain(text);
    if (command->test) {
        puts("configuration ok");
        return EXIT_SUCCESS;
    }
    return serve();
}

int main(int argc, char **argv)
{
    struct relay_client_command command;
    if (relay_standard_fds_fill() != 0)
        return EXIT_FAILURE;
    relay_client_config_init(&client.config);
    int error = relay_client_config_parse_flags(&client.config, &command, argc, argv);
    if (error == 0 && command.help) {
        fputs(relay_client_usage, stdout);
        return EXIT_SUCCESS;
    }
    if (error == 0 && command.version) {
        puts("twohop-client " TWOHOP_VERSION);
        return EXIT_SUCCESS;
    }
    if (error == 0)
        error = relay_client_config_check(&client.config, !command.check);
    if (error != 0) {
        complain(client.config.error);
        return EXIT_USAGE;
    }
    if (!command.check && !command.test)
        signal(SIGPIPE, SIG_IGN); /* before the first line of the log, which nobody may read */
    relay_log_set_level(command.check ? RELAY_LOG_ERROR : client.config.log_level);
    relay_log_set_fd(relay_log_file_own(STDERR_FILENO));
    tell_doubts(command.check || command.test);
    raise_descriptors();
    return run(&command);
}
