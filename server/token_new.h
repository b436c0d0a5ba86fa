/* `twohop token new NAME`: makes a token. */
#ifndef RELAY_SERVER_TOKEN_NEW_H
#define RELAY_SERVER_TOKEN_NEW_H

#include "lib/wire/base64.h"
#include "lib/wire/token_file.h"

#define RELAY_TOKEN_SECRET_BYTES 32

struct relay_new_token {
    char secret[RELAY_BASE64_ENCODED_SIZE(RELAY_TOKEN_SECRET_BYTES)]; /* base64url of random bytes */
    char line[RELAY_TOKEN_NAME_MAX + 1 + 2 * RELAY_TOKEN_DIGEST_SIZE +
              1]; /* of the token file, without its end */
};

/* RELAY_ERR_INVALID: the name is not one of lib/wire/token_file.h, it begins with "-" as options
 * do, or it is "none", whose line in the file has a meaning of its own. RELAY_ERR_INTERNAL: no randomness. */
int relay_token_new(struct relay_new_token *token, const char *name);

#endif
