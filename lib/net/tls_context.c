#include "lib/net/tls_context.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <openssl/err.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>

#define CIPHERS                                                                                              \
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"               \
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"

static const unsigned char server_protocols[] = "\x02h2\x08http/1.1";
static const unsigned char client_protocols[] = "\x02h2";

/* "FILE: what OpenSSL says". */
static void explain(char *error, size_t size, const char *file, const char *what)
{
    unsigned long code = ERR_peek_last_error();
    const char *reason = code != 0 ? ERR_reason_error_string(code) : NULL;
    snprintf(error, size, "%s: %s%s%s", file, what, reason != NULL ? ": " : "", reason != NULL ? reason : "");
    ERR_clear_error();
}

static SSL_CTX *make_context(const SSL_METHOD *method, char *error, size_t size)
{
    ERR_clear_error();
    error[0] = '\0';
    SSL_CTX *context = SSL_CTX_new(method);
    if (context == NULL || SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1 ||
        SSL_CTX_set_cipher_list(context, CIPHERS) != 1) {
        explain(error, size, "TLS", "no context");
        SSL_CTX_free(context);
        return NULL;
    }
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    return context;
}

static int on_passphrase(char *buffer, int size, int is_writing, void *is_encrypted)
{
    *(bool *)is_encrypted = true;
    return -1;
}

void relay_tls_take_no_passphrase(SSL_CTX *context, bool *is_encrypted)
{
    *is_encrypted = false;
    SSL_CTX_set_default_passwd_cb(context, on_passphrase);
    SSL_CTX_set_default_passwd_cb_userdata(context, is_encrypted);
}

static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in,
                   unsigned in_len, void *user)
{
    unsigned char *chosen;
    if (SSL_select_next_proto(&chosen, out_len, server_protocols, sizeof(server_protocols) - 1, in, in_len) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static void warn_of_readable_key(const char *file, char *error, size_t size)
{
    struct stat status;
    if (stat(file, &status) == 0 && (status.st_mode & (S_IROTH | S_IWOTH)) != 0)
        snprintf(error, size, "%s: every user of this machine may read the key", file);
}

SSL_CTX *relay_tls_server_context(const struct relay_tls_server_config *config, char *error,
                                  size_t error_size)
{
    SSL_CTX *context = make_context(TLS_server_method(), error, error_size);
    if (context == NULL)
        return NULL;
    bool is_encrypted;
    relay_tls_take_no_passphrase(context, &is_encrypted);
    const char *file = config->certificate_file, *failed = NULL;
    if (SSL_CTX_use_certificate_chain_file(context, file) != 1) {
        failed = "no certificate chain in PEM form";
    } else if (SSL_CTX_use_PrivateKey_file(context, file = config->key_file, SSL_FILETYPE_PEM) != 1) {
        failed = "no private key in PEM form that fits the certificate";
    } else if (SSL_CTX_check_private_key(context) != 1) {
        failed = "the key does not fit the certificate";
    }
    if (is_encrypted)
        snprintf(error, error_size, "%s: %s", file, RELAY_TLS_IS_ENCRYPTED);
    else if (failed != NULL)
        explain(error, error_size, file, failed);
    if (failed != NULL) {
        SSL_CTX_free(context);
        return NULL;
    }
    SSL_CTX_set_default_passwd_cb_userdata(context, NULL);
    SSL_CTX_set_alpn_select_cb(context, on_alpn, NULL);
    SSL_CTX_set_num_tickets(context, 0);            /* TLS 1.3 */
    SSL_CTX_set_options(context, SSL_OP_NO_TICKET); /* TLS 1.2 */
    SSL_CTX_set_max_early_data(context, 0);
    warn_of_readable_key(config->key_file, error, error_size);
    return context;
}

struct pins {
    size_t num;
    uint8_t digests[][RELAY_PIN_SIZE];
};

static bool is_pinned(const struct pins *pins, X509 *certificate)
{
    unsigned char *key = NULL;
    int len = certificate != NULL ? i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate), &key) : -1;
    if (len < 0)
        return false;
    uint8_t digest[SHA256_DIGEST_LENGTH];
    SHA256(key, (size_t)len, digest);
    OPENSSL_free(key);
    for (size_t i = 0; i < pins->num; i++)
        if (memcmp(pins->digests[i], digest, sizeof(digest)) == 0)
            return true;
    return false;
}

/* The handshake proves that the peer has the key: chain, name and dates add nothing to it. */
static int on_verify_pin(X509_STORE_CTX *store, void *user)
{
    if (is_pinned(user, X509_STORE_CTX_get0_cert(store))) {
        X509_STORE_CTX_set_error(store, X509_V_OK);
        return 1;
    }
    X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION);
    return 0;
}

static void on_free_pins(void *parent, void *pins, CRYPTO_EX_DATA *data, int index, long argument,
                         void *pointer)
{
    free(pins);
}

static bool set_pins(SSL_CTX *context, const struct relay_tls_client_config *config)
{
    static int index = -1;
    if (index == -1)
        index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, on_free_pins);
    struct pins *pins = malloc(sizeof(*pins) + config->num_pins * RELAY_PIN_SIZE);
    if (pins == NULL || index < 0 || SSL_CTX_set_ex_data(context, index, pins) != 1) {
        free(pins);
        return false;
    }
    pins->num = config->num_pins;
    memcpy(pins->digests, config->pins, config->num_pins * RELAY_PIN_SIZE);
    SSL_CTX_set_cert_verify_callback(context, on_verify_pin, pins);
    return true;
}

SSL_CTX *relay_tls_client_context(const struct relay_tls_client_config *config, char *error,
                                  size_t error_size)
{
    SSL_CTX *context = make_context(TLS_client_method(), error, error_size);
    if (context == NULL)
        return NULL;
    const char *file = config->ca_file != NULL ? config->ca_file : "system certificates", *failed = NULL;
    if (config->num_pins > 0) {
        failed = set_pins(context, config) ? NULL : "out of memory";
    } else if (config->ca_file != NULL) {
        failed = SSL_CTX_load_verify_file(context, file) == 1 ? NULL : "no certificates in PEM form";
    } else {
        failed = SSL_CTX_set_default_verify_paths(context) == 1 ? NULL : "cannot be loaded";
    }
    if (failed == NULL &&
        SSL_CTX_set_alpn_protos(context, client_protocols, sizeof(client_protocols) - 1) != 0)
        failed = "out of memory";
    if (failed != NULL) {
        explain(error, error_size, file, failed);
        SSL_CTX_free(context);
        return NULL;
    }
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    return context;
}
