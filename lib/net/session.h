/* One HTTP connection of any version, as a server or as a client: what makes tunnels (tunnel.h).
 *
 * relay_http1_session_new (server/), relay_http2_session_new and relay_http3_session_new (lib/net/) make one
 * and take their transport. It frees itself after on_close was told, which comes exactly once and never from
 * inside a call of its user; its tunnels' on_close come before. The user may call it until on_close.
 */
#ifndef RELAY_NET_SESSION_H
#define RELAY_NET_SESSION_H

#include <sys/socket.h>

#include "lib/net/limits.h"
#include "lib/net/tunnel.h"

struct relay_session_user {
    /* Server: a request's head. The user attaches to the tunnel before it returns (or aborts it). */
    void (*on_request)(void *user, struct relay_tunnel *tunnel, const struct relay_request *request);
    /* Client: requests can be opened (HTTP/2: the peer's SETTINGS are in; HTTP/3: handshake done, SETTINGS
     * in). */
    void (*on_ready)(void *user);
    /* Client: GOAWAY came; no new tunnels, the open ones live on. */
    void (*on_goaway)(void *user);
    void (*on_close)(void *user, int error);
};

struct relay_session_ops {
    struct relay_tunnel *(*open)(struct relay_session *session, const struct relay_request *request,
                                 const struct relay_tunnel_user *cb, void *user);
    void (*shutdown)(struct relay_session *session);
    void (*close)(struct relay_session *session, int error);
    void (*set_max_streams)(struct relay_session *session, uint32_t max_streams);
};

/* The head of every session's struct. */
struct relay_session {
    const struct relay_session_ops *ops;
    const struct relay_session_user *cb;
    void *user;
    struct relay_loop *loop;
    const struct relay_limits *limits; /* outlives the session */
    enum relay_http_version version;
    bool is_server, is_clear; /* is_clear: no TLS below, scheme "http" */
    bool is_authenticated;    /* a good token has come on it (relay_session_authenticated) */
    bool has_no_capsules;     /* client, HTTP/2: by its SETTINGS the peer takes no extended CONNECT */
    /* HTTP/2 and 3: the error code by which the peer closes the connection (RFC 9113 section 7, RFC 9114 section 8.1);
     * 0: none came, or it ends in order. Known from on_goaway or on_close on. */
    uint64_t peer_code;
    uint32_t num_tunnels; /* open request streams of every kind */
    struct sockaddr_storage peer, local;
    /* Server: the relay's name in the Proxy-Status of what the session refuses by itself. Set by who made the
     * session, outlives it; NULL: without Proxy-Status. */
    const char *proxy_name;
};

/* Client: sends the request. NULL: the session takes no more (GOAWAY, stream limit, dead); nothing was
 * called. */
static inline struct relay_tunnel *relay_session_open(struct relay_session *session,
                                                      const struct relay_request *request,
                                                      const struct relay_tunnel_user *cb, void *user)
{
    return session->ops->open(session, request, cb, user);
}

/* Graceful: GOAWAY (HTTP/1.1: close after the response); closes itself when the last tunnel has ended. */
static inline void relay_session_shutdown(struct relay_session *session)
{
    session->ops->shutdown(session);
}

/* Now: the tunnels' on_close and then on_close come from a task. */
static inline void relay_session_close(struct relay_session *session, int error)
{
    session->ops->close(session, error);
}

/* A token was accepted on this connection: more streams are allowed from now on. */
static inline void relay_session_authenticated(struct relay_session *session)
{
    if (session->is_authenticated)
        return;
    session->is_authenticated = true;
    session->ops->set_max_streams(session, session->limits->max_streams_authenticated);
}

#endif
