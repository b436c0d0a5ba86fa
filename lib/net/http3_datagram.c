#include "lib/net/http3_private.h"

#include <stdlib.h>
#include <string.h>

#include "lib/net/metrics.h"
#include "lib/wire/error.h"
#include "lib/wire/http_datagram.h"

/* ---- what came before its request ---- */

static void drop_oldest(struct relay_http3 *session)
{
    free(session->early[0].payload);
    session->early_bytes -= session->early[0].len;
    session->num_early--;
    memmove(session->early, session->early + 1, session->num_early * sizeof(session->early[0]));
    relay_count(session->base.loop->metrics->drop_unknown_stream, 1);
}

/* The newest are kept: those of a stream that never comes must not fill the queue for good. */
static void keep_early(struct relay_http3 *session, int64_t id, const uint8_t *payload, size_t len)
{
    while (session->num_early > 0 && (session->num_early == RELAY_HTTP3_EARLY_MAX ||
                                      session->early_bytes + len > RELAY_HTTP3_EARLY_BYTES))
        drop_oldest(session);
    uint8_t *copy = malloc(len + 1);
    if (copy == NULL || len > RELAY_HTTP3_EARLY_BYTES) {
        free(copy);
        relay_count(session->base.loop->metrics->drop_unknown_stream, 1);
        return;
    }
    memcpy(copy, payload, len);
    session->early[session->num_early++] = (struct relay_http3_early){id, copy, len};
    session->early_bytes += len;
}

/* One datagram for the stream's tunnel; on any other request it is an error of the stream (T30). */
static void deliver(struct relay_http3_stream *stream, const uint8_t *payload, size_t len)
{
    if (stream->is_failed || stream->is_discarding)
        relay_count(stream->tunnel.loop->metrics->drop_unknown_stream, 1);
    else if (stream->tunnel.kind == RELAY_KIND_CAPSULES)
        relay_tunnel_deliver_datagram(&stream->tunnel, payload, len);
    else
        relay_http3_stream_fail(stream, RELAY_H3_DATAGRAM_ERROR, RELAY_ERR_PROTOCOL);
}

void relay_http3_deliver_early(struct relay_http3_stream *stream)
{
    struct relay_http3 *session = relay_http3_of(stream);
    size_t left = 0;
    for (size_t i = 0; i < session->num_early; i++) {
        struct relay_http3_early early = session->early[i];
        if (early.stream != stream->id) {
            session->early[left++] = early;
            continue;
        }
        session->early_bytes -= early.len;
        deliver(stream, early.payload, early.len);
        free(early.payload);
    }
    session->num_early = left;
}

void relay_http3_drop_early(struct relay_http3 *session)
{
    while (session->num_early > 0)
        drop_oldest(session);
}

uint64_t relay_http3_on_datagram(void *user, const uint8_t *bytes, size_t len)
{
    struct relay_http3 *session = user;
    int64_t id;
    int used = relay_quarter_stream_id_read(bytes, len, &id);
    if (used < 0)
        return RELAY_H3_DATAGRAM_ERROR;
    if (session->is_closing) {
        relay_count(session->base.loop->metrics->drop_closed, 1);
        return 0;
    }
    struct relay_http3_stream *stream = relay_http3_stream_find(session, id);
    if (stream != NULL && stream->is_shown) {
        deliver(stream, bytes + used, len - (size_t)used);
        return 0;
    }
    if (session->base.is_server && (uint64_t)id / 4 >= session->max_streams + session->num_closed)
        return NGHTTP3_H3_ID_ERROR;
    if (stream != NULL ? !stream->is_failed : session->base.is_server && id > session->max_seen)
        keep_early(session, id, bytes + used, len - (size_t)used);
    else
        relay_count(session->base.loop->metrics->drop_unknown_stream, 1);
    return 0;
}

/* ---- what goes ---- */

static size_t head_size(const struct relay_http3_stream *stream, uint64_t context_id)
{
    uint8_t head[RELAY_HTTP_DATAGRAM_HEAD_MAX];
    return relay_quarter_stream_id_size(stream->id) +
           (size_t)(relay_http_datagram_write(head, context_id) - head);
}

size_t relay_http3_max_datagram(struct relay_tunnel *tunnel, uint64_t context_id)
{
    struct relay_http3_stream *stream = (struct relay_http3_stream *)tunnel;
    struct relay_http3 *session = relay_http3_of(stream);
    if (session->quic == NULL || (session->has_settings && !session->peer_datagrams))
        return 0;
    size_t max = relay_quic_conn_max_datagram(session->quic), head = head_size(stream, context_id);
    if (max > 0)
        session->saw_datagrams = true;
    /* None for the moment (a nested path without an MTU) is not a reason to change to capsules. */
    if (session->saw_datagrams)
        return max > head ? max - head : 1;
    return 0;
}

/* Waits for room. Who sent something this time stands behind those who got none, so that the next room goes
 * to them. */
static void wait_for_room(struct relay_http3_stream *stream)
{
    struct relay_http3 *session = relay_http3_of(stream);
    relay_http3_link_remove(&stream->blocked);
    relay_http3_link_append(stream->has_sent ? &session->served : &session->starved, &stream->blocked);
}

static void wake_list(struct relay_http3_link *list)
{
    while (!relay_http3_link_alone(list)) {
        struct relay_http3_stream *stream = RELAY_HTTP3_OF(struct relay_http3_stream, blocked, list->next);
        relay_http3_link_remove(&stream->blocked);
        stream->has_sent = false;
        relay_tunnel_writable(&stream->tunnel);
    }
}

void relay_http3_wake_blocked(struct relay_http3 *session)
{
    wake_list(&session->starved);
    wake_list(&session->served);
}

enum relay_sent relay_http3_send_datagrams(struct relay_tunnel *tunnel, struct relay_run *run)
{
    struct relay_http3_stream *stream = (struct relay_http3_stream *)tunnel;
    struct relay_http3 *session = relay_http3_of(stream);
    if (session->quic == NULL || session->is_closing || stream->is_failed)
        return RELAY_GONE;
    if (!session->has_settings) {
        wait_for_room(stream);
        return RELAY_BLOCKED;
    }
    uint8_t head[RELAY_HTTP_DATAGRAM_HEAD_MAX];
    uint8_t *end =
        relay_http_datagram_write(relay_quarter_stream_id_write(head, stream->id), run->context_id);
    struct iovec pieces[2] = {{head, (size_t)(end - head)}, {NULL, 0}};
    do {
        size_t one = run->len < run->segment ? run->len : run->segment;
        pieces[1] = (struct iovec){(void *)run->base, one};
        enum relay_sent sent = relay_quic_conn_send_datagram(session->quic, pieces, one > 0 ? 2 : 1);
        if (sent == RELAY_BLOCKED)
            wait_for_room(stream);
        if (sent != RELAY_SENT)
            return sent;
        stream->has_sent = true;
        relay_run_drop_one(run);
    } while (run->len > 0);
    return RELAY_SENT;
}
