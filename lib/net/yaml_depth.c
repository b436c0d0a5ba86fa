#include "lib/net/yaml_depth.h"

#include <yaml.h>

/* +1 where something opens, -1 where it ends. */
static int step(yaml_event_type_t type)
{
    switch (type) {
    case YAML_MAPPING_START_EVENT:
    case YAML_SEQUENCE_START_EVENT:
        return 1;
    case YAML_MAPPING_END_EVENT:
    case YAML_SEQUENCE_END_EVENT:
        return -1;
    default:
        return 0;
    }
}

bool relay_yaml_is_too_deep(const char *bytes, size_t len, size_t *line, size_t *column)
{
    yaml_parser_t parser;
    int depth = 0;
    if (!yaml_parser_initialize(&parser))
        return false;
    yaml_parser_set_input_string(&parser, (const unsigned char *)bytes, len);
    for (bool is_end = false; !is_end && depth <= RELAY_YAML_DEPTH_MAX;) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event))
            break;
        depth += step(event.type);
        is_end = event.type == YAML_STREAM_END_EVENT;
        *line = event.start_mark.line;
        *column = event.start_mark.column;
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return depth > RELAY_YAML_DEPTH_MAX;
}
