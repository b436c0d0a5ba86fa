#include "server/config_yaml.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "lib/net/yaml_depth.h"
#include "lib/wire/error.h"

/* What is known of one node of libyaml's document while the tree is made. */
struct progress {
    yoml_t *made;
    size_t weight; /* nodes below and itself, each alias counted in full */
    bool is_open;  /* being made: an alias to it is a loop */
};

struct builder {
    struct relay_yaml *yaml;
    yaml_document_t *document;
    struct progress *progress; /* by the document's node index, from 1 */
    const char *bytes;         /* of the file */
    char *why;
    size_t why_size;
};

static int refuse(struct builder *builder, const yaml_mark_t *mark, int error, const char *what)
{
    snprintf(builder->why, builder->why_size, "%s:%zu:%zu: %s", builder->yaml->file, mark->line + 1,
             mark->column + 1, what);
    return error;
}

/* ---- memory ---- */

/* Zeroed memory that lives as long as the tree. NULL: none left. */
static void *allocate(struct relay_yaml *yaml, size_t size)
{
    if (yaml->num_blocks == yaml->capacity) {
        const size_t capacity = yaml->capacity == 0 ? 64 : 2 * yaml->capacity;
        void **blocks = realloc(yaml->blocks, capacity * sizeof(*blocks));
        if (blocks == NULL)
            return NULL;
        yaml->blocks = blocks;
        yaml->capacity = capacity;
    }
    void *block = calloc(1, size);
    if (block != NULL)
        yaml->blocks[yaml->num_blocks++] = block;
    return block;
}

void relay_yaml_dispose(struct relay_yaml *yaml)
{
    for (size_t i = 0; i < yaml->num_blocks; i++)
        free(yaml->blocks[i]);
    free(yaml->blocks);
    free(yaml->file);
    *yaml = (struct relay_yaml){0};
}

static yoml_t *new_node(struct builder *builder, yoml_type_t type, size_t extra, const yaml_mark_t *mark)
{
    yoml_t *node = allocate(builder->yaml, sizeof(*node) + extra);
    if (node == NULL)
        return NULL;
    node->type = type;
    node->filename = builder->yaml->file;
    node->line = mark->line;
    node->column = mark->column;
    node->_refcnt = 1;
    return node;
}

/* ---- from libyaml's document to the tree ---- */

static int build(struct builder *builder, int index, int depth);

static int build_scalar(struct builder *builder, const yaml_node_t *from, struct progress *progress)
{
    const char *text = (const char *)from->data.scalar.value;
    const size_t len = from->data.scalar.length;
    if (memchr(text, '\0', len) != NULL)
        return refuse(builder, &from->start_mark, RELAY_ERR_INVALID, "expected text without NUL");
    yoml_t *node = new_node(builder, YOML_TYPE_SCALAR, 0, &from->start_mark);
    if (node == NULL || (node->data.scalar = allocate(builder->yaml, len + 1)) == NULL)
        return refuse(builder, &from->start_mark, RELAY_ERR_NO_MEMORY, "out of memory");
    memcpy(node->data.scalar, text, len);
    progress->made = node;
    return 0;
}

static int build_sequence(struct builder *builder, const yaml_node_t *from, struct progress *progress,
                          int depth)
{
    const size_t size = (size_t)(from->data.sequence.items.top - from->data.sequence.items.start);
    yoml_t *node = new_node(builder, YOML_TYPE_SEQUENCE, size * sizeof(node), &from->start_mark);
    if (node == NULL)
        return refuse(builder, &from->start_mark, RELAY_ERR_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < size; i++) {
        const int item = from->data.sequence.items.start[i];
        const int error = build(builder, item, depth + 1);
        if (error != 0)
            return error;
        node->data.sequence.elements[node->data.sequence.size++] = builder->progress[item].made;
        progress->weight += builder->progress[item].weight;
    }
    progress->made = node;
    return 0;
}

yoml_t *relay_yaml_get(const yoml_t *mapping, const char *key)
{
    for (size_t i = 0; mapping->type == YOML_TYPE_MAPPING && i < mapping->data.mapping.size; i++) {
        const yoml_mapping_element_t *element = &mapping->data.mapping.elements[i];
        if (element->key->type == YOML_TYPE_SCALAR && strcmp(element->key->data.scalar, key) == 0)
            return element->value;
    }
    return NULL;
}

void relay_yaml_adopt(struct relay_yaml *yaml, const struct relay_yaml *from)
{
    /* Room for one more: sizeof(yoml_t) has one pair beyond those that build_mapping() counted. */
    yaml->root->data.mapping.elements[yaml->root->data.mapping.size++] = from->root->data.mapping.elements[0];
}

static bool is_merge_key(const yaml_node_t *key)
{
    return key->type == YAML_SCALAR_NODE && key->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           strcmp((const char *)key->data.scalar.value, "<<") == 0;
}

