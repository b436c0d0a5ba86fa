#include "modules/connect_udp.h"

/* Nothing is served by this handler yet: requests for a tunnel fall through to h2o, which refuses them. */
void relay_connect_udp_register(h2o_pathconf_t *path, size_t policy_index)
{
}
