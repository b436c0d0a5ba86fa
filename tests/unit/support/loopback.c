#include "tests/unit/support/loopback.h"

#include <assert.h>
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/wire/error.h"
#include "lib/wire/varint.h"
#include "modules/admission.h"
#include "modules/failure_limit.h"
#include "modules/token_account.h"
#include "server/request.h"

/* ---- the tunnel's session side ---- */

static struct loopback_stream *of(struct relay_tunnel *tunnel)
{
    return (struct loopback_stream *)tunnel;
}

static void append(char *text, size_t size, struct relay_slice slice)
{
    size_t len = strlen(text);
    assert(len + slice.len < size);
    memcpy(text + len, slice.base, slice.len);
    text[len + slice.len] = '\0';
}

static void close_when_ended(struct loopback_stream *stream)
{
    bool is_refusal = stream->status / 100 != 2; /* a session resets what the peer still sends then */
    if (stream->has_ended && (stream->peer_has_ended || is_refusal))
        relay_tunnel_closed(&stream->tunnel, RELAY_OK);
}

static int do_respond(struct relay_tunnel *tunnel, const struct relay_response *response)
{
    struct loopback_stream *stream = of(tunnel);
    stream->status = response->status;
    stream->content_length = response->content_length;
    for (size_t i = 0; i < response->num_fields; i++) {
        append(stream->head, sizeof(stream->head), response->fields[i].name);
        append(stream->head, sizeof(stream->head), RELAY_SLICE(": "));
        append(stream->head, sizeof(stream->head), response->fields[i].value);
        append(stream->head, sizeof(stream->head), RELAY_SLICE("\n"));
    }
    stream->has_ended |= response->ends;
    close_when_ended(stream);
    return 0;
}

static size_t do_room(struct relay_tunnel *tunnel)
{
    return of(tunnel)->room;
}

static bool do_send(struct relay_tunnel *tunnel, const uint8_t *bytes, size_t len)
{
    struct loopback_stream *stream = of(tunnel);
    assert(stream->len + len <= sizeof(stream->bytes));
    memcpy(stream->bytes + stream->len, bytes, len);
    stream->len += len;
    if (stream->room != SIZE_MAX)
        stream->room -= len < stream->room ? len : stream->room;
    return stream->room > 0;
}

static void do_send_fin(struct relay_tunnel *tunnel)
{
    of(tunnel)->has_ended = true;
    close_when_ended(of(tunnel));
}

static enum relay_sent do_send_datagrams(struct relay_tunnel *tunnel, struct relay_run *run)
{
    struct loopback_stream *stream = of(tunnel);
    do {
        size_t len = run->len < run->segment ? run->len : run->segment;
        if (len > stream->max_datagram)
            return RELAY_TOO_BIG;
        if (stream->is_blocked || stream->num_datagrams == LOOPBACK_DATAGRAMS)
            return RELAY_BLOCKED;
        struct loopback_datagram *datagram = &stream->datagrams[stream->num_datagrams++];
        *datagram = (struct loopback_datagram){run->context_id, malloc(len + 1), len};
        memcpy(datagram->bytes, run->base, len);
        relay_run_drop_one(run);
    } while (run->len > 0);
    return RELAY_SENT;
}

static size_t do_max_datagram(struct relay_tunnel *tunnel, uint64_t context_id)
{
    return of(tunnel)->max_datagram;
}

static void do_consume(struct relay_tunnel *tunnel, size_t len)
{
    of(tunnel)->consumed += len;
}

static void do_set_reading(struct relay_tunnel *tunnel, bool reading)
{
    of(tunnel)->is_reading = reading;
}

static void do_abort(struct relay_tunnel *tunnel, int error)
{
    of(tunnel)->is_reset = true;
    of(tunnel)->reset_error = error;
    relay_tunnel_closed(tunnel, error);
}

static void do_release(struct relay_tunnel *tunnel)
{
    of(tunnel)->is_gone = true;
    of(tunnel)->loopback->session.num_tunnels--;
    relay_tunnel_dispose(tunnel);
}

static const struct relay_tunnel_ops tunnel_ops = {
    .respond = do_respond,
    .room = do_room,
    .send = do_send,
    .send_fin = do_send_fin,
    .send_datagrams = do_send_datagrams,
    .max_datagram = do_max_datagram,
    .consume = do_consume,
    .set_reading = do_set_reading,
    .abort = do_abort,
    .release = do_release,
};

/* ---- the session and the connection ---- */

static void do_shutdown(struct relay_session *session)
{
    ((struct loopback *)session->user)->is_shut_down = true;
}

