/* The application of a client's session under a fuzzer: opens tunnels, gives back what comes through them, pauses, and gives
 * up. One at a time; included by one file of a program. The fuzzer zeroes `application`, makes the session with
 * session_user and sets application.session, and at the end calls settle before it closes the session. */
#ifndef TESTS_FUZZ_APPLICATION_H
#define TESTS_FUZZ_APPLICATION_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "lib/net/session.h"
#include "lib/net/tunnel.h"
#include "lib/wire/error.h"

#define ENDS_MAX 16

static struct application {
    struct relay_session *session;       /* NULL: closed */
    struct relay_tunnel *ends[ENDS_MAX]; /* NULL: closed, or never open */
    size_t num_ends, num_open;
} application;

/* ---- a tunnel ---- */

static void on_response(void *user, const struct relay_response *response)
{
    struct relay_tunnel **end = user;
    if (response->status >= 400)
        relay_tunnel_abort(*end, RELAY_ERR_CANCELLED);
}

static void on_bytes(void *user, uint8_t *bytes, size_t len)
{
    struct relay_tunnel **end = user;
    if (!relay_tunnel_send(*end, bytes, len))
        relay_tunnel_pause(*end);
}

static void on_fin(void *user)
{
    struct relay_tunnel **end = user;
    relay_tunnel_send_fin(*end);
}

static void on_datagrams(void *user, const struct relay_run *run)
{
    struct relay_tunnel **end = user;
    struct relay_run back = *run;
    relay_tunnel_send_datagrams(*end, &back);
}

static void on_writable(void *user)
{
    struct relay_tunnel **end = user;
    relay_tunnel_resume(*end);
}

static void on_tunnel_close(void *user, int error)
{
    struct relay_tunnel **end = user;
    *end = NULL;
    if (application.num_open-- == 0)
        abort(); /* told twice */
}

static const struct relay_tunnel_user tunnel_user = {
    .on_response = on_response,
    .on_bytes = on_bytes,
    .on_fin = on_fin,
    .on_datagrams = on_datagrams,
    .on_writable = on_writable,
    .on_close = on_tunnel_close,
};

static void open_one(uint8_t choice)
{
    static const struct relay_field fields[] = {{RELAY_SLICE("capsule-protocol"), RELAY_SLICE("?1")}};
    struct relay_request request = {.method = RELAY_SLICE("CONNECT"),
                                    .authority = RELAY_SLICE("a:443"),
                                    .kind = RELAY_KIND_BYTES,
                                    .content_length = -1};
    struct relay_tunnel **end = &application.ends[application.num_ends];
    if (application.num_ends == ENDS_MAX || application.session == NULL)
        return;
    if (choice & 1) {
        request.kind = RELAY_KIND_CAPSULES;
        request.scheme = RELAY_SLICE("https");
        request.path = RELAY_SLICE("/udp/a/53/");
        request.protocol = RELAY_SLICE("connect-udp");
        request.fields = fields;
        request.num_fields = 1;
    }
    *end = relay_session_open(application.session, &request, &tunnel_user, end);
    if (*end == NULL)
        return;
    application.num_ends++;
    application.num_open++;
}

/* ---- the session ---- */

static void on_ready(void *user)
{
    open_one(0);
    open_one(1);
}

static void on_goaway(void *user)
{
}

static void on_close(void *user, int error)
{
    application.session = NULL;
}

static const struct relay_session_user session_user = {
    .on_ready = on_ready, .on_goaway = on_goaway, .on_close = on_close};

/* `what` it does (0 to 7) on tunnel number `which`, with `len` bytes. */
static void act(uint8_t what, uint8_t which, size_t len)
{
    static const uint8_t block[65536];
    struct relay_tunnel *tunnel =
        application.num_ends > 0 ? application.ends[which % application.num_ends] : NULL;
    if (what == 0)
        open_one(which);
    if (what == 1 && which == 0 && application.session != NULL)
        relay_session_shutdown(application.session);
    if (tunnel == NULL)
        return;
    struct relay_run run = {which >> 6, block, len % 1500, len % 1500};
    switch (what) {
    case 2:
        relay_tunnel_send(tunnel, block, len);
        break;
    case 3:
        relay_tunnel_send_fin(tunnel);
        break;
    case 4:
        relay_tunnel_abort(tunnel, -(int)(which % 20) - 1);
        break;
    case 5:
        relay_tunnel_pause(tunnel);
        break;
    case 6:
        relay_tunnel_resume(tunnel);
        break;
    default:
        relay_tunnel_send_datagrams(tunnel, &run);
        break;
    }
}

/* What has ended in order waits for an application that has paused. */
static void settle(void)
{
    for (size_t i = 0; i < application.num_ends; i++)
        if (application.ends[i] != NULL)
            relay_tunnel_resume(application.ends[i]);
}

#endif
