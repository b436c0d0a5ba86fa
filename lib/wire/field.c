#include "lib/wire/field.h"

#include <string.h>
#include <strings.h>

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_lower(char c)
{
    return c >= 'a' && c <= 'z';
}

static bool is_lower_hex(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f');
}

static bool is_alpha(char c)
{
    return is_lower(c) || (c >= 'A' && c <= 'Z');
}

/* tchar of RFC 9110 section 5.6.2 */
static bool is_token_char(char c)
{
    return is_alpha(c) || is_digit(c) || (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool is_token(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!is_token_char(text[i]))
            return false;
    return len > 0;
}

static bool equals(const char *text, size_t len, const char *word)
{
    return len == strlen(word) && strncasecmp(text, word, len) == 0;
}

bool relay_field_name_valid(const char *name, size_t len, enum relay_field_rules rules)
{
    if (!is_token(name, len))
        return false;
    for (size_t i = 0; i < len && rules == RELAY_FIELD_HTTP2; i++)
        if (is_alpha(name[i]) && !is_lower(name[i]))
            return false;
    return true;
}

bool relay_field_value_valid(const char *value, size_t len, enum relay_field_rules rules)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)value[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
    }
    if (rules == RELAY_FIELD_HTTP1 || len == 0)
        return true;
    return value[0] != ' ' && value[0] != '\t' && value[len - 1] != ' ' && value[len - 1] != '\t';
}

bool relay_field_is_connection_specific(const char *name, size_t len)
{
    static const char *const names[] = {"connection", "proxy-connection", "keep-alive", "transfer-encoding",
                                        "upgrade"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (equals(name, len, names[i]))
            return true;
    return false;
}

bool relay_field_te_valid(const char *value, size_t len)
{
    return equals(value, len, "trailers");
}

/* A structured field while it is parsed. Each eat_x moves `p` behind what it names, or returns false. */
struct cursor {
    const char *p, *end;
};

static bool eat(struct cursor *c, char expected)
{
    if (c->p == c->end || *c->p != expected)
        return false;
    c->p++;
    return true;
}

static size_t eat_digits(struct cursor *c)
{
    const char *begin = c->p;
    while (c->p < c->end && is_digit(*c->p))
        c->p++;
    return (size_t)(c->p - begin);
}

static void eat_spaces(struct cursor *c)
{
    while (eat(c, ' '))
        ;
}

static bool eat_number(struct cursor *c, bool decimal_allowed)
{
    eat(c, '-');
    size_t digits = eat_digits(c);
    if (digits == 0 || digits > 15)
        return false;
    if (!decimal_allowed || !eat(c, '.'))
        return true;
    size_t fraction = eat_digits(c);
    return digits <= 12 && fraction >= 1 && fraction <= 3;
}

/* The rest of a String, or of a Display String where '%' escapes, behind the opening quote. */
static bool eat_quoted(struct cursor *c, char escape)
{
    while (c->p < c->end) {
        char byte = *c->p++;
        if (byte == '"')
            return true;
        if (byte < ' ' || byte > '~')
            return false;
        if (byte != escape)
            continue;
        size_t left = (size_t)(c->end - c->p);
        if (escape == '\\' && (left < 1 || (c->p[0] != '"' && c->p[0] != '\\')))
            return false;
        if (escape == '%' && (left < 2 || !is_lower_hex(c->p[0]) || !is_lower_hex(c->p[1])))
            return false;
        c->p += escape == '%' ? 2 : 1;
    }
    return false;
}

static bool eat_byte_sequence(struct cursor *c)
{
    while (c->p < c->end && *c->p != ':') {
        char byte = *c->p++;
        if (!is_alpha(byte) && !is_digit(byte) && byte != '+' && byte != '/' && byte != '=')
            return false;
    }
    return eat(c, ':');
}

static bool eat_bare_item(struct cursor *c)
{
    if (eat(c, '?'))
        return eat(c, '0') || eat(c, '1');
    if (eat(c, '@'))
        return eat_number(c, false);
    if (eat(c, '"'))
        return eat_quoted(c, '\\');
    if (eat(c, '%'))
        return eat(c, '"') && eat_quoted(c, '%');
    if (eat(c, ':'))
        return eat_byte_sequence(c);
    if (c->p == c->end || (!is_alpha(*c->p) && *c->p != '*'))
        return eat_number(c, true);
    while (c->p < c->end && (is_token_char(*c->p) || *c->p == ':' || *c->p == '/'))
        c->p++;
    return true;
}

static bool eat_key(struct cursor *c)
{
    if (c->p == c->end || (!is_lower(*c->p) && *c->p != '*'))
        return false;
    while (c->p < c->end &&
           (is_lower(*c->p) || is_digit(*c->p) || (*c->p != '\0' && strchr("_-.*", *c->p) != NULL)))
        c->p++;
    return true;
}

bool relay_field_boolean(const char *value, size_t len)
{
    struct cursor c = {value, value + len};
    eat_spaces(&c);
    if (!eat(&c, '?') || !eat(&c, '1'))
        return false;
    while (eat(&c, ';')) {
        eat_spaces(&c);
        if (!eat_key(&c) || (eat(&c, '=') && !eat_bare_item(&c)))
            return false;
    }
    eat_spaces(&c);
    return c.p == c.end;
}

bool relay_field_method_valid(const char *method, size_t len)
{
    return is_token(method, len);
}

bool relay_field_scheme_valid(const char *scheme, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!is_alpha(scheme[i]) && (i == 0 || (!is_digit(scheme[i]) && memchr("+-.", scheme[i], 3) == NULL)))
            return false;
    return len > 0;
}

bool relay_field_path_valid(const char *path, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (path[i] <= ' ' || path[i] > '~' || path[i] == '#')
            return false;
    return len > 0 && path[0] == '/';
}
