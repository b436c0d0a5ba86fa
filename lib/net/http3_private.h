/* What the files of the HTTP/3 session share; nobody else includes this.
 *
 *   http3_session.c   the connection: QUIC's callbacks, the task, shutdown and close
 *   http3_timer.c     who has waited long enough: the session's one timer, with all its deadlines
 *   http3_stream.c    one request stream: its life, and the tunnel's operations
 *   http3_uni.c       the client's unidirectional streams, before nghttp3 reads them
 *   http3_read.c      what nghttp3 tells while it reads
 *   http3_head.c      heads, both ways
 *   http3_buffer.c    the bytes of a stream until they are acknowledged
 *   http3_datagram.c  HTTP Datagrams in DATAGRAM frames
 *
 * Re-entrancy: QUIC's and nghttp3's callbacks only copy, mark and queue. What must wait (to reset or stop a
 * stream, to show a head, to close) is a bit in the stream's `due` or the session's `due`, and the session's
 * task does it.
 */
#ifndef RELAY_NET_HTTP3_PRIVATE_H
#define RELAY_NET_HTTP3_PRIVATE_H

#include <nghttp3/nghttp3.h>

#include "lib/net/http3.h"
#include "lib/net/quic_conn.h"

#define RELAY_H3_DATAGRAM_ERROR 0x33 /* RFC 9297 section 5.2; nghttp3 has no name for it */

/* ---- a list whose links are embedded; an unlinked link points to itself ---- */

struct relay_http3_link {
    struct relay_http3_link *prev, *next;
};

static inline void relay_http3_link_init(struct relay_http3_link *link)
{
    link->prev = link->next = link;
}

static inline bool relay_http3_link_alone(const struct relay_http3_link *link)
{
    return link->next == link;
}

static inline void relay_http3_link_remove(struct relay_http3_link *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    relay_http3_link_init(link);
}

static inline void relay_http3_link_append(struct relay_http3_link *list, struct relay_http3_link *link)
{
    link->prev = list->prev;
    link->next = list;
    list->prev->next = link;
    list->prev = link;
}

#define RELAY_HTTP3_OF(type, member, pointer) ((type *)((char *)(pointer)-offsetof(type, member)))

/* ---- heads ---- */

/* The fields of a head that is arriving, copied. Made when the head begins, freed when it was shown. */
struct relay_http3_head {
    char *bytes;
    size_t len, size;
    struct relay_http3_span {
        uint32_t name, name_len, value, value_len; /* offsets into bytes */
    } * spans;
    size_t num_spans, spans_size;
    struct relay_field *fields; /* made by _request and _response */
    bool is_complete;
    int error; /* RELAY_ERR_TOO_BIG or _NO_MEMORY: the rest was not kept */
};

/* Fields beyond limits->head_fields and bytes beyond limits->head_bytes are not kept; head->error says so. */
void relay_http3_head_add(struct relay_http3_head *head, const struct relay_limits *limits, const char *name,
                          size_t name_len, const char *value, size_t value_len);
/* Whether `:method: CONNECT` is in what was kept of it. */
bool relay_http3_head_is_connect(const struct relay_http3_head *head);
/* The head as a request (without `ends`), borrowed from it. 0, or RELAY_ERR_INVALID: malformed by RFC 9114
 * section 4.1.2, 4.2, 4.3.1 and 4.4, RFC 9220 or RFC 9297 section 3.4; RELAY_ERR_NO_MEMORY. */
int relay_http3_head_request(struct relay_http3_head *head, struct relay_request *request);
/* The same as a response to a request of `kind`. */
int relay_http3_head_response(struct relay_http3_head *head, enum relay_kind kind,
                              struct relay_response *response);
/* For the next head on the same stream, after a 1xx. */
void relay_http3_head_dispose(struct relay_http3_head *head);

/* A head to send, as nghttp3 wants it: borrows the message's strings until it is submitted. */
struct relay_http3_nvs {
    nghttp3_nv *nv;
    size_t num;
    char status[4], length[24];
};

