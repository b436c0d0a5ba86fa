#include "lib/net/address_order.h"

#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SORTED_MAX 64

/* RFC 6724 section 2.1; the longest prefix stands first. */
static const struct {
    uint8_t prefix[16];
    uint8_t length, precedence, label;
} policy[] = {
    {{[15] = 1}, 128, 50, 0},                /* ::1 */
    {{[10] = 0xff, [11] = 0xff}, 96, 35, 4}, /* IPv4 */
    {{0}, 96, 1, 3},                         /* ::a.b.c.d */
    {{0x20, 0x01, 0, 0}, 32, 5, 5},          /* Teredo */
    {{0x20, 0x02}, 16, 30, 2},               /* 6to4 */
    {{0x3f, 0xfe}, 16, 1, 12},               /* 6bone */
    {{0xfe, 0xc0}, 10, 1, 11},               /* site-local */
    {{0xfc}, 7, 3, 13},                      /* unique local */
    {{0}, 0, 40, 1},
};

struct rank {
    struct relay_address address;
    bool routed, scope_matches, label_matches;
    uint8_t precedence, scope;
};

static void as_ipv6(const struct relay_address *address, uint8_t bytes[16])
{
    if (address->family == 6) {
        memcpy(bytes, address->bytes, 16);
    } else {
        memset(bytes, 0, 16);
        bytes[10] = bytes[11] = 0xff;
        memcpy(bytes + 12, address->bytes, 4);
    }
}

static bool is_within(const uint8_t bytes[16], const uint8_t prefix[16], uint8_t length)
{
    size_t whole = length / 8, bits = length % 8;
    return memcmp(bytes, prefix, whole) == 0 &&
           (bits == 0 || (bytes[whole] ^ prefix[whole]) >> (8 - bits) == 0);
}

static size_t policy_of(const struct relay_address *address)
{
    uint8_t bytes[16];
    as_ipv6(address, bytes);
    size_t i = 0;
    while (!is_within(bytes, policy[i].prefix, policy[i].length))
        i++;
    return i;
}

/* RFC 6724 section 3.1: 2 link-local, 5 site-local, 14 global; loopback and 169.254/16 count as link-local.
 */
static uint8_t scope_of(const struct relay_address *address)
{
    const uint8_t *b = address->bytes;
    if (address->family == 4)
        return b[0] == 127 || (b[0] == 169 && b[1] == 254) ? 2 : 14;
    if (b[0] == 0xff)
        return b[1] & 0x0f;
    if ((b[0] == 0xfe && (b[1] & 0xc0) == 0x80) || policy_of(address) == 0)
        return 2;
    return b[0] == 0xfe && (b[1] & 0xc0) == 0xc0 ? 5 : 14;
}

/* The source that the kernel would choose. The socket is disconnected after, or its source would stick. */
static bool find_source(int fd, const struct relay_address *address, struct relay_address *source)
{
    struct sockaddr_storage to;
    socklen_t len = relay_address_to_sockaddr(address, 9, &to);
    bool found = len > 0 && connect(fd, (struct sockaddr *)&to, len) == 0;
    if (found) {
        struct sockaddr_storage from;
        len = sizeof(from);
        found = getsockname(fd, (struct sockaddr *)&from, &len) == 0 &&
                relay_address_from_sockaddr(source, NULL, &from) == 0;
    }
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    (void)!connect(fd, &none, sizeof(none));
    return found;
}

static void rank_one(struct rank *rank, const struct relay_address *address, int fd)
{
    struct relay_address source;
    *rank = (struct rank){
        .address = *address, .precedence = policy[policy_of(address)].precedence, .scope = scope_of(address)};
    if (fd < 0 || !find_source(fd, address, &source))
        return;
    rank->routed = true;
    rank->scope_matches = scope_of(&source) == rank->scope;
    rank->label_matches = policy[policy_of(&source)].label == policy[policy_of(address)].label;
}

static bool comes_before(const struct rank *a, const struct rank *b)
{
    if (a->routed != b->routed)
        return a->routed;
    if (a->scope_matches != b->scope_matches)
        return a->scope_matches;
    if (a->label_matches != b->label_matches)
        return a->label_matches;
    if (a->precedence != b->precedence)
        return a->precedence > b->precedence;
    return a->scope < b->scope;
}

void relay_address_order(struct relay_address *addresses, size_t num)
{
    struct rank ranks[SORTED_MAX];
    if (num < 2)
        return;
    num = num < SORTED_MAX ? num : SORTED_MAX;
    int fd4 = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int fd6 = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    for (size_t i = 0; i < num; i++) {
        struct rank rank;
        rank_one(&rank, &addresses[i], addresses[i].family == 6 ? fd6 : fd4);
        size_t at = i;
        for (; at > 0 && comes_before(&rank, &ranks[at - 1]); at--)
            ranks[at] = ranks[at - 1];
        ranks[at] = rank;
    }
    for (size_t i = 0; i < num; i++)
        addresses[i] = ranks[i].address;
    if (fd4 >= 0)
        close(fd4);
    if (fd6 >= 0)
        close(fd6);
}

void relay_address_interleave(struct relay_address *addresses, size_t num)
{
    for (size_t i = 1; i < num; i++) {
        size_t k = i;
        while (k < num && addresses[k].family == addresses[i - 1].family)
            k++;
        if (k == num) /* the rest is of one family */
            return;
        struct relay_address next = addresses[k];
        memmove(&addresses[i + 1], &addresses[i], (k - i) * sizeof(next));
        addresses[i] = next;
    }
}
