#include "tests/unit/stream_peer.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "lib/net/tls_context.h"

static char certificate_file[] = "/tmp/stream_tls_test.XXXXXX", key_file[] = "/tmp/stream_tls_test.XXXXXX";
static uint8_t pin[1][RELAY_PIN_SIZE];
static SSL_CTX *server_context, *client_context, *pinned_context, *other_context;

static void add_name(X509 *certificate, const char *names)
{
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, names);
    assert_non_null(extension);
    X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
}

static void write_files(void)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    X509_NAME *name = X509_get_subject_name(certificate);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"relay.example", -1, -1, 0);
    X509_set_issuer_name(certificate, name);
    add_name(certificate, "DNS:relay.example,IP:192.0.2.1");
    assert_true(X509_sign(certificate, key, EVP_sha256()) > 0);
    unsigned char *spki = NULL;
    int len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate), &spki);
    SHA256(spki, (size_t)len, pin[0]);
    OPENSSL_free(spki);

    FILE *file = fdopen(mkstemp(certificate_file), "w");
    PEM_write_X509(file, certificate);
    fclose(file);
    file = fdopen(mkstemp(key_file), "w");
    PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL);
    fclose(file);
    X509_free(certificate);
    EVP_PKEY_free(key);
}

static int set_up_contexts(void **state)
{
    write_files();
    char error[256];
    struct relay_tls_server_config server = {certificate_file, key_file};
    server_context = relay_tls_server_context(&server, error, sizeof(error));
    assert_non_null(server_context);
    assert_string_equal(error, "");
    client_context =
        relay_tls_client_context(&(struct relay_tls_client_config){.ca_file = certificate_file}, error, 256);
    pinned_context =
        relay_tls_client_context(&(struct relay_tls_client_config){.pins = pin, .num_pins = 1}, error, 256);
    static const uint8_t other[1][RELAY_PIN_SIZE] = {{1}};
    other_context =
        relay_tls_client_context(&(struct relay_tls_client_config){.pins = other, .num_pins = 1}, error, 256);
    return client_context != NULL && pinned_context != NULL && other_context != NULL ? 0 : -1;
}

static int tear_down_contexts(void **state)
{
    SSL_CTX_free(server_context);
    SSL_CTX_free(client_context);
    SSL_CTX_free(pinned_context);
    SSL_CTX_free(other_context);
    unlink(certificate_file);
    unlink(key_file);
    return 0;
}

static void start_tls_pair(struct peer *client, struct peer *server, int depth)
{
    int fds[2];
    make_pair(fds);
    struct relay_stream *c = make_tcp(fds[0]), *s = make_tcp(fds[1]);
    for (int i = 0; i < depth; i++) {
        c = relay_stream_tls_connect(c, client_context, "relay.example");
        s = relay_stream_tls_accept(s, server_context);
        assert_true(c != NULL && s != NULL);
    }
    start_peer(client, c);
    start_peer(server, s);
}

static void every_burst_comes_back(void **state)
{
    static const size_t bursts[] = {1, 8191, 8192, 8193, 16383, 16384, 16385, 1000001};
    for (int depth = 1; depth <= 2; depth++) { /* 2: TLS in TLS */
        for (size_t i = 0; i < sizeof(bursts) / sizeof(bursts[0]); i++) {
            struct peer client, server;
            start_tls_pair(&client, &server, depth);
            server.echoes = true;
            uint8_t *bytes = make_pattern(bursts[i]);
            relay_stream_send(client.stream, bytes, bursts[i]); /* before the handshake: sent after it */
            run_until(client.ready && server.ready);
            assert_string_equal(relay_stream_alpn(server.stream), "h2");
            assert_string_equal(relay_stream_alpn(client.stream), "h2");
            run_until(client.got.len == bursts[i]);
            relay_stream_send(client.stream, bytes, bursts[i]);
            run_until(client.got.len == 2 * bursts[i]);
            assert_memory_equal(relay_buffer_bytes(&client.got), bytes, bursts[i]);
            assert_memory_equal(relay_buffer_bytes(&client.got) + bursts[i], bytes, bursts[i]);
            relay_stream_fin(client.stream);
            run_until(server.fin && client.fin);
            run_turn();
            assert_false(client.closed || server.closed);
            free(bytes);
            close_peer(&client);
            close_peer(&server);
        }
    }
}

