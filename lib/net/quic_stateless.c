/* What an endpoint answers before, or without, a connection. */
#include "lib/net/quic_endpoint_internal.h"

#include <string.h>
#include <ngtcp2/ngtcp2_crypto.h>

#include "lib/net/metrics.h"
#include "lib/wire/address.h"
#include "lib/wire/error.h"

#define INITIAL_MIN    1200                       /* RFC 9000 section 14.1 */
#define DCID_MIN       8                          /* RFC 9000 section 7.2 */
#define TOKEN_LIFE     (10 * RELAY_SECOND)        /* of Retry */
#define KNOWN_LIFE     (24 * 3600 * RELAY_SECOND) /* of NEW_TOKEN */
#define SOURCE_BURST   100                        /* stateless answers to one source: bucket size */
#define SOURCE_RATE    20                         /* and refill per second */
#define ANSWERS_BURST  2000 /* and to all of them, for what spoofed sources would cost */
#define ANSWERS_RATE   2000
#define RESET_SIZE_MIN 21 /* RFC 9000 section 10.3: shorter ones are no valid reset */
#define RESET_SIZE     43 /* looks like a short packet, and stays below most triggers */

/* No source can use up what another one is owed. */
static bool may_answer(struct relay_quic_endpoint *endpoint, const struct relay_quic_packet *packet)
{
    struct sockaddr_storage peer; /* one that was handed over is not aligned as such */
    struct relay_address address;
    uint16_t port;
    uint64_t now = relay_loop_now(endpoint->loop);
    memcpy(&peer, packet->peer, relay_udp_address_size(packet->peer));
    relay_address_from_sockaddr(&address, &port, &peer);
    struct relay_prefix source = relay_prefix_of(&address, 32, 64);
    size_t at = relay_prefix_hash(&source, endpoint->source_seed) % RELAY_QUIC_ANSWER_BUCKETS;
    if (relay_bucket_take(&endpoint->source_answers[at], 1, SOURCE_BURST, SOURCE_RATE, now) &&
        relay_bucket_take(&endpoint->answers, 1, ANSWERS_BURST, ANSWERS_RATE, now))
        return true;
    relay_count(endpoint->loop->metrics->drop_stateless, 1);
    return false;
}

void relay_quic_stateless_version(struct relay_quic_endpoint *endpoint,
                                  const struct relay_quic_packet *packet, const ngtcp2_version_cid *ids)
{
    static const uint32_t versions[] = {NGTCP2_PROTO_VER_V1};
    uint8_t answer[1 + 4 + 1 + 255 + 1 + 255 + sizeof(versions)], noise;
    if (packet->len < INITIAL_MIN || ids->version == 0) {
        relay_count(endpoint->loop->metrics->drop_packet, 1);
        return;
    }
    if (!may_answer(endpoint, packet))
        return;
    relay_quic_random(&noise, 1, NULL);
    ngtcp2_ssize n = ngtcp2_pkt_write_version_negotiation(answer, sizeof(answer), noise, ids->scid,
                                                          ids->scidlen, ids->dcid, ids->dcidlen, versions, 1);
    if (n <= 0)
        return;
    relay_quic_socket_answer(packet, answer, (size_t)n);
    relay_count(endpoint->loop->metrics->quic_version_negotiation, 1);
}

void relay_quic_stateless_reset(struct relay_quic_endpoint *endpoint, const struct relay_quic_packet *packet,
                                const uint8_t *cid, size_t len)
{
    uint8_t token[NGTCP2_STATELESS_RESET_TOKENLEN], noise[RESET_SIZE], answer[RESET_SIZE];
    ngtcp2_cid id;
    size_t size =
        packet->len - 1 < RESET_SIZE ? packet->len - 1 : RESET_SIZE; /* shorter than its trigger: no loop */
    if (packet->len <= RESET_SIZE_MIN) {
        relay_count(endpoint->loop->metrics->drop_packet, 1);
        return;
    }
    if (!may_answer(endpoint, packet))
        return;
    ngtcp2_cid_init(&id, cid, len);
    if (ngtcp2_crypto_generate_stateless_reset_token(
            token, relay_quic_credentials_reset_secret(endpoint->credentials), RELAY_QUIC_RESET_SIZE, &id) !=
        0)
        return;
    relay_quic_random(noise, sizeof(noise), NULL);
    ngtcp2_ssize n = ngtcp2_pkt_write_stateless_reset(answer, size, token, noise, size - sizeof(token));
    if (n <= 0)
        return;
    relay_quic_socket_answer(packet, answer, (size_t)n);
    relay_count(endpoint->loop->metrics->quic_stateless_reset, 1);
}

