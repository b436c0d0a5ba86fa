#include "modules/limits_config.h"

#include "modules/snapshot.h"

#define DATAGRAM_MAX 65536

const struct relay_limits_fault *relay_limits_config_check(const struct relay_snapshot *snapshot)
{
    static const struct relay_limits_fault streams = {
        "limits.streams", "no more than limits.streams-authenticated", "limits.streams-authenticated",
        "no less than limits.streams, which is 100 by default"};
    static const struct relay_limits_fault windows = {
        "limits.window-initial", "no more than limits.window-max", "limits.window-max",
        "no less than limits.window-initial, which is 128K by default"};
    static const struct relay_limits_fault half_open = {
        "limits.half-open-retry", "no more than limits.half-open-max", "limits.half-open-max",
        "no less than limits.half-open-retry, which is 100 by default"};
    static const struct relay_limits_fault udp_bytes = {
        "limits.udp-bytes-per-token", "0 (no limit), or at least 64K, the largest datagram", NULL, NULL};
    const struct relay_limits *limits = &snapshot->limits;
    if (limits->max_streams > limits->max_streams_authenticated)
        return &streams;
    if (limits->window_initial > limits->window_max)
        return &windows;
    if (limits->half_open_retry > limits->half_open_max)
        return &half_open;
    if (snapshot->caps.udp_bytes_per_token > 0 && snapshot->caps.udp_bytes_per_token < DATAGRAM_MAX)
        return &udp_bytes;
    return NULL;
}

