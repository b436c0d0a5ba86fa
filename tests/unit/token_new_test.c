#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <openssl/evp.h>

#include "lib/wire/error.h"
#include "server/token_new.h"

static void the_line_is_the_digest_of_the_secret(void **state)
{
    struct relay_new_token token, other;
    struct relay_token_file file;
    struct relay_token_file_error fault;
    uint8_t digest[EVP_MAX_MD_SIZE];
    assert_int_equal(relay_token_new(&token, "alice"), 0);
    assert_int_equal(strlen(token.secret), 43);
    assert_int_equal(relay_token_file_parse(&file, token.line, strlen(token.line), &fault), 0);
    assert_int_equal(file.count, 1);
    assert_string_equal(file.entries[0].name, "alice");
    assert_int_equal(EVP_Digest(token.secret, strlen(token.secret), digest, NULL, EVP_sha256(), NULL), 1);
    assert_memory_equal(file.entries[0].digest, digest, RELAY_TOKEN_DIGEST_SIZE);
    relay_token_file_dispose(&file);

    assert_int_equal(relay_token_new(&other, "alice"), 0);
    assert_string_not_equal(token.secret, other.secret);
}

static void a_bad_name_is_refused(void **state)
{
    static const char *const names[] = {
        "",     " ",        "a b",  "#a",
        "a\nb", "\xc3\xa4", "none", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    struct relay_new_token token;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        assert_int_equal(relay_token_new(&token, names[i]), RELAY_ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_line_is_the_digest_of_the_secret),
        cmocka_unit_test(a_bad_name_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