int relay_http3_nvs_request(struct relay_http3_nvs *nvs, const struct relay_request *request);
int relay_http3_nvs_response(struct relay_http3_nvs *nvs, const struct relay_response *response,
                             bool is_tunnel);
void relay_http3_nvs_dispose(struct relay_http3_nvs *nvs);

/* ---- the bytes to send ---- */

struct relay_http3_chunk;

/* Kept until the peer has acknowledged them: QUIC sends lost ones again from here. `limit` is how many bytes
 * the user may have in it: at first limits->window_initial, doubled up to window_max when a whole buffer was
 * acknowledged within two round trips, as far as the budget has room; so it follows the path's
 * bandwidth-delay product, and a stalled tunnel holds little. */
struct relay_http3_buffer {
    struct relay_budget *budget;
    struct relay_http3_chunk *first, *last, *unread; /* unread: where nghttp3 reads on; NULL: at the end */
    size_t first_acked, unread_at;
    size_t held, num_unread; /* bytes in it; bytes not yet read */
    size_t limit, charged;
    uint64_t written, acked;
    uint64_t mark, marked_at; /* when the buffer was full: bytes written then, and the time; 0: no mark */
    bool is_stalled;          /* out of the peer's credit: no reason to grow */
};

void relay_http3_buffer_init(struct relay_http3_buffer *buffer, struct relay_budget *budget,
                             const struct relay_limits *limits);
/* Before the first byte: it is an ordinary message, which costs its reader no token, and begins small. */
void relay_http3_buffer_begin_small(struct relay_http3_buffer *buffer);
/* Copies; over the limit too. 0 or RELAY_ERR_NO_MEMORY (nothing was taken). */
int relay_http3_buffer_append(struct relay_http3_buffer *buffer, const uint8_t *bytes, size_t len);
size_t relay_http3_buffer_room(const struct relay_http3_buffer *buffer);
/* The user has no room: the measurement for the limit begins, if none runs. */
void relay_http3_buffer_full(struct relay_http3_buffer *buffer, uint64_t now);
/* The next bytes, at most `max` but for the rest of a piece. Returns how many pieces it filled. */
size_t relay_http3_buffer_read(struct relay_http3_buffer *buffer, nghttp3_vec *pieces, size_t num_pieces,
                               size_t max);
void relay_http3_buffer_acked(struct relay_http3_buffer *buffer, const struct relay_limits *limits,
                              uint64_t len, uint64_t now, uint64_t rtt);
/* Nothing more is sent: what was not read goes now, and the budget is given back. What was read stays until the stream
 * has ended, which is the peer's to say. */
void relay_http3_buffer_give_up(struct relay_http3_buffer *buffer);
void relay_http3_buffer_dispose(struct relay_http3_buffer *buffer);

/* ---- one request stream ---- */

enum relay_http3_stream_due {
    RELAY_HTTP3_DUE_SHOW = 1,   /* a head is complete */
    RELAY_HTTP3_DUE_REFUSE = 2, /* the head is over the limits: answer 431 */
    RELAY_HTTP3_DUE_RESET = 4,  /* RESET_STREAM and STOP_SENDING with reset_code */
    RELAY_HTTP3_DUE_STOP = 8    /* the reply is out, the rest of the request is not wanted */
};

/* Freed when both have happened: the tunnel was released (or nobody saw it), and QUIC has closed the stream
 * (until then bytes may have to be sent again) or the connection is gone. */
