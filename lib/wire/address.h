/* IP addresses and prefixes as values: parsing, printing, unwrapping, and the one table of special-purpose
 * ranges.
 *
 * All types are plain values in the caller's memory, copied freely; only relay_prefix_set owns memory. Bytes
 * are in network order. Parsing follows inet_pton alone: "127.1", "0x7f.1", "2130706433", "010.0.0.1" and
 * "fe80::1%eth0" are refused.
 *
 * Who must unwrap: nobody has to before relay_address_special() and relay_acl_judge_address(), which do it
 * themselves. Who dials must dial what relay_address_unwrap() gives as `dialled`.
 */
#ifndef RELAY_WIRE_ADDRESS_H
#define RELAY_WIRE_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define RELAY_ADDRESS_TEXT_SIZE 46 /* the longest text and its NUL */
#define RELAY_PREFIX_TEXT_SIZE  50

struct relay_address {
    uint8_t family;    /* 4 or 6; 0 is no address */
    uint8_t bytes[16]; /* an IPv4 address is in the first 4, the others are 0 */
};

/* `address` has no bit set behind the first `length` bits. */
struct relay_prefix {
    struct relay_address address;
    uint8_t length; /* 0-32 or 0-128 */
};

/* Parses `len` bytes (no NUL needed) of "192.0.2.1" or "2001:db8::1", without brackets, zone or space around.
 * RELAY_ERR_INVALID for all else; *address is then untouched. */
int relay_address_parse(const char *text, size_t len, struct relay_address *address);

/* Writes the text of RFC 5952 and gives `text` back; family 0 gives "". */
const char *relay_address_print(const struct relay_address *address, char text[RELAY_ADDRESS_TEXT_SIZE]);

bool relay_address_equal(const struct relay_address *a, const struct relay_address *b);

/* From a socket address of AF_INET or AF_INET6; `port` (host order) may be NULL. The scope of a link-local
 * address is lost. RELAY_ERR_INVALID for any other family; *address then has family 0. */
int relay_address_from_sockaddr(struct relay_address *address, uint16_t *port,
                                const struct sockaddr_storage *sockaddr);

/* Fills all of *sockaddr and gives the length for connect(); 0 when the family is neither 4 nor 6. */
socklen_t relay_address_to_sockaddr(const struct relay_address *address, uint16_t port,
                                    struct sockaddr_storage *sockaddr);

/* Which address is judged by the policy and which one is dialled. They differ from `address` only here:
 *
 *   form            judged       dialled
 *   ::ffff:a.b.c.d  a.b.c.d      a.b.c.d       (IPv4-mapped, RFC 4291 2.5.5.2)
 *   64:ff9b::/96    a.b.c.d      as it is      (NAT64, RFC 6052: the translator knows the way)
 *
 * 6to4, Teredo, 64:ff9b:1::/48, ISATAP and ::a.b.c.d are not unwrapped: they are special-purpose as a whole.
 * Either result may be NULL or may point to `address` itself. */
void relay_address_unwrap(const struct relay_address *address, struct relay_address *judged,
                          struct relay_address *dialled);

/* One special-purpose range: no target of a relay on the public internet lies in it. */
struct relay_special {
    struct relay_prefix prefix; /* family 0 for ISATAP, which no prefix can say */
    const char *name;           /* "private use" */
    const char *source;         /* "RFC 1918" */
};

/* The first special-purpose range in which the judged form of `address` lies, or NULL when it is on the
 * public internet. Everything in IPv6 outside the global unicast block 2000::/3 is special. Family 0 is
 * special too. */
const struct relay_special *relay_address_special(const struct relay_address *address);
bool relay_address_is_special(const struct relay_address *address);

/* Parses "10.0.0.0/8", "fc00::/7", or an address alone, which is the prefix of its full length. The host bits
 * must be zero and the length without leading zeros. RELAY_ERR_INVALID for all else; *prefix is then
 * untouched. */
int relay_prefix_parse(const char *text, size_t len, struct relay_prefix *prefix);

/* "10.0.0.0/8", with the length always; gives `text` back. */
const char *relay_prefix_print(const struct relay_prefix *prefix, char text[RELAY_PREFIX_TEXT_SIZE]);

/* Compares as it stands, without unwrapping; a prefix of the other family contains nothing. */
bool relay_prefix_contains(const struct relay_prefix *prefix, const struct relay_address *address);

/* The prefix a source is counted under: its first `v4_length` (say 24 or 32) or `v6_length` (say 64) bits; an
 * IPv4-mapped source counts as IPv4. The result has no padding that varies: it may be hashed with
 * relay_prefix_hash() and compared with relay_prefix_equal(). */
struct relay_prefix relay_prefix_of(const struct relay_address *address, uint8_t v4_length,
                                    uint8_t v6_length);
bool relay_prefix_equal(const struct relay_prefix *a, const struct relay_prefix *b);

/* `seed` is random per process, so that no one can choose sources that collide. */
uint64_t relay_prefix_hash(const struct relay_prefix *prefix, uint64_t seed);

/* A list of prefixes such as `peers:`. Zeroed memory is an empty set; dispose frees the list and makes it
 * empty. */
struct relay_prefix_set {
    struct relay_prefix *prefixes;
    size_t count, capacity;
};

/* RELAY_ERR_NO_MEMORY; the set is then unchanged. A prefix that is there already is not added again. */
int relay_prefix_set_add(struct relay_prefix_set *set, const struct relay_prefix *prefix);

/* Whether a prefix contains `address`; an IPv4-mapped address is looked up as IPv4. */
bool relay_prefix_set_contains(const struct relay_prefix_set *set, const struct relay_address *address);
void relay_prefix_set_dispose(struct relay_prefix_set *set);

#endif
