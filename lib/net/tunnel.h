/* The waist of Twohop: one HTTP request stream, the same for HTTP/1.1, 2 and 3, for the server and for the
 * client.
 *
 * Left of it are the sessions (and the loopback session of unit tests), which implement relay_tunnel_ops;
 * right of it its user, a handler module or the client's local front. Nothing left of it knows CONNECT-UDP;
 * nothing right of it knows HTTP versions. It has a stream side (ordered bytes, back-pressure and half-close
 * in both directions) and, for capsule tunnels, a datagram side (HTTP Datagrams, RFC 9297): runs of equal
 * segments, the shape that UDP_GRO and UDP_SEGMENT have.
 *
 * Order of calls, server: the session makes it and shows the request (session.h); a user attaches; the user
 * calls relay_tunnel_respond once (a 2xx to CONNECT, 101 on the wire for an HTTP/1.1 Upgrade, opens the
 * tunnel; any other response is a message whose body goes through send and send_fin); then send, send_fin,
 * send_datagrams, pause, resume in any order; abort at any time. Client: relay_session_open makes it and
 * sends the request; on_response comes; bytes may be sent before it, at the caller's risk.
 *
 * Lifetime, four rules:
 * 1. The tunnel belongs to its session. The user may call it until on_close.
 * 2. on_close comes exactly once, whatever happened, and never from inside a call that the user made: after
 *    both directions have ended (RELAY_OK), after the peer's reset or the connection's death (an error), after
 *    the user's abort.
 * 3. After on_close the memory is gone. A user that goes away before aborts first, and keeps its own memory
 *    until on_close.
 * 4. No other callback comes from inside a call that the user made either, except that resume may deliver
 *    later, from a task.
 */
#ifndef RELAY_NET_TUNNEL_H
#define RELAY_NET_TUNNEL_H

#include "lib/net/http.h"
#include "lib/net/loop.h"
#include "lib/wire/capsule.h"

struct relay_session;
struct relay_tunnel;

/* A run of HTTP Datagram payloads of one context: segments of `segment` bytes one behind the other, the
 * last may be shorter. One datagram: segment == len. An empty datagram: len == 0 (alone in its run). */
struct relay_run {
    uint64_t context_id;
    const uint8_t *base;
    size_t len, segment;
};

/* What became of a run. */
enum relay_sent {
    RELAY_SENT, /* all taken; the run is empty */
    RELAY_BLOCKED, /* the run holds what is left: keep it (or leave it in the socket) until on_writable, or drop and count */
    RELAY_TOO_BIG, /* the first segment left does not fit the path now: drop it and count it, go on with the rest */
    RELAY_GONE /* the tunnel is closing; drop all */
};

struct relay_tunnel_user {
    /* Client: the response's head. A status outside 200-299 comes with a body, or is the end; abort when
     * it is enough. */
    void (*on_response)(void *user, const struct relay_response *response);
    /* Bytes of a BYTES tunnel or a MESSAGE's body. All are taken by the user; it calls pause when its sink
     * is full. */
    void (*on_bytes)(void *user, uint8_t *bytes, size_t len);
    /* The peer's clean end of its direction. */
    void (*on_fin)(void *user);
    /* Payloads live during the call. */
    void (*on_datagrams)(void *user, const struct relay_run *run);
    /* Capsules other than DATAGRAM whose type `wants_capsule` accepted (NULL: none; they are skipped
     * unbuffered). */
    bool (*wants_capsule)(void *user, uint64_t type);
    void (*on_capsule)(void *user, uint64_t type, const uint8_t *value, size_t len);
    /* After send returned false or send_datagrams RELAY_BLOCKED: there is room again. */
    void (*on_writable)(void *user);
    void (*on_close)(void *user, int error);
};

/* The session's side. Every call may come from anywhere but inside a callback of relay_tunnel_user that
 * says otherwise. */
