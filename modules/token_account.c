#include "modules/token_account.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "lib/net/loop.h"
#include "lib/wire/error.h"

#define BUCKETS    4096
#define CACHE_LINE 64
#define BURST      RELAY_SECOND /* the allowance of so long may be spent at once */
#define SHARE      8            /* a token that has more than one of so many of what is left gets no more */
#define BATCH      (RELAY_SECOND / 256) /* a worker's lease, and how long it waits when nothing was left */

/* What a worker has taken and not spent. */
struct credit {
    size_t left;
    uint64_t again_at; /* not to ask before */
};

struct lease {
    struct credit packets, bytes;
} __attribute__((aligned(CACHE_LINE)));

struct relay_token_account {
    struct relay_token_account *next; /* in its bucket */
    uint32_t tunnels, holds;
    enum { UNJUDGED, LISTED, REVOKED } standing; /* atomic; of the last judgement */
    char name[RELAY_TOKEN_NAME_MAX + 1];
    /* Atomic. All that has been taken so far is paid for at this time (ns); up to BURST before now counts. */
    uint64_t packets_paid_at __attribute__((aligned(CACHE_LINE))), bytes_paid_at;
    struct lease leases[]; /* one per worker, who alone touches it */
};

struct relay_token_accounts {
    pthread_mutex_t lock; /* the table, `tunnels`, and `tunnels` and `holds` of every account */
    unsigned num_workers;
    uint64_t seed;
    uint32_t descriptors, tunnels;
    struct relay_token_account *buckets[BUCKETS];
};

struct relay_token_accounts *relay_token_accounts_new(unsigned num_workers, uint32_t descriptors)
{
    struct relay_token_accounts *accounts = calloc(1, sizeof(*accounts));
    if (accounts == NULL)
        return NULL;
    pthread_mutex_init(&accounts->lock, NULL);
    accounts->num_workers = num_workers;
    accounts->descriptors = descriptors;
    if (getrandom(&accounts->seed, sizeof(accounts->seed), 0) != sizeof(accounts->seed))
        accounts->seed = (uint64_t)(uintptr_t)accounts;
    return accounts;
}

uint64_t relay_token_accounts_seed(const struct relay_token_accounts *accounts)
{
    return accounts->seed;
}

void relay_token_accounts_free(struct relay_token_accounts *accounts)
{
    if (accounts == NULL)
        return;
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct relay_token_account *account = accounts->buckets[i], *next; account != NULL;
             account = next) {
            next = account->next;
            free(account);
        }
    pthread_mutex_destroy(&accounts->lock);
    free(accounts);
}

/* ---- tunnels ---- */

/* Token names come from the operator's file, and the others are made of keyed hashes: no one can choose them to collide. */
static size_t hash_name(const char *name)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (; *name != '\0'; name++)
        hash = (hash ^ (uint8_t)*name) * 0x100000001b3;
    return (hash ^ (hash >> 32)) % BUCKETS;
}

static bool is_spent(const struct relay_token_account *account, uint64_t now)
{
    return account->tunnels > 0 || account->holds > 0 ||
           __atomic_load_n(&account->packets_paid_at, __ATOMIC_RELAXED) + BURST > now ||
           __atomic_load_n(&account->bytes_paid_at, __ATOMIC_RELAXED) + BURST > now;
}

/* The account of the name, and on the way to it frees those that nothing need be known of any more. */
static struct relay_token_account *find(struct relay_token_account **slot, const char *name, uint64_t now)
{
    struct relay_token_account *found = NULL, *account;
    while ((account = *slot) != NULL) {
        if (strcmp(account->name, name) == 0) {
            found = account;
        } else if (!is_spent(account, now)) {
            *slot = account->next;
            free(account);
            continue;
        }
        slot = &account->next;
    }
    return found;
}

static struct relay_token_account *add(struct relay_token_accounts *accounts,
                                       struct relay_token_account **slot, const char *name)
{
    struct relay_token_account *account;
    size_t size = sizeof(*account) + accounts->num_workers * sizeof(account->leases[0]);
    account = aligned_alloc(CACHE_LINE, size);
    if (account == NULL)
        return NULL;
    memset(account, 0, size);
    strncpy(account->name, name, sizeof(account->name) - 1);
    account->next = *slot;
    *slot = account;
    return account;
}

static bool has_share(const struct relay_token_accounts *accounts, const struct relay_token_account *account)
{
    uint32_t taken = accounts->tunnels < accounts->descriptors ? accounts->tunnels : accounts->descriptors;
    uint32_t left = accounts->descriptors - taken;
    return taken < accounts->descriptors / 2 || account->tunnels <= left / SHARE;
}

