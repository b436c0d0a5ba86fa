/* Every text that is parsed prints to a text that parses to the same value; special-purpose addresses stay
 * special in every wrapping. */
#include <stdlib.h>
#include <string.h>

#include "lib/wire/address.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void check_address(const struct relay_address *address)
{
    char text[RELAY_ADDRESS_TEXT_SIZE];
    struct relay_address again, judged, dialled;
    relay_address_print(address, text);
    require(relay_address_parse(text, strlen(text), &again) == 0 && relay_address_equal(address, &again));

    struct sockaddr_storage storage;
    require(relay_address_to_sockaddr(address, 1, &storage) > 0);
    require(relay_address_from_sockaddr(&again, NULL, &storage) == 0 && relay_address_equal(address, &again));

    relay_address_unwrap(address, &judged, &dialled);
    require(relay_address_is_special(address) == relay_address_is_special(&judged));
    require(relay_address_is_special(address) == relay_address_is_special(&dialled));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct relay_address address;
    if (relay_address_parse((const char *)data, size, &address) == 0)
        check_address(&address);

    struct relay_prefix prefix, again;
    if (relay_prefix_parse((const char *)data, size, &prefix) == 0) {
        char text[RELAY_PREFIX_TEXT_SIZE];
        relay_prefix_print(&prefix, text);
        require(relay_prefix_parse(text, strlen(text), &again) == 0 && relay_prefix_equal(&prefix, &again));
        require(relay_prefix_contains(&prefix, &prefix.address));
    }
    if (size == 16) {
        address.family = 6;
        memcpy(address.bytes, data, 16);
        check_address(&address);
    }
    return 0;
}
