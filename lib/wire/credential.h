/* The secret in a Proxy-Authorization or Authorization field value.
 *
 *   Bearer SECRET                     RFC 6750
 *   Basic base64(USER:SECRET)         RFC 7617; USER is a hint at the token's name. "SECRET:" is accepted too
 *   PrivacyToken token=SECRET         draft-privacy-token; quoted or not, other parameters are skipped
 *   Preshared SECRET
 *
 * Scheme names are case-insensitive. The credential copies what it keeps; wipe it as soon as the secret was
 * verified, also after a failure. It is never logged.
 */
#ifndef RELAY_WIRE_CREDENTIAL_H
#define RELAY_WIRE_CREDENTIAL_H

#include <stddef.h>

#define RELAY_CREDENTIAL_MAX 1024 /* bytes of user, colon and secret together */

enum relay_credential_scheme {
    RELAY_CREDENTIAL_NONE,
    RELAY_CREDENTIAL_BEARER,
    RELAY_CREDENTIAL_BASIC,
    RELAY_CREDENTIAL_PRIVACY_TOKEN,
    RELAY_CREDENTIAL_PRESHARED,
};

/* In the caller's memory. `user` and `secret` point into `bytes`: do not copy the struct. They are not
 * NUL-terminated. */
struct relay_credential {
    enum relay_credential_scheme scheme;
    const char *secret; /* 1 byte at least after success */
    size_t secret_len;
    const char *user; /* Basic: the user, may be empty; else empty. With an empty password user == secret */
    size_t user_len;
    char bytes[RELAY_CREDENTIAL_MAX];
};

/* Parses one field value, `len` bytes, spaces and tabs around it allowed.
 *   RELAY_ERR_UNSUPPORTED  another scheme (the caller goes on to the other field)
 *   RELAY_ERR_INVALID      malformed: no secret, a control byte, bad base64, no colon in Basic
 *   RELAY_ERR_TOO_BIG      more than RELAY_CREDENTIAL_MAX bytes
 * After a failure it is wiped and has scheme NONE. */
int relay_credential_parse(struct relay_credential *credential, const char *value, size_t len);

/* Overwrites all of it in a way the compiler keeps. */
void relay_credential_wipe(struct relay_credential *credential);

#endif
