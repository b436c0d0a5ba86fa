#include "lib/net/quic_aead.h"

#ifdef TWOHOP_IPSEC_MB
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <gnutls/crypto.h>
#include <intel-ipsec-mb.h>
#include <ngtcp2/ngtcp2_crypto_gnutls.h>

#define KEY_SIZE   16 /* of AES-128, and of no other cipher of quic_tls.c */
#define TAG_SIZE   16
#define BLOCK_SIZE 16
#define IV_SIZE    12
#define KEY_MAX    32 /* of any cipher */
#define OURS       ((uintptr_t)1)

/* Round keys of AES-128 for header protection: 11 blocks, and the decryption schedule that the library's key
 * expansion writes as well. */
struct hp_key {
    _Alignas(16) uint8_t encrypt[11 * BLOCK_SIZE], decrypt[11 * BLOCK_SIZE];
};

/* Never freed: it holds the functions for this processor, and no key. Its one-call functions keep no state, so
 * all threads share it. */
static IMB_MGR *manager;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_manager(void)
{
    IMB_MGR *made = alloc_mb_mgr(0);
    if (made == NULL)
        return;
    init_mb_mgr_auto(made, NULL);
    /* Without AES instructions the library emulates them, slower than GnuTLS. */
    if (imb_get_errno(made) == 0 && (made->features & IMB_FEATURE_AESNI) != 0)
        manager = made;
    else
        free_mb_mgr(made);
}

bool relay_quic_aead_is_fast(void)
{
    pthread_once(&once, make_manager);
    return manager != NULL;
}

/* ---- keys ---- */

static bool is_ours(const void *handle)
{
    return ((uintptr_t)handle & OURS) != 0;
}

static void *ours(const void *handle)
{
    return (void *)((uintptr_t)handle & ~OURS);
}

static void *tag(void *key)
{
    return key == NULL ? NULL : (void *)((uintptr_t)key | OURS);
}

ngtcp2_crypto_aead_ctx relay_quic_aead_new_key(const uint8_t *key)
{
    struct gcm_key_data *made = aligned_alloc(64, (sizeof(*made) + 63) / 64 * 64);
    if (made != NULL)
        IMB_AES128_GCM_PRE(manager, key, made);
    return (ngtcp2_crypto_aead_ctx){tag(made)};
}

ngtcp2_crypto_cipher_ctx relay_quic_aead_new_hp(const uint8_t *key)
{
    struct hp_key *made = aligned_alloc(16, sizeof(*made));
    if (made != NULL)
        IMB_AES_KEYEXP_128(manager, key, made->encrypt, made->decrypt);
    return (ngtcp2_crypto_cipher_ctx){tag(made)};
}

void relay_quic_aead_delete_aead(ngtcp2_conn *qc, ngtcp2_crypto_aead_ctx *ctx, void *user)
{
    if (!is_ours(ctx->native_handle)) {
        ngtcp2_crypto_delete_crypto_aead_ctx_cb(qc, ctx, user);
        return;
    }
    gnutls_memset(ours(ctx->native_handle), 0, sizeof(struct gcm_key_data));
    free(ours(ctx->native_handle));
}

void relay_quic_aead_delete_cipher(ngtcp2_conn *qc, ngtcp2_crypto_cipher_ctx *ctx, void *user)
{
    if (!is_ours(ctx->native_handle)) {
        ngtcp2_crypto_delete_crypto_cipher_ctx_cb(qc, ctx, user);
        return;
    }
    gnutls_memset(ours(ctx->native_handle), 0, sizeof(struct hp_key));
    free(ours(ctx->native_handle));
}

/* ---- packets ---- */

/* In constant time, without the call and the loop of gnutls_memcmp: one in fifty of a datagram's instructions. */
static bool is_same_tag(const uint8_t *one, const uint8_t *other)
{
    uint64_t a[2], b[2];
    memcpy(a, one, TAG_SIZE);
    memcpy(b, other, TAG_SIZE);
    return ((a[0] ^ b[0]) | (a[1] ^ b[1])) == 0;
}

