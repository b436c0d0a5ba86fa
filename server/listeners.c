#include "server/listeners.h"

#include <errno.h>
#include <limits.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/net/acceptor.h"
#include "lib/net/quic_endpoint.h"
#include "lib/net/tls_context.h"
#include "lib/wire/error.h"
#include "server/config_error.h"

/* One `listen:` with what was made of its certificate files. */
struct entry {
    const struct relay_listener_config *config;
    SSL_CTX *tls;                               /* TCP with TLS */
    struct relay_quic_credentials *credentials; /* QUIC */
    size_t slot; /* the index of its listener or endpoint, the same on every worker */
    bool is_open;
    uint16_t port;    /* the one bound, whatever was configured */
    char alt_svc[32]; /* TCP with TLS: what its answers say of QUIC; empty: nothing */
};

struct relay_listeners {
    struct relay_worker *workers;
    unsigned num_workers;
    struct relay_quic_tickets *tickets;
    size_t num_entries;
    struct entry entries[RELAY_LISTENERS_MAX];
};

static void say(char *why, size_t size, const struct relay_listener_config *config, const char *what)
{
    char text[RELAY_ADDRESS_TEXT_SIZE], message[RELAY_CONFIG_WHY_SIZE];
    const char *form = config->address.family == 6 ? "%s[%s]:%u: %s" : "%s%s:%u: %s";
    snprintf(message, sizeof(message), form, config->is_quic ? "udp " : "",
             relay_address_print(&config->address, text), config->port, what);
    relay_config_error_print(why, size, config->node, "listen", message);
}

static const char *text_of(int system_error)
{
    return system_error == EADDRNOTAVAIL ? "expected an address of this machine"
           : system_error == EACCES
               ? "Permission denied (ports below 1024 need a start as root or CAP_NET_BIND_SERVICE)"
               : strerror(system_error);
}

/* Of relay_quic_group_bind, whose errors have texts that speak of targets. */
static const char *text_of_quic(int error)
{
    return error == RELAY_ERR_UNREACHABLE ? text_of(EADDRNOTAVAIL)
           : error == RELAY_ERR_LIMIT     ? text_of(EADDRINUSE)
           : error == RELAY_ERR_DENIED    ? text_of(EACCES)
           : error == RELAY_ERR_INVALID   ? "the socket cannot be made"
                                          : relay_error_text(error);
}

/* What tells this listener from every other that may have the same key: address, port, and the machine's ID (or
 * nothing where there is none) and name. */
static void print_place(const struct relay_listener_config *config, char *place, size_t size)
{
    char text[RELAY_ADDRESS_TEXT_SIZE], machine[40] = "", host[HOST_NAME_MAX + 1] = "";
    FILE *file = fopen("/etc/machine-id", "re");
    if (file != NULL) {
        if (fgets(machine, sizeof(machine), file) == NULL)
            machine[0] = '\0';
        fclose(file);
    }
    gethostname(host, sizeof(host) - 1);
    snprintf(place, size, "%s %u %s %s", relay_address_print(&config->address, text), config->port, machine,
             host);
}

/* Reads the files; replaces what the entry has only when all is good. */
static int load(struct relay_listeners *self, const struct relay_listener_config *config, struct entry *fresh,
                char *why, size_t size)
{
    char reason[RELAY_QUIC_ERROR_SIZE] = "";
    *fresh = (struct entry){.config = config};
    if (config->is_clear)
        return 0;
    if (config->is_quic) {
        char place[RELAY_ADDRESS_TEXT_SIZE + HOST_NAME_MAX + 64];
        print_place(config, place, sizeof(place));
        int error = relay_quic_credentials_server(config->certificate_file, config->key_file, place,
                                                  self->tickets, &fresh->credentials, reason);
        if (error != 0)
            say(why, size, config, reason[0] != '\0' ? reason : relay_error_text(error));
        return error;
    }
    struct relay_tls_server_config tls = {config->certificate_file, config->key_file};
    fresh->tls = relay_tls_server_context(&tls, reason, sizeof(reason));
    if (fresh->tls == NULL) {
        say(why, size, config, reason);
        return RELAY_ERR_CERTIFICATE;
    }
    SSL_CTX_set_min_proto_version(fresh->tls, config->minimum_version);
    return 0;
}

