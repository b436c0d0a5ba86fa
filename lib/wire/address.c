#include "lib/wire/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/wire/error.h"

#define V4(length, ...)                                                                                      \
    {                                                                                                        \
        {4, {__VA_ARGS__}}, length                                                                           \
    }
#define V6(length, ...)                                                                                      \
    {                                                                                                        \
        {6, {__VA_ARGS__}}, length                                                                           \
    }

static const struct relay_prefix mapped = V6(96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff);
static const struct relay_prefix nat64 = V6(96, 0x00, 0x64, 0xff, 0x9b);

/* The IANA special-purpose registries, multicast and reserved blocks, and the forms that carry an IPv4
 * address to a translator or tunnel we know nothing about. The first match gives the name, so narrow ranges
 * stand before wide ones. The last three are what IPv6 has outside 2000::/3: nothing there is assigned as
 * global unicast. */
static const struct relay_special specials[] = {
    {V4(8, 0), "this network", "RFC 791"},
    {V4(8, 10), "private use", "RFC 1918"},
    {V4(10, 100, 64), "shared address space", "RFC 6598"},
    {V4(8, 127), "loopback", "RFC 1122"},
    {V4(16, 169, 254), "link-local", "RFC 3927"},
    {V4(12, 172, 16), "private use", "RFC 1918"},
    {V4(24, 192, 0, 0), "IETF protocol assignments", "RFC 6890"},
    {V4(24, 192, 0, 2), "documentation", "RFC 5737"},
    {V4(24, 192, 88, 99), "6to4 relay anycast", "RFC 7526"},
    {V4(16, 192, 168), "private use", "RFC 1918"},
    {V4(15, 198, 18), "benchmarking", "RFC 2544"},
    {V4(24, 198, 51, 100), "documentation", "RFC 5737"},
    {V4(24, 203, 0, 113), "documentation", "RFC 5737"},
    {V4(4, 224), "multicast", "RFC 5771"},
    {V4(32, 255, 255, 255, 255), "limited broadcast", "RFC 8190"},
    {V4(4, 240), "reserved", "RFC 1112"},

    {V6(128, 0), "unspecified", "RFC 4291"},
    {V6(128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1), "loopback", "RFC 4291"},
    {V6(96, 0), "IPv4-compatible", "RFC 4291"},
    {V6(48, 0x00, 0x64, 0xff, 0x9b, 0x00, 0x01), "local-use translation", "RFC 8215"},
    {V6(64, 0x01, 0x00), "discard only", "RFC 6666"},
    {V6(32, 0x20, 0x01, 0x00, 0x00), "Teredo", "RFC 4380"},
    {V6(23, 0x20, 0x01, 0x00), "IETF protocol assignments", "RFC 2928"},
    {V6(32, 0x20, 0x01, 0x0d, 0xb8), "documentation", "RFC 3849"},
    {V6(16, 0x20, 0x02), "6to4", "RFC 3056"},
    {V6(20, 0x3f, 0xff), "documentation", "RFC 9637"},
    {V6(16, 0x5f, 0x00), "segment routing", "RFC 9602"},
    {V6(7, 0xfc), "unique local", "RFC 4193"},
    {V6(10, 0xfe, 0x80), "link-local", "RFC 4291"},
    {V6(10, 0xfe, 0xc0), "site-local", "RFC 3879"},
    {V6(8, 0xff), "multicast", "RFC 4291"},
    {V6(3, 0x00), "not global unicast", "RFC 4291"},
    {V6(2, 0x40), "not global unicast", "RFC 4291"},
    {V6(1, 0x80), "not global unicast", "RFC 4291"},
};
static const struct relay_special isatap = {{{0}, 0}, "ISATAP", "RFC 5214"};
static const struct relay_special no_address = {{{0}, 0}, "no address", "RFC 4291"};

static size_t byte_count(uint8_t family)
{
    return family == 4 ? 4 : family == 6 ? 16 : 0;
}

int relay_address_parse(const char *text, size_t len, struct relay_address *address)
{
    char copy[RELAY_ADDRESS_TEXT_SIZE];
    if (len == 0 || len >= sizeof(copy) || memchr(text, '\0', len) != NULL)
        return RELAY_ERR_INVALID;
    memcpy(copy, text, len);
    copy[len] = '\0';

    struct relay_address parsed = {0};
    parsed.family = memchr(copy, ':', len) != NULL ? 6 : 4;
    if (inet_pton(parsed.family == 6 ? AF_INET6 : AF_INET, copy, parsed.bytes) != 1)
        return RELAY_ERR_INVALID;
    *address = parsed;
    return 0;
}

