#include "lib/wire/credential.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

#include "lib/wire/base64.h"
#include "lib/wire/error.h"

/* What is left to parse of a field value. */
struct text {
    const char *at, *end;
};

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

static void skip_spaces(struct text *text)
{
    while (text->at < text->end && is_space(*text->at))
        text->at++;
}

static bool is_equal(const char *word, size_t len, const char *wanted)
{
    return len == strlen(wanted) && strncasecmp(word, wanted, len) == 0;
}

static enum relay_credential_scheme scheme_of(const char *word, size_t len)
{
    if (is_equal(word, len, "Bearer"))
        return RELAY_CREDENTIAL_BEARER;
    if (is_equal(word, len, "Basic"))
        return RELAY_CREDENTIAL_BASIC;
    if (is_equal(word, len, "PrivacyToken"))
        return RELAY_CREDENTIAL_PRIVACY_TOKEN;
    if (is_equal(word, len, "Preshared"))
        return RELAY_CREDENTIAL_PRESHARED;
    return RELAY_CREDENTIAL_NONE;
}

/* A secret that stands in the value as it is: visible ASCII. */
static int take_plain(struct relay_credential *credential, const char *secret, size_t len)
{
    if (len == 0)
        return RELAY_ERR_INVALID;
    if (len > sizeof(credential->bytes))
        return RELAY_ERR_TOO_BIG;
    for (size_t i = 0; i < len; i++)
        if (secret[i] <= ' ' || secret[i] > '~')
            return RELAY_ERR_INVALID;
    memcpy(credential->bytes, secret, len);
    credential->secret = credential->bytes;
    credential->secret_len = len;
    return 0;
}

static int take_basic(struct relay_credential *credential, const struct text *text)
{
    size_t len;
    int error = relay_base64_decode(text->at, (size_t)(text->end - text->at), (uint8_t *)credential->bytes,
                                    sizeof(credential->bytes), &len);
    if (error != 0)
        return error;
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)credential->bytes[i] < ' ' || credential->bytes[i] == 0x7f)
            return RELAY_ERR_INVALID;
    const char *colon = memchr(credential->bytes, ':', len);
    if (colon == NULL)
        return RELAY_ERR_INVALID;
    credential->user = credential->bytes;
    credential->user_len = (size_t)(colon - credential->bytes);
    credential->secret = colon + 1;
    credential->secret_len = len - credential->user_len - 1;
    if (credential->secret_len == 0) {
        credential->secret = credential->user;
        credential->secret_len = credential->user_len;
    }
    return credential->secret_len > 0 ? 0 : RELAY_ERR_INVALID;
}

/* Undoes the quoting of a quoted-string (RFC 9110 section 5.6.4) into `bytes`; `text` stands behind the first
 * quote and is left behind the last one. */
static int unquote(struct text *text, char *bytes, size_t size, size_t *len)
{
    for (*len = 0; text->at < text->end; (*len)++) {
        char c = *text->at++;
        if (c == '"')
            return 0;
        if (c == '\\') {
            if (text->at == text->end)
                return RELAY_ERR_INVALID;
            c = *text->at++;
        }
        if (*len == size)
            return RELAY_ERR_TOO_BIG;
        bytes[*len] = c;
    }
    return RELAY_ERR_INVALID;
}

/* The value of one auth-param: quoted, or up to a comma or a space. */
static int take_value(struct text *text, char *bytes, size_t size, size_t *len)
{
    if (text->at < text->end && *text->at == '"') {
        text->at++;
        return unquote(text, bytes, size, len);
    }
    const char *begin = text->at;
    while (text->at < text->end && !is_space(*text->at) && *text->at != ',') {
        if (*text->at == '"')
            return RELAY_ERR_INVALID;
        text->at++;
    }
    *len = (size_t)(text->at - begin);
    if (*len > size)
        return RELAY_ERR_TOO_BIG;
    memcpy(bytes, begin, *len);
    return 0;
}

/* Parameters may be separated by a comma or, as some clients do, by a space alone. */
static int take_privacy_token(struct relay_credential *credential, struct text *text)
{
    char value[RELAY_CREDENTIAL_MAX];
    int error = RELAY_ERR_INVALID;
    for (;;) {
        while (text->at < text->end && (is_space(*text->at) || *text->at == ','))
            text->at++;
        const char *name = text->at;
        const char *equals = text->at < text->end ? memchr(name, '=', (size_t)(text->end - name)) : NULL;
        if (equals == NULL) {
            error = RELAY_ERR_INVALID;
            break;
        }
        size_t len;
        text->at = equals + 1;
        error = take_value(text, value, sizeof(value), &len);
        if (error != 0)
            break;
        if (is_equal(name, (size_t)(equals - name), "token")) {
            error = take_plain(credential, value, len);
            break;
        }
    }
    explicit_bzero(value, sizeof(value));
    return error;
}

int relay_credential_parse(struct relay_credential *credential, const char *value, size_t len)
{
    *credential = (struct relay_credential){.secret = credential->bytes, .user = credential->bytes};
    if (len == 0)
        return RELAY_ERR_INVALID;
    struct text text = {value, value + len};
    skip_spaces(&text);
    while (text.end > text.at && is_space(text.end[-1]))
        text.end--;

    const char *scheme = text.at;
    while (text.at < text.end && !is_space(*text.at))
        text.at++;
    credential->scheme = scheme_of(scheme, (size_t)(text.at - scheme));
    skip_spaces(&text);

    int error = RELAY_ERR_INTERNAL;
    switch (credential->scheme) {
    case RELAY_CREDENTIAL_NONE:
        error = scheme < text.end ? RELAY_ERR_UNSUPPORTED : RELAY_ERR_INVALID;
        break;
    case RELAY_CREDENTIAL_BASIC:
        error = take_basic(credential, &text);
        break;
    case RELAY_CREDENTIAL_PRIVACY_TOKEN:
        error = take_privacy_token(credential, &text);
        break;
    case RELAY_CREDENTIAL_BEARER:
    case RELAY_CREDENTIAL_PRESHARED:
        error = take_plain(credential, text.at, (size_t)(text.end - text.at));
        break;
    }
    if (error != 0)
        relay_credential_wipe(credential);
    return error;
}

void relay_credential_wipe(struct relay_credential *credential)
{
    explicit_bzero(credential, sizeof(*credential));
    credential->secret = credential->user = credential->bytes;
}