const struct relay_directive relay_limits_directives[] = {
    {.name = "limits.connections",
     RELAY_DIRECTIVE_U32_AT(caps.connections),
     .min = 16,
     .max = 1000000,
     .default_text = "20000",
     .help = "Open connections per worker, all listeners together, TCP sockets from accept on. When it is "
             "reached, the oldest half-open TCP socket makes room."},
    {.name = "limits.connections-per-source",
     RELAY_DIRECTIVE_U32_AT(caps.connections_per_source),
     .min = 1,
     .max = 1000000,
     .default_text = "256",
     .help =
         "Open connections from one IPv4 address or IPv6 /64, on all workers together; sources in peers: are "
         "exempt."},
    {.name = "limits.streams",
     RELAY_DIRECTIVE_U32_AT(limits.max_streams),
     .min = 1,
     .max = 10000,
     .default_text = "100",
     .help = "Requests at once on a connection before its first accepted token."},
    {.name = "limits.streams-authenticated",
     RELAY_DIRECTIVE_U32_AT(limits.max_streams_authenticated),
     .min = 1,
     .max = 100000,
     .default_text = "1000",
     .help = "The same after it."},
    {.name = "limits.tunnels-per-connection",
     RELAY_DIRECTIVE_U32_AT(caps.tunnels_per_connection),
     .min = 1,
     .max = 100000,
     .default_text = "1000",
     .help = "Tunnels at once on a connection."},
    {.name = "limits.tunnels-per-token",
     RELAY_DIRECTIVE_U32_AT(caps.tunnels_per_token),
     .min = 0,
     .max = 1000000,
     .default_text = "0",
     .help = "Tunnels at once of one token, all workers together; 0: no limit but its share of the "
             "descriptors (ulimit -n), of which each tunnel needs one: half of them for a token alone. When "
             "tunnels have that half, a token that has more than an eighth of what is left gets no more, in "
             "any case."},
    {.name = "limits.dials-per-connection",
     RELAY_DIRECTIVE_U32_AT(caps.dials_per_connection),
     .min = 1,
     .max = 10000,
     .default_text = "64",
     .help = "Targets being resolved or connected at once for a connection; more wait."},
    {.name = "limits.dials-per-token",
     RELAY_DIRECTIVE_U32_AT(caps.dials_per_token),
     .min = 1,
     .max = 10000,
     .default_text = "256",
     .help =
         "The same for a token on a worker, whose resolver has room for 4096 names; more wait. A name "
         "that is asked in vain keeps its place for the 5 s of the query, also when its client has gone."},
    {.name = "limits.tunnel-memory",
     RELAY_DIRECTIVE_SIZE_AT(caps.tunnel_credit),
     .min = 16777216,
     .max = 1099511627776.0,
     .default_text = "512M",
     .help =
         "Flow-control credit per worker that flowing tunnels may be granted beyond their initial window."},
    {.name = "limits.window-initial",
     RELAY_DIRECTIVE_SIZE_AT(limits.window_initial),
     .min = 16384,
     .max = 1048576,
     .default_text = "128K",
     .help =
         "What a peer may send on a tunnel before its target took anything: the memory of a stalled tunnel."},
    {.name = "limits.window-max",
     RELAY_DIRECTIVE_SIZE_AT(limits.window_max),
     .min = 65536,
     .max = 67108864,
     .default_text = "6M",
     .help = "A flowing tunnel's window and send buffer grow up to this."},
    {.name = "limits.half-open-retry",
     RELAY_DIRECTIVE_U32_AT(limits.half_open_retry),
     .min = 0,
     .max = 100000,
     .default_text = "100",
     .help = "QUIC handshakes in progress per worker above which clients must prove their address (Retry)."},
    {.name = "limits.half-open-max",
     RELAY_DIRECTIVE_U32_AT(limits.half_open_max),
     .min = 1,
     .max = 1000000,
     .default_text = "1000",
     .help = "And above which one of them is ended for a new one, the oldest of who has most; of as many TCP "
             "sockets in the handshake the oldest."},
    {.name = "limits.handshake-timeout",
     RELAY_DIRECTIVE_SECONDS_AT(limits.handshake_timeout),
     .min = 0.1,
     .max = 120,
     .default_text = "10",
     .help = "From accept to the end of the TLS or QUIC handshake."},
    {.name = "limits.head-timeout",
     RELAY_DIRECTIVE_SECONDS_AT(limits.head_timeout),
     .min = 0.1,
     .max = 120,
     .default_text = "10",
     .help = "From the first to the last byte of a request's head."},
    {.name = "limits.idle-timeout",
     RELAY_DIRECTIVE_SECONDS_AT(limits.idle_timeout),
     .min = 0.1,
     .max = 86400,
     .default_text = "30",
     .help = "A connection without open requests is closed after so long."},
    {.name = "limits.quic-idle-timeout",
     RELAY_DIRECTIVE_SECONDS_AT(limits.quic_idle_timeout),
     .min = 1,
     .max = 3600,
     .default_text = "120",
     .help = "Offered as max_idle_timeout: when a silent peer is given up."},
    {.name = "limits.head-fields",
     RELAY_DIRECTIVE_U32_AT(limits.head_fields),
     .min = 16,
     .max = 1000,
     .default_text = "100",
     .help = "Fields of a request's head; above it 431."},
    {.name = "limits.head-bytes",
     RELAY_DIRECTIVE_SIZE32_AT(limits.head_bytes),
     .min = 1024,
     .max = 131072, /* nghttp2 takes 8 CONTINUATION frames at most */
     .default_text = "16K",
     .help = "Bytes of a request's head, names and values (HTTP/1.1: as it comes); above it 431."},
    {.name = "limits.reset-burst",
     RELAY_DIRECTIVE_U32_AT(limits.reset_burst),
     .min = 10,
     .max = 1000000,
     .default_text = "400",
     .help = "Requests that a client may reset before they are answered, at once (rapid reset)."},
    {.name = "limits.reset-rate",
     RELAY_DIRECTIVE_U32_AT(limits.reset_rate),
     .min = 1,
     .max = 100000,
     .default_text = "33",
     .help = "And more of them each second."},
    {.name = "limits.own-reset-burst",
     RELAY_DIRECTIVE_U32_AT(limits.own_reset_burst),
     .min = 10,
     .max = 1000000,
     .default_text = "100",
     .help = "Requests that we must reset for a client's errors, at once."},
    {.name = "limits.own-reset-rate",
     RELAY_DIRECTIVE_U32_AT(limits.own_reset_rate),
     .min = 1,
     .max = 100000,
     .default_text = "10",
     .help = "And more of them each second."},
    {.name = "limits.control-frames",
     RELAY_DIRECTIVE_U32_AT(limits.control_frames),
     .min = 100,
     .max = 1000000,
     .default_text = "1000",
     .help = "PING, SETTINGS, PRIORITY and empty frames each second on a connection."},
    {.name = "limits.udp-unanswered-burst",
     RELAY_DIRECTIVE_U32_AT(caps.udp_unanswered_burst),
     .min = 1,
     .max = 100000,
     .default_text = "32",
     .help = "Datagrams that may go to a UDP target before its first answer, at once."},
    {.name = "limits.udp-unanswered-rate",
     RELAY_DIRECTIVE_U32_AT(caps.udp_unanswered_rate),
     .min = 1,
     .max = 1000000,
     .default_text = "100",
     .help = "And more of them each second."},
    {.name = "limits.udp-packets-per-token",
     RELAY_DIRECTIVE_U32_AT(caps.udp_packets_per_token),
     .min = 0,
     .max = 100000000,
     .default_text = "0",
     .help =
         "Datagrams that one token may send to UDP targets each second, all tunnels and workers together; "
         "as many at once; 0: no limit."},
    {.name = "limits.udp-bytes-per-token",
     RELAY_DIRECTIVE_SIZE_AT(caps.udp_bytes_per_token),
     .min = 0,
     .max = 1099511627776.0,
     .default_text = "0",
     .help = "And bytes of their payloads, at least 64K; 0: no limit."},
    {.name = "limits.drain-seconds",
     RELAY_DIRECTIVE_U32_AT(caps.drain_seconds),
     .min = 0,
     .max = 3600,
     .default_text = "30",
     .help = "SIGTERM: how long tunnels may go on."},
    {.name = NULL},
};