static void unload(struct entry *entry)
{
    SSL_CTX_free(entry->tls);
    relay_quic_credentials_unref(entry->credentials);
}

/* ---- opening ---- */

/* Its port. */
static uint16_t remember_own(const struct sockaddr_storage *bound, bool is_udp)
{
    struct relay_address address;
    uint16_t port;
    relay_address_from_sockaddr(&address, &port, bound);
    relay_own_listener_add(&address, port, is_udp);
    return port;
}

static bool is_wildcard(const struct relay_address *address)
{
    return memcmp(address->bytes, (const uint8_t[sizeof(address->bytes)]){0}, sizeof(address->bytes)) == 0;
}

/* RFC 7838. Its field names a port of the origin's host, so it must be true of the address that the client has reached: a
 * QUIC listener on the same address, else one on all addresses. */
static void announce_quic(struct relay_listeners *self, struct entry *entry)
{
    const struct relay_address *address = &entry->config->address;
    uint16_t port = 0;
    for (size_t i = 0; i < self->num_entries; i++) {
        const struct entry *other = &self->entries[i];
        if (!other->config->is_quic || !other->is_open || other->config->address.family != address->family)
            continue;
        const bool is_same =
            memcmp(other->config->address.bytes, address->bytes, sizeof(address->bytes)) == 0;
        if (is_same || (port == 0 && is_wildcard(&other->config->address)))
            port = other->port;
        if (is_same)
            break;
    }
    if (port != 0)
        snprintf(entry->alt_svc, sizeof(entry->alt_svc), "h3=\":%u\"; ma=86400", port);
}

/* Whether somebody else has the address, a wildcard over it, or one under it. The workers' sockets cannot tell:
 * with SO_REUSEPORT the kernel lets a second process of this user share them, and gives it a part of the traffic.
 * A socket without it is refused. SO_REUSEADDR lets TCP connections of a process before be. */
