/* One worker's counters. Only the worker's thread writes its shard; the admin listener sums the shards
 * (relaxed atomic reads). Fixed names: no label ever comes from a peer (T72). */
#ifndef RELAY_NET_METRICS_H
#define RELAY_NET_METRICS_H

#include <stdint.h>

/*  X(field, Prometheus name, labels, help). Lines of one Prometheus name stand together.  */
#define RELAY_COUNTERS(X)                                                                                    \
    X(connections_h1, "twohop_connections_total", "version=\"1.1\"", "Connections accepted")                 \
    X(connections_h2, "twohop_connections_total", "version=\"2\"", "Connections accepted")                   \
    X(connections_h3, "twohop_connections_total", "version=\"3\"", "Connections accepted")                   \
    X(handshakes_ok, "twohop_handshakes_total", "result=\"ok\"", "TLS and QUIC handshakes")                  \
    X(handshakes_failed, "twohop_handshakes_total", "result=\"failed\"", "TLS and QUIC handshakes")          \
    X(handshakes_timeout, "twohop_handshakes_total", "result=\"timeout\"", "TLS and QUIC handshakes")        \
    X(quic_retry, "twohop_quic_retry_total", "", "Retry packets sent")                                       \
    X(quic_version_negotiation, "twohop_quic_version_negotiation_total", "",                                 \
      "Version Negotiation packets sent")                                                                    \
    X(quic_stateless_reset, "twohop_quic_stateless_reset_total", "", "Stateless resets sent")                \
    X(quic_migrations, "twohop_quic_migrations_total", "", "Client address changes survived")                \
    X(quic_mtu_told, "twohop_quic_path_mtu_reduced_total", "reason=\"packet_too_big\"",                      \
      "Paths that turned out to carry less")                                                                 \
    X(quic_mtu_hole, "twohop_quic_path_mtu_reduced_total", "reason=\"black_hole\"",                          \
      "Paths that turned out to carry less")                                                                 \
    X(requests_h1, "twohop_requests_total", "version=\"1.1\"", "Requests of every kind")                     \
    X(requests_h2, "twohop_requests_total", "version=\"2\"", "Requests of every kind")                       \
    X(requests_h3, "twohop_requests_total", "version=\"3\"", "Requests of every kind")                       \
    X(tunnels_tcp_h1, "twohop_tunnels_total", "method=\"connect\",version=\"1.1\"", "Tunnels opened")        \
    X(tunnels_tcp_h2, "twohop_tunnels_total", "method=\"connect\",version=\"2\"", "Tunnels opened")          \
    X(tunnels_tcp_h3, "twohop_tunnels_total", "method=\"connect\",version=\"3\"", "Tunnels opened")          \
    X(tunnels_udp_h1, "twohop_tunnels_total", "method=\"connect-udp\",version=\"1.1\"", "Tunnels opened")    \
    X(tunnels_udp_h2, "twohop_tunnels_total", "method=\"connect-udp\",version=\"2\"", "Tunnels opened")      \
    X(tunnels_udp_h3, "twohop_tunnels_total", "method=\"connect-udp\",version=\"3\"", "Tunnels opened")      \
    X(tunnels_closed, "twohop_tunnels_closed_total", "", "Tunnels ended")                                    \
    X(udp_refused, "twohop_udp_targets_refused_total", "",                                                   \
      "UDP tunnels ended after repeated ICMP refusals of the target")                                        \
    X(bytes_in, "twohop_bytes_total", "method=\"connect\",direction=\"to_target\"",                          \
      "Payload bytes of tunnels")                                                                            \
    X(bytes_out, "twohop_bytes_total", "method=\"connect\",direction=\"to_client\"",                         \
      "Payload bytes of tunnels")                                                                            \
    X(udp_bytes_in, "twohop_bytes_total", "method=\"connect-udp\",direction=\"to_target\"",                  \
      "Payload bytes of tunnels")                                                                            \
    X(udp_bytes_out, "twohop_bytes_total", "method=\"connect-udp\",direction=\"to_client\"",                 \
      "Payload bytes of tunnels")                                                                            \
    X(datagrams_in, "twohop_datagrams_total", "direction=\"to_target\"",                                     \
      "Datagrams passed on by UDP tunnels")                                                                  \
    X(datagrams_out, "twohop_datagrams_total", "direction=\"to_client\"",                                    \
      "Datagrams passed on by UDP tunnels")                                                                  \
    X(drop_too_big, "twohop_dropped_total", "reason=\"too_big\"", "Datagrams dropped")                       \
    X(drop_target_too_big, "twohop_dropped_total", "reason=\"target_too_big\"", "Datagrams dropped")         \
    X(drop_blocked, "twohop_dropped_total", "reason=\"blocked\"", "Datagrams dropped")                       \
    X(drop_unknown_context, "twohop_dropped_total", "reason=\"unknown_context\"", "Datagrams dropped")       \
    X(drop_unknown_stream, "twohop_dropped_total", "reason=\"unknown_stream\"", "Datagrams dropped")         \
    X(drop_early, "twohop_dropped_total", "reason=\"before_accept\"", "Datagrams dropped")                   \
    X(drop_unanswered, "twohop_dropped_total", "reason=\"unanswered_target\"", "Datagrams dropped")          \
    X(drop_token_rate, "twohop_dropped_total", "reason=\"token_rate\"", "Datagrams dropped")                 \
    X(drop_socket, "twohop_dropped_total", "reason=\"socket_error\"", "Datagrams dropped")                   \
    X(drop_target_full, "twohop_dropped_total", "reason=\"target_socket_full\"", "Datagrams dropped")        \
    X(drop_closed, "twohop_dropped_total", "reason=\"tunnel_closed\"", "Datagrams dropped")                  \
    X(drop_packet, "twohop_dropped_total", "reason=\"bad_packet\"", "Datagrams dropped")                     \
    X(drop_stateless, "twohop_dropped_total", "reason=\"stateless_limit\"", "Datagrams dropped")             \
    X(drop_ring, "twohop_dropped_total", "reason=\"worker_ring_full\"", "Datagrams dropped")                 \
    X(auth_ok, "twohop_auth_total", "result=\"ok\"", "Token verifications")                                  \
    X(auth_missing, "twohop_auth_total", "result=\"missing\"", "Token verifications")                        \
    X(auth_bad, "twohop_auth_total", "result=\"bad\"", "Token verifications")                                \
    X(auth_limited, "twohop_auth_total", "result=\"limited\"", "Token verifications")                        \
    X(policy_name, "twohop_policy_refused_total", "reason=\"rule\"", "Targets refused")                      \
    X(policy_address, "twohop_policy_refused_total", "reason=\"address\"", "Targets refused")                \
    X(policy_listener, "twohop_policy_refused_total", "reason=\"own_listener\"", "Targets refused")          \
    X(limit_connections, "twohop_limited_total", "limit=\"connections\"", "Refused by a limit")              \
    X(limit_half_open, "twohop_limited_total", "limit=\"half_open\"", "Refused by a limit")                  \
    X(limit_tunnels, "twohop_limited_total", "limit=\"tunnels\"", "Refused by a limit")                      \
    X(limit_descriptors, "twohop_limited_total", "limit=\"descriptors\"", "Refused by a limit")              \
    X(limit_responses, "twohop_limited_total", "limit=\"responses\"", "Refused by a limit")                  \
    X(limit_resets, "twohop_limited_total", "limit=\"resets\"", "Refused by a limit")                        \
    X(limit_control, "twohop_limited_total", "limit=\"control_frames\"", "Refused by a limit")               \
    X(malformed, "twohop_malformed_total", "", "Requests answered with 400 or a protocol error")             \
    X(dns_ok, "twohop_dns_total", "result=\"ok\"", "Name resolutions")                                       \
    X(dns_failed, "twohop_dns_total", "result=\"failed\"", "Name resolutions")                               \
    X(dns_timeout, "twohop_dns_total", "result=\"timeout\"", "Name resolutions")                             \
    X(dns_cached, "twohop_dns_total", "result=\"cached\"", "Name resolutions")                               \
    X(dial_ok, "twohop_dials_total", "result=\"ok\"", "Connection attempts to targets")                      \
    X(dial_failed, "twohop_dials_total", "result=\"failed\"", "Connection attempts to targets")              \
    X(reload_ok, "twohop_config_reloads_total", "result=\"ok\"", "Reloads")                                  \
    X(reload_failed, "twohop_config_reloads_total", "result=\"failed\"", "Reloads")

