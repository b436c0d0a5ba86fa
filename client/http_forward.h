/* Requests for http:// URLs on one local connection (RFC 9112 section 3.2.2), one after the other: each is sent through
 * a tunnel to the server that it names, and its answer comes back, both with their framing checked (http_message.h).
 *
 * The local connection and the one to the server live on independently. The next request for the same server takes the
 * tunnel of the one before, if that server keeps its connection; any other request gets a tunnel of its own. A request
 * that nobody answers because such a server has closed just then is sent once more on a new tunnel, if that is
 * harmless. An answer with bad framing is a 502 or, once its head is out, a reset; it is never ended cleanly or mixed
 * with the next one.
 *
 * Embedded by a front's connection; zeroed memory is one that was not used. Order of calls: begin; on_done; begin; ...
 * until on_end; dispose.
 */
#ifndef RELAY_CLIENT_HTTP_FORWARD_H
#define RELAY_CLIENT_HTTP_FORWARD_H

#include "client/front_connection.h"
#include "client/http_message.h"

enum relay_http_forward_state {
    RELAY_HTTP_FORWARD_IDLE,    /* no request; a tunnel may be there for the next one */
    RELAY_HTTP_FORWARD_OPENING, /* the tunnel */
    RELAY_HTTP_FORWARD_ASKED,   /* the answer's head has not come */
    RELAY_HTTP_FORWARD_ANSWER,  /* its body */
    RELAY_HTTP_FORWARD_FULL     /* it is through, but the application has still much to read */
};

struct relay_http_forward_user {
    /* The answer is out and the local connection goes on. The stream is the user's again, paused; the connection's
     * buffer holds what came of the next request. */
    void (*on_done)(struct relay_front_connection *connection);
    /* The stream has ended. */
    void (*on_end)(struct relay_front_connection *connection);
};

struct relay_http_forward {
    struct relay_opening opening; /* first */
    const struct relay_http_forward_user *cb;
    struct relay_front_connection *connection;
    struct relay_tunnel *tunnel; /* NULL: none, or not open yet */
    struct relay_host host;      /* whose it is */
    uint16_t port;
    enum relay_http_forward_state state;
    struct relay_http_body request, answer; /* their bodies */
    bool is_to_head, is_interim_welcome;    /* the request: HEAD; HTTP/1.1 */
    bool keeps_alive;                       /* the application wants its connection to live on */
    bool server_keeps_alive;
    bool may_repeat; /* on a new tunnel */
    size_t head_len; /* of what goes to the server: `head`, kept while it may have to go again */
    uint8_t *head;
    size_t got_len, got_size; /* of an answer's head that is not complete */
    uint8_t *got;
};

/* Takes the connection's running, paused stream and the request whose head is in front of the connection's buffer. 0,
 * and on_done or on_end comes; RELAY_ERR_INVALID (no target) or RELAY_ERR_NO_MEMORY, and the stream is still the
 * caller's. */
int relay_http_forward_begin(struct relay_http_forward *forward, struct relay_front_connection *connection,
                             const struct relay_http1_head *head, const struct relay_http_forward_user *cb);
/* While no request is under way: lets go of the tunnel. */
void relay_http_forward_dispose(struct relay_http_forward *forward);

/* Answers 502 with the failure's sentence, and ends the stream (front_http.c). */
void relay_http_forward_refuse(struct relay_stream *stream, const struct relay_failure *failure);

#endif
