/* The Proxy-Status field of RFC 9209: one member written by a relay, and the last member read by the client.
 *
 * A member holds the relay's name, the error type and for DNS errors the response code; never `details`,
 * `next-hop`, an address or an errno text, since that would tell a hop's view to whoever reads the answer.
 */
#ifndef RELAY_WIRE_PROXY_STATUS_H
#define RELAY_WIRE_PROXY_STATUS_H

#include <stddef.h>

#define RELAY_PROXY_STATUS_NAME_MAX  255
#define RELAY_PROXY_STATUS_VALUE_MAX 4096 /* bytes of a value that is read */
#define RELAY_PROXY_STATUS_SIZE      640  /* holds every value that is written, and its NUL */

/* Writes  NAME; error=TYPE  or  NAME; error=dns_error; rcode="NXDOMAIN"  with NUL; a single Item that is not
 * an inner list, as some clients demand. `name` is written as a token when it is one, else as a string;
 * `error` is a RELAY_ERR_*, RELAY_OK writes the name alone. `rcode` is a DNS RCODE, -1 for none; it is
 * written only with dns_error, and only when it is an error that has a name. Gives the length, or
 * RELAY_ERR_INVALID (name empty, too long, or not printable ASCII), RELAY_ERR_TOO_BIG. */
int relay_proxy_status_write(char *value, size_t size, const char *name, int error, int rcode);

/* "NXDOMAIN" for 3; NULL for 0 and for codes without a name. */
const char *relay_proxy_status_rcode_name(int rcode);

/* What the last member says: it is written by the relay nearest to us (RFC 9209 section 2). Empty: not there.
 * Longer values are cut. All bytes are printable ASCII. */
struct relay_proxy_status {
    char name[RELAY_PROXY_STATUS_NAME_MAX + 1];
    char error[64];
    char rcode[32];
};

/* Lenient: parameters that are not understood are skipped. `len` bytes; several field lines are joined by ",
 * " first. RELAY_ERR_INVALID when no member is found, RELAY_ERR_TOO_BIG above RELAY_PROXY_STATUS_VALUE_MAX;
 * *status is then empty. */
int relay_proxy_status_parse(struct relay_proxy_status *status, const char *value, size_t len);

#endif