/*  X(field, name, labels, help): levels that go up and down.  */
#define RELAY_GAUGES(X)                                                                                      \
    X(open_connections, "twohop_connections", "", "Connections open now")                                    \
    X(open_half, "twohop_quic_half_open", "", "QUIC handshakes in progress")                                 \
    X(open_greetings, "twohop_tcp_half_open", "",                                                            \
      "TCP sockets in the TLS handshake or before their first bytes")                                        \
    X(open_tunnels_tcp_h1, "twohop_tunnels", "method=\"connect\",version=\"1.1\"", "Tunnels open now")       \
    X(open_tunnels_tcp_h2, "twohop_tunnels", "method=\"connect\",version=\"2\"", "Tunnels open now")         \
    X(open_tunnels_tcp_h3, "twohop_tunnels", "method=\"connect\",version=\"3\"", "Tunnels open now")         \
    X(open_tunnels_udp_h1, "twohop_tunnels", "method=\"connect-udp\",version=\"1.1\"", "Tunnels open now")   \
    X(open_tunnels_udp_h2, "twohop_tunnels", "method=\"connect-udp\",version=\"2\"", "Tunnels open now")     \
    X(open_tunnels_udp_h3, "twohop_tunnels", "method=\"connect-udp\",version=\"3\"", "Tunnels open now")

/*  X(field, name, help): latencies.  */
#define RELAY_HISTOGRAMS(X)                                                                                  \
    X(dns_seconds, "twohop_dns_seconds", "Time to resolve a name")                                           \
    X(dial_seconds, "twohop_dial_seconds", "Time to connect to a target")

#define RELAY_HISTOGRAM_BUCKETS 12 /* upper bounds 1 ms, 2 ms, 4 ms ... 2.048 s, and +Inf */

struct relay_histogram {
    uint64_t buckets[RELAY_HISTOGRAM_BUCKETS + 1];
    uint64_t sum_ns;
};

struct relay_metrics {
#define X(field, ...) uint64_t field;
    RELAY_COUNTERS(X)
#undef X
#define X(field, ...) int64_t field;
    RELAY_GAUGES(X)
#undef X
#define X(field, ...) struct relay_histogram field;
    RELAY_HISTOGRAMS(X)
#undef X
};

/* relay_count(loop->metrics->drop_too_big, 1) */
#define relay_count(counter, n) ((void)__atomic_store_n(&(counter), (counter) + (n), __ATOMIC_RELAXED))
void relay_histogram_add(struct relay_histogram *histogram, uint64_t ns);

#endif
