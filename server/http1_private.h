/* What the files of the HTTP/1.1 session share; nobody else includes this.
 *
 *   http1.c         the connection: what comes, the requests in it, their bytes to the tunnel, and its end
 *   http1_tunnel.c  the tunnel of the request that it has now: what its user does with it
 *
 * The session owns the stream and embeds the tunnel, which is its request's from on_request until the tunnel was
 * released: one at a time, for which the next request waits. Once the stream has had its ending (AT_END) nothing but
 * tellings is left, and the session frees itself when the tunnel has been released too.
 */
#ifndef RELAY_SERVER_HTTP1_PRIVATE_H
#define RELAY_SERVER_HTTP1_PRIVATE_H

#include "lib/net/buffer.h"
#include "lib/net/http1_head.h"
#include "lib/net/stream.h"
#include "server/http1.h"
#include "server/http1_response.h"

enum relay_http1_state {
    RELAY_HTTP1_AT_HEAD,   /* between requests, or inside a head */
    RELAY_HTTP1_AT_BODY,   /* the request's body comes */
    RELAY_HTTP1_AT_ANSWER, /* the request is complete; a CONNECT or upgrade waits for its response */
    RELAY_HTTP1_AT_TUNNEL, /* opened */
    RELAY_HTTP1_AT_END     /* the stream has had its ending */
};

struct relay_http1 {
    struct relay_session super;
    struct relay_stream *stream;
    struct relay_tunnel tunnel; /* of the current request; valid while has_tunnel */
    struct relay_buffer in;     /* not yet parsed or delivered */
    size_t told; /* so many of its first bytes are the current request's, which is being told of them */
    enum relay_http1_body body;
    struct relay_http1_chunked chunked;
    uint64_t body_left;
    struct relay_http1_context context;
    enum relay_http1_framing framing;
    enum relay_http1_state state;
    struct relay_task task; /* goes on with `in`, or tells on_close */
    struct relay_timer timer;
    int error;
    bool has_tunnel, responded;
    bool in_done;  /* the request, or the tunnel's way in, has ended */
    bool out_done; /* the response, or the tunnel's way out, has ended */
    bool fin_seen; /* the peer's */
    bool user_paused, is_shutdown;
    bool is_waiting;    /* with the next request in `in`, for the peer to read answers */
    bool is_challenged; /* a CONNECT was refused, and the connection is open for its repetition */
};

/* http1.c */

/* After a change of user_paused, `state`, or what is in `in`. */
void relay_http1_update_reading(struct relay_http1 *h);
/* Ends the stream, cleanly or with a TCP RST; the tunnel's user and the session's are told `error`. More than once. */
void relay_http1_end(struct relay_http1 *h, int error);
void relay_http1_reset(struct relay_http1 *h, int error);
/* Whether the peer, which has said all, has no request behind the current one. */
bool relay_http1_is_last(const struct relay_http1 *h);
/* After a change of in_done or out_done: ends the request, and the connection where it was the last one. */
void relay_http1_finish_if_done(struct relay_http1 *h);
/* The next one may come; its timer runs. */
void relay_http1_await_request(struct relay_http1 *h);

/* http1_tunnel.c */
extern const struct relay_tunnel_ops relay_http1_tunnel_ops;

#endif
