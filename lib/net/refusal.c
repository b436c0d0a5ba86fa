#include "lib/net/refusal.h"

#include <string.h>

#include "lib/wire/error.h"

/* RELAY_OK: an error type we have no word for. */
static int error_of_type(const char *type)
{
    static const struct {
        const char *type;
        int error;
    } others[] = {
        {"destination_not_found", RELAY_ERR_DNS},       {"connection_write_timeout", RELAY_ERR_TIMEOUT},
        {"connection_read_timeout", RELAY_ERR_TIMEOUT}, {"destination_unavailable", RELAY_ERR_UNREACHABLE},
        {"tls_alert_received", RELAY_ERR_TLS},          {"http_response_timeout", RELAY_ERR_TIMEOUT},
    };
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        if (strcmp(type, others[i].type) == 0)
            return others[i].error;
    /* The general types are shared by many errors: there the status says more. */
    if (strncmp(type, "http_", 5) == 0 || strncmp(type, "proxy_", 6) == 0)
        return RELAY_OK;
    for (int error = -1; error > -RELAY_ERR_END; error--)
        if (strcmp(type, relay_error_proxy_status(error)) == 0)
            return error;
    return RELAY_OK;
}

static int error_of_status(int status)
{
    switch (status) {
    case 400:
    case 405:
        return RELAY_ERR_INVALID;
    case 403:
        return RELAY_ERR_DENIED;
    case 429:
        return RELAY_ERR_TOO_MANY_FAILURES;
    case 404:
    case 501:
        return RELAY_ERR_UNSUPPORTED;
    case 503:
        return RELAY_ERR_LIMIT;
    case 504:
        return RELAY_ERR_TIMEOUT;
    case 502:
        return RELAY_ERR_UNREACHABLE;
    default:
        return RELAY_ERR_PROTOCOL;
    }
}

void relay_refusal_read(struct relay_refusal *refusal, const struct relay_response *response)
{
    memset(refusal, 0, sizeof(*refusal));
    refusal->status = response->status;
    struct relay_slice value =
        relay_fields_find(response->fields, response->num_fields, "proxy-status", NULL);
    if (value.base != NULL)
        relay_proxy_status_parse(&refusal->proxy_status, value.base, value.len);
    if (refusal->status == 401 || refusal->status == 407)
        refusal->error = RELAY_ERR_UNAUTHORIZED;
    else if (refusal->status == 503 && strcmp(refusal->proxy_status.error, "proxy_internal_response") == 0)
        refusal->error = RELAY_ERR_SHUTDOWN; /* what this type with this status says when it is ours */
    else if ((refusal->error = error_of_type(refusal->proxy_status.error)) == RELAY_OK)
        refusal->error = error_of_status(refusal->status);
}

size_t relay_refusal_write(struct relay_refusal_field *field, const char *proxy_name, int error)
{
    if (proxy_name == NULL || relay_error_proxy_status(error)[0] == '\0')
        return 0;
    int len = relay_proxy_status_write(field->value, sizeof(field->value), proxy_name, error, -1);
    if (len < 0)
        return 0;
    field->field = (struct relay_field){RELAY_SLICE("proxy-status"), {field->value, (size_t)len}};
    return 1;
}