struct relay_tunnel_ops {
    int (*respond)(struct relay_tunnel *tunnel, const struct relay_response *response);
    size_t (*room)(struct relay_tunnel *tunnel);
    bool (*send)(struct relay_tunnel *tunnel, const uint8_t *bytes, size_t len);
    void (*send_fin)(struct relay_tunnel *tunnel);
    /* DATAGRAM frames. Only called while max_datagram is not 0. */
    enum relay_sent (*send_datagrams)(struct relay_tunnel *tunnel, struct relay_run *run);
    /* The largest HTTP Datagram payload (behind the context ID) that a DATAGRAM frame carries now. 0: this
     * connection has no usable DATAGRAM frames; tunnel.c then writes DATAGRAM capsules through `send`. */
    size_t (*max_datagram)(struct relay_tunnel *tunnel, uint64_t context_id);
    /* The user has taken `len` bytes of the stream: give the peer that much stream credit. */
    void (*consume)(struct relay_tunnel *tunnel, size_t len);
    /* Stop or go on reading from the transport, where that is per tunnel (HTTP/1.1); otherwise a no-op. */
    void (*set_reading)(struct relay_tunnel *tunnel, bool reading);
    /* RST_STREAM, RESET_STREAM + STOP_SENDING, TCP RST. The session answers with relay_tunnel_closed. */
    void (*abort)(struct relay_tunnel *tunnel, int error);
    /* on_close has been told (or there was no user): free it. */
    void (*release)(struct relay_tunnel *tunnel);
};

/* Whoever wraps the request on the server (server/request.c): told when its request can be disposed of. */
struct relay_tunnel_host {
    void (*on_accepted)(void *host); /* from a task: the head of a tunnel's 2xx is queued */
    void (*on_closed)(void *host);   /* right after the user's on_close */
};

/* The head of every session's stream struct; the session embeds it and calls init and, in `release`,
 * dispose. */
struct relay_tunnel {
    const struct relay_tunnel_ops *ops;
    struct relay_session *session;
    struct relay_loop *loop;
    enum relay_kind kind;
    const struct relay_tunnel_user *cb;
    void *user;
    const struct relay_tunnel_host *host_cb;
    void *host;
    uint64_t opened_at; /* ns */
    /* The user's: it has not seen yet that anybody takes the bytes which it takes. Until it has, the session
     * promises no more than the initial window and reads little at once, so that a tunnel that is stalled from
     * its start costs little (T76). Of a capsule tunnel it is tunnel.c's: its capsules are so small that the last
     * read could not be told in its turn (T39). */
    bool is_unproven;
    struct {
        /* in: from the HTTP peer. bytes: of the stream, capsules included; payload: of the datagrams */
        uint64_t bytes_in, bytes_out, datagrams_in, datagrams_out, payload_in, payload_out;
    } count;
    /* private to tunnel.c */
    struct relay_capsule_parser capsules;
    struct relay_task task;
    /* Bytes that came while paused, or in a turn that had no time left for their capsules; bounded by the stream's
     * flow-control window, or by one read where there is none. held_at: how many of the buffer were told. */
    uint8_t *held;
    size_t held_at, held_len, held_size;
    size_t unconsumed; /* told to a user that paused meanwhile: credit is given at resume */
    int close_error;
    uint16_t flags;
};

/* ---- for the user ---- */

/* Makes `user` the one who is told. On the server the first user is the request's wrapper; a handler
 * attaches when it takes the request over (and detaches by attaching NULL before it answers through h2o). */
void relay_tunnel_attach(struct relay_tunnel *tunnel, const struct relay_tunnel_user *cb, void *user);

/* RELAY_OK, or RELAY_ERR_CLOSED when the peer has gone (on_close comes). */
int relay_tunnel_respond(struct relay_tunnel *tunnel, const struct relay_response *response);
/* Opens a tunnel: 200 (or 101), with `capsule-protocol: ?1` for a capsule tunnel and the given fields. The
 * server's request is disposed of at the end of the turn: whoever needs its strings has copied them. */
