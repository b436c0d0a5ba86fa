#include "modules/auth.h"

#include <string.h>
#include <time.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "lib/net/metrics.h"
#include "lib/wire/credential.h"
#include "lib/wire/error.h"
#include "modules/env.h"
#include "modules/failure_limit.h"
#include "modules/refusal.h"

#define CREDENTIALS_MAX 4
#define ENV_TOKEN       "twohop.token"

/* What the fields of one request came to. */
struct verdict {
    const struct relay_token_entry *token;
    unsigned num_wrong; /* secrets that were offered in vain */
    bool is_over;       /* and that a limit has counted too often */
};

static bool is_authorization(struct relay_slice name)
{
    return relay_slice_is(name, "proxy-authorization") || relay_slice_is(name, "authorization");
}

/* Compares with every entry, and in the same way: the time tells neither whether nor where the secret was
 * found. An expired entry is as good as none. */
static const struct relay_token_entry *find_token(const struct relay_token_file *tokens,
                                                  const uint8_t *digest)
{
    int64_t now = (int64_t)time(NULL);
    size_t found = 0; /* index + 1 */
    for (size_t i = 0; i < tokens->count; i++) {
        const struct relay_token_entry *entry = &tokens->entries[i];
        size_t fits = CRYPTO_memcmp(entry->digest, digest, RELAY_TOKEN_DIGEST_SIZE) == 0;
        size_t lives = entry->expires == 0 || now < entry->expires;
        size_t mask = 0 - (fits & lives);
        found = (found & ~mask) | ((i + 1) & mask);
    }
    return found > 0 ? &tokens->entries[found - 1] : NULL;
}

static const struct relay_token_entry *verify(const struct relay_snapshot *snapshot,
                                              const struct relay_credential *credential)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    const struct relay_token_entry *token = NULL;
    if (EVP_Digest(credential->secret, credential->secret_len, digest, NULL, EVP_sha256(), NULL) == 1)
        token = find_token(&snapshot->tokens, digest);
    OPENSSL_cleanse(digest, sizeof(digest));
    return token;
}

/* False when this wrong answer is one too many. */
static bool count_failure(struct relay_env *env, const struct relay_tunnel *tunnel,
                          const struct relay_credential *credential)
{
    const struct relay_snapshot *snapshot = env->snapshot;
    struct relay_failure_limit *failures = env->auth_failures;
    uint64_t now = relay_loop_now(env->loop);
    struct relay_address source;
    relay_address_from_sockaddr(&source, NULL, &tunnel->session->peer);
    if (!relay_prefix_set_contains(&snapshot->peers, &source))
        return relay_failure_limit_source(failures, &source, snapshot->caps.auth_failures_per_minute, now);
    bool is_within = relay_failure_limit_all(failures, snapshot->caps.auth_failures_per_minute_global, now);
    if (credential->user_len > 0)
        is_within &= relay_failure_limit_name(failures, credential->user, credential->user_len,
                                              snapshot->caps.auth_failures_per_minute, now);
    return is_within;
}

/* Reads the credentials of all fields, the good one first: failures are counted only when none is good. */
static struct verdict judge(struct relay_env *env, const struct relay_tunnel *tunnel,
                            const struct relay_request *head)
{
    struct verdict verdict = {NULL, 0, false};
    struct relay_credential credential;
    for (int pass = 0; pass < 2 && verdict.token == NULL; pass++) {
        size_t seen = 0;
        for (size_t i = 0; i < head->num_fields && seen < CREDENTIALS_MAX && verdict.token == NULL; i++) {
            const struct relay_field *field = &head->fields[i];
            if (!is_authorization(field->name))
                continue;
            seen++;
            int error = relay_credential_parse(&credential, field->value.base, field->value.len);
            if (pass == 0 && error == 0)
                verdict.token = verify(env->snapshot, &credential);
            if (pass == 1 && error != RELAY_ERR_UNSUPPORTED) {
                verdict.num_wrong++;
                verdict.is_over |= !count_failure(env, tunnel, &credential);
            }
        }
    }
    relay_credential_wipe(&credential);
    return verdict;
}

/* The request's copies are in its pool, ours to write to (modules/env.h). Its h2o headers never held them. */
static void strip(h2o_req_t *req)
{
    struct relay_request *head = (struct relay_request *)relay_request_of(req);
    struct relay_field *fields = (struct relay_field *)head->fields;
    size_t kept = 0;
    for (size_t i = 0; i < head->num_fields; i++) {
        if (is_authorization(fields[i].name))
            OPENSSL_cleanse((char *)fields[i].value.base, fields[i].value.len);
        else
            fields[kept++] = fields[i];
    }
    head->num_fields = kept;
}

static int accept_token(h2o_req_t *req, struct relay_tunnel *tunnel, const struct relay_token_entry *token)
{
    relay_count(relay_env_of(req)->metrics->auth_ok, 1);
    relay_session_authenticated(tunnel->session);
    *h2o_req_getenv(req, H2O_STRLIT(ENV_TOKEN), 1) = h2o_strdup(&req->pool, token->name, SIZE_MAX);
    return -1;
}

static int refuse_token(h2o_req_t *req, struct relay_tunnel *tunnel, const struct verdict *verdict)
{
    struct relay_metrics *metrics = relay_env_of(req)->metrics;
    if (verdict->num_wrong == 0)
        relay_count(metrics->auth_missing, 1);
    else
        relay_count(metrics->auth_bad, 1);
    if (!verdict->is_over)
        return relay_refuse(req, tunnel, RELAY_ERR_UNAUTHORIZED, -1);
    relay_count(metrics->auth_limited, 1);
    struct relay_session *session = tunnel->session;
    relay_refuse(req, tunnel, RELAY_ERR_TOO_MANY_FAILURES, -1);
    /* Not a close: other tunnels of the connection may have come with a good token. */
    relay_session_shutdown(session);
    return 0;
}

static int on_req(h2o_handler_t *self, h2o_req_t *req)
{
    struct relay_env *env = relay_env_of(req);
    struct relay_tunnel *tunnel = relay_tunnel_of(req);
    const struct relay_request *head = relay_request_of(req);
    struct verdict verdict = {0};
    bool is_needed = head->kind != RELAY_KIND_MESSAGE && !env->snapshot->auth_off;
    if (is_needed)
        verdict = judge(env, tunnel, head);
    strip(req);
    if (!is_needed)
        return -1;
    return verdict.token != NULL ? accept_token(req, tunnel, verdict.token)
                                 : refuse_token(req, tunnel, &verdict);
}

void relay_auth_register(h2o_pathconf_t *path)
{
    h2o_handler_t *handler = h2o_create_handler(path, sizeof(*handler));
    handler->on_req = on_req;
}

const char *relay_auth_token_of(h2o_req_t *req)
{
    const h2o_iovec_t *token = h2o_req_getenv(req, H2O_STRLIT(ENV_TOKEN), 0);
    return token != NULL ? token->base : NULL;
}
