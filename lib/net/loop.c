#include "lib/net/loop.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/wire/error.h"

struct relay_scratch {
    struct relay_scratch *below;
    uint8_t headroom[RELAY_HEADROOM], bytes[RELAY_SCRATCH_SIZE];
};

struct relay_io {
    uv_poll_t poll; /* first: its data is ours */
    relay_io_cb cb;
    void *user;
    int armed;
    bool freed;
};

/* ---- time ---- */

uint64_t relay_loop_clock(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * RELAY_SECOND + (uint64_t)at.tv_nsec;
}

uint64_t relay_loop_now(struct relay_loop *loop)
{
    if (loop->now_is_stale) {
        loop->now = relay_loop_clock();
        loop->now_is_stale = false;
    }
    return loop->now;
}

/* ---- tasks: intrusive circular lists ---- */

static void list_init(struct relay_task *head)
{
    head->prev = head->next = head;
}

static bool list_is_empty(const struct relay_task *head)
{
    return head->next == head;
}

static void list_append(struct relay_task *head, struct relay_task *task)
{
    task->prev = head->prev;
    task->next = head;
    head->prev->next = task;
    head->prev = task;
}

void relay_task_init(struct relay_task *task, enum relay_level level, void (*run)(struct relay_task *task))
{
    *task = (struct relay_task){.run = run, .level = (uint8_t)level};
}

bool relay_task_is_queued(const struct relay_task *task)
{
    return task->next != NULL;
}

void relay_task_cancel(struct relay_task *task)
{
    if (!relay_task_is_queued(task))
        return;
    task->prev->next = task->next;
    task->next->prev = task->prev;
    task->prev = task->next = NULL;
}

void relay_task_queue(struct relay_loop *loop, struct relay_task *task)
{
    if (relay_task_is_queued(task))
        return;
    assert(task->level < RELAY_LEVELS);
    list_append(&loop->levels[task->level], task);
}

static void on_idle(uv_idle_t *idle)
{
    (void)idle; /* its being active is its purpose: the poll does not block */
}

void relay_task_defer(struct relay_loop *loop, struct relay_task *task)
{
    if (relay_task_is_queued(task))
        return;
    list_append(&loop->deferred, task);
    uv_idle_start(&loop->idle, on_idle);
}

bool relay_loop_has_time(struct relay_loop *loop)
{
    uint64_t now = relay_loop_clock();
    if (loop->slice_end == 0)
        loop->slice_end = now + RELAY_TURN_SLICE;
    return now < loop->slice_end;
}

/* Lowest level first; a task that queues one of a lower level is followed by that one. */
static void run_tasks(struct relay_loop *loop)
{
    for (int level = 0; level < RELAY_LEVELS;) {
        struct relay_task *head = &loop->levels[level];
        if (list_is_empty(head)) {
            level++;
            continue;
        }
        struct relay_task *task = head->next;
        relay_task_cancel(task);
        task->run(task);
        level = 0;
    }
}

/* Before the poll: what was deferred until now is due after it. What is deferred during it waits for the
 * next. */
static void mark_due(struct relay_loop *loop)
{
    while (!list_is_empty(&loop->deferred)) {
        struct relay_task *task = loop->deferred.next;
        relay_task_cancel(task);
        list_append(&loop->due, task);
    }
}

static void queue_due(struct relay_loop *loop)
{
    while (!list_is_empty(&loop->due)) {
        struct relay_task *task = loop->due.next;
        relay_task_cancel(task);
        relay_task_queue(loop, task);
    }
    if (list_is_empty(&loop->deferred))
        uv_idle_stop(&loop->idle);
}

/* ---- timers: a pairing heap ordered by key, whose links are in the timers: setting one cannot fail ---- */

/* Two heaps' roots without siblings; the root of both. */
static struct relay_timer *meld(struct relay_timer *a, struct relay_timer *b)
{
    if (b->key < a->key) {
        struct relay_timer *first = b;
        b = a;
        a = first;
    }
    b->next = a->child;
    if (b->next != NULL)
        b->next->prev = b;
    b->prev = a;
    a->child = b;
    return a;
}

