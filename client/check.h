/* `twohop-client check`: tries the chain hop by hop and says of each how it fares. */
#ifndef RELAY_CLIENT_CHECK_H
#define RELAY_CLIENT_CHECK_H

#include <stdio.h>

#include "client/hop.h"

/* For each ingress: connects the hops in order, each through the one before, and asks the last one for a TCP and
 * a UDP tunnel. `target` NULL: to a name that cannot exist (RFC 6761 section 6.4), so that nobody is bothered: an
 * answer about the name means that the token and the policy let us pass. Else to that target, which must be
 * reached. Runs the loop itself. Writes a line for each hop's connection, one for what each hop but the last says of
 * our token when it carries the next, one for each tunnel, and one that says whether the chain works; it does when only
 * the target refuses, or the last hop's policy. 0: everything works through every ingress; else the error of the first
 * thing that does not, be it the target. */
int relay_check_run(struct relay_hop_environment *environment, const struct relay_client_config *config,
                    const struct relay_host *target, uint16_t port, FILE *out);

#endif
