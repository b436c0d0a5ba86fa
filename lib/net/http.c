#include "lib/net/http.h"

struct relay_slice relay_fields_find(const struct relay_field *fields, size_t num_fields, const char *name,
                                     size_t *count)
{
    struct relay_slice first = RELAY_SLICE_NONE;
    size_t found = 0;
    for (size_t i = 0; i < num_fields; i++) {
        if (!relay_slice_is(fields[i].name, name))
            continue;
        if (found++ == 0)
            first = fields[i].value;
    }
    if (count != NULL)
        *count = found;
    return first;
}
