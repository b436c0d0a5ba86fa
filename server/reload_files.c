#include "server/reload_files.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/wire/error.h"

/* The first folder on the way to the file that may not be entered, in `folder`; false: there is none. */
static bool find_closed_folder(const char *path, char *folder, size_t size)
{
    for (const char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        snprintf(folder, size, "%.*s", (int)(slash - path), path);
        if (access(folder, X_OK) != 0)
            return true;
    }
    return false;
}

/* Others may not lend a key to a group (server/config_listen.c). */
static bool is_of_root(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && status.st_uid == 0;
}

static int check(const char *path, const char *user, char *why, size_t size)
{
    char folder[PATH_MAX];
    if (path[0] == '\0' || access(path, R_OK) == 0)
        return 0;
    const char *reason = strerror(errno);
    const struct group *entry = getgrgid(getegid());
    const char *group = entry != NULL ? entry->gr_name : "GROUP";
    if (find_closed_folder(path, folder, sizeof(folder)))
        snprintf(
            why, size,
            "user %s cannot read %s at a reload (SIGHUP): %s: %s; chgrp %s %s && chmod g+x %s would let it",
            user, path, folder, reason, group, folder, folder);
    else
        snprintf(why, size,
                 "user %s cannot read %s at a reload (SIGHUP): %s; %s%s %s && chmod 640 %s would let it",
                 user, path, reason, is_of_root(path) ? "chgrp " : "chown root:", group, path, path);
    return RELAY_ERR_INVALID;
}

int relay_reload_files_check(const struct relay_config *config, const char *file, char *why, size_t size)
{
    yoml_t *tokens = relay_yaml_get(config->yaml.root, "auth.tokens");
    int error = check(file, config->user, why, size);
    if (error == 0 && tokens != NULL && tokens->type == YOML_TYPE_SCALAR)
        error = check(tokens->data.scalar, config->user, why, size);
    for (size_t i = 0; error == 0 && i < config->num_listeners; i++) {
        const struct relay_listener_config *listener = &config->listeners[i];
        if (listener->is_clear)
            continue;
        error = check(listener->certificate_file, config->user, why, size);
        if (error == 0)
            error = check(listener->key_file, config->user, why, size);
    }
    return error;
}
