/* What the AEAD of one full packet costs on this core at this minute, AES-128-GCM, 1 232 bytes: by GnuTLS, the
 * floor of every figure of udp_load, which moves with the machine as they do; and by lib/net/quic_aead.h, where
 * that has keys of its own. */
#include <gnutls/crypto.h>
#include <stdio.h>
#include <time.h>

#include "bench/session.h"
#include "lib/net/quic_aead.h"

#define PACKETS 400000
#define ROUNDS  5
#define SIZE    1232
#define TAG     16

static uint8_t key_bytes[16], nonce[12], head[12], in[64][SIZE + TAG], out[SIZE + TAG];

static bool seal_gnutls(void *cipher, const uint8_t *plain)
{
    size_t len = sizeof(out);
    return gnutls_aead_cipher_encrypt(cipher, nonce, sizeof(nonce), head, sizeof(head), TAG, plain, SIZE, out,
                                      &len) == 0;
}

/* Nanoseconds of one packet in the best round. */
static double measure(bool (*seal)(void *cipher, const uint8_t *plain), void *cipher)
{
    double best = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
        double begin = relay_bench_seconds();
        for (int i = 0; i < PACKETS / ROUNDS; i++)
            if (!seal(cipher, in[i % 64]))
                relay_bench_die("not encrypted");
        double ns = (relay_bench_seconds() - begin) * 1e9 / (PACKETS / ROUNDS);
        best = ns < best ? ns : best;
    }
    return best;
}

#ifdef TWOHOP_IPSEC_MB
static bool seal_ours(void *ctx, const uint8_t *plain)
{
    return relay_quic_aead_encrypt(out, NULL, ctx, plain, SIZE, nonce, sizeof(nonce), head, sizeof(head)) ==
           0;
}

static void measure_ours(void)
{
    if (!relay_quic_aead_is_fast())
        return;
    ngtcp2_crypto_aead_ctx ctx = relay_quic_aead_new_key(key_bytes);
    if (ctx.native_handle == NULL)
        relay_bench_die("no key");
    printf(" ipsec_mb_ns=%.0f", measure(seal_ours, &ctx));
    relay_quic_aead_delete_aead(NULL, &ctx, NULL);
}
#else
static void measure_ours(void)
{
}
#endif

int main(void)
{
    gnutls_datum_t key = {key_bytes, sizeof(key_bytes)};
    gnutls_aead_cipher_hd_t cipher;
    if (gnutls_aead_cipher_init(&cipher, GNUTLS_CIPHER_AES_128_GCM, &key) != 0)
        relay_bench_die("no AES-128-GCM");
    printf("aead_ns=%.0f", measure(seal_gnutls, cipher));
    gnutls_aead_cipher_deinit(cipher);
    measure_ours();
    putchar('\n');
    return 0;
}
