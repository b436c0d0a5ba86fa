#include "lib/wire/uri_template.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "lib/wire/error.h"

static bool is_unreserved(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* A template while it is compiled: `p` is where we are in `text`. */
struct compiler {
    struct relay_uri_template *t;
    const char *text, *p;
    size_t length; /* of t->literals so far */
    int values;    /* seen so far; also the index of the literal being written */
    bool seen_host, seen_port;
    struct relay_uri_template_fault fault;
};

static int refuse(struct compiler *c, const char *position, const char *message)
{
    c->fault = (struct relay_uri_template_fault){(size_t)(position - c->text), message};
    return RELAY_ERR_INVALID;
}

static int append(struct compiler *c, const char *bytes, size_t len)
{
    if (len > RELAY_URI_TEMPLATE_MAX - c->length) {
        refuse(c, c->p, "the template is too long");
        return RELAY_ERR_TOO_BIG;
    }
    memcpy(c->t->literals + c->length, bytes, len);
    c->length += len;
    return 0;
}

static bool has_query(const struct compiler *c)
{
    return memchr(c->t->literals, '?', c->length) != NULL;
}

/* The first byte behind a value ends it when a path is matched, so it must be one that no value contains. */
static int check_separator(struct compiler *c, char next)
{
    size_t begin = c->values == 0 ? 0 : c->t->ends[c->values - 1];
    if (c->values > 0 && c->length == begin && (is_unreserved(next) || next == '%' || next == '{'))
        return refuse(c, c->p, "what follows a variable must begin with a reserved character, such as '/'");
    return 0;
}

static int compile_literal(struct compiler *c)
{
    char byte = *c->p;
    if (byte == '#')
        return refuse(c, c->p, "a fragment is not allowed");
    if (byte == '}')
        return refuse(c, c->p, "'}' without '{'");
    if (byte <= ' ' || byte > '~' || strchr("\"<>\\^`|", byte) != NULL)
        return refuse(c, c->p, "this byte is not allowed in a URI");
    if (byte == '%' && (hex_value(c->p[1]) < 0 || hex_value(c->p[2]) < 0))
        return refuse(c, c->p, "'%' without two hexadecimal digits");
    int rv = check_separator(c, byte);
    if (rv == 0)
        rv = append(c, c->p, 1);
    c->p++;
    return rv;
}

/* RFC 6570 section 2.3. Modifiers (level 4) are no part of it. */
static bool is_variable(const char *name, size_t len)
{
    bool was_dot = true; /* at the beginning and behind a dot there is none */
    for (size_t i = 0; i < len; i++) {
        bool is_dot = name[i] == '.';
        if (name[i] == '%' && hex_value(name[i + 1]) >= 0 && hex_value(name[i + 2]) >= 0)
            i += 2;
        else if ((is_dot && was_dot) || !is_unreserved(name[i]) || name[i] == '-' || name[i] == '~')
            return false;
        was_dot = is_dot;
    }
    return !was_dot;
}

static bool is_target(const char *name, size_t len)
{
    return len == strlen("target_host") &&
           (memcmp(name, "target_host", len) == 0 || memcmp(name, "target_port", len) == 0);
}

/* A variable of another name: nobody defines it, so that it expands to nothing (RFC 6570 section 3.2.1). */
static int compile_undefined(struct compiler *c, const char *name, size_t len)
{
    if (memchr(name, '*', len) != NULL || memchr(name, ':', len) != NULL)
        return refuse(c, name, "modifiers are not allowed");
    return is_variable(name, len) ? 0 : refuse(c, name, "this is no name of a variable");
}

static int compile_target(struct compiler *c, const char *name)
{
    bool is_host = name[strlen("target_")] == 'h', is_port = !is_host;
    if (is_host ? c->seen_host : c->seen_port)
        return refuse(c, name, "this variable appears twice");
    c->seen_host |= is_host;
    c->seen_port |= is_port;
    if (c->values == 0)
        c->t->port_first = is_port;
    c->t->ends[c->values++] = (uint16_t)c->length;
    return 0;
}

/* What the operator puts in front of a variable: "?name=", "&name=", "," or nothing (RFC 6570 section 3.2).
 */
static int compile_prefix(struct compiler *c, char op, bool first, const char *name, size_t len)
{
    char lead = op == 0 ? ',' : first ? op : '&';
    int rv = 0;
    if (op != 0 || !first)
        rv = append(c, &lead, 1);
    if (rv == 0 && op != 0)
        rv = append(c, name, len);
    if (rv == 0 && op != 0)
        rv = append(c, "=", 1);
    return rv;
}

static int compile_operator(struct compiler *c, char *op)
{
    *op = 0;
    if (*c->p == '?' && has_query(c))
        return refuse(c, c->p, "there is a '?' already: use {&...}");
    if (*c->p == '&' && !has_query(c))
        return refuse(c, c->p, "{&...} needs a '?' before it: use {?...}");
    if (*c->p != '\0' && strchr("+#./;=,!@|", *c->p) != NULL)
        return refuse(c, c->p, "this operator is not allowed: use {...}, {?...} or {&...}");
    if (*c->p == '?' || *c->p == '&')
        *op = *c->p++;
    return 0;
}

static int compile_variable(struct compiler *c, char op, bool *first, size_t len)
{
    if (!is_target(c->p, len))
        return compile_undefined(c, c->p, len);
    int rv = op == 0 && *first ? check_separator(c, '{') : 0;
    if (rv == 0)
        rv = compile_prefix(c, op, *first, c->p, len);
    *first = false;
    return rv == 0 ? compile_target(c, c->p) : rv;
}

static int compile_expression(struct compiler *c)
{
    const char *end = strchr(c->p, '}');
    if (end == NULL)
        return refuse(c, c->p, "'{' without '}'");
    c->p++;
    char op;
    bool first = true; /* of those that expand to something */
    int rv = compile_operator(c, &op);
    while (rv == 0) {
        size_t len = strcspn(c->p, ",}");
        rv = compile_variable(c, op, &first, len);
        c->p += len;
        if (c->p == end)
            break;
        c->p++;
    }
    c->p = end + 1;
    return rv;
}

static int compile_authority(struct compiler *c)
{
    static const char scheme[] = "https://";
    struct relay_uri_template *t = c->t;
    if (strncasecmp(c->p, scheme, strlen(scheme)) == 0) {
        c->p += strlen(scheme);
        size_t len = strcspn(c->p, "/?#{");
        if (relay_authority_parse_default(&t->host, &t->port, c->p, len, 443) != 0)
            return refuse(c, c->p, "this is not a host with an optional port");
        t->has_authority = true;
        c->p += len;
    }
    if (c->p[0] != '/')
        return refuse(c, c->p, "an absolute path or an https URI with a path is needed");
    if (c->p[1] == '/')
        return refuse(c, c->p, "a path must not begin with two slashes");
    return 0;
}

static int compile(struct compiler *c)
{
    int rv = compile_authority(c);
    while (rv == 0 && *c->p != '\0')
        rv = *c->p == '{' ? compile_expression(c) : compile_literal(c);
    if (rv != 0)
        return rv;
    if (!c->seen_host)
        return refuse(c, c->p, "target_host is missing");
    if (!c->seen_port)
        return refuse(c, c->p, "target_port is missing");
    struct relay_uri_template *t = c->t;
    t->ends[2] = (uint16_t)c->length;
    const char *query = memchr(t->literals, '?', t->ends[0]);
    t->query = query != NULL;
    t->path_length = query != NULL ? (uint16_t)(query - t->literals) : t->ends[0];
    return 0;
}

int relay_uri_template_parse(struct relay_uri_template *t, const char *text,
                             struct relay_uri_template_fault *fault)
{
    memset(t, 0, sizeof(*t));
    struct compiler c = {.t = t, .text = text, .p = text};
    int rv;
    if (strnlen(text, RELAY_URI_TEMPLATE_MAX + 1) > RELAY_URI_TEMPLATE_MAX) {
        refuse(&c, text + RELAY_URI_TEMPLATE_MAX, "the template is too long");
        rv = RELAY_ERR_TOO_BIG;
    } else {
        rv = compile(&c);
    }
    if (rv != 0 && fault != NULL)
        *fault = c.fault;
    return rv;
}

/* A request path while it is matched. */
struct matcher {
    const struct relay_uri_template *t;
    const char *p, *end;
};

static bool match_literal(struct matcher *m, int index)
{
    size_t begin = index == 0 ? 0 : m->t->ends[index - 1], len = m->t->ends[index] - begin;
    if ((size_t)(m->end - m->p) < len || memcmp(m->p, m->t->literals + begin, len) != 0)
        return false;
    m->p += len;
    return true;
}

/* Decodes the value at `p` once and returns its length; 0 if it is empty, too long or badly encoded. An
 * escaped percent sign stays in the value, where no host and no port accepts it: that is how double encoding
 * is refused. */
static size_t match_value(struct matcher *m, char *value, size_t size)
{
    size_t len = 0;
    for (; m->p < m->end && (is_unreserved(*m->p) || *m->p == '%'); m->p++) {
        if (len == size)
            return 0;
        value[len] = *m->p;
        if (*m->p == '%') {
            if (m->end - m->p < 3 || hex_value(m->p[1]) < 0 || hex_value(m->p[2]) < 0)
                return 0;
            value[len] = (char)(hex_value(m->p[1]) << 4 | hex_value(m->p[2]));
            m->p += 2;
        }
        len++;
    }
    return len;
}

static int match_variable(struct matcher *m, bool is_port, struct relay_host *host, uint16_t *port)
{
    char value[256];
    size_t len = match_value(m, value, sizeof(value));
    return is_port ? relay_port_parse(port, value, len) : relay_host_parse(host, value, len, RELAY_HOST_BARE);
}

static bool is_ours(const struct relay_uri_template *t, const char *path, size_t len)
{
    if (len < t->path_length || memcmp(path, t->literals, t->path_length) != 0)
        return false;
    return !t->query || len == t->path_length || path[t->path_length] == '?';
}

int relay_uri_template_match(const struct relay_uri_template *t, const char *path, size_t len,
                             struct relay_host *host, uint16_t *port)
{
    if (!is_ours(t, path, len))
        return RELAY_URI_TEMPLATE_OTHER;
    struct matcher m = {t, path, path + len};
    if (!match_literal(&m, 0))
        return RELAY_ERR_INVALID;
    int rv = match_variable(&m, t->port_first, host, port);
    if (rv == 0 && !match_literal(&m, 1))
        rv = RELAY_ERR_INVALID;
    if (rv == 0)
        rv = match_variable(&m, !t->port_first, host, port);
    if (rv == 0 && (!match_literal(&m, 2) || m.p != m.end))
        rv = RELAY_ERR_INVALID;
    return rv;
}

/* Every byte of the host takes three at most. */
static void write_value(char *value, const struct relay_host *host)
{
    for (const char *p = host->name; *p != '\0'; p++) {
        if (is_unreserved(*p))
            *value++ = *p;
        else
            value += sprintf(value, "%%%02X", (unsigned char)*p);
    }
    *value = '\0';
}

int relay_uri_template_expand(const struct relay_uri_template *t, const struct relay_host *host,
                              uint16_t port, char *buffer, size_t size)
{
    char host_value[3 * sizeof(host->name)], port_value[6];
    write_value(host_value, host);
    snprintf(port_value, sizeof(port_value), "%u", port);
    int len =
        snprintf(buffer, size, "%.*s%s%.*s%s%.*s", t->ends[0], t->literals,
                 t->port_first ? port_value : host_value, t->ends[1] - t->ends[0], t->literals + t->ends[0],
                 t->port_first ? host_value : port_value, t->ends[2] - t->ends[1], t->literals + t->ends[1]);
    return len < 0 || (size_t)len >= size ? RELAY_ERR_TOO_BIG : len;
}
