#include "lib/wire/token_file.h"

#include <stdlib.h>
#include <string.h>

#include "lib/wire/error.h"

static const char expected_name[] = "a name of 1-64 letters, digits, '.', '_' or '-'";
static const char expected_digest[] = "64 hexadecimal digits, the SHA-256 of the secret";
static const char expected_expires[] = "expires=YYYY-MM-DD, expires=YYYY-MM-DDThh:mm:ssZ or expires=SECONDS";
static const char expected_end[] = "the end of the line";
static const char expected_unique[] = "a name that is not used before in the file";
static const char expected_own[] =
    "a digest that no line before has: with one secret for two names neither can be revoked alone";
static const char expected_alone[] = "no token in a file that says none";
static const char expected_fewer[] = "no more than 100000 tokens";

/* Where an entry stands, to report it. */
struct position {
    const char *name;
    size_t name_len;
    uint8_t digest[RELAY_TOKEN_DIGEST_SIZE];
    unsigned line, name_column, digest_column;
};

struct parser {
    struct relay_token_file *file;
    struct relay_token_file_error *error;
    struct position *positions; /* as many as entries */
    const char *at, *line_start, *line_end;
    unsigned line;
};

/* A run of bytes without a space. */
struct field {
    const char *text;
    size_t len;
};

static int refuse(struct parser *parser, const char *at, const char *expected)
{
    *parser->error =
        (struct relay_token_file_error){parser->line, (unsigned)(at - parser->line_start) + 1, expected};
    return RELAY_ERR_INVALID;
}

/* The next field of the line; its len is 0 at the end of the line or before a comment. */
static struct field next_field(struct parser *parser)
{
    while (parser->at < parser->line_end &&
           (*parser->at == ' ' || *parser->at == '\t' || *parser->at == '\r'))
        parser->at++;
    struct field field = {parser->at, 0};
    if (parser->at < parser->line_end && *parser->at == '#')
        return field;
    while (parser->at < parser->line_end && *parser->at != ' ' && *parser->at != '\t' && *parser->at != '\r')
        parser->at++;
    field.len = (size_t)(parser->at - field.text);
    return field;
}

