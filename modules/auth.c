#include "modules/auth.h"

/* Nothing is served by this handler yet: requests for a tunnel fall through to h2o, which refuses them. */
void relay_auth_register(h2o_pathconf_t *path)
{
}