static void do_close(struct relay_session *session, int error)
{
    do_shutdown(session);
}

static void do_set_max_streams(struct relay_session *session, uint32_t max_streams)
{
    ((struct loopback *)session->user)->max_streams = max_streams;
}

static const struct relay_session_ops session_ops = {
    .shutdown = do_shutdown, .close = do_close, .set_max_streams = do_set_max_streams};

static socklen_t no_address(h2o_conn_t *conn, struct sockaddr *address)
{
    return 0;
}

static const struct relay_conn_callbacks conn_callbacks = {
    .h2o = {.get_sockname = no_address, .get_peername = no_address},
    .magic = RELAY_CONN_MAGIC,
    .tunnel_of = relay_server_request_tunnel,
    .request_of = relay_server_request_head,
};

void loopback_set_peer(struct loopback *loopback, const char *address)
{
    struct relay_address parsed;
    int error = relay_address_parse(address, strlen(address), &parsed);
    assert(error == 0);
    relay_address_to_sockaddr(&parsed, 54321, &loopback->session.peer);
}

void loopback_init(struct loopback *loopback)
{
    memset(loopback, 0, sizeof(*loopback));
    int error = relay_loop_init(&loopback->loop, &loopback->metrics);
    assert(error == 0);
    loopback->snapshot = relay_snapshot_new();
    loopback->snapshot->role = RELAY_ROLE_EGRESS;
    loopback->snapshot->auth_off = true;
    loopback->budget.limit = 1 << 30;
    h2o_config_init(&loopback->conf);
    h2o_hostconf_t *host =
        h2o_config_register_host(&loopback->conf, h2o_iovec_init(H2O_STRLIT("default")), 65535);
    loopback->path = h2o_config_register_path(host, "/", 0);
    loopback->session = (struct relay_session){.ops = &session_ops,
                                               .user = loopback,
                                               .loop = &loopback->loop,
                                               .limits = &loopback->snapshot->limits,
                                               .version = RELAY_HTTP_3,
                                               .is_server = true};
    loopback_set_peer(loopback, "192.0.2.77");
}

void loopback_start(struct loopback *loopback)
{
    struct relay_env *env = &loopback->env;
    env->loop = &loopback->loop;
    env->metrics = &loopback->metrics;
    env->budget = &loopback->budget;
    env->snapshot = loopback->snapshot;
    env->token_accounts = relay_token_accounts_new(1, UINT32_MAX);
    env->auth_failures = relay_failure_limit_new();
    assert(env->token_accounts != NULL && env->auth_failures != NULL);
    h2o_context_init(&env->h2o, &loopback->loop.uv, &loopback->conf);
    loopback->conn = (struct relay_connection *)h2o_create_connection(
        sizeof(*loopback->conn), &env->h2o, loopback->conf.hosts, *h2o_get_timestamp(&env->h2o, NULL, NULL),
        &conn_callbacks.h2o);
    memset((char *)loopback->conn + sizeof(h2o_conn_t), 0, sizeof(*loopback->conn) - sizeof(h2o_conn_t));
    loopback->conn->session = &loopback->session;
    loopback->session.limits = &loopback->snapshot->limits;
    relay_places_init(&loopback->conn->places, &loopback->loop, &loopback->budget);
}

void loopback_dispose(struct loopback *loopback)
{
    for (size_t i = 0; i < loopback->num_streams; i++)
        if (!loopback->streams[i]->is_gone)
            loopback_vanish(loopback->streams[i]);
    loopback_turns(loopback, 3);
    for (size_t i = 0; i < loopback->num_streams; i++) {
        struct loopback_stream *stream = loopback->streams[i];
        assert(stream->is_gone);
        for (size_t k = 0; k < stream->num_datagrams; k++)
            free(stream->datagrams[k].bytes);
        free(stream);
    }
    relay_admission_free(loopback->env.admission);
    relay_token_accounts_free(loopback->env.token_accounts);
    relay_failure_limit_free(loopback->env.auth_failures);
    relay_places_dispose(&loopback->conn->places);
    free(loopback->conn);
    h2o_context_dispose(&loopback->env.h2o);
    h2o_config_dispose(&loopback->conf);
    relay_snapshot_unref(loopback->snapshot);
    relay_loop_dispose(&loopback->loop);
}

/* ---- the peer ---- */

#define FIELDS_MAX 32

static size_t split_fields(const char *text, struct relay_field fields[FIELDS_MAX])
{
    size_t count = 0;
    while (text != NULL && *text != '\0') {
        size_t line = strcspn(text, "\n"), name = strcspn(text, ":");
        assert(count < FIELDS_MAX && name + 2 <= line);
        fields[count++] = (struct relay_field){{text, name}, {text + name + 2, line - name - 2}};
        text += line + (text[line] == '\n');
    }
    return count;
}

