#include "lib/wire/authority.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "lib/wire/error.h"

#define NAME_MAX_LENGTH  253 /* RFC 1035 section 2.3.4, without the root's dot */
#define LABEL_MAX_LENGTH 63

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_hex(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static int parse_ipv6(struct relay_host *host, const char *text, size_t len)
{
    char copy[INET6_ADDRSTRLEN];
    if (len >= sizeof(copy))
        return RELAY_ERR_INVALID;
    for (size_t i = 0; i < len; i++) {
        if (!is_hex(text[i]) && text[i] != ':' && text[i] != '.')
            return RELAY_ERR_INVALID;
        copy[i] = text[i];
    }
    copy[len] = '\0';
    if (inet_pton(AF_INET6, copy, host->address) != 1)
        return RELAY_ERR_INVALID;
    host->kind = RELAY_HOST_IPV6;
    inet_ntop(AF_INET6, host->address, host->name, sizeof(host->name));
    return 0;
}

/* Copies a name in lower case and returns where its last label begins, or NULL. */
static const char *copy_name(char *name, const char *text, size_t len)
{
    const char *label = name;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (c >= 'A' && c <= 'Z')
            c = (char)(c - 'A' + 'a');
        if (c == '.') {
            if (label == name + i)
                return NULL;
            label = name + i + 1;
        } else if (!((c >= 'a' && c <= 'z') || is_digit(c) || c == '-' || c == '_')) {
            return NULL;
        }
        name[i] = c;
        if (name + i + 1 - label > LABEL_MAX_LENGTH)
            return NULL;
    }
    name[len] = '\0';
    return *label == '\0' ? NULL : label;
}

/* Whether some resolver could take a host with this last label for an IPv4 address. */
static bool is_number(const char *label)
{
    bool hexadecimal = label[0] == '0' && label[1] == 'x';
    const char *p = hexadecimal ? label + 2 : label;
    while (hexadecimal ? is_hex(*p) : is_digit(*p))
        p++;
    return *p == '\0';
}

static int parse_name(struct relay_host *host, const char *text, size_t len)
{
    if (len > 0 && text[len - 1] == '.')
        len--;
    if (len == 0 || len > NAME_MAX_LENGTH)
        return RELAY_ERR_INVALID;
    const char *last = copy_name(host->name, text, len);
    if (last == NULL)
        return RELAY_ERR_INVALID;
    if (!is_number(last))
        return 0;
    if (inet_pton(AF_INET, host->name, host->address) != 1)
        return RELAY_ERR_INVALID;
    host->kind = RELAY_HOST_IPV4;
    return 0;
}

int relay_host_parse(struct relay_host *host, const char *text, size_t len, enum relay_host_form form)
{
    memset(host, 0, sizeof(*host));
    host->kind = RELAY_HOST_NAME;
    if (len == 0)
        return RELAY_ERR_INVALID;
    if (form == RELAY_HOST_BARE)
        return memchr(text, ':', len) != NULL ? parse_ipv6(host, text, len) : parse_name(host, text, len);
    if (text[0] != '[')
        return parse_name(host, text, len);
    if (len < 2 || text[len - 1] != ']')
        return RELAY_ERR_INVALID;
    return parse_ipv6(host, text + 1, len - 2);
}

int relay_port_parse(uint16_t *port, const char *text, size_t len)
{
    if (len == 0 || len > 5 || text[0] == '0')
        return RELAY_ERR_INVALID;
    uint32_t value = 0;
    for (size_t i = 0; i < len; i++) {
        if (!is_digit(text[i]))
            return RELAY_ERR_INVALID;
        value = value * 10 + (uint32_t)(text[i] - '0');
    }
    if (value > UINT16_MAX)
        return RELAY_ERR_INVALID;
    *port = (uint16_t)value;
    return 0;
}

/* The colon in front of the port, or NULL. Inside brackets colons are the address's. */
static const char *find_port(const char *text, size_t len)
{
    const char *from = text;
    if (len == 0)
        return NULL;
    if (text[0] == '[') {
        from = memchr(text, ']', len);
        if (from == NULL)
            return NULL;
    }
    return memchr(from, ':', len - (size_t)(from - text));
}

int relay_authority_parse(struct relay_host *host, uint16_t *port, const char *text, size_t len)
{
    const char *colon = find_port(text, len);
    if (colon == NULL)
        return RELAY_ERR_INVALID;
    size_t host_len = (size_t)(colon - text);
    int rv = relay_port_parse(port, colon + 1, len - host_len - 1);
    return rv != 0 ? rv : relay_host_parse(host, text, host_len, RELAY_HOST_BRACKETS);
}

int relay_authority_parse_default(struct relay_host *host, uint16_t *port, const char *text, size_t len,
                                  uint16_t default_port)
{
    if (find_port(text, len) != NULL)
        return relay_authority_parse(host, port, text, len);
    *port = default_port;
    return relay_host_parse(host, text, len, RELAY_HOST_BRACKETS);
}

int relay_authority_write(const struct relay_host *host, uint16_t port, char *buffer, size_t size)
{
    const char *format = host->kind == RELAY_HOST_IPV6 ? "[%s]:%u" : "%s:%u";
    int len = snprintf(buffer, size, format, host->name, port);
    return len < 0 || (size_t)len >= size ? RELAY_ERR_TOO_BIG : len;
}
