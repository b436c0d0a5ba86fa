#include "lib/net/quic_tls.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <gnutls/abstract.h>
#include <gnutls/crypto.h>
#include <gnutls/x509.h>
#include <ngtcp2/ngtcp2_crypto_gnutls.h>

#include "lib/net/quic_aead.h"
#include "lib/net/quic_tls_session.h"
#include "lib/net/tls_context.h"
#include "lib/wire/error.h"

#define PRIORITY                                                                                             \
    "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305:"                \
    "-GROUP-ALL:+GROUP-X25519:+GROUP-SECP256R1:+GROUP-SECP384R1:%DISABLE_TLS13_COMPAT_MODE"

#define CRYPTO_MAX         65536 /* bytes of handshake messages, also of a long certificate chain */
#define NEW_SESSION_TICKET 4     /* RFC 8446 section 4 */
#define KEY_UPDATE         24

struct relay_quic_tickets {
    atomic_uint refs;
    gnutls_datum_t key;
};

struct relay_quic_credentials {
    atomic_uint refs;
    gnutls_certificate_credentials_t certificates;
    gnutls_priority_t priority;
    struct relay_quic_tickets *tickets;
    uint8_t (*pins)[RELAY_QUIC_PIN_SIZE];
    size_t num_pins;
    uint8_t reset_secret[RELAY_QUIC_RESET_SIZE]; /* a server's */
};

struct relay_quic_tickets *relay_quic_tickets_new(void)
{
    struct relay_quic_tickets *tickets = calloc(1, sizeof(*tickets));
    if (tickets == NULL)
        return NULL;
    atomic_init(&tickets->refs, 1);
    if (gnutls_session_ticket_key_generate(&tickets->key) != 0) {
        free(tickets);
        return NULL;
    }
    return tickets;
}

void relay_quic_tickets_unref(struct relay_quic_tickets *tickets)
{
    if (tickets == NULL || atomic_fetch_sub(&tickets->refs, 1) != 1)
        return;
    gnutls_memset(tickets->key.data, 0, tickets->key.size);
    gnutls_free(tickets->key.data);
    free(tickets);
}

struct relay_quic_credentials *relay_quic_credentials_ref(struct relay_quic_credentials *credentials)
{
    atomic_fetch_add(&credentials->refs, 1);
    return credentials;
}

void relay_quic_credentials_unref(struct relay_quic_credentials *credentials)
{
    if (credentials == NULL || atomic_fetch_sub(&credentials->refs, 1) != 1)
        return;
    if (credentials->certificates != NULL)
        gnutls_certificate_free_credentials(credentials->certificates);
    if (credentials->priority != NULL)
        gnutls_priority_deinit(credentials->priority);
    relay_quic_tickets_unref(credentials->tickets);
    free(credentials->pins);
    gnutls_memset(credentials->reset_secret, 0, sizeof(credentials->reset_secret));
    free(credentials);
}

__attribute__((format(printf, 2, 3))) static int refuse(char *reason, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(reason, RELAY_QUIC_ERROR_SIZE, format, args);
    va_end(args);
    return RELAY_ERR_CERTIFICATE;
}

static int new_credentials(struct relay_quic_credentials **made, char *reason)
{
    struct relay_quic_credentials *credentials = calloc(1, sizeof(*credentials));
    const char *position = NULL;
    *made = NULL;
    if (credentials == NULL)
        return RELAY_ERR_NO_MEMORY;
    atomic_init(&credentials->refs, 1);
    int code = gnutls_certificate_allocate_credentials(&credentials->certificates);
    if (code == 0)
        code = gnutls_priority_init(&credentials->priority, PRIORITY, &position);
    if (code != 0) {
        relay_quic_credentials_unref(credentials);
        return refuse(reason, "GnuTLS: %s", gnutls_strerror(code));
    }
    *made = credentials;
    return 0;
}