/* Siblings, two by two and then those from the last to the first: that is what keeps the heap flat. */
static struct relay_timer *meld_siblings(struct relay_timer *first)
{
    struct relay_timer *pairs = NULL, *root = NULL;
    while (first != NULL) {
        struct relay_timer *one = first, *other = one->next;
        first = other != NULL ? other->next : NULL;
        one->next = NULL;
        if (other != NULL) {
            other->next = NULL;
            one = meld(one, other);
        }
        one->next = pairs;
        pairs = one;
    }
    while (pairs != NULL) {
        struct relay_timer *one = pairs;
        pairs = one->next;
        one->next = NULL;
        root = root != NULL ? meld(root, one) : one;
    }
    return root;
}

static void heap_insert(struct relay_loop *loop, struct relay_timer *timer)
{
    timer->child = timer->next = NULL;
    loop->timers = loop->timers != NULL ? meld(loop->timers, timer) : timer;
    loop->timers->prev = loop->timers;
    loop->num_timers++;
}

static void heap_remove(struct relay_loop *loop, struct relay_timer *timer)
{
    struct relay_timer *rest = meld_siblings(timer->child);
    if (loop->timers == timer) {
        loop->timers = rest;
    } else {
        *(timer->prev->child == timer ? &timer->prev->child : &timer->prev->next) = timer->next;
        if (timer->next != NULL)
            timer->next->prev = timer->prev;
        if (rest != NULL)
            loop->timers = meld(loop->timers, rest);
    }
    if (loop->timers != NULL)
        loop->timers->prev = loop->timers;
    timer->child = timer->next = timer->prev = NULL;
    loop->num_timers--;
}

void relay_timer_init(struct relay_timer *timer, void (*fire)(struct relay_timer *timer))
{
    *timer = (struct relay_timer){.fire = fire};
}

bool relay_timer_is_set(const struct relay_timer *timer)
{
    return timer->prev != NULL;
}

void relay_timer_set(struct relay_loop *loop, struct relay_timer *timer, uint64_t at)
{
    timer->at = at;
    if (relay_timer_is_set(timer)) {
        if (at >= timer->key)
            return; /* later: found out when the key comes up */
        heap_remove(loop, timer);
    }
    timer->key = at;
    heap_insert(loop, timer);
}

void relay_timer_set_after(struct relay_loop *loop, struct relay_timer *timer, uint64_t delay)
{
    relay_timer_set(loop, timer, relay_loop_now(loop) + delay);
}

void relay_timer_stop(struct relay_loop *loop, struct relay_timer *timer)
{
    if (relay_timer_is_set(timer))
        heap_remove(loop, timer);
}

static void fire_timers(struct relay_loop *loop)
{
    uint64_t now = relay_loop_now(loop);
    /* Bounded: one that sets itself again for now must not keep the loop from polling. */
    for (size_t left = loop->num_timers; left > 0 && loop->timers != NULL && loop->timers->key <= now;
         left--) {
        struct relay_timer *timer = loop->timers;
        heap_remove(loop, timer);
        if (timer->at > now) {
            timer->key = timer->at;
            heap_insert(loop, timer);
        } else {
            timer->fire(timer);
        }
    }
}

static void on_timer(uv_timer_t *timer)
{
    fire_timers(timer->data);
}

static void arm_timer(struct relay_loop *loop)
{
    if (loop->timers == NULL) {
        uv_timer_stop(&loop->timer);
        return;
    }
    uint64_t now = relay_loop_now(loop), at = loop->timers->key;
    uint64_t delay = at > now ? (at - now + RELAY_MS - 1) / RELAY_MS : 0;
    uv_timer_start(&loop->timer, on_timer, delay, 0);
}

/* ---- the turn ---- */

static void on_prepare(uv_prepare_t *prepare)
{
    struct relay_loop *loop = prepare->data;
    run_tasks(loop);
    mark_due(loop);
    arm_timer(loop);
    loop->now_is_stale = true;
    loop->slice_end = 0; /* the poll may take long */
}

static void on_check(uv_check_t *check)
{
    struct relay_loop *loop = check->data;
    if (uv_is_active((uv_handle_t *)&loop->idle))
        queue_due(loop);
    loop->slice_end = 0;
    run_tasks(loop);
    loop->now_is_stale = true;
}