const char *relay_address_print(const struct relay_address *address, char text[RELAY_ADDRESS_TEXT_SIZE])
{
    text[0] = '\0';
    if (address->family != 0)
        inet_ntop(address->family == 4 ? AF_INET : AF_INET6, address->bytes, text, RELAY_ADDRESS_TEXT_SIZE);
    return text;
}

bool relay_address_equal(const struct relay_address *a, const struct relay_address *b)
{
    return a->family == b->family && memcmp(a->bytes, b->bytes, byte_count(a->family)) == 0;
}

int relay_address_from_sockaddr(struct relay_address *address, uint16_t *port,
                                const struct sockaddr_storage *sockaddr)
{
    uint16_t network_port;
    *address = (struct relay_address){0};
    if (sockaddr->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)sockaddr;
        address->family = 4;
        memcpy(address->bytes, &in->sin_addr, 4);
        network_port = in->sin_port;
    } else if (sockaddr->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)sockaddr;
        address->family = 6;
        memcpy(address->bytes, &in6->sin6_addr, 16);
        network_port = in6->sin6_port;
    } else {
        return RELAY_ERR_INVALID;
    }
    if (port != NULL)
        *port = ntohs(network_port);
    return 0;
}

socklen_t relay_address_to_sockaddr(const struct relay_address *address, uint16_t port,
                                    struct sockaddr_storage *sockaddr)
{
    memset(sockaddr, 0, sizeof(*sockaddr));
    if (address->family == 4) {
        struct sockaddr_in *in = (struct sockaddr_in *)sockaddr;
        in->sin_family = AF_INET;
        in->sin_port = htons(port);
        memcpy(&in->sin_addr, address->bytes, 4);
        return sizeof(*in);
    }
    if (address->family == 6) {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)sockaddr;
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(port);
        memcpy(&in6->sin6_addr, address->bytes, 16);
        return sizeof(*in6);
    }
    return 0;
}

static struct relay_address inner_v4(const struct relay_address *address)
{
    struct relay_address v4 = {.family = 4};
    memcpy(v4.bytes, address->bytes + 12, 4);
    return v4;
}

void relay_address_unwrap(const struct relay_address *address, struct relay_address *judged,
                          struct relay_address *dialled)
{
    const struct relay_address original = *address;
    const bool is_mapped = relay_prefix_contains(&mapped, &original);
    const bool is_wrapped = is_mapped || relay_prefix_contains(&nat64, &original);
    if (judged != NULL)
        *judged = is_wrapped ? inner_v4(&original) : original;
    if (dialled != NULL)
        *dialled = is_mapped ? inner_v4(&original) : original;
}

/* The interface identifier of RFC 5214 section 6.1, with either value of the universal bit, under any prefix.
 */
static bool is_isatap(const struct relay_address *address)
{
    return address->family == 6 && (address->bytes[8] & ~0x02) == 0 && address->bytes[9] == 0 &&
           address->bytes[10] == 0x5e && address->bytes[11] == 0xfe;
}

const struct relay_special *relay_address_special(const struct relay_address *address)
{
    struct relay_address judged;
    relay_address_unwrap(address, &judged, NULL);
    if (byte_count(judged.family) == 0)
        return &no_address;
    for (size_t i = 0; i < sizeof(specials) / sizeof(specials[0]); i++)
        if (relay_prefix_contains(&specials[i].prefix, &judged))
            return &specials[i];
    return is_isatap(&judged) ? &isatap : NULL;
}

bool relay_address_is_special(const struct relay_address *address)
{
    return relay_address_special(address) != NULL;
}

static void clear_host_bits(struct relay_prefix *prefix)
{
    for (size_t i = 0; i < sizeof(prefix->address.bytes); i++) {
        if (i * 8 >= prefix->length)
            prefix->address.bytes[i] = 0;
        else if (prefix->length - i * 8 < 8)
            prefix->address.bytes[i] &= (uint8_t)(0xff00 >> (prefix->length - i * 8));
    }
}

/* "0" to "128" without sign, space or leading zero; -1 for anything else. */
static int parse_prefix_length(const char *text, size_t len, int maximum)
{
    if (len == 0 || len > 3 || (text[0] == '0' && len > 1))
        return -1;
    int value = 0;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -1;
        value = value * 10 + (text[i] - '0');
    }
    return value <= maximum ? value : -1;
}

