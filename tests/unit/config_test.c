#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <dirent.h>
#include <openssl/ssl.h>

#include "modules/auth_config.h"
#include "modules/limits_config.h"
#include "modules/proxy_config.h"
#include "server/config_process.h"
#include "tests/unit/config_fixture.h"

#define EGRESS "role: egress\nlisten: 80\nauth: off\n"

/* As a reload does, which asks nothing of the machine: the examples name addresses and folders of another. */
static struct relay_config *load(const char *text)
{
    struct relay_config *config;
    char why[RELAY_CONFIG_WHY_SIZE] = "";
    write_file("relay.yaml", text);
    if (relay_config_load("relay.yaml", RELAY_CONFIG_RELOAD, &config, why, sizeof(why)) != 0)
        fail_msg("%s", why);
    return config;
}

static void defaults_are_those_of_the_manual(void **state)
{
    struct relay_config *config = load(EGRESS);
    const struct relay_snapshot *snapshot = config->snapshot;
    assert_int_equal(snapshot->role, RELAY_ROLE_EGRESS);
    assert_true(snapshot->auth_off);
    assert_string_equal(snapshot->proxy_name, "twohop-egress");
    assert_int_equal(snapshot->num_connect, 0);
    assert_int_equal(snapshot->num_connect_udp, 0);
    assert_int_equal(snapshot->limits.max_streams, 100);
    assert_int_equal(snapshot->limits.max_streams_authenticated, 1000);
    assert_int_equal(snapshot->caps.connections_per_source, 256);
    assert_int_equal(snapshot->caps.tunnel_credit, 512u << 20);
    assert_true(snapshot->timeouts.udp_idle == 120 * RELAY_SECOND);
    assert_true(snapshot->dial.attempt_delay == RELAY_SECOND / 4);
    assert_false(snapshot->observe);
    assert_false(config->admin.is_given);
    assert_null(config->user);
    assert_null(config->resolver.servers);
    assert_true(config->num_threads >= 1);
    assert_int_equal(config->num_listeners, 2);
    assert_int_equal(config->listeners[0].address.family, 4);
    assert_int_equal(config->listeners[1].address.family, 6);
    assert_true(config->listeners[1].is_optional);
    assert_true(config->listeners[0].is_clear);
    assert_non_null(config->h2o.hosts[0]);
    relay_config_free(config);
}

static void listeners_are_tcp_and_quic(void **state)
{
    struct relay_config *config =
        load("role: egress\nauth: off\n"
             "listen: &tls\n  port: 443\n  host: 127.0.0.1\n"
             "  ssl: {certificate-file: cert.pem, key-file: key.pem, minimum-version: TLSv1.2}\n"
             "listen:\n  <<: *tls\n  type: quic\n"
             "listen: [{port: 0, host: \"::1\"}, {port: 0, host: \"::1\"}]\n");
    const struct relay_listener_config *listeners = config->listeners;
    assert_int_equal(config->num_listeners, 4);
    assert_false(listeners[0].is_quic);
    assert_string_equal(listeners[0].certificate_file, "cert.pem");
    assert_string_equal(listeners[0].key_file, "key.pem");
    assert_int_equal(listeners[0].minimum_version, TLS1_2_VERSION);
    assert_true(listeners[1].is_quic);
    assert_false(listeners[1].is_clear);
    assert_int_equal(listeners[1].port, 443);
    assert_int_equal(listeners[1].minimum_version, TLS1_3_VERSION);
    assert_int_equal(listeners[1].address.bytes[0], 127);
    assert_int_equal(listeners[2].port, 0);
    assert_int_equal(listeners[2].address.bytes[15], 1);
    relay_config_free(config);
}

