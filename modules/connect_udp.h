/* The handler of CONNECT-UDP (RFC 9298): a UDP target named by the path.
 *
 * A datagram from the HTTP peer enters at on_datagrams and leaves by relay_udp_flow_send; one from the target
 * enters at on_flow_datagrams and leaves by relay_tunnel_send_datagrams. Nothing is queued here: when the
 * tunnel is full the flow stops reading its socket.
 *
 * Before the 2xx the name is judged and resolved, each address judged, and the socket connected to the first
 * one that can be (section 3.1). DATAGRAM frames that come meanwhile wait, at most 8 or 64 KiB. Until the
 * target has answered once a tunnel sends it little (snapshot->caps.udp_unanswered_*, T51): the relay is no
 * amplifier.
 *
 * A tunnel ends with the peer's FIN or reset, when the socket is unusable, and after
 * snapshot->timeouts.udp_idle without a datagram in either direction. */
#ifndef RELAY_MODULES_CONNECT_UDP_H
#define RELAY_MODULES_CONNECT_UDP_H

#include <stddef.h>
#include <h2o.h>

/* Appends the handler to a path. Called at startup for every path of every host and for every template of
 * `proxy.connect-udp.template`: snapshot->connect_udp[policy_index] holds the template and judges. The
 * handler returns -1 for every request while snapshot->num_connect_udp <= policy_index. A path that its
 * template calls invalid gets 400 only when no later template claims it. */
void relay_connect_udp_register(h2o_pathconf_t *path, size_t policy_index);

#endif
