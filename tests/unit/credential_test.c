#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "lib/wire/base64.h"
#include "lib/wire/credential.h"
#include "lib/wire/error.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void every_form_gives_its_secret(void **state)
{
    static const struct {
        const char *value;
        enum relay_credential_scheme scheme;
        const char *secret, *user;
    } rows[] = {
        {"Bearer s3cret", RELAY_CREDENTIAL_BEARER, "s3cret", ""},
        {"bearer   s3cret", RELAY_CREDENTIAL_BEARER, "s3cret", ""},
        {" \tBEARER\ts3cret \t", RELAY_CREDENTIAL_BEARER, "s3cret", ""},
        {"Basic YWxpY2U6czNjcmV0", RELAY_CREDENTIAL_BASIC, "s3cret", "alice"},
        {"basic YWxpY2U6YTpi", RELAY_CREDENTIAL_BASIC, "a:b", "alice"},
        {"Basic YWxpY2U6", RELAY_CREDENTIAL_BASIC, "alice", "alice"},
        {"Basic OnMzY3JldA==", RELAY_CREDENTIAL_BASIC, "s3cret", ""},
        {"Basic OnMzY3JldA", RELAY_CREDENTIAL_BASIC, "s3cret", ""},
        {"PrivacyToken token=s3cret", RELAY_CREDENTIAL_PRIVACY_TOKEN, "s3cret", ""},
        {"privacytoken TOKEN=czM_-w==", RELAY_CREDENTIAL_PRIVACY_TOKEN, "czM_-w==", ""},
        {"PrivacyToken token=\"s3\\cr\\\"et\"", RELAY_CREDENTIAL_PRIVACY_TOKEN, "s3cr\"et", ""},
        {"PrivacyToken a=b, token=\"s3cret\", c=d", RELAY_CREDENTIAL_PRIVACY_TOKEN, "s3cret", ""},
        {"PrivacyToken a=\"token=no\" token=\"s3cret\" c=d", RELAY_CREDENTIAL_PRIVACY_TOKEN, "s3cret", ""},
        {"Preshared s3cret", RELAY_CREDENTIAL_PRESHARED, "s3cret", ""},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct relay_credential credential;
        if (relay_credential_parse(&credential, rows[i].value, strlen(rows[i].value)) != 0)
            fail_msg("%s", rows[i].value);
        assert_int_equal(credential.scheme, rows[i].scheme);
        assert_int_equal(credential.secret_len, strlen(rows[i].secret));
        assert_memory_equal(credential.secret, rows[i].secret, credential.secret_len);
        assert_int_equal(credential.user_len, strlen(rows[i].user));
        assert_memory_equal(credential.user, rows[i].user, credential.user_len);
        relay_credential_wipe(&credential);
        assert_int_equal(credential.secret_len, 0);
        assert_int_equal(credential.bytes[0], 0);
    }
}

static void malformed_values_are_refused(void **state)
{
    static const struct {
        const char *value;
        int error;
    } rows[] = {
        {"", RELAY_ERR_INVALID},
        {" \t ", RELAY_ERR_INVALID},
        {"Bearer", RELAY_ERR_INVALID},
        {"Bearer ", RELAY_ERR_INVALID},
        {"Bearer a b", RELAY_ERR_INVALID},
        {"Bearer a\x7f", RELAY_ERR_INVALID},
        {"Bearer \xc3\xa4", RELAY_ERR_INVALID},
        {"Basic", RELAY_ERR_INVALID},
        {"Basic YWxpY2U", RELAY_ERR_INVALID},
        {"Basic Og==", RELAY_ERR_INVALID},
        {"Basic YTpiAA==", RELAY_ERR_INVALID},
        {"Basic YTpiCg==", RELAY_ERR_INVALID},
        {"Basic !!!!", RELAY_ERR_INVALID},
        {"Basic YWxpY2U6czNjcmV0 x", RELAY_ERR_INVALID},
        {"PrivacyToken", RELAY_ERR_INVALID},
        {"PrivacyToken s3cret", RELAY_ERR_INVALID},
        {"PrivacyToken token=", RELAY_ERR_INVALID},
        {"PrivacyToken token=\"\"", RELAY_ERR_INVALID},
        {"PrivacyToken token=\"s3cret", RELAY_ERR_INVALID},
        {"PrivacyToken token=\"s3cret\\", RELAY_ERR_INVALID},
        {"PrivacyToken token=s3\"cret", RELAY_ERR_INVALID},
        {"PrivacyToken xtoken=s3cret", RELAY_ERR_INVALID},
        {"Digest a=b", RELAY_ERR_UNSUPPORTED},
        {"BearerX s3cret", RELAY_ERR_UNSUPPORTED},
        {"s3cret", RELAY_ERR_UNSUPPORTED},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct relay_credential credential;
        if (relay_credential_parse(&credential, rows[i].value, strlen(rows[i].value)) != rows[i].error)
            fail_msg("%s", rows[i].value);
        assert_int_equal(credential.scheme, RELAY_CREDENTIAL_NONE);
        assert_int_equal(credential.secret_len, 0);
        for (size_t byte = 0; byte < sizeof(credential.bytes); byte++)
            assert_int_equal(credential.bytes[byte], 0);
    }
}

static void secrets_are_bounded(void **state)
{
    char secret[RELAY_CREDENTIAL_MAX + 2], value[2 * RELAY_CREDENTIAL_MAX];
    static const char *const prefixes[] = {"Bearer ", "Preshared ",
                                           "PrivacyToken token=", "PrivacyToken token=\""};
    struct relay_credential credential;
    memset(secret, 'x', sizeof(secret));
    for (size_t extra = 0; extra < 2; extra++) {
        const int expected = extra == 0 ? 0 : RELAY_ERR_TOO_BIG;
        for (size_t i = 0; i < COUNT(prefixes); i++) {
            size_t len = strlen(prefixes[i]);
            memcpy(value, prefixes[i], len);
            memcpy(value + len, secret, RELAY_CREDENTIAL_MAX + extra);
            len += RELAY_CREDENTIAL_MAX + extra;
            value[len++] = i == 3 ? '"' : ' ';
            assert_int_equal(relay_credential_parse(&credential, value, len), expected);
        }
        secret[5] = ':';
        memcpy(value, "Basic ", 6);
        assert_int_equal(relay_base64_encode(RELAY_BASE64, (const uint8_t *)secret,
                                             RELAY_CREDENTIAL_MAX + extra, value + 6, sizeof(value) - 6),
                         0);
        assert_int_equal(relay_credential_parse(&credential, value, strlen(value)), expected);
        secret[5] = 'x';
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form_gives_its_secret),
        cmocka_unit_test(malformed_values_are_refused),
        cmocka_unit_test(secrets_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
