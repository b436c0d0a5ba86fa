#include "client/config.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/wire/error.h"

const char relay_client_usage[] =
    "Usage: twohop-client [-c FILE] [OPTION]...          run the local fronts\n"
    "       twohop-client check [-c FILE] [OPTION]...    try the chain hop by hop and tell how each fares\n"
    "\n"
    "  -c, --config FILE      YAML configuration; flags are added to it\n"
    "  -t, --test             test the configuration and exit\n"
    "      --hop URL[,KEY=VALUE]...\n"
    "                         add a hop to the chain, the nearest one first. URL: https://HOST:PORT or a URI "
    "Template\n"
    "                         of RFC 9298. Keys: token or token-file, ca or pin, template, http, and url:\n"
    "                         another ingress, whose own token or token-file, ca or pin may follow it\n"
    "      --http-proxy ADDRESS:PORT   HTTP proxy (CONNECT and http URLs)\n"
    "      --socks ADDRESS:PORT        SOCKS5 proxy (CONNECT and UDP ASSOCIATE)\n"
    "      --forward tcp|udp:LOCAL:PORT=HOST:PORT\n"
    "                         fixed forward; may be repeated\n"
    "      --target HOST:PORT         check: a target that the last hop is asked for, instead of a name "
    "that\n"
    "                         cannot exist\n"
    "      --log-level LEVEL  debug, info, warning or error\n"
    "  -h, --help             this text\n"
    "  -V, --version          the version\n"
    "\n"
    "SIGHUP reads the token files and the ca files again. SIGTERM tells the relays and exits.\n";

static int fail(struct relay_client_config *config, const char *flag, const char *expected)
{
    snprintf(config->error, sizeof(config->error), "--%s: expected %s", flag, expected);
    return RELAY_ERR_INVALID;
}

/* `own`: whose token, ca and pin it is: of the hop, or of the ingress named last. */
static int set_hop_key(struct relay_hop_config *hop, struct relay_hop_identity *own, const char *name,
                       const char *value, const char **expected)
{
    static const struct {
        const char *name;
        int (*set)(struct relay_hop_config *hop, const char *text, const char **expected);
    } keys[] = {
        {"url", relay_hop_config_add_url},
        {"template", relay_hop_config_set_template},
        {"http", relay_hop_config_set_http},
    };
    static const struct {
        const char *name;
        int (*set)(struct relay_hop_identity *identity, const char *text, const char **expected);
    } own_keys[] = {
        {"token", relay_hop_identity_set_token},
        {"token-file", relay_hop_identity_load_token},
        {"ca", relay_hop_identity_set_ca},
        {"pin", relay_hop_identity_set_pin},
    };
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        if (strcmp(keys[i].name, name) == 0)
            return keys[i].set(hop, value, expected);
    for (size_t i = 0; i < sizeof(own_keys) / sizeof(own_keys[0]); i++)
        if (strcmp(own_keys[i].name, name) == 0)
            return own_keys[i].set(own, value, expected);
    *expected = "one of the keys url, token, token-file, ca, pin, template and http";
    return RELAY_ERR_INVALID;
}

/* The comma that ends a value: commas within braces belong to a URI Template. */
static char *value_end(char *text)
{
    int depth = 0;
    for (; *text != '\0' && (*text != ',' || depth > 0); text++)
        depth += *text == '{' ? 1 : *text == '}' ? -1 : 0;
    return text;
}

/* One KEY=VALUE behind the url; *template is the value of that key, which is wanted once more. */
static int take_hop_key(struct relay_client_config *config, struct relay_hop_config *hop, char *part,
                        const char **template, const char **expected)
{
    char *equals = strchr(part, '=');
    *expected = "KEY=VALUE behind the comma";
    if (equals == NULL)
        return RELAY_ERR_INVALID;
    *equals = '\0';
    if (strcmp(part, "template") == 0)
        *template = equals + 1;
    *expected = "several urls for hop 1 only";
    if (strcmp(part, "url") == 0 && config->num_hops > 1)
        return RELAY_ERR_INVALID;
    struct relay_hop_place *last = &hop->places[hop->num_places - 1];
    struct relay_hop_identity *own = hop->num_places > 1 ? &last->identity : &hop->identity;
    int error = set_hop_key(hop, own, part, equals + 1, expected);
    if (error == 0 && strcmp(part, "token-file") == 0 && own->is_token_exposed)
        relay_client_config_doubt(config, "--hop: warning: others may read the token file %s: chmod 600",
                                  equals + 1);
    return error;
}

