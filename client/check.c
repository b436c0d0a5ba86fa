#include "client/check.h"

#include <string.h>

#include "lib/wire/error.h"

#define ANSWER_TIMEOUT (10 * RELAY_SECOND)
#define GOODBYE        (10 * RELAY_MS)

struct check {
    struct relay_hop_environment *environment;
    const struct relay_client_config *config;
    FILE *out;
    struct relay_hop *hops[RELAY_HOPS_MAX]; /* NULL: not connected, or gone */
    struct relay_hop_trust trusts[RELAY_HOPS_MAX];
    bool is_done; /* what is being waited for has come */
    struct relay_failure failure;
    struct relay_timer timer;
    struct relay_tunnel *tunnel;
    int error;
    char verdict[160];
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
    done(user);
}

static void on_ignored(void *user)
{
    (void)user;
}

static void on_close(void *user, const struct relay_failure *failure)
{
    struct check *check = user;
    for (size_t i = 0; i < check->config->num_hops; i++)
        if (check->hops[i] != NULL && relay_hop_number(check->hops[i]) == failure->hop)
            check->hops[i] = NULL;
    check->failure = *failure;
    done(check);
}

static const struct relay_hop_user hop_cb = {
    .on_ready = on_ready, .on_path_lost = on_ignored, .on_goaway = on_ignored, .on_close = on_close};

static int connect_place(struct check *check, unsigned number, size_t place)
{
    const struct relay_hop_config *config = &check->config->hops[number - 1];
    uint64_t start = relay_loop_now(check->environment->loop);
    struct relay_hop_params params = {
        .environment = check->environment,
        .config = config,
        .trust = &check->trusts[number - 1],
        .place = place,
        .number = number,
        .is_last = number == check->config->num_hops,
        .carrier = number > 1 ? check->hops[number - 2] : NULL,
    };
    check->failure.error = RELAY_OK;
    struct relay_hop *hop = relay_hop_new(&params, &hop_cb, check);
    if (hop == NULL)
        return RELAY_ERR_NO_MEMORY;
    wait_until_done(check);
    if (check->failure.error != RELAY_OK) {
        fprintf(check->out, "hop %u  %-28s FAILED after %llu ms: %s\n", number,
                config->places[place].authority, since(check, start), check->failure.text);
        return check->failure.error;
    }
    fprintf(check->out, "hop %u  %-28s ok, HTTP/%d, TLS and certificate good, %llu ms%s\n", number,
            config->places[place].authority, relay_hop_session(hop)->version >> 8, since(check, start),
            number > 1 ? ", token of the hop before accepted" : "");
    if (check->hops[number - 1] != NULL)
        relay_hop_close(check->hops[number - 1]);
    check->hops[number - 1] = hop;
    return 0;
}

/* All ingresses of hop 1 are tried; one of them suffices to go on. */
static int connect_hop(struct check *check, unsigned number)
{
    int error = 0;
    for (size_t place = 0; place < check->config->hops[number - 1].num_places; place++) {
        int code = connect_place(check, number, place);
        error = code != 0 ? code : error;
    }
    return error;
}

/* ---- one tunnel ---- */

static void judge(struct check *check, int error, const char *why)
{
    bool is_bad = error == RELAY_ERR_UNAUTHORIZED || error == RELAY_ERR_TOO_MANY_FAILURES ||
                  error == RELAY_ERR_UNSUPPORTED || error == RELAY_ERR_INVALID || error == RELAY_ERR_TIMEOUT;
    check->error = is_bad ? error : RELAY_OK;
    if (is_bad)
        snprintf(check->verdict, sizeof(check->verdict), "FAILED: %s", why);
    else
        snprintf(check->verdict, sizeof(check->verdict), "ok, token accepted");
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
        relay_refusal_print(&refusal, why, sizeof(why));
    }
    judge(check, refusal.error, why);
    relay_tunnel_abort(check->tunnel, RELAY_ERR_CANCELLED);
}

