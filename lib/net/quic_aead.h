/* Packet protection of 1-RTT packets (RFC 9001 section 5) by Intel's ipsec-mb, where the build found it and the
 * processor has AES instructions: it costs less than GnuTLS's, which is the largest single cost of a datagram
 * (bench/aead measures both). The handshake, and every other cipher, stays with GnuTLS.
 *
 * A key of ours is told from one of ngtcp2_crypto_gnutls by bit 0 of its native handle; these callbacks stand in
 * the place of the library's, and hand its keys on to it. A key belongs to the connection that it is installed
 * in, which ends it with delete_aead or delete_cipher; they answer 0 or an NGTCP2_ERR_ code. Without ipsec-mb
 * all keys are the library's.
 */
#ifndef RELAY_NET_QUIC_AEAD_H
#define RELAY_NET_QUIC_AEAD_H

#include <stdbool.h>
#include <gnutls/gnutls.h>
#include <ngtcp2/ngtcp2.h>
#include <ngtcp2/ngtcp2_crypto.h>

#ifdef TWOHOP_IPSEC_MB

/* After ngtcp2_crypto_gnutls_configure_*_session: has the 1-RTT secrets come here. The session's pointer is an
 * ngtcp2_crypto_conn_ref. AES-128-GCM must be its only cipher with a key of 16 bytes. */
void relay_quic_aead_configure(gnutls_session_t session);

/* The callbacks of ngtcp2_callbacks with these names. */
int relay_quic_aead_encrypt(uint8_t *dest, const ngtcp2_crypto_aead *aead, const ngtcp2_crypto_aead_ctx *ctx,
                            const uint8_t *plain, size_t len, const uint8_t *nonce, size_t nonce_len,
                            const uint8_t *head, size_t head_len);
int relay_quic_aead_decrypt(uint8_t *dest, const ngtcp2_crypto_aead *aead, const ngtcp2_crypto_aead_ctx *ctx,
                            const uint8_t *sealed, size_t len, const uint8_t *nonce, size_t nonce_len,
                            const uint8_t *head, size_t head_len);
int relay_quic_aead_hp_mask(uint8_t *dest, const ngtcp2_crypto_cipher *hp,
                            const ngtcp2_crypto_cipher_ctx *ctx, const uint8_t *sample);
int relay_quic_aead_update_key(ngtcp2_conn *qc, uint8_t *rx_secret, uint8_t *tx_secret,
                               ngtcp2_crypto_aead_ctx *rx, uint8_t *rx_iv, ngtcp2_crypto_aead_ctx *tx,
                               uint8_t *tx_iv, const uint8_t *rx_now, const uint8_t *tx_now, size_t len,
                               void *user);
void relay_quic_aead_delete_aead(ngtcp2_conn *qc, ngtcp2_crypto_aead_ctx *ctx, void *user);
void relay_quic_aead_delete_cipher(ngtcp2_conn *qc, ngtcp2_crypto_cipher_ctx *ctx, void *user);

/* Whether keys of ours are made on this machine. */
bool relay_quic_aead_is_fast(void);
/* Keys of ours from 16 bytes, where it is; the handle is NULL when memory is out. */
ngtcp2_crypto_aead_ctx relay_quic_aead_new_key(const uint8_t *key);
ngtcp2_crypto_cipher_ctx relay_quic_aead_new_hp(const uint8_t *key);

#else

#define relay_quic_aead_encrypt       ngtcp2_crypto_encrypt_cb
#define relay_quic_aead_decrypt       ngtcp2_crypto_decrypt_cb
#define relay_quic_aead_hp_mask       ngtcp2_crypto_hp_mask_cb
#define relay_quic_aead_update_key    ngtcp2_crypto_update_key_cb
#define relay_quic_aead_delete_aead   ngtcp2_crypto_delete_crypto_aead_ctx_cb
#define relay_quic_aead_delete_cipher ngtcp2_crypto_delete_crypto_cipher_ctx_cb

static inline void relay_quic_aead_configure(gnutls_session_t session)
{
    (void)session;
}

#endif
#endif
