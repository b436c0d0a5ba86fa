/* Hosts and authorities, strictly: what is accepted here means the same to every resolver and to every policy
 * rule.
 *
 * A host is an IPv4 address in plain dotted-decimal form, an IPv6 address, or a name of labels of letters,
 * digits, hyphens and underscores (at most 63 each, 253 in all; one trailing dot is dropped and what remains
 * is judged again). A host whose last label is a number (decimal, or hexadecimal with 0x) is an address or
 * nothing: 127.1, 0x7f.1, 2130706433 and 010.0.0.1, which some resolvers read as IPv4, are refused. So are
 * zone IDs, percent-encoding, userinfo, controls, NUL, spaces and anything beyond ASCII (an internationalized
 * name travels as its A-label, xn--...).
 */
#ifndef RELAY_WIRE_AUTHORITY_H
#define RELAY_WIRE_AUTHORITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum relay_host_kind {
    RELAY_HOST_NAME,
    RELAY_HOST_IPV4,
    RELAY_HOST_IPV6,
};

/* A plain value: copy it as you like. IPv4-mapped and other IPv6 addresses that carry an IPv4 address stay
 * IPv6 here; unwrapping them is the policy's matter. */
struct relay_host {
    enum relay_host_kind kind;
    char name[256];      /* NUL-terminated: the name in lower case without trailing dot, or the address as
                            inet_ntop      writes it (no brackets) */
    uint8_t address[16]; /* network order; IPv4 uses the first four bytes; zero for a name */
};

/* How IPv6 addresses are written in the text to be parsed. */
enum relay_host_form {
    RELAY_HOST_BRACKETS, /* [2001:db8::1]: authorities */
    RELAY_HOST_BARE,     /* 2001:db8::1: the decoded target_host of RFC 9298 */
};

/* Buffer for the longest authority that relay_authority_write makes, with its NUL. */
#define RELAY_AUTHORITY_SIZE 264

/* All of these return 0, or RELAY_ERR_INVALID and leave their results undefined. `text` needs no NUL at its
 * end; one inside is refused. */
int relay_host_parse(struct relay_host *host, const char *text, size_t len, enum relay_host_form form);

/* A port, 1 to 65535: digits only, no leading zero. */
int relay_port_parse(uint16_t *port, const char *text, size_t len);

/* host:port of a CONNECT: the port is mandatory (RFC 9110 section 9.3.6). */
int relay_authority_parse(struct relay_host *host, uint16_t *port, const char *text, size_t len);

/* Host or :authority of any other request: without ":port" the port is `default_port`. An empty port
 * ("host:") is refused. */
int relay_authority_parse_default(struct relay_host *host, uint16_t *port, const char *text, size_t len,
                                  uint16_t default_port);

/* Writes host:port (IPv6 in brackets) with a NUL. Returns the length without it, or RELAY_ERR_TOO_BIG if
 * `size` is too small; RELAY_AUTHORITY_SIZE always suffices. */
int relay_authority_write(const struct relay_host *host, uint16_t port, char *buffer, size_t size);

#endif