struct relay_http3_stream {
    struct relay_tunnel tunnel; /* first */
    int64_t id;
    struct relay_http3_stream *next_in_bucket;
    struct relay_http3_link pending, yielded, blocked, heading; /* in the session's lists of the same names */
    struct relay_http3_head head;
    struct relay_http3_buffer buffer;
    struct relay_window window;
    uint8_t *stash; /* bytes that came behind the head, before it was shown */
    size_t stash_len, stash_size;
    uint64_t reset_code;
    uint64_t progress_at; /* server, an ordinary message: its head, its answer, RELAY_PROGRESS_MIN of that */
    uint64_t taken;       /* acknowledged of the answer since then */
    int end_error;        /* how QUIC closed it, while the head is still to be shown */
    uint8_t due;
    enum relay_kind kind; /* the request's; the tunnel's becomes MESSAGE when a CONNECT is refused */
    bool is_shown;        /* the user knows it (client: the response) */
    bool is_tunnel;       /* counted in num_open_tunnels */
    bool is_over;         /* counted in num_over */
    bool is_submitted;    /* our head went to nghttp3 */
    bool is_head_sent;    /* and some of it is in a packet */
    bool is_waiting;      /* the reader had nothing to give */
    bool had_turn;        /* the reader gave its share in this round */
    bool fin_queued;      /* the user has ended its direction */
    bool fin_read;        /* nghttp3 knows */
    bool fin_received;
    bool is_discarding; /* what still comes is not wanted */
    bool is_failed;     /* reset by us or by the peer */
    bool has_sent;      /* datagrams, since it was woken last */
    bool is_released, is_quic_closed;
};

/* ---- the connection ---- */

#define RELAY_HTTP3_EARLY_MAX   8
#define RELAY_HTTP3_EARLY_BYTES 65536

struct relay_http3_early {
    int64_t stream;
    uint8_t *payload;
    size_t len;
};

/* Server: one of the client's unidirectional streams, as far as it must be understood before nghttp3 reads it. */
struct relay_http3_uni {
    int64_t id;            /* 0: none */
    uint64_t number, left; /* of a head, as far as it has come; bytes of the payload that are not passed on */
    uint8_t number_left;   /* bytes of the number; 0: none has begun */
    uint8_t num_held;
    uint8_t held[8 + 1]; /* the longest element ID, and one byte more */
    uint8_t phase;
    bool is_priority;
};

struct relay_http3 {
    struct relay_session base;    /* first */
    struct relay_quic_conn *quic; /* NULL once it told on_close */
    nghttp3_conn *h3;             /* NULL then, too */
    struct relay_budget *budget;
    struct relay_task task;
    struct relay_timer timer;
    struct relay_http3_stream **buckets; /* by stream ID, a power of two */
    size_t num_buckets, num_streams;
    struct relay_http3_stream *found;        /* the one looked up last */
    struct relay_http3_link pending;         /* something is due */
    struct relay_http3_link yielded;         /* had their turn in this round of the flush */
    struct relay_http3_link heading;         /* requests whose head is incomplete, oldest first */
    struct relay_http3_link starved, served; /* by `blocked`: wait for room for datagrams; served: has_sent */
    struct relay_http3_early early[RELAY_HTTP3_EARLY_MAX]; /* oldest first */
    size_t num_early, early_bytes;
    struct relay_http3_uni unis[RELAY_QUIC_UNI_STREAMS];
    struct relay_bucket resets, own_resets;
    int64_t max_seen;     /* highest request stream ID that was opened */
    uint64_t num_closed;  /* request streams that are done */
    uint64_t max_streams; /* at once */
    uint64_t close_code;  /* of the close that is due */
    int close_error, final_error;
    /* Streams that keep no connection: their answer is no tunnel, or they were reset. All that is left is the peer's: of
     * a client's relay that leaves too much of it, the connection is closed. */
    size_t num_over;
    uint64_t message_at;           /* server: when the first deadline of a message may be; 0: none */
    uint64_t drain_at, idle_since; /* idle_since: the last end of a stream or progress of an answer */
    uint32_t num_open_tunnels;
    bool is_open;        /* our control streams are bound */
    bool has_settings;   /* the peer's */
    bool peer_datagrams; /* its H3_DATAGRAM setting */
    bool saw_datagrams;  /* its transport parameter allows DATAGRAM frames */
    bool is_ready_told;
    bool goaway_received, is_goaway_told;
    bool is_draining, is_goaway_sent; /* shutdown was asked for; the last GOAWAY is out */
    bool is_close_due, is_closing;
    bool is_broken; /* nghttp3 failed: nothing but nghttp3_conn_del may be called */
    bool is_kept_alive;
    bool is_reader_blocked; /* the reader answered WOULDBLOCK in this call of nghttp3 */
};