int relay_prefix_parse(const char *text, size_t len, struct relay_prefix *prefix)
{
    const char *slash = len > 0 ? memchr(text, '/', len) : NULL;
    const size_t address_len = slash != NULL ? (size_t)(slash - text) : len;
    struct relay_prefix parsed;
    if (relay_address_parse(text, address_len, &parsed.address) != 0)
        return RELAY_ERR_INVALID;

    int length = parsed.address.family == 4 ? 32 : 128;
    if (slash != NULL)
        length = parse_prefix_length(slash + 1, len - address_len - 1, length);
    if (length < 0)
        return RELAY_ERR_INVALID;
    parsed.length = (uint8_t)length;

    struct relay_prefix cleared = parsed;
    clear_host_bits(&cleared);
    if (!relay_prefix_equal(&cleared, &parsed))
        return RELAY_ERR_INVALID;
    *prefix = parsed;
    return 0;
}

const char *relay_prefix_print(const struct relay_prefix *prefix, char text[RELAY_PREFIX_TEXT_SIZE])
{
    char address[RELAY_ADDRESS_TEXT_SIZE];
    snprintf(text, RELAY_PREFIX_TEXT_SIZE, "%s/%u", relay_address_print(&prefix->address, address),
             prefix->length);
    return text;
}

bool relay_prefix_contains(const struct relay_prefix *prefix, const struct relay_address *address)
{
    if (prefix->address.family != address->family || address->family == 0)
        return false;
    const size_t whole = prefix->length / 8;
    const unsigned rest = prefix->length % 8;
    if (memcmp(prefix->address.bytes, address->bytes, whole) != 0)
        return false;
    return rest == 0 || ((prefix->address.bytes[whole] ^ address->bytes[whole]) >> (8 - rest)) == 0;
}

struct relay_prefix relay_prefix_of(const struct relay_address *address, uint8_t v4_length, uint8_t v6_length)
{
    struct relay_prefix prefix = {.address = *address};
    if (relay_prefix_contains(&mapped, address))
        prefix.address = inner_v4(address);
    const uint8_t wanted = prefix.address.family == 4 ? v4_length : v6_length;
    const uint8_t longest = (uint8_t)(byte_count(prefix.address.family) * 8);
    prefix.length = wanted < longest ? wanted : longest;
    clear_host_bits(&prefix);
    return prefix;
}

bool relay_prefix_equal(const struct relay_prefix *a, const struct relay_prefix *b)
{
    return a->length == b->length && relay_address_equal(&a->address, &b->address);
}

static uint64_t mix(uint64_t value)
{
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
    return value ^ (value >> 31);
}

uint64_t relay_prefix_hash(const struct relay_prefix *prefix, uint64_t seed)
{
    uint64_t halves[2];
    memcpy(halves, prefix->address.bytes, sizeof(halves));
    uint64_t hash = mix(seed ^ ((uint64_t)prefix->address.family << 8 | prefix->length));
    hash = mix(hash ^ halves[0]);
    return mix(hash ^ mix(seed ^ halves[1]));
}

int relay_prefix_set_add(struct relay_prefix_set *set, const struct relay_prefix *prefix)
{
    for (size_t i = 0; i < set->count; i++)
        if (relay_prefix_equal(&set->prefixes[i], prefix))
            return 0;
    if (set->count == set->capacity) {
        const size_t capacity = set->capacity > 0 ? set->capacity * 2 : 8;
        struct relay_prefix *grown = reallocarray(set->prefixes, capacity, sizeof(*grown));
        if (grown == NULL)
            return RELAY_ERR_NO_MEMORY;
        set->prefixes = grown;
        set->capacity = capacity;
    }
    set->prefixes[set->count++] = *prefix;
    return 0;
}

bool relay_prefix_set_contains(const struct relay_prefix_set *set, const struct relay_address *address)
{
    struct relay_address plain = *address;
    if (relay_prefix_contains(&mapped, address))
        plain = inner_v4(address);
    for (size_t i = 0; i < set->count; i++)
        if (relay_prefix_contains(&set->prefixes[i], &plain))
            return true;
    return false;
}

void relay_prefix_set_dispose(struct relay_prefix_set *set)
{
    free(set->prefixes);
    *set = (struct relay_prefix_set){0};
}
