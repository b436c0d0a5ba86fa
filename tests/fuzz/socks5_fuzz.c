/* SOCKS5: what is read from arbitrary bytes stays within them, and a datagram's head is written as it was
 * read. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/wire/error.h"
#include "lib/wire/socks5.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bool offers;
    struct relay_socks5_request request;
    struct relay_socks5_datagram datagram, again;
    int used = relay_socks5_read_greeting(data, size, &offers);
    require(used < 0 || (size_t)used <= size);
    require(used != RELAY_ERR_INCOMPLETE || size < RELAY_SOCKS5_MESSAGE_MAX);
    used = relay_socks5_read_request(data, size, &request);
    require(used < 0 || (size_t)used <= size);
    require(used != RELAY_ERR_INCOMPLETE || size < RELAY_SOCKS5_MESSAGE_MAX);
    used = relay_socks5_read_datagram(data, size, &datagram);
    require(used != RELAY_ERR_INCOMPLETE && (used < 0 || (size_t)used <= size));
    if (used > 0) {
        uint8_t head[RELAY_SOCKS5_UDP_HEAD_MAX];
        size_t len = relay_socks5_write_datagram(head, &datagram.host, datagram.port);
        require(relay_socks5_read_datagram(head, len, &again) == (int)len && again.port == datagram.port);
        require(strcmp(again.host.name, datagram.host.name) == 0);
    }
    return 0;
}
