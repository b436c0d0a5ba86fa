/* A local TCP connection of a front while it says what it wants: its bytes are gathered in a buffer until the
 * front has understood them and hands the stream on (join.h, http_forward.h), or it ends, or takes too long.
 */
#ifndef RELAY_CLIENT_FRONT_CONNECTION_H
#define RELAY_CLIENT_FRONT_CONNECTION_H

#include "client/front.h"
#include "lib/net/stream.h"

#define RELAY_FRONT_CONNECTION_PATIENCE (30 * RELAY_SECOND)
#define RELAY_FRONT_CONNECTION_IDLE     (120 * RELAY_SECOND) /* before the first byte of what comes next */

struct relay_front_connection;

struct relay_front_connection_user {
    size_t object_size; /* of what begins with struct relay_front_connection; the rest of it is zeroed */
    size_t buffer_size;
    /* There are more bytes. */
    void (*on_bytes)(struct relay_front_connection *connection);
    /* More came than the buffer holds. */
    void (*on_full)(struct relay_front_connection *connection);
    /* The memory goes right after; the stream is not touched. */
    void (*on_end)(struct relay_front_connection *connection);
};

/* The head of a front's own object. */
struct relay_front_connection {
    const struct relay_front_connection_user *cb;
    struct relay_front *front;
    struct relay_stream *stream;
    struct relay_timer timer; /* while `bytes` are wanted: relay_front_connection_understood */
    struct sockaddr_storage local, peer;
    uint8_t *bytes;
    size_t len;
    bool is_idle; /* nothing has come since relay_front_connection_again */
};

/* Takes the descriptor. The object lives until relay_front_connection_end, or the stream's own end. */
void relay_front_connection_accept(struct relay_front *front, int fd, const struct sockaddr_storage *peer,
                                   const struct relay_front_connection_user *cb);
/* The first `len` bytes are dealt with. */
void relay_front_connection_drop(struct relay_front_connection *connection, size_t len);
/* There is no hurry any more, and what comes next goes elsewhere. */
void relay_front_connection_understood(struct relay_front_connection *connection);
/* The stream is its again, paused: it goes on with what comes next, of which `bytes` may hold something. Its user may
 * have ended it when this returns. */
void relay_front_connection_again(struct relay_front_connection *connection);
/* Frees it. The stream is somebody else's, or released. */
void relay_front_connection_end(struct relay_front_connection *connection);

#endif