static void every_kind_of_value_is_stored(void **state)
{
    struct relay_config *config = load(
        "role: egress\nlisten: 80\nnum-threads: 2\nlog-level: debug\nproxy-name: r1.example\n"
        "admin.listen: \"[::1]:9100\"\nresolver.servers: [192.0.2.1, \"2001:db8::1\", "
        "\"[2001:db8::2]:5353\"]\n"
        "resolver.timeout: 3\nauth.tokens: tokens\npeers: [192.0.2.0/24, \"2001:db8::/32\"]\n"
        "limits.streams: 7\nlimits.head-bytes: 4K\nlimits.tunnel-memory: 1G\nlimits.head-timeout: 300ms\n"
        "limits.idle-timeout: 0.25\nlimits.handshake-timeout: 5s\ndebug.observe: on\n"
        "proxy.connect-udp.oversize: capsule\nproxy.happy-eyeballs.connection-attempt-delay: 300ms\n"
        "proxy.happy-eyeballs.name-resolution-delay: 20ms\n");
    const struct relay_snapshot *snapshot = config->snapshot;
    assert_int_equal(config->num_threads, 2);
    assert_int_equal(config->log_level, RELAY_LOG_DEBUG);
    assert_string_equal(snapshot->proxy_name, "r1.example");
    assert_true(config->admin.is_given);
    assert_null(config->admin.path);
    assert_int_equal(config->admin.port, 9100);
    assert_string_equal(config->resolver.servers, "192.0.2.1:53,[2001:db8::1]:53,[2001:db8::2]:5353");
    assert_true(config->resolver.timeout == 3 * RELAY_SECOND);
    assert_false(snapshot->auth_off);
    assert_int_equal(snapshot->tokens.count, 2);
    assert_int_equal(snapshot->peers.count, 2);
    assert_int_equal(snapshot->limits.max_streams, 7);
    assert_int_equal(snapshot->limits.head_bytes, 4096);
    assert_true(snapshot->caps.tunnel_credit == (size_t)1 << 30);
    assert_true(snapshot->limits.head_timeout == 3 * RELAY_SECOND / 10);
    assert_true(snapshot->limits.idle_timeout == RELAY_SECOND / 4);
    assert_true(snapshot->limits.handshake_timeout == 5 * RELAY_SECOND);
    assert_true(snapshot->observe);
    assert_true(snapshot->oversize_capsule);
    assert_true(snapshot->dial.attempt_delay == 300 * RELAY_MS);
    assert_true(snapshot->dial.resolution_delay == 20 * RELAY_MS);
    assert_null(config->resolver.hosts_file); /* an egress's names are its users' */
    relay_config_free(config);

    config = load(EGRESS "admin.listen: /run/twohop.sock\n");
    assert_string_equal(config->admin.path, "/run/twohop.sock");
    relay_config_free(config);

    config = load(EGRESS "admin.mode: 0666\nadmin.listen: /run/twohop.sock\n");
    assert_int_equal(config->admin.mode, 0666);
    relay_config_free(config);
    config = load(EGRESS "admin.mode: 640\nadmin.listen: /run/twohop.sock\n");
    assert_int_equal(config->admin.mode, 0640);
    relay_config_free(config);
}

static int judge(const struct relay_acl *acl, const char *text, uint16_t port)
{
    struct relay_address address;
    assert_int_equal(relay_address_parse(text, strlen(text), &address), 0);
    return relay_acl_judge_address(acl, &(struct relay_acl_context){0}, NULL, &address, port,
                                   RELAY_TRANSPORT_TCP);
}

static void policies_hold_wherever_they_are_written(void **state)
{
    static const char *const files[] = {
        EGRESS "proxy.connect: [\"+10.0.0.1:80\", \"-*:443\", \"+*\"]\n",
        EGRESS "hosts: {a: {proxy.connect: [\"+10.0.0.1:80\", \"-*:443\", \"+*\"], paths: {/: {}}}}\n",
        EGRESS "hosts: {a: {paths: {/: {}}}, b: {paths: {/x: {proxy.connect: [\"+10.0.0.1:80\", \"-*:443\", "
               "\"+*\"]}}}}\n",
    };
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        struct relay_config *config = load(files[i]);
        assert_int_equal(config->snapshot->num_connect, 1);
        assert_int_equal(config->snapshot->num_connect_udp, 0);
        const struct relay_acl *acl = &config->snapshot->connect[0].acl;
        assert_int_equal(judge(acl, "10.0.0.1", 80), 0);
        assert_int_not_equal(judge(acl, "10.0.0.2", 80), 0);
        assert_int_not_equal(judge(acl, "8.8.8.8", 443), 0);
        assert_int_equal(judge(acl, "8.8.8.8", 80), 0);
        relay_config_free(config);
    }
    struct relay_config *config = load(EGRESS "proxy.connect: ON\nproxy.connect-udp: []\n");
    assert_false(config->snapshot->connect[0].acl.given);
    assert_int_equal(judge(&config->snapshot->connect[0].acl, "8.8.8.8", 80), 0);
    assert_int_not_equal(judge(&config->snapshot->connect_udp[0].acl, "8.8.8.8", 80), 0);
    relay_config_free(config);
    config = load(EGRESS "proxy.connect: OFF\n");
    assert_int_equal(config->snapshot->num_connect, 0);
    relay_config_free(config);
}