static void back_pressure_holds_and_loses_nothing(void **state)
{
    struct peer client, server;
    start_tls_pair(&client, &server, 1);
    run_until(client.ready && server.ready);
    relay_stream_pause(server.stream);
    uint8_t *bytes = make_pattern(65536);
    size_t sent = 0;
    while (relay_stream_send(client.stream, bytes, 65536)) {
        sent += 65536;
        run_turn();
        assert_true(sent < 64u << 20);
    }
    sent += 65536;
    assert_int_equal(relay_stream_room(client.stream), 0);
    run_for(20 * RELAY_MS);
    assert_int_equal(server.got.len, 0);
    assert_int_equal(client.num_writable, 0);
    relay_stream_resume(server.stream);
    run_until(server.got.len == sent && client.num_writable == 1);
    for (size_t i = 0; i < sent; i += 65536)
        assert_memory_equal(relay_buffer_bytes(&server.got) + i, bytes, 65536);
    free(bytes);
    close_peer(&client);
    close_peer(&server);
}

static void a_reset_and_a_bare_fin_are_no_clean_end(void **state)
{
    struct peer client, server;
    start_tls_pair(&client, &server, 1);
    run_until(client.ready && server.ready);
    relay_stream_reset(client.stream);
    run_until(server.closed);
    assert_int_equal(server.error, RELAY_ERR_RESET);
    relay_buffer_dispose(&client.got);
    close_peer(&server);

    /* A TLS client on a descriptor that we shut ourselves: FIN without close_notify. */
    int fds[2];
    make_pair(fds);
    start_peer(&client, relay_stream_tls_connect(make_tcp(dup(fds[0])), client_context, "relay.example"));
    start_peer(&server, relay_stream_tls_accept(make_tcp(fds[1]), server_context));
    run_until(client.ready && server.ready);
    shutdown(fds[0], SHUT_WR);
    run_until(server.closed);
    assert_false(server.fin);
    assert_int_equal(server.error, RELAY_ERR_RESET);
    close(fds[0]);
    close_peer(&client);
    close_peer(&server);
}

static void a_release_is_a_clean_end(void **state)
{
    struct peer client, server;
    start_tls_pair(&client, &server, 1);
    run_until(client.ready && server.ready);
    relay_stream_send(client.stream, (const uint8_t *)"bye", 3);
    relay_stream_release(client.stream);
    run_until(server.fin);
    assert_int_equal(server.got.len, 3);
    relay_stream_release(server.stream);
    relay_buffer_dispose(&client.got);
    relay_buffer_dispose(&server.got);
}

/* Records behind a good handshake, or instead of one: the stream dies of them and the process does not. */
static void bad_records_end_the_stream(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
    } records[] = {
        {"\x17\x03\x03\x00\x00", 5},                                   /* empty */
        {"\x17\x03\x03\x00\x20garbage garbage garbage garbage!!", 37}, /* does not decrypt */
        {"\x17\x03\x03\xff\xff", 5},                                   /* oversized */
        {"\x15\x03\x03\x00\x02\x02\x28", 7},                           /* an alert in clear */
        {"GET / HTTP/1.1\r\n\r\n", 18},
    };
    for (size_t i = 0; i < 2 * sizeof(records) / sizeof(records[0]); i++) {
        bool handshaken = i % 2 == 0;
        int fds[2];
        make_pair(fds);
        struct peer client, server;
        if (handshaken)
            start_peer(&client,
                       relay_stream_tls_connect(make_tcp(dup(fds[0])), client_context, "relay.example"));
        start_peer(&server, relay_stream_tls_accept(make_tcp(fds[1]), server_context));
        run_until(server.ready || !handshaken);
        assert_true(send(fds[0], records[i / 2].bytes, records[i / 2].len, 0) > 0);
        run_until(server.closed || i / 2 == 0);
        assert_true(server.error == RELAY_ERR_TLS || i / 2 == 0);
        close_peer(&server);
        if (handshaken)
            close_peer(&client);
        close(fds[0]);
    }
}

