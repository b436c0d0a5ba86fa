#include "lib/net/resolver.h"

#include <ares.h>
#include <arpa/nameser.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "lib/net/address_order.h"
#include "lib/net/hosts_file.h"
#include "lib/net/resolver_channel.h"
#include "lib/net/resolver_status.h"
#include "lib/net/metrics.h"
#include "lib/net/name_cache.h"
#include "lib/wire/error.h"
#include "lib/wire/proxy_status.h"

#define NAME_SIZE    256
#define BUCKETS      1024 /* of them */
#define TTL_MAX      (3600 * RELAY_SECOND)
#define NEGATIVE_TTL (10 * RELAY_SECOND) /* NXDOMAIN and no addresses */
#define FAILURE_TTL  (2 * RELAY_SECOND)  /* SERVFAIL and the like */
#define HOSTS_TTL    (10 * RELAY_SECOND)
#define SHARE        8 /* a payer may hold so many times less than the places that are still free */

enum { FAMILY_A, FAMILY_AAAA, FAMILIES };

/* One name on its way: the lookups that wait for it, and c-ares' two questions, which hold it until both have
 * ended (c-ares cannot cancel one). Cache hits take this way too, since they are told from its task. Lookups
 * join until the whole result is told; who joins between the early family and the late one is told twice as
 * well. */
struct query {
    struct relay_resolver *resolver;
    struct query *next_in_bucket;       /* while lookups may still join */
    struct query *prev, *next;          /* of all queries */
    struct relay_lookup *untold, *told; /* told: of the early family */
    struct relay_task task;
    struct relay_timer timer;                 /* the resolution delay, then the limit of time */
    uint64_t asked_at, ttl, resolution_delay; /* ttl: ns */
    bool may_join, is_measured, is_final, is_over, is_cached, is_asked;
    struct relay_lookup *beginner;    /* the lookup that it was asked for, while that waits */
    struct relay_lookup_payer *payer; /* the beginner's, while questions are pending */
    int pending;                      /* questions at c-ares */
    struct question {
        struct query *query;
        int family, status; /* ARES_*; -1 while pending */
    } questions[FAMILIES];
    struct relay_resolution result;
    size_t num_addresses, num_told;
    struct relay_address addresses[RELAY_RESOLVER_ADDRESSES_MAX];
    char name[NAME_SIZE];
};

struct relay_resolver {
    struct relay_loop *loop;
    struct relay_resolver_channel channel;
    uint64_t timeout;
    const char *hosts_file;
    struct relay_name_cache cache;
    struct query *buckets[BUCKETS], *queries;
    size_t num_asked;       /* of all queries, those of DNS */
    struct query no_memory; /* of the lookups that no query could be made for */
    uint64_t seed;
};

/* ---- the queries ---- */

static void link_lookup(struct query *query, struct relay_lookup *lookup)
{
    struct relay_lookup **list = lookup->is_told ? &query->told : &query->untold;
    lookup->query = query;
    lookup->prev = NULL;
    lookup->next = *list;
    if (lookup->next != NULL)
        lookup->next->prev = lookup;
    *list = lookup;
}

static void leave_bucket(struct query *query)
{
    if (!query->may_join)
        return;
    query->may_join = false;
    struct relay_resolver *resolver = query->resolver;
    struct query **at = &resolver->buckets[relay_name_hash(query->name, resolver->seed) % BUCKETS];
    while (*at != query)
        at = &(*at)->next_in_bucket;
    *at = query->next_in_bucket;
}

static void unlink_lookup(struct relay_lookup *lookup)
{
    struct query *query = lookup->query;
    struct relay_lookup **list = lookup->is_told ? &query->told : &query->untold;
    *(lookup->prev != NULL ? &lookup->prev->next : list) = lookup->next;
    if (lookup->next != NULL)
        lookup->next->prev = lookup->prev;
    lookup->query = NULL;
    lookup->prev = lookup->next = NULL;
}

/* Nobody joins a query's costs: who asks for the same name later does not pay for it. */
static void orphan(struct query *query)
{
    query->beginner = NULL;
    if (query->payer != NULL)
        query->payer->orphans++;
}

