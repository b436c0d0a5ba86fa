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
    int used = snprintf(failure->text, sizeof(failure->text), "hop %u (%s): ", hop, authority);
    if (used < 0 || (size_t)used >= sizeof(failure->text))
        return;
    va_start(args, format);
    vsnprintf(failure->text + used, sizeof(failure->text) - (size_t)used, format, args);
    va_end(args);
}

const char *relay_refusal_print(const struct relay_refusal *refusal, char *text, size_t size)
{
    const char *why = relay_error_text(refusal->error);
    if (refusal->error == RELAY_ERR_UNAUTHORIZED)
        why = "the token was refused";
    else if (refusal->error == RELAY_ERR_UNSUPPORTED)
        why = "the relay does not offer this";
    const char *rcode = refusal->proxy_status.rcode;
    snprintf(text, size, "%s%s%s (%d)", why, rcode[0] != '\0' ? ": " : "", rcode, refusal->status);
    return text;
}
