/* What the http2_*.c files share. Nobody else includes it.
 *
 * http2.c         makes sessions and holds their operations (session.h).
 * http2_session.c runs the connection: feeding nghttp2 frame by frame, flushing, timers, the end.
 * http2_frames.c  holds nghttp2's callbacks: they only mark, queue and hand bytes on.
 * http2_stream.c  is the tunnel's side: send queue, credit, responses, resets.
 * http2_head.c    collects and checks heads and writes ours.
 * http2_guard.c   walks the frames before nghttp2 does and counts what a peer may do per second.
 * http2_past.c    remembers the client's last closed streams, which nghttp2 does not.
 *
 * Rules that keep it alive: `busy` is set while nghttp2 runs; then nothing is flushed. A session is freed
 * only by its event task, a stream only by relay_tunnel_ops.release. nghttp2_session_del calls no callback,
 * so it comes last.
 */
#ifndef RELAY_NET_HTTP2_PRIVATE_H
#define RELAY_NET_HTTP2_PRIVATE_H

#include <nghttp2/nghttp2.h>

#include "lib/net/http2.h"
#include "lib/net/limit_log.h"
#include "lib/net/stream.h"

#define HTTP2_FRAME_HEAD    9
#define HTTP2_DATA_MAX      16375 /* with its head one full TLS record */
#define HTTP2_ACKS_MAX      1000  /* of PING and SETTINGS, waiting for a peer that does not read (T13) */
#define HTTP2_CONTINUATIONS 8     /* frames behind one HEADERS (T12) */
#define HTTP2_PAST_ENDED    16    /* closed streams that a session remembers */

/* ---- guard: what a peer may cost ---- */

struct http2_guard {
    uint8_t head[HTTP2_FRAME_HEAD]; /* of the frame under way */
    uint8_t head_len;               /* how much of it is there; complete: the payload is under way */
    uint8_t continuations;          /* behind the HEADERS under way */
    bool in_block;                  /* HEADERS came without END_HEADERS */
    bool has_begun;                 /* the last walk completed `head` */
    uint32_t left;                  /* of the payload (or of the client's preface) */
    uint32_t update_credit;         /* WINDOW_UPDATEs that our DATA frames make plausible */
    size_t late_credit; /* what may be on its way to streams that we have ended, by what it costs */
    bool is_late;       /* the header block under way is such a stream's */
    struct relay_bucket control, resets, own_resets;
};

void relay_http2_guard_init(struct http2_guard *guard, bool is_server);
/* Walks to the end of the frame under way or of the bytes; how far is in *taken. RELAY_ERR_EXCESSIVE_LOAD:
 * too many CONTINUATION or control frames. */
int relay_http2_guard_walk(struct http2_guard *guard, const struct relay_limits *limits, const uint8_t *bytes,
                           size_t len, uint64_t now, size_t *taken);
/* A frame or a header block has begun and not ended. DATA does not count: a slow tunnel is no attack. */
bool relay_http2_guard_is_partial(const struct http2_guard *guard);
/* A DATA frame of `len` payload bytes went out. */
void relay_http2_guard_sent_data(struct http2_guard *guard, size_t len);
/* We end a stream on which `len` bytes of DATA may be on their way (RFC 9113 section 5.1): they are nobody's fault. */
void relay_http2_guard_forgive(struct http2_guard *guard, size_t len);
/* The frame that has begun is for a stream of which nothing is wanted any more, if is_late. False: it is small, or a
 * part of a header block, beyond what was forgiven, and the bucket of control frames is empty. */
bool relay_http2_guard_late(struct http2_guard *guard, const struct relay_limits *limits, bool is_late,
                            uint64_t now);
/* Each false when the bucket is empty. */
bool relay_http2_guard_control(struct http2_guard *guard, const struct relay_limits *limits, uint64_t now);
bool relay_http2_guard_reset(struct http2_guard *guard, const struct relay_limits *limits, uint64_t now);
bool relay_http2_guard_own_reset(struct http2_guard *guard, const struct relay_limits *limits, uint64_t now);

/* ---- past: what a client has done with its streams ---- */

struct http2_past {
    uint32_t last;                     /* the greatest ID that it used */
    uint32_t skipped_from, skipped_to; /* the IDs that its last jump passed over, without the second */
    uint32_t ended[HTTP2_PAST_ENDED];  /* streams that it ended or reset itself; the oldest is overwritten */
    uint32_t next;
};

/* Server: judges each frame by its head, before nghttp2 gets it (it ignores these). is_alive: nghttp2 still
 * knows the stream. NGHTTP2_NO_ERROR, or the code of the GOAWAY it deserves: DATA or HEADERS behind the
 * client's own END_STREAM or RST_STREAM (RFC 9113 section 5.1; what crosses with our RST_STREAM is not that),
 * a new stream with an ID that was passed over (5.1.1), PRIORITY without a stream (6.3). */
