#include "lib/net/resolver.h"

#include <ares.h>
#include <arpa/nameser.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "lib/net/address_order.h"
#include "lib/net/metrics.h"
#include "lib/net/name_cache.h"
#include "lib/wire/error.h"
#include "lib/wire/proxy_status.h"

#define NAME_SIZE    256
#define QUERIES_MAX  4096 /* lookups on their way; more fail at once */
#define BUCKETS      1024 /* of them */
#define TTL_MAX      (3600 * RELAY_SECOND)
#define NEGATIVE_TTL (10 * RELAY_SECOND) /* NXDOMAIN and no addresses */
#define FAILURE_TTL  (2 * RELAY_SECOND)  /* SERVFAIL and the like */
#define OTHER_FAMILY                                                                                         \
    (50 * RELAY_MS) /* RFC 8305 section 3: how long one family's answer waits for the other's */
#define RCODE_NOERROR  0
#define RCODE_SERVFAIL 2
#define RCODE_NXDOMAIN 3

enum { FAMILY_A, FAMILY_AAAA, FAMILIES };

/* One name on its way: the lookups that wait for it, and c-ares' two questions, which hold it until both have
 * ended (c-ares cannot cancel one). Cache hits take this way too, since they are told from its task. */
struct query {
    struct relay_resolver *resolver;
    struct query *next_in_bucket; /* while lookups may still join */
    struct query *prev, *next;    /* of all queries */
    struct relay_lookup *first;
    struct relay_task task;
    struct relay_timer timer;
    uint64_t asked_at, ttl; /* ttl: ns */
    bool may_join, is_told, is_cached;
    int pending; /* questions at c-ares */
    struct question {
        struct query *query;
        int family, status; /* ARES_*; -1 while pending */
    } questions[FAMILIES];
    struct relay_resolution result;
    size_t num_addresses;
    struct relay_address addresses[RELAY_RESOLVER_ADDRESSES_MAX];
    char name[NAME_SIZE];
};

/* A socket of c-ares. */
struct watch {
    struct watch *next;
    ares_socket_t fd;
    struct relay_resolver *resolver;
    struct relay_io *io;
    int events;
};

struct relay_resolver {
    struct relay_loop *loop;
    ares_channel channel;
    bool has_channel, has_library;
    uint64_t timeout;
    struct relay_timer ares_timer;
    struct relay_name_cache cache;
    struct watch *watches;
    struct query *buckets[BUCKETS], *queries;
    size_t num_queries;
    uint64_t seed;
};

/* ---- the queries ---- */

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
    relay_task_cancel(&query->task);
    relay_timer_stop(resolver->loop, &query->timer);
    *(query->prev != NULL ? &query->prev->next : &resolver->queries) = query->next;
    if (query->next != NULL)
        query->next->prev = query->prev;
    resolver->num_queries--;
    free(query);
}

static void free_if_done(struct query *query)
{
    if (query->is_told && query->pending == 0)
        free_query(query);
}

/* Sets what will be told and queues the telling. */
static void conclude(struct query *query, int error, int rcode)
{
    query->result.error = error;
    query->result.rcode = rcode;
    query->result.addresses = query->addresses;
    query->result.num_addresses = error == RELAY_OK ? query->num_addresses : 0;
    relay_timer_stop(query->resolver->loop, &query->timer);
    relay_task_queue(query->resolver->loop, &query->task);
}