/* No question is pending any more. */
static void release_payer(struct query *query)
{
    struct relay_lookup_payer *payer = query->payer;
    if (payer == NULL)
        return;
    query->payer = NULL;
    payer->names--;
    if (query->beginner != NULL)
        return;
    payer->orphans--;
    payer->on_end(payer);
}

static struct query *find_query(struct relay_resolver *resolver, const char *name)
{
    struct query *query = resolver->buckets[relay_name_hash(name, resolver->seed) % BUCKETS];
    while (query != NULL && strcmp(query->name, name) != 0)
        query = query->next_in_bucket;
    return query;
}

static void free_query(struct query *query)
{
    struct relay_resolver *resolver = query->resolver;
    leave_bucket(query);
    release_payer(query);
    relay_task_cancel(&query->task);
    relay_timer_stop(resolver->loop, &query->timer);
    *(query->prev != NULL ? &query->prev->next : &resolver->queries) = query->next;
    if (query->next != NULL)
        query->next->prev = query->prev;
    if (query->is_asked)
        resolver->num_asked--;
    free(query);
}

static void free_if_done(struct query *query)
{
    if (query->is_over && query->pending == 0 && query != &query->resolver->no_memory)
        free_query(query);
}

/* The addresses that were not told yet; those that were keep their places before them. */
static void order(struct query *query)
{
    relay_address_order(query->addresses + query->num_told, query->num_addresses - query->num_told);
}

/* Sets what will be told at last and queues the telling. */
static void conclude(struct query *query, int error, int rcode)
{
    query->is_final = true;
    query->result.error = error;
    query->result.rcode = rcode;
    relay_timer_stop(query->resolver->loop, &query->timer);
    relay_task_queue(query->resolver->loop, &query->task);
}

static uint64_t limit_of(const struct query *query)
{
    return query->asked_at + query->resolver->timeout;
}

/* Queues the telling of the early family. An answer that comes before the task runs is told with it. */
static void tell_early(struct query *query)
{
    struct relay_loop *loop = query->resolver->loop;
    query->result.error = RELAY_OK;
    query->result.rcode = RELAY_RCODE_NOERROR;
    order(query);
    relay_timer_set(loop, &query->timer, limit_of(query));
    relay_task_queue(loop, &query->task);
}

static void await_ipv6(struct query *query)
{
    struct relay_loop *loop = query->resolver->loop;
    uint64_t end = relay_loop_now(loop) + query->resolution_delay;
    relay_timer_set(loop, &query->timer, end < limit_of(query) ? end : limit_of(query));
}

static void measure(struct query *query)
{
    struct relay_metrics *metrics = query->resolver->loop->metrics;
    if (query->is_measured)
        return;
    query->is_measured = true;
    if (query->is_cached) {
        relay_count(metrics->dns_cached, 1);
        return;
    }
    query->result.took = relay_loop_now(query->resolver->loop) - query->asked_at;
    relay_histogram_add(&metrics->dns_seconds, query->result.took);
    if (query->result.error == RELAY_OK)
        relay_count(metrics->dns_ok, 1);
    else if (query->result.error == RELAY_ERR_DNS_TIMEOUT)
        relay_count(metrics->dns_timeout, 1);
    else
        relay_count(metrics->dns_failed, 1);
}

static void tell(struct query *query, struct relay_lookup *lookup)
{
    struct relay_resolution result = query->result;
    size_t from = lookup->is_told ? query->num_told : 0;
    result.is_final = query->is_final;
    result.addresses = query->addresses + from;
    result.num_addresses = result.error == RELAY_OK ? query->num_addresses - from : 0;
    if (query->is_final) {
        relay_lookup_cancel(lookup);
    } else {
        unlink_lookup(lookup);
        lookup->is_told = true;
        link_lookup(query, lookup);
    }
    lookup->on_resolved(lookup, &result);
}

static void run_task(struct relay_task *task)
{
    struct query *query = (struct query *)((char *)task - offsetof(struct query, task));
    measure(query);
    if (query->is_final)
        leave_bucket(query); /* who asks from inside a callback begins anew */
    while (query->untold != NULL)
        tell(query, query->untold);
    if (!query->is_final) {
        query->num_told = query->num_addresses;
        return;
    }
    while (query->told != NULL)
        tell(query, query->told);
    query->is_over = true;
    free_if_done(query);
}

/* ---- what c-ares answers ---- */

