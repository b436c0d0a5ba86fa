#include <stdint.h>
#include <stdlib.h>

#include "lib/wire/credential.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int is_inside(const struct relay_credential *credential, const char *at, size_t len)
{
    return at >= credential->bytes && len <= RELAY_CREDENTIAL_MAX &&
           at + len <= credential->bytes + RELAY_CREDENTIAL_MAX;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct relay_credential credential;
    const int error = relay_credential_parse(&credential, (const char *)data, size);
    if ((error == 0) != (credential.scheme != RELAY_CREDENTIAL_NONE) ||
        (error == 0) != (credential.secret_len > 0))
        abort();
    if (!is_inside(&credential, credential.secret, credential.secret_len) ||
        !is_inside(&credential, credential.user, credential.user_len))
        abort();
    for (size_t i = 0; i < credential.secret_len; i++)
        if ((unsigned char)credential.secret[i] < ' ')
            abort();
    relay_credential_wipe(&credential);
    return 0;
}