static bool is_name_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int hex_value(char c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static int parse_name(struct parser *parser, const struct field *field, struct relay_token_entry *entry)
{
    for (size_t i = 0; i < field->len; i++)
        if (i == RELAY_TOKEN_NAME_MAX || !is_name_byte(field->text[i]))
            return refuse(parser, field->text + i, expected_name);
    memcpy(entry->name, field->text, field->len);
    return 0;
}

static int parse_digest(struct parser *parser, const struct field *field, struct relay_token_entry *entry)
{
    for (size_t i = 0; i < 2 * RELAY_TOKEN_DIGEST_SIZE; i++) {
        const int value = i < field->len ? hex_value(field->text[i]) : -1;
        if (value < 0)
            return refuse(parser, field->text + i, expected_digest);
        entry->digest[i / 2] = (uint8_t)(entry->digest[i / 2] << 4 | value);
    }
    if (field->len > 2 * RELAY_TOKEN_DIGEST_SIZE)
        return refuse(parser, field->text + 2 * RELAY_TOKEN_DIGEST_SIZE, expected_digest);
    return 0;
}

/* `count` digits within low-high, moved past; -1 for anything else. */
static int take_number(struct field *field, size_t count, int low, int high)
{
    int value = 0;
    if (field->len < count)
        return -1;
    for (size_t i = 0; i < count; i++) {
        if (!is_digit(field->text[i]))
            return -1;
        value = value * 10 + (field->text[i] - '0');
    }
    field->text += count;
    field->len -= count;
    return value >= low && value <= high ? value : -1;
}

static bool take_byte(struct field *field, char c)
{
    if (field->len == 0 || field->text[0] != c)
        return false;
    field->text++;
    field->len--;
    return true;
}

static int days_in_month(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    const bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return month == 2 && leap ? 29 : days[month - 1];
}

/* Days from 1970-01-01, which is negative before. */
static int64_t days_since_1970(int year, int month, int day)
{
    static const int before_month[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    const int64_t y = year - 1; /* whole years since year 1 */
    const bool leap = days_in_month(year, 2) == 29;
    const int64_t days =
        y * 365 + y / 4 - y / 100 + y / 400 + before_month[month - 1] + (leap && month > 2) + day;
    return days - 719163;
}

/* RFC 3339 full-date. */
static bool take_date(struct field *field, int64_t *seconds)
{
    const int year = take_number(field, 4, 1, 9999);
    if (year < 0 || !take_byte(field, '-'))
        return false;
    const int month = take_number(field, 2, 1, 12);
    if (month < 0 || !take_byte(field, '-'))
        return false;
    const int day = take_number(field, 2, 1, days_in_month(year, month));
    if (day < 0)
        return false;
    *seconds = days_since_1970(year, month, day) * 86400;
    return true;
}

/* RFC 3339 time-offset; local time minus it is UTC. */
static bool take_offset(struct field *field, int64_t *seconds)
{
    if (take_byte(field, 'Z') || take_byte(field, 'z'))
        return true;
    const bool is_east = take_byte(field, '+');
    if (!is_east && !take_byte(field, '-'))
        return false;
    const int hour = take_number(field, 2, 0, 23);
    if (hour < 0 || !take_byte(field, ':'))
        return false;
    const int minute = take_number(field, 2, 0, 59);
    if (minute < 0)
        return false;
    const int offset = hour * 3600 + minute * 60;
    *seconds += is_east ? -offset : offset;
    return true;
}

/* RFC 3339 full-time, added to `seconds`. Second 60 is a leap second. */
static bool take_time(struct field *field, int64_t *seconds)
{
    const int hour = take_number(field, 2, 0, 23);
    if (hour < 0 || !take_byte(field, ':'))
        return false;
    const int minute = take_number(field, 2, 0, 59);
    if (minute < 0 || !take_byte(field, ':'))
        return false;
    const int second = take_number(field, 2, 0, 60);
    if (second < 0)
        return false;
    if (take_byte(field, '.')) {
        if (take_number(field, 1, 0, 9) < 0)
            return false;
        while (take_number(field, 1, 0, 9) >= 0)
            continue;
    }
    *seconds += hour * 3600 + minute * 60 + second;
    return take_offset(field, seconds);
}

static bool take_epoch(struct field *field, int64_t *seconds)
{
    if (field->len > 15)
        return false;
    *seconds = 0;
    while (field->len > 0) {
        const int digit = take_number(field, 1, 0, 9);
        if (digit < 0)
            return false;
        *seconds = *seconds * 10 + digit;
    }
    return true;
}

static int parse_expires(struct parser *parser, const struct field *field, struct relay_token_entry *entry)
{
    static const char key[] = "expires=";
    const size_t key_len = sizeof(key) - 1;
    if (field->len <= key_len || memcmp(field->text, key, key_len) != 0)
        return refuse(parser, field->text, expected_expires);
    struct field rest = {field->text + key_len, field->len - key_len};
    bool good;
    if (memchr(rest.text, '-', rest.len) == NULL) {
        good = take_epoch(&rest, &entry->expires);
    } else {
        good = take_date(&rest, &entry->expires);
        if (good && (take_byte(&rest, 'T') || take_byte(&rest, 't')))
            good = take_time(&rest, &entry->expires);
    }
    if (!good || rest.len > 0 || entry->expires <= 0) /* 0 means never */
        return refuse(parser, field->text + key_len, expected_expires);
    return 0;
}

static int append(struct parser *parser, const struct relay_token_entry *entry, const struct field *name,
                  const struct field *digest)
{
    struct relay_token_file *file = parser->file;
    if (file->count == RELAY_TOKEN_FILE_MAX) {
        refuse(parser, name->text, expected_fewer);
        return RELAY_ERR_TOO_BIG;
    }
    if (file->count == file->capacity) {
        const size_t capacity = file->capacity > 0 ? file->capacity * 2 : 16;
        struct relay_token_entry *entries = reallocarray(file->entries, capacity, sizeof(*entries));
        if (entries == NULL)
            return RELAY_ERR_NO_MEMORY;
        file->entries = entries;
        struct position *positions = reallocarray(parser->positions, capacity, sizeof(*positions));
        if (positions == NULL)
            return RELAY_ERR_NO_MEMORY;
        parser->positions = positions;
        file->capacity = capacity;
    }
    struct position *position = &parser->positions[file->count];
    *position = (struct position){.name = name->text,
                                  .name_len = name->len,
                                  .line = parser->line,
                                  .name_column = (unsigned)(name->text - parser->line_start) + 1,
                                  .digest_column = (unsigned)(digest->text - parser->line_start) + 1};
    memcpy(position->digest, entry->digest, sizeof(position->digest));
    file->entries[file->count++] = *entry;
    return 0;
}

static int parse_line(struct parser *parser)
{
    struct relay_token_entry entry = {0};
    const struct field name = next_field(parser);
    if (name.len == 0)
        return 0;
    int error = parse_name(parser, &name, &entry);
    if (error != 0)
        return error;
    const struct field digest = next_field(parser);
    if (digest.len == 0 && strcmp(entry.name, "none") == 0) {
        parser->file->is_none = true;
        return 0;
    }
    error = parse_digest(parser, &digest, &entry);
    if (error != 0)
        return error;
    const struct field expires = next_field(parser);
    if (expires.len > 0)
        error = parse_expires(parser, &expires, &entry);
    if (error != 0)
        return error;
    const struct field rest = next_field(parser);
    if (rest.len > 0)
        return refuse(parser, rest.text, expected_end);
    return append(parser, &entry, &name, &digest);
}

/* Reports the first token beside the line that says none. */
static int refuse_beside_none(struct parser *parser)
{
    const struct position *first = parser->positions;
    if (!parser->file->is_none || parser->file->count == 0)
        return 0;
    *parser->error = (struct relay_token_file_error){first->line, first->name_column, expected_alone};
    return RELAY_ERR_INVALID;
}

static int compare_names(const struct position *a, const struct position *b)
{
    const int order = memcmp(a->name, b->name, a->name_len < b->name_len ? a->name_len : b->name_len);
    return order != 0 ? order : (a->name_len > b->name_len) - (a->name_len < b->name_len);
}

static int compare_digests(const struct position *a, const struct position *b)
{
    return memcmp(a->digest, b->digest, sizeof(a->digest));
}

typedef int position_order(const struct position *a, const struct position *b);

/* By *order and then by their lines. */
static int on_compare(const void *a, const void *b, void *order)
{
    const struct position *left = a, *right = b;
    const int result = (*(position_order **)order)(left, right);
    return result != 0 ? result : (left->line > right->line) - (left->line < right->line);
}

/* The first line that is equal to one before; NULL: none. */
static const struct position *find_repeated(struct parser *parser, position_order *order)
{
    const size_t count = parser->file->count;
    const struct position *first = NULL;
    if (count > 1)
        qsort_r(parser->positions, count, sizeof(*parser->positions), on_compare, &order);
    for (size_t i = 1; i < count; i++) {
        const struct position *position = &parser->positions[i];
        if (order(position - 1, position) == 0 && (first == NULL || position->line < first->line))
            first = position;
    }
    return first;
}

static int refuse_duplicates(struct parser *parser)
{
    const struct position *found = find_repeated(parser, compare_names);
    if (found != NULL) {
        *parser->error = (struct relay_token_file_error){found->line, found->name_column, expected_unique};
        return RELAY_ERR_INVALID;
    }
    found = find_repeated(parser, compare_digests);
    if (found != NULL)
        *parser->error = (struct relay_token_file_error){found->line, found->digest_column, expected_own};
    return found != NULL ? RELAY_ERR_INVALID : 0;
}

int relay_token_file_parse(struct relay_token_file *file, const char *text, size_t len,
                           struct relay_token_file_error *error)
{
    *file = (struct relay_token_file){0};
    *error = (struct relay_token_file_error){0};
    struct parser parser = {.file = file, .error = error};
    int result = 0;
    for (size_t offset = 0; offset < len && result == 0;) {
        const char *newline = memchr(text + offset, '\n', len - offset);
        parser.at = parser.line_start = text + offset;
        parser.line_end = newline != NULL ? newline : text + len;
        parser.line++;
        result = parse_line(&parser);
        offset = (size_t)(parser.line_end - text) + 1;
    }
    if (result == 0)
        result = refuse_beside_none(&parser); /* before the positions are sorted */
    if (result == 0)
        result = refuse_duplicates(&parser);
    free(parser.positions);
    if (result != 0)
        relay_token_file_dispose(file);
    return result;
}

void relay_token_file_dispose(struct relay_token_file *file)
{
    free(file->entries);
    *file = (struct relay_token_file){0};
}
