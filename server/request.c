#include "server/request.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/net/metrics.h"
#include "lib/wire/address.h"
#include "lib/wire/authority.h"
#include "lib/wire/error.h"

/* No directive needs a request's body: it is counted and dropped, so that a stranger cannot have it kept. */
#define BODY_MAX (64 * 1024)

#define PULL_MAX (128 * 1024) /* of a file in one turn of the loop */

struct request {
    struct relay_connection *conn;
    struct relay_tunnel *tunnel;
    struct relay_request head; /* strings in the pool */
    h2o_ostream_t ostream;
    struct relay_task task; /* what h2o must not be told from inside do_send: proceed, or the end */
    struct relay_place place;
    h2o_ostream_pull_cb pull; /* the generator that fills our buffers; NULL: it has its own */
    size_t body_len;
    bool is_processed, is_head_sent, is_final, is_waiting, has_place;
    h2o_req_t req; /* last: h2o's pool follows */
};

static struct request *of(h2o_req_t *req)
{
    return (struct request *)((char *)req - offsetof(struct request, req));
}

struct relay_tunnel *relay_server_request_tunnel(h2o_req_t *req)
{
    return of(req)->tunnel;
}

const struct relay_request *relay_server_request_head(h2o_req_t *req)
{
    return &of(req)->head;
}

/* The host of a stream whose request is done with: what is not read of the answer is still in our memory. */
static void on_answer_closed(void *host)
{
    relay_places_leave(host);
}

static const struct relay_tunnel_host answer_host_cb = {.on_closed = on_answer_closed};

static void dispose(struct request *self)
{
    relay_task_cancel(&self->task);
    relay_place_cancel(&self->place);
    if (self->tunnel != NULL) {
        self->tunnel->host_cb = self->has_place ? &answer_host_cb : NULL;
        self->tunnel->host = self->has_place ? &self->conn->places : NULL;
        if (self->tunnel->user == self)
            relay_tunnel_attach(self->tunnel, NULL, NULL);
    } else if (self->has_place) {
        relay_places_leave(&self->conn->places);
    }
    h2o_dispose_request(&self->req);
    free(self);
}

/* ---- the response ---- */

