/* A temporary folder, entered, with what configurations name: cert.pem and key.pem (a pair), other.pem
 * (another key), open.pem (a key that everybody can read), locked.pem and old-locked.pem (keys with a passphrase, in
 * PKCS #8 and in the form before it), tokens, bad-tokens. */
#ifndef TESTS_UNIT_CONFIG_FIXTURE_H
#define TESTS_UNIT_CONFIG_FIXTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "server/config.h"

#define DIGEST        "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8"
#define DIGEST_OF_BOB "81b637d8fcd2c6da6359e6963113a1170de795e4b725b84d1e0b4cfd9ec58ce9"

static char folder[] = "/tmp/twohop-config-XXXXXX";

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void write_key(const char *path, EVP_PKEY *key, mode_t mode)
{
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(path, mode), 0);
}

static void write_locked_keys(EVP_PKEY *key)
{
    static unsigned char passphrase[] = "secret";
    const EVP_CIPHER *cipher = EVP_aes_128_cbc();
    BIO *file = BIO_new_file("locked.pem", "w"), *old = BIO_new_file("old-locked.pem", "w");
    assert_int_equal(PEM_write_bio_PKCS8PrivateKey(file, key, cipher, (char *)passphrase, 6, NULL, NULL), 1);
    assert_int_equal(PEM_write_bio_PrivateKey_traditional(old, key, cipher, passphrase, 6, NULL, NULL), 1);
    BIO_free(file);
    BIO_free(old);
    assert_int_equal(chmod("locked.pem", 0600) + chmod("old-locked.pem", 0600), 0);
}

static void write_certificate(const char *path, EVP_PKEY *key)
{
    X509 *certificate = X509_new();
    X509_NAME *name = X509_get_subject_name(certificate);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"relay.example", -1, -1, 0);
    X509_set_issuer_name(certificate, name);
    X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 86400);
    X509_set_pubkey(certificate, key);
    assert_true(X509_sign(certificate, key, EVP_sha256()) > 0);
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(PEM_write_X509(file, certificate), 1);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(path, 0600), 0);
    X509_free(certificate);
}

static int enter_folder(void **state)
{
    assert_non_null(mkdtemp(folder));
    assert_int_equal(chdir(folder), 0);
    EVP_PKEY *key = EVP_EC_gen("P-256"), *other = EVP_EC_gen("P-256");
    write_key("key.pem", key, 0600);
    write_key("open.pem", key, 0644);
    write_key("other.pem", other, 0600);
    write_locked_keys(key);
    write_certificate("cert.pem", key);
    EVP_PKEY_free(key);
    EVP_PKEY_free(other);
    write_file("tokens", "alice " DIGEST "\nbob " DIGEST_OF_BOB " expires=2027-01-01\n");
    write_file("bad-tokens", "# comment\nalice " DIGEST "\nalice " DIGEST "\n");
    return 0;
}

static int leave_folder(void **state)
{
    static const char *const files[] = {
        "key.pem",        "open.pem", "other.pem",  "cert.pem",   "locked.pem",
        "old-locked.pem", "tokens",   "bad-tokens", "relay.yaml", NULL};
    for (int i = 0; files[i] != NULL; i++)
        unlink(files[i]);
    return chdir("/") != 0 || rmdir(folder) != 0;
}

#endif