uint32_t relay_http2_past_judge(struct http2_past *past, const uint8_t *frame_head, uint32_t id,
                                bool is_alive);

/* ---- head: the one under way (header blocks never interleave on a connection) ---- */

struct http2_stream;

struct http2_head {
    struct http2_stream *stream;
    bool is_complete, ends, is_too_big, is_malformed;
    bool is_last;    /* nghttp2 has closed the stream with it: ... */
    int close_error; /* ... it ends so once it is shown */
    int status;      /* of a response */
    struct relay_slice method, scheme, authority, path, protocol;
    size_t num_fields, max_fields;
    size_t len, size; /* of bytes */
    char *bytes;      /* behind the fields, in the same allocation */
    struct relay_field fields[];
};

/* NULL: out of memory. Freed with free(). */
struct http2_head *relay_http2_head_new(struct http2_stream *stream, const struct relay_limits *limits);
/* Takes one field; beyond the limits it only notes that. */
void relay_http2_head_add(struct http2_head *head, struct relay_slice name, struct relay_slice value);
/* RELAY_ERR_TOO_BIG, RELAY_ERR_INVALID (malformed, RFC 9113 section 8.1.1); the result borrows from the head.
 */
int relay_http2_head_request(const struct http2_head *head, bool is_clear, struct relay_request *request);
/* The same for a response; kind is the request's. */
int relay_http2_head_response(const struct http2_head *head, enum relay_kind kind,
                              struct relay_response *response);
/* Our heads as nghttp2 wants them (it copies). *count of an allocation that the caller frees; NULL: out of
 * memory. */
nghttp2_nv *relay_http2_head_write_request(const struct relay_request *request, size_t *count);
nghttp2_nv *relay_http2_head_write_response(const struct relay_response *response, bool is_tunnel,
                                            size_t *count);

/* ---- stream ---- */

struct http2_stream {
    struct relay_tunnel tunnel; /* first */
    struct http2_stream *prev, *next;
    struct relay_window window;
    int32_t id;
    uint64_t progress_at; /* server, an ordinary message: its head, its answer, RELAY_PROGRESS_MIN of that */
    size_t taken;         /* of the answer since then */
    bool is_shown;        /* server: on_request was called; client: always */
    bool is_head_sent;    /* server: and it has gone to the transport */
    bool is_answered;     /* server: our head is queued; client: on_response was called */
    bool is_tunnel;       /* a 2xx to CONNECT went or came */
    bool is_fin_in;       /* the peer's END_STREAM came */
    bool is_fin_out;      /* the user ended its direction, or the head did */
    bool is_fin_sent;     /* END_STREAM is out */
    bool is_reset_in;     /* the peer's RST_STREAM came */
    bool is_deferred;     /* nghttp2 waits for relay_http2_stream_resume */
    bool is_ended;        /* relay_tunnel_closed was called */
    bool is_in_nghttp;    /* nghttp2 still knows it and points to us */
    /* What waits for the peer: first the queue, then, during `send` alone, borrowed bytes. */
    uint8_t *queue; /* HTTP2_FRAME_HEAD writable bytes stand before `queue + queue_at` */
    size_t queue_at, queue_len, queue_size;
    const uint8_t *direct;
    size_t direct_len;
};

struct http2_session {
    struct relay_session super; /* first */
    nghttp2_session *nghttp;
    struct relay_stream *transport; /* NULL: ended */
    struct relay_budget *budget;
    struct http2_stream *streams;
    uint32_t num_live; /* streams that have not ended */
    struct http2_head *head;
    struct http2_guard guard;
    struct http2_past past;
    struct relay_task event; /* kept bytes, the end of failing, on_close */
    struct relay_task flush;
    struct relay_timer timer;
    /* RELAY_HEADROOM, and bytes that are not fed yet: early ones, or what a turn had no time for. */
    uint8_t *kept;
    size_t kept_at, kept_len;
    uint64_t active_at;   /* last head or end, or DATA that we sent; a client: or received */
    uint64_t message_at;  /* server: when the first deadline of a message may be; 0: none */
    uint64_t heard_at;    /* client: when bytes came */
    uint64_t used_at;     /* client: when a head or DATA last came or went */
    uint64_t told_at;     /* client: when one went that was the first since bytes came; 0: never */
    uint64_t pinged_at;   /* client: when it was asked for a sign of life; 0: it was not */
    uint64_t doubted_at;  /* client: the same, by relay_http2_doubt, ... */
    uint64_t doubt;       /* ... and how long it has for it */
    uint64_t partial_at;  /* when the incomplete frame or head block was first seen; 0: none */
    uint64_t settings_at; /* when our unacknowledged SETTINGS went; 0: none */
    uint64_t blocked_at;  /* when the transport wanted no more; 0: it does */
    uint64_t final_at;    /* graceful shutdown: when the final GOAWAY is due; 0: none */
    uint64_t rtt;         /* from our SETTINGS to its ACK */
    uint32_t max_streams; /* server: the last that the peer was told */
    uint32_t goaway_code; /* of the GOAWAY that nghttp2 sent */
    int error;            /* what on_close is told */
    bool busy;            /* inside nghttp2 */
    bool blocked;         /* the transport wants no more until on_writable */
    bool failing;         /* GOAWAY with an error is queued; input is ignored */
    bool dead;            /* nothing but on_close is left */
    bool draining;
    bool asks_soon; /* client: relay_http2_ask_soon */
    bool is_settings_in, is_ready_told, is_goaway_in, is_goaway_told;
};

