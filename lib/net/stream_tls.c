/* TLS on any lower stream, by OpenSSL with a BIO of our own.
 *
 * In: the lower stream's bytes are shown to OpenSSL where they lie (`in`), decrypted into a second scratch
 * buffer until nothing is left, and told in one on_bytes. Only what comes behind a pause is copied (`held`).
 * Out: records are collected in `out` and handed down at OUT_MARK or at the end of the turn. An idle stream
 * owns neither.
 *
 * An ending takes the user away and hands the lower stream its own ending; the memory is freed from a task,
 * because an ending may come from inside a callback of ours.
 */
#include <arpa/inet.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "lib/net/buffer.h"
#include "lib/net/loop.h"
#include "lib/net/metrics.h"
#include "lib/net/stream.h"
#include "lib/wire/error.h"

#define OUT_MARK  (128 * 1024)
#define OUT_SIZE  (OUT_MARK + 17 * 1024) /* one more record */
#define SMALL_OUT 4096                   /* a handshake's flight or a small frame */
#define RECORD    16384                  /* plaintext of a full record */
#define OVERHEAD  64                     /* at most, of a record */

struct tls {
    struct relay_stream super;
    struct relay_stream *lower;
    SSL *ssl;
    const uint8_t *in; /* inside the lower on_bytes only */
    size_t in_len;
    struct relay_buffer held;  /* ciphertext that came behind a pause */
    struct relay_buffer out;   /* ciphertext */
    struct relay_buffer early; /* plaintext sent before the handshake was done */
    struct relay_task flush, tell;
    int error; /* dead; told by on_close */
    bool ready, close_told;
    bool paused;   /* by the user */
    bool resumed;  /* what is held or inside OpenSSL is due */
    bool fin_seen; /* close_notify, or the lower FIN */
    bool fin_due;  /* close_notify came during a pause: on_fin comes after resume */
    bool fin_wanted, fin_sent;
    bool alert_sent; /* it died of the peer's bytes: the alert is to arrive, so that close lingers */
    bool ended;      /* no user, no lower; only the memory is left */
    char alpn[16];
};

/* ---- the BIO ---- */

