/* The names that a machine's administrator gave to addresses: a file in the form of /etc/hosts (hosts(5)). */
#ifndef RELAY_NET_HOSTS_FILE_H
#define RELAY_NET_HOSTS_FILE_H

#include <stddef.h>

#include "lib/wire/address.h"

#define RELAY_HOSTS_FILE "/etc/hosts"

/* Puts the addresses of a name into `out`, at most `size`, in the file's order, and returns how many; 0 too when
 * the file cannot be read. Names are compared without regard to case; an address with a zone (fe80::1%eth0) and
 * what is no address are passed over. It reads the file each time, and blocks meanwhile. */
size_t relay_hosts_file_find(const char *path, const char *name, struct relay_address *out, size_t size);

#endif
