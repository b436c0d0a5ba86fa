/* Two joined streams in memory: what one sends, the other is told in the next turn. Deterministic and without
 * sockets. */
#ifndef RELAY_TESTS_PIPE_STREAM_H
#define RELAY_TESTS_PIPE_STREAM_H

#include <stdlib.h>
#include <string.h>

#include "lib/net/loop.h"
#include "lib/net/stream.h"
#include "lib/wire/error.h"

#define PIPE_CAPACITY (128 * 1024)

struct pipe_stream {
    struct relay_stream super; /* first */
    struct pipe_stream *other;
    struct relay_task task;
    uint8_t *in; /* came from the other end, not told yet */
    size_t in_len, in_size;
    size_t total_in, max_in; /* bytes ever, and at once */
    bool is_ended, is_blocked, is_writable_due, is_fin_due, is_reset_due, is_closed_told;
    bool is_shared;
    bool is_stuck; /* reads nothing: as a peer that never reads */
    enum { PIPE_OPEN, PIPE_RELEASED, PIPE_CLOSED, PIPE_RESET } ending;
};

static inline void pipe_wake(struct pipe_stream *pipe)
{
    if (pipe->super.loop != NULL)
        relay_task_defer(pipe->super.loop, &pipe->task);
}

static inline void pipe_start(struct relay_stream *stream)
{
    pipe_wake((struct pipe_stream *)stream);
}

static inline void pipe_share(struct relay_stream *stream)
{
    ((struct pipe_stream *)stream)->is_shared = true;
}

static inline size_t pipe_room(struct relay_stream *stream)
{
    size_t waiting = ((struct pipe_stream *)stream)->other->in_len;
    return waiting < PIPE_CAPACITY ? PIPE_CAPACITY - waiting : 0;
}

static inline bool pipe_send(struct relay_stream *stream, const uint8_t *bytes, size_t len)
{
    struct pipe_stream *pipe = (struct pipe_stream *)stream, *other = pipe->other;
    if (other->in_len + len > other->in_size) {
        other->in_size = (other->in_len + len) * 2;
        other->in = realloc(other->in, other->in_size);
    }
    if (len > 0)
        memcpy(other->in + other->in_len, bytes, len);
    other->in_len += len;
    other->total_in += len;
    other->max_in = other->in_len > other->max_in ? other->in_len : other->max_in;
    pipe_wake(other);
    pipe->is_blocked = other->in_len >= PIPE_CAPACITY;
    return !pipe->is_blocked;
}

static inline void pipe_fin(struct relay_stream *stream)
{
    struct pipe_stream *other = ((struct pipe_stream *)stream)->other;
    other->is_fin_due = true;
    pipe_wake(other);
}

static inline void pipe_pause(struct relay_stream *stream)
{
    ((struct pipe_stream *)stream)->is_stuck = true;
}

static inline void pipe_resume(struct relay_stream *stream)
{
    ((struct pipe_stream *)stream)->is_stuck = false;
    pipe_wake((struct pipe_stream *)stream);
}

static inline void pipe_end(struct pipe_stream *pipe, int ending)
{
    pipe->is_ended = true;
    pipe->ending = ending;
    if (ending == PIPE_RESET)
        pipe->other->is_reset_due = true;
    else
        pipe->other->is_fin_due = true;
    pipe_wake(pipe->other);
}

static inline void pipe_release(struct relay_stream *stream)
{
    pipe_end((struct pipe_stream *)stream, PIPE_RELEASED);
}

static inline void pipe_close(struct relay_stream *stream)
{
    pipe_end((struct pipe_stream *)stream, PIPE_CLOSED);
}

static inline void pipe_reset(struct relay_stream *stream)
{
    pipe_end((struct pipe_stream *)stream, PIPE_RESET);
}

static const struct relay_stream_ops pipe_ops = {
    .start = pipe_start,
    .room = pipe_room,
    .send = pipe_send,
    .share = pipe_share,
    .fin = pipe_fin,
    .pause = pipe_pause,
    .resume = pipe_resume,
    .release = pipe_release,
    .close = pipe_close,
    .reset = pipe_reset,
};

/* Tells what came, from scratch like a socket does. */
static inline void pipe_tell_bytes(struct pipe_stream *pipe)
{
    uint8_t *scratch = relay_loop_take_scratch(pipe->super.loop);
    size_t len = pipe->in_len < RELAY_SCRATCH_SIZE ? pipe->in_len : RELAY_SCRATCH_SIZE;
    memcpy(scratch, pipe->in, len);
    memmove(pipe->in, pipe->in + len, pipe->in_len - len);
    pipe->in_len -= len;
    pipe->super.cb->on_bytes(pipe->super.user, scratch, len);
    relay_loop_return_scratch(pipe->super.loop);
    if (pipe->other->is_blocked && pipe->in_len < PIPE_CAPACITY / 2) {
        pipe->other->is_blocked = false;
        pipe->other->is_writable_due = true;
        pipe_wake(pipe->other);
    }
}

static inline void pipe_run(struct relay_task *task)
{
    struct pipe_stream *pipe = (struct pipe_stream *)((char *)task - offsetof(struct pipe_stream, task));
    if (pipe->super.cb == NULL)
        return; /* the test itself looks at `in` */
    if (pipe->is_writable_due && !pipe->is_ended) {
        pipe->is_writable_due = false;
        pipe->super.cb->on_writable(pipe->super.user);
    }
    if (pipe->in_len > 0 && !pipe->is_ended && !pipe->is_stuck)
        pipe_tell_bytes(pipe);
    if (pipe->in_len > 0 && !pipe->is_ended && !pipe->is_stuck)
        pipe_wake(pipe);
    else if (pipe->is_reset_due && !pipe->is_ended && !pipe->is_closed_told) {
        pipe->is_closed_told = true;
        pipe->super.cb->on_close(pipe->super.user, RELAY_ERR_RESET);
    } else if (pipe->is_fin_due && !pipe->is_ended && !pipe->is_stuck) {
        pipe->is_fin_due = false;
        pipe->super.cb->on_fin(pipe->super.user);
    }
}

static inline void pipe_init(struct pipe_stream *a, struct pipe_stream *b, struct relay_loop *loop)
{
    struct pipe_stream *ends[] = {a, b};
    for (int i = 0; i < 2; i++) {
        memset(ends[i], 0, sizeof(*ends[i]));
        ends[i]->super.ops = &pipe_ops;
        ends[i]->super.loop = loop;
        ends[i]->other = ends[1 - i];
        relay_task_init(&ends[i]->task, RELAY_LEVEL_FLUSH_SOCKET, pipe_run);
    }
}

static inline void pipe_dispose(struct pipe_stream *pipe)
{
    relay_task_cancel(&pipe->task);
    free(pipe->in);
}

#endif
