#include "server/http1_private.h"

#include <stdio.h>
#include <string.h>

#include "lib/wire/error.h"

static struct relay_http1 *of_tunnel(struct relay_tunnel *tunnel)
{
    return (struct relay_http1 *)tunnel->session;
}

static void send_text(struct relay_http1 *h, const char *text)
{
    relay_stream_send(h->stream, (const uint8_t *)text, strlen(text));
}

static int tunnel_respond(struct relay_tunnel *tunnel, const struct relay_response *response)
{
    struct relay_http1 *h = of_tunnel(tunnel);
    if (h->state == RELAY_HTTP1_AT_END)
        return RELAY_ERR_CLOSED;
    struct relay_buffer out = {0};
    /* After a refused CONNECT only the challenge leaves the connection open, because clients answer it there, and only
     * for that: what an optimistic client sent for its tunnel must not be read as a request (T04). */
    bool is_refused = h->context.kind == RELAY_KIND_BYTES && response->status / 100 != 2;
    if (h->is_shutdown || relay_http1_is_last(h) || h->state == RELAY_HTTP1_AT_BODY ||
        (is_refused && response->status != 407))
        h->context.keep_alive = false;
    h->is_challenged = is_refused;
    int error = relay_http1_response_write(&out, response, &h->context, &h->framing);
    if (error != RELAY_OK) {
        relay_buffer_dispose(&out);
        relay_http1_reset(h, error);
        return RELAY_ERR_CLOSED;
    }
    h->responded = true;
    relay_stream_send(h->stream, relay_buffer_bytes(&out), out.len);
    relay_buffer_dispose(&out);
    if (h->framing == RELAY_HTTP1_SEND_TUNNEL) {
        h->state = RELAY_HTTP1_AT_TUNNEL;
        relay_stream_guard(h->stream);
        relay_task_queue(h->super.loop, &h->task); /* early bytes are told from there */
        if (response->ends) {
            relay_stream_fin(h->stream);
            h->out_done = true;
        }
        return RELAY_OK;
    }
    if (h->context.kind != RELAY_KIND_MESSAGE)
        h->in_done = true; /* a refused tunnel is a message without a body */
    h->out_done = response->ends;
    relay_timer_set_after(h->super.loop, &h->timer,
                          h->super.limits->idle_timeout); /* for the peer to read it */
    relay_http1_finish_if_done(h);
    return RELAY_OK;
}

static size_t tunnel_room(struct relay_tunnel *tunnel)
{
    struct relay_http1 *h = of_tunnel(tunnel);
    return h->state == RELAY_HTTP1_AT_END ? 0 : relay_stream_room(h->stream);
}

static bool tunnel_send(struct relay_tunnel *tunnel, const uint8_t *bytes, size_t len)
{
    struct relay_http1 *h = of_tunnel(tunnel);
    if (h->state == RELAY_HTTP1_AT_END || h->out_done || h->framing == RELAY_HTTP1_SEND_NOTHING || len == 0)
        return true;
    if (h->framing != RELAY_HTTP1_SEND_CHUNKED)
        return relay_stream_send(h->stream, bytes, len);
    char size[24];
    snprintf(size, sizeof(size), "%zx\r\n", len);
    send_text(h, size);
    relay_stream_send(h->stream, bytes, len);
    return relay_stream_send(h->stream, (const uint8_t *)"\r\n", 2);
}

static void tunnel_send_fin(struct relay_tunnel *tunnel)
{
    struct relay_http1 *h = of_tunnel(tunnel);
    if (h->state == RELAY_HTTP1_AT_END || h->out_done)
        return;
    if (h->framing == RELAY_HTTP1_SEND_TUNNEL)
        relay_stream_fin(h->stream);
    else if (h->framing == RELAY_HTTP1_SEND_CHUNKED)
        send_text(h, "0\r\n\r\n");
    h->out_done = true;
    relay_http1_finish_if_done(h);
}

static enum relay_sent tunnel_send_datagrams(struct relay_tunnel *tunnel, struct relay_run *run)
{
    return RELAY_GONE; /* never called: there are no DATAGRAM frames here */
}

static size_t tunnel_max_datagram(struct relay_tunnel *tunnel, uint64_t context_id)
{
    return 0;
}

static void tunnel_consume(struct relay_tunnel *tunnel, size_t len)
{
    /* The kernel's window is the credit. */
}

static void tunnel_set_reading(struct relay_tunnel *tunnel, bool reading)
{
    struct relay_http1 *h = of_tunnel(tunnel);
    h->user_paused = !reading;
    relay_http1_update_reading(h);
    if (reading && h->state != RELAY_HTTP1_AT_END)
        relay_task_queue(h->super.loop, &h->task);
}

static void tunnel_abort(struct relay_tunnel *tunnel, int error)
{
    relay_http1_reset(of_tunnel(tunnel), error);
}

/* on_close has been told. Either the connection has ended too, or the next request may come. */
static void tunnel_release(struct relay_tunnel *tunnel)
{
    struct relay_http1 *h = of_tunnel(tunnel);
    relay_tunnel_dispose(tunnel);
    h->has_tunnel = false;
    h->super.num_tunnels = 0;
    if (h->state != RELAY_HTTP1_AT_END) {
        h->in_done = h->user_paused = false;
        relay_http1_await_request(h);
        if (h->is_shutdown)
            relay_http1_end(h, RELAY_OK);
    }
    relay_task_queue(h->super.loop, &h->task);
}

const struct relay_tunnel_ops relay_http1_tunnel_ops = {
    .respond = tunnel_respond,
    .room = tunnel_room,
    .send = tunnel_send,
    .send_fin = tunnel_send_fin,
    .send_datagrams = tunnel_send_datagrams,
    .max_datagram = tunnel_max_datagram,
    .consume = tunnel_consume,
    .set_reading = tunnel_set_reading,
    .abort = tunnel_abort,
    .release = tunnel_release,
};
