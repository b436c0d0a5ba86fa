#include "server/listener.h"

#include <limits.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/net/acceptor.h"
#include "lib/net/stream.h"
#include "lib/wire/error.h"
#include "server/connection.h"

/* RFC 9113 section 3.4. */
static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
#define PREFACE_LEN (sizeof(preface) - 1)
static const char connect_line[] = "CONNECT ";
#define CONNECT_LEN (sizeof(connect_line) - 1)

/* A connection between accept and its session. It frees itself. */
struct relay_greeting {
    struct relay_listener *listener;
    struct relay_stream *stream;
    struct relay_timer timer;
    struct relay_greeting *newer, *older; /* in the worker's list */
    size_t early_len;
    uint8_t early[PREFACE_LEN];
};

struct relay_listener {
    struct relay_worker *worker;
    struct relay_acceptor *acceptor;
    SSL_CTX *tls;
    struct relay_slice alt_svc;
};

/* ---- greeting ---- */

static struct relay_greeting *greeting_of(struct relay_timer *timer)
{
    return (struct relay_greeting *)((char *)timer - offsetof(struct relay_greeting, timer));
}

static void greeting_free(struct relay_greeting *self)
{
    struct relay_worker *worker = self->listener->worker;
    relay_timer_stop(&worker->loop, &self->timer);
    *(self->newer != NULL ? &self->newer->older : &worker->newest_greeting) = self->older;
    *(self->older != NULL ? &self->older->newer : &worker->oldest_greeting) = self->newer;
    worker->num_greetings--;
    relay_count(worker->metrics.open_greetings, -1);
    free(self);
}

static void greeting_link(struct relay_greeting *self)
{
    struct relay_worker *worker = self->listener->worker;
    self->older = worker->newest_greeting;
    *(self->older != NULL ? &self->older->newer : &worker->oldest_greeting) = self;
    worker->newest_greeting = self;
    worker->num_greetings++;
    relay_count(worker->metrics.open_greetings, 1);
}

static void greeting_drop(struct relay_greeting *self)
{
    relay_stream_close(self->stream);
    greeting_free(self);
}

static void hand_over(struct relay_greeting *self, bool is_http2, const uint8_t *early, size_t early_len)
{
    struct relay_worker *worker = self->listener->worker;
    struct relay_stream *stream = self->stream;
    struct relay_slice alt_svc = self->listener->alt_svc;
    greeting_free(self);
    relay_connection_stream(worker, stream, is_http2, alt_svc, early, early_len);
}

static void on_ready(void *user)
{
    struct relay_greeting *self = user;
    /* After "h2" too its first bytes are waited for: Firefox drops a connection that it made in advance when our
     * SETTINGS came before it had said anything. */
    if (strcmp(relay_stream_alpn(self->stream), "http/1.1") == 0)
        hand_over(self, false, NULL, 0);
}

/* Whether what came is the beginning of the text, or begins with it. */
static bool begins(const struct relay_greeting *self, const char *text, size_t len)
{
    return memcmp(self->early, text, self->early_len < len ? self->early_len : len) == 0;
}

/* After "h2" all is HTTP/2 but a CONNECT: Go's net/http writes that to a proxy with which it has negotiated "h2". */
static bool is_http2(const struct relay_greeting *self)
{
    return strcmp(relay_stream_alpn(self->stream), "h2") == 0 ? !begins(self, connect_line, CONNECT_LEN)
                                                              : begins(self, preface, PREFACE_LEN);
}

/* Collects until the bytes are the preface or a CONNECT, or cannot be it any more. What came in one piece with
 * them goes along. */
static void on_bytes(void *user, uint8_t *bytes, size_t len)
{
    struct relay_greeting *self = user;
    size_t had = self->early_len, want = PREFACE_LEN - had, take = len < want ? len : want;
    memcpy(self->early + had, bytes, take);
    self->early_len += take;
    if ((self->early_len < PREFACE_LEN && begins(self, preface, PREFACE_LEN)) ||
        (self->early_len < CONNECT_LEN && begins(self, connect_line, CONNECT_LEN)))
        return;
    uint8_t *joined = malloc(had + len);
    if (joined == NULL) {
        greeting_drop(self);
        return;
    }
    memcpy(joined, self->early, had);
    memcpy(joined + had, bytes, len);
    hand_over(self, is_http2(self), joined, had + len);
    free(joined);
}