static bool is_written_by_session(const h2o_iovec_t *name)
{
    static const char *const names[] = {"connection",        "content-length", "keep-alive",
                                        "transfer-encoding", "upgrade",        "proxy-connection"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (h2o_memis(name->base, name->len, names[i], strlen(names[i])))
            return true;
    return false;
}

static bool may_have_body(const struct request *self)
{
    int status = self->req.res.status;
    return !relay_slice_is(self->head.method, "HEAD") && status != 204 && status != 304;
}

/* h2o makes an error-doc's page as a second request inside the first: the configuration's headers are added by
 * both. */
static bool is_repeated(const h2o_req_t *req, size_t i)
{
    const h2o_header_t *entries = req->res.headers.entries, *header = &entries[i];
    for (size_t j = 0; req->res.status >= 400 && j < i; j++)
        if (h2o_memis(entries[j].name->base, entries[j].name->len, header->name->base, header->name->len) &&
            h2o_memis(entries[j].value.base, entries[j].value.len, header->value.base, header->value.len))
            return true;
    return false;
}

static int send_head(struct request *self, bool ends)
{
    h2o_req_t *req = &self->req;
    const h2o_iovec_t server = req->conn->ctx->globalconf->server_name; /* empty: not to be sent */
    size_t count = 0, size = req->res.headers.size + 3;
    struct relay_field *fields = h2o_mem_alloc_pool(&req->pool, size * sizeof(*fields));
    h2o_timestamp_t now;
    h2o_get_timestamp(req->conn->ctx, &req->pool, &now);
    fields[count++] = (struct relay_field){RELAY_SLICE("date"), {now.str->rfc1123, H2O_TIMESTR_RFC1123_LEN}};
    if (server.len > 0 && h2o_find_header(&req->res.headers, H2O_TOKEN_SERVER, -1) == -1)
        fields[count++] = (struct relay_field){RELAY_SLICE("server"), {server.base, server.len}};
    if (self->head.version != RELAY_HTTP_3 && self->conn->alt_svc.len > 0)
        fields[count++] = (struct relay_field){RELAY_SLICE("alt-svc"), self->conn->alt_svc};
    for (size_t i = 0; i < req->res.headers.size; i++) {
        const h2o_header_t *header = &req->res.headers.entries[i];
        if (!is_written_by_session(header->name) && !is_repeated(req, i))
            fields[count++] = (struct relay_field){{header->name->base, header->name->len},
                                                   {header->value.base, header->value.len}};
    }
    struct relay_response response = {
        .status = req->res.status,
        .fields = fields,
        .num_fields = count,
        .content_length = req->res.content_length == SIZE_MAX ? -1 : (int64_t)req->res.content_length,
        .ends = ends,
    };
    self->is_head_sent = true;
    req->timestamps.response_start_at = now.at;
    return relay_tunnel_respond(self->tunnel, &response);
}

static void sent(struct request *self, bool more, bool is_final)
{
    self->is_final = is_final;
    if (is_final) {
        relay_tunnel_send_fin(self->tunnel);
        self->req.timestamps.response_end_at = *h2o_get_timestamp(self->req.conn->ctx, NULL, NULL);
    }
    self->is_waiting = !more && !is_final;
    if (self->is_waiting)
        return;
    if (self->pull != NULL && !is_final)
        relay_task_defer(self->tunnel->loop, &self->task);
    else
        relay_task_queue(self->tunnel->loop, &self->task);
}

static void do_send(h2o_ostream_t *ostream, h2o_req_t *req, h2o_iovec_t *bufs, size_t bufcnt,
                    h2o_send_state_t state)
{
    struct request *self = of(req);
    size_t total = 0;
    for (size_t i = 0; i < bufcnt; i++)
        total += bufs[i].len;
    bool has_body = may_have_body(self);
    bool ends = !has_body || (state == H2O_SEND_STATE_FINAL && total == 0);
    int error = self->is_head_sent ? 0 : send_head(self, ends);
    bool more = true;
    if (state == H2O_SEND_STATE_ERROR || error != 0) {
        relay_tunnel_abort(self->tunnel, RELAY_ERR_INTERNAL); /* on_closed disposes of us */
        return;
    }
    req->bytes_sent += has_body ? total : 0;
    for (size_t i = 0; has_body && i < bufcnt; i++)
        if (bufs[i].len > 0)
            more = relay_tunnel_send(self->tunnel, (const uint8_t *)bufs[i].base, bufs[i].len);
    sent(self, more, state == H2O_SEND_STATE_FINAL || !has_body);
}

/* The next piece of a file, no more than the peer takes now and what a stalled stream may hold. */
static void pull(struct request *self)
{
    struct relay_loop *loop = self->tunnel->loop;
    size_t room = relay_tunnel_room(self->tunnel);
    uint8_t *scratch = room > 0 ? relay_loop_take_scratch(loop) : NULL;
    self->is_waiting = room == 0;
    if (scratch == NULL) {
        if (room > 0)
            relay_tunnel_abort(self->tunnel, RELAY_ERR_NO_MEMORY);
        return;
    }
    h2o_iovec_t piece = h2o_iovec_init(scratch, room < PULL_MAX ? room : PULL_MAX);
    h2o_send_state_t state = h2o_pull(&self->req, self->pull, &piece);
    self->req.bytes_sent += piece.len;
    bool more = relay_tunnel_send(self->tunnel, scratch, piece.len);
    relay_loop_return_scratch(loop);
    if (state == H2O_SEND_STATE_ERROR)
        relay_tunnel_abort(self->tunnel, RELAY_ERR_INTERNAL);
    else
        sent(self, more, state == H2O_SEND_STATE_FINAL);
}

static void run_task(struct relay_task *task)
{
    struct request *self = (struct request *)((char *)task - offsetof(struct request, task));
    if (self->is_final)
        dispose(self);
    else if (self->pull != NULL)
        pull(self);
    else
        h2o_proceed_response(&self->req);
}

/* ---- as the tunnel's user, until a handler attaches ---- */

static size_t head_len(const struct request *self)
{
    size_t len = sizeof(*self);
    for (size_t i = 0; i < self->head.num_fields; i++)
        len += self->head.fields[i].name.len + self->head.fields[i].value.len;
    return len;
}

static void process(struct request *self)
{
    self->is_processed = true;
    if (self->head.kind == RELAY_KIND_MESSAGE)
        relay_place_ask(&self->conn->places, &self->place, head_len(self),
                        self->tunnel->session->limits->idle_timeout);
    else
        h2o_process_request(&self->req);
}

static void on_turn(struct relay_place *place, int error)
{
    struct request *self = (struct request *)((char *)place - offsetof(struct request, place));
    self->has_place = error == 0;
    if (error == 0) {
        h2o_process_request(&self->req);
        return;
    }
    if (error == RELAY_ERR_NO_DESCRIPTORS)
        relay_count(self->tunnel->loop->metrics->limit_descriptors, 1);
    else
        relay_count(self->tunnel->loop->metrics->limit_responses, 1);
    h2o_add_header_by_str(&self->req.pool, &self->req.res.headers, H2O_STRLIT("retry-after"), 0, NULL,
                          H2O_STRLIT("5"));
    h2o_send_error_generic(&self->req, 503, "Service Unavailable", "too many requests at once\n",
                           H2O_SEND_ERROR_KEEP_HEADERS);
}

/* Without waiting for what the peer may still send. */
static void refuse(struct request *self, int status, const char *reason, const char *text)
{
    self->is_processed = true;
    self->req.http1_is_persistent = 0;
    h2o_send_error_generic(&self->req, status, reason, text, 0);
}

static void refuse_body(struct request *self)
{
    refuse(self, 413, "Content Too Large", "content too large\n");
}

static void on_bytes(void *user, uint8_t *bytes, size_t len)
{
    struct request *self = user;
    if (self->is_processed)
        return;
    self->body_len += len;
    if (self->body_len > BODY_MAX)
        refuse_body(self);
}

static void on_fin(void *user)
{
    struct request *self = user;
    if (!self->is_processed)
        process(self);
}

static void on_writable(void *user)
{
    struct request *self = user;
    if (!self->is_waiting)
        return;
    self->is_waiting = false;
    relay_task_queue(self->tunnel->loop, &self->task);
}

static const struct relay_tunnel_user user_cb = {
    .on_bytes = on_bytes, .on_fin = on_fin, .on_writable = on_writable};

/* A handler that attached and then answers through h2o has detached: from here on the body's writability is
 * ours again. */
static void do_send_as_user(h2o_ostream_t *ostream, h2o_req_t *req, h2o_iovec_t *bufs, size_t bufcnt,
                            h2o_send_state_t state)
{
    struct request *self = of(req);
    relay_tunnel_attach(self->tunnel, &user_cb, self);
    ostream->do_send = do_send;
    do_send(ostream, req, bufs, bufcnt, state);
}

static void start_pull(h2o_ostream_t *ostream, h2o_ostream_pull_cb cb)
{
    struct request *self = (struct request *)((char *)ostream - offsetof(struct request, ostream));
    relay_tunnel_attach(self->tunnel, &user_cb, self);
    if (send_head(self, false) != 0) {
        relay_tunnel_abort(self->tunnel, RELAY_ERR_INTERNAL);
        return;
    }
    self->pull = cb;
    pull(self);
}

/* ---- as the tunnel's host ---- */

static void on_accepted(void *host)
{
    struct request *self = host;
    self->req.res.status = 200;
    self->req.version = 0; /* no access-log line: the handler logs the tunnel when it ends */
    dispose(self);
}

static void on_closed(void *host)
{
    struct request *self = host;
    self->tunnel = NULL;
    dispose(self);
}

static const struct relay_tunnel_host host_cb = {on_accepted, on_closed};

/* ---- the head ---- */

static struct relay_slice copy(h2o_req_t *req, struct relay_slice from)
{
    if (from.base == NULL)
        return RELAY_SLICE_NONE;
    h2o_iovec_t to = h2o_strdup(&req->pool, from.base, from.len);
    return (struct relay_slice){to.base, to.len};
}

static h2o_iovec_t iovec(struct relay_slice slice)
{
    return h2o_iovec_init(slice.base, slice.len);
}

/* Of overlapping ranges one small request could ask for a file thousands of times: it gets the file once (RFC 9110
 * section 14.2 lets a server ignore the field). */
static bool is_multi_range(struct relay_slice name, struct relay_slice value)
{
    return relay_slice_is(name, "range") && memchr(value.base, ',', value.len) != NULL;
}

/* Whoever wants credentials reads them in the head. Here an access log's format could name them, and a request that is
 * refused before auth (T72) would be logged with them. */
static bool is_credentials(struct relay_slice name)
{
    return relay_slice_is(name, "proxy-authorization") || relay_slice_is(name, "authorization");
}

static void copy_fields(struct request *self, const struct relay_request *head)
{
    h2o_req_t *req = &self->req;
    struct relay_field *fields = h2o_mem_alloc_pool(&req->pool, (head->num_fields + 1) * sizeof(*fields));
    for (size_t i = 0; i < head->num_fields; i++) {
        struct relay_slice name = copy(req, head->fields[i].name), value = copy(req, head->fields[i].value);
        fields[i] = (struct relay_field){name, value};
        if (relay_slice_is(name, "host") || relay_slice_is(name, "content-length") ||
            relay_slice_is(name, "upgrade") || relay_slice_is(name, "transfer-encoding") ||
            relay_slice_is(name, "expect") || is_multi_range(name, value) || is_credentials(name))
            continue;
        const h2o_token_t *token = h2o_lookup_token(name.base, name.len);
        if (token != NULL)
            h2o_add_header(&req->pool, &req->headers, token, name.base, value.base, value.len);
        else
            h2o_add_header_by_str(&req->pool, &req->headers, name.base, name.len, 0, name.base, value.base,
                                  value.len);
    }
    self->head.fields = fields;
}

static void copy_head(struct request *self, const struct relay_request *head)
{
    h2o_req_t *req = &self->req;
    self->head = *head;
    self->head.method = copy(req, head->method);
    self->head.scheme = copy(req, head->scheme);
    self->head.authority = copy(req, head->authority);
    self->head.path = copy(req, head->path);
    self->head.protocol = copy(req, head->protocol);
    copy_fields(self, head);
    req->version = head->version;
    req->input.scheme = relay_slice_is(head->scheme, "http") ? &H2O_URL_SCHEME_HTTP : &H2O_URL_SCHEME_HTTPS;
    req->input.method = iovec(self->head.method);
    if (head->kind == RELAY_KIND_MESSAGE) {
        req->input.authority = iovec(self->head.authority);
        req->input.path = iovec(self->head.path);
    } else {
        /* The target must not pick a host or a path of ours: the default host's "/" decides on tunnels. */
        req->input.path = h2o_iovec_init(H2O_STRLIT("/"));
    }
    const char *query = memchr(req->input.path.base, '?', req->input.path.len);
    req->input.query_at = query != NULL ? (size_t)(query - req->input.path.base) : SIZE_MAX;
    req->timestamps.request_begin_at = *h2o_get_timestamp(req->conn->ctx, NULL, NULL);
}

/* ---- what no handler is asked ---- */

typedef h2o_filecache_ref_t *open_file_fn(h2o_filecache_t *cache, const char *path, int flags);

/* Ours takes precedence over the library's function of this name, which its file handler calls: to open a FIFO, or some
 * devices, waits for another process, and the worker with it. Neither is a file to be served: 403. O_NONBLOCK is for one
 * that takes the file's place in between, and for a file with a lease. */
h2o_filecache_ref_t *h2o_filecache_open_file(h2o_filecache_t *cache, const char *path, int flags)
{
    static _Atomic(open_file_fn *) next;
    struct stat status;
    open_file_fn *open_file = next;
    if (open_file == NULL)
        next = open_file = (open_file_fn *)dlsym(RTLD_NEXT, "h2o_filecache_open_file");
    if (stat(path, &status) == 0 && !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)) {
        errno = EACCES;
        return NULL;
    }
    return open_file(cache, path, flags | O_NONBLOCK);
}

