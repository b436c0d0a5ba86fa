/* The errors of Twohop: one list, so that no error can lack its text, its HTTP status or its Proxy-Status
 * type.
 *
 * A function returns 0 (RELAY_OK) or one of these negative numbers. `status` is what a relay answers to a
 * request that failed so; `proxy_status` is the error type of RFC 9209 section 2.3 (empty: no Proxy-Status is
 * sent).
 */
#ifndef RELAY_WIRE_ERROR_H
#define RELAY_WIRE_ERROR_H

/*  X(name, status, proxy_status, text)  */
#define RELAY_ERRORS(X)                                                                                      \
    X(INVALID, 400, "http_request_error", "malformed input")                                                 \
    X(INCOMPLETE, 400, "http_request_error", "input ends too early")                                         \
    X(TOO_BIG, 431, "http_request_error", "a limit of size or count is exceeded")                            \
    X(NO_MEMORY, 503, "proxy_internal_error", "out of memory")                                               \
    X(NO_DESCRIPTORS, 503, "proxy_internal_error", "out of file descriptors")                                \
    X(LIMIT, 503, "connection_limit_reached", "a configured limit is reached")                               \
    X(INTERNAL, 500, "proxy_internal_error", "internal error")                                               \
    X(UNSUPPORTED, 501, "http_protocol_error", "not supported")                                              \
    X(UNAUTHORIZED, 401, "http_request_denied", "no valid token")                                            \
    X(TOO_MANY_FAILURES, 429, "http_request_denied", "too many failed attempts")                             \
    X(DENIED, 403, "http_request_denied", "refused by policy")                                               \
    X(ADDRESS_PROHIBITED, 403, "destination_ip_prohibited", "the target's address is prohibited")            \
    X(DNS_TIMEOUT, 504, "dns_timeout", "name resolution timed out")                                          \
    X(DNS, 502, "dns_error", "name resolution failed")                                                       \
    X(REFUSED, 502, "connection_refused", "connection refused")                                              \
    X(UNREACHABLE, 502, "destination_ip_unroutable", "no route to the target")                               \
    X(TIMEOUT, 504, "connection_timeout", "connection attempt timed out")                                    \
    X(RESET, 502, "connection_terminated", "connection reset by the peer")                                   \
    X(CLOSED, 502, "connection_terminated", "connection closed")                                             \
    X(IDLE, 504, "connection_timeout", "idle for too long")                                                  \
    X(TLS, 502, "tls_protocol_error", "TLS failed")                                                          \
    X(CERTIFICATE, 502, "tls_certificate_error", "the peer's certificate is not accepted")                   \
    X(CERTIFICATE_ISSUER, 502, "tls_certificate_error",                                                      \
      "the issuer of the peer's certificate is not trusted")                                                 \
    X(CERTIFICATE_NAME, 502, "tls_certificate_error", "the peer's certificate is for another name")          \
    X(CERTIFICATE_TIME, 502, "tls_certificate_error",                                                        \
      "the peer's certificate has expired or is not valid yet")                                              \
    X(CERTIFICATE_PIN, 502, "tls_certificate_error", "the peer's key is not the pinned one")                 \
    X(PROTOCOL, 502, "http_protocol_error", "the peer broke the protocol")                                   \
    X(EXCESSIVE_LOAD, 429, "http_request_denied", "the peer makes too much work")                            \
    X(CANCELLED, 500, "proxy_internal_error", "cancelled")                                                   \
    X(SHUTDOWN, 503, "proxy_internal_response", "shutting down")

enum relay_error {
    RELAY_OK = 0,
#define X(name, status, proxy_status, text) RELAY_ERR_##name##_POSITION,
    RELAY_ERRORS(X)
#undef X
        RELAY_ERR_END,
#define X(name, status, proxy_status, text) RELAY_ERR_##name = -RELAY_ERR_##name##_POSITION,
    RELAY_ERRORS(X)
#undef X
};

/* "RESET", "connection reset by the peer", 502, "connection_terminated". An unknown code gives INTERNAL's
 * answers. */
const char *relay_error_name(int error);
const char *relay_error_text(int error);
int relay_error_status(int error);
const char *relay_error_proxy_status(int error);

#endif