static void each_template_has_its_policy(void **state)
{
    struct relay_config *config =
        load(EGRESS "proxy.connect-udp: [\"+a.example:443\", \"-*\"]\n"
                    "proxy.connect-udp.template: [\"/m{?target_host,user,target_port}\", "
                    "\"/{target_host}/{target_port}\"]\n");
    const struct relay_snapshot *snapshot = config->snapshot;
    struct relay_host host;
    uint16_t port;
    assert_int_equal(snapshot->num_connect_udp, 2);
    assert_string_equal(snapshot->connect_udp[1].acl.rules[0].name, "a.example");
    assert_int_equal(relay_uri_template_match(&snapshot->connect_udp[1].template, "/b/7", 4, &host, &port),
                     0);
    assert_int_equal(port, 7);
    static const char query[] = "/m?target_host=b&target_port=8"; /* `user` is undefined */
    assert_int_equal(
        relay_uri_template_match(&snapshot->connect_udp[0].template, query, strlen(query), &host, &port), 0);
    assert_int_equal(port, 8);
    relay_config_free(config);

    static const char path[] = "/.well-known/masque/udp/192.0.2.1/443/";
    config = load(EGRESS "proxy.connect-udp: ON\n");
    assert_int_equal(config->snapshot->num_connect_udp, 1);
    assert_int_equal(relay_uri_template_match(&config->snapshot->connect_udp[0].template, path, strlen(path),
                                              &host, &port),
                     0);
    relay_config_free(config);
}

static void an_ingress_reaches_its_relays_only(void **state)
{
    struct relay_config *config =
        load("role: ingress\nlisten: 80\nauth: off\nproxy.connect: ON\nproxy.connect-udp: ON\n"
             "relays: [egress.example:443, 127.0.0.1:4433, \"[::1]:4433\"]\n");
    const struct relay_snapshot *snapshot = config->snapshot;
    const struct relay_acl_context context = {0};
    assert_string_equal(snapshot->proxy_name, "twohop-ingress");
    assert_string_equal(config->resolver.hosts_file, "/etc/hosts");
    assert_int_equal(snapshot->num_relays, 3);
    const struct relay_acl *acls[] = {&snapshot->connect[0].acl, &snapshot->connect_udp[0].acl};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(judge(acls[i], "127.0.0.1", 4433), 0);
        assert_int_equal(judge(acls[i], "::1", 4433), 0);
        assert_int_not_equal(judge(acls[i], "127.0.0.1", 4434), 0);
        assert_int_not_equal(judge(acls[i], "8.8.8.8", 443), 0);
        assert_int_equal(relay_acl_judge_name(acls[i], &context, "egress.example", 443, RELAY_TRANSPORT_UDP),
                         0);
        assert_int_not_equal(
            relay_acl_judge_name(acls[i], &context, "egress.example", 80, RELAY_TRANSPORT_UDP), 0);
        assert_int_not_equal(relay_acl_judge_name(acls[i], &context, "www.example", 443, RELAY_TRANSPORT_UDP),
                             0);
    }
    relay_config_free(config);
}

/* ---- reload ---- */

#define RUNNING                                                                                              \
    "role: egress\nlisten: 80\nlisten: 81\nauth.tokens: tokens\nnum-threads: 2\nproxy.connect: ON\n"         \
    "hosts: {a: {paths: {/: {file.dir: /tmp}}}}\n"