static bool is_in_use(const struct relay_listener_config *config)
{
    struct sockaddr_storage address;
    socklen_t len = relay_address_to_sockaddr(&config->address, config->port, &address);
    int on = 1,
        fd = socket(address.ss_family, (config->is_quic ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
    if (fd < 0 || config->port == 0) {
        if (fd >= 0)
            close(fd);
        return false;
    }
    if (address.ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    if (!config->is_quic)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    bool is_refused = bind(fd, (struct sockaddr *)&address, len) != 0 && errno == EADDRINUSE;
    close(fd);
    return is_refused;
}

/* All of them, before any is opened: a wildcard and an address under it may both be ours. */
static int check_in_use(const struct relay_config *config, char *why, size_t size)
{
    for (size_t i = 0; i < config->num_listeners; i++)
        if (is_in_use(&config->listeners[i])) {
            say(why, size, &config->listeners[i],
                "Address already in use: another process has it, perhaps a twohop that lives or still "
                "drains");
            return RELAY_ERR_LIMIT;
        }
    return 0;
}

static int open_tcp(struct relay_listeners *self, struct entry *entry, char *why, size_t size)
{
    struct sockaddr_storage address;
    relay_address_to_sockaddr(&entry->config->address, entry->config->port, &address);
    if (!entry->config->is_clear)
        announce_quic(self, entry);
    for (unsigned i = 0; i < self->num_workers; i++) {
        int fd, error = relay_acceptor_bind(&address, true, &fd);
        if (error != 0) {
            say(why, size, entry->config, text_of(-error));
            return RELAY_ERR_INVALID;
        }
        error = relay_worker_listen(&self->workers[i], fd, entry->tls, relay_slice(entry->alt_svc));
        if (error != 0) {
            say(why, size, entry->config, relay_error_text(error));
            return error;
        }
    }
    entry->port = remember_own(&address, false);
    return 0;
}

static int open_quic(struct relay_listeners *self, struct entry *entry, char *why, size_t size)
{
    int error = RELAY_ERR_NO_MEMORY, *fds = calloc(self->num_workers, sizeof(*fds));
    struct sockaddr_storage address;
    relay_address_to_sockaddr(&entry->config->address, entry->config->port, &address);
    struct relay_quic_group *group = fds != NULL ? relay_quic_group_new(self->num_workers) : NULL;
    if (group != NULL)
        error = relay_quic_group_bind(group, &address, fds);
    unsigned given = 0;
    while (error == 0 && given < self->num_workers) {
        error = relay_worker_listen_quic(&self->workers[given], fds[given], group, entry->credentials);
        given++;
    }
    if (error == 0)
        entry->port = remember_own(&address, true);
    else
        say(why, size, entry->config, text_of_quic(error));
    relay_quic_group_unref(group);
    free(fds);
    return error;
}

static int open_entry(struct relay_listeners *self, struct entry *entry, char *why, size_t size)
{
    entry->slot = entry->config->is_quic ? self->workers[0].num_endpoints : self->workers[0].num_listeners;
    int error = entry->config->is_quic ? open_quic(self, entry, why, size) : open_tcp(self, entry, why, size);
    entry->is_open = error == 0;
    /* Without `host:` both families are listened on; a machine without IPv6 is fine. */
    return entry->config->is_optional ? 0 : error;
}

struct relay_listeners *relay_listeners_open(const struct relay_config *config, struct relay_worker *workers,
                                             unsigned num_workers, char *why, size_t size)
{
    if (check_in_use(config, why, size) != 0)
        return NULL;
    struct relay_listeners *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return NULL;
    self->workers = workers;
    self->num_workers = num_workers;
    self->tickets = relay_quic_tickets_new();
    int error = 0;
    for (size_t i = 0; error == 0 && i < config->num_listeners; i++)
        error = load(self, &config->listeners[i], &self->entries[self->num_entries++], why, size);
    for (size_t i = 0; error == 0 && i < self->num_entries; i++)
        if (self->entries[i].config->is_quic)
            error = open_entry(self, &self->entries[i], why, size);
    for (size_t i = 0; error == 0 && i < self->num_entries; i++)
        if (!self->entries[i].config->is_quic) /* these tell of the others' ports */
            error = open_entry(self, &self->entries[i], why, size);
    if (error == 0)
        return self;
    /* The process ends: what the workers have been given goes with it. */
    for (size_t i = 0; i < self->num_entries; i++)
        unload(&self->entries[i]);
    relay_quic_tickets_unref(self->tickets);
    free(self);
    return NULL;
}

void relay_listeners_each(const struct relay_listeners *self, void (*cb)(void *user, const char *text),
                          void *user)
{
    for (size_t i = 0; i < self->num_entries; i++) {
        const struct entry *entry = &self->entries[i];
        const char *kind = entry->config->is_quic ? "quic" : entry->config->is_clear ? "clear" : "tcp";
        const char *form = entry->config->address.family == 6 ? "%s [%s]:%u" : "%s %s:%u";
        char address[RELAY_ADDRESS_TEXT_SIZE], text[RELAY_ADDRESS_TEXT_SIZE + 16];
        snprintf(text, sizeof(text), form, kind, relay_address_print(&entry->config->address, address),
                 entry->port);
        if (entry->is_open)
            cb(user, text);
    }
}

/* ---- reload ---- */

struct renewal {
    struct relay_worker *worker;
    size_t slot;
    SSL_CTX *tls;
    struct relay_quic_credentials *credentials;
};

static void free_renewal(struct renewal *renewal)
{
    SSL_CTX_free(renewal->tls);
    relay_quic_credentials_unref(renewal->credentials);
    free(renewal);
}

static void renew(void *arg)
{
    struct renewal *renewal = arg;
    if (renewal->tls != NULL)
        relay_worker_set_tls(renewal->worker, renewal->slot, renewal->tls);
    else
        relay_worker_set_credentials(renewal->worker, renewal->slot, renewal->credentials);
    free_renewal(renewal);
}

static int post_renewals(struct relay_listeners *self, struct entry *entry)
{
    for (unsigned i = 0; i < self->num_workers; i++) {
        struct renewal *renewal = malloc(sizeof(*renewal));
        if (renewal == NULL)
            return RELAY_ERR_NO_MEMORY;
        *renewal = (struct renewal){&self->workers[i], entry->slot, entry->tls, NULL};
        if (entry->tls != NULL)
            SSL_CTX_up_ref(entry->tls);
        else
            renewal->credentials = relay_quic_credentials_ref(entry->credentials);
        if (relay_loop_post(&self->workers[i].loop, renew, renewal) != 0) {
            free_renewal(renewal);
            return RELAY_ERR_NO_MEMORY;
        }
    }
    return 0;
}

int relay_listeners_reload(struct relay_listeners *self, char *why, size_t size)
{
    struct entry fresh[RELAY_LISTENERS_MAX];
    int error = 0;
    size_t loaded = 0;
    while (error == 0 && loaded < self->num_entries) {
        error = load(self, self->entries[loaded].config, &fresh[loaded], why, size);
        loaded++;
    }
    for (size_t i = 0; i < loaded; i++) {
        struct entry *entry = &self->entries[i];
        if (error == 0 && entry->is_open && !entry->config->is_clear) {
            fresh[i].slot = entry->slot;
            error = post_renewals(self, &fresh[i]);
            if (error != 0)
                snprintf(why, size, "out of memory: some workers keep their old certificates");
        }
        unload(&fresh[i]);
    }
    return error;
}

/* ---- admin ---- */

static int bind_unix(const char *path, mode_t mode)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    const int error = connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 ? 0 : errno;
    if (error == ECONNREFUSED) {
        unlink(path); /* of a process before */
    } else if (error != ENOENT) {
        close(fd); /* somebody lives there, be it with a socket of another type */
        errno = error == EACCES || error == EPERM ? error : EADDRINUSE;
        return -1;
    }
    mode_t before = umask(~mode & 0777);
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(fd, SOMAXCONN) != 0) {
        close(fd);
        fd = -1;
    }
    umask(before);
    return fd;
}

static void say_admin(char *why, size_t size, const struct relay_config *config, const char *what)
{
    char message[RELAY_CONFIG_WHY_SIZE];
    const yoml_t *node = relay_yaml_get(config->yaml.root, "admin.listen");
    snprintf(message, sizeof(message), "%s: %s", node->data.scalar, what);
    relay_config_error_print(why, size, node, "admin.listen", message);
}

int relay_listeners_bind_admin(const struct relay_config *config, struct relay_admin_socket *admin, char *why,
                               size_t size)
{
    struct sockaddr_storage address;
    struct stat status;
    int error = 0;
    *admin = (struct relay_admin_socket){0};
    if (config->admin.path != NULL) {
        admin->fd =
            bind_unix(config->admin.path, config->admin.mode != 0 ? config->admin.mode : RELAY_ADMIN_MODE);
        error = admin->fd >= 0 ? 0 : -errno;
        if (error == 0 && stat(config->admin.path, &status) == 0) {
            admin->device = status.st_dev;
            admin->inode = status.st_ino;
        }
    } else {
        relay_address_to_sockaddr(&config->admin.address, config->admin.port, &address);
        error = relay_acceptor_bind(&address, false, &admin->fd);
        if (error == 0)
            remember_own(&address, false);
    }
    if (error == 0)
        return 0;
    say_admin(why, size, config, config->admin.path != NULL ? strerror(-error) : text_of(-error));
    return RELAY_ERR_INVALID;
}

void relay_listeners_remove_admin(const struct relay_config *config, const struct relay_admin_socket *admin)
{
    struct stat status;
    if (config->admin.path != NULL && admin->inode != 0 && stat(config->admin.path, &status) == 0 &&
        status.st_dev == admin->device && status.st_ino == admin->inode)
        unlink(config->admin.path);
}
