#include "client/front_forward.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "client/join.h"
#include "lib/net/log.h"
#include "lib/wire/error.h"

static void on_join_failed(void *user, struct relay_stream *stream, const struct relay_failure *failure)
{
    (void)user;
    relay_log(RELAY_LOG_INFO, "tcp_tunnel_failed", "s:s", "text", failure->text);
    relay_stream_reset(stream);
}

static void on_join_end(void *user)
{
    struct relay_front_forward *forward = user;
    forward->tcp.num_connections--;
}

static const struct relay_join_user join_cb = {
    .may_end_early = true, .on_failed = on_join_failed, .on_end = on_join_end};

static void on_accept(struct relay_front *front, int fd, const struct sockaddr_storage *peer)
{
    struct relay_front_forward *forward = (struct relay_front_forward *)front;
    struct relay_stream *stream = relay_stream_tcp(front->loop, fd, (const struct sockaddr *)peer);
    if (stream == NULL)
        return;
    if (relay_join(front->chain, stream, &forward->config->host, forward->config->port, NULL, 0, &join_cb,
                   forward) != 0)
        relay_stream_close(stream);
    else
        front->num_connections++;
}

static int bind_udp(struct relay_front_forward *forward, struct relay_loop *loop, struct relay_chain *chain,
                    char *text, size_t size)
{
    struct relay_udp_front_config config = {
        .loop = loop,
        .chain = chain,
        .local = forward->config->local,
        .host = forward->config->host,
        .port = forward->config->port,
    };
    forward->udp = relay_udp_front_new(&config, &forward->address);
    if (forward->udp != NULL)
        return 0;
    snprintf(text, size, "udp forward to %s port %u: %s", config.host.name, config.port, strerror(errno));
    return RELAY_ERR_REFUSED;
}

int relay_front_forward_listen(struct relay_front_forward *forward, struct relay_loop *loop,
                               struct relay_chain *chain, const struct relay_forward_config *config,
                               char *text, size_t size)
{
    forward->config = config;
    forward->tcp.on_accept = on_accept;
    if (config->is_udp)
        return bind_udp(forward, loop, chain, text, size);
    int error = relay_front_listen(&forward->tcp, loop, chain, &config->local, text, size);
    forward->address = forward->tcp.address;
    return error;
}

void relay_front_forward_stop(struct relay_front_forward *forward)
{
    relay_front_stop(&forward->tcp);
    if (forward->udp != NULL)
        relay_udp_front_close(forward->udp);
    forward->udp = NULL;
}