/* How many pairs a merge key's value brings at most; -1: it is neither a mapping nor a list of mappings. */
static long count_merged(const yoml_t *value)
{
    long count = 0;
    if (value->type == YOML_TYPE_MAPPING)
        return (long)value->data.mapping.size;
    for (size_t i = 0; value->type == YOML_TYPE_SEQUENCE && i < value->data.sequence.size; i++) {
        if (value->data.sequence.elements[i]->type != YOML_TYPE_MAPPING)
            return -1;
        count += (long)value->data.sequence.elements[i]->data.mapping.size;
    }
    return value->type == YOML_TYPE_SEQUENCE ? count : -1;
}

/* Adds the pairs of `from` (a mapping or a list of mappings) whose keys `into` does not have. */
static void merge(yoml_t *into, const yoml_t *from)
{
    for (size_t i = 0; from->type == YOML_TYPE_SEQUENCE && i < from->data.sequence.size; i++)
        merge(into, from->data.sequence.elements[i]);
    for (size_t i = 0; from->type == YOML_TYPE_MAPPING && i < from->data.mapping.size; i++) {
        const yoml_mapping_element_t *pair = &from->data.mapping.elements[i];
        if (pair->key->type == YOML_TYPE_SCALAR && relay_yaml_get(into, pair->key->data.scalar) == NULL)
            into->data.mapping.elements[into->data.mapping.size++] = *pair;
    }
}

/* Makes all children, so that the size of the mapping is known before it is allocated. */
static int build_pairs(struct builder *builder, const yaml_node_t *from, struct progress *progress,
                       size_t *size, int depth)
{
    for (yaml_node_pair_t *pair = from->data.mapping.pairs.start; pair < from->data.mapping.pairs.top;
         pair++) {
        int error = build(builder, pair->key, depth + 1);
        if (error == 0)
            error = build(builder, pair->value, depth + 1);
        if (error != 0)
            return error;
        long count = 1;
        if (is_merge_key(yaml_document_get_node(builder->document, pair->key)))
            count = count_merged(builder->progress[pair->value].made);
        if (count < 0)
            return refuse(builder, &yaml_document_get_node(builder->document, pair->value)->start_mark,
                          RELAY_ERR_INVALID, "expected a mapping, or a list of mappings, to merge");
        *size += (size_t)count;
        progress->weight += builder->progress[pair->key].weight + builder->progress[pair->value].weight;
    }
    return 0;
}

static int build_mapping(struct builder *builder, const yaml_node_t *from, struct progress *progress,
                         int depth)
{
    size_t size = 0;
    const int error = build_pairs(builder, from, progress, &size, depth);
    if (error != 0)
        return error;
    yoml_t *node =
        new_node(builder, YOML_TYPE_MAPPING, size * sizeof(yoml_mapping_element_t), &from->start_mark);
    if (node == NULL)
        return refuse(builder, &from->start_mark, RELAY_ERR_NO_MEMORY, "out of memory");
    /* The mapping's own keys first: they win over merged ones wherever `<<` stands. */
    for (int is_merging = 0; is_merging <= 1; is_merging++)
        for (yaml_node_pair_t *pair = from->data.mapping.pairs.start; pair < from->data.mapping.pairs.top;
             pair++) {
            if (is_merge_key(yaml_document_get_node(builder->document, pair->key)) != is_merging)
                continue;
            yoml_t *value = builder->progress[pair->value].made;
            if (is_merging)
                merge(node, value);
            else
                node->data.mapping.elements[node->data.mapping.size++] =
                    (yoml_mapping_element_t){builder->progress[pair->key].made, value};
        }
    progress->made = node;
    return 0;
}

static int build(struct builder *builder, int index, int depth)
{
    struct progress *progress = &builder->progress[index];
    const yaml_node_t *from = yaml_document_get_node(builder->document, index);
    if (progress->made != NULL)
        return 0;
    if (progress->is_open)
        return refuse(builder, &from->start_mark, RELAY_ERR_INVALID,
                      "expected no alias to a node inside itself");
    if (depth > RELAY_YAML_DEPTH_MAX)
        return refuse(builder, &from->start_mark, RELAY_ERR_TOO_BIG, "expected " RELAY_YAML_DEPTH_EXPECTED);
    progress->is_open = true;
    progress->weight = 1;
    int error = 0;
    if (from->type == YAML_SCALAR_NODE)
        error = build_scalar(builder, from, progress);
    else if (from->type == YAML_SEQUENCE_NODE)
        error = build_sequence(builder, from, progress, depth);
    else
        error = build_mapping(builder, from, progress, depth);
    if (error == 0 && progress->weight > RELAY_YAML_NODES_MAX)
        error = refuse(builder, &from->start_mark, RELAY_ERR_TOO_BIG,
                       "expected at most 100000 values, aliases counted in full");
    progress->is_open = false;
    return error;
}