static void a_reload_takes_what_may_change_and_names_the_rest(void **state)
{
    static const struct {
        const char *text, *restart;
    } rows[] = {
        {RUNNING, ""},
        {"hosts: {a: {paths: {/: {file.dir: /tmp, proxy.connect-udp: ON}}}}\nlimits.streams: 5\nrole: "
         "egress\nlisten: 80\n"
         "auth: off\nlisten: 81\nnum-threads: 2\nproxy-name: x\n",
         ""},
        {"role: egress\nlisten: 80\nauth.tokens: tokens\nnum-threads: 2\nhosts: {a: {paths: {/: {file.dir: "
         "/tmp}}}}\n",
         "listen"},
        {RUNNING "admin.listen: 127.0.0.1:1\n", "admin.listen"},
        {RUNNING "admin.listen: /run/a\nadmin.mode: 0666\n", "admin.listen, admin.mode"},
        {"role: egress\nlisten: 80\nlisten: 82\nauth: off\nhosts: {a: {paths: {/: {file.dir: /}}}}\nuser: "
         "root\n",
         "listen, hosts, user, num-threads"},
        {RUNNING "proxy.connect-udp: ON\n"
                 "proxy.connect-udp.template: [\"/a/{target_host}/{target_port}\", "
                 "\"/b/{target_host}/{target_port}\"]\n",
         "proxy.connect-udp.template"},
    };
    struct relay_config *running = load(RUNNING);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct relay_snapshot *snapshot;
        char why[RELAY_CONFIG_WHY_SIZE] = "", restart[RELAY_CONFIG_WHY_SIZE];
        write_file("relay.yaml", rows[i].text);
        if (relay_config_reload("relay.yaml", running, &snapshot, why, sizeof(why), restart,
                                sizeof(restart)) != 0)
            fail_msg("row %zu: %s", i, why);
        assert_string_equal(restart, rows[i].restart);
        assert_int_equal(snapshot->references, 1);
        assert_int_equal(snapshot->limits.max_streams, i == 1 ? 5 : 100);
        relay_snapshot_unref(snapshot);
    }
    relay_config_free(running);
}

static void a_wrong_file_is_not_taken_on_reload(void **state)
{
    static const struct {
        const char *text, *why;
    } rows[] = {
        {RUNNING "limits.streams: 0\n",
         "relay.yaml:8:17: [limits.streams] expected a whole number from 1 to 10000"},
        {"role: ingress\nlisten: 80\nauth: off\n",
         "relay.yaml: expected the same role as before: it cannot change in a living process"},
    };
    struct relay_config *running = load(RUNNING);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct relay_snapshot *snapshot;
        char why[RELAY_CONFIG_WHY_SIZE] = "", restart[RELAY_CONFIG_WHY_SIZE];
        write_file("relay.yaml", rows[i].text);
        assert_int_not_equal(
            relay_config_reload("relay.yaml", running, &snapshot, why, sizeof(why), restart, sizeof(restart)),
            0);
        assert_null(snapshot);
        assert_string_equal(why, rows[i].why);
    }
    relay_config_free(running);
}

static int count_descriptors(void)
{
    int count = 0;
    DIR *folder_of_descriptors = opendir("/proc/self/fd");
    assert_non_null(folder_of_descriptors);
    while (readdir(folder_of_descriptors) != NULL)
        count++;
    closedir(folder_of_descriptors);
    return count;
}

/* T78. An access-log stands in the file: a reload must not open it again. */
static void many_reloads_keep_no_descriptor(void **state)
{
    static const char text[] = RUNNING "access-log: /dev/null\n";
    struct relay_config *running = load(text);
    const int before = count_descriptors();
    for (int i = 0; i < 200; i++) {
        struct relay_snapshot *snapshot;
        char why[RELAY_CONFIG_WHY_SIZE], restart[RELAY_CONFIG_WHY_SIZE];
        write_file("relay.yaml", i % 2 == 0 ? text : "role: egress\nlisten: 80\nauth.tokens: bad-tokens\n");
        relay_config_reload("relay.yaml", running, &snapshot, why, sizeof(why), restart, sizeof(restart));
        assert_int_equal(snapshot != NULL, i % 2 == 0);
        relay_snapshot_unref(snapshot);
    }
    assert_int_equal(count_descriptors(), before);
    relay_config_free(running);
}

/* ---- conf/ ---- */

/* The text of conf/NAME with the folder of an installation replaced by `.`, to be freed. With `all`, also the
 * lines that show a directive behind a `#` hold. */
static char *read_example(const char *name, bool all)
{
    char path[512], line[1024], *text = calloc(1, 65536);
    snprintf(path, sizeof(path), "%s/conf/%s", TWOHOP_SOURCE_DIR, name);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file) != NULL) {
        char *installed = strstr(line, "/etc/twohop/"), *mark = line + strspn(line, " ");
        if (installed != NULL)
            memmove(installed, installed + strlen("/etc/twohop/"),
                    strlen(installed + strlen("/etc/twohop/")) + 1);
        if (all && mark[0] == '#' && mark[1] >= 'a' && mark[1] <= 'z')
            memmove(mark, mark + 1, strlen(mark));
        assert_true(strlen(text) + strlen(line) < 65536);
        strcat(text, line);
    }
    fclose(file);
    return text;
}