int relay_quic_aead_encrypt(uint8_t *dest, const ngtcp2_crypto_aead *aead, const ngtcp2_crypto_aead_ctx *ctx,
                            const uint8_t *plain, size_t len, const uint8_t *nonce, size_t nonce_len,
                            const uint8_t *head, size_t head_len)
{
    struct gcm_context_data state;
    if (!is_ours(ctx->native_handle))
        return ngtcp2_crypto_encrypt_cb(dest, aead, ctx, plain, len, nonce, nonce_len, head, head_len);
    IMB_AES128_GCM_ENC(manager, (struct gcm_key_data *)ours(ctx->native_handle), &state, dest, plain, len,
                       nonce, head, head_len, dest + len, TAG_SIZE);
    return 0;
}

int relay_quic_aead_decrypt(uint8_t *dest, const ngtcp2_crypto_aead *aead, const ngtcp2_crypto_aead_ctx *ctx,
                            const uint8_t *sealed, size_t len, const uint8_t *nonce, size_t nonce_len,
                            const uint8_t *head, size_t head_len)
{
    struct gcm_context_data state;
    uint8_t found[TAG_SIZE];
    if (!is_ours(ctx->native_handle))
        return ngtcp2_crypto_decrypt_cb(dest, aead, ctx, sealed, len, nonce, nonce_len, head, head_len);
    if (len < TAG_SIZE)
        return NGTCP2_ERR_DECRYPT;
    IMB_AES128_GCM_DEC(manager, (struct gcm_key_data *)ours(ctx->native_handle), &state, dest, sealed,
                       len - TAG_SIZE, nonce, head, head_len, found, TAG_SIZE);
    return is_same_tag(found, sealed + len - TAG_SIZE) ? 0 : NGTCP2_ERR_DECRYPT;
}

/* RFC 9001 section 5.4.3: AES-ECB of the sample. One block of CFB over zeros is that. */
int relay_quic_aead_hp_mask(uint8_t *dest, const ngtcp2_crypto_cipher *hp,
                            const ngtcp2_crypto_cipher_ctx *ctx, const uint8_t *sample)
{
    static const uint8_t zeros[BLOCK_SIZE];
    uint8_t mask[BLOCK_SIZE];
    if (!is_ours(ctx->native_handle))
        return ngtcp2_crypto_hp_mask_cb(dest, hp, ctx, sample);
    IMB_AES128_CFB_ONE(manager, mask, zeros, sample, ((struct hp_key *)ours(ctx->native_handle))->encrypt,
                       BLOCK_SIZE);
    memcpy(dest, mask, NGTCP2_HP_MASKLEN);
    return 0;
}

/* ---- secrets ---- */

static bool is_for_us(ngtcp2_conn *qc)
{
    const ngtcp2_crypto_ctx *ctx = ngtcp2_conn_get_crypto_ctx(qc);
    return relay_quic_aead_is_fast() && ngtcp2_conn_get_negotiated_version(qc) == NGTCP2_PROTO_VER_V1 &&
           ctx->aead.native_handle != NULL && ngtcp2_crypto_aead_keylen(&ctx->aead) == KEY_SIZE;
}

/* HKDF-Expand-Label (RFC 8446 section 7.1) with an empty context. */
static int expand(uint8_t *dest, size_t size, const ngtcp2_crypto_md *md, const uint8_t *secret, size_t len,
                  const char *label)
{
    uint8_t info[32] = {0, (uint8_t)size, (uint8_t)(6 + strlen(label)), 't', 'l', 's', '1', '3', ' '};
    memcpy(info + 9, label, strlen(label));
    return ngtcp2_crypto_hkdf_expand(dest, size, md, secret, len, info, 9 + strlen(label) + 1);
}

