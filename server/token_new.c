#include "server/token_new.h"

#include <stdio.h>
#include <string.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include "lib/wire/error.h"

/* The file's own parser knows what a name is: the line must be one token of this name. */
static int check_line(const char *line, const char *name)
{
    struct relay_token_file file;
    struct relay_token_file_error fault;
    int error = relay_token_file_parse(&file, line, strlen(line), &fault);
    if (error == 0 && (file.count != 1 || strcmp(file.entries[0].name, name) != 0))
        error = RELAY_ERR_INVALID;
    relay_token_file_dispose(&file);
    return error;
}

int relay_token_new(struct relay_new_token *token, const char *name)
{
    uint8_t bytes[RELAY_TOKEN_SECRET_BYTES], digest[EVP_MAX_MD_SIZE];
    if (strlen(name) > RELAY_TOKEN_NAME_MAX || name[0] == '-' || strcmp(name, "none") == 0)
        return RELAY_ERR_INVALID;
    if (RAND_bytes(bytes, sizeof(bytes)) != 1 ||
        relay_base64_encode(RELAY_BASE64_URL, bytes, sizeof(bytes), token->secret, sizeof(token->secret)) !=
            0 ||
        EVP_Digest(token->secret, strlen(token->secret), digest, NULL, EVP_sha256(), NULL) != 1)
        return RELAY_ERR_INTERNAL;
    explicit_bzero(bytes, sizeof(bytes));
    int len = snprintf(token->line, sizeof(token->line), "%s ", name);
    for (size_t i = 0; i < RELAY_TOKEN_DIGEST_SIZE; i++)
        len += snprintf(token->line + len, sizeof(token->line) - (size_t)len, "%02x", digest[i]);
    return check_line(token->line, name);
}
