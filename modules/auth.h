/* The first handler of the chain: verifies the token of a request that wants a tunnel. An ordinary request
 * (RELAY_KIND_MESSAGE) passes, and with snapshot->auth_off every request does.
 *
 * The secret is read from every Proxy-Authorization and Authorization field (at most four), its SHA-256
 * compared with all entries of the token file in constant time; the first secret that fits an entry which has
 * not expired is the token. The fields are wiped from the request's memory and taken out of what later
 * handlers see, whatever came of it.
 *
 * A wrong token is answered with 407 (classic CONNECT) or 401 (templated requests), the same answer as when
 * none came. Wrong answers are counted: per source (an IPv4 address, an IPv6 /64), and for sources in
 * `peers:`, behind which many users stand, per offered user name and in all. Above a limit they are answered
 * with 429 and the connection is shut down. No limit ever touches a good token; a request without one is no
 * attempt.
 */
#ifndef RELAY_MODULES_AUTH_H
#define RELAY_MODULES_AUTH_H

#include <h2o.h>

/* Appends the handler to a path. Called at startup for every path of every host; whether a token is needed is
 * read from the snapshot of each request (`auth_off` can change with a reload). */
void relay_auth_register(h2o_pathconf_t *path);

/* The name of the token that the request came with, NULL: none was needed. Lives as long as the request. */
const char *relay_auth_token_of(h2o_req_t *req);

#endif
