#include "client/front_connection.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/wire/error.h"

void relay_front_connection_understood(struct relay_front_connection *connection)
{
    relay_timer_stop(connection->front->loop, &connection->timer);
    connection->stream->read_max = connection->cb->buffer_size;
}

void relay_front_connection_end(struct relay_front_connection *connection)
{
    relay_timer_stop(connection->front->loop, &connection->timer);
    connection->front->num_connections--;
    if (connection->cb->on_end != NULL)
        connection->cb->on_end(connection);
    free(connection);
}

void relay_front_connection_drop(struct relay_front_connection *connection, size_t len)
{
    connection->len -= len;
    memmove(connection->bytes, connection->bytes + len, connection->len);
}

/* ---- the stream ---- */

static void on_bytes(void *user, uint8_t *bytes, size_t len)
{
    struct relay_front_connection *connection = user;
    if (len > connection->cb->buffer_size - connection->len) {
        connection->cb->on_full(connection);
        return;
    }
    if (connection->len == 0 && connection->is_idle) {
        connection->is_idle = false;
        relay_timer_set_after(connection->front->loop, &connection->timer, RELAY_FRONT_CONNECTION_PATIENCE);
    }
    memcpy(connection->bytes + connection->len, bytes, len);
    connection->len += len;
    /* One read brings no more than the buffer holds, and one byte when it is full. */
    connection->stream->read_max =
        connection->cb->buffer_size - connection->len + (connection->len == connection->cb->buffer_size);
    connection->cb->on_bytes(connection);
}

/* The last answer may still be on its way to the application. */
static void end_in_order(struct relay_front_connection *connection)
{
    relay_stream_release(connection->stream);
    relay_front_connection_end(connection);
}

static void on_close(void *user, int error)
{
    struct relay_front_connection *connection = user;
    (void)error;
    relay_stream_close(connection->stream);
    relay_front_connection_end(connection);
}

static void on_fin(void *user)
{
    end_in_order(user);
}

static void on_nothing(void *user)
{
    (void)user;
}

static const struct relay_stream_user stream_cb = {on_nothing, on_bytes, on_fin, on_nothing, on_close};

void relay_front_connection_again(struct relay_front_connection *connection)
{
    size_t left = connection->cb->buffer_size - connection->len;
    connection->is_idle = connection->len == 0;
    relay_timer_set_after(connection->front->loop, &connection->timer,
                          connection->is_idle ? RELAY_FRONT_CONNECTION_IDLE
                                              : RELAY_FRONT_CONNECTION_PATIENCE);
    relay_stream_set_user(connection->stream, &stream_cb, connection);
    connection->stream->read_max = left + (left == 0);
    relay_stream_resume(connection->stream);
    if (connection->len > 0)
        connection->cb->on_bytes(connection);
}

static void on_timer(struct relay_timer *timer)
{
    end_in_order(
        (struct relay_front_connection *)((char *)timer - offsetof(struct relay_front_connection, timer)));
}

void relay_front_connection_accept(struct relay_front *front, int fd, const struct sockaddr_storage *peer,
                                   const struct relay_front_connection_user *cb)
{
    struct relay_front_connection *connection = malloc(cb->object_size + cb->buffer_size);
    struct sockaddr_storage local;
    socklen_t len = sizeof(local);
    if (connection == NULL || getsockname(fd, (struct sockaddr *)&local, &len) != 0) {
        free(connection);
        close(fd);
        return;
    }
    memset(connection, 0, cb->object_size);
    connection->local = local;
    connection->cb = cb;
    connection->front = front;
    connection->peer = *peer;
    connection->bytes = (uint8_t *)connection + cb->object_size;
    connection->stream = relay_stream_tcp(front->loop, fd, (const struct sockaddr *)peer);
    if (connection->stream == NULL) {
        free(connection);
        return;
    }
    front->num_connections++;
    relay_timer_init(&connection->timer, on_timer);
    relay_timer_set_after(front->loop, &connection->timer, RELAY_FRONT_CONNECTION_PATIENCE);
    connection->stream->read_max = cb->buffer_size;
    relay_stream_start(connection->stream, &stream_cb, connection);
}
