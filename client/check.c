#include "client/check.h"

#include <string.h>

#include "lib/wire/error.h"

#define ANSWER_TIMEOUT (10 * RELAY_SECOND)
#define GOODBYE        (10 * RELAY_MS)
#define GOODBYE_MAX    (1 * RELAY_SECOND)

struct hop {
    struct check *check;
    struct relay_hop *hop; /* NULL: none, or gone */
};

struct check {
    struct relay_hop_environment *environment;
    const struct relay_client_config *config;
    const struct relay_host *target; /* NULL: the name that cannot exist */
    uint16_t port;
    FILE *out;
    size_t place; /* of hop 1, the one that is tried */
    struct hop hops[RELAY_HOPS_MAX];
    struct relay_hop_trust trusts[RELAY_HOPS_MAX];
    bool is_done; /* what is being waited for has come */
    struct relay_failure failure;
    struct relay_timer timer;
    struct relay_tunnel *tunnel;
    unsigned tokenless; /* relay_hop_tokenless of the last hop */
    int error;
    char verdict[160];
    bool is_target_fault; /* `error` is what the last hop says of the target, not of us */
    char answer[120];     /* the first such, in words */
    struct relay_timer goodbye;
};

static void done(struct check *check)
{
    check->is_done = true;
    relay_loop_stop(check->environment->loop);
}

static void wait_until_done(struct check *check)
{
    while (!check->is_done)
        relay_loop_run(check->environment->loop);
    check->is_done = false;
}

static unsigned long long since(struct check *check, uint64_t start)
{
    return (relay_loop_now(check->environment->loop) - start) / RELAY_MS;
}

/* ---- one hop ---- */

static void on_ready(void *user)
{
    struct hop *hop = user;
    done(hop->check);
}

static void on_path_lost(void *user, const struct relay_failure *failure)
{
    (void)user;
    (void)failure;
}

/* Its end follows, or the check is over before. */
static void on_goaway(void *user, const struct relay_failure *failure)
{
    (void)user;
    (void)failure;
}

/* Its memory goes: the hops that are, or are being, connected through it end with it. */
static void on_close(void *user, const struct relay_failure *failure)
{
    struct hop *hop = user;
    struct check *check = hop->check;
    hop->hop = NULL;
    for (struct hop *above = hop + 1; above < check->hops + RELAY_HOPS_MAX; above++) {
        if (above->hop != NULL)
            relay_hop_close(above->hop);
        above->hop = NULL;
    }
    check->failure = *failure;
    done(check);
}

static const struct relay_hop_user hop_cb = {
    .on_ready = on_ready, .on_path_lost = on_path_lost, .on_goaway = on_goaway, .on_close = on_close};

static const struct relay_hop_place *place_of(const struct check *check, unsigned number)
{
    return &check->config->hops[number - 1].places[number == 1 ? check->place : 0];
}

/* Whose fault it is that hop `number` could not be connected: its own, or that of a hop which should have carried it. */
static int say_failure(struct check *check, unsigned number, unsigned long long took)
{
    const struct relay_failure *failure = &check->failure;
    unsigned blamed = failure->hop > 0 && failure->hop < number ? failure->hop : number;
    fprintf(check->out, "hop %u  %-28s FAILED after %llu ms: %s\n", blamed,
            place_of(check, blamed)->authority, took, failure->text);
    if (blamed < number)
        fprintf(check->out, "hop %u  %-28s not reached\n", number, place_of(check, number)->authority);
    return failure->error;
}

/* What the hop before says of our token shows when it lets this one be connected. */
static int connect_hop(struct check *check, unsigned number)
{
    uint64_t start = relay_loop_now(check->environment->loop);
    struct hop *hop = &check->hops[number - 1], *before = number > 1 ? hop - 1 : NULL;
    bool is_tokenless = before != NULL && relay_hop_tokenless(before->hop) != 0;
    struct relay_hop_params params = {
        .environment = check->environment,
        .config = &check->config->hops[number - 1],
        .trust = &check->trusts[number - 1],
        .place = number == 1 ? check->place : 0,
        .number = number,
        .is_last = number == check->config->num_hops,
        .carrier = before != NULL ? before->hop : NULL,
    };
    check->failure.error = RELAY_OK;
    hop->check = check;
    hop->hop = relay_hop_new(&params, &hop_cb, hop);
    if (hop->hop == NULL)
        return RELAY_ERR_NO_MEMORY;
    wait_until_done(check);
    if (check->failure.error != RELAY_OK)
        return say_failure(check, number, since(check, start));
    if (before != NULL)
        fprintf(check->out, "hop %u  %-28s ok, %s, lets hop %u pass\n", number - 1,
                place_of(check, number - 1)->authority,
                is_tokenless ? "no token asked for" : "token accepted", number);
    fprintf(check->out, "hop %u  %-28s ok, HTTP/%d, TLS and certificate good, %llu ms\n", number,
            place_of(check, number)->authority, relay_hop_session(hop->hop)->version >> 8,
            since(check, start));
    return 0;
}

