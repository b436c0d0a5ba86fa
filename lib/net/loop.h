/* The worker's loop: one thread, one uv_loop_t, and the four things every part of a worker shares.
 *
 * - The time: CLOCK_MONOTONIC in nanoseconds, read once per wake-up (relay_loop_now), so that it never goes
 * back and a
 *   turn sees one time.
 * - Tasks: what must not happen inside a library's callback is queued here and runs at the end of the loop's
 * turn, in
 *   uv_check and in uv_prepare (timers run before the poll), lowest level first.
 * - Timers: one heap behind one uv_timer_t.
 * - Scratch: large read buffers, taken and returned like a stack. An idle connection holds none.
 *
 * Everything here belongs to the loop's own thread; only relay_loop_post and relay_loop_wake may be called from
 * another one.
 */
#ifndef RELAY_NET_LOOP_H
#define RELAY_NET_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#define RELAY_MS     1000000ull /* nanoseconds */
#define RELAY_SECOND 1000000000ull

struct relay_loop;
struct relay_metrics;

/* The order within one turn. Nested connections flush innermost first and outermost last: the other way
 * round costs milliseconds, because the inner connection's packets wait for the next turn. */
enum relay_level {
    RELAY_LEVEL_EVENT = 0,       /* on_close, on_writable, next request: what users are told */
    RELAY_LEVEL_FLUSH_INNER = 1, /* nested connections of a chain: 1 (the innermost) to 5 */
    RELAY_LEVEL_FLUSH_OUTER = 6, /* connections on a real socket: HTTP/2 and QUIC */
    RELAY_LEVEL_FLUSH_SOCKET = 7 /* TCP streams and target UDP sockets */
};
#define RELAY_LEVELS 8

#define RELAY_TURN_SLICE (2 * RELAY_MS)

/* A task is embedded in its object and queued at most once at a time. Cancel it in the object's dispose. A
 * task may queue itself or others while it runs: they run in the same turn, so a task that slices long
 * work uses relay_task_defer. */
struct relay_task {
    struct relay_task *prev, *next; /* both NULL: not queued */
    void (*run)(struct relay_task *task);
    uint8_t level;
};

void relay_task_init(struct relay_task *task, enum relay_level level, void (*run)(struct relay_task *task));
void relay_task_queue(struct relay_loop *loop, struct relay_task *task);
/* Runs it in the next turn, after the loop has polled once (without blocking). */
void relay_task_defer(struct relay_loop *loop, struct relay_task *task);
/* For work of which one event brings about thousands of pieces (the tunnels of a connection that has ended, tiny
 * capsules): whether this piece may be done in this turn, else its task defers itself. Always true for the turn's first,
 * then for RELAY_TURN_SLICE; what is read in the poll and what its tasks do afterwards have a slice each. */
bool relay_loop_has_time(struct relay_loop *loop);
void relay_task_cancel(struct relay_task *task);
bool relay_task_is_queued(const struct relay_task *task);

/* A timer is embedded in its object; set again it moves (moving it later is free); stop it in the object's
 * dispose. */
struct relay_timer {
    void (*fire)(struct relay_timer *timer);
    uint64_t at;  /* when to fire, ns */
    uint64_t key; /* its place in the heap: at or earlier */
    /* The first of those below it; its siblings. The first sibling's prev is the parent, the root's itself; NULL: not
     * set. */
    struct relay_timer *child, *next, *prev;
};

void relay_timer_init(struct relay_timer *timer, void (*fire)(struct relay_timer *timer));
void relay_timer_set(struct relay_loop *loop, struct relay_timer *timer, uint64_t at);
void relay_timer_set_after(struct relay_loop *loop, struct relay_timer *timer, uint64_t delay);
void relay_timer_stop(struct relay_loop *loop, struct relay_timer *timer);
bool relay_timer_is_set(const struct relay_timer *timer);

/* A descriptor's readiness. It is an allocation of its own, so that its owner can be freed at once:
 * relay_io_free stops it, and no callback comes after. It does not close the descriptor; after
 * relay_io_free the owner may at once. */
struct relay_io;
enum relay_io_events {
    RELAY_IO_READ = 1,
    RELAY_IO_WRITE = 2,
    RELAY_IO_HANGUP = 4, /* the peer's FIN or RST while reading is paused; told once per arming */
    RELAY_IO_ERROR =
        8 /* told, not armed: a reset (see SO_ERROR), or a UDP socket's error queue. Nothing is armed then */
};
typedef void (*relay_io_cb)(void *user, int events);

