#include "lib/wire/socks5.h"

#include <string.h>

#include "lib/wire/error.h"

#define VERSION   5
#define VERSION4  4
#define REJECTED4 91 /* of a SOCKS4 reply, behind a version of 0 */
enum address_type { TYPE_IPV4 = 1, TYPE_NAME = 3, TYPE_IPV6 = 4 };

int relay_socks5_read_greeting(const uint8_t *bytes, size_t len, bool *offers_no_password)
{
    if (len >= 1 && bytes[0] != VERSION)
        return bytes[0] == VERSION4 ? RELAY_ERR_UNSUPPORTED : RELAY_ERR_INVALID;
    if (len < 2 || len < 2u + bytes[1])
        return RELAY_ERR_INCOMPLETE;
    *offers_no_password = memchr(bytes + 2, 0, bytes[1]) != NULL;
    return 2 + bytes[1];
}

void relay_socks5_write_method(uint8_t out[2], bool accepted)
{
    out[0] = VERSION;
    out[1] = accepted ? 0 : 0xff;
}

void relay_socks5_refuse_version4(uint8_t out[RELAY_SOCKS4_REPLY_SIZE])
{
    memset(out, 0, RELAY_SOCKS4_REPLY_SIZE);
    out[1] = REJECTED4;
}

/* Address type, address and port at `bytes`; returns their length. Port 0 and a name that is none are left to
 * the caller: *host_error. */
static int read_address(const uint8_t *bytes, size_t len, struct relay_host *host, uint16_t *port,
                        int *host_error)
{
    struct relay_address address = {0};
    char text[RELAY_ADDRESS_TEXT_SIZE];
    if (len < 2)
        return RELAY_ERR_INCOMPLETE;
    size_t at = 1, size;
    switch (bytes[0]) {
    case TYPE_IPV4:
        size = 4;
        break;
    case TYPE_IPV6:
        size = 16;
        break;
    case TYPE_NAME:
        size = bytes[1];
        at = 2;
        break;
    default:
        return RELAY_ERR_UNSUPPORTED;
    }
    if (len < at + size + 2)
        return RELAY_ERR_INCOMPLETE;
    if (bytes[0] == TYPE_NAME) {
        *host_error = relay_host_parse(host, (const char *)bytes + at, size, RELAY_HOST_BARE);
    } else {
        address.family = size == 4 ? 4 : 6;
        memcpy(address.bytes, bytes + at, size);
        relay_address_print(&address, text);
        *host_error = relay_host_parse(host, text, strlen(text), RELAY_HOST_BARE);
    }
    *port = (uint16_t)(bytes[at + size] << 8 | bytes[at + size + 1]);
    return (int)(at + size + 2);
}

static bool is_unspecified(const struct relay_host *host)
{
    static const uint8_t zero[16];
    return host->kind != RELAY_HOST_NAME && memcmp(host->address, zero, sizeof(zero)) == 0;
}

int relay_socks5_read_request(const uint8_t *bytes, size_t len, struct relay_socks5_request *request)
{
    memset(request, 0, sizeof(*request));
    if ((len >= 1 && bytes[0] != VERSION) || (len >= 3 && bytes[2] != 0))
        return RELAY_ERR_INVALID;
    if (len < 4)
        return RELAY_ERR_INCOMPLETE;
    int host_error = 0;
    int used = read_address(bytes + 3, len - 3, &request->host, &request->port, &host_error);
    if (used < 0)
        return used;
    request->command = bytes[1];
    request->has_target = host_error == 0 && request->port != 0 && !is_unspecified(&request->host);
    /* A client that does not know its address yet says so to UDP ASSOCIATE, with zeros or an empty name. */
    if (!request->has_target && request->command == RELAY_SOCKS5_CONNECT)
        return RELAY_ERR_INVALID;
    return used + 3;
}

static uint8_t *write_address(uint8_t *p, const struct relay_address *address, uint16_t port)
{
    size_t size = address->family == 6 ? 16 : 4;
    *p++ = address->family == 6 ? TYPE_IPV6 : TYPE_IPV4;
    memcpy(p, address->bytes, size);
    p += size;
    *p++ = (uint8_t)(port >> 8);
    *p++ = (uint8_t)port;
    return p;
}

size_t relay_socks5_write_reply(uint8_t out[RELAY_SOCKS5_REPLY_MAX], enum relay_socks5_reply reply,
                                const struct relay_address *bound, uint16_t port)
{
    static const struct relay_address none = {.family = 4};
    out[0] = VERSION;
    out[1] = (uint8_t)reply;
    out[2] = 0;
    return (size_t)(write_address(out + 3, bound != NULL ? bound : &none, port) - out);
}

enum relay_socks5_reply relay_socks5_reply_of(int error)
{
    switch (error) {
    case RELAY_OK:
        return RELAY_SOCKS5_SUCCEEDED;
    case RELAY_ERR_DENIED:
    case RELAY_ERR_ADDRESS_PROHIBITED:
    case RELAY_ERR_UNAUTHORIZED:
    case RELAY_ERR_TOO_MANY_FAILURES:
        return RELAY_SOCKS5_NOT_ALLOWED;
    case RELAY_ERR_DNS:
    case RELAY_ERR_DNS_TIMEOUT:
    case RELAY_ERR_TIMEOUT:
        return RELAY_SOCKS5_HOST_UNREACHABLE;
    case RELAY_ERR_UNREACHABLE:
        return RELAY_SOCKS5_NETWORK_UNREACHABLE;
    case RELAY_ERR_REFUSED:
        return RELAY_SOCKS5_REFUSED;
    default:
        return RELAY_SOCKS5_FAILURE;
    }
}

int relay_socks5_read_datagram(const uint8_t *bytes, size_t len, struct relay_socks5_datagram *datagram)
{
    memset(datagram, 0, sizeof(*datagram));
    if (len < 4 || bytes[0] != 0 || bytes[1] != 0)
        return RELAY_ERR_INVALID;
    datagram->fragment = bytes[2];
    int host_error = 0;
    int used = read_address(bytes + 3, len - 3, &datagram->host, &datagram->port, &host_error);
    if (used < 0)
        return used == RELAY_ERR_INCOMPLETE ? RELAY_ERR_INVALID : used;
    if (host_error != 0 || datagram->port == 0)
        return RELAY_ERR_INVALID;
    return used + 3;
}

size_t relay_socks5_write_datagram(uint8_t out[RELAY_SOCKS5_UDP_HEAD_MAX], const struct relay_host *host,
                                   uint16_t port)
{
    memset(out, 0, 3);
    uint8_t *p = out + 3;
    if (host->kind != RELAY_HOST_NAME) {
        struct relay_address address = {.family = host->kind == RELAY_HOST_IPV6 ? 6 : 4};
        memcpy(address.bytes, host->address, address.family == 6 ? 16 : 4);
        return (size_t)(write_address(p, &address, port) - out);
    }
    size_t len = strlen(host->name);
    *p++ = TYPE_NAME;
    *p++ = (uint8_t)len;
    memcpy(p, host->name, len);
    p += len;
    *p++ = (uint8_t)(port >> 8);
    *p++ = (uint8_t)port;
    return (size_t)(p - out);
}
