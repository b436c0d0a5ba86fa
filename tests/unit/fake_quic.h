/* QUIC connections without packets: two ends that hand each other stream bytes, resets, credit and datagrams
 * in the next turn of the loop, in order and without loss. Included by one test, which so has its own
 * quic_conn.h implementation and the peer's behaviour in its hand. */
#ifndef FAKE_QUIC_H
#define FAKE_QUIC_H

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/net/quic_conn.h"
#include "lib/wire/error.h"

/* ACK_ALL: of all that was sent on the stream; for a test that is the peer itself. */
enum fake_event_kind { DATA, RESET, STOP, ACK, ACK_ALL, CREDIT, DATAGRAM, STREAMS, CLOSE };

struct fake_event {
    struct fake_event *next;
    enum fake_event_kind kind;
    int64_t stream;
    uint64_t value;
    bool fin;
    size_t len;
    uint8_t bytes[];
};

struct fake_stream {
    int64_t id;
    uint64_t credit, received, consumed; /* credit: bytes we may still send */
    uint64_t unacked;                    /* sent */
    bool fin_sent, send_done, receive_done, closed;
};

struct relay_quic_conn {
    struct relay_loop *loop;
    const struct relay_quic_user *cb;
    void *user;
    struct relay_quic_conn *peer;
    bool is_server, inside, closing, keep_alive, was_blocked;
    struct relay_task flush, inbox_task, close_task;
    struct fake_event *inbox, **inbox_end;
    struct fake_stream *streams;
    size_t num_streams;
    int64_t next_bidi, next_uni;
    uint64_t max_bidi, peer_bidi; /* cumulative limits: ours to open; what we allow */
    uint64_t allowed, window;
    size_t max_datagram, datagram_room;
    uint64_t last_reset, close_code;
    int close_error;
    struct sockaddr_in address;
};

static struct fake_stream *fake_stream(struct relay_quic_conn *conn, int64_t id)
{
    for (size_t i = conn->num_streams; i-- > 0;)
        if (conn->streams[i].id == id)
            return &conn->streams[i];
    conn->streams = realloc(conn->streams, (conn->num_streams + 1) * sizeof(*conn->streams));
    struct fake_stream *stream = &conn->streams[conn->num_streams++];
    bool is_ours = ((id & 1) != 0) == conn->is_server;
    *stream = (struct fake_stream){.id = id, .credit = conn->window};
    if ((id & 2) != 0)
        *(is_ours ? &stream->receive_done : &stream->send_done) = true;
    return stream;
}

static void fake_post(struct relay_quic_conn *to, enum fake_event_kind kind, int64_t stream, uint64_t value,
                      bool fin, const void *bytes, size_t len)
{
    if (to == NULL)
        return;
    struct fake_event *event = malloc(sizeof(*event) + len);
    *event = (struct fake_event){.kind = kind, .stream = stream, .value = value, .fin = fin, .len = len};
    if (len > 0)
        memcpy(event->bytes, bytes, len);
    *to->inbox_end = event;
    to->inbox_end = &event->next;
    if (!relay_task_is_queued(&to->inbox_task))
        relay_task_defer(to->loop, &to->inbox_task);
}

static void fake_check_closed(struct relay_quic_conn *conn, int64_t id)
{
    struct fake_stream *stream = fake_stream(conn, id);
    if (!stream->send_done || !stream->receive_done || stream->closed)
        return;
    stream->closed = true;
    conn->cb->on_stream_closed(conn->user, id, 0);
    if (conn->is_server && (id & 3) == 0) {
        conn->peer_bidi++;
        fake_post(conn->peer, STREAMS, 0, conn->peer_bidi, false, NULL, 0);
    }
}

static void fake_stop_sending(struct relay_quic_conn *conn, int64_t id, uint64_t code)
{
    struct fake_stream *stream = fake_stream(conn, id);
    if (stream->send_done)
        return;
    stream->send_done = true;
    fake_post(conn->peer, RESET, id, code, false, NULL, 0);
}

