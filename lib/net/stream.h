/* An ordered byte stream: a TCP socket, TLS on another stream, or a CONNECT tunnel seen as a stream (for TLS
 * inside it).
 *
 * Order of calls: make it (relay_stream_tcp, relay_stream_tls_*), then start, which names its user and begins
 * reading; then the calls below; then exactly one ending: release, close or reset. An ending takes the stream
 * away from its user: no callback comes after it, and the memory is the stream's own business. After on_close
 * the user still calls one.
 *
 * No call ever calls back: errors, FIN and writability are told from the loop. A stream is used on its loop's
 * thread. A TLS stream owns the stream below it.
 */
#ifndef RELAY_NET_STREAM_H
#define RELAY_NET_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <openssl/types.h>

struct relay_loop;
struct relay_stream;

struct relay_stream_user {
    /* The TLS handshake is done (a clear stream: the first turn after start). */
    void (*on_ready)(void *user);
    /* They live during the call; the bytes and the RELAY_HEADROOM bytes before them may be overwritten. */
    void (*on_bytes)(void *user, uint8_t *bytes, size_t len);
    /* The peer's clean end: FIN, under TLS a close_notify. A FIN without one is on_close(RELAY_ERR_RESET). */
    void (*on_fin)(void *user);
    /* The queue has fallen under its low mark after a send that returned false. */
    void (*on_writable)(void *user);
    /* Once: the stream is dead (RELAY_ERR_RESET, _TIMEOUT, _TLS, _CERTIFICATE ...). What was read before
     * has been told. */
    void (*on_close)(void *user, int error);
};

/* What a look at the peer of a paused TCP stream tells, without reading. */
enum relay_stream_peer {
    RELAY_PEER_THERE,    /* or it is not known: the other kinds of stream */
    RELAY_PEER_SAID_ALL, /* its FIN came, and bytes before it are still to be read */
    RELAY_PEER_ENDED,    /* its FIN came, and nothing is left to read */
    RELAY_PEER_GONE      /* a reset came */
};

struct relay_stream_ops {
    void (*start)(struct relay_stream *stream);
    size_t (*room)(struct relay_stream *stream);
    bool (*send)(struct relay_stream *stream, const uint8_t *bytes, size_t len);
    size_t (*unacknowledged)(struct relay_stream *stream);       /* NULL: not known */
    enum relay_stream_peer (*look)(struct relay_stream *stream); /* NULL: not known */
    int (*descriptor)(struct relay_stream *stream);              /* NULL: none */
    void (*guard)(struct relay_stream *stream);                  /* NULL: a no-op */
    void (*share)(struct relay_stream *stream);                  /* NULL: a no-op */
    void (*fin)(struct relay_stream *stream);
    void (*pause)(struct relay_stream *stream);
    void (*resume)(struct relay_stream *stream);
    void (*release)(struct relay_stream *stream);
    void (*close)(struct relay_stream *stream);
    void (*reset)(struct relay_stream *stream);
};

/* The common head of every kind of stream. */
struct relay_stream {
    const struct relay_stream_ops *ops;
    const struct relay_stream_user *cb;
    void *user;
    struct relay_loop *loop;
    /* Of a TCP stream, may be set by who made it: the socket is closed at last, which after release is later than the
     * user's last word. For counting sockets. */
    void (*on_gone)(void *gone_user, const struct relay_stream *stream);
    void *gone_user;
    struct sockaddr_storage peer; /* AF_UNSPEC when it has none; kept from accept: after a reset it is gone */
    /* The user's: what one read of a TCP stream takes at most (under TLS from the next resume on); 0: a
     * scratch buffer full. */
    size_t read_max;
};

/* Takes the connected, non-blocking descriptor, also when it fails (NULL: out of memory or descriptors). */
struct relay_stream *relay_stream_tcp(struct relay_loop *loop, int fd, const struct sockaddr *peer);
/* TLS as a server. Takes `lower`, also when it fails (NULL). The context is the caller's and outlives the
 * stream. */
