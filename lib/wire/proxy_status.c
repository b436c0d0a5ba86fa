#include "lib/wire/proxy_status.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

#include "lib/wire/error.h"

static bool is_alpha(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* sf-token, RFC 9651 section 3.3.4. */
static bool is_token(const char *name)
{
    if (!is_alpha(name[0]) && name[0] != '*')
        return false;
    for (const char *p = name; *p != '\0'; p++)
        if (!is_alpha(*p) && (*p < '0' || *p > '9') && strchr("!#$%&'*+-.^_`|~:/", *p) == NULL)
            return false;
    return true;
}

/* A bounded string that grows; `failed` once something did not fit. */
struct output {
    char *at, *end; /* `end` leaves room for the NUL */
    bool failed;
};

static void put(struct output *output, const char *text)
{
    for (; *text != '\0' && !output->failed; text++) {
        if (output->at == output->end)
            output->failed = true;
        else
            *output->at++ = *text;
    }
}

/* sf-string, RFC 9651 section 3.3.3. */
static void put_string(struct output *output, const char *text)
{
    put(output, "\"");
    for (; *text != '\0'; text++) {
        const char byte[] = {*text, '\0'};
        if (*text == '"' || *text == '\\')
            put(output, "\\");
        put(output, byte);
    }
    put(output, "\"");
}

static bool is_valid_name(const char *name)
{
    size_t len = 0;
    for (; name[len] != '\0'; len++)
        if (len == RELAY_PROXY_STATUS_NAME_MAX || name[len] < ' ' || name[len] > '~')
            return false;
    return len > 0;
}

const char *relay_proxy_status_rcode_name(int rcode)
{
    /* IANA DNS RCODEs. */
    static const char *const names[] = {NULL,      "FORMERR", "SERVFAIL", "NXDOMAIN",
                                        "NOTIMP",  "REFUSED", "YXDOMAIN", "YXRRSET",
                                        "NXRRSET", "NOTAUTH", "NOTZONE",  "DSOTYPENI"};
    return rcode >= 0 && (size_t)rcode < sizeof(names) / sizeof(names[0]) ? names[rcode] : NULL;
}

int relay_proxy_status_write(char *value, size_t size, const char *name, int error, int rcode)
{
    if (!is_valid_name(name))
        return RELAY_ERR_INVALID;
    if (size == 0)
        return RELAY_ERR_TOO_BIG;
    struct output output = {value, value + size - 1, false};
    if (is_token(name))
        put(&output, name);
    else
        put_string(&output, name);
    if (error != RELAY_OK && relay_error_proxy_status(error)[0] != '\0') {
        put(&output, "; error=");
        put(&output, relay_error_proxy_status(error));
        if (error == RELAY_ERR_DNS && relay_proxy_status_rcode_name(rcode) != NULL) {
            put(&output, "; rcode=");
            put_string(&output, relay_proxy_status_rcode_name(rcode));
        }
    }
    *output.at = '\0';
    return output.failed ? RELAY_ERR_TOO_BIG : (int)(output.at - value);
}

/* Bytes [at, end) of a field value. */
struct text {
    const char *at, *end;
};

/* Moves over the value up to one of `stops` that is neither in a string nor in an inner list; gives what was
 * passed. */
static struct text take_until(struct text *text, const char *stops)
{
    struct text taken = {text->at, text->at};
    bool quoted = false, inner = false;
    for (; text->at < text->end; text->at++) {
        const char c = *text->at;
        if (quoted && c == '\\' && text->at + 1 < text->end)
            text->at++;
        else if (c == '"')
            quoted = !quoted;
        else if (!quoted && (c == '(' || c == ')'))
            inner = c == '(';
        else if (!quoted && !inner && c != '\0' && strchr(stops, c) != NULL)
            break;
    }
    taken.end = text->at;
    return taken;
}

static void trim(struct text *text)
{
    while (text->at < text->end && (*text->at == ' ' || *text->at == '\t'))
        text->at++;
    while (text->end > text->at && (text->end[-1] == ' ' || text->end[-1] == '\t'))
        text->end--;
}

/* A token as it is, a string without its quotes; bytes that are not printable are left out. */
static void copy_item(char *copy, size_t size, struct text item)
{
    size_t len = 0;
    trim(&item);
    const bool quoted = item.at < item.end && *item.at == '"';
    for (const char *p = item.at + (quoted ? 1 : 0); p < item.end && len + 1 < size; p++) {
        if (quoted && *p == '"')
            break;
        if (quoted && *p == '\\' && p + 1 < item.end)
            p++;
        if (*p >= ' ' && *p <= '~')
            copy[len++] = *p;
    }
    copy[len] = '\0';
}

static bool is_key(const struct text *key, const char *wanted)
{
    const size_t len = (size_t)(key->end - key->at);
    return len == strlen(wanted) && strncasecmp(key->at, wanted, len) == 0;
}

static void parse_parameter(struct relay_proxy_status *status, struct text parameter)
{
    struct text key = take_until(&parameter, "=");
    trim(&key);
    if (parameter.at == parameter.end)
        return;
    parameter.at++;
    if (is_key(&key, "error"))
        copy_item(status->error, sizeof(status->error), parameter);
    else if (is_key(&key, "rcode"))
        copy_item(status->rcode, sizeof(status->rcode), parameter);
}

int relay_proxy_status_parse(struct relay_proxy_status *status, const char *value, size_t len)
{
    *status = (struct relay_proxy_status){0};
    if (len > RELAY_PROXY_STATUS_VALUE_MAX)
        return RELAY_ERR_TOO_BIG;
    if (len == 0)
        return RELAY_ERR_INVALID;

    struct text rest = {value, value + len}, last = {value, value};
    while (rest.at < rest.end) {
        struct text member = take_until(&rest, ",");
        trim(&member);
        if (member.at < member.end)
            last = member;
        if (rest.at < rest.end)
            rest.at++;
    }
    if (last.at == last.end)
        return RELAY_ERR_INVALID;

    copy_item(status->name, sizeof(status->name), take_until(&last, ";"));
    while (last.at < last.end) {
        last.at++;
        parse_parameter(status, take_until(&last, ";"));
    }
    return 0;
}