static void take_address(struct query *query, uint8_t family, const void *bytes, int ttl)
{
    if (query->num_addresses == RELAY_RESOLVER_ADDRESSES_MAX)
        return;
    struct relay_address *address = &query->addresses[query->num_addresses++];
    *address = (struct relay_address){.family = family};
    memcpy(address->bytes, bytes, family == 4 ? 4 : 16);
    uint64_t lives = ttl > 0 ? (uint64_t)ttl * RELAY_SECOND : 0;
    query->ttl = lives < query->ttl ? lives : query->ttl;
}

/* Half of the places for each family, so that neither crowds the other out. */
#define FAMILY_MAX (RELAY_RESOLVER_ADDRESSES_MAX / 2)

static int parse_answer(struct query *query, int family, const unsigned char *answer, int len)
{
    int num = FAMILY_MAX, status;
    if (family == FAMILY_A) {
        struct ares_addrttl found[FAMILY_MAX];
        status = ares_parse_a_reply(answer, len, NULL, found, &num);
        for (int i = 0; status == ARES_SUCCESS && i < num; i++)
            take_address(query, 4, &found[i].ipaddr, found[i].ttl);
    } else {
        struct ares_addr6ttl found[FAMILY_MAX];
        status = ares_parse_aaaa_reply(answer, len, NULL, found, &num);
        for (int i = 0; status == ARES_SUCCESS && i < num; i++)
            take_address(query, 6, &found[i].ip6addr, found[i].ttl);
    }
    return status;
}

/* A family that failed beside one that has addresses is asked again soon. */
static uint64_t life_of(const struct query *query, int error, int rcode)
{
    if (error == RELAY_ERR_DNS_TIMEOUT || error == RELAY_ERR_NO_DESCRIPTORS)
        return 0;
    if (error != RELAY_OK)
        return rcode == RELAY_RCODE_NXDOMAIN || rcode == RELAY_RCODE_NOERROR ? NEGATIVE_TTL : FAILURE_TTL;
    bool has_both = relay_resolver_status_is_answer(query->questions[FAMILY_A].status) &&
                    relay_resolver_status_is_answer(query->questions[FAMILY_AAAA].status);
    uint64_t most = has_both ? TTL_MAX : FAILURE_TTL;
    return query->ttl < most ? query->ttl : most;
}

static void keep(struct query *query, int error, int rcode)
{
    struct relay_address sorted[RELAY_RESOLVER_ADDRESSES_MAX];
    size_t num = error == RELAY_OK ? query->num_addresses : 0;
    uint64_t lives = life_of(query, error, rcode);
    if (lives == 0)
        return;
    memcpy(sorted, query->addresses, num * sizeof(sorted[0]));
    relay_address_order(sorted, num);
    relay_name_cache_put(&query->resolver->cache, query->name, relay_loop_now(query->resolver->loop) + lives,
                         error, rcode, sorted, num);
}

/* After the limit of time all is told, but who asks next gets what came. */
static void on_all_answered(struct query *query)
{
    int status =
        relay_resolver_status_worse(query->questions[FAMILY_A].status, query->questions[FAMILY_AAAA].status);
    int error = query->num_addresses > 0 ? RELAY_OK : relay_resolver_status_error(status);
    int rcode = error == RELAY_OK ? RELAY_RCODE_NOERROR : relay_resolver_status_rcode(status);
    order(query);
    if (!query->is_final)
        conclude(query, error, rcode);
    if (!query->is_over || error == RELAY_OK)
        keep(query, error, rcode);
}

static void on_answer(void *arg, int status, int timeouts, unsigned char *answer, int len)
{
    struct question *question = arg;
    struct query *query = question->query;
    question->status = status == ARES_SUCCESS ? parse_answer(query, question->family, answer, len)
                                              : relay_resolver_status_of(status);
    query->pending--;
    if (status == ARES_EDESTRUCTION)
        return; /* relay_resolver_free goes on */
    if (query->pending == 0) {
        release_payer(query);
        on_all_answered(query);
    } else if (query->num_addresses > 0 && !query->is_final && question->family == FAMILY_AAAA)
        tell_early(query);
    else if (query->num_addresses > 0 && !query->is_final)
        await_ipv6(query);
    free_if_done(query);
}

