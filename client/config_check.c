#include "client/config.h"

#include <stdio.h>
#include <string.h>

#include "lib/wire/address.h"
#include "lib/wire/error.h"

/* Where a front listens. */
struct local {
    const char *name; /* of its key */
    const struct sockaddr_storage *address;
    bool is_udp;
};

static bool is_wildcard(const struct relay_address *address)
{
    return memcmp(address->bytes, (const uint8_t[sizeof(address->bytes)]){0}, sizeof(address->bytes)) == 0;
}

/* Whether the kernel refuses the second one. Port 0 is another one each time. */
static bool is_taken(const struct local *one, const struct local *two)
{
    struct relay_address a, b;
    uint16_t port_a, port_b;
    if (one->is_udp != two->is_udp || one->address->ss_family == AF_UNSPEC ||
        one->address->ss_family != two->address->ss_family)
        return false;
    relay_address_from_sockaddr(&a, &port_a, one->address);
    relay_address_from_sockaddr(&b, &port_b, two->address);
    return port_a == port_b && port_a != 0 &&
           (relay_address_equal(&a, &b) || is_wildcard(&a) || is_wildcard(&b));
}

static int refuse_taken(struct relay_client_config *config, const struct local *one, const struct local *two)
{
    char text[RELAY_ADDRESS_TEXT_SIZE];
    struct relay_address address;
    uint16_t port;
    relay_address_from_sockaddr(&address, &port, two->address);
    snprintf(config->error, sizeof(config->error),
             "%s and %s: expected each on an address of its own, not both on %s port %u", one->name,
             two->name, relay_address_print(&address, text), port);
    return RELAY_ERR_INVALID;
}

static int check_fronts(struct relay_client_config *config)
{
    struct local locals[2 + RELAY_FORWARDS_MAX] = {{"http-proxy", &config->http_proxy, false},
                                                   {"socks", &config->socks, false}};
    size_t num_locals = 2;
    for (size_t i = 0; i < config->num_forwards; i++)
        locals[num_locals++] =
            (struct local){"forward", &config->forwards[i].local, config->forwards[i].is_udp};
    for (size_t i = 0; i < num_locals; i++)
        for (size_t k = 0; k < i; k++)
            if (is_taken(&locals[k], &locals[i]))
                return refuse_taken(config, &locals[k], &locals[i]);
    return 0;
}

int relay_client_config_check(struct relay_client_config *config, bool needs_front)
{
    const char *missing = NULL;
    if (config->num_hops == 0)
        missing = "no hop: give `chain:` in the file or --hop URL";
    else if (needs_front && config->http_proxy.ss_family == AF_UNSPEC &&
             config->socks.ss_family == AF_UNSPEC && config->num_forwards == 0)
        missing = "no front: give at least one of http-proxy, socks and forward";
    if (missing == NULL)
        return needs_front ? check_fronts(config) : 0;
    snprintf(config->error, sizeof(config->error), "%s", missing);
    return RELAY_ERR_INVALID;
}