static void on_tunnel_close(void *user, int error)
{
    struct check *check = user;
    if (check->verdict[0] == '\0') {
        check->error = error != RELAY_OK ? error : RELAY_ERR_CLOSED;
        snprintf(check->verdict, sizeof(check->verdict), "FAILED: %s", relay_error_text(check->error));
    }
    done(check);
}

static const struct relay_tunnel_user tunnel_cb = {.on_response = on_response, .on_close = on_tunnel_close};

static void on_timer(struct relay_timer *timer)
{
    struct check *check = (struct check *)((char *)timer - offsetof(struct check, timer));
    judge(check, RELAY_ERR_TIMEOUT, "no answer in 10 s");
    relay_tunnel_abort(check->tunnel, RELAY_ERR_CANCELLED);
}

static int open_tunnel(struct check *check, bool is_udp)
{
    static const char name[] = "twohop-check.invalid";
    struct relay_hop *last = check->hops[check->config->num_hops - 1];
    struct relay_host host;
    uint64_t start = relay_loop_now(check->environment->loop);
    relay_host_parse(&host, name, sizeof(name) - 1, RELAY_HOST_BARE);
    check->verdict[0] = '\0';
    check->tunnel = relay_hop_open(last, is_udp, &host, 443, &tunnel_cb, check);
    if (check->tunnel == NULL) {
        check->error = RELAY_ERR_LIMIT;
        snprintf(check->verdict, sizeof(check->verdict), "FAILED: the connection takes no request");
    } else {
        relay_timer_set_after(check->environment->loop, &check->timer, ANSWER_TIMEOUT);
        wait_until_done(check);
        relay_timer_stop(check->environment->loop, &check->timer);
    }
    fprintf(check->out, "%s    %-28s %s, %llu ms\n", is_udp ? "UDP" : "TCP",
            is_udp ? "CONNECT-UDP at the last hop" : "CONNECT at the last hop", check->verdict,
            since(check, start));
    return check->error;
}

/* ---- all ---- */

static int init_trusts(struct check *check)
{
    char reason[256];
    for (size_t i = 0; i < check->config->num_hops; i++) {
        int error = relay_hop_trust_init(&check->trusts[i], &check->config->hops[i], reason, sizeof(reason));
        if (error != 0) {
            fprintf(check->out, "hop %zu  %-28s FAILED: %s\n", i + 1,
                    check->config->hops[i].places[0].authority, reason);
            return error;
        }
    }
    return 0;
}

static void on_goodbye(struct relay_timer *timer)
{
    done((struct check *)((char *)timer - offsetof(struct check, goodbye)));
}

/* The farewell of a hop travels through the hop before, which must live until it has gone out. */
static void say_goodbye(struct check *check)
{
    relay_timer_init(&check->goodbye, on_goodbye);
    for (size_t i = check->config->num_hops; i > 0; i--) {
        if (check->hops[i - 1] == NULL)
            continue;
        relay_hop_close(check->hops[i - 1]);
        relay_timer_set_after(check->environment->loop, &check->goodbye, GOODBYE);
        wait_until_done(check);
    }
}

int relay_check_run(struct relay_hop_environment *environment, const struct relay_client_config *config,
                    FILE *out)
{
    struct check check = {.environment = environment, .config = config, .out = out};
    relay_timer_init(&check.timer, on_timer);
    int error = init_trusts(&check), first_error = error;
    for (unsigned number = 1; error == 0 && number <= config->num_hops; number++) {
        int code = connect_hop(&check, number);
        first_error = first_error == 0 ? code : first_error;
        error = check.hops[number - 1] == NULL ? code : 0;
    }
    for (int is_udp = 0; error == 0 && is_udp < 2; is_udp++) {
        int code = open_tunnel(&check, is_udp);
        first_error = first_error == 0 ? code : first_error;
    }
    say_goodbye(&check);
    for (size_t i = 0; i < config->num_hops; i++)
        relay_hop_trust_dispose(&check.trusts[i]);
    fprintf(out, "%s\n", first_error == 0 ? "the chain works" : "the chain does not work");
    return first_error;
}
