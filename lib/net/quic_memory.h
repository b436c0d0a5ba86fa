/* What a client keeps of one server between two connections: the last address validation token (NEW_TOKEN, RFC 9000
 * section 8.1.3: it spares the round trip of a Retry) and the last session ticket of TLS. In memory alone.
 *
 * Both would tell the server, and a token also whoever sees the first packet, that two connections are of one client. So
 * each is used once, and all is forgotten when the client's own address is another: it has moved to another network. For
 * connections inside a tunnel, whose addresses are made up, there is none.
 *
 * Counted references, one thread.
 */
#ifndef RELAY_NET_QUIC_MEMORY_H
#define RELAY_NET_QUIC_MEMORY_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

struct relay_quic_memory;

enum relay_quic_memory_kind { RELAY_QUIC_TOKEN, RELAY_QUIC_TICKET };
#define RELAY_QUIC_MEMORY_KINDS 2
#define RELAY_QUIC_MEMORY_MAX   16384 /* bytes of one; longer ones are not kept */

struct relay_quic_memory *relay_quic_memory_new(void); /* NULL: out of memory */
struct relay_quic_memory *
relay_quic_memory_ref(struct relay_quic_memory *memory); /* NULL is fine, here and below */
void relay_quic_memory_unref(struct relay_quic_memory *memory);

/* In place of the one before. `local`: the connection's own address. Nothing is kept when memory is out. */
void relay_quic_memory_keep(struct relay_quic_memory *memory, enum relay_quic_memory_kind kind,
                            const struct sockaddr *local, const void *bytes, size_t len);
/* The caller's from now on, with free(); NULL: there is none. */
uint8_t *relay_quic_memory_take(struct relay_quic_memory *memory, enum relay_quic_memory_kind kind,
                                const struct sockaddr *local, size_t *len);

#endif
