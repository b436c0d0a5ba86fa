/* Input: a template, a newline, a path. A path that matches is what the template expands to, up to the
 * spelling of escapes, case and the trailing dot; so the expansion matches again and means the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/wire/uri_template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expand_and_match(const struct relay_uri_template *t, const struct relay_host *host, uint16_t port)
{
    char buffer[2048];
    struct relay_host again;
    uint16_t port_again;
    int len = relay_uri_template_expand(t, host, port, buffer, sizeof(buffer));
    if (len <= 0 || relay_uri_template_match(t, buffer, (size_t)len, &again, &port_again) != 0 ||
        memcmp(host, &again, sizeof(again)) != 0 || port != port_again)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *newline = memchr(data, '\n', size);
    size_t text_len = newline != NULL ? (size_t)(newline - data) : size;
    char *text = malloc(text_len + 1);
    memcpy(text, data, text_len);
    text[text_len] = '\0';
    struct relay_uri_template t;
    struct relay_uri_template_fault fault = {0};
    int rv = relay_uri_template_parse(&t, text, &fault);
    if (rv != 0 && (fault.message == NULL || fault.position > strlen(text)))
        abort();
    struct relay_host host;
    uint16_t port;
    if (rv == 0) {
        if (relay_host_parse(&host, "2001:db8::1", 11, RELAY_HOST_BARE) != 0)
            abort();
        expand_and_match(&t, &host, 443);
    }
    if (rv == 0 && newline != NULL) {
        const char *path = (const char *)newline + 1;
        if (relay_uri_template_match(&t, path, size - text_len - 1, &host, &port) == 0)
            expand_and_match(&t, &host, port);
    }
    free(text);
    return 0;
}