/* ---- files ---- */

/* Where the byte stands that no UTF-8 has; the reader is ahead of the parser, whose mark says nothing then. */
static yaml_mark_t mark_of(const struct builder *builder, size_t offset)
{
    yaml_mark_t mark = {0};
    for (size_t i = 0; i < offset; i++) {
        const unsigned char byte = (unsigned char)builder->bytes[i];
        if (byte == '\n') {
            mark.line++;
            mark.column = 0;
        } else if ((byte & 0xc0) != 0x80) {
            mark.column++;
        }
    }
    return mark;
}

/* libyaml's own words, with what it was reading. */
static int refuse_syntax(struct builder *builder, const yaml_parser_t *parser)
{
    char what[256];
    if (parser->error == YAML_MEMORY_ERROR)
        return refuse(builder, &parser->mark, RELAY_ERR_NO_MEMORY, "out of memory");
    const yaml_mark_t mark =
        parser->error == YAML_READER_ERROR ? mark_of(builder, parser->problem_offset) : parser->problem_mark;
    snprintf(what, sizeof(what), "expected YAML: %s%s%s",
             parser->problem != NULL ? parser->problem : "malformed", parser->context != NULL ? " " : "",
             parser->context != NULL ? parser->context : "");
    return refuse(builder, &mark, RELAY_ERR_INVALID, what);
}

static int build_document(struct builder *builder, yaml_parser_t *parser)
{
    const size_t count = (size_t)(builder->document->nodes.top - builder->document->nodes.start);
    const yaml_node_t *root = yaml_document_get_root_node(builder->document);
    if (root == NULL || root->type != YAML_MAPPING_NODE)
        return refuse(builder, root != NULL ? &root->start_mark : &(yaml_mark_t){0}, RELAY_ERR_INVALID,
                      "expected a mapping of directives");
    if ((builder->progress = calloc(count + 1, sizeof(*builder->progress))) == NULL)
        return refuse(builder, &root->start_mark, RELAY_ERR_NO_MEMORY, "out of memory");
    int error = build(builder, 1, 1);
    builder->yaml->root = builder->progress[1].made;
    free(builder->progress);
    if (error != 0)
        return error;
    yaml_document_t next;
    if (!yaml_parser_load(parser, &next))
        return refuse_syntax(builder, parser);
    root = yaml_document_get_root_node(&next);
    if (root != NULL)
        error = refuse(builder, &root->start_mark, RELAY_ERR_INVALID, "expected the end of the file");
    yaml_document_delete(&next);
    return error;
}

int relay_yaml_parse(struct relay_yaml *yaml, const char *file, const char *bytes, size_t len, char *why,
                     size_t why_size)
{
    yaml_parser_t parser;
    yaml_document_t document;
    struct builder builder = {
        .yaml = yaml, .document = &document, .bytes = bytes, .why = why, .why_size = why_size};
    *yaml = (struct relay_yaml){.file = strdup(file)};
    if (yaml->file == NULL || !yaml_parser_initialize(&parser)) {
        snprintf(why, why_size, "%s: out of memory", file);
        return RELAY_ERR_NO_MEMORY;
    }
    int error;
    yaml_mark_t mark = {0};
    yaml_parser_set_input_string(&parser, (const unsigned char *)bytes, len);
    if (len > RELAY_YAML_FILE_MAX) {
        error = refuse(&builder, &mark, RELAY_ERR_TOO_BIG, "expected at most 1 MiB");
    } else if (relay_yaml_is_too_deep(bytes, len, &mark.line, &mark.column)) {
        error = refuse(&builder, &mark, RELAY_ERR_TOO_BIG, "expected " RELAY_YAML_DEPTH_EXPECTED);
    } else if (!yaml_parser_load(&parser, &document)) {
        error = refuse_syntax(&builder, &parser);
    } else {
        error = build_document(&builder, &parser);
        yaml_document_delete(&document);
    }
    yaml_parser_delete(&parser);
    return error;
}

int relay_yaml_load(struct relay_yaml *yaml, const char *file, char *why, size_t why_size)
{
    *yaml = (struct relay_yaml){0};
    int error = RELAY_ERR_INVALID;
    char *bytes = malloc(RELAY_YAML_FILE_MAX + 1);
    FILE *stream = bytes != NULL ? fopen(file, "re") : NULL;
    if (stream == NULL) {
        snprintf(why, why_size, "%s: %s", file, strerror(errno));
        goto Exit;
    }
    const size_t len = fread(bytes, 1, RELAY_YAML_FILE_MAX + 1, stream);
    if (ferror(stream)) {
        snprintf(why, why_size, "%s: %s", file, strerror(errno));
        goto Exit;
    }
    error = relay_yaml_parse(yaml, file, bytes, len, why, why_size);

Exit:
    if (stream != NULL)
        fclose(stream);
    free(bytes);
    return error;
}
