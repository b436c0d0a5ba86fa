/* Packet protection by ipsec-mb is bit for bit that of GnuTLS, and refuses what was changed. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <gnutls/crypto.h>

#include "lib/net/quic_aead.h"

#ifdef TWOHOP_IPSEC_MB

#define TAG  16
#define MOST 1500

static const uint8_t key[16] = {0x1f, 0x36, 0x96, 0x13, 0xdd, 0x76, 0xd5, 0x46,
                                0x77, 0x30, 0xef, 0xcb, 0xe3, 0xb1, 0xa2, 0x2d};
static const uint8_t nonce[12] = {0xfa, 0x04, 0x4b, 0x2f, 0x42, 0xa3, 0xfd, 0x3b, 0x46, 0xfb, 0x25, 0x5c};
static uint8_t plain[MOST], head[64];

static void seal_with_gnutls(uint8_t *sealed, size_t len, size_t head_len)
{
    gnutls_datum_t datum = {(unsigned char *)key, sizeof(key)};
    gnutls_aead_cipher_hd_t cipher;
    size_t size = len + TAG;
    assert_int_equal(gnutls_aead_cipher_init(&cipher, GNUTLS_CIPHER_AES_128_GCM, &datum), 0);
    assert_int_equal(gnutls_aead_cipher_encrypt(cipher, nonce, sizeof(nonce), head, head_len, TAG, plain, len,
                                                sealed, &size),
                     0);
    assert_int_equal(size, len + TAG);
    gnutls_aead_cipher_deinit(cipher);
}

static int open_it(uint8_t *dest, const ngtcp2_crypto_aead_ctx *ctx, const uint8_t *sealed, size_t len,
                   size_t head_len)
{
    return relay_quic_aead_decrypt(dest, NULL, ctx, sealed, len, nonce, sizeof(nonce), head, head_len);
}

/* Lengths around blocks and a whole packet, heads of short packets, in place and apart. */
static void test_same_as_gnutls(void **state)
{
    static const size_t lens[] = {0, 1, 4, 15, 16, 17, 255, 1200, 1233, MOST}, heads[] = {0, 1, 11, 13, 25};
    if (!relay_quic_aead_is_fast())
        return;
    ngtcp2_crypto_aead_ctx ctx = relay_quic_aead_new_key(key);
    assert_non_null(ctx.native_handle);
    for (size_t i = 0; i < sizeof(plain); i++)
        plain[i] = (uint8_t)(i * 7);
    for (size_t i = 0; i < sizeof(head); i++)
        head[i] = (uint8_t)(i * 13);
    for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
        for (size_t j = 0; j < sizeof(heads) / sizeof(heads[0]); j++) {
            uint8_t theirs[MOST + TAG], ours[MOST + TAG], back[MOST];
            seal_with_gnutls(theirs, lens[i], heads[j]);
            memcpy(ours, plain, lens[i]);
            assert_int_equal(relay_quic_aead_encrypt(ours, NULL, &ctx, ours, lens[i], nonce, sizeof(nonce),
                                                     head, heads[j]),
                             0);
            assert_memory_equal(ours, theirs, lens[i] + TAG);
            assert_int_equal(open_it(back, &ctx, theirs, lens[i] + TAG, heads[j]), 0);
            assert_memory_equal(back, plain, lens[i]);
            assert_int_equal(open_it(ours, &ctx, ours, lens[i] + TAG, heads[j]), 0);
            assert_memory_equal(ours, plain, lens[i]);
        }
    }
    relay_quic_aead_delete_aead(NULL, &ctx, NULL);
}

static void test_changed_is_refused(void **state)
{
    uint8_t sealed[100 + TAG], back[100];
    if (!relay_quic_aead_is_fast())
        return;
    ngtcp2_crypto_aead_ctx ctx = relay_quic_aead_new_key(key);
    seal_with_gnutls(sealed, 100, 13);
    for (size_t i = 0; i < sizeof(sealed); i++) {
        sealed[i] ^= 0x80;
        assert_int_equal(open_it(back, &ctx, sealed, sizeof(sealed), 13), NGTCP2_ERR_DECRYPT);
        sealed[i] ^= 0x80;
    }
    head[5] ^= 1;
    assert_int_equal(open_it(back, &ctx, sealed, sizeof(sealed), 13), NGTCP2_ERR_DECRYPT);
    head[5] ^= 1;
    for (size_t len = 0; len < TAG; len++)
        assert_int_equal(open_it(back, &ctx, sealed, len, 13), NGTCP2_ERR_DECRYPT);
    assert_int_equal(open_it(back, &ctx, sealed, sizeof(sealed), 13), 0);
    relay_quic_aead_delete_aead(NULL, &ctx, NULL);
}

/* RFC 9001 appendix A.2. */
static void test_header_protection(void **state)
{
    static const uint8_t hp[16] = {0x9f, 0x50, 0x44, 0x9e, 0x04, 0xa0, 0xe8, 0x10,
                                   0x28, 0x3a, 0x1e, 0x99, 0x33, 0xad, 0xed, 0xd2};
    static const uint8_t sample[16] = {0xd1, 0xb1, 0xc9, 0x8d, 0xd7, 0x68, 0x9f, 0xb8,
                                       0xec, 0x11, 0xd2, 0x42, 0xb1, 0x23, 0xdc, 0x9b};
    static const uint8_t mask[] = {0x43, 0x7b, 0x9a, 0xec, 0x36};
    uint8_t made[NGTCP2_HP_MASKLEN];
    if (!relay_quic_aead_is_fast())
        return;
    ngtcp2_crypto_cipher_ctx ctx = relay_quic_aead_new_hp(hp);
    assert_non_null(ctx.native_handle);
    assert_int_equal(relay_quic_aead_hp_mask(made, NULL, &ctx, sample), 0);
    assert_memory_equal(made, mask, sizeof(mask));
    relay_quic_aead_delete_cipher(NULL, &ctx, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_as_gnutls),
        cmocka_unit_test(test_changed_is_refused),
        cmocka_unit_test(test_header_protection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void)
{
    return 0;
}

#endif
