#include "lib/net/tcp_dial.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/net/address_order.h"
#include "lib/net/metrics.h"
#include "lib/net/reserve.h"
#include "lib/wire/error.h"

struct attempt {
    struct relay_tcp_dial *dial;
    struct relay_address address;
    struct relay_io *io;
    int fd; /* -1: not begun, or over */
};

struct relay_tcp_dial {
    struct relay_loop *loop;
    struct relay_dial_config config;
    relay_dial_cb cb;
    void *user;
    uint64_t begun_at, attempted_at;
    uint16_t port;
    bool more_follow, is_over; /* is_over: the result is on its way */
    struct relay_timer next_timer, end_timer;
    struct relay_task task;
    size_t num, next, open; /* attempts[next] is the first not begun */
    int error;              /* the most telling one so far */
    struct attempt *winner;
    struct attempt attempts[RELAY_RESOLVER_ADDRESSES_MAX];
};

/* How much an error tells: a target that answers "refused" says more than one that is silent or has no route.
 */
static int weight(int error)
{
    switch (error) {
    case RELAY_OK:
        return 0;
    case RELAY_ERR_UNREACHABLE:
        return 1;
    case RELAY_ERR_TIMEOUT:
        return 2;
    case RELAY_ERR_REFUSED:
        return 3;
    default:
        return 4;
    }
}

static void note_error(struct relay_tcp_dial *dial, int error)
{
    if (weight(error) > weight(dial->error))
        dial->error = error;
}

static int error_of_errno(int number)
{
    switch (number) {
    case ECONNREFUSED:
    case ECONNRESET:
        return RELAY_ERR_REFUSED;
    case ETIMEDOUT:
        return RELAY_ERR_TIMEOUT;
    case EMFILE:
    case ENFILE:
        return RELAY_ERR_NO_DESCRIPTORS;
    case ENOBUFS:
    case ENOMEM:
        return RELAY_ERR_NO_MEMORY;
    default:
        return RELAY_ERR_UNREACHABLE;
    }
}

static void end_attempt(struct attempt *attempt)
{
    relay_io_free(attempt->io);
    attempt->io = NULL;
    if (attempt->fd >= 0) {
        close(attempt->fd);
        attempt->fd = -1;
        attempt->dial->open--;
    }
}

static void stop(struct relay_tcp_dial *dial)
{
    relay_timer_stop(dial->loop, &dial->next_timer);
    relay_timer_stop(dial->loop, &dial->end_timer);
    for (size_t i = 0; i < dial->next; i++)
        if (&dial->attempts[i] != dial->winner)
            end_attempt(&dial->attempts[i]);
}

static void finish(struct relay_tcp_dial *dial, struct attempt *winner)
{
    dial->winner = winner;
    dial->is_over = true;
    if (winner != NULL) {
        relay_io_free(winner->io);
        winner->io = NULL;
    }
    stop(dial);
    relay_task_queue(dial->loop, &dial->task);
}

static void on_io(void *user, int events);