static void measure(struct query *query)
{
    struct relay_metrics *metrics = query->resolver->loop->metrics;
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

static void run_task(struct relay_task *task)
{
    struct query *query = (struct query *)((char *)task - offsetof(struct query, task));
    leave_bucket(query); /* who asks from inside a callback begins anew */
    measure(query);
    while (query->first != NULL) {
        struct relay_lookup *lookup = query->first;
        relay_lookup_cancel(lookup);
        lookup->on_resolved(lookup, &query->result);
    }
    query->is_told = true;
    free_if_done(query);
}

/* ---- what c-ares answers ---- */

static int rcode_of(int status)
{
    switch (status) {
    case ARES_SUCCESS:
    case ARES_ENODATA:
        return RCODE_NOERROR;
    case ARES_EFORMERR:
        return 1;
    case ARES_ESERVFAIL:
        return RCODE_SERVFAIL;
    case ARES_ENOTFOUND:
        return RCODE_NXDOMAIN;
    case ARES_ENOTIMP:
        return 4;
    case ARES_EREFUSED:
        return 5;
    default:
        return -1;
    }
}

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

/* Neither family has an address: which of the two answers tells more? A denial first, then silence, then a
 * failure. */
static int worse(int a, int b)
{
    static const int order[] = {ARES_ENOTFOUND, ARES_ETIMEOUT, ARES_ESERVFAIL, ARES_EREFUSED};
    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
        if (a == order[i] || b == order[i])
            return order[i];
    return a == ARES_ENODATA || a == ARES_SUCCESS ? b : a;
}

static void keep(struct query *query, int error, int rcode)
{
    uint64_t lives = query->ttl < TTL_MAX ? query->ttl : TTL_MAX;
    if (error != RELAY_OK)
        lives = rcode == RCODE_NXDOMAIN || rcode == RCODE_NOERROR ? NEGATIVE_TTL : FAILURE_TTL;
    if (error == RELAY_ERR_DNS_TIMEOUT || lives == 0)
        return;
    relay_name_cache_put(&query->resolver->cache, query->name, relay_loop_now(query->resolver->loop) + lives,
                         error, rcode, query->addresses, error == RELAY_OK ? query->num_addresses : 0);
}

static void on_all_answered(struct query *query)
{
    int status = worse(query->questions[FAMILY_A].status, query->questions[FAMILY_AAAA].status);
    int error = query->num_addresses > 0  ? RELAY_OK
                : status == ARES_ETIMEOUT ? RELAY_ERR_DNS_TIMEOUT
                                          : RELAY_ERR_DNS;
    int rcode = error == RELAY_OK ? RCODE_NOERROR : rcode_of(status);
    bool is_queued = relay_task_is_queued(&query->task);
    if (!query->is_told && !is_queued) {
        relay_address_order(query->addresses, query->num_addresses);
        keep(query, error, rcode);
        conclude(query, error, rcode);
    } else if (error == RELAY_OK) {
        /* Told (or about to be) without this family; who asks next gets both. */
        relay_address_order(query->addresses, query->num_addresses);
        keep(query, error, rcode);
        if (query->result.error == RELAY_OK)
            query->result.num_addresses = query->num_addresses;
    }
}

static void on_answer(void *arg, int status, int timeouts, unsigned char *answer, int len)
{
    struct question *question = arg;
    struct query *query = question->query;
    question->status = status == ARES_SUCCESS ? parse_answer(query, question->family, answer, len) : status;
    query->pending--;
    if (status == ARES_EDESTRUCTION)
        return; /* relay_resolver_free goes on */
    if (query->pending == 0)
        on_all_answered(query);
    else if (query->num_addresses > 0 && !query->is_told && !relay_task_is_queued(&query->task))
        relay_timer_set_after(query->resolver->loop, &query->timer, OTHER_FAMILY);
    free_if_done(query);
}

/* Either all took too long, or one family did while the other has answered. */
static void on_timer(struct relay_timer *timer)
{
    struct query *query = (struct query *)((char *)timer - offsetof(struct query, timer));
    if (query->num_addresses > 0) {
        relay_address_order(query->addresses, query->num_addresses);
        conclude(query, RELAY_OK, RCODE_NOERROR);
    } else {
        conclude(query, RELAY_ERR_DNS_TIMEOUT, -1);
    }
}

/* ---- c-ares on the loop ---- */

static void set_ares_timer(struct relay_resolver *resolver)
{
    struct timeval space, *next = ares_timeout(resolver->channel, NULL, &space);
    if (next == NULL)
        relay_timer_stop(resolver->loop, &resolver->ares_timer);
    else
        relay_timer_set_after(resolver->loop, &resolver->ares_timer,
                              (uint64_t)next->tv_sec * RELAY_SECOND + (uint64_t)next->tv_usec * 1000 +
                                  RELAY_MS);
}

static void on_ares_timer(struct relay_timer *timer)
{
    struct relay_resolver *resolver =
        (struct relay_resolver *)((char *)timer - offsetof(struct relay_resolver, ares_timer));
    ares_process_fd(resolver->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    set_ares_timer(resolver);
}

static struct watch **find_watch(struct relay_resolver *resolver, ares_socket_t fd)
{
    struct watch **at = &resolver->watches;
    while (*at != NULL && (*at)->fd != fd)
        at = &(*at)->next;
    return at;
}

static void on_io(void *user, int events)
{
    struct watch *watch = user;
    struct relay_resolver *resolver = watch->resolver;
    ares_socket_t fd = watch->fd;
    bool is_error = events & RELAY_IO_ERROR;
    ares_process_fd(resolver->channel, is_error || (events & RELAY_IO_READ) ? fd : ARES_SOCKET_BAD,
                    is_error || (events & RELAY_IO_WRITE) ? fd : ARES_SOCKET_BAD);
    /* c-ares may have closed it, and then the watch is gone; after an error nothing is armed. */
    struct watch *still = *find_watch(resolver, fd);
    if (still == watch)
        relay_io_arm(still->io, still->events);
    set_ares_timer(resolver);
}

static void on_socket_state(void *arg, ares_socket_t fd, int readable, int writable)
{
    struct relay_resolver *resolver = arg;
    struct watch **at = find_watch(resolver, fd), *watch = *at;
    if (!readable && !writable) {
        if (watch == NULL)
            return;
        *at = watch->next;
        relay_io_free(watch->io);
        free(watch);
        return;
    }
    if (watch == NULL) {
        watch = calloc(1, sizeof(*watch));
        struct relay_io *io = watch != NULL ? relay_io_new(resolver->loop, fd, on_io, watch) : NULL;
        if (io == NULL) { /* unwatched, its questions time out */
            free(watch);
            return;
        }
        *watch = (struct watch){resolver->watches, fd, resolver, io, 0};
        resolver->watches = watch;
    }
    watch->events = (readable ? RELAY_IO_READ : 0) | (writable ? RELAY_IO_WRITE : 0);
    relay_io_arm(watch->io, watch->events);
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
    resolver->num_queries++;
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
    for (int i = 0; i < FAMILIES; i++)
        query->questions[i] = (struct question){query, i, -1};
    for (int i = 0; i < FAMILIES; i++)
        ares_query(resolver->channel, query->name, ns_c_in, types[i], on_answer, &query->questions[i]);
    set_ares_timer(resolver);
}

static void answer_localhost(struct query *query)
{
    static const uint8_t v6[16] = {[15] = 1}, v4[4] = {127, 0, 0, 1};
    query->is_cached = true;
    take_address(query, 6, v6, 0);
    take_address(query, 4, v4, 0);
    conclude(query, RELAY_OK, RCODE_NOERROR);
}

static void answer_from_cache(struct query *query, const struct relay_cached_name *cached)
{
    query->is_cached = true;
    query->num_addresses = cached->num_addresses;
    memcpy(query->addresses, cached->addresses, cached->num_addresses * sizeof(cached->addresses[0]));
    conclude(query, cached->error, cached->rcode);
}

static struct query *begin_query(struct relay_resolver *resolver, const char *name, bool is_valid)
{
    struct query *query = new_query(resolver, name);
    if (query == NULL)
        return NULL;
    const struct relay_cached_name *cached =
        relay_name_cache_get(&resolver->cache, name, relay_loop_now(resolver->loop));
    if (is_localhost(name))
        answer_localhost(query);
    else if (cached != NULL)
        answer_from_cache(query, cached);
    else if (!is_valid || resolver->num_queries > QUERIES_MAX)
        conclude(query, RELAY_ERR_DNS, -1);
    else
        ask_ares(query);
    return query;
}

void relay_resolver_ask(struct relay_resolver *resolver, struct relay_lookup *lookup, const char *name)
{
    char text[NAME_SIZE] = "";
    bool is_valid = normalise(text, name);
    struct query *query = find_query(resolver, text);
    if (query == NULL)
        query = begin_query(resolver, text, is_valid);
    if (query == NULL)
        abort(); /* on_resolved could never come; the kernel overcommits, so this is the end anyway */
    lookup->query = query;
    lookup->prev = NULL;
    lookup->next = query->first;
    if (lookup->next != NULL)
        lookup->next->prev = lookup;
    query->first = lookup;
}

void relay_lookup_cancel(struct relay_lookup *lookup)
{
    struct query *query = lookup->query;
    if (query == NULL)
        return;
    *(lookup->prev != NULL ? &lookup->prev->next : &query->first) = lookup->next;
    if (lookup->next != NULL)
        lookup->next->prev = lookup->prev;
    lookup->query = NULL;
    lookup->prev = lookup->next = NULL;
}

/* ---- life ---- */

/* The library's own counter of initialisations is not safe between threads. */
static pthread_mutex_t library_lock = PTHREAD_MUTEX_INITIALIZER;

static bool begin_library(void)
{
    pthread_mutex_lock(&library_lock);
    bool ok = ares_library_init(ARES_LIB_INIT_ALL) == ARES_SUCCESS;
    pthread_mutex_unlock(&library_lock);
    return ok;
}

static void end_library(void)
{
    pthread_mutex_lock(&library_lock);
    ares_library_cleanup();
    pthread_mutex_unlock(&library_lock);
}

/* NOCHECKRESP: else SERVFAIL and REFUSED come as "connection refused", and the response code is lost. Two
 * tries of 1.5 and 3 seconds fit into the 5 seconds of a lookup. */
static bool begin_channel(struct relay_resolver *resolver, const struct relay_resolver_config *config)
{
    struct ares_options options = {
        .flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES | ARES_FLAG_NOCHECKRESP | ARES_FLAG_EDNS,
        .timeout = (int)(config->timeout * 3 / 10 / RELAY_MS),
        .tries = 2,
        .ednspsz = 1232,
        .socket_receive_buffer_size = 1 << 20,
        .sock_state_cb = on_socket_state,
        .sock_state_cb_data = resolver,
    };
    int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_EDNSPSZ |
               ARES_OPT_SOCK_RCVBUF | ARES_OPT_SOCK_STATE_CB;
    if (ares_init_options(&resolver->channel, &options, mask) != ARES_SUCCESS)
        return false;
    resolver->has_channel = true;
    return config->servers == NULL ||
           ares_set_servers_ports_csv(resolver->channel, config->servers) == ARES_SUCCESS;
}

struct relay_resolver *relay_resolver_new(struct relay_loop *loop, const struct relay_resolver_config *config)
{
    struct relay_resolver *resolver = calloc(1, sizeof(*resolver));
    if (resolver == NULL)
        return NULL;
    resolver->loop = loop;
    resolver->timeout = config->timeout;
    relay_timer_init(&resolver->ares_timer, on_ares_timer);
    resolver->has_library = begin_library();
    bool ok = resolver->has_library &&
              getrandom(&resolver->seed, sizeof(resolver->seed), 0) == sizeof(resolver->seed) &&
              relay_name_cache_init(&resolver->cache, config->cache_names, resolver->seed) == 0 &&
              begin_channel(resolver, config);
    if (!ok) {
        relay_resolver_free(resolver);
        return NULL;
    }
    return resolver;
}

void relay_resolver_free(struct relay_resolver *resolver)
{
    if (resolver->has_channel)
        ares_destroy(resolver->channel); /* ends every question with ARES_EDESTRUCTION */
    while (resolver->queries != NULL)
        free_query(resolver->queries);
    relay_timer_stop(resolver->loop, &resolver->ares_timer);
    relay_name_cache_dispose(&resolver->cache);
    if (resolver->has_library)
        end_library();
    free(resolver);
}

size_t relay_resolver_servers(const struct relay_resolver *resolver, struct relay_address *out, size_t size)
{
    struct ares_addr_port_node *servers = NULL;
    size_t num = 0;
    if (ares_get_servers_ports(resolver->channel, &servers) != ARES_SUCCESS)
        return 0;
    for (struct ares_addr_port_node *at = servers; at != NULL && num < size; at = at->next) {
        out[num] = (struct relay_address){.family = at->family == AF_INET6 ? 6 : 4};
        memcpy(out[num].bytes, &at->addr, at->family == AF_INET6 ? 16 : 4);
        num++;
    }
    ares_free_data(servers);
    return num;
}

const char *relay_rcode_name(int rcode)
{
    return rcode == RCODE_NOERROR ? "NOERROR" : relay_proxy_status_rcode_name(rcode);
}
