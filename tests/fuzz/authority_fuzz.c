/* An authority that is accepted is written in one form, which is accepted again and means the same. */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/wire/authority.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_host(const struct relay_host *host)
{
    struct in_addr legacy;
    size_t len = strlen(host->name);
    if (len == 0 || len > 253 || host->name[len - 1] == '.' || strpbrk(host->name, "%[]@/ {}") != NULL)
        abort();
    /* No name may be an address to a resolver that knows the old spellings. */
    if (host->kind == RELAY_HOST_NAME && inet_aton(host->name, &legacy) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct relay_host host, again;
    uint16_t port, port_again;
    const char *text = (const char *)data;
    if (relay_host_parse(&host, text, size, RELAY_HOST_BARE) == 0) {
        check_host(&host);
        if (relay_host_parse(&again, host.name, strlen(host.name), RELAY_HOST_BARE) != 0 ||
            memcmp(&host, &again, sizeof(host)) != 0)
            abort();
    }
    int strict = relay_authority_parse(&host, &port, text, size);
    int lenient = relay_authority_parse_default(&host, &port, text, size, 443);
    if (strict == 0 && lenient != 0)
        abort();
    if (lenient != 0)
        return 0;
    char buffer[RELAY_AUTHORITY_SIZE];
    check_host(&host);
    int len = relay_authority_write(&host, port, buffer, sizeof(buffer));
    if (len <= 0 || port == 0 || relay_authority_parse(&again, &port_again, buffer, (size_t)len) != 0 ||
        memcmp(&host, &again, sizeof(host)) != 0 || port != port_again)
        abort();
    return 0;
}