/* ---- posts from other threads ---- */

static void on_async(uv_async_t *async)
{
    struct relay_loop *loop = async->data;
    uv_mutex_lock(&loop->posts_lock);
    struct relay_post *post = loop->posts;
    loop->posts = NULL;
    loop->posts_end = &loop->posts;
    uv_mutex_unlock(&loop->posts_lock);
    while (post != NULL) {
        struct relay_post *next = post->next;
        bool is_owned = post->is_owned; /* one that is not may be given again while it runs */
        post->run(post->arg);
        if (is_owned)
            free(post);
        post = next;
    }
}

void relay_loop_wake(struct relay_loop *loop, struct relay_post *post)
{
    post->next = NULL;
    uv_mutex_lock(&loop->posts_lock);
    *loop->posts_end = post;
    loop->posts_end = &post->next;
    uv_mutex_unlock(&loop->posts_lock);
    uv_async_send(&loop->async);
}

int relay_loop_post(struct relay_loop *loop, void (*run)(void *arg), void *arg)
{
    struct relay_post *post = malloc(sizeof(*post));
    if (post == NULL)
        return RELAY_ERR_NO_MEMORY;
    *post = (struct relay_post){NULL, run, arg, true};
    relay_loop_wake(loop, post);
    return 0;
}

/* ---- descriptors ---- */

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct relay_io *io = (struct relay_io *)poll;
    if (io->freed)
        return;
    int told = 0;
    if (status < 0) {
        /* libuv says UV_EBADF for POLLERR and has stopped the handle. */
        io->armed = 0;
        told = RELAY_IO_ERROR;
    } else {
        told |= events & UV_READABLE ? RELAY_IO_READ : 0;
        told |= events & UV_WRITABLE ? RELAY_IO_WRITE : 0;
        told |= events & UV_DISCONNECT ? RELAY_IO_HANGUP : 0;
        told &= io->armed;
        if (told & RELAY_IO_HANGUP)
            relay_io_arm(io, io->armed & ~RELAY_IO_HANGUP); /* level-triggered: it would spin */
    }
    if (told != 0)
        io->cb(io->user, told);
}

struct relay_io *relay_io_new(struct relay_loop *loop, int fd, relay_io_cb cb, void *user)
{
    struct relay_io *io = calloc(1, sizeof(*io));
    if (io == NULL)
        return NULL;
    if (uv_poll_init(&loop->uv, &io->poll, fd) != 0) {
        free(io);
        return NULL;
    }
    io->cb = cb;
    io->user = user;
    return io;
}

void relay_io_arm(struct relay_io *io, int events)
{
    if (events == io->armed)
        return;
    io->armed = events;
    if (events == 0) {
        uv_poll_stop(&io->poll);
        return;
    }
    int mask = (events & RELAY_IO_READ ? UV_READABLE : 0) | (events & RELAY_IO_WRITE ? UV_WRITABLE : 0) |
               (events & RELAY_IO_HANGUP ? UV_DISCONNECT : 0);
    uv_poll_start(&io->poll, mask, on_poll);
}

static void on_io_closed(uv_handle_t *handle)
{
    free(handle);
}

void relay_io_free(struct relay_io *io)
{
    if (io == NULL)
        return;
    io->freed = true;
    uv_close((uv_handle_t *)&io->poll, on_io_closed);
}

/* ---- scratch ---- */

uint8_t *relay_loop_take_scratch(struct relay_loop *loop)
{
    struct relay_scratch *scratch = loop->spare;
    if (scratch != NULL)
        loop->spare = scratch->below;
    else if ((scratch = malloc(sizeof(*scratch))) == NULL)
        return NULL;
    scratch->below = loop->taken;
    loop->taken = scratch;
    return scratch->bytes;
}

void relay_loop_return_scratch(struct relay_loop *loop)
{
    relay_loop_settle(loop);
    struct relay_scratch *scratch = loop->taken;
    loop->taken = scratch->below;
    scratch->below = loop->spare;
    loop->spare = scratch;
}