/* The resolution delay is over, or the limit of time. */
static void on_timer(struct relay_timer *timer)
{
    struct query *query = (struct query *)((char *)timer - offsetof(struct query, timer));
    bool is_late = relay_loop_now(query->resolver->loop) >= limit_of(query);
    if (query->num_addresses > 0 && !is_late)
        tell_early(query);
    else if (query->num_addresses > 0)
        conclude(query, RELAY_OK, RELAY_RCODE_NOERROR);
    else
        conclude(query, RELAY_ERR_DNS_TIMEOUT, -1);
}

/* ---- asking ---- */

/* Lower case, without the trailing dot. False: too long or empty. */
static bool normalise(char out[NAME_SIZE], const char *name)
{
    size_t len = strlen(name);
    if (len > 0 && name[len - 1] == '.')
        len--;
    if (len == 0 || len >= NAME_SIZE)
        return false;
    for (size_t i = 0; i < len; i++)
        out[i] = name[i] >= 'A' && name[i] <= 'Z' ? (char)(name[i] + ('a' - 'A')) : name[i];
    out[len] = '\0';
    return true;
}

/* RFC 6761 section 6.3: never asked of DNS, and not of /etc/hosts either. The policy judges the addresses as
 * any other. */
static bool is_localhost(const char *name)
{
    static const char suffix[] = "localhost";
    size_t len = strlen(name), own = sizeof(suffix) - 1;
    return len >= own && strcmp(name + len - own, suffix) == 0 && (len == own || name[len - own - 1] == '.');
}

static struct query *new_query(struct relay_resolver *resolver, const char *name)
{
    struct query *query = calloc(1, sizeof(*query));
    if (query == NULL)
        return NULL;
    query->resolver = resolver;
    query->asked_at = relay_loop_now(resolver->loop);
    query->ttl = TTL_MAX;
    memcpy(query->name, name, strlen(name) + 1);
    relay_task_init(&query->task, RELAY_LEVEL_EVENT, run_task);
    relay_timer_init(&query->timer, on_timer);
    query->next = resolver->queries;
    if (query->next != NULL)
        query->next->prev = query;
    resolver->queries = query;
    struct query **bucket = &resolver->buckets[relay_name_hash(name, resolver->seed) % BUCKETS];
    query->next_in_bucket = *bucket;
    *bucket = query;
    query->may_join = true;
    return query;
}

static void ask_ares(struct query *query)
{
    static const int types[FAMILIES] = {ns_t_a, ns_t_aaaa};
    struct relay_resolver *resolver = query->resolver;
    relay_timer_set_after(resolver->loop, &query->timer, resolver->timeout);
    query->pending = FAMILIES;
    query->is_asked = true;
    resolver->num_asked++;
    query->payer = query->beginner->payer;
    if (query->payer != NULL)
        query->payer->names++;
    for (int i = 0; i < FAMILIES; i++)
        query->questions[i] = (struct question){query, i, -1};
    for (int i = 0; i < FAMILIES; i++)
        relay_resolver_channel_ask(&resolver->channel, query->name, types[i], on_answer,
                                   &query->questions[i]);
}

static void answer_localhost(struct query *query)
{
    static const uint8_t v6[16] = {[15] = 1}, v4[4] = {127, 0, 0, 1};
    query->is_cached = true;
    take_address(query, 6, v6, 0);
    take_address(query, 4, v4, 0);
    conclude(query, RELAY_OK, RELAY_RCODE_NOERROR);
}

static void answer_from_cache(struct query *query, const struct relay_cached_name *cached)
{
    query->is_cached = true;
    query->num_addresses = cached->num_addresses;
    memcpy(query->addresses, cached->addresses, cached->num_addresses * sizeof(cached->addresses[0]));
    conclude(query, cached->error, cached->rcode);
}

/* Whoever else asks for the name may have room. */
static void turn_away(struct query *query)
{
    leave_bucket(query);
    conclude(query, RELAY_ERR_LIMIT, -1);
}

/* False: the name is not in the file. */
static bool answer_from_hosts(struct query *query)
{
    struct relay_resolver *resolver = query->resolver;
    if (resolver->hosts_file == NULL)
        return false;
    query->num_addresses = relay_hosts_file_find(resolver->hosts_file, query->name, query->addresses,
                                                 RELAY_RESOLVER_ADDRESSES_MAX);
    if (query->num_addresses == 0)
        return false;
    query->is_cached = true;
    order(query);
    relay_name_cache_put(&resolver->cache, query->name, query->asked_at + HOSTS_TTL, RELAY_OK,
                         RELAY_RCODE_NOERROR, query->addresses, query->num_addresses);
    conclude(query, RELAY_OK, RELAY_RCODE_NOERROR);
    return true;
}