int relay_token_account_take(struct relay_token_accounts *accounts, const char *name, uint32_t max,
                             uint64_t now, struct relay_token_account **taken)
{
    struct relay_token_account **slot = &accounts->buckets[hash_name(name)];
    int error = 0;
    pthread_mutex_lock(&accounts->lock);
    struct relay_token_account *account = find(slot, name, now);
    if (account == NULL)
        account = add(accounts, slot, name);
    if (account == NULL)
        error = RELAY_ERR_NO_MEMORY;
    else if ((max > 0 && account->tunnels >= max) || !has_share(accounts, account))
        error = RELAY_ERR_LIMIT;
    if (error == 0) {
        account->tunnels++;
        accounts->tunnels++;
    }
    pthread_mutex_unlock(&accounts->lock);
    *taken = error == 0 ? account : NULL;
    return error;
}

void relay_token_account_release(struct relay_token_accounts *accounts, struct relay_token_account *account)
{
    pthread_mutex_lock(&accounts->lock);
    account->tunnels--;
    accounts->tunnels--;
    pthread_mutex_unlock(&accounts->lock);
}

void relay_token_account_hold(struct relay_token_accounts *accounts, struct relay_token_account *account)
{
    pthread_mutex_lock(&accounts->lock);
    account->holds++;
    pthread_mutex_unlock(&accounts->lock);
}

void relay_token_account_let_go(struct relay_token_accounts *accounts, struct relay_token_account *account)
{
    pthread_mutex_lock(&accounts->lock);
    account->holds--;
    pthread_mutex_unlock(&accounts->lock);
}

/* ---- revocation ---- */

static void set_standing(struct relay_token_account *account, int standing)
{
    __atomic_store_n(&account->standing, standing, __ATOMIC_RELAXED);
}

static bool is_list(const struct relay_token_file *tokens)
{
    return tokens->count > 0 || tokens->is_none;
}

void relay_token_accounts_judge(struct relay_token_accounts *accounts, const struct relay_token_file *tokens)
{
    struct relay_token_account *account;
    pthread_mutex_lock(&accounts->lock);
    for (size_t i = 0; i < BUCKETS; i++)
        for (account = accounts->buckets[i]; account != NULL; account = account->next)
            set_standing(account, is_list(tokens) ? REVOKED : LISTED);
    for (size_t i = 0; i < tokens->count; i++)
        for (account = accounts->buckets[hash_name(tokens->entries[i].name)]; account != NULL;
             account = account->next)
            if (strcmp(account->name, tokens->entries[i].name) == 0)
                set_standing(account, LISTED);
    pthread_mutex_unlock(&accounts->lock);
}

bool relay_token_account_is_revoked(const struct relay_token_account *account,
                                    const struct relay_token_file *tokens)
{
    const int standing = __atomic_load_n(&account->standing, __ATOMIC_RELAXED);
    if (standing != UNJUDGED || !is_list(tokens))
        return standing == REVOKED;
    for (size_t i = 0; i < tokens->count; i++)
        if (strcmp(account->name, tokens->entries[i].name) == 0)
            return false;
    return true;
}

/* ---- datagrams ---- */

/* Up to `want` units of what the time since *paid_at has earned. */
static size_t draw(uint64_t *paid_at, double rate, size_t want, uint64_t now)
{
    uint64_t paid = __atomic_load_n(paid_at, __ATOMIC_RELAXED), from;
    size_t got;
    do {
        from = paid + BURST > now ? paid : now - BURST;
        double earned = now > from ? (double)(now - from) * rate / (double)RELAY_SECOND : 0;
        got = earned < (double)want ? (size_t)earned : want;
        if (got == 0)
            return 0;
    } while (!__atomic_compare_exchange_n(paid_at, &paid,
                                          from + (uint64_t)((double)got / rate * (double)RELAY_SECOND), true,
                                          __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return got;
}

/* Asks for what is missing, a batch at least. */
static void fill(struct credit *credit, uint64_t *paid_at, size_t rate, size_t need, uint64_t now)
{
    if (rate == 0 || credit->left >= need || now < credit->again_at)
        return;
    size_t batch = rate / (RELAY_SECOND / BATCH), missing = need - credit->left;
    credit->left += draw(paid_at, (double)rate, missing > batch ? missing : batch, now);
    if (credit->left < need)
        credit->again_at = now + BATCH;
}

size_t relay_token_lease_take(struct relay_token_account *account, unsigned worker,
                              const struct relay_token_rate *rate, size_t count, size_t segment, size_t len,
                              uint64_t now)
{
    struct lease *lease = &account->leases[worker];
    fill(&lease->packets, &account->packets_paid_at, rate->packets, count, now);
    fill(&lease->bytes, &account->bytes_paid_at, rate->bytes, len, now);
    size_t passed = count;
    if (rate->packets > 0 && lease->packets.left < passed)
        passed = lease->packets.left;
    if (rate->bytes > 0 && lease->bytes.left < len && lease->bytes.left / segment < passed)
        passed = lease->bytes.left / segment;
    if (rate->packets > 0)
        lease->packets.left -= passed;
    if (rate->bytes > 0)
        lease->bytes.left -= passed == count ? len : passed * segment;
    return passed;
}
