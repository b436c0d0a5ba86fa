/* TLS 1.3 of QUIC (RFC 9001) by GnuTLS: the certificates of a server, or what a client trusts.
 *
 * Credentials are made once, never changed and shared by reference between workers and connections: a new
 * certificate is a new object (relay_quic_endpoint_set_credentials). ALPN is "h3" and mandatory, X25519 comes
 * first, there is no 0-RTT (CONNECT must not be replayed).
 */
#ifndef RELAY_NET_QUIC_TLS_H
#define RELAY_NET_QUIC_TLS_H

#include <stddef.h>
#include <stdint.h>

#define RELAY_QUIC_PIN_SIZE   32  /* SHA-256 of a SubjectPublicKeyInfo */
#define RELAY_QUIC_ERROR_SIZE 256 /* room for the reason why credentials could not be made */
#define RELAY_QUIC_RESET_SIZE 32  /* the secret of stateless resets */

struct relay_quic_credentials;
struct relay_quic_tickets;

/* The key of the session tickets, one for all workers and all certificates of a role, so that resumption
 * works whichever worker it reaches; GnuTLS derives a rotating key from it. It lives in memory only. NULL:
 * out of memory. */
struct relay_quic_tickets *relay_quic_tickets_new(void);
/* When no credentials are left that use it, the memory goes. NULL is fine. */
void relay_quic_tickets_unref(struct relay_quic_tickets *tickets);

/* A server's: PEM files, the chain with the leaf first. `place` names the machine and the listening address: no
 * two servers that use one key may have the same (see below). `tickets` NULL: no resumption. Returns 0,
 * RELAY_ERR_NO_MEMORY, or RELAY_ERR_CERTIFICATE with the reason in `reason` (RELAY_QUIC_ERROR_SIZE bytes). */
int relay_quic_credentials_server(const char *chain_file, const char *key_file, const char *place,
                                  struct relay_quic_tickets *tickets,
                                  struct relay_quic_credentials **credentials, char *reason);
/* A server's secret of stateless resets, RELAY_QUIC_RESET_SIZE bytes, made of its private key and its place: after
 * a crash the next process has it again, and tells the clients of the one before that their connections are gone
 * (RFC 9000 section 10.3.2). Another server that had it could be made to reset this one's connections
 * (section 21.11): hence the place. It lives as long as the credentials. */
const uint8_t *relay_quic_credentials_reset_secret(const struct relay_quic_credentials *credentials);

/* A client's. With pins the server's certificate is accepted when the SHA-256 of its SubjectPublicKeyInfo is
 * one of them, and only then (its names and issuer do not matter). Without: `ca_file` (PEM), or NULL for the
 * system's trust, and the server's name is verified. Same answers. */
int relay_quic_credentials_client(const char *ca_file, const uint8_t (*pins)[RELAY_QUIC_PIN_SIZE],
                                  size_t num_pins, struct relay_quic_credentials **credentials, char *reason);

struct relay_quic_credentials *relay_quic_credentials_ref(struct relay_quic_credentials *credentials);
void relay_quic_credentials_unref(struct relay_quic_credentials *credentials); /* NULL is fine */

#endif