static bool has_room(const struct relay_resolver *resolver, const struct relay_lookup_payer *payer)
{
    size_t num_free = RELAY_RESOLVER_QUERIES_MAX - resolver->num_asked;
    bool is_any = payer == NULL || num_free > RELAY_RESOLVER_QUERIES_MAX / 2;
    return num_free > 0 && (is_any || payer->names * SHARE < num_free);
}

static struct query *begin_query(struct relay_resolver *resolver, struct relay_lookup *lookup,
                                 const char *name, bool is_valid)
{
    struct query *query = new_query(resolver, name);
    if (query == NULL)
        return NULL;
    query->beginner = lookup;
    query->resolution_delay = lookup->resolution_delay;
    const struct relay_cached_name *cached =
        relay_name_cache_get(&resolver->cache, name, relay_loop_now(resolver->loop));
    if (is_localhost(name))
        answer_localhost(query);
    else if (cached != NULL)
        answer_from_cache(query, cached);
    else if (is_valid && answer_from_hosts(query))
        return query;
    else if (!is_valid)
        conclude(query, RELAY_ERR_DNS, -1);
    else if (has_room(resolver, lookup->payer))
        ask_ares(query);
    else
        turn_away(query);
    return query;
}

void relay_resolver_ask(struct relay_resolver *resolver, struct relay_lookup *lookup, const char *name)
{
    char text[NAME_SIZE] = "";
    bool is_valid = normalise(text, name);
    struct query *query = find_query(resolver, text);
    if (query == NULL)
        query = begin_query(resolver, lookup, text, is_valid);
    if (query == NULL) {
        query = &resolver->no_memory;
        conclude(query, RELAY_ERR_NO_MEMORY, -1);
    }
    lookup->is_told = false;
    link_lookup(query, lookup);
    if (query->num_told > 0)
        relay_task_queue(resolver->loop, &query->task);
}

void relay_lookup_cancel(struct relay_lookup *lookup)
{
    struct query *query = lookup->query;
    if (query == NULL)
        return;
    if (query->beginner == lookup)
        orphan(query);
    unlink_lookup(lookup);
}

/* ---- life ---- */

struct relay_resolver *relay_resolver_new(struct relay_loop *loop, const struct relay_resolver_config *config)
{
    struct relay_resolver *resolver = calloc(1, sizeof(*resolver));
    if (resolver == NULL)
        return NULL;
    resolver->loop = loop;
    resolver->timeout = config->timeout;
    resolver->hosts_file = config->hosts_file;
    resolver->no_memory = (struct query){.resolver = resolver, .is_measured = true};
    relay_task_init(&resolver->no_memory.task, RELAY_LEVEL_EVENT, run_task);
    relay_timer_init(&resolver->no_memory.timer, on_timer);
    bool ok = getrandom(&resolver->seed, sizeof(resolver->seed), 0) == sizeof(resolver->seed) &&
              relay_name_cache_init(&resolver->cache, config->cache_names, resolver->seed) == 0 &&
              relay_resolver_channel_init(&resolver->channel, loop, config->servers, config->timeout) == 0;
    if (!ok) {
        relay_resolver_free(resolver);
        return NULL;
    }
    return resolver;
}

void relay_resolver_free(struct relay_resolver *resolver)
{
    relay_resolver_channel_dispose(&resolver->channel); /* ends every question with ARES_EDESTRUCTION */
    while (resolver->queries != NULL)
        free_query(resolver->queries);
    relay_task_cancel(&resolver->no_memory.task);
    relay_name_cache_dispose(&resolver->cache);
    free(resolver);
}

size_t relay_resolver_servers(const struct relay_resolver *resolver, struct relay_address *out, size_t size)
{
    return relay_resolver_channel_servers(&resolver->channel, out, size);
}

const char *relay_rcode_name(int rcode)
{
    return rcode == RELAY_RCODE_NOERROR ? "NOERROR" : relay_proxy_status_rcode_name(rcode);
}