static int parse_hop(struct relay_client_config *config, const char *spec, const char **expected)
{
    char *text = strdup(spec);
    const char *template = NULL;
    struct relay_hop_config *hop = NULL;
    *expected = "more memory";
    int error = text != NULL ? 0 : RELAY_ERR_NO_MEMORY;
    if (error == 0 && (hop = relay_client_config_add_hop(config, expected)) == NULL)
        error = RELAY_ERR_INVALID;
    for (char *next = text; error == 0 && next != NULL;) {
        char *part = next, *end = value_end(part);
        next = *end == ',' ? end + 1 : NULL;
        *end = '\0';
        error = part == text ? relay_hop_config_add_url(hop, part, expected)
                             : take_hop_key(config, hop, part, &template, expected);
    }
    if (error == 0 && template != NULL) /* for urls that stood behind it */
        error = relay_hop_config_set_template(hop, template, expected);
    if (text != NULL)
        explicit_bzero(text, strlen(spec));
    free(text);
    return error;
}

enum { FLAG_HOP = 256, FLAG_HTTP_PROXY, FLAG_SOCKS, FLAG_FORWARD, FLAG_TARGET, FLAG_LOG_LEVEL };

static const struct option options[] = {
    {"config", required_argument, NULL, 'c'},
    {"test", no_argument, NULL, 't'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {"hop", required_argument, NULL, FLAG_HOP},
    {"http-proxy", required_argument, NULL, FLAG_HTTP_PROXY},
    {"socks", required_argument, NULL, FLAG_SOCKS},
    {"forward", required_argument, NULL, FLAG_FORWARD},
    {"target", required_argument, NULL, FLAG_TARGET},
    {"log-level", required_argument, NULL, FLAG_LOG_LEVEL},
    {NULL, 0, NULL, 0},
};

static int take_flag(struct relay_client_config *config, struct relay_client_command *command, int flag,
                     const char *name, const char *value)
{
    const char *expected = NULL;
    int error = 0;
    switch (flag) {
    case 'c':
        return relay_client_config_load_file(config, value);
    case 't':
        command->test = true;
        break;
    case 'h':
        command->help = true;
        break;
    case 'v': /* as twohop takes it */
    case 'V':
        command->version = true;
        break;
    case FLAG_HOP:
        error = parse_hop(config, value, &expected);
        break;
    case FLAG_HTTP_PROXY:
        error = relay_listen_address_parse(&config->http_proxy, value, strlen(value), &expected);
        break;
    case FLAG_SOCKS:
        error = relay_listen_address_parse(&config->socks, value, strlen(value), &expected);
        break;
    case FLAG_FORWARD:
        error = relay_client_config_add_forward(config, value, &expected);
        break;
    case FLAG_TARGET:
        expected = "HOST:PORT";
        error = relay_authority_parse(&command->target, &command->target_port, value, strlen(value));
        break;
    default:
        error = relay_client_config_set_log_level(config, value, &expected);
    }
    return error != 0 ? fail(config, name, expected) : 0;
}

int relay_client_config_parse_flags(struct relay_client_config *config, struct relay_client_command *command,
                                    int argc, char **argv)
{
    *command = (struct relay_client_command){0};
    int error = 0, flag, index = 0;
    optind = 0; /* glibc: start anew, for tests that parse twice */
    opterr = 0;
    while (error == 0 && (flag = getopt_long(argc, argv, ":c:thvV", options, &index)) != -1) {
        if (flag == '?' || flag == ':') {
            snprintf(config->error, sizeof(config->error), "%s: %s", argv[optind - 1],
                     flag == '?' ? "unknown option; see --help" : "a value is missing");
            return RELAY_ERR_INVALID;
        }
        error = take_flag(config, command, flag, flag < 256 ? "config" : options[index].name, optarg);
    }
    for (; error == 0 && optind < argc; optind++) {
        if (strcmp(argv[optind], "check") == 0) {
            command->check = true;
        } else {
            snprintf(config->error, sizeof(config->error), "%s: unknown command; see --help", argv[optind]);
            error = RELAY_ERR_INVALID;
        }
    }
    if (error == 0 && command->target_port != 0 && !command->check)
        error = fail(config, "target", "the command check with it");
    return error;
}