/* An HMAC of the place under the private key. 0 or a GnuTLS error. */
static int make_reset_secret(struct relay_quic_credentials *credentials, const char *place)
{
    static const char label[] = "twohop stateless reset";
    gnutls_x509_privkey_t key = NULL;
    gnutls_datum_t der = {NULL, 0};
    gnutls_hmac_hd_t hmac = NULL;
    int code = gnutls_certificate_get_x509_key(credentials->certificates, 0, &key);
    if (code == 0)
        code = gnutls_x509_privkey_export2(key, GNUTLS_X509_FMT_DER, &der);
    if (code == 0)
        code = gnutls_hmac_init(&hmac, GNUTLS_MAC_SHA256, der.data, der.size);
    if (code == 0)
        code = gnutls_hmac(hmac, label, sizeof(label));
    if (code == 0)
        code = gnutls_hmac(hmac, place, strlen(place));
    if (hmac != NULL)
        gnutls_hmac_deinit(hmac, credentials->reset_secret);
    if (der.data != NULL)
        gnutls_memset(der.data, 0, der.size);
    gnutls_free(der.data);
    gnutls_x509_privkey_deinit(key);
    return code;
}

const uint8_t *relay_quic_credentials_reset_secret(const struct relay_quic_credentials *credentials)
{
    return credentials->reset_secret;
}

int relay_quic_credentials_server(const char *chain_file, const char *key_file, const char *place,
                                  struct relay_quic_tickets *tickets,
                                  struct relay_quic_credentials **credentials, char *reason)
{
    int error = new_credentials(credentials, reason);
    if (error != 0)
        return error;
    int code = gnutls_certificate_set_x509_key_file((*credentials)->certificates, chain_file, key_file,
                                                    GNUTLS_X509_FMT_PEM);
    if (code >= 0)
        code = make_reset_secret(*credentials, place);
    if (code < 0) {
        relay_quic_credentials_unref(*credentials);
        *credentials = NULL;
        if (code == GNUTLS_E_DECRYPTION_FAILED) /* it never asks for a passphrase, it has none */
            return refuse(reason, "%s: %s", key_file, RELAY_TLS_IS_ENCRYPTED);
        return refuse(reason, "certificate chain %s with key %s: %s", chain_file, key_file,
                      gnutls_strerror(code));
    }
    if (tickets != NULL) {
        atomic_fetch_add(&tickets->refs, 1);
        (*credentials)->tickets = tickets;
    }
    return 0;
}

static bool is_pinned(const struct relay_quic_credentials *credentials, gnutls_session_t session)
{
    unsigned count = 0;
    const gnutls_datum_t *chain = gnutls_certificate_get_peers(session, &count);
    gnutls_x509_crt_t leaf = NULL;
    uint8_t digest[RELAY_QUIC_PIN_SIZE];
    size_t size = sizeof(digest);
    bool found = false;
    if (chain == NULL || count == 0 || gnutls_x509_crt_init(&leaf) != 0)
        return false;
    if (gnutls_x509_crt_import(leaf, &chain[0], GNUTLS_X509_FMT_DER) == 0 &&
        gnutls_x509_crt_get_key_id(leaf, GNUTLS_KEYID_USE_SHA256, digest, &size) == 0 &&
        size == sizeof(digest))
        for (size_t i = 0; i < credentials->num_pins; i++)
            found |= gnutls_memcmp(digest, credentials->pins[i], sizeof(digest)) == 0;
    gnutls_x509_crt_deinit(leaf);
    return found;
}

/* Why a server's certificate is refused: what says most comes first. */
static int judge_verification(unsigned status)
{
    if (status & GNUTLS_CERT_SIGNER_NOT_FOUND)
        return RELAY_ERR_CERTIFICATE_ISSUER;
    if (status & GNUTLS_CERT_UNEXPECTED_OWNER)
        return RELAY_ERR_CERTIFICATE_NAME;
    if (status & (GNUTLS_CERT_EXPIRED | GNUTLS_CERT_NOT_ACTIVATED))
        return RELAY_ERR_CERTIFICATE_TIME;
    return status == 0 ? 0 : RELAY_ERR_CERTIFICATE;
}

/* The signature over the handshake is checked by GnuTLS itself; here it is only decided whether this is the
 * right key. */