static int bio_read(BIO *bio, char *bytes, int len)
{
    struct tls *tls = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    size_t used = (size_t)len;
    if (tls->held.len > 0) {
        used = used < tls->held.len ? used : tls->held.len;
        memcpy(bytes, relay_buffer_bytes(&tls->held), used);
        relay_buffer_consume(&tls->held, used);
        return (int)used;
    }
    if (tls->in_len == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    used = used < tls->in_len ? used : tls->in_len;
    memcpy(bytes, tls->in, used);
    tls->in += used;
    tls->in_len -= used;
    return (int)used;
}

static int bio_write(BIO *bio, const char *bytes, int len)
{
    struct tls *tls = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    size_t need = tls->out.len + (size_t)len;
    size_t room = need > OUT_SIZE ? (size_t)len : (need > SMALL_OUT ? OUT_SIZE : SMALL_OUT) - tls->out.len;
    if (relay_buffer_reserve(&tls->out, room) == NULL)
        return -1;
    return relay_buffer_append(&tls->out, bytes, (size_t)len) == RELAY_OK ? len : -1;
}

static long bio_ctrl(BIO *bio, int command, long argument, void *pointer)
{
    return command == BIO_CTRL_FLUSH || command == BIO_CTRL_DUP ? 1 : 0;
}

static BIO_METHOD *bio_method;
static pthread_once_t bio_method_once = PTHREAD_ONCE_INIT;

static void make_bio_method(void)
{
    bio_method = BIO_meth_new(BIO_TYPE_SOURCE_SINK | BIO_get_new_index(), "relay stream");
    if (bio_method == NULL)
        return;
    BIO_meth_set_read(bio_method, bio_read);
    BIO_meth_set_write(bio_method, bio_write);
    BIO_meth_set_ctrl(bio_method, bio_ctrl);
}

/* ---- out ---- */

static void flush(struct tls *tls)
{
    relay_task_cancel(&tls->flush);
    if (tls->out.len == 0 || tls->lower == NULL)
        return;
    relay_stream_send(tls->lower, relay_buffer_bytes(&tls->out), tls->out.len);
    relay_buffer_dispose(&tls->out);
}

static void on_flush(struct relay_task *task)
{
    flush((struct tls *)((char *)task - offsetof(struct tls, flush)));
}

static void flush_later(struct tls *tls)
{
    if (tls->out.len >= OUT_MARK)
        flush(tls);
    else if (tls->out.len > 0)
        relay_task_queue(tls->super.loop, &tls->flush);
}

static void die(struct tls *tls, int error)
{
    if (tls->error != RELAY_OK || tls->ended)
        return;
    tls->error = error;
    if (!tls->ready && SSL_is_server(tls->ssl))
        relay_count(tls->super.loop->metrics->handshakes_failed, 1);
    flush(tls);
    relay_stream_pause(tls->lower);
    relay_task_queue(tls->super.loop, &tls->tell);
}

/* Why a server's certificate was refused. */
static int judge_verification(long result)
{
    switch (result) {
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        return RELAY_ERR_CERTIFICATE_NAME;
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return RELAY_ERR_CERTIFICATE_TIME;
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
        return RELAY_ERR_CERTIFICATE_ISSUER;
    case X509_V_ERR_APPLICATION_VERIFICATION: /* tls_context.c */
        return RELAY_ERR_CERTIFICATE_PIN;
    default:
        return RELAY_ERR_CERTIFICATE;
    }
}

/* After an SSL call that returned `result` <= 0: true when it only wants more bytes. */
static bool wants_more(struct tls *tls, int result)
{
    int reason = SSL_get_error(tls->ssl, result);
    if (reason == SSL_ERROR_WANT_READ || reason == SSL_ERROR_WANT_WRITE)
        return true;
    if (reason == SSL_ERROR_ZERO_RETURN)
        return false;
    long verified = SSL_is_server(tls->ssl) ? X509_V_OK : SSL_get_verify_result(tls->ssl);
    tls->alert_sent = true;
    die(tls, verified == X509_V_OK ? RELAY_ERR_TLS : judge_verification(verified));
    return false;
}

static void encrypt(struct tls *tls, const uint8_t *bytes, size_t len)
{
    while (len > 0 && tls->error == RELAY_OK) {
        size_t piece = len < RECORD ? len : RECORD, written = 0;
        ERR_clear_error();
        int result = SSL_write_ex(tls->ssl, bytes, piece, &written);
        if (result <= 0) {
            if (wants_more(tls, result))
                die(tls, RELAY_ERR_TLS); /* our BIO never refuses and there is no renegotiation */
            return;
        }
        bytes += written;
        len -= written;
        flush_later(tls);
    }
}

static void send_close_notify(struct tls *tls)
{
    if (tls->fin_sent || tls->error != RELAY_OK)
        return;
    tls->fin_sent = true;
    if (tls->ready) {
        ERR_clear_error();
        SSL_shutdown(tls->ssl);
    }
    flush(tls);
}

/* ---- in ---- */

static void handshake(struct tls *tls)
{
    ERR_clear_error();
    int result = SSL_do_handshake(tls->ssl);
    if (result <= 0) {
        wants_more(tls, result);
        flush_later(tls);
        return;
    }
    tls->ready = true;
    const unsigned char *alpn;
    unsigned len;
    SSL_get0_alpn_selected(tls->ssl, &alpn, &len);
    if (len > 0 && len < sizeof(tls->alpn))
        memcpy(tls->alpn, alpn, len);
    if (SSL_is_server(tls->ssl))
        relay_count(tls->super.loop->metrics->handshakes_ok, 1);
    encrypt(tls, relay_buffer_bytes(&tls->early), tls->early.len);
    relay_buffer_dispose(&tls->early);
    flush_later(tls);
    if (tls->fin_wanted) {
        send_close_notify(tls);
        relay_stream_fin(tls->lower);
    }
    if (tls->paused)
        relay_stream_pause(tls->lower);
    if (tls->super.cb != NULL && tls->super.cb->on_ready != NULL)
        tls->super.cb->on_ready(tls->super.user);
}

static void tell_fin(struct tls *tls)
{
    tls->fin_due = false;
    tls->super.cb->on_fin(tls->super.user);
}

/* Fills `plain` until it is full or nothing is left. Returns how much, and whether it was all. */
static size_t decrypt(struct tls *tls, uint8_t *plain, bool *is_dry)
{
    size_t len = 0;
    *is_dry = false;
    while (len < RELAY_SCRATCH_SIZE && !*is_dry) {
        size_t got = 0;
        ERR_clear_error();
        int result = SSL_read_ex(tls->ssl, plain + len, RELAY_SCRATCH_SIZE - len, &got);
        len += got;
        if (result > 0)
            continue;
        *is_dry = true;
        if (!wants_more(tls, result) && tls->error == RELAY_OK) {
            tls->fin_seen = true;
            tls->fin_due = true;
        }
    }
    return len;
}

/* What there is, decrypted, to the user, until it pauses or ends the stream. */
static void pump(struct tls *tls)
{
    struct relay_loop *loop = tls->super.loop;
    bool is_dry = false;
    while (!is_dry && !tls->paused && !tls->ended && !tls->fin_seen && tls->error == RELAY_OK) {
        uint8_t *plain = relay_loop_take_scratch(loop);
        if (plain == NULL) {
            die(tls, RELAY_ERR_NO_MEMORY);
            return;
        }
        size_t len = decrypt(tls, plain, &is_dry);
        if (len > 0)
            tls->super.cb->on_bytes(tls->super.user, plain, len);
        relay_loop_return_scratch(loop);
    }
    if (tls->fin_due && !tls->paused && !tls->ended)
        tell_fin(tls);
    if (!tls->ended)
        flush_later(tls);
}

static void on_lower_ready(void *user)
{
    struct tls *tls = user;
    if (!tls->ended)
        handshake(tls);
}

static void on_lower_bytes(void *user, uint8_t *bytes, size_t len)
{
    struct tls *tls = user;
    if (tls->error != RELAY_OK || tls->fin_seen)
        return;
    if (tls->held.len > 0) { /* order */
        if (relay_buffer_append(&tls->held, bytes, len) != RELAY_OK)
            die(tls, RELAY_ERR_NO_MEMORY);
    } else {
        tls->in = bytes;
        tls->in_len = len;
    }
    if (!tls->ready)
        handshake(tls);
    if (tls->ready && !tls->ended)
        pump(tls);
    if (!tls->ended && tls->in_len > 0 && tls->error == RELAY_OK && !tls->fin_seen &&
        relay_buffer_append(&tls->held, tls->in, tls->in_len) != RELAY_OK)
        die(tls, RELAY_ERR_NO_MEMORY);
    tls->in_len = 0;
}

static void on_lower_fin(void *user)
{
    struct tls *tls = user;
    if (!tls->fin_seen)
        die(tls, RELAY_ERR_RESET);
}

static void on_lower_writable(void *user)
{
    struct tls *tls = user;
    if (tls->ready && tls->error == RELAY_OK && tls->super.cb->on_writable != NULL)
        tls->super.cb->on_writable(tls->super.user);
}

static void on_lower_close(void *user, int error)
{
    die(user, error);
}

static const struct relay_stream_user lower_user = {on_lower_ready, on_lower_bytes, on_lower_fin,
                                                    on_lower_writable, on_lower_close};

/* ---- the stream ---- */

static void dispose(struct tls *tls)
{
    relay_task_cancel(&tls->flush);
    relay_task_cancel(&tls->tell);
    relay_buffer_dispose(&tls->held);
    relay_buffer_dispose(&tls->out);
    relay_buffer_dispose(&tls->early);
    SSL_free(tls->ssl);
    free(tls);
}

/* Every callback may end the stream. */
static void on_tell(struct relay_task *task)
{
    struct tls *tls = (struct tls *)((char *)task - offsetof(struct tls, tell));
    if (tls->ended) {
        dispose(tls);
        return;
    }
    if (tls->resumed && !tls->paused) {
        tls->resumed = false;
        if (tls->ready)
            pump(tls);
    }
    if (!tls->ended && tls->error != RELAY_OK && !tls->close_told) {
        tls->close_told = true;
        tls->super.cb->on_close(tls->super.user, tls->error);
    }
}

static void tls_start(struct relay_stream *stream)
{
    struct tls *tls = (struct tls *)stream;
    relay_stream_start(tls->lower, &lower_user, tls);
}

/* How much the lower stream takes behind what is collected. 0 only when the lower stream is full, which then
 * says when it is not. */
static size_t lower_room(struct tls *tls)
{
    if (relay_stream_room(tls->lower) <= tls->out.len)
        flush(tls);
    return relay_stream_room(tls->lower) - tls->out.len;
}

static size_t tls_room(struct relay_stream *stream)
{
    struct tls *tls = (struct tls *)stream;
    size_t room = tls->error == RELAY_OK ? lower_room(tls) : 0;
    size_t used = tls->early.len + (room / RECORD + 1) * OVERHEAD;
    return room > used ? room - used : room > 0;
}

static bool tls_send(struct relay_stream *stream, const uint8_t *bytes, size_t len)
{
    struct tls *tls = (struct tls *)stream;
    if (tls->error != RELAY_OK || tls->fin_wanted)
        return true;
    if (tls->ready)
        encrypt(tls, bytes, len);
    else if (relay_buffer_append(&tls->early, bytes, len) != RELAY_OK)
        die(tls, RELAY_ERR_NO_MEMORY);
    return tls->error != RELAY_OK || lower_room(tls) > 0;
}

static void tls_guard(struct relay_stream *stream)
{
    relay_stream_guard(((struct tls *)stream)->lower);
}

static void tls_share(struct relay_stream *stream)
{
    relay_stream_share(((struct tls *)stream)->lower);
}

static void tls_fin(struct relay_stream *stream)
{
    struct tls *tls = (struct tls *)stream;
    if (tls->fin_wanted || tls->error != RELAY_OK)
        return;
    tls->fin_wanted = true;
    if (!tls->ready)
        return;
    send_close_notify(tls);
    relay_stream_fin(tls->lower);
}

static void tls_pause(struct relay_stream *stream)
{
    struct tls *tls = (struct tls *)stream;
    tls->paused = true;
    if (tls->ready)
        relay_stream_pause(tls->lower);
}

static void tls_resume(struct relay_stream *stream)
{
    struct tls *tls = (struct tls *)stream;
    if (tls->lower != NULL)
        tls->lower->read_max = stream->read_max;
    if (!tls->paused)
        return;
    tls->paused = false;
    tls->resumed = true;
    relay_task_queue(stream->loop, &tls->tell);
    if (tls->error == RELAY_OK)
        relay_stream_resume(tls->lower);
}

/* The lower stream has had its ending; the memory is freed from the task. */
static void end(struct tls *tls)
{
    relay_task_cancel(&tls->flush);
    tls->ended = true;
    tls->super.cb = NULL;
    tls->lower = NULL;
    tls->in_len = 0;
    relay_task_queue(tls->super.loop, &tls->tell);
}

static void tls_release(struct relay_stream *stream)
{
    struct tls *tls = (struct tls *)stream;
    send_close_notify(tls);
    relay_stream_release(tls->lower);
    end(tls);
}

static void tls_close(struct relay_stream *stream)
{
    struct tls *tls = (struct tls *)stream;
    if (tls->alert_sent)
        relay_stream_release(tls->lower);
    else
        relay_stream_close(tls->lower);
    end(tls);
}

static void tls_reset(struct relay_stream *stream)
{
    struct tls *tls = (struct tls *)stream;
    relay_stream_reset(tls->lower);
    end(tls);
}

static int tls_descriptor(struct relay_stream *stream)
{
    return relay_stream_descriptor(((struct tls *)stream)->lower);
}

static const struct relay_stream_ops tls_ops = {
    .start = tls_start,
    .room = tls_room,
    .send = tls_send,
    .descriptor = tls_descriptor,
    .guard = tls_guard,
    .share = tls_share,
    .fin = tls_fin,
    .pause = tls_pause,
    .resume = tls_resume,
    .release = tls_release,
    .close = tls_close,
    .reset = tls_reset,
};

/* NULL: out of memory; the lower stream is closed. */
static struct tls *make(struct relay_stream *lower, SSL_CTX *context)
{
    pthread_once(&bio_method_once, make_bio_method);
    struct tls *tls = calloc(1, sizeof(*tls));
    SSL *ssl = tls != NULL ? SSL_new(context) : NULL;
    BIO *bio = ssl != NULL && bio_method != NULL ? BIO_new(bio_method) : NULL;
    if (bio == NULL) {
        SSL_free(ssl);
        free(tls);
        relay_stream_close(lower);
        return NULL;
    }
    BIO_set_data(bio, tls);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio);
    SSL_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    tls->super.ops = &tls_ops;
    tls->super.loop = lower->loop;
    tls->super.peer = lower->peer;
    tls->lower = lower;
    tls->ssl = ssl;
    relay_task_init(&tls->flush, RELAY_LEVEL_FLUSH_SOCKET, on_flush);
    relay_task_init(&tls->tell, RELAY_LEVEL_EVENT, on_tell);
    return tls;
}

struct relay_stream *relay_stream_tls_accept(struct relay_stream *lower, SSL_CTX *context)
{
    struct tls *tls = make(lower, context);
    if (tls == NULL)
        return NULL;
    SSL_set_accept_state(tls->ssl);
    return &tls->super;
}

static bool set_name(SSL *ssl, const char *name)
{
    unsigned char address[16];
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
    if (inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(param, name) == 1;
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return X509_VERIFY_PARAM_set1_host(param, name, 0) == 1 && SSL_set_tlsext_host_name(ssl, name) == 1;
}

struct relay_stream *relay_stream_tls_connect(struct relay_stream *lower, SSL_CTX *context, const char *name)
{
    struct tls *tls = make(lower, context);
    if (tls == NULL)
        return NULL;
    SSL_set_connect_state(tls->ssl);
    if (name != NULL && !set_name(tls->ssl, name)) {
        relay_stream_close(lower);
        dispose(tls);
        return NULL;
    }
    return &tls->super;
}

bool relay_stream_is_tls(const struct relay_stream *stream)
{
    return stream->ops == &tls_ops;
}

const char *relay_stream_alpn(const struct relay_stream *stream)
{
    return relay_stream_is_tls(stream) ? ((const struct tls *)stream)->alpn : "";
}
