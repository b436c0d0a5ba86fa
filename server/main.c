/* twohop: the relay, as ingress or as egress. */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/net/standard_fds.h"
#include "lib/wire/error.h"
#include "server/config.h"
#include "server/process.h"
#include "server/reload_files.h"
#include "server/server.h"
#include "server/token_append.h"
#include "server/token_new.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

static const char usage[] = "Usage: twohop -c FILE         serve\n"
                            "       twohop -t -c FILE      test the configuration and exit\n"
                            "       twohop token new NAME  make a token; with --append FILE add it to FILE\n"
                            "\n"
                            "  -c, --config FILE  YAML configuration\n"
                            "  -t, --test         test it and exit: no port is opened, and only root can try "
                            "what user: may read\n"
                            "      --help-config  all directives of the configuration\n"
                            "  -h, --help         this text\n"
                            "  -V, --version      the version\n"
                            "\n"
                            "SIGHUP reads the configuration and the tokens again. SIGTERM stops accepting, "
                            "lets the tunnels go on for a\n"
                            "while and exits; a second one ends at once.\n";

static const char token_usage[] =
    "Usage: twohop token new NAME [--append FILE]\n"
    "\n"
    "Prints a new secret, for its user, and the line to append to the file of auth.tokens:\n"
    "    NAME SHA256-OF-THE-SECRET [expires=WHEN]\n"
    "With --append the line goes to that file, and the secret alone is printed; then SIGHUP. The file is "
    "made, "
    "0640, if there\n"
    "is none. One that has the name, says none, is a link or no file of tokens is refused, and stays as it "
    "is.\n"
    "\n"
    "NAME is 1-64 letters, digits, '.', '_' or '-', not '-' first, and not \"none\". Append expires=WHEN to "
    "the line for a "
    "token that\n"
    "ends: a date (2027-01-01: from 00:00 UTC on it is refused), a date and time (2027-01-01T12:00:00Z, or "
    "with\n"
    "+01:00 instead of Z) or seconds since 1970.\n"
    "\n"
    "To revoke a token take its line out of the file, then SIGHUP. A file without any token is refused "
    "then, unless\n"
    "it has a line `none`: that revokes all. Replace the file in one step (mv), so that no half of it is "
    "read.\n";

static void on_doubt(const char *text)
{
    fprintf(stderr, "%s\n", text);
}

static int test(const char *file)
{
    struct relay_config *config;
    char why[RELAY_CONFIG_WHY_SIZE];
    int error = relay_config_load(file, RELAY_CONFIG_TEST, &config, why, sizeof(why));
    /* Only root can see with the eyes of another. */
    if (error == 0 && config->user != NULL && geteuid() == 0 &&
        (error = relay_process_become(config->user, why, sizeof(why))) == 0)
        error = relay_reload_files_check(config, file, why, sizeof(why));
    const char *doubt = error == 0 ? relay_config_doubt(config->snapshot) : NULL,
               *policy_doubt = error == 0 ? relay_config_policy_doubt(config->snapshot) : NULL;
    if (error == 0)
        relay_config_each_doubtful_rule(config, on_doubt);
    relay_config_free(config);
    if (error != 0) {
        fprintf(stderr, "%s\n", why);
        return EXIT_FAILED;
    }
    if (doubt != NULL)
        fprintf(stderr, "%s: warning: %s\n", file, doubt);
    if (policy_doubt != NULL)
        fprintf(stderr, "%s: warning: %s\n", file, policy_doubt);
    printf("%s: ok\n", file);
    return EXIT_OK;
}

static int serve(const char *file)
{
    struct relay_config *config;
    char why[RELAY_CONFIG_WHY_SIZE];
    if (relay_config_load(file, RELAY_CONFIG_SERVE, &config, why, sizeof(why)) != 0) {
        fprintf(stderr, "%s\n", why);
        return EXIT_FAILED;
    }
    return relay_server_run(file, config);
}

/* Everything the user needs of it is on stdout when this succeeds: nobody else has the secret. */
static int hand_over(const char *name, const struct relay_new_token *token, bool is_secret_alone)
{
    if (is_secret_alone)
        printf("%s\n", token->secret);
    else
        printf("Secret of %s, shown only now:\n"
               "    %s\n"
               "Line to append to the file of auth.tokens, then SIGHUP:\n"
               "    %s\n",
               name, token->secret, token->line);
    if (fflush(stdout) == 0 && ferror(stdout) == 0)
        return EXIT_OK;
    fprintf(stderr, "twohop: the token could not be written: %s\n", strerror(errno));
    return EXIT_FAILED;
}