static int on_verify(gnutls_session_t session)
{
    ngtcp2_crypto_conn_ref *ref = gnutls_session_get_ptr(session);
    struct relay_quic_tls *tls =
        (struct relay_quic_tls *)((char *)ref - offsetof(struct relay_quic_tls, ref));
    unsigned status = 0;
    if (tls->credentials->num_pins > 0)
        tls->certificate_error = is_pinned(tls->credentials, session) ? 0 : RELAY_ERR_CERTIFICATE_PIN;
    else if (gnutls_certificate_verify_peers3(session, tls->server_name, &status) != 0)
        tls->certificate_error = RELAY_ERR_CERTIFICATE;
    else
        tls->certificate_error = judge_verification(status);
    return tls->certificate_error == 0 ? 0 : GNUTLS_E_CERTIFICATE_ERROR;
}

static int set_trust(struct relay_quic_credentials *credentials, const char *ca_file, char *reason)
{
    int count = ca_file != NULL ? gnutls_certificate_set_x509_trust_file(credentials->certificates, ca_file,
                                                                         GNUTLS_X509_FMT_PEM)
                                : gnutls_certificate_set_x509_system_trust(credentials->certificates);
    const char *name = ca_file != NULL ? ca_file : "the system's certificate authorities";
    if (count < 0)
        return refuse(reason, "%s: %s", name, gnutls_strerror(count));
    return count > 0 ? 0 : refuse(reason, "%s: no certificate in it", name);
}

int relay_quic_credentials_client(const char *ca_file, const uint8_t (*pins)[RELAY_QUIC_PIN_SIZE],
                                  size_t num_pins, struct relay_quic_credentials **credentials, char *reason)
{
    int error = new_credentials(credentials, reason);
    if (error != 0)
        return error;
    gnutls_certificate_set_verify_function((*credentials)->certificates, on_verify);
    if (num_pins == 0) {
        error = set_trust(*credentials, ca_file, reason);
    } else if (((*credentials)->pins = calloc(num_pins, RELAY_QUIC_PIN_SIZE)) == NULL) {
        error = RELAY_ERR_NO_MEMORY;
    } else {
        memcpy((*credentials)->pins, pins, num_pins * RELAY_QUIC_PIN_SIZE);
        (*credentials)->num_pins = num_pins;
    }
    if (error != 0) {
        relay_quic_credentials_unref(*credentials);
        *credentials = NULL;
    }
    return error;
}

/* ---- one session ---- */

static int configure(struct relay_quic_tls *tls, bool is_server)
{
    static const gnutls_datum_t h3 = {(unsigned char *)"h3", 2};
    struct relay_quic_credentials *credentials = tls->credentials;
    if (gnutls_priority_set(tls->session, credentials->priority) != 0 ||
        gnutls_credentials_set(tls->session, GNUTLS_CRD_CERTIFICATE, credentials->certificates) != 0 ||
        gnutls_alpn_set_protocols(tls->session, &h3, 1, GNUTLS_ALPN_MANDATORY) != 0)
        return RELAY_ERR_TLS;
    if (is_server && credentials->tickets != NULL &&
        gnutls_session_ticket_enable_server(tls->session, &credentials->tickets->key) != 0)
        return RELAY_ERR_TLS;
    /* SNI carries names only: GnuTLS refuses an address literal, which the certificate is then verified
     * against. */
    if (!is_server && strspn(tls->server_name, "0123456789.") != strlen(tls->server_name) &&
        strchr(tls->server_name, ':') == NULL &&
        gnutls_server_name_set(tls->session, GNUTLS_NAME_DNS, tls->server_name, strlen(tls->server_name)) !=
            0)
        return RELAY_ERR_TLS;
    if ((is_server ? ngtcp2_crypto_gnutls_configure_server_session(tls->session)
                   : ngtcp2_crypto_gnutls_configure_client_session(tls->session)) != 0)
        return RELAY_ERR_TLS;
    relay_quic_aead_configure(tls->session);
    return 0;
}

int relay_quic_tls_init(struct relay_quic_tls *tls, struct relay_quic_credentials *credentials,
                        const char *server_name, ngtcp2_crypto_get_conn get_conn, void *user)
{
    bool is_server = server_name == NULL;
    memset(tls, 0, sizeof(*tls));
    if (!is_server && (tls->server_name = strdup(server_name)) == NULL)
        return RELAY_ERR_NO_MEMORY;
    unsigned flags = (is_server ? GNUTLS_SERVER | GNUTLS_NO_AUTO_SEND_TICKET : GNUTLS_CLIENT) |
                     GNUTLS_NO_END_OF_EARLY_DATA;
    if (gnutls_init(&tls->session, flags) != 0) {
        tls->session = NULL;
        return RELAY_ERR_NO_MEMORY;
    }
    tls->credentials = relay_quic_credentials_ref(credentials);
    tls->ref.get_conn = get_conn;
    tls->ref.user_data = user;
    gnutls_session_set_ptr(tls->session, &tls->ref);
    return configure(tls, is_server);
}

