/* SOCKS5 (RFC 1928): the messages of a server that asks for no password, and the head of UDP datagrams.
 *
 * Names stay names: a relay resolves them, never we. All readers take what has come so far and return the
 * bytes of the whole message, or RELAY_ERR_INCOMPLETE (more must come), RELAY_ERR_INVALID, or what is said
 * there. None allocates.
 */
#ifndef RELAY_WIRE_SOCKS5_H
#define RELAY_WIRE_SOCKS5_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/wire/address.h"
#include "lib/wire/authority.h"

#define RELAY_SOCKS5_MESSAGE_MAX  262 /* the longest request, and longer than any greeting */
#define RELAY_SOCKS5_REPLY_MAX    22
#define RELAY_SOCKS5_UDP_HEAD_MAX 262
#define RELAY_SOCKS4_REPLY_SIZE   8

enum relay_socks5_command {
    RELAY_SOCKS5_CONNECT = 1,
    RELAY_SOCKS5_BIND = 2,
    RELAY_SOCKS5_UDP_ASSOCIATE = 3,
};

/* RFC 1928 section 6. */
enum relay_socks5_reply {
    RELAY_SOCKS5_SUCCEEDED = 0,
    RELAY_SOCKS5_FAILURE = 1,
    RELAY_SOCKS5_NOT_ALLOWED = 2,
    RELAY_SOCKS5_NETWORK_UNREACHABLE = 3,
    RELAY_SOCKS5_HOST_UNREACHABLE = 4,
    RELAY_SOCKS5_REFUSED = 5,
    RELAY_SOCKS5_TTL_EXPIRED = 6,
    RELAY_SOCKS5_BAD_COMMAND = 7,
    RELAY_SOCKS5_BAD_ADDRESS_TYPE = 8,
};

struct relay_socks5_request {
    uint8_t command; /* any; who does not know it answers BAD_COMMAND */
    bool has_target; /* false: UDP ASSOCIATE with 0.0.0.0 or port 0 */
    struct relay_host host;
    uint16_t port;
};

struct relay_socks5_datagram {
    uint8_t fragment; /* not 0: a fragment, to be dropped */
    struct relay_host host;
    uint16_t port;
};

/* The methods that the client offers. RELAY_ERR_UNSUPPORTED: it speaks SOCKS4 or 4a, which is refused by
 * relay_socks5_refuse_version4. */
int relay_socks5_read_greeting(const uint8_t *bytes, size_t len, bool *offers_no_password);
/* The method chosen: NO AUTHENTICATION, or NO ACCEPTABLE METHODS. Two bytes. */
void relay_socks5_write_method(uint8_t out[2], bool accepted);
/* What a SOCKS4 server says to "request rejected": the version of its replies is 0. */
void relay_socks5_refuse_version4(uint8_t out[RELAY_SOCKS4_REPLY_SIZE]);

/* RELAY_ERR_UNSUPPORTED: an unknown address type (answer BAD_ADDRESS_TYPE). RELAY_ERR_INVALID also for a bad
 * name, or port 0 of a CONNECT. */
int relay_socks5_read_request(const uint8_t *bytes, size_t len, struct relay_socks5_request *request);
/* `bound` NULL: 0.0.0.0:0. Returns the length. */
size_t relay_socks5_write_reply(uint8_t out[RELAY_SOCKS5_REPLY_MAX], enum relay_socks5_reply reply,
                                const struct relay_address *bound, uint16_t port);
/* The reply that says best what a RELAY_ERR_* means. */
enum relay_socks5_reply relay_socks5_reply_of(int error);

/* The head in front of a UDP payload; returns where that begins. Never RELAY_ERR_INCOMPLETE: a datagram is
 * whole. */
int relay_socks5_read_datagram(const uint8_t *bytes, size_t len, struct relay_socks5_datagram *datagram);
size_t relay_socks5_write_datagram(uint8_t out[RELAY_SOCKS5_UDP_HEAD_MAX], const struct relay_host *host,
                                   uint16_t port);

#endif