/* ---- one tunnel ---- */

/* A relay that has something to say of the target lets us pass. */
static bool is_about_target(int error)
{
    return error == RELAY_ERR_DNS || error == RELAY_ERR_DNS_TIMEOUT || error == RELAY_ERR_REFUSED ||
           error == RELAY_ERR_UNREACHABLE;
}

/* Asked for a name that cannot exist, that is all we want to hear. */
static bool is_good(const struct check *check, int error)
{
    return error == RELAY_OK || (check->target == NULL && is_about_target(error));
}

/* is_answer: the last hop says so. */
static void judge(struct check *check, int error, const char *why, bool is_answer)
{
    bool is_policy = error == RELAY_ERR_DENIED || error == RELAY_ERR_ADDRESS_PROHIBITED;
    bool is_reached = check->target != NULL && (is_about_target(error) || error == RELAY_ERR_TIMEOUT);
    check->is_target_fault = is_answer && (is_policy || is_reached);
    if (check->is_target_fault && check->answer[0] == '\0')
        snprintf(check->answer, sizeof(check->answer), "%s", why);
    check->error = is_good(check, error) ? RELAY_OK : error;
    if (check->error != RELAY_OK)
        snprintf(check->verdict, sizeof(check->verdict), "FAILED: %s%s", why,
                 is_policy && check->target == NULL ? "; name a target that it allows with --target" : "");
    else
        snprintf(check->verdict, sizeof(check->verdict), "ok, %s",
                 check->target != NULL   ? "connected"
                 : check->tokenless != 0 ? "no token asked for"
                                         : "token accepted");
}

static void on_response(void *user, const struct relay_response *response)
{
    struct check *check = user;
    struct relay_refusal refusal = {.error = RELAY_OK};
    char why[120] = "";
    if (response->status < 200)
        return;
    if (response->status >= 300) {
        relay_refusal_read(&refusal, response);
        relay_refusal_print(&refusal, check->tokenless, why, sizeof(why));
    }
    judge(check, refusal.error, why, true);
    relay_tunnel_abort(check->tunnel, RELAY_ERR_CANCELLED);
}

static void on_tunnel_close(void *user, int error)
{
    struct check *check = user;
    if (check->verdict[0] == '\0') {
        check->error = check->failure.error != RELAY_OK ? check->failure.error
                       : error != RELAY_OK              ? error
                                                        : RELAY_ERR_CLOSED;
        snprintf(check->verdict, sizeof(check->verdict), "FAILED: %s", relay_error_text(check->error));
    }
    check->tunnel = NULL;
    relay_timer_stop(check->environment->loop, &check->timer);
    done(check);
}

static const struct relay_tunnel_user tunnel_cb = {.on_response = on_response, .on_close = on_tunnel_close};

static void on_timer(struct relay_timer *timer)
{
    struct check *check = (struct check *)((char *)timer - offsetof(struct check, timer));
    judge(check, RELAY_ERR_TIMEOUT, "no answer in 10 s", false);
    relay_tunnel_abort(check->tunnel, RELAY_ERR_CANCELLED);
}

static int open_tunnel(struct check *check, bool is_udp)
{
    static const char name[] = "twohop-check.invalid";
    struct relay_hop *last = check->hops[check->config->num_hops - 1].hop;
    struct relay_host host;
    uint64_t start = relay_loop_now(check->environment->loop);
    relay_host_parse(&host, name, sizeof(name) - 1, RELAY_HOST_BARE);
    if (check->target != NULL)
        host = *check->target;
    check->verdict[0] = '\0';
    check->is_target_fault = false;
    if (last != NULL) {
        check->tokenless = relay_hop_tokenless(last);
        check->tunnel =
            relay_hop_open(last, is_udp, &host, check->target != NULL ? check->port : 443, &tunnel_cb, check);
    }
    if (check->tunnel != NULL) {
        relay_timer_set_after(check->environment->loop, &check->timer, ANSWER_TIMEOUT);
        while (check->tunnel != NULL) /* a hop's end is none of it */
            wait_until_done(check);
    } else if (last != NULL) {
        check->error = RELAY_ERR_LIMIT;
        snprintf(check->verdict, sizeof(check->verdict), "FAILED: the connection takes no request");
    } else {
        check->error = check->failure.error;
        snprintf(check->verdict, sizeof(check->verdict), "FAILED: the connection was lost");
    }
    fprintf(check->out, "%s    %-28s %s, %llu ms\n", is_udp ? "UDP" : "TCP",
            is_udp ? "CONNECT-UDP at the last hop" : "CONNECT at the last hop", check->verdict,
            since(check, start));
    return check->error;
}