/* RFC 9001 section 5.1. */
static int install(ngtcp2_conn *qc, bool is_rx, const uint8_t *secret, size_t len)
{
    const ngtcp2_crypto_md *md = &ngtcp2_conn_get_crypto_ctx(qc)->md;
    uint8_t key[KEY_SIZE], iv[IV_SIZE], hp_key[KEY_SIZE];
    ngtcp2_crypto_aead_ctx aead = {NULL};
    ngtcp2_crypto_cipher_ctx hp = {NULL};
    int code = -1;
    if (expand(key, sizeof(key), md, secret, len, "quic key") == 0 &&
        expand(iv, sizeof(iv), md, secret, len, "quic iv") == 0 &&
        expand(hp_key, sizeof(hp_key), md, secret, len, "quic hp") == 0) {
        aead = relay_quic_aead_new_key(key);
        hp = relay_quic_aead_new_hp(hp_key);
    }
    if (aead.native_handle != NULL && hp.native_handle != NULL)
        code = is_rx ? ngtcp2_conn_install_rx_key(qc, secret, len, &aead, iv, sizeof(iv), &hp)
                     : ngtcp2_conn_install_tx_key(qc, secret, len, &aead, iv, sizeof(iv), &hp);
    if (code != 0) {
        relay_quic_aead_delete_aead(qc, &aead, NULL);
        relay_quic_aead_delete_cipher(qc, &hp, NULL);
    }
    gnutls_memset(key, 0, sizeof(key));
    gnutls_memset(hp_key, 0, sizeof(hp_key));
    return code == 0 ? 0 : -1;
}

static int on_secret(gnutls_session_t session, gnutls_record_encryption_level_t gnutls_level, const void *rx,
                     const void *tx, size_t len)
{
    ngtcp2_crypto_conn_ref *ref = gnutls_session_get_ptr(session);
    ngtcp2_conn *qc = ref->get_conn(ref);
    ngtcp2_encryption_level level = ngtcp2_crypto_gnutls_from_gnutls_record_encryption_level(gnutls_level);
    if (level == NGTCP2_ENCRYPTION_LEVEL_1RTT && is_for_us(qc))
        return (rx != NULL && install(qc, true, rx, len) != 0) ||
                       (tx != NULL && install(qc, false, tx, len) != 0)
                   ? -1
                   : 0;
    if (rx != NULL && ngtcp2_crypto_derive_and_install_rx_key(qc, NULL, NULL, NULL, level, rx, len) != 0)
        return -1;
    if (tx != NULL && ngtcp2_crypto_derive_and_install_tx_key(qc, NULL, NULL, NULL, level, tx, len) != 0)
        return -1;
    return 0;
}

void relay_quic_aead_configure(gnutls_session_t session)
{
    gnutls_handshake_set_secret_function(session, on_secret);
}

/* The library derives the next keys (RFC 9001 section 6.1); those of its own contexts are then put in ours. */
int relay_quic_aead_update_key(ngtcp2_conn *qc, uint8_t *rx_secret, uint8_t *tx_secret,
                               ngtcp2_crypto_aead_ctx *rx, uint8_t *rx_iv, ngtcp2_crypto_aead_ctx *tx,
                               uint8_t *tx_iv, const uint8_t *rx_now, const uint8_t *tx_now, size_t len,
                               void *user)
{
    uint8_t rx_key[KEY_MAX], tx_key[KEY_MAX];
    if (!is_for_us(qc))
        return ngtcp2_crypto_update_key_cb(qc, rx_secret, tx_secret, rx, rx_iv, tx, tx_iv, rx_now, tx_now,
                                           len, user);
    if (ngtcp2_crypto_update_key(qc, rx_secret, tx_secret, rx, rx_key, rx_iv, tx, tx_key, tx_iv, rx_now,
                                 tx_now, len) != 0)
        return NGTCP2_ERR_CALLBACK_FAILURE;
    ngtcp2_crypto_aead_ctx_free(rx);
    ngtcp2_crypto_aead_ctx_free(tx);
    *rx = relay_quic_aead_new_key(rx_key);
    *tx = relay_quic_aead_new_key(tx_key);
    gnutls_memset(rx_key, 0, sizeof(rx_key));
    gnutls_memset(tx_key, 0, sizeof(tx_key));
    if (rx->native_handle != NULL && tx->native_handle != NULL)
        return 0;
    relay_quic_aead_delete_aead(qc, rx, user);
    relay_quic_aead_delete_aead(qc, tx, user);
    return NGTCP2_ERR_CALLBACK_FAILURE;
}

#endif
