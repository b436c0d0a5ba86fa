/* What is valid for HTTP/2 is valid for HTTP/1.1, and nothing valid holds a byte that could split a message.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/wire/field.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool valid, const char *text, size_t size, const char *forbidden, size_t count)
{
    for (size_t i = 0; valid && i < count; i++)
        if (memchr(text, forbidden[i], size) != NULL)
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    bool name = relay_field_name_valid(text, size, RELAY_FIELD_HTTP1);
    bool value = relay_field_value_valid(text, size, RELAY_FIELD_HTTP1);
    if ((relay_field_name_valid(text, size, RELAY_FIELD_HTTP2) && !name) ||
        (relay_field_value_valid(text, size, RELAY_FIELD_HTTP2) && !value) ||
        (relay_field_is_connection_specific(text, size) && !name) ||
        (relay_field_te_valid(text, size) && !value) || (relay_field_boolean(text, size) && !value))
        abort();
    check(name || relay_field_method_valid(text, size), text, size, "\0\r\n\t :,", 7);
    check(relay_field_scheme_valid(text, size), text, size, "\0\r\n :/", 6);
    check(relay_field_path_valid(text, size), text, size, "\0\r\n\t #", 6);
    check(value, text, size, "\0\r\n", 3);
    return 0;
}