struct loopback_stream *loopback_request(struct loopback *loopback, const char *protocol, const char *target,
                                         const char *fields)
{
    struct relay_field split[FIELDS_MAX];
    struct loopback_stream *stream = calloc(1, sizeof(*stream));
    bool is_message = protocol != NULL && strcmp(protocol, "GET") == 0;
    struct relay_request request = {
        .version = loopback->session.version, .content_length = -1, .fields = split};
    request.kind = is_message         ? RELAY_KIND_MESSAGE
                   : protocol != NULL ? RELAY_KIND_CAPSULES
                                      : RELAY_KIND_BYTES;
    request.method = is_message ? RELAY_SLICE("GET") : RELAY_SLICE("CONNECT");
    request.num_fields = split_fields(fields, split);
    request.ends = is_message;
    if (request.kind == RELAY_KIND_BYTES) {
        request.authority = relay_slice(target);
    } else {
        request.scheme = RELAY_SLICE("https");
        request.authority = RELAY_SLICE("relay.example");
        request.path = relay_slice(target);
        request.protocol = is_message ? RELAY_SLICE_NONE : relay_slice(protocol);
    }
    assert(stream != NULL && loopback->num_streams < LOOPBACK_STREAMS);
    loopback->streams[loopback->num_streams++] = stream;
    stream->loopback = loopback;
    stream->room = SIZE_MAX;
    stream->max_datagram = 1200;
    stream->is_reading = true;
    stream->peer_has_ended = is_message;
    loopback->session.num_tunnels++;
    relay_tunnel_init(&stream->tunnel, &tunnel_ops, &loopback->session, &loopback->loop, request.kind);
    relay_server_request_begin(loopback->conn, &stream->tunnel, &request);
    return stream;
}

void loopback_deliver(struct loopback_stream *stream, const void *bytes, size_t len)
{
    uint8_t *copy = malloc(RELAY_HEADROOM + len);
    assert(copy != NULL && !stream->is_gone);
    memcpy(copy + RELAY_HEADROOM, bytes, len);
    relay_tunnel_deliver(&stream->tunnel, copy + RELAY_HEADROOM, len);
    free(copy);
}

void loopback_deliver_fin(struct loopback_stream *stream)
{
    assert(!stream->is_gone);
    stream->peer_has_ended = true;
    relay_tunnel_deliver_fin(&stream->tunnel);
    close_when_ended(stream);
}

void loopback_deliver_datagram(struct loopback_stream *stream, uint64_t context_id, const void *bytes,
                               size_t len)
{
    uint8_t *payload = malloc(8 + len);
    assert(payload != NULL && !stream->is_gone);
    uint8_t *end = relay_varint_write(payload, context_id);
    memcpy(end, bytes, len);
    relay_tunnel_deliver_datagram(&stream->tunnel, payload, (size_t)(end - payload) + len);
    free(payload);
}

void loopback_deliver_capsule(struct loopback_stream *stream, uint64_t type, const void *value, size_t len)
{
    uint8_t *capsule = malloc(RELAY_CAPSULE_HEAD_MAX + len);
    assert(capsule != NULL);
    uint8_t *end = relay_capsule_write_head(capsule, type, len);
    memcpy(end, value, len);
    loopback_deliver(stream, capsule, (size_t)(end - capsule) + len);
    free(capsule);
}

void loopback_vanish(struct loopback_stream *stream)
{
    if (!stream->is_gone)
        relay_tunnel_closed(&stream->tunnel, RELAY_ERR_RESET);
}

void loopback_writable(struct loopback_stream *stream)
{
    relay_tunnel_writable(&stream->tunnel);
}

void loopback_turn(struct loopback *loopback)
{
    uv_run(&loopback->loop.uv, UV_RUN_NOWAIT);
    usleep(500);
}

void loopback_turns(struct loopback *loopback, int turns)
{
    for (int i = 0; i < turns; i++)
        loopback_turn(loopback);
}

const char *loopback_field(const struct loopback_stream *stream, const char *name)
{
    static char value[1024];
    size_t len = strlen(name);
    for (const char *line = stream->head; *line != '\0'; line += strcspn(line, "\n") + 1) {
        if (strncmp(line, name, len) == 0 && strncmp(line + len, ": ", 2) == 0) {
            snprintf(value, sizeof(value), "%.*s", (int)strcspn(line + len + 2, "\n"), line + len + 2);
            return value;
        }
    }
    return NULL;
}
