/* A server's SETTINGS, which leave with its handshake, before there is a session (quic_conn.h: preface). */
#include "lib/net/http3_private.h"

#include <string.h>

#include "lib/wire/error.h"

int relay_http3_take_settings(nghttp3_conn *h3, int64_t control, struct relay_quic_preface *out)
{
    nghttp3_vec pieces[8];
    int64_t id = -1;
    int fin = 0;
    nghttp3_ssize count = nghttp3_conn_writev_stream(h3, &id, &fin, pieces, 8);
    if (count <= 0 || id != control)
        return RELAY_ERR_NO_MEMORY;
    size_t len = (size_t)nghttp3_vec_len(pieces, (size_t)count);
    if (out != NULL && len > sizeof(out->bytes))
        return RELAY_ERR_NO_MEMORY;
    for (nghttp3_ssize i = 0; i < count && out != NULL; i++) {
        memcpy(out->bytes + out->len, pieces[i].base, pieces[i].len);
        out->len += pieces[i].len;
    }
    return nghttp3_conn_add_write_offset(h3, control, len) == 0 &&
                   nghttp3_conn_add_ack_offset(h3, control, len) == 0
               ? 0
               : RELAY_ERR_NO_MEMORY;
}

int relay_http3_preface(const struct relay_limits *limits, struct relay_quic_preface *preface)
{
    enum { CONTROL = 3 }; /* a server's first unidirectional stream */
    struct relay_http3 scratch = {.base = {.limits = limits, .is_server = true}};
    int error = relay_http3_read_init(&scratch);
    preface->len = 0;
    if (error == 0 && nghttp3_conn_bind_control_stream(scratch.h3, CONTROL) != 0)
        error = RELAY_ERR_NO_MEMORY;
    if (error == 0)
        error = relay_http3_take_settings(scratch.h3, CONTROL, preface);
    nghttp3_conn_del(scratch.h3);
    return error;
}
