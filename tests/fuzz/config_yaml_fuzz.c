#include <stdlib.h>
#include <string.h>

#include "lib/wire/error.h"
#include "server/config_yaml.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

/* Every node of the tree can be reached and read; the limit of values bounds this walk. */
static size_t walk(const yoml_t *node)
{
    size_t count = 1;
    if (node->filename == NULL)
        abort();
    if (node->type == YOML_TYPE_SCALAR)
        return count + strlen(node->data.scalar) / 1000000;
    if (node->type == YOML_TYPE_SEQUENCE)
        for (size_t i = 0; i < node->data.sequence.size; i++)
            count += walk(node->data.sequence.elements[i]);
    else
        for (size_t i = 0; i < node->data.mapping.size; i++)
            count += walk(node->data.mapping.elements[i].key) + walk(node->data.mapping.elements[i].value);
    return count;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct relay_yaml yaml;
    char why[256] = "";
    if (relay_yaml_parse(&yaml, "f", (const char *)data, size, why, sizeof(why)) == 0) {
        if (walk(yaml.root) > RELAY_YAML_NODES_MAX || relay_yaml_get(yaml.root, "role") == yaml.root)
            abort();
    } else if (strncmp(why, "f:", 2) != 0) {
        abort();
    }
    relay_yaml_dispose(&yaml);
    return 0;
}
