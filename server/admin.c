#include "server/admin.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/net/acceptor.h"
#include "lib/net/session.h"
#include "lib/net/stream.h"
#include "lib/wire/error.h"
#include "server/http1.h"

#define CONNECTIONS_MAX 64

/* One scraper's connection. Its session lives until on_close, so the object does too. */
struct visit {
    struct relay_admin *admin;
    struct relay_session *session;
    struct visit *prev, *next;
};

struct relay_admin {
    struct relay_loop *loop;
    const struct relay_admin_source *source;
    struct relay_limits limits;
    struct relay_acceptor *acceptor;
    struct visit *visits;
    unsigned num_visits;
    bool is_closing;
};

static void free_when_done(struct relay_admin *self)
{
    if (self->is_closing && self->visits == NULL)
        free(self);
}

static void visit_free(struct visit *visit)
{
    struct relay_admin *admin = visit->admin;
    if (visit->prev != NULL)
        visit->prev->next = visit->next;
    else
        admin->visits = visit->next;
    if (visit->next != NULL)
        visit->next->prev = visit->prev;
    admin->num_visits--;
    free(visit);
    free_when_done(admin);
}

/* One answer. To a HEAD everything but the body. */
struct page {
    struct relay_tunnel *tunnel;
    bool is_head;
};

static void answer(const struct page *page, int status, const char *type, const char *text, size_t len)
{
    struct relay_field fields[] = {{RELAY_SLICE("content-type"), relay_slice(type)},
                                   {RELAY_SLICE("cache-control"), RELAY_SLICE("no-store")}};
    struct relay_response response = {.status = status,
                                      .fields = fields,
                                      .num_fields = 2,
                                      .content_length = (int64_t)len,
                                      .ends = len == 0 || page->is_head};
    if (relay_tunnel_respond(page->tunnel, &response) != 0)
        return;
    if (!response.ends)
        relay_tunnel_send(page->tunnel, (const uint8_t *)text, len);
    relay_tunnel_send_fin(page->tunnel);
}

static void answer_text(const struct page *page, int status, const char *text)
{
    answer(page, status, "text/plain", text, strlen(text));
}

static void answer_owned(const struct page *page, const char *type, char *text, size_t len)
{
    if (text != NULL)
        answer(page, 200, type, text, len);
    else
        answer_text(page, 500, "out of memory\n");
    free(text);
}

static const struct relay_tunnel_user nobody = {0};

static void on_request(void *user, struct relay_tunnel *tunnel, const struct relay_request *request)
{
    struct visit *visit = user;
    const struct relay_admin_source *source = visit->admin->source;
    const struct page page = {tunnel, relay_slice_is(request->method, "HEAD")};
    size_t len = 0;
    relay_tunnel_attach(tunnel, &nobody, NULL);
    if (!page.is_head && !relay_slice_is(request->method, "GET")) {
        answer_text(&page, 405, "GET or HEAD only\n");
    } else if (relay_slice_is(request->path, "/metrics")) {
        char *text = relay_admin_metrics_text(source, &len);
        answer_owned(&page, "text/plain; version=0.0.4; charset=utf-8", text, len);
    } else if (relay_slice_is(request->path, "/status.json")) {
        char *text = relay_admin_status_json(source, relay_loop_now(visit->admin->loop), &len);
        answer_owned(&page, "application/json", text, len);
    } else if (relay_slice_is(request->path, "/healthz")) {
        answer_text(&page, source->is_draining ? 503 : 200, source->is_draining ? "draining\n" : "ok\n");
    } else {
        answer_text(&page, 404, "/metrics, /status.json or /healthz\n");
    }
}

static void on_close(void *user, int error)
{
    visit_free(user);
}

static const struct relay_session_user session_cb = {.on_request = on_request, .on_close = on_close};

static void visit_begin(void *user, int fd, const struct sockaddr_storage *peer)
{
    struct relay_admin *self = user;
    struct relay_stream *stream = relay_stream_tcp(self->loop, fd, (const struct sockaddr *)peer);
    if (stream == NULL)
        return;
    struct visit *visit = self->num_visits < CONNECTIONS_MAX ? calloc(1, sizeof(*visit)) : NULL;
    if (visit == NULL) {
        relay_stream_close(stream);
        return;
    }
    visit->admin = self;
    visit->next = self->visits;
    if (visit->next != NULL)
        visit->next->prev = visit;
    self->visits = visit;
    self->num_visits++;
    relay_stream_start(stream, NULL, NULL);
    visit->session = relay_http1_server(stream, &self->limits, &session_cb, visit, NULL, 0);
    if (visit->session == NULL)
        visit_free(visit);
}

struct relay_admin *relay_admin_new(struct relay_loop *loop, int fd, const struct relay_admin_source *source)
{
    struct relay_admin *self = calloc(1, sizeof(*self));
    if (self == NULL) {
        close(fd);
        return NULL;
    }
    self->loop = loop;
    self->source = source;
    self->limits = RELAY_LIMITS_DEFAULT;
    self->acceptor = relay_acceptor_new(loop, fd, visit_begin, self);
    if (self->acceptor == NULL) {
        free(self);
        return NULL;
    }
    return self;
}

void relay_admin_close(struct relay_admin *self)
{
    self->is_closing = true;
    relay_acceptor_close(self->acceptor);
    for (struct visit *visit = self->visits; visit != NULL; visit = visit->next)
        relay_session_close(visit->session, RELAY_ERR_SHUTDOWN);
    free_when_done(self);
}