static inline struct http2_session *relay_http2_session_of(struct relay_session *session)
{
    return (struct http2_session *)session;
}

/* ---- session ---- */

/* Copies bytes to be fed from the event task, behind those that are kept already. RELAY_ERR_NO_MEMORY. */
int relay_http2_session_keep(struct http2_session *session, const uint8_t *bytes, size_t len);
/* Ends the connection with GOAWAY, from the flush task. May be called anywhere, also inside nghttp2. */
void relay_http2_session_fail(struct http2_session *session, int error);
/* The same, because the peer went over the limit: ENHANCE_YOUR_CALM, counted and logged. */
void relay_http2_session_limit(struct http2_session *session, enum relay_limit limit);
/* Ends it now. Not inside nghttp2. */
void relay_http2_session_end(struct http2_session *session, int error);
/* Writes while the transport takes bytes; nothing when busy. */
void relay_http2_session_drain(struct http2_session *session);
/* Writes at the end of the turn. */
void relay_http2_session_flush_later(struct http2_session *session);
/* One frame head and its payload. `bytes` has HTTP2_FRAME_HEAD writable bytes before it, or `borrowed` says
 * that those belong to someone. */
void relay_http2_session_write_data(struct http2_session *session, const uint8_t *frame_head, uint8_t *bytes,
                                    size_t len, bool borrowed);

/* http2_watch.c. A head or DATA of a client's came or went; bytes came. */
void relay_http2_watch_used(struct http2_session *session, bool is_out);
void relay_http2_watch_heard(struct http2_session *session);
/* When it acts next; UINT64_MAX: never. */
uint64_t relay_http2_watch_due(const struct http2_session *session);
/* Asks for a sign of life when that is due. False: none has come in the idle timeout, or when it was in doubt. */
bool relay_http2_watch(struct http2_session *session, uint64_t now);

/* The final GOAWAY of a graceful shutdown. */
void relay_http2_session_goaway(struct http2_session *session);
/* Sets the timer to the next deadline; after every change of one. */
void relay_http2_session_arm(struct http2_session *session);
extern const struct relay_stream_user relay_http2_transport_user;
void relay_http2_session_init_tasks(struct http2_session *session, enum relay_level level);
/* Not the transport, and nobody is told. */
void relay_http2_session_free(struct http2_session *session);

/* NULL: out of memory. */
nghttp2_session *relay_http2_frames_new(struct http2_session *session);

/* In the session's list, without an ID. NULL: out of memory. */
struct http2_stream *relay_http2_stream_new(struct http2_session *session, enum relay_kind kind);
/* Out of the list and freed. */
void relay_http2_stream_free(struct http2_stream *stream);
/* Tells the tunnel once; nghttp2's stream is left alone. */
void relay_http2_stream_end(struct http2_stream *stream, int error);
void relay_http2_stream_reset(struct http2_stream *stream, uint32_t code);
nghttp2_data_provider relay_http2_stream_provider(void);
/* nghttp2's send_data: exactly the bytes that the provider promised. */
int relay_http2_stream_send_data(struct http2_stream *stream, const uint8_t *frame_head, size_t len);
/* `len` bytes of DATA need no user: padding, and what is dropped. */
void relay_http2_stream_credit(struct http2_stream *stream, size_t len);
/* Server: the stream is no tunnel, and its deadline begins. */
void relay_http2_stream_watch(struct http2_stream *stream);
/* Server: an answer of the session itself, to a head that nobody is shown. `is_tunnel`: it was a CONNECT. */
void relay_http2_stream_refuse(struct http2_stream *stream, int error, bool is_tunnel);

#endif