/* NULL when the descriptor cannot be polled or memory is out. Nothing is armed yet. */
struct relay_io *relay_io_new(struct relay_loop *loop, int fd, relay_io_cb cb, void *user);
void relay_io_arm(struct relay_io *io, int events); /* cheap when unchanged; 0 stops */
void relay_io_free(struct relay_io *io);            /* NULL is fine */

/* Large enough for one recv of a full socket, and for a decrypted batch of it. */
#define RELAY_SCRATCH_SIZE (512 * 1024)
/* Writable bytes in front of every scratch buffer: an HTTP/2 or TLS head can be laid before bytes just
 * read. */
#define RELAY_HEADROOM 64

struct relay_scratch;

/* A message to a loop, embedded in its object: for relay_loop_wake. */
struct relay_post {
    struct relay_post *next;
    void (*run)(void *arg);
    void *arg;
    bool is_owned; /* the loop frees it */
};

struct relay_loop {
    uv_loop_t uv;
    struct relay_metrics *metrics; /* this worker's shard */
    /* private */
    uint64_t now;
    bool now_is_stale, stopping;
    uint64_t slice_end;                     /* 0: nobody has asked yet */
    struct relay_task levels[RELAY_LEVELS]; /* list heads */
    /* List heads. due: deferred before the poll that is under way. */
    struct relay_task deferred, due, settling, lingering;
    uv_prepare_t prepare;
    uv_check_t check;
    uv_idle_t idle;
    uv_timer_t timer;
    uv_async_t async;
    uv_mutex_t posts_lock;
    struct relay_post *posts, **posts_end;
    struct relay_timer *timers; /* the heap's root */
    size_t num_timers;
    struct relay_scratch *taken, *spare;
};

/* 0 or RELAY_ERR_NO_MEMORY / _NO_DESCRIPTORS. `metrics` outlives the loop. */
int relay_loop_init(struct relay_loop *loop, struct relay_metrics *metrics);
/* Runs turns until relay_loop_stop. */
void relay_loop_run(struct relay_loop *loop);
void relay_loop_stop(struct relay_loop *loop);
/* Every io must have been freed. Runs the loop until libuv has let go of its handles. */
void relay_loop_dispose(struct relay_loop *loop);

uint64_t relay_loop_now(struct relay_loop *loop);
/* Not the turn's time but this moment's, to see how long something takes. */
uint64_t relay_loop_clock(void);

/* From any thread: run(arg) on the loop's thread, in order. RELAY_ERR_NO_MEMORY. */
int relay_loop_post(struct relay_loop *loop, void (*run)(void *arg), void *arg);
/* The same without an allocation: `post` (run and arg are set) is the caller's, and must neither be freed nor given
 * again before it runs. */
void relay_loop_wake(struct relay_loop *loop, struct relay_post *post);

/* A reader takes a scratch buffer (RELAY_SCRATCH_SIZE bytes, RELAY_HEADROOM writable ones in front), reads
 * into it, hands pieces of it up and returns it. Until then the pieces may be borrowed by writers
 * (relay_loop_is_borrowable), so that bytes that the kernel takes at once are never copied. NULL: out of
 * memory. */
uint8_t *relay_loop_take_scratch(struct relay_loop *loop);
/* The one taken last; settles first, so that nobody borrows from it any more. */
void relay_loop_return_scratch(struct relay_loop *loop);
bool relay_loop_is_borrowable(const struct relay_loop *loop, const void *bytes);
/* A writer that borrowed queues a task here; it must write or copy what it borrowed. A reader that reuses
 * its scratch buffer for another read calls relay_loop_settle before. */
void relay_loop_settle_later(struct relay_loop *loop, struct relay_task *task);
void relay_loop_settle(struct relay_loop *loop);

/* What outlives its owner for a while (a socket that still sends) is remembered here, by a task that cuts it off; it
 * cancels the task when it ends by itself. */
void relay_loop_linger(struct relay_loop *loop, struct relay_task *cut);
bool relay_loop_has_lingering(const struct relay_loop *loop);
void relay_loop_cut_lingering(struct relay_loop *loop);

#endif