static void fake_on_data(struct relay_quic_conn *conn, struct fake_event *event)
{
    struct fake_stream *stream = fake_stream(conn, event->stream);
    fake_post(conn->peer, ACK, event->stream, event->len, event->fin, NULL, 0);
    if (stream->receive_done || stream->closed)
        return;
    stream->received += event->len;
    uint64_t code = conn->cb->on_stream_data(conn->user, event->stream, event->bytes, event->len, event->fin);
    if (code != 0) {
        relay_quic_conn_close(conn, code, RELAY_ERR_PROTOCOL);
        return;
    }
    if (event->fin)
        fake_stream(conn, event->stream)->receive_done = true;
    fake_check_closed(conn, event->stream);
}

static void fake_on_event(struct relay_quic_conn *conn, struct fake_event *event)
{
    int64_t id = event->stream;
    uint64_t code = 0;
    switch (event->kind) {
    case DATA:
        fake_on_data(conn, event);
        break;
    case RESET:
        conn->last_reset = event->value;
        if (fake_stream(conn, id)->receive_done)
            break;
        fake_stream(conn, id)->receive_done = true;
        conn->cb->on_stream_reset(conn->user, id, event->value);
        fake_check_closed(conn, id);
        break;
    case STOP:
        if (fake_stream(conn, id)->closed)
            break;
        fake_stop_sending(conn, id, event->value);
        fake_check_closed(conn, id);
        break;
    case ACK_ALL:
        event->value = fake_stream(conn, id)->unacked;
        event->fin = fake_stream(conn, id)->fin_sent;
        /* fall through */
    case ACK:
        if (fake_stream(conn, id)->closed)
            break;
        fake_stream(conn, id)->unacked -= event->value;
        if (event->value > 0)
            conn->cb->on_stream_acked(conn->user, id, event->value);
        if (event->fin)
            fake_stream(conn, id)->send_done = true;
        fake_check_closed(conn, id);
        break;
    case CREDIT:
        fake_stream(conn, id)->credit += event->value;
        if (!fake_stream(conn, id)->closed)
            conn->cb->on_stream_credit(conn->user, id);
        break;
    case DATAGRAM:
        code = conn->cb->on_datagram(conn->user, event->bytes, event->len);
        if (code != 0)
            relay_quic_conn_close(conn, code, RELAY_ERR_PROTOCOL);
        break;
    case STREAMS:
        conn->max_bidi = event->value;
        conn->cb->on_streams_allowed(conn->user);
        break;
    case CLOSE:
        conn->close_code = event->value;
        conn->close_error = RELAY_ERR_CLOSED;
        conn->closing = true;
        relay_task_queue(conn->loop, &conn->close_task);
        break;
    }
}

static void fake_run_inbox(struct relay_task *task)
{
    struct relay_quic_conn *conn =
        (struct relay_quic_conn *)((char *)task - offsetof(struct relay_quic_conn, inbox_task));
    struct fake_event *event = conn->inbox;
    conn->inbox = NULL;
    conn->inbox_end = &conn->inbox;
    conn->inside = true;
    while (event != NULL) {
        struct fake_event *next = event->next;
        if (!conn->closing)
            fake_on_event(conn, event);
        free(event);
        event = next;
    }
    conn->inside = false;
    if (conn->was_blocked && conn->datagram_room > 0 && !conn->closing) {
        conn->was_blocked = false;
        conn->cb->on_writable(conn->user);
    }
    relay_task_queue(conn->loop, &conn->flush);
}

