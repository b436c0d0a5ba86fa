#include "modules/auth_config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "lib/wire/error.h"
#include "modules/snapshot.h"

static int apply_auth(h2o_configurator_command_t *cmd, h2o_configurator_context_t *ctx, yoml_t *node,
                      struct relay_snapshot *snapshot)
{
    static const char expected[] = "off (to switch it on give auth.tokens)";
    const char *text = relay_directive_scalar(cmd, node, expected);
    if (text == NULL)
        return -1;
    if (strcasecmp(text, "off") != 0) {
        h2o_configurator_errprintf(cmd, node, "expected %s", expected);
        return -1;
    }
    snapshot->auth_off = true;
    return 0;
}

/* The whole file, to be freed; NULL with errno. */
static char *read_file(const char *path, size_t *len)
{
    char *bytes = malloc(RELAY_TOKEN_FILE_BYTES_MAX + 1);
    FILE *stream = bytes != NULL ? fopen(path, "re") : NULL;
    if (stream == NULL)
        goto Fail;
    *len = fread(bytes, 1, RELAY_TOKEN_FILE_BYTES_MAX + 1, stream);
    if (!ferror(stream) && *len <= RELAY_TOKEN_FILE_BYTES_MAX) {
        fclose(stream);
        return bytes;
    }
    const int error = ferror(stream) ? errno : EFBIG;
    fclose(stream);
    errno = error;

Fail:
    free(bytes);
    return NULL;
}

static int apply_tokens(h2o_configurator_command_t *cmd, h2o_configurator_context_t *ctx, yoml_t *node,
                        struct relay_snapshot *snapshot)
{
    const char *path = relay_directive_scalar(cmd, node, "the path of a token file");
    if (path == NULL)
        return -1;
    size_t len = 0;
    char *bytes = read_file(path, &len);
    if (bytes == NULL) {
        h2o_configurator_errprintf(cmd, node, "expected a token file that can be read: %s: %s", path,
                                   strerror(errno));
        return -1;
    }
    struct relay_token_file_error fault = {0};
    const int error = relay_token_file_parse(&snapshot->tokens, bytes, len, &fault);
    free(bytes);
    if (error == RELAY_ERR_NO_MEMORY)
        h2o_configurator_errprintf(cmd, node, "out of memory");
    else if (error != 0)
        h2o_configurator_errprintf(cmd, node, "%s:%u:%u: expected %s", path, fault.line, fault.column,
                                   fault.expected);
    return error == 0 ? 0 : -1;
}

static int add_peer(h2o_configurator_command_t *cmd, yoml_t *item, struct relay_snapshot *snapshot)
{
    struct relay_prefix prefix;
    const char *text = item->data.scalar;
    if (relay_prefix_parse(text, strlen(text), &prefix) != 0 ||
        relay_prefix_set_add(&snapshot->peers, &prefix) != 0) {
        h2o_configurator_errprintf(
            cmd, item, "expected an address or a prefix without host bits, as 192.0.2.0/24 or 2001:db8::/32");
        return -1;
    }
    return 0;
}

static int apply_peers(h2o_configurator_command_t *cmd, h2o_configurator_context_t *ctx, yoml_t *node,
                       struct relay_snapshot *snapshot)
{
    return relay_directive_each(cmd, node, "a list of prefixes", add_peer, snapshot);
}

const struct relay_directive relay_auth_directives[] = {
    {.name = "auth",
     .type = RELAY_DIRECTIVE_CUSTOM,
     .apply = apply_auth,
     .form = "off",
     .help = "Whoever can connect may use the relay. Only for tests, or behind something that asks for "
             "credentials itself. "
             "Without it auth.tokens is mandatory."},
    {.name = "auth.tokens",
     .type = RELAY_DIRECTIVE_CUSTOM,
     .apply = apply_tokens,
     .form = "FILE",
     .help = "Who may use the relay: one token per line, NAME SHA256 [expires=WHEN]; `twohop token new NAME` "
             "makes one. Read again on SIGHUP, which closes the tunnels of a token that is gone. A file "
             "without any is refused "
             "there, unless a line `none` says that all are revoked."},
    {.name = "auth.failures-per-minute",
     RELAY_DIRECTIVE_U32_AT(caps.auth_failures_per_minute),
     .min = 1,
     .max = 100000,
     .default_text = "10",
     .help = "Wrong tokens from one IPv4 address or IPv6 /64, above which the answer is 429 and a close. A "
             "good token is "
             "never refused. Sources in peers: are not limited by address."},
    {.name = "auth.failures-per-minute-global",
     RELAY_DIRECTIVE_U32_AT(caps.auth_failures_per_minute_global),
     .min = 1,
     .max = 10000000,
     .default_text = "1000",
     .help = "Wrong tokens from all sources in peers: together; above it 429 there. A user name offered "
             "there (Basic) "
             "is limited by auth.failures-per-minute besides."},
    {.name = "peers",
     .type = RELAY_DIRECTIVE_CUSTOM,
     .apply = apply_peers,
     .form = "[PREFIX, ...]",
     .default_text = "[]",
     .help =
         "At an egress: the addresses of the ingresses, behind which all users are; elsewhere a carrier's "
         "NAT. They are exempt from all limits per "
         "address; limits per token and global ones hold."},
    {.name = NULL},
};
