/* The sockets of a process: every `listen:` bound once per worker (SO_REUSEPORT), with its certificates. */
#ifndef RELAY_SERVER_LISTENERS_H
#define RELAY_SERVER_LISTENERS_H

#include <netinet/in.h>
#include <sys/types.h>

#include "server/config.h"
#include "server/worker.h"

struct relay_listeners;

/* Binds all of them on every worker and tells relay_own_listener_add. Before the workers start. NULL: `why`
 * says which and why. */
struct relay_listeners *relay_listeners_open(const struct relay_config *config, struct relay_worker *workers,
                                             unsigned num_workers, char *why, size_t size);
/* Reads the certificate files again and gives them to the running workers; on a failure all keep the old
 * ones. 0 or an error. */
int relay_listeners_reload(struct relay_listeners *listeners, char *why, size_t size);

/* Tells each that is open as "tcp 192.0.2.1:443", "clear ..." (TCP without TLS) or "quic ...", with the port that
 * the kernel chose for port 0. */
void relay_listeners_each(const struct relay_listeners *listeners, void (*cb)(void *user, const char *text),
                          void *user);

/* Of admin.listen. */
struct relay_admin_socket {
    int fd;
    dev_t device; /* of a unix socket's path, that another process may have replaced when we end */
    ino_t inode;  /* 0: there is none */
};

/* 0 or RELAY_ERR_INVALID with `why`. */
int relay_listeners_bind_admin(const struct relay_config *config, struct relay_admin_socket *admin, char *why,
                               size_t size);
/* At the end: a unix socket is unlinked if the path is still ours. */
void relay_listeners_remove_admin(const struct relay_config *config, const struct relay_admin_socket *admin);

#endif