/* ---- all ---- */

static int init_trusts(struct check *check)
{
    int error = 0;
    for (size_t i = 0; i < check->config->num_hops && error == 0; i++) {
        const struct relay_hop_config *config = &check->config->hops[i];
        error = relay_hop_trust_init(&check->trusts[i], config, (unsigned)i + 1, &check->failure);
        if (error != 0)
            fprintf(check->out, "%s\n", check->failure.text);
    }
    return error;
}

static void on_goodbye(struct relay_timer *timer)
{
    done((struct check *)((char *)timer - offsetof(struct check, goodbye)));
}

/* The farewell of a hop travels through the hop before, which must live until it has gone out. */
static void say_goodbye(struct check *check)
{
    size_t left = 0;
    for (size_t i = 0; i < check->config->num_hops; i++)
        left += check->hops[i].hop != NULL;
    relay_timer_init(&check->goodbye, on_goodbye);
    for (size_t i = check->config->num_hops; i > 0; i--) {
        if (check->hops[i - 1].hop == NULL)
            continue;
        relay_hop_close(check->hops[i - 1].hop);
        check->hops[i - 1].hop = NULL;
        left--;
        uint64_t until = relay_loop_now(check->environment->loop) + GOODBYE_MAX;
        do {
            relay_timer_set_after(check->environment->loop, &check->goodbye, GOODBYE);
            wait_until_done(check);
        } while (check->environment->num_hops > left && relay_loop_now(check->environment->loop) < until);
    }
}

/* The whole chain, through one ingress, as far as it goes. Returns whether it works, whatever the target says;
 * *error keeps the first one of either. */
static bool try_ingress(struct check *check, size_t place, int *error)
{
    int code = 0;
    check->place = place;
    for (unsigned number = 1; code == 0 && number <= check->config->num_hops; number++)
        code = connect_hop(check, number);
    bool works = code == 0, is_connected = works;
    for (int i = 0; i < 2 && is_connected; i++) {
        int refused = open_tunnel(check, i > 0);
        works = works && (refused == 0 || check->is_target_fault);
        code = code == 0 ? refused : code;
    }
    say_goodbye(check);
    *error = *error == 0 ? code : *error;
    return works;
}

static void conclude(struct check *check, size_t num_good)
{
    char target[RELAY_AUTHORITY_SIZE];
    size_t num_places = check->config->hops[0].num_places;
    if (num_good == num_places || num_good == 0)
        fprintf(check->out, "the chain %s", num_good > 0 ? "works" : "does not work");
    else
        fprintf(check->out, "the chain works through %zu of %zu ingresses", num_good, num_places);
    if (num_good > 0 && check->answer[0] != '\0' && check->target == NULL) {
        fprintf(check->out,
                ", but its last hop refuses what is asked for without --target, a name at port 443: %s",
                check->answer);
    } else if (num_good > 0 && check->answer[0] != '\0') {
        relay_authority_write(check->target, check->port, target, sizeof(target));
        fprintf(check->out, ", but not to %s: %s", target, check->answer);
    }
    fputc('\n', check->out);
}

int relay_check_run(struct relay_hop_environment *environment, const struct relay_client_config *config,
                    const struct relay_host *target, uint16_t port, FILE *out)
{
    struct check check = {
        .environment = environment, .config = config, .target = target, .port = port, .out = out};
    size_t num_places = config->hops[0].num_places, num_good = 0;
    relay_timer_init(&check.timer, on_timer);
    int error = init_trusts(&check);
    bool can_begin = error == 0;
    for (size_t place = 0; can_begin && place < num_places; place++)
        num_good += try_ingress(&check, place, &error);
    for (size_t i = 0; i < config->num_hops; i++)
        relay_hop_trust_dispose(&check.trusts[i]);
    conclude(&check, num_good);
    return error;
}
