/* The last descriptors of the process are its operator's. Tunnels, what they ask of DNS, and files behave as if these
 * did not exist: when all others are used up the admin listener still accepts, and a reload still reads its files.
 *
 * The kernel gives the lowest free number, so whoever gets one of the last ones got it because all others are taken.
 * One reserve for the process, set before its threads start and only read then; before that nothing is kept.
 */
#ifndef RELAY_NET_RESERVE_H
#define RELAY_NET_RESERVE_H

#include <stdbool.h>

#define RELAY_RESERVE_MAX 16

/* Of `limit` descriptors that the process may have it keeps the last RELAY_RESERVE_MAX, or the last sixteenth when that
 * is fewer. */
void relay_reserve_set(unsigned long limit);
/* How many the others are; INT_MAX before. */
int relay_reserve_num_others(void);
/* Whether it is one of them: then close it, and say that there was none. */
bool relay_reserve_has(int fd);
/* socket(2), non-blocking and close-on-exec, of the others: -1 with EMFILE when they are all taken. */
int relay_reserve_socket(int family, int type);
/* Whether the others are all taken, for whom a library opens what he needs. */
bool relay_reserve_is_reached(void);

#endif