static volatile sig_atomic_t is_interrupted;

static void on_interrupt(int number)
{
    is_interrupted = 1;
}

/* In the place of an end amid its work, which would leave a line whose secret nobody has. What waits fails with EINTR. */
static void catch_interrupts(sigset_t *caught)
{
    static const int numbers[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM};
    const struct sigaction action = {.sa_handler = on_interrupt};
    struct sigaction before;
    sigemptyset(caught);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        if (sigaction(numbers[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN) {
            sigaction(numbers[i], &action, NULL);
            sigaddset(caught, numbers[i]);
        }
}

/* Interrupted, until stdout takes the secret: nobody gets it. From then on: its user has it. */
static int hand_over_uninterrupted(const char *name, const struct relay_new_token *token,
                                   const sigset_t *caught)
{
    struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
    sigset_t before;
    sigprocmask(SIG_BLOCK, caught, &before);
    if (!is_interrupted && ppoll(&out, 1, NULL, &before) >= 0)
        return hand_over(name, token, true);
    fprintf(stderr, "twohop: the token could not be written: %s\n", strerror(EINTR));
    return EXIT_FAILED;
}

static int append_token(const char *name, const struct relay_new_token *token, const char *file)
{
    struct relay_token_append append;
    char why[RELAY_CONFIG_WHY_SIZE];
    sigset_t caught;
    signal(SIGPIPE, SIG_IGN); /* whoever prints to nobody takes the line out again */
    catch_interrupts(&caught);
    if (relay_token_append(&append, file, name, token->line, why, sizeof(why)) != 0) {
        fprintf(stderr, "%s\n", why);
        return EXIT_FAILED;
    }
    const int status = hand_over_uninterrupted(name, token, &caught);
    relay_token_append_end(&append, status == EXIT_OK);
    return status;
}

/* `file`: that the token's line is appended to; NULL: none. */
static int make_token(const char *name, const char *file)
{
    struct relay_new_token token;
    const int error = relay_token_new(&token, name);
    int status = error == RELAY_ERR_INVALID ? EXIT_USAGE : EXIT_FAILED;
    if (error == RELAY_ERR_INVALID)
        fprintf(stderr, "twohop: a token's name is 1-64 letters, digits, '.', '_' or '-', not '-' first, and "
                        "not \"none\"\n");
    else if (error != 0)
        fprintf(stderr, "twohop: %s\n", relay_error_text(error));
    else
        status = file != NULL ? append_token(name, &token, file) : hand_over(name, &token, false);
    explicit_bzero(&token, sizeof(token));
    return status;
}

static int complain(void)
{
    fputs(usage, stderr);
    return EXIT_USAGE;
}

/* `token new` with its options before or behind the name. */
static int token(int argc, char **argv)
{
    static const struct option options[] = {
        {"append", required_argument, NULL, 'a'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    const char *file = NULL;
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;)
        if (c == 'a' && file == NULL && optarg[0] != '\0') {
            file = optarg;
        } else if (c == 'h') {
            fputs(token_usage, stdout);
            return EXIT_OK;
        } else {
            return complain();
        }
    return argc - optind == 3 && strcmp(argv[optind + 1], "new") == 0 ? make_token(argv[optind + 2], file)
                                                                      : complain();
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'}, {"test", no_argument, NULL, 't'},
        {"help", no_argument, NULL, 'h'},         {"version", no_argument, NULL, 'V'},
        {"help-config", no_argument, NULL, 'H'},  {NULL, 0, NULL, 0},
    };
    const char *file = NULL;
    bool is_test = false;
    if (relay_standard_fds_fill() != 0)
        return EXIT_FAILED;
    if (argc >= 2 && strcmp(argv[1], "token") == 0)
        return token(argc, argv);
    for (int c; (c = getopt_long(argc, argv, "c:thvV", options, NULL)) != -1;)
        switch (c) {
        case 'c':
            file = optarg;
            break;
        case 't':
            is_test = true;
            break;
        case 'h':
            fputs(usage, stdout);
            return EXIT_OK;
        case 'v': /* h2o's name of it */
        case 'V':
            puts("twohop " TWOHOP_VERSION);
            return EXIT_OK;
        case 'H':
            relay_config_print_manual();
            return EXIT_OK;
        default:
            return complain();
        }
    if (file == NULL || optind != argc)
        return complain();
    return is_test ? test(file) : serve(file);
}
