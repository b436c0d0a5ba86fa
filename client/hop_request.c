#include "client/hop_request.h"

#include <stdio.h>
#include <string.h>

#include "lib/wire/error.h"

int relay_hop_request_init(struct relay_hop_request *request, const struct relay_hop_config *config,
                           const struct relay_hop_place *place, bool is_udp, const struct relay_host *host,
                           uint16_t port)
{
    struct relay_request *head = &request->head;
    size_t count = 0;
    *head = (struct relay_request){.kind = is_udp ? RELAY_KIND_CAPSULES : RELAY_KIND_BYTES,
                                   .method = RELAY_SLICE("CONNECT"),
                                   .content_length = -1};
    const char *token = relay_hop_config_token(config, place);
    if (token != NULL) {
        snprintf(request->credential, sizeof(request->credential), "Bearer %s", token);
        request->fields[count++] =
            (struct relay_field){RELAY_SLICE("proxy-authorization"), relay_slice(request->credential)};
    }
    if (is_udp) {
        int len = relay_uri_template_expand(&place->udp, host, port, request->path, sizeof(request->path));
        if (len < 0)
            return len;
        /* The default port is left away, as every other client does. */
        snprintf(request->authority, sizeof(request->authority), "%s", place->authority);
        if (place->port == 443)
            *strrchr(request->authority, ':') = '\0';
        head->scheme = RELAY_SLICE("https");
        head->protocol = RELAY_SLICE("connect-udp");
        head->path = relay_slice(request->path);
        request->fields[count++] = (struct relay_field){RELAY_SLICE("capsule-protocol"), RELAY_SLICE("?1")};
    } else {
        relay_authority_write(host, port, request->authority, sizeof(request->authority));
    }
    head->authority = relay_slice(request->authority);
    head->fields = request->fields;
    head->num_fields = count;
    return 0;
}

void relay_hop_request_wipe(struct relay_hop_request *request)
{
    explicit_bzero(request->credential, sizeof(request->credential));
}