bool relay_loop_is_borrowable(const struct relay_loop *loop, const void *bytes)
{
    uintptr_t at = (uintptr_t)bytes;
    for (const struct relay_scratch *scratch = loop->taken; scratch != NULL; scratch = scratch->below)
        if (at >= (uintptr_t)scratch->headroom && at < (uintptr_t)scratch->bytes + sizeof(scratch->bytes))
            return true;
    return false;
}

void relay_loop_settle_later(struct relay_loop *loop, struct relay_task *task)
{
    if (!relay_task_is_queued(task))
        list_append(&loop->settling, task);
}

void relay_loop_settle(struct relay_loop *loop)
{
    while (!list_is_empty(&loop->settling)) {
        struct relay_task *task = loop->settling.next;
        relay_task_cancel(task);
        task->run(task);
    }
}

/* ---- lingering ---- */

void relay_loop_linger(struct relay_loop *loop, struct relay_task *cut)
{
    if (!relay_task_is_queued(cut))
        list_append(&loop->lingering, cut);
}

bool relay_loop_has_lingering(const struct relay_loop *loop)
{
    return !list_is_empty(&loop->lingering);
}

void relay_loop_cut_lingering(struct relay_loop *loop)
{
    while (!list_is_empty(&loop->lingering)) {
        struct relay_task *cut = loop->lingering.next;
        relay_task_cancel(cut);
        cut->run(cut);
    }
}

/* ---- life ---- */

int relay_loop_init(struct relay_loop *loop, struct relay_metrics *metrics)
{
    memset(loop, 0, sizeof(*loop));
    loop->metrics = metrics;
    loop->now_is_stale = true;
    loop->posts_end = &loop->posts;
    for (int level = 0; level < RELAY_LEVELS; level++)
        list_init(&loop->levels[level]);
    list_init(&loop->deferred);
    list_init(&loop->due);
    list_init(&loop->lingering);
    list_init(&loop->settling);
    if (uv_loop_init(&loop->uv) != 0)
        return RELAY_ERR_NO_DESCRIPTORS;
    if (uv_mutex_init(&loop->posts_lock) != 0) {
        uv_loop_close(&loop->uv);
        return RELAY_ERR_NO_MEMORY;
    }
    if (uv_async_init(&loop->uv, &loop->async, on_async) != 0) {
        uv_mutex_destroy(&loop->posts_lock);
        uv_loop_close(&loop->uv);
        return RELAY_ERR_NO_DESCRIPTORS;
    }
    uv_prepare_init(&loop->uv, &loop->prepare);
    uv_check_init(&loop->uv, &loop->check);
    uv_idle_init(&loop->uv, &loop->idle);
    uv_timer_init(&loop->uv, &loop->timer);
    loop->prepare.data = loop->check.data = loop->idle.data = loop->timer.data = loop->async.data = loop;
    uv_prepare_start(&loop->prepare, on_prepare);
    uv_check_start(&loop->check, on_check);
    return 0;
}

void relay_loop_run(struct relay_loop *loop)
{
    loop->stopping = false;
    while (!loop->stopping)
        uv_run(&loop->uv, UV_RUN_ONCE);
}

void relay_loop_stop(struct relay_loop *loop)
{
    loop->stopping = true;
    uv_stop(&loop->uv); /* called from a task before the poll: the poll must not block */
}

void relay_loop_dispose(struct relay_loop *loop)
{
    on_async(&loop->async);
    uv_handle_t *handles[] = {(uv_handle_t *)&loop->prepare, (uv_handle_t *)&loop->check,
                              (uv_handle_t *)&loop->idle, (uv_handle_t *)&loop->timer,
                              (uv_handle_t *)&loop->async};
    for (size_t i = 0; i < sizeof(handles) / sizeof(handles[0]); i++)
        uv_close(handles[i], NULL);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    int closed = uv_loop_close(&loop->uv);
    assert(closed == 0);
    (void)closed;
    uv_mutex_destroy(&loop->posts_lock);
    assert(loop->taken == NULL);
    for (struct relay_scratch *scratch; (scratch = loop->spare) != NULL;) {
        loop->spare = scratch->below;
        free(scratch);
    }
}
