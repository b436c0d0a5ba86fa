#include <stdlib.h>
#include <string.h>

#include "lib/wire/token_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct relay_token_file file;
    struct relay_token_file_error error;
    if (relay_token_file_parse(&file, (const char *)data, size, &error) != 0 &&
        (error.line == 0 || error.column == 0 || error.expected == NULL || file.entries != NULL))
        abort();
    for (size_t i = 0; i < file.count; i++) {
        const size_t len = strlen(file.entries[i].name);
        if (len == 0 || len > RELAY_TOKEN_NAME_MAX || file.entries[i].expires < 0)
            abort();
    }
    relay_token_file_dispose(&file);
    return 0;
}
