/* The descriptors that a program expects to be started with: standard input, output and error. Who starts a service may
 * have closed them; the next socket or pipe would get the number, and be written to as the log. */
#ifndef RELAY_NET_STANDARD_FDS_H
#define RELAY_NET_STANDARD_FDS_H

/* Those of the three that are closed are /dev/null from now on. To be called before anything else is opened. 0 or
 * -errno. */
int relay_standard_fds_fill(void);

#endif
