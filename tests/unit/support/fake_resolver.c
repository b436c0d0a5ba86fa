#include "tests/unit/support/fake_resolver.h"

#include <stdlib.h>
#include <string.h>

#include "lib/wire/error.h"

struct query {
    struct relay_task task; /* first */
    struct relay_timer timer;
    bool is_late;
    struct relay_lookup *lookup;
    const struct fake_name *name; /* NULL: NXDOMAIN */
};

static struct relay_loop *loop_of_fake;
static const struct fake_name *names;
static unsigned asked, pending;

void fake_resolver_init(struct relay_loop *loop, const struct fake_name *zone)
{
    loop_of_fake = loop;
    names = zone;
    asked = pending = 0;
}

unsigned fake_resolver_asked(void)
{
    return asked;
}

unsigned fake_resolver_pending(void)
{
    return pending;
}

static size_t parse(const char *const texts[8], struct relay_address out[8])
{
    size_t num = 0;
    for (; num < 8 && texts[num] != NULL; num++)
        relay_address_parse(texts[num], strlen(texts[num]), &out[num]);
    return num;
}

static void answer(struct relay_task *task)
{
    struct query *query = (struct query *)task;
    struct relay_lookup *lookup = query->lookup;
    struct relay_address addresses[8];
    struct relay_resolution resolution = {
        .error = RELAY_ERR_DNS, .rcode = 3, .addresses = addresses, .is_final = true};
    if (query->name != NULL) {
        resolution.error = query->name->error;
        resolution.rcode = query->name->rcode;
        resolution.is_final = !query->name->has_late || query->is_late;
        resolution.num_addresses =
            parse(query->is_late ? query->name->late : query->name->addresses, addresses);
    }
    if (!resolution.is_final) {
        query->is_late = true;
        relay_timer_set_after(loop_of_fake, &query->timer, query->name->late_after);
    } else {
        lookup->query = NULL;
        free(query);
        pending--;
    }
    lookup->on_resolved(lookup, &resolution);
}

static void on_timer(struct relay_timer *timer)
{
    struct query *query = (struct query *)((char *)timer - offsetof(struct query, timer));
    answer(&query->task);
}

void relay_resolver_ask(struct relay_resolver *resolver, struct relay_lookup *lookup, const char *name)
{
    struct query *query = calloc(1, sizeof(*query));
    query->lookup = lookup;
    lookup->query = query;
    relay_task_init(&query->task, RELAY_LEVEL_EVENT, answer);
    relay_timer_init(&query->timer, on_timer);
    asked++;
    pending++;
    for (const struct fake_name *entry = names; entry->name != NULL; entry++)
        if (strcmp(entry->name, name) == 0)
            query->name = entry;
    if (query->name == NULL || !query->name->is_silent)
        relay_task_queue(loop_of_fake, &query->task);
}

void relay_lookup_cancel(struct relay_lookup *lookup)
{
    struct query *query = lookup->query;
    if (query == NULL)
        return;
    relay_task_cancel(&query->task);
    relay_timer_stop(loop_of_fake, &query->timer);
    free(query);
    lookup->query = NULL;
    pending--;
}

size_t relay_resolver_servers(const struct relay_resolver *resolver, struct relay_address *out, size_t size)
{
    return 0;
}

struct relay_resolver *relay_resolver_new(struct relay_loop *loop, const struct relay_resolver_config *config)
{
    return NULL;
}

void relay_resolver_free(struct relay_resolver *resolver)
{
}

const char *relay_rcode_name(int rcode)
{
    return NULL;
}
