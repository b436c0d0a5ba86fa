/* One connection's TLS session: what quic_conn.c needs of quic_tls.c. */
#ifndef RELAY_NET_QUIC_TLS_SESSION_H
#define RELAY_NET_QUIC_TLS_SESSION_H

#include <stdbool.h>
#include <gnutls/gnutls.h>
#include <ngtcp2/ngtcp2.h>
#include <ngtcp2/ngtcp2_crypto.h>

#include "lib/net/quic_memory.h"
#include "lib/net/quic_tls.h"

/* Embedded in the connection and not moved: GnuTLS keeps its address. */
struct relay_quic_tls {
    gnutls_session_t session;
    ngtcp2_crypto_conn_ref ref;
    struct relay_quic_credentials *credentials;
    char *server_name;
    struct relay_quic_memory *memory; /* the connection's */
    int certificate_error; /* RELAY_ERR_CERTIFICATE...: why the handshake failed; 0: not for that */
    /* Where in the peer's handshake messages the next byte stands. */
    uint8_t head[4]; /* RFC 8446 section 4: the type, and a length of 24 bits */
    unsigned head_len;
    uint32_t left;   /* of the body */
    size_t received; /* bytes so far */
    ngtcp2_encryption_level level;
};

/* `get_conn` finds the ngtcp2_conn by `user`. `server_name` is NULL for a server. 0 or RELAY_ERR_NO_MEMORY /
 * _TLS. */
int relay_quic_tls_init(struct relay_quic_tls *tls, struct relay_quic_credentials *credentials,
                        const char *server_name, ngtcp2_crypto_get_conn get_conn, void *user);
void relay_quic_tls_dispose(struct relay_quic_tls *tls);
/* Whether the next bytes of the peer's CRYPTO frames may be shown to GnuTLS, which otherwise buffers a message of
 * up to 16 MiB, and obeys a KeyUpdate: ngtcp2 then aborts the process (RFC 9001 section 6 forbids that message).
 * After the handshake a server hears nothing and a client NewSessionTicket alone; all in all 64 KiB. False: the
 * connection must end with an unexpected_message alert. */
bool relay_quic_tls_admit(struct relay_quic_tls *tls, ngtcp2_encryption_level level, const uint8_t *bytes,
                          size_t len);
/* The peer has agreed to "h3": a client must look, GnuTLS does not. */
bool relay_quic_tls_is_h3(const struct relay_quic_tls *tls);
/* Client, before the handshake: offers the ticket of an earlier connection, and keeps those that come. */
void relay_quic_tls_remember(struct relay_quic_tls *tls, struct relay_quic_memory *memory,
                             const struct sockaddr *local);
/* Server: queues a session ticket; called when the handshake is complete. */
void relay_quic_tls_send_ticket(struct relay_quic_tls *tls);

#endif
