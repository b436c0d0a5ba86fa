#include "lib/net/hosts_file.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define SPACE " \t\r\n"

/* Cuts the line into words. */
static bool has_name(char *names, const char *name)
{
    char *rest = NULL;
    for (char *word = strtok_r(names, SPACE, &rest); word != NULL; word = strtok_r(NULL, SPACE, &rest))
        if (strcasecmp(word, name) == 0)
            return true;
    return false;
}

static bool parse_line(char *line, const char *name, struct relay_address *address)
{
    line[strcspn(line, "#")] = '\0';
    char *text = line + strspn(line, SPACE), *end = text + strcspn(text, SPACE);
    size_t len = (size_t)(end - text);
    return *end != '\0' && has_name(end, name) && relay_address_parse(text, len, address) == 0;
}

size_t relay_hosts_file_find(const char *path, const char *name, struct relay_address *out, size_t size)
{
    FILE *file = fopen(path, "re");
    char *line = NULL;
    size_t room = 0, num = 0;
    while (file != NULL && num < size && getline(&line, &room, file) >= 0)
        num += parse_line(line, name, &out[num]);
    free(line);
    if (file != NULL)
        fclose(file);
    return num;
}
