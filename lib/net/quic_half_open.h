/* The handshakes of an endpoint that are in progress, and which of them makes room when there are too many.
 *
 * Who has most of them gives: the source (IPv4 address or IPv6 /64) first, of its handshakes those from one port, of
 * these the oldest. So a flood over one tunnel of a relay is paid for by itself, and the others behind that relay, who
 * have the same address, get through; a flood from everywhere ends the oldest. Sources and ports share places by hash:
 * it costs the same however many there are.
 */
#ifndef RELAY_NET_QUIC_HALF_OPEN_H
#define RELAY_NET_QUIC_HALF_OPEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define RELAY_QUIC_HALF_OPEN_SOURCES 16
#define RELAY_QUIC_HALF_OPEN_PORTS   8 /* of each source */

/* Embedded in who makes the handshake; zeroed it is in no list. */
struct relay_quic_handshake {
    struct relay_quic_handshake *newer, *older;
    uint64_t number; /* in the order in which they began */
    unsigned source, port;
    bool is_counted;
};

struct relay_quic_half_open {
    size_t count;
    uint64_t seed; /* secret: nobody chooses whose place he shares */
    uint64_t next_number;
    struct relay_quic_half_open_source {
        size_t count;
        struct relay_quic_half_open_port {
            size_t count;
            struct relay_quic_handshake *newest, *oldest;
        } ports[RELAY_QUIC_HALF_OPEN_PORTS];
    } sources[RELAY_QUIC_HALF_OPEN_SOURCES];
};

/* It begins now, from `peer`. */
void relay_quic_half_open_add(struct relay_quic_half_open *half_open, struct relay_quic_handshake *handshake,
                              const struct sockaddr_storage *peer);
/* It is over, well or badly. Fine when it was over before. */
void relay_quic_half_open_remove(struct relay_quic_half_open *half_open,
                                 struct relay_quic_handshake *handshake);
/* Which one makes room; the newest of all only when there is no other. NULL: there is none. */
struct relay_quic_handshake *relay_quic_half_open_victim(const struct relay_quic_half_open *half_open);

#endif