static bool fake_flush_one(struct relay_quic_conn *conn)
{
    struct iovec pieces[16];
    int64_t id;
    bool fin;
    int n = conn->cb->pull(conn->user, &id, &fin, pieces, 16);
    if (id < 0)
        return false;
    struct fake_stream *stream = fake_stream(conn, id);
    size_t total = 0, take = 0;
    for (int i = 0; i < n; i++)
        total += pieces[i].iov_len;
    if (stream->send_done) {
        conn->cb->on_stream_blocked(conn->user, id, true);
        return true;
    }
    uint8_t packet[4096];
    for (int i = 0; i < n && take < sizeof(packet); i++) {
        size_t len = pieces[i].iov_len < sizeof(packet) - take ? pieces[i].iov_len : sizeof(packet) - take;
        if (len > stream->credit)
            len = stream->credit;
        if (len > 0)
            memcpy(packet + take, pieces[i].iov_base, len);
        take += len;
        stream->credit -= len;
    }
    if (total > 0 && take == 0) {
        conn->cb->on_stream_blocked(conn->user, id, false);
        return true;
    }
    bool ends = fin && take == total;
    fake_post(conn->peer, DATA, id, 0, ends, packet, take);
    stream->unacked += take;
    stream->fin_sent |= ends;
    conn->cb->on_pulled(conn->user, id, take);
    return true;
}

static void fake_run_flush(struct relay_task *task)
{
    struct relay_quic_conn *conn =
        (struct relay_quic_conn *)((char *)task - offsetof(struct relay_quic_conn, flush));
    for (int i = 0; i < 64 && !conn->closing && conn->cb != NULL; i++)
        if (!fake_flush_one(conn))
            return;
    relay_task_defer(conn->loop, &conn->flush);
}

static void fake_free(struct relay_quic_conn *conn)
{
    if (conn->peer != NULL)
        conn->peer->peer = NULL;
    relay_task_cancel(&conn->flush);
    relay_task_cancel(&conn->inbox_task);
    relay_task_cancel(&conn->close_task);
    while (conn->inbox != NULL) {
        struct fake_event *next = conn->inbox->next;
        free(conn->inbox);
        conn->inbox = next;
    }
    free(conn->streams);
    free(conn);
}

static uint64_t fake_last_close; /* the code of the CONNECTION_CLOSE that a peer got last */

static void fake_run_close(struct relay_task *task)
{
    struct relay_quic_conn *conn =
        (struct relay_quic_conn *)((char *)task - offsetof(struct relay_quic_conn, close_task));
    if (conn->cb != NULL)
        conn->cb->on_close(conn->user, conn->close_error, conn->close_code);
    fake_free(conn);
}

static struct relay_quic_conn *fake_new(struct relay_loop *loop, bool is_server,
                                        const struct relay_limits *limits)
{
    struct relay_quic_conn *conn = calloc(1, sizeof(*conn));
    conn->loop = loop;
    conn->is_server = is_server;
    conn->next_uni = is_server ? 3 : 2;
    conn->max_bidi = conn->peer_bidi = conn->allowed = limits->max_streams;
    conn->window = limits->window_initial;
    conn->max_datagram = 1200;
    conn->datagram_room = SIZE_MAX;
    conn->inbox_end = &conn->inbox;
    conn->address.sin_family = AF_INET;
    relay_task_init(&conn->flush, RELAY_LEVEL_FLUSH_OUTER, fake_run_flush);
    relay_task_init(&conn->inbox_task, RELAY_LEVEL_EVENT, fake_run_inbox);
    relay_task_init(&conn->close_task, RELAY_LEVEL_EVENT, fake_run_close);
    return conn;
}

/* The client's end; the test makes the server's end and joins them. */
static struct relay_quic_conn *fake_client;

struct relay_quic_conn *relay_quic_connect(struct relay_loop *loop, struct relay_packet_path *path,
                                           const struct relay_quic_client_config *config,
                                           const struct relay_quic_user *cb, void *user)
{
    fake_client = fake_new(loop, false, config->limits);
    relay_quic_conn_set_user(fake_client, cb, user);
    return fake_client;
}

void relay_quic_conn_set_user(struct relay_quic_conn *conn, const struct relay_quic_user *cb, void *user)
{
    conn->cb = cb;
    conn->user = user;
}

int relay_quic_conn_open_bidi(struct relay_quic_conn *conn, int64_t *stream)
{
    if ((uint64_t)conn->next_bidi / 4 >= conn->max_bidi)
        return RELAY_ERR_LIMIT;
    *stream = conn->next_bidi;
    conn->next_bidi += 4;
    return 0;
}