static void certificates_are_checked(void **state)
{
    const struct {
        SSL_CTX *context;
        const char *name;
        int error;
    } rows[] = {
        {client_context, "relay.example", 0},
        {client_context, "other.example", RELAY_ERR_CERTIFICATE_NAME},
        {client_context, "192.0.2.1", 0},
        {client_context, "192.0.2.2", RELAY_ERR_CERTIFICATE_NAME},
        {pinned_context, "other.example", 0},
        {other_context, "relay.example", RELAY_ERR_CERTIFICATE_PIN},
        {pinned_context, NULL, 0},
        {other_context, NULL, RELAY_ERR_CERTIFICATE_PIN},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int fds[2];
        make_pair(fds);
        struct peer client, server;
        start_peer(&client, relay_stream_tls_connect(make_tcp(fds[0]), rows[i].context, rows[i].name));
        start_peer(&server, relay_stream_tls_accept(make_tcp(fds[1]), server_context));
        run_until(client.ready || client.closed);
        assert_int_equal(client.ready, rows[i].error == 0);
        if (rows[i].error != 0) {
            assert_int_equal(client.error, rows[i].error);
            relay_stream_close(client.stream); /* the alert still arrives */
            run_until(server.closed);
            assert_int_equal(server.error, RELAY_ERR_TLS);
            relay_stream_close(server.stream);
        } else {
            close_peer(&client);
            close_peer(&server);
        }
    }
}

static void a_context_says_what_is_wrong(void **state)
{
    char error[256];
    struct relay_tls_server_config config = {"/nonexistent.pem", key_file};
    assert_null(relay_tls_server_context(&config, error, sizeof(error)));
    assert_non_null(strstr(error, "/nonexistent.pem"));
    config = (struct relay_tls_server_config){certificate_file, certificate_file};
    assert_null(relay_tls_server_context(&config, error, sizeof(error)));
    assert_non_null(strstr(error, "key"));
    char locked[] = "/tmp/stream_tls_test.XXXXXX";
    EVP_PKEY *key = EVP_EC_gen("P-256");
    FILE *file = fdopen(mkstemp(locked), "w");
    PEM_write_PKCS8PrivateKey(file, key, EVP_aes_128_cbc(), "secret", 6, NULL, NULL);
    fclose(file);
    EVP_PKEY_free(key);
    config.key_file = locked;
    assert_null(relay_tls_server_context(&config, error, sizeof(error)));
    assert_true(strstr(error, locked) == error && strstr(error, RELAY_TLS_IS_ENCRYPTED) != NULL);
    unlink(locked);
    chmod(key_file, 0644);
    config.key_file = key_file;
    SSL_CTX *context = relay_tls_server_context(&config, error, sizeof(error));
    assert_non_null(context);
    assert_non_null(strstr(error, "every user"));
    SSL_CTX_free(context);
    assert_null(relay_tls_client_context(&(struct relay_tls_client_config){.ca_file = key_file}, error,
                                         sizeof(error)));
    assert_non_null(strstr(error, key_file));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_burst_comes_back, set_up_loop, tear_down_loop),
        cmocka_unit_test_setup_teardown(back_pressure_holds_and_loses_nothing, set_up_loop, tear_down_loop),
        cmocka_unit_test_setup_teardown(a_reset_and_a_bare_fin_are_no_clean_end, set_up_loop, tear_down_loop),
        cmocka_unit_test_setup_teardown(a_release_is_a_clean_end, set_up_loop, tear_down_loop),
        cmocka_unit_test_setup_teardown(bad_records_end_the_stream, set_up_loop, tear_down_loop),
        cmocka_unit_test_setup_teardown(certificates_are_checked, set_up_loop, tear_down_loop),
        cmocka_unit_test(a_context_says_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, set_up_contexts, tear_down_contexts);
}
