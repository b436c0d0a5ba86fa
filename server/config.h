/* The configuration of a process: what the file says, checked.
 *
 * It has two halves. What can change while the process lives (policy, tokens, limits, timeouts) is the
 * snapshot (modules/snapshot.h); a reload makes a new one. Everything else, this struct, is fixed until a
 * restart: listeners, threads and h2o's globalconf with its hosts, paths and stock handlers.
 *
 * Use:  1. relay_config_load(); every message names file, line, column and what was expected.
 *       2. the server binds the listeners and tells relay_own_listener_add() each address it bound,
 * initialises an h2o_context_t per worker over `h2o`, and gives the workers `snapshot`.
 *       3. on SIGHUP relay_config_reload(), then the new snapshot to the workers. The struct stays.
 *       4. relay_config_free(): only when no h2o_context_t over it lives (facts: rather exit).
 */
#ifndef RELAY_SERVER_CONFIG_H
#define RELAY_SERVER_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <h2o.h>

#include "lib/net/log.h"
#include "lib/net/resolver.h"
#include "lib/wire/address.h"
#include "modules/access_log.h"
#include "modules/snapshot.h"
#include "server/config_yaml.h"

#define RELAY_LISTENERS_MAX 64
#define RELAY_ADMIN_MODE    0660

/* One `listen:`. Its files were read and match each other when the configuration was loaded. */
struct relay_listener_config {
    struct relay_address address; /* without `host:` there are two listeners, 0.0.0.0 and :: (IPV6_V6ONLY) */
    uint16_t port;                /* 0: the kernel chooses */
    const yoml_t *node;           /* where it stands in the file */
    bool is_quic;                 /* UDP and HTTP/3; else TCP */
    bool is_clear;                /* TCP without TLS, for tests */
    bool is_optional; /* the :: of a listener without `host:`: no error on a machine without IPv6 */
    char *certificate_file, *key_file; /* PEM; NULL when is_clear */
    int minimum_version;               /* TLS1_2_VERSION or TLS1_3_VERSION of OpenSSL */
};

enum relay_config_use {
    /* Both say what would fail later, when files and sockets are opened. */
    RELAY_CONFIG_SERVE, /* log files of `access-log` are opened */
    RELAY_CONFIG_TEST,  /* nothing is opened for writing; the result is only good for relay_config_free() */
    RELAY_CONFIG_RELOAD /* not that: it happened at the start, and must not stand in the way of new tokens. Nothing is
                           opened for writing either */
};

struct relay_config {
    h2o_globalconf_t h2o;            /* first; hosts[0] is the host of every CONNECT */
    struct relay_snapshot *snapshot; /* the one to start with; the configuration keeps its reference */
    uint32_t num_threads;
    char *user, *pid_file, *error_log; /* NULL: not given. error_log: JSON lines, else descriptor 2 */
    enum relay_log_level log_level;
    struct relay_listener_config listeners[RELAY_LISTENERS_MAX]; /* in the order of the file */
    size_t num_listeners;
    struct {
        bool is_given;
        char *path;  /* of a unix socket; NULL: `address` (loopback) and `port` */
        mode_t mode; /* of that socket; 0: not given, RELAY_ADMIN_MODE */
        struct relay_address address;
        uint16_t port;
    } admin;
    struct relay_resolver_config resolver;
    struct relay_access_logs access_logs; /* open when the configuration is to be served */
    /* private */
    enum relay_config_use use;
    char *resolver_servers;
    struct relay_yaml yaml, default_hosts; /* h2o may point into them */
};

#define RELAY_CONFIG_WHY_SIZE 1024 /* holds every message */

/* 0 and *config, or a negative error, *config NULL and `why`: "FILE:LINE:COLUMN: [directive] what was
 * expected". Messages of h2o's own directives that come without a place go to stderr. */
int relay_config_load(const char *file, enum relay_config_use use, struct relay_config **config, char *why,
                      size_t why_size);
/* NULL is fine. */
void relay_config_free(struct relay_config *config);

/* Reads the file again, beside the living configuration, on the thread of the signal. 0 and *snapshot (the
 * caller's reference), or a negative error and `why`: the old snapshot stays in force. Directives that
 * changed but are fixed in a living process are named in `restart`, separated by ", " (empty: none); the rest
 * is in the snapshot all the same. A changed role is refused. Contents of certificate files are checked but
 * not kept: load them again from the running listeners' paths. */
int relay_config_reload(const char *file, const struct relay_config *running,
                        struct relay_snapshot **snapshot, char *why, size_t why_size, char *restart,
                        size_t restart_size);

/* What is allowed and looks like a mistake, as a sentence: nobody has a token that is good now. NULL: nothing. */
const char *relay_config_doubt(const struct relay_snapshot *snapshot);
/* The same: no target may be reached, by TCP or by UDP. */
const char *relay_config_policy_doubt(const struct relay_snapshot *snapshot);

/* The same for rules of proxy.connect and proxy.connect-udp (lib/wire/acl.h): calls `cb` with "FILE:LINE:COLUMN:
 * [directive] warning: ..." for each. */
void relay_config_each_doubtful_rule(const struct relay_config *config, void (*cb)(const char *text));

/* `twohop --help-config`: the manual, from the tables of directives, to stdout. */
void relay_config_print_manual(void);

#endif