void relay_quic_tls_dispose(struct relay_quic_tls *tls)
{
    if (tls->session != NULL)
        gnutls_deinit(tls->session);
    relay_quic_credentials_unref(tls->credentials);
    free(tls->server_name);
    memset(tls, 0, sizeof(*tls));
}

static bool is_mid_message(const struct relay_quic_tls *tls)
{
    return tls->head_len > 0 || tls->left > 0;
}

/* The head of a message is complete. */
static bool admit_message(const struct relay_quic_tls *tls)
{
    bool is_server = tls->server_name == NULL;
    if (tls->level == NGTCP2_ENCRYPTION_LEVEL_1RTT)
        return !is_server && tls->head[0] == NEW_SESSION_TICKET;
    return tls->head[0] != KEY_UPDATE;
}

bool relay_quic_tls_admit(struct relay_quic_tls *tls, ngtcp2_encryption_level level, const uint8_t *bytes,
                          size_t len)
{
    tls->received += len;
    if (tls->received > CRYPTO_MAX || (level != tls->level && is_mid_message(tls)))
        return false;
    tls->level = level;
    while (len > 0) {
        if (tls->left == 0) {
            tls->head[tls->head_len++] = *bytes++;
            len--;
            if (tls->head_len < sizeof(tls->head))
                continue;
            if (!admit_message(tls))
                return false;
            tls->left = (uint32_t)tls->head[1] << 16 | (uint32_t)tls->head[2] << 8 | tls->head[3];
            tls->head_len = 0;
            continue;
        }
        size_t part = len < tls->left ? len : tls->left;
        bytes += part;
        len -= part;
        tls->left -= (uint32_t)part;
    }
    return true;
}

bool relay_quic_tls_is_h3(const struct relay_quic_tls *tls)
{
    gnutls_datum_t protocol;
    return gnutls_alpn_get_selected_protocol(tls->session, &protocol) == 0 && protocol.size == 2 &&
           memcmp(protocol.data, "h3", 2) == 0;
}

void relay_quic_tls_send_ticket(struct relay_quic_tls *tls)
{
    /* Without a ticket the client makes a full handshake next time: no reason to fail this one. */
    if (tls->credentials->tickets != NULL)
        (void)gnutls_session_ticket_send(tls->session, 1, 0);
}

static int on_ticket(gnutls_session_t session, unsigned type, unsigned when, unsigned incoming,
                     const gnutls_datum_t *message)
{
    ngtcp2_crypto_conn_ref *ref = gnutls_session_get_ptr(session);
    struct relay_quic_tls *tls =
        (struct relay_quic_tls *)((char *)ref - offsetof(struct relay_quic_tls, ref));
    gnutls_datum_t data;
    if (gnutls_session_get_data2(session, &data) != 0)
        return 0;
    relay_quic_memory_keep(tls->memory, RELAY_QUIC_TICKET,
                           (struct sockaddr *)ngtcp2_conn_get_path(ref->get_conn(ref))->local.addr, data.data,
                           data.size);
    gnutls_memset(data.data, 0, data.size);
    gnutls_free(data.data);
    return 0;
}

void relay_quic_tls_remember(struct relay_quic_tls *tls, struct relay_quic_memory *memory,
                             const struct sockaddr *local)
{
    size_t len;
    if (memory == NULL)
        return;
    tls->memory = memory;
    gnutls_handshake_set_hook_function(tls->session, GNUTLS_HANDSHAKE_NEW_SESSION_TICKET, GNUTLS_HOOK_POST,
                                       on_ticket);
    uint8_t *ticket = relay_quic_memory_take(memory, RELAY_QUIC_TICKET, local, &len);
    if (ticket != NULL) {
        /* One that is not taken costs a full handshake, no more. */
        (void)gnutls_session_set_data(tls->session, ticket, len);
        gnutls_memset(ticket, 0, len);
    }
    free(ticket);
}