/* Its file name would end there. */
static bool has_nul(const h2o_req_t *req)
{
    size_t len = req->input.query_at < req->input.path.len ? req->input.query_at : req->input.path.len;
    return memmem(req->input.path.base, len, "%00", 3) != NULL;
}

/* Whether the request has the form in which a proxy is asked for an http:// URL: RFC 9112 section 3.2.2, and
 * on the other versions its scheme, which nobody asks of this server inside TLS. A tunnel's authority is a
 * handler's matter. */
static bool is_for_a_proxy(const struct relay_session *session, const struct relay_request *head)
{
    if (head->kind != RELAY_KIND_MESSAGE)
        return false;
    return session->version == RELAY_HTTP_1_1 ? head->is_absolute
                                              : !session->is_clear && relay_slice_is(head->scheme, "http");
}

static bool is_host(const h2o_hostconf_t *conf, const struct relay_host *host, uint16_t port)
{
    const char *name = conf->authority.host.base;
    size_t len = strlen(host->name), suffix_len = conf->authority.host.len - 1;
    if (conf->authority.port != 65535 /* any */ && conf->authority.port != port)
        return false;
    return name[0] == '*' ? len > suffix_len && strcmp(host->name + len - suffix_len, name + 1) == 0
                          : strcmp(host->name, name) == 0;
}