/* RELAY_OK: on its way. */
static int begin_attempt(struct attempt *attempt)
{
    struct relay_tcp_dial *dial = attempt->dial;
    struct sockaddr_storage target;
    socklen_t len = relay_address_to_sockaddr(&attempt->address, dial->port, &target);
    if (len == 0)
        return RELAY_ERR_UNREACHABLE;
    attempt->fd = relay_reserve_socket(target.ss_family, SOCK_STREAM);
    if (attempt->fd < 0)
        return errno == EAFNOSUPPORT ? RELAY_ERR_UNREACHABLE : error_of_errno(errno);
    dial->open++;
    int one = 1, error = 0;
    setsockopt(attempt->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (connect(attempt->fd, (struct sockaddr *)&target, len) != 0 && errno != EINPROGRESS)
        error = error_of_errno(errno);
    else if ((attempt->io = relay_io_new(dial->loop, attempt->fd, on_io, attempt)) == NULL)
        error = RELAY_ERR_NO_MEMORY;
    if (error != 0)
        end_attempt(attempt);
    else
        relay_io_arm(attempt->io, RELAY_IO_WRITE);
    return error;
}

/* Begins the next attempt that does not fail at once. */
static void begin_next(struct relay_tcp_dial *dial)
{
    while (dial->next < dial->num) {
        int error = begin_attempt(&dial->attempts[dial->next++]);
        if (error == RELAY_OK) {
            dial->attempted_at = relay_loop_now(dial->loop);
            if (dial->next < dial->num)
                relay_timer_set_after(dial->loop, &dial->next_timer, dial->config.attempt_delay);
            return;
        }
        note_error(dial, error);
    }
    if (dial->open == 0 && !dial->more_follow)
        finish(dial, NULL);
}

static void on_io(void *user, int events)
{
    struct attempt *attempt = user;
    struct relay_tcp_dial *dial = attempt->dial;
    int number = 0;
    socklen_t len = sizeof(number);
    getsockopt(attempt->fd, SOL_SOCKET, SO_ERROR, &number, &len);
    if (number == 0 && (events & RELAY_IO_WRITE)) {
        finish(dial, attempt);
        return;
    }
    note_error(dial, error_of_errno(number));
    end_attempt(attempt);
    relay_timer_stop(dial->loop, &dial->next_timer);
    begin_next(dial);
}

static void on_next_timer(struct relay_timer *timer)
{
    begin_next((struct relay_tcp_dial *)((char *)timer - offsetof(struct relay_tcp_dial, next_timer)));
}

static void on_end_timer(struct relay_timer *timer)
{
    struct relay_tcp_dial *dial =
        (struct relay_tcp_dial *)((char *)timer - offsetof(struct relay_tcp_dial, end_timer));
    note_error(dial, RELAY_ERR_TIMEOUT);
    finish(dial, NULL);
}

static void run_task(struct relay_task *task)
{
    struct relay_tcp_dial *dial =
        (struct relay_tcp_dial *)((char *)task - offsetof(struct relay_tcp_dial, task));
    struct relay_metrics *metrics = dial->loop->metrics;
    struct relay_address address = {0};
    int fd = -1, error = dial->error;
    if (dial->winner != NULL) {
        fd = dial->winner->fd;
        address = dial->winner->address;
        error = RELAY_OK;
        relay_count(metrics->dial_ok, 1);
        relay_histogram_add(&metrics->dial_seconds, relay_loop_now(dial->loop) - dial->begun_at);
    } else {
        relay_count(metrics->dial_failed, 1);
    }
    relay_dial_cb cb = dial->cb;
    void *user = dial->user;
    free(dial);
    cb(user, fd, fd >= 0 ? &address : NULL, error);
}

/* Those not tried yet and the new ones take turns; the family that was not tried last begins. */
static void merge(struct relay_tcp_dial *dial, const struct relay_address *addresses, size_t num)
{
    struct relay_address waiting[RELAY_RESOLVER_ADDRESSES_MAX];
    size_t next = dial->next, room = RELAY_RESOLVER_ADDRESSES_MAX - dial->num, count = 0;
    num = num < room ? num : room;
    for (size_t i = 0; i < num; i++)
        waiting[count++] = addresses[i];
    for (size_t i = next; i < dial->num; i++)
        waiting[count++] = dial->attempts[i].address;
    relay_address_interleave(waiting, count);
    for (size_t i = 0; i < count; i++)
        dial->attempts[next + i] = (struct attempt){.dial = dial, .address = waiting[i], .fd = -1};
    dial->num = next + count;
}

struct relay_tcp_dial *relay_tcp_dial_start(struct relay_loop *loop, const struct relay_dial_config *config,
                                            const struct relay_address *addresses, size_t num_addresses,
                                            bool more_follow, uint16_t port, relay_dial_cb cb, void *user)
{
    struct relay_tcp_dial *dial = calloc(1, sizeof(*dial));
    if (dial == NULL)
        return NULL;
    dial->loop = loop;
    dial->config = *config;
    dial->cb = cb;
    dial->user = user;
    dial->begun_at = relay_loop_now(loop);
    dial->port = port;
    dial->more_follow = more_follow;
    relay_timer_init(&dial->next_timer, on_next_timer);
    relay_timer_init(&dial->end_timer, on_end_timer);
    relay_task_init(&dial->task, RELAY_LEVEL_EVENT, run_task);
    relay_timer_set_after(loop, &dial->end_timer, config->timeout);
    if (num_addresses == 0)
        dial->error = RELAY_ERR_UNREACHABLE;
    merge(dial, addresses, num_addresses);
    begin_next(dial);
    return dial;
}

void relay_tcp_dial_add(struct relay_tcp_dial *dial, const struct relay_address *addresses,
                        size_t num_addresses)
{
    dial->more_follow = false;
    if (dial->is_over)
        return;
    merge(dial, addresses, num_addresses);
    if (dial->open == 0)
        begin_next(dial);
    else if (dial->next < dial->num)
        relay_timer_set(dial->loop, &dial->next_timer, dial->attempted_at + dial->config.attempt_delay);
}

void relay_tcp_dial_cancel(struct relay_tcp_dial *dial)
{
    relay_task_cancel(&dial->task);
    stop(dial);
    if (dial->winner != NULL)
        end_attempt(dial->winner);
    free(dial);
}