int64_t relay_quic_conn_preface(const struct relay_quic_conn *conn)
{
    return -1;
}

int relay_quic_conn_open_uni(struct relay_quic_conn *conn, int64_t *stream)
{
    *stream = conn->next_uni;
    conn->next_uni += 4;
    return 0;
}

void relay_quic_conn_stop_stream(struct relay_quic_conn *conn, int64_t stream, uint64_t code)
{
    assert(!conn->inside);
    fake_post(conn->peer, STOP, stream, code, false, NULL, 0);
}

void relay_quic_conn_reset_stream(struct relay_quic_conn *conn, int64_t stream, uint64_t code)
{
    assert(!conn->inside);
    relay_quic_conn_stop_stream(conn, stream, code);
    fake_stop_sending(conn, stream, code);
}

void relay_quic_conn_credit_stream(struct relay_quic_conn *conn, int64_t stream, uint64_t len)
{
    fake_stream(conn, stream)->consumed += len;
    fake_post(conn->peer, CREDIT, stream, len, false, NULL, 0);
}

void relay_quic_conn_credit(struct relay_quic_conn *conn, uint64_t len)
{
}

/* Nothing counts a connection's window here. */
void relay_quic_conn_widen(struct relay_quic_conn *conn)
{
    (void)conn;
}

void relay_quic_conn_allow_streams(struct relay_quic_conn *conn, uint64_t max_streams)
{
    conn->peer_bidi += max_streams - conn->allowed;
    conn->allowed = max_streams;
    fake_post(conn->peer, STREAMS, 0, conn->peer_bidi, false, NULL, 0);
}

enum relay_sent relay_quic_conn_send_datagram(struct relay_quic_conn *conn, const struct iovec *pieces,
                                              int num_pieces)
{
    uint8_t frame[2048];
    size_t len = 0;
    for (int i = 0; i < num_pieces; i++) {
        if (len + pieces[i].iov_len > conn->max_datagram)
            return RELAY_TOO_BIG;
        memcpy(frame + len, pieces[i].iov_base, pieces[i].iov_len);
        len += pieces[i].iov_len;
    }
    if (conn->inside || conn->datagram_room == 0) {
        conn->was_blocked = true;
        if (conn->inside && !relay_task_is_queued(&conn->inbox_task))
            relay_task_defer(conn->loop, &conn->inbox_task);
        return RELAY_BLOCKED;
    }
    conn->datagram_room -= conn->datagram_room != SIZE_MAX;
    fake_post(conn->peer, DATAGRAM, 0, 0, false, frame, len);
    return RELAY_SENT;
}

size_t relay_quic_conn_max_datagram(struct relay_quic_conn *conn)
{
    return conn->max_datagram;
}

struct relay_loop *relay_quic_conn_loop(struct relay_quic_conn *conn)
{
    return conn->loop;
}

const struct sockaddr *relay_quic_conn_peer(struct relay_quic_conn *conn)
{
    return (const struct sockaddr *)&conn->address;
}

const struct sockaddr *relay_quic_conn_local(struct relay_quic_conn *conn)
{
    return (const struct sockaddr *)&conn->address;
}

uint64_t relay_quic_conn_srtt(struct relay_quic_conn *conn)
{
    return 50 * RELAY_MS;
}

bool relay_quic_conn_is_ready(struct relay_quic_conn *conn)
{
    return false;
}

void relay_quic_conn_mark_dirty(struct relay_quic_conn *conn)
{
    if (!relay_task_is_queued(&conn->flush))
        relay_task_queue(conn->loop, &conn->flush);
}

void relay_quic_conn_keep_alive(struct relay_quic_conn *conn, bool on)
{
    conn->keep_alive = on;
}

void relay_quic_conn_close(struct relay_quic_conn *conn, uint64_t code, int error)
{
    if (conn->closing)
        return;
    conn->closing = true;
    conn->close_error = error;
    fake_last_close = code;
    fake_post(conn->peer, CLOSE, 0, code, false, NULL, 0);
    relay_task_queue(conn->loop, &conn->close_task);
}

#endif