/* http3_session.c */
void relay_http3_close(struct relay_http3 *session, uint64_t code, int error); /* from anywhere */
void relay_http3_wake(struct relay_http3 *session);                            /* the task is due */
void relay_http3_count_reset(struct relay_http3 *session);                     /* the peer's */
void relay_http3_count_own_reset(struct relay_http3 *session); /* ours, of the peer's making */

static inline bool relay_http3_is_dead(const struct relay_http3 *session)
{
    return session->quic == NULL || session->is_closing || session->is_broken;
}

/* http3_timer.c: heads that take too long, messages that stand still, connections without requests, and the second step
 * of a shutdown. The timer is the session's; the task sets it anew after whatever may have moved a deadline. */
void relay_http3_set_timer(struct relay_http3 *session);
void relay_http3_on_timer(struct relay_timer *timer);

/* http3_stream.c */
struct relay_http3_stream *relay_http3_stream_find(struct relay_http3 *session, int64_t id);
struct relay_http3_stream *relay_http3_stream_new(struct relay_http3 *session, int64_t id,
                                                  enum relay_kind kind);
void relay_http3_stream_due(struct relay_http3_stream *stream, enum relay_http3_stream_due why);
/* Ends it both ways with an H3 error code; the user is told `error`. From anywhere, more than once. */
void relay_http3_stream_fail(struct relay_http3_stream *stream, uint64_t code, int error);
void relay_http3_stream_run(struct relay_http3_stream *stream); /* does what is due */
void relay_http3_stream_ended(struct relay_http3_stream *stream,
                              int error); /* QUIC has closed it, or is gone */
struct relay_tunnel *relay_http3_stream_open(struct relay_session *base, const struct relay_request *request,
                                             const struct relay_tunnel_user *cb, void *user);
bool relay_http3_resume_yielded(struct relay_http3 *session);
static inline struct relay_http3 *relay_http3_of(const struct relay_http3_stream *stream)
{
    return (struct relay_http3 *)stream->tunnel.session;
}

/* http3_uni.c: what nghttp3 is given of a client's unidirectional stream. For each piece that comes: `complete`, and when
 * `take_held` says so, that many bytes of `held`; then what `pass` says of the rest, which keeps what it leaves. */
struct relay_http3_uni *relay_http3_uni_find(struct relay_http3 *session,
                                             int64_t id); /* NULL: more than QUIC allows */
void relay_http3_uni_forget(struct relay_http3 *session, int64_t id);
/* How many bytes it took to what is held. */
size_t relay_http3_uni_complete(struct relay_http3_uni *uni, const uint8_t *bytes, size_t len);
size_t relay_http3_uni_take_held(struct relay_http3_uni *uni);
size_t relay_http3_uni_pass(struct relay_http3_uni *uni, const uint8_t *bytes, size_t len);

/* http3_read.c */
int relay_http3_read_init(struct relay_http3 *session); /* makes session->h3 */

/* http3_datagram.c */
uint64_t relay_http3_on_datagram(void *user, const uint8_t *bytes, size_t len);
void relay_http3_deliver_early(struct relay_http3_stream *stream);
void relay_http3_drop_early(struct relay_http3 *session);
void relay_http3_wake_blocked(struct relay_http3 *session);
enum relay_sent relay_http3_send_datagrams(struct relay_tunnel *tunnel, struct relay_run *run);
size_t relay_http3_max_datagram(struct relay_tunnel *tunnel, uint64_t context_id);

/* ---- http3_preface.c ---- */

/* What nghttp3 wants to say first is the beginning of the control stream: it is taken from it, as if it had been
 * sent and acknowledged. Copied to `out`, if there is one. 0 or RELAY_ERR_NO_MEMORY. */
int relay_http3_take_settings(nghttp3_conn *h3, int64_t control, struct relay_quic_preface *out);

#endif