struct relay_stream *relay_stream_tls_accept(struct relay_stream *lower, SSL_CTX *context);
/* TLS as a client: SNI and certificate checks for `name` (NULL: neither) by the context's settings. */
struct relay_stream *relay_stream_tls_connect(struct relay_stream *lower, SSL_CTX *context, const char *name);
bool relay_stream_is_tls(const struct relay_stream *stream);
/* The negotiated ALPN: "" when there is none or it is no TLS stream. Lives as long as the stream. */
const char *relay_stream_alpn(const struct relay_stream *stream);

static inline void relay_stream_start(struct relay_stream *stream, const struct relay_stream_user *cb,
                                      void *user)
{
    stream->cb = cb;
    stream->user = user;
    stream->ops->start(stream);
}

/* Hands the running stream to another user (from the listener, which looked at the ALPN, to a session). */
static inline void relay_stream_set_user(struct relay_stream *stream, const struct relay_stream_user *cb,
                                         void *user)
{
    stream->cb = cb;
    stream->user = user;
}

/* How many bytes send takes before it returns false. A reader of another source reads min(room, scratch). */
static inline size_t relay_stream_room(struct relay_stream *stream)
{
    return stream->ops->room(stream);
}

/* Takes all bytes: writes, borrows (loop.h) or copies them. False: no more until on_writable, please.
 * After an error they are dropped and on_close comes. */
static inline bool relay_stream_send(struct relay_stream *stream, const uint8_t *bytes, size_t len)
{
    return stream->ops->send(stream, bytes, len);
}

/* Of a TCP stream: how much of what was sent the peer's machine has not acknowledged. Others: 0. A system
 * call. */
static inline size_t relay_stream_unacknowledged(struct relay_stream *stream)
{
    return stream->ops->unacknowledged != NULL ? stream->ops->unacknowledged(stream) : 0;
}

/* Whether the peer of a paused stream still stands at the other end, as far as can be seen. System calls. */
static inline enum relay_stream_peer relay_stream_look(struct relay_stream *stream)
{
    return stream->ops->look != NULL ? stream->ops->look(stream) : RELAY_PEER_THERE;
}

/* Of a TCP stream, or TLS over one: its socket, to ask the kernel about it; -1: closed. Others: -1. */
static inline int relay_stream_descriptor(struct relay_stream *stream)
{
    return stream->ops->descriptor != NULL ? stream->ops->descriptor(stream) : -1;
}

/* From now on the end of the process resets the peer of a TCP stream. The FIN by which a kernel closes what a dead
 * process leaves behind would let what is cut off look complete. It lasts until our own FIN has gone out behind all
 * bytes, or until the ending: no orderly end becomes a reset. */
static inline void relay_stream_guard(struct relay_stream *stream)
{
    if (stream->ops->guard != NULL)
        stream->ops->guard(stream);
}

/* Several flows go through it from now on: the kernel takes no more of a TCP stream than it may send soon, so that the
 * bytes of one flow do not stand in a long line behind another's. */
static inline void relay_stream_share(struct relay_stream *stream)
{
    if (stream->ops->share != NULL)
        stream->ops->share(stream);
}

/* Half-close after what was sent: FIN (TLS: close_notify, then FIN). Reading goes on. */
static inline void relay_stream_fin(struct relay_stream *stream)
{
    stream->ops->fin(stream);
}

/* No on_bytes and no on_fin until resume (a paused stream still tells a reset). Both may be called in any
 * state. */
static inline void relay_stream_pause(struct relay_stream *stream)
{
    stream->ops->pause(stream);
}

static inline void relay_stream_resume(struct relay_stream *stream)
{
    stream->ops->resume(stream);
}

/* The three endings. release: send what is queued, FIN, wait up to 2 s for the peer's (30 s for a queue
 * without progress, 60 s in all; then a RST). close: drop what is queued and close. reset: the peer sees a RST (TLS:
 * without close_notify). */
static inline void relay_stream_release(struct relay_stream *stream)
{
    stream->ops->release(stream);
}

static inline void relay_stream_close(struct relay_stream *stream)
{
    stream->ops->close(stream);
}

static inline void relay_stream_reset(struct relay_stream *stream)
{
    stream->ops->reset(stream);
}

#endif