/* One of `hosts:`, or an address that we listen on. */
static bool is_ours(h2o_hostconf_t **hosts, struct relay_slice authority, uint16_t default_port)
{
    struct relay_host host;
    struct relay_address address;
    uint16_t port;
    if (authority.base == NULL)
        return true;
    if (relay_authority_parse_default(&host, &port, authority.base, authority.len, default_port) != RELAY_OK)
        return false;
    for (; *hosts != NULL; hosts++)
        if (is_host(*hosts, &host, port))
            return true;
    return host.kind != RELAY_HOST_NAME &&
           relay_address_parse(host.name, strlen(host.name), &address) == RELAY_OK &&
           (relay_own_listener_is(NULL, &address, port, RELAY_TRANSPORT_TCP) ||
            relay_own_listener_is(NULL, &address, port, RELAY_TRANSPORT_UDP));
}

void relay_server_request_begin(struct relay_connection *conn, struct relay_tunnel *tunnel,
                                const struct relay_request *head)
{
    struct request *self = malloc(sizeof(*self));
    if (self == NULL) {
        relay_tunnel_abort(tunnel, RELAY_ERR_NO_MEMORY);
        return;
    }
    memset(self, 0, offsetof(struct request, req));
    self->conn = conn;
    self->tunnel = tunnel;
    relay_task_init(&self->task, RELAY_LEVEL_EVENT, run_task);
    h2o_init_request(&self->req, &conn->h2o, NULL);
    relay_place_init(&self->place, on_turn);
    self->ostream.do_send = do_send_as_user;
    self->ostream.start_pull = start_pull;
    self->req._ostr_top = &self->ostream;
    copy_head(self, head);
    tunnel->host_cb = &host_cb;
    tunnel->host = self;
    relay_tunnel_attach(tunnel, &user_cb, self);
    if (is_for_a_proxy(tunnel->session, head) &&
        !is_ours(conn->h2o.hosts, head->authority, relay_slice_is(head->scheme, "http") ? 80 : 443))
        refuse(
            self, 421, "Misdirected Request",
            "This relay carries http:// URLs only inside a tunnel (CONNECT), as twohop-client sends them.\n");
    else if (has_nul(&self->req))
        refuse(self, 400, "Bad Request", "bad request\n");
    else if (head->kind != RELAY_KIND_MESSAGE || head->ends)
        process(self);
    else if (head->content_length > BODY_MAX)
        refuse_body(self);
}