static void the_examples_load(void **state)
{
    static const char *const names[] = {"ingress.yaml", "egress.yaml"};
    for (int i = 0; i < 4; i++) {
        char *text = read_example(names[i / 2], i % 2 == 1);
        struct relay_config *config = load(text);
        assert_int_equal(config->snapshot->role, i / 2 == 0 ? RELAY_ROLE_INGRESS : RELAY_ROLE_EGRESS);
        assert_int_equal(config->snapshot->num_connect, 1);
        assert_int_equal(config->snapshot->num_connect_udp, 1);
        assert_int_equal(config->snapshot->tokens.count, 2);
        relay_config_free(config);
        free(text);
    }
    char *text = read_example("tokens.example", false);
    struct relay_token_file tokens;
    struct relay_token_file_error fault;
    assert_int_equal(relay_token_file_parse(&tokens, text, strlen(text), &fault), 0);
    relay_token_file_dispose(&tokens);
    free(text);
}

/* What is written behind a `#` is the default: with all of it the snapshot is the same as without. */
static void the_examples_show_the_defaults(void **state)
{
    char *text = read_example("egress.yaml", false), *all = read_example("egress.yaml", true);
    struct relay_config *config = load(text);
    struct relay_config *other = load(all);
    assert_memory_equal(&config->snapshot->limits, &other->snapshot->limits,
                        sizeof(config->snapshot->limits));
    assert_memory_equal(&config->snapshot->caps, &other->snapshot->caps, sizeof(config->snapshot->caps));
    assert_memory_equal(&config->snapshot->dial, &other->snapshot->dial, sizeof(config->snapshot->dial));
    assert_memory_equal(&config->snapshot->timeouts, &other->snapshot->timeouts,
                        sizeof(config->snapshot->timeouts));
    assert_string_equal(config->snapshot->proxy_name, other->snapshot->proxy_name);
    assert_memory_equal(config->snapshot->connect_udp[0].template.literals,
                        other->snapshot->connect_udp[0].template.literals,
                        sizeof(config->snapshot->connect_udp[0].template.literals));
    assert_int_equal(config->log_level, other->log_level);
    assert_int_equal(config->resolver.timeout, other->resolver.timeout);
    relay_config_free(config);
    relay_config_free(other);
    free(text);
    free(all);
}

static void the_examples_show_every_directive(void **state)
{
    static const struct relay_directive *const tables[] = {relay_process_directives, relay_listen_directives,
                                                           relay_auth_directives, relay_proxy_directives,
                                                           relay_limits_directives};
    char *ingress = read_example("ingress.yaml", true), *egress = read_example("egress.yaml", true);
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
        for (const struct relay_directive *directive = tables[i]; directive->name != NULL; directive++) {
            char key[128];
            /* No line of its own: beside the ADDRESS:PORT of the examples it would be an error. */
            const bool is_prose = strcmp(directive->name, "admin.mode") == 0;
            snprintf(key, sizeof(key), "%s%s:", is_prose ? "`" : "\n", directive->name);
            if (strcmp(directive->name, "relays") != 0 && strcmp(directive->name, "auth") != 0 &&
                strstr(egress, key) == NULL)
                fail_msg("conf/egress.yaml does not show %s", directive->name);
            if (strcmp(directive->name, "auth") != 0 && strstr(ingress, key) == NULL)
                fail_msg("conf/ingress.yaml does not show %s", directive->name);
        }
    free(ingress);
    free(egress);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_those_of_the_manual),
        cmocka_unit_test(listeners_are_tcp_and_quic),
        cmocka_unit_test(every_kind_of_value_is_stored),
        cmocka_unit_test(policies_hold_wherever_they_are_written),
        cmocka_unit_test(each_template_has_its_policy),
        cmocka_unit_test(an_ingress_reaches_its_relays_only),
        cmocka_unit_test(a_reload_takes_what_may_change_and_names_the_rest),
        cmocka_unit_test(a_wrong_file_is_not_taken_on_reload),
        cmocka_unit_test(many_reloads_keep_no_descriptor),
        cmocka_unit_test(the_examples_load),
        cmocka_unit_test(the_examples_show_the_defaults),
        cmocka_unit_test(the_examples_show_every_directive),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
