/* What the QUIC and HTTP/3 tests share: a self-made certificate and a loop that runs until something is so.
 */
#ifndef TESTS_UNIT_QUIC_HARNESS_H
#define TESTS_UNIT_QUIC_HARNESS_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include "lib/net/loop.h"

struct certificate {
    char folder[64], chain[96], key[96];
    uint8_t pin[32];
};

static inline void write_file(const char *path, const gnutls_datum_t *bytes)
{
    FILE *file = fopen(path, "w");
    if (file == NULL || fwrite(bytes->data, 1, bytes->size, file) != bytes->size || fclose(file) != 0)
        abort();
}

/* A self-signed one for `name`, with its key, in a new folder; it is its own certificate authority. */
static inline void certificate_make(struct certificate *made, const char *name)
{
    gnutls_x509_crt_t crt;
    gnutls_x509_privkey_t key;
    gnutls_datum_t pem;
    size_t size = sizeof(made->pin);
    uint8_t serial = 1;
    gnutls_x509_crt_init(&crt);
    gnutls_x509_privkey_init(&key);
    gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0);
    gnutls_x509_crt_set_version(crt, 3);
    gnutls_x509_crt_set_key(crt, key);
    gnutls_x509_crt_set_serial(crt, &serial, 1);
    gnutls_x509_crt_set_activation_time(crt, time(NULL) - 3600);
    gnutls_x509_crt_set_expiration_time(crt, time(NULL) + 86400);
    gnutls_x509_crt_set_dn(crt, "CN=test", NULL);
    gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_DNSNAME, name, (unsigned)strlen(name),
                                         GNUTLS_FSAN_SET);
    gnutls_x509_crt_set_basic_constraints(crt, 1, -1);
    gnutls_x509_crt_set_key_usage(crt, GNUTLS_KEY_DIGITAL_SIGNATURE | GNUTLS_KEY_KEY_CERT_SIGN);
    if (gnutls_x509_crt_sign2(crt, crt, key, GNUTLS_DIG_SHA256, 0) != 0 ||
        gnutls_x509_crt_get_key_id(crt, GNUTLS_KEYID_USE_SHA256, made->pin, &size) != 0)
        abort();
    strcpy(made->folder, "/tmp/twohop-test-XXXXXX");
    if (mkdtemp(made->folder) == NULL)
        abort();
    snprintf(made->chain, sizeof(made->chain), "%s/chain.pem", made->folder);
    snprintf(made->key, sizeof(made->key), "%s/key.pem", made->folder);
    gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_PEM, &pem);
    write_file(made->chain, &pem);
    gnutls_free(pem.data);
    gnutls_x509_privkey_export2(key, GNUTLS_X509_FMT_PEM, &pem);
    write_file(made->key, &pem);
    gnutls_free(pem.data);
    gnutls_x509_crt_deinit(crt);
    gnutls_x509_privkey_deinit(key);
}

static inline void certificate_remove(const struct certificate *made)
{
    unlink(made->chain);
    unlink(made->key);
    rmdir(made->folder);
}

struct waiter {
    struct relay_timer timer;
    bool is_over;
};

static inline void waiter_fire(struct relay_timer *timer)
{
    ((struct waiter *)timer)->is_over = true;
}

/* Runs turns until *what or `ms` have passed; returns *what. */
static inline bool run_until(struct relay_loop *loop, const bool *what, unsigned ms)
{
    struct waiter waiter = {.is_over = false};
    relay_timer_init(&waiter.timer, waiter_fire);
    relay_timer_set_after(loop, &waiter.timer, ms * RELAY_MS);
    while (!waiter.is_over && (what == NULL || !*what))
        uv_run(&loop->uv, UV_RUN_ONCE);
    relay_timer_stop(loop, &waiter.timer);
    return what != NULL && *what;
}

#endif
