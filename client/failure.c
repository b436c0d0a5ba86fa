#include "client/failure.h"

#include <stdarg.h>
#include <stdio.h>

#include "lib/wire/error.h"

void relay_failure_set(struct relay_failure *failure, int error, unsigned hop, const char *authority,
                       const char *format, ...)
{
    va_list args;
    failure->error = error;
    failure->hop = hop;
    failure->is_answer = false;
    int used = snprintf(failure->text, sizeof(failure->text), "hop %u (%s): ", hop, authority);
    if (used < 0 || (size_t)used >= sizeof(failure->text))
        return;
    va_start(args, format);
    vsnprintf(failure->text + used, sizeof(failure->text) - (size_t)used, format, args);
    va_end(args);
}

/* RFC 9113 section 7 and RFC 9114 section 8.1: those that a relay may have a reason for. */
static const struct {
    uint64_t http2, http3;
    const char *text;
} closes[] = {
    {0xb, 0x107, "excessive load"},
    {0x1, 0x101, "it says that we broke the protocol"},
    {0x2, 0x102, "internal error"},
};

const char *relay_close_print(enum relay_http_version version, uint64_t code, char *text, size_t size)
{
    for (size_t i = 0; i < sizeof(closes) / sizeof(closes[0]); i++) {
        if (code == (version == RELAY_HTTP_3 ? closes[i].http3 : closes[i].http2)) {
            snprintf(text, size, "closed by the relay: %s", closes[i].text);
            return text;
        }
    }
    snprintf(text, size, "closed by the relay with the error 0x%llx", (unsigned long long)code);
    return text;
}

const char *relay_refusal_print(const struct relay_refusal *refusal, unsigned tokenless, char *text,
                                size_t size)
{
    const char *why = relay_error_text(refusal->error);
    if (refusal->error == RELAY_ERR_UNAUTHORIZED)
        why = "the token was refused";
    else if (refusal->error == RELAY_ERR_UNSUPPORTED)
        why = "the relay does not offer this";
    const char *rcode = refusal->proxy_status.rcode;
    if (refusal->error == RELAY_ERR_UNAUTHORIZED && tokenless != 0)
        snprintf(text, size, "no token is configured for hop %u (%d)", tokenless, refusal->status);
    else
        snprintf(text, size, "%s%s%s (%d)", why, rcode[0] != '\0' ? ": " : "", rcode, refusal->status);
    return text;
}