static void send_retry(struct relay_quic_endpoint *endpoint, const struct relay_quic_packet *packet,
                       const ngtcp2_pkt_hd *initial)
{
    uint8_t token[NGTCP2_CRYPTO_MAX_RETRY_TOKENLEN2], answer[NGTCP2_MAX_UDP_PAYLOAD_SIZE];
    ngtcp2_cid scid = {.datalen = RELAY_QUIC_CID_SIZE};
    relay_quic_steering_issue(relay_quic_group_steering(endpoint->group), endpoint->worker, scid.data,
                              scid.datalen);
    ngtcp2_ssize len = ngtcp2_crypto_generate_retry_token2(
        token, relay_quic_group_retry_secret(endpoint->group), RELAY_QUIC_RETRY_SIZE, initial->version,
        packet->peer, relay_udp_address_size(packet->peer), &scid, &initial->dcid,
        relay_loop_now(endpoint->loop));
    if (len < 0)
        return;
    ngtcp2_ssize n = ngtcp2_crypto_write_retry(answer, sizeof(answer), initial->version, &initial->scid,
                                               &scid, &initial->dcid, token, (size_t)len);
    if (n <= 0)
        return;
    relay_quic_socket_answer(packet, answer, (size_t)n);
    relay_count(endpoint->loop->metrics->quic_retry, 1);
}

static void refuse(struct relay_quic_endpoint *endpoint, const struct relay_quic_packet *packet,
                   const ngtcp2_pkt_hd *initial, uint64_t code)
{
    uint8_t answer[NGTCP2_MAX_UDP_PAYLOAD_SIZE];
    if (!may_answer(endpoint, packet))
        return;
    ngtcp2_ssize n = ngtcp2_crypto_write_connection_close(answer, sizeof(answer), initial->version,
                                                          &initial->scid, &initial->dcid, code, NULL, 0);
    if (n > 0)
        relay_quic_socket_answer(packet, answer, (size_t)n);
}

enum token { TOKEN_NONE, TOKEN_RETRY, TOKEN_KNOWN, TOKEN_BAD };

static enum token check_token(struct relay_quic_endpoint *endpoint, const struct relay_quic_packet *packet,
                              const ngtcp2_pkt_hd *initial, ngtcp2_cid *original_dcid)
{
    const uint8_t *secret = relay_quic_group_retry_secret(endpoint->group);
    socklen_t peer_size = relay_udp_address_size(packet->peer);
    uint64_t now = relay_loop_now(endpoint->loop);
    if (initial->tokenlen == 0)
        return TOKEN_NONE;
    /* One that is not good, or too old, is as good as none (RFC 9000 section 8.1.3). */
    if (initial->token[0] == NGTCP2_CRYPTO_TOKEN_MAGIC_REGULAR)
        return ngtcp2_crypto_verify_regular_token(initial->token, initial->tokenlen, secret,
                                                  RELAY_QUIC_RETRY_SIZE, packet->peer, peer_size, KNOWN_LIFE,
                                                  now) == 0
                   ? TOKEN_KNOWN
                   : TOKEN_NONE;
    if (initial->token[0] != NGTCP2_CRYPTO_TOKEN_MAGIC_RETRY2)
        return TOKEN_NONE;
    switch (ngtcp2_crypto_verify_retry_token2(original_dcid, initial->token, initial->tokenlen, secret,
                                              RELAY_QUIC_RETRY_SIZE, initial->version, packet->peer,
                                              peer_size, &initial->dcid, TOKEN_LIFE, now)) {
    case 0:
        return TOKEN_RETRY;
    case NGTCP2_CRYPTO_ERR_VERIFY_TOKEN:
        return TOKEN_BAD;
    default: /* somebody else's, or of the process before */
        return TOKEN_NONE;
    }
}

void relay_quic_stateless_initial(struct relay_quic_endpoint *endpoint,
                                  const struct relay_quic_packet *packet)
{
    ngtcp2_pkt_hd initial;
    ngtcp2_cid original_dcid;
    if (packet->len < INITIAL_MIN || ngtcp2_accept(&initial, packet->bytes, packet->len) != 0 ||
        initial.dcid.datalen < DCID_MIN) {
        relay_count(endpoint->loop->metrics->drop_packet, 1);
        return;
    }
    if (endpoint->is_shut) {
        refuse(endpoint, packet, &initial, NGTCP2_CONNECTION_REFUSED);
        return;
    }
    enum token token = check_token(endpoint, packet, &initial, &original_dcid);
    if (token == TOKEN_BAD)
        refuse(endpoint, packet, &initial, NGTCP2_INVALID_TOKEN);
    else if (token == TOKEN_NONE && endpoint->half_open.count >= endpoint->limits->half_open_retry)
        send_retry(endpoint, packet, &initial);
    else
        relay_quic_peer_accept(endpoint, packet, &initial, token == TOKEN_RETRY ? &original_dcid : NULL,
                               token == TOKEN_KNOWN);
}