int relay_tunnel_accept(struct relay_tunnel *tunnel, const struct relay_field *fields, size_t num_fields);

size_t relay_tunnel_room(struct relay_tunnel *tunnel);
/* Takes all bytes (loop.h: borrowed while they lie in scratch, else copied). False: no more until
 * on_writable. */
bool relay_tunnel_send(struct relay_tunnel *tunnel, const uint8_t *bytes, size_t len);
void relay_tunnel_send_fin(struct relay_tunnel *tunnel);

/* Advances the run over what was taken (or told too big: the caller advances over that with
 * relay_run_drop_one). */
enum relay_sent relay_tunnel_send_datagrams(struct relay_tunnel *tunnel, struct relay_run *run);
void relay_run_drop_one(struct relay_run *run);
size_t relay_run_count(const struct relay_run *run); /* datagrams */
/* Largest payload that can be sent now: a DATAGRAM frame's, or 65527 where capsules are used. */
size_t relay_tunnel_max_datagram(struct relay_tunnel *tunnel, uint64_t context_id);
/* A DATAGRAM capsule in spite of usable DATAGRAM frames (the opt-in `oversize: capsule`), or any other
 * capsule. Same answers as send. */
bool relay_tunnel_send_capsule(struct relay_tunnel *tunnel, uint64_t type, const uint8_t *value, size_t len);

/* Paused: no on_bytes, on_fin, on_capsule and no datagrams from capsules. DATAGRAM frames still come. */
void relay_tunnel_pause(struct relay_tunnel *tunnel);
void relay_tunnel_resume(struct relay_tunnel *tunnel);

void relay_tunnel_abort(struct relay_tunnel *tunnel, int error);

/* What to call the end that on_close(error) told, in a log. RELAY_ERR_RESET stays so when it was the other side's
 * that this tunnel is joined to (relay_tunnel_abort). The HTTP peer's own is RELAY_ERR_CANCELLED, and RELAY_OK behind
 * its FIN: an application that has what it wanted closes its socket, and the rest finds nobody. */
int relay_tunnel_verdict(const struct relay_tunnel *tunnel, int error);

/* ---- for the session ---- */

void relay_tunnel_init(struct relay_tunnel *tunnel, const struct relay_tunnel_ops *ops,
                       struct relay_session *session, struct relay_loop *loop, enum relay_kind kind);
void relay_tunnel_dispose(struct relay_tunnel *tunnel);

void relay_tunnel_deliver_response(struct relay_tunnel *tunnel, const struct relay_response *response);
/* Bytes of the request stream, in order; they may lie in scratch. A malformed capsule aborts the tunnel. Of capsules as
 * many are told as this turn has time for (relay_loop_has_time); the others follow in later turns, in pieces of
 * RELAY_CAPSULES_AT_ONCE and by turns with other tunnels. Until then set_reading is off and no credit given (T39). */
void relay_tunnel_deliver(struct relay_tunnel *tunnel, uint8_t *bytes, size_t len);
/* The peer's FIN. Inside a capsule it is malformed (RFC 9297 section 3.3): aborts. */
void relay_tunnel_deliver_fin(struct relay_tunnel *tunnel);
/* One DATAGRAM frame's HTTP Datagram payload, from the context ID on. */
void relay_tunnel_deliver_datagram(struct relay_tunnel *tunnel, const uint8_t *payload, size_t len);
/* There may be room again: call it whenever room() or the way for datagrams has grown; only a user that
 * waits is told. */
void relay_tunnel_writable(struct relay_tunnel *tunnel);
/* The stream has ended; queues on_close, then ops->release. Calls after the first are ignored. A clean end
 * (RELAY_OK) waits until a paused user has taken what is held; until then no op but `release` is called
 * any more. */
void relay_tunnel_closed(struct relay_tunnel *tunnel, int error);
/* relay_tunnel_closed was called. */
bool relay_tunnel_is_closed(const struct relay_tunnel *tunnel);

#endif
