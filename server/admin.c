#include "server/admin.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/net/acceptor.h"
#include "lib/net/session.h"
#include "lib/net/stream.h"
#include "server/http1.h"

#define CONNECTIONS_MAX 64

struct relay_admin {
    struct relay_loop *loop;
    const struct relay_admin_source *source;
    struct relay_limits limits;
    struct relay_acceptor *acceptor;
    unsigned num_visits; /* scrapers' connections */
};

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

/* Whether it is the page's, whatever query stands behind. */
static bool asks_for(const struct relay_request *request, const char *page)
{
    const struct relay_slice *path = &request->path;
    const char *query = path->len > 0 ? memchr(path->base, '?', path->len) : NULL;
    size_t len = query != NULL ? (size_t)(query - path->base) : path->len;
    return relay_slice_is((struct relay_slice){path->base, len}, page);
}

static void on_request(void *user, struct relay_tunnel *tunnel, const struct relay_request *request)
{
    const struct relay_admin *self = user;
    const struct relay_admin_source *source = self->source;
    const struct page page = {tunnel, relay_slice_is(request->method, "HEAD")};
    size_t len = 0;
    relay_tunnel_attach(tunnel, &nobody, NULL);
    if (!page.is_head && !relay_slice_is(request->method, "GET")) {
        answer_text(&page, 405, "GET or HEAD only\n");
    } else if (asks_for(request, "/metrics")) {
        char *text = relay_admin_metrics_text(source, &len);
        answer_owned(&page, "text/plain; version=0.0.4; charset=utf-8", text, len);
    } else if (asks_for(request, "/status.json")) {
        char *text = relay_admin_status_json(source, relay_loop_now(self->loop), &len);
        answer_owned(&page, "application/json", text, len);
    } else if (asks_for(request, "/healthz")) {
        answer_text(&page, source->is_draining ? 503 : 200, source->is_draining ? "draining\n" : "ok\n");
    } else {
        answer_text(&page, 404, "/metrics, /status.json or /healthz\n");
    }
}

static void on_close(void *user, int error)
{
    struct relay_admin *self = user;
    self->num_visits--;
}

static const struct relay_session_user session_cb = {.on_request = on_request, .on_close = on_close};

static void visit_begin(void *user, int fd, const struct sockaddr_storage *peer)
{
    struct relay_admin *self = user;
    struct relay_stream *stream = relay_stream_tcp(self->loop, fd, (const struct sockaddr *)peer);
    if (stream == NULL)
        return;
    if (self->num_visits == CONNECTIONS_MAX) {
        relay_stream_close(stream);
        return;
    }
    relay_stream_start(stream, NULL, NULL);
    if (relay_http1_server(stream, &self->limits, &session_cb, self, NULL, 0) != NULL)
        self->num_visits++;
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
