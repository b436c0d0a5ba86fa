#include "lib/wire/error.h"

struct description {
    const char *name, *text, *proxy_status;
    int status;
};

static const struct description descriptions[] = {{"OK", "no error", "", 200},
#define X(name, status, proxy_status, text) {#name, text, proxy_status, status},
                                                  RELAY_ERRORS(X)
#undef X
};

static const struct description *describe(int error)
{
    if (error > 0 || -error >= RELAY_ERR_END)
        error = RELAY_ERR_INTERNAL;
    return &descriptions[-error];
}

const char *relay_error_name(int error)
{
    return describe(error)->name;
}

const char *relay_error_text(int error)
{
    return describe(error)->text;
}

int relay_error_status(int error)
{
    return describe(error)->status;
}

const char *relay_error_proxy_status(int error)
{
    return describe(error)->proxy_status;
}
