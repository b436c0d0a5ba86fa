#include "client/chain_internal.h"

#include <stdio.h>

int relay_chain_init_trusts(struct relay_hop_trust trusts[RELAY_HOPS_MAX],
                            const struct relay_client_config *config, char *text, size_t size)
{
    struct relay_failure failure;
    for (size_t i = 0; i < config->num_hops; i++) {
        int error = relay_hop_trust_init(&trusts[i], &config->hops[i], (unsigned)i + 1, &failure);
        if (error == 0)
            continue;
        snprintf(text, size, "%s", failure.text);
        while (i-- > 0)
            relay_hop_trust_dispose(&trusts[i]);
        return error;
    }
    return 0;
}

/* Connections have references to what they need of it. */
int relay_chain_renew_trust(struct relay_chain *chain, char *text, size_t size)
{
    struct relay_hop_trust fresh[RELAY_HOPS_MAX];
    int error = relay_chain_init_trusts(fresh, chain->config, text, size);
    for (size_t i = 0; error == 0 && i < chain->config->num_hops; i++) {
        relay_hop_trust_dispose(&chain->trusts[i]);
        chain->trusts[i] = fresh[i];
    }
    return error;
}
