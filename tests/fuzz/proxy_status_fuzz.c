/* What is read is printable, and its name can be written again and read back. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/wire/error.h"
#include "lib/wire/proxy_status.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require_printable(const char *text)
{
    for (; *text != '\0'; text++)
        if (*text < ' ' || *text > '~')
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct relay_proxy_status status, again;
    const int error = relay_proxy_status_parse(&status, (const char *)data, size);
    require_printable(status.name);
    require_printable(status.error);
    require_printable(status.rcode);
    if (error != 0 || status.name[0] == '\0')
        return 0;

    char value[RELAY_PROXY_STATUS_SIZE];
    const int len = relay_proxy_status_write(value, sizeof(value), status.name, RELAY_ERR_DNS, 3);
    if (len <= 0 || (size_t)len != strlen(value))
        abort();
    if (relay_proxy_status_parse(&again, value, (size_t)len) != 0 || strcmp(again.name, status.name) != 0 ||
        strcmp(again.error, "dns_error") != 0 || strcmp(again.rcode, "NXDOMAIN") != 0)
        abort();
    return 0;
}
