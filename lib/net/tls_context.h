/* The OpenSSL contexts of TLS over TCP: TLS 1.2 or later, no renegotiation, no compression, no early data
 * (T06), no session tickets: their key would live as long as the context, which is to say for months, and under TLS 1.2
 * open every session that was resumed with it. What resumption would save is a signature for each of the few, long
 * connections that a client of a proxy makes; who makes many comes over QUIC, which has tickets (quic_tls.h). So nothing
 * that one role has issued can be shown to another (T05). One context serves all workers. SSL_CTX_free ends it; streams
 * hold references of their own. */
#ifndef RELAY_NET_TLS_CONTEXT_H
#define RELAY_NET_TLS_CONTEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <openssl/types.h>

#define RELAY_PIN_SIZE 32 /* SHA-256 of a SubjectPublicKeyInfo */

/* Why a key file is refused, for messages that have named it. */
#define RELAY_TLS_IS_ENCRYPTED                                                                               \
    "the key is encrypted, and the relay takes no passphrase: store it decrypted (openssl pkey)"

/* From now on a file of this context that wants a passphrase fails to load and sets *is_encrypted, which must live until
 * the last one is loaded. Without this call OpenSSL asks at the terminal and blocks the thread. */
void relay_tls_take_no_passphrase(SSL_CTX *context, bool *is_encrypted);

struct relay_tls_server_config {
    const char *certificate_file; /* PEM, the leaf first */
    const char *key_file;
};

/* Chooses h2, then http/1.1, by ALPN; a client that offers only others is refused (RFC 7301 section 3.2), one
 * without ALPN is served. NULL: `error` says which file and why. Otherwise `error` is empty or a warning (a
 * key that others may read). */
SSL_CTX *relay_tls_server_context(const struct relay_tls_server_config *config, char *error,
                                  size_t error_size);

struct relay_tls_client_config {
    const char *ca_file;                   /* NULL: the system's */
    const uint8_t (*pins)[RELAY_PIN_SIZE]; /* copied. If there are any, one of them and nothing else makes a
                                              certificate good */
    size_t num_pins;
};

/* Offers h2. NULL: `error` says which file and why. */
SSL_CTX *relay_tls_client_context(const struct relay_tls_client_config *config, char *error,
                                  size_t error_size);

#endif