static void on_fin(void *user)
{
    greeting_drop(user);
}

static void on_close(void *user, int error)
{
    greeting_drop(user);
}

static const struct relay_stream_user greeting_cb = {
    .on_ready = on_ready, .on_bytes = on_bytes, .on_fin = on_fin, .on_close = on_close};

static void on_greeting_timeout(struct relay_timer *timer)
{
    struct relay_greeting *self = greeting_of(timer);
    relay_count(self->listener->worker->metrics.handshakes_timeout, 1);
    greeting_drop(self);
}

/* The socket counts until it is closed at last, its lingering included. */
static void on_socket_gone(void *user, const struct relay_stream *stream)
{
    relay_worker_release_source(user, &stream->peer);
}

static struct relay_stream *open_stream(struct relay_listener *listener, int fd,
                                        const struct sockaddr_storage *peer)
{
    struct relay_worker *worker = listener->worker;
    if (!relay_worker_take_source(worker, peer)) {
        close(fd);
        return NULL;
    }
    struct relay_stream *stream = relay_stream_tcp(&worker->loop, fd, (const struct sockaddr *)peer);
    if (stream == NULL) {
        relay_worker_release_source(worker, peer);
        return NULL;
    }
    stream->on_gone = on_socket_gone;
    stream->gone_user = worker;
    return listener->tls != NULL ? relay_stream_tls_accept(stream, listener->tls) : stream;
}

bool relay_listener_drop_oldest(struct relay_worker *worker)
{
    if (worker->oldest_greeting == NULL)
        return false;
    relay_count(worker->metrics.limit_half_open, 1);
    greeting_drop(worker->oldest_greeting);
    return true;
}

static void greet(void *user, int fd, const struct sockaddr_storage *peer)
{
    struct relay_listener *listener = user;
    struct relay_worker *worker = listener->worker;
    struct relay_stream *stream = open_stream(listener, fd, peer);
    struct relay_greeting *self = stream != NULL ? calloc(1, sizeof(*self)) : NULL;
    if (self == NULL) {
        if (stream != NULL)
            relay_stream_close(stream);
        return;
    }
    self->listener = listener;
    self->stream = stream;
    if (worker->num_greetings >= worker->env.snapshot->limits.half_open_max)
        relay_listener_drop_oldest(worker);
    greeting_link(self);
    relay_timer_init(&self->timer, on_greeting_timeout);
    relay_timer_set_after(&worker->loop, &self->timer, worker->env.snapshot->limits.handshake_timeout);
    relay_stream_start(stream, &greeting_cb, self);
}

/* ---- the listener ---- */

struct relay_listener *relay_listener_new(struct relay_worker *worker, int fd, SSL_CTX *tls,
                                          struct relay_slice alt_svc)
{
    struct relay_listener *self = calloc(1, sizeof(*self));
    if (self == NULL) {
        close(fd);
        return NULL;
    }
    self->worker = worker;
    self->alt_svc = alt_svc;
    if (tls != NULL)
        relay_listener_set_tls(self, tls);
    self->acceptor = relay_acceptor_new(&worker->loop, fd, greet, self);
    if (self->acceptor == NULL) {
        SSL_CTX_free(self->tls);
        free(self);
        return NULL;
    }
    /* The last quarter is for targets: a crowd of connections must not leave the tunnels of the others without. */
    long descriptors = sysconf(_SC_OPEN_MAX);
    if (descriptors > 0 && descriptors < INT_MAX)
        relay_acceptor_keep_below(self->acceptor, (int)(descriptors - descriptors / 4));
    return self;
}

void relay_listener_set_tls(struct relay_listener *self, SSL_CTX *tls)
{
    SSL_CTX_up_ref(tls);
    SSL_CTX_free(self->tls);
    self->tls = tls;
}

void relay_listener_close(struct relay_listener *self)
{
    for (struct relay_greeting *greeting = self->worker->newest_greeting, *older; greeting != NULL;
         greeting = older) {
        older = greeting->older;
        if (greeting->listener == self)
            greeting_drop(greeting);
    }
    relay_acceptor_close(self->acceptor);
    SSL_CTX_free(self->tls);
    free(self);
}
