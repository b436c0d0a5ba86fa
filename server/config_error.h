/* Where messages about a configuration go. libh2o reports every error of its configurator through
 * h2o_configurator_errprintf(), which config_error.c defines in place of the library's own:
 * "FILE:LINE:COLUMN: [directive] message", with the column. */
#ifndef RELAY_SERVER_CONFIG_ERROR_H
#define RELAY_SERVER_CONFIG_ERROR_H

#include <stddef.h>

#include "modules/yoml.h"

/* From now on the first message of this thread goes to `buffer` and later ones nowhere; NULL: all go to
 * stderr again. */
void relay_config_error_capture(char *buffer, size_t size);

/* The same form, for what shows only when the configuration is put to use. `node` may be NULL: no place is said. */
void relay_config_error_print(char *why, size_t size, const yoml_t *node, const char *directive,
                              const char *message);

#endif
