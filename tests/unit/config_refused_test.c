#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "tests/unit/config_fixture.h"

/* Three lines with which a configuration is complete: what is wrong comes in line 4. */
#define LONG_NAME                                                                                            \
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"   \
    "0123456789"
#define EGRESS  "role: egress\nlisten: 80\nauth: off\n"
#define INGRESS "role: ingress\nlisten: 80\nauth: off\n"

#define ADMIN_MODE                                                                                           \
    ":4:13: [admin.mode] expected an octal mode from 0600 to 0666, as 0666: nobody needs to execute a "      \
    "socket"

#define NO_ADMIN_MODE "[admin.mode] expected it only with a unix socket, as a path in admin.listen"

static const struct {
    const char *text, *expected; /* expected: without the file's name */
} refused[] = {
    {"", ":1:1: expected a mapping of directives"},
    {"role\n", ":1:1: expected a mapping of directives"},
    {"- role: egress\n", ":1:1: expected a mapping of directives"},
    {"role: egress\n\tlisten: 80\n",
     ":2:1: expected YAML: found a tab character that violates indentation while scanning a plain scalar"},
    {"role: [egress\n",
     ":2:1: expected YAML: did not find expected ',' or ']' while parsing a flow sequence"},
    {"role: \"egress\n",
     ":2:1: expected YAML: found unexpected end of stream while scanning a quoted scalar"},
    {"role: egress\nlisten: {port: 80\nauth: off\n",
     ":3:5: expected YAML: did not find expected ',' or '}' while parsing a flow mapping"},
    {"role: egress\n  listen: 80\n", ":2:9: expected YAML: mapping values are not allowed in this context"},
    {"role: *egress\n", ":1:7: expected YAML: found undefined alias"},
    {"role: &a [*a]\n", ":1:7: expected no alias to a node inside itself"},
    {"role: \"a\\0b\"\n", ":1:7: expected text without NUL"},
    {"role: \xff\n", ":1:7: expected YAML: invalid leading UTF-8 octet"},
    {"role: egress\n# \xc3\xa9t\xe9 \n", ":2:6: expected YAML: invalid trailing UTF-8 octet"},
    {"a: {<<: 1}\n", ":1:9: expected a mapping, or a list of mappings, to merge"},
    {EGRESS "---\nrole: egress\n", ":5:1: expected the end of the file"},
    {"? [a]\n: b\n", ":1:3: command must be a string"},
    {"a: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]\n",
     ":1:35: expected at most 32 levels"},
    {"listen: 80\nauth: off\n", ":1:1: expected role: ingress or role: egress"},
    {EGRESS "hosts: foo\n", ":4:8: [hosts] expected a mapping, not a value"},
    {EGRESS "hosts: {default: foo}\n", ":4:18: expected a mapping"},
    {EGRESS "hosts: {default: {paths: [a]}}\n", ":4:26: [paths] expected a mapping, not a list"},
    {EGRESS "hosts: {default: {paths: {/: {file.dir: {a: b}}}}}\n",
     ":4:41: [file.dir] expected a value, not a mapping"},
    {"role: egress\nauth: off\n", ":1:1: expected at least one listen:"},
    {"role: egress\nlisten: 80\n",
     ":1:1: expected auth.tokens: FILE (or, for a relay open to everybody, auth: off)"},
    {EGRESS "proxy.conect: ON\n",
     ":4:1: expected a directive, as `twohop --help-config` lists them, not proxy.conect"},
    {EGRESS "status: ON\n", ":4:1: expected a directive, as `twohop --help-config` lists them, not status"},
    {EGRESS "proxy.reverse.url: http://127.0.0.1/\n",
     ":4:1: expected a directive, as `twohop --help-config` lists them, not proxy.reverse.url"},
    {EGRESS "role: ingress\n", ":4:7: [role] expected only once: it is already given in line 1"},
    {EGRESS "http2-idle-timeout: 3\n",
     ":4:1: [http2-idle-timeout] expected limits.* in its place: it has no effect here"},
    {EGRESS "access-log: \"| rm\"\n", ":4:13: [access-log] expected a file: no command is run"},
    {EGRESS "hosts: {a: {paths: {\"/\": {access-log: {path: \" |cat\", format: x}}}}}\n",
     ":4:39: [access-log] expected a file: no command is run"},
    {EGRESS "access-log: [a]\n",
     ":4:13: [access-log] expected the path of a file, or a mapping of path, format and escape, not a list"},
    {EGRESS "access-log: {format: \"%h\"}\n",
     ":4:13: [access-log] expected the path of a file, or a mapping of path, format and escape"},
    {EGRESS "access-log: {path: a, fromat: \"%h\"}\n",
     ":4:23: [access-log] expected path, format and escape, each once"},
    {EGRESS "access-log: {path: a, escape: shell}\n",
     ":4:13: [access-log] expected escape: apache or escape: json"},
    {EGRESS "access-log: {path: a, format: \"%Z\"}\n",
     ":4:13: [access-log] expected a format as of h2o's access-log: failed to compile log format: "
     "unknown escape sequence: %Z"},
    {EGRESS "access-log: /nonexistent/log\n", ":4:13: [access-log] expected a file that can be written to: "
                                              "/nonexistent/log: No such file or directory"},
    {EGRESS "error-log: /nonexistent/log\n", ":4:12: [error-log] expected a file that can be written to: "
                                             "/nonexistent/log: No such file or directory"},
    {EGRESS "pid-file: /nonexistent/pid\n", ":4:11: [pid-file] expected a file that can be written to: "
                                            "/nonexistent/pid: No such file or directory"},
    {EGRESS "admin.listen: /nonexistent/socket\n",
     ":4:15: [admin.listen] expected a file that can be written to: /nonexistent/socket: No such file or "
     "directory"},
    {EGRESS "admin.listen: /dev/null\n",
     ":4:15: [admin.listen] expected the path of a unix socket: /dev/null is something else"},
    {EGRESS "admin.listen: /tmp/" LONG_NAME "\n",
     ":4:15: [admin.listen] expected the path of a unix socket of at most 107 bytes"},
    {EGRESS "admin.mode: 0777\n", ADMIN_MODE},
    {EGRESS "admin.mode: 0440\n", ADMIN_MODE},
    {EGRESS "admin.mode: 06666\n", ADMIN_MODE},
    {EGRESS "admin.mode: 0666\n", ":4:13: " NO_ADMIN_MODE},
    {EGRESS "admin.mode: 0666\nadmin.listen: 127.0.0.1:9100\n", ":4:13: " NO_ADMIN_MODE},
    {EGRESS "admin.listen: \"[::1]:9100\"\nadmin.mode: 0666\n", ":5:13: " NO_ADMIN_MODE},
    {EGRESS "admin.listen: 127.0.0.1:80\n",
     ":4:15: [admin.listen] expected an address and port that no listen: has"},
    {EGRESS "admin.listen: \"[::1]:80\"\n",
     ":4:15: [admin.listen] expected an address and port that no listen: has"},
    {EGRESS "listen: {host: 127.0.0.1, port: 81}\nadmin.listen: 127.0.0.1:81\n",
     ":5:15: [admin.listen] expected an address and port that no listen: has"},
    {EGRESS "listen: {host: 192.0.2.1, port: 80}\n", ":4:16: [listen] expected an address of this machine"},
    {EGRESS "hosts: {a: {paths: {\"/\": {file.dir: /nonexistent}}}}\n",
     ":4:37: [file.dir] expected a folder that is there"},
    {EGRESS "hosts: {a: {paths: {\"/\": {file.file: /dev/null}}}}\n",
     ":4:38: [file.file] expected a regular file that is there"},
    {EGRESS "hosts: {a: {paths: {\"/\": {file.dir: /dev/null}}}}\n",
     ":4:37: [file.dir] expected a folder that is there"},
    {EGRESS "hosts: {a: {paths: {\"/\": {file.file: /tmp}}}}\n",
     ":4:38: [file.file] expected a regular file that is there"},
    {EGRESS "hosts: {a: {paths: {\"/\": {limits.streams: 3}}}}\n",
     ":4:27: [limits.streams] the command cannot be used at this level"},
    {EGRESS "hosts: {a: {paths: {\"/\": {file.dri: /tmp}}}}\n",
     ":4:27: expected a directive, as `twohop --help-config` lists them, not file.dri"},
    {EGRESS "hosts: {}\n", ":4:8: [hosts] the mapping cannot be empty"},
    {EGRESS "hosts: {a: {paths: {\"/\": {proxy.connect: ON}}}, b: {paths: {\"/\": {proxy.connect: ON}}}}\n",
     ":4:82: [proxy.connect] expected only once: it is already given in line 4"},
    {"role: both\n", ":1:7: [role] expected ingress or egress"},
    {"role: [egress]\n", ":1:7: [role] expected ingress or egress, not a list"},
    {"role:\n", ":1:6: [role] expected ingress or egress, not nothing"},
    {EGRESS "num-threads: 0\n", ":4:14: [num-threads] expected a whole number from 1 to 64"},
    {EGRESS "num-threads: 65\n", ":4:14: [num-threads] expected a whole number from 1 to 64"},
    {EGRESS "num-threads: two\n", ":4:14: [num-threads] expected a whole number from 1 to 64"},
    {EGRESS "user: nobody-knows-this-user\n", ":4:7: [user] expected a user of this machine"},
    {EGRESS "pid-file: []\n", ":4:11: [pid-file] expected the path of a file, not a list"},
    {EGRESS "log-level: loud\n", ":4:12: [log-level] expected debug, info, warning or error"},
    {EGRESS "proxy-name: \"my proxy\"\n",
     ":4:13: [proxy-name] expected a name of 1-64 letters, digits, '.' or '-' that begins with a letter"},
    {EGRESS "admin.listen: 0.0.0.0:9100\n",
     ":4:15: [admin.listen] expected a loopback address with a port, as 127.0.0.1:9100, or the absolute path "
     "of a unix socket: figures about users are not for the network"},
    {EGRESS "admin.listen: \"[2001:db8::1]:9100\"\n",
     ":4:15: [admin.listen] expected a loopback address with a port, as 127.0.0.1:9100, or the absolute path "
     "of a unix socket: figures about users are not for the network"},
    {EGRESS "admin.listen: localhost:9100\n",
     ":4:15: [admin.listen] expected a loopback address with a port, as 127.0.0.1:9100, or the absolute path "
     "of a unix socket: figures about users are not for the network"},
    {EGRESS "admin.listen: 127.0.0.1\n",
     ":4:15: [admin.listen] expected a loopback address with a port, as 127.0.0.1:9100, or the absolute path "
     "of a unix socket: figures about users are not for the network"},
    {EGRESS "resolver.servers: dns.example\n",
     ":4:19: [resolver.servers] expected an address, or address:port, or a list of them"},
    {EGRESS "resolver.servers: [192.0.2.1, 192.0.2.2:0]\n",
     ":4:31: [resolver.servers] expected an address, or address:port, or a list of them"},
    {EGRESS "resolver.timeout: 61\n", ":4:19: [resolver.timeout] expected whole seconds from 1 to 60"},
    {"role: egress\nlisten: http\n", ":2:9: [listen] expected a port from 0 to 65535"},
    {"role: egress\nlisten: 65536\n", ":2:9: [listen] expected a port from 0 to 65535"},
    {"role: egress\nlisten: -1\n", ":2:9: [listen] expected a port from 0 to 65535"},
    {"role: egress\nlisten: {host: 127.0.0.1}\n", ":2:9: [listen] expected port:"},
    {"role: egress\nlisten: {port: 80, host: localhost}\n",
     ":2:26: [listen] expected an IPv4 or IPv6 address"},
    {"role: egress\nlisten: {port: 80, prot: tcp}\n",
     ":2:20: [listen] expected a port, or a mapping of host, port, type and ssl, each once"},
    {"role: egress\nlisten: {port: 80, port: 81}\n",
     ":2:20: [listen] expected a port, or a mapping of host, port, type and ssl, each once"},
    {"role: egress\nlisten: {port: 80, type: udp}\n", ":2:26: [listen] expected tcp or quic"},
    {"role: egress\nlisten: {port: 80, type: quic}\n",
     ":2:9: [listen] expected ssl: with a certificate: QUIC is always encrypted"},
    {"role: egress\nlisten: {port: 443, ssl: cert.pem}\n",
     ":2:26: [listen] expected a mapping of certificate-file, key-file and minimum-version"},
    {"role: egress\nlisten: {port: 443, ssl: {certificate-file: cert.pem}}\n",
     ":2:26: [listen] expected both certificate-file and key-file"},
    {"role: egress\nlisten: {port: 443, ssl: {certificate-file: none.pem, key-file: key.pem}}\n",
     ":2:45: [listen] expected a file with a PEM certificate chain: none.pem: No such file or directory"},
    {"role: egress\nlisten: {port: 443, ssl: {certificate-file: key.pem, key-file: key.pem}}\n",
     ":2:45: [listen] expected a file with a PEM certificate chain: key.pem: no start line"},
    {"role: egress\nlisten: {port: 443, ssl: {certificate-file: cert.pem, key-file: none.pem}}\n",
     ":2:65: [listen] expected a key file that can be read: none.pem: No such file or directory"},
    {"role: egress\nlisten: {port: 443, ssl: {certificate-file: cert.pem, key-file: cert.pem}}\n",
     ":2:65: [listen] expected a file with the PEM private key of cert.pem: cert.pem: unsupported"},
    {"role: egress\nlisten: {port: 443, ssl: {certificate-file: cert.pem, key-file: other.pem}}\n",
     ":2:65: [listen] expected a file with the PEM private key of cert.pem: other.pem: key values mismatch"},
    {"role: egress\nlisten: {port: 443, ssl: {certificate-file: cert.pem, key-file: open.pem}}\n",
     ":2:65: [listen] expected a key file that only its owner can read (chmod 600) or, as user: needs it, "
     "root's, lent to its group (chown root:GROUP, chmod 640): open.pem"},
    {"role: egress\nlisten: {port: 443, ssl: {certificate-file: cert.pem, key-file: locked.pem}}\n",
     ":2:65: [listen] expected a PEM private key: locked.pem: the key is encrypted, and the relay takes no "
     "passphrase: store it decrypted (openssl pkey)"},
    {"role: egress\nlisten: {port: 443, type: quic, ssl: {certificate-file: cert.pem, key-file: "
     "old-locked.pem}}\n",
     ":2:77: [listen] expected a PEM private key: old-locked.pem: the key is encrypted, and the relay takes "
     "no passphrase: store it decrypted (openssl pkey)"},
    {"role: egress\nlisten: {port: 443, ssl: {certificate-file: cert.pem, key-file: key.pem, "
     "minimum-version: SSLv3}}\n",
     ":2:91: [listen] expected TLSv1.2 or TLSv1.3"},
    {"role: egress\nlisten: {port: 443, ssl: {certificate-file: cert.pem, key-file: key.pem, ocsp: 1}}\n",
     ":2:74: [listen] expected a mapping of certificate-file, key-file and minimum-version, each once"},
    {EGRESS "listen: 80\n", ":4:9: [listen] expected an address and port that no other listen: has"},
    {EGRESS "listen: {port: 80, host: \"::\"}\n",
     ":4:9: [listen] expected an address and port that no other listen: has"},
    {EGRESS "listen:\n  - 81\n  - []\n",
     ":6:5: [listen] expected a port, or a mapping of host, port, type and ssl"},
    {"role: egress\nlisten: 80\nauth: on\n", ":3:7: [auth] expected off (to switch it on give auth.tokens)"},
    {EGRESS "auth.tokens: tokens\n",
     ":4:14: [auth.tokens] expected either auth.tokens or auth: off, not both"},
    {"role: egress\nlisten: 80\nauth.tokens: none\n",
     ":3:14: [auth.tokens] expected a token file that can be read: none: No such file or directory"},
    {"role: egress\nlisten: 80\nauth.tokens: bad-tokens\n",
     ":3:14: [auth.tokens] bad-tokens:3:1: expected a name that is not used before in the file"},
    {"role: egress\nlisten: 80\nauth.tokens: {file: tokens}\n",
     ":3:14: [auth.tokens] expected the path of a token file, not a mapping"},
    {EGRESS "auth.failures-per-minute: 0\n",
     ":4:27: [auth.failures-per-minute] expected a whole number from 1 to 100000"},
    {EGRESS "auth.failures-per-minute-global: 1e3\n",
     ":4:34: [auth.failures-per-minute-global] expected a whole number from 1 to 10000000"},
    {EGRESS "peers: [192.0.2.0/24, 192.0.2.1/24]\n",
     ":4:23: [peers] expected an address or a prefix without host bits, as 192.0.2.0/24 or 2001:db8::/32"},
    {EGRESS "hosts: {a: {paths: {/: {}}, limit-request-body: 5}}\n",
     ":4:29: [limit-request-body] expected nothing: 64K are the limit of a request's body"},
    {EGRESS "peers: [ingress.example]\n",
     ":4:9: [peers] expected an address or a prefix without host bits, as 192.0.2.0/24 or 2001:db8::/32"},
    {EGRESS "peers: {a: b}\n", ":4:8: [peers] expected a list of prefixes, not a mapping"},
    {EGRESS "proxy.connect: yes please\n",
     ":4:16: [proxy.connect] expected ON, OFF or a list of rules such as \"+*:443\""},
    {EGRESS "proxy.connect: [\"+*:443\", \"*:80\"]\n",
     ":4:27: [proxy.connect] expected + or - at the beginning"},
    {EGRESS "proxy.connect: [\"+10.0.0.1/8\"]\n",
     ":4:17: [proxy.connect] expected a prefix length of 0-32 (IPv4) or 0-128 (IPv6) and only zero bits "
     "behind the prefix"},
    {EGRESS "proxy.connect: [\"+*:0\"]\n",
     ":4:17: [proxy.connect] expected a port or a range of ports within 1-65535"},
    {EGRESS "proxy.connect: [\"+*:90-80\"]\n", ":4:17: [proxy.connect] expected the lower port first"},
    {EGRESS "proxy.connect: [[\"+*\"]]\n",
     ":4:17: [proxy.connect] expected ON, OFF or a list of rules such as \"+*:443\", not a list"},
    {EGRESS "proxy.connect-udp: {allow: all}\n",
     ":4:20: [proxy.connect-udp] expected ON, OFF or a list of rules such as \"+*:443\", not a mapping"},
    {EGRESS "proxy.connect-udp: [\"+2001:db8::1:443x\"]\n",
     ":4:21: [proxy.connect-udp] expected *, an address, a prefix, a name or *.SUFFIX"},
    {EGRESS "proxy.connect-udp.template: /{target_host}/{target_port}/\n",
     ":4:29: [proxy.connect-udp.template] expected proxy.connect-udp: ON beside it"},
    {EGRESS "proxy.connect-udp: ON\nproxy.connect-udp.template: \"/{target_host}/\"\n",
     ":5:29: [proxy.connect-udp.template] expected a URI Template of RFC 9298: target_port is missing, at "
     "byte 16 of it"},
    {EGRESS "proxy.connect-udp: ON\nproxy.connect-udp.template: [\"/{target_host}/{target_port}/\", "
            "\"/{+target_host}/{target_port}/\"]\n",
     ":5:63: [proxy.connect-udp.template] expected a URI Template of RFC 9298: this operator is not allowed: "
     "use {...}, {?...} or {&...}, at byte 3 of it"},
    {EGRESS "proxy.connect-udp.oversize: fragment\n",
     ":4:29: [proxy.connect-udp.oversize] expected drop or capsule"},
    {EGRESS "proxy.timeout.udp-idle: 30\n",
     ":4:25: [proxy.timeout.udp-idle] expected seconds (or milliseconds with ms) from 120 to 604800"},
    {EGRESS "proxy.timeout.connect: 1 minute\n",
     ":4:24: [proxy.timeout.connect] expected seconds (or milliseconds with ms) from 0.1 to 120"},
    {EGRESS "proxy.timeout.tcp-idle: -5\n",
     ":4:25: [proxy.timeout.tcp-idle] expected seconds (or milliseconds with ms) from 1 to 604800"},
    {EGRESS "proxy.happy-eyeballs.delay: 3ms\n",
     ":4:29: [proxy.happy-eyeballs.delay] expected seconds (or milliseconds with ms) from 0.01 to 2"},
    {EGRESS "proxy.happy-eyeballs.delay: 0x10ms\n",
     ":4:29: [proxy.happy-eyeballs.delay] expected seconds (or milliseconds with ms) from 0.01 to 2"},
    {EGRESS "relays: [egress.example:443]\n",
     ":4:9: [relays] expected role: ingress, whose targets these are"},
    {INGRESS "relays: [egress.example]\n",
     ":4:10: [relays] expected HOST:PORT, as egress.example:443 or [2001:db8::1]:443"},
    {INGRESS "relays: [egress.example:443, 127.1:443]\n",
     ":4:30: [relays] expected HOST:PORT, as egress.example:443 or [2001:db8::1]:443"},
    {INGRESS "relays: [\"[64:ff9b::1.2.3.4]:443\"]\n",
     ":4:10: [relays] 64:ff9b::/96 is judged by the IPv4 address inside: expected a rule for that address"},
    {INGRESS "proxy.connect: ON\n",
     ":1:1: expected relays: [HOST:PORT, ...], the only targets of an ingress"},
    {INGRESS "proxy.connect: [\"+192.0.2.1:443\"]\n",
     ":1:1: expected relays: [HOST:PORT, ...], the only targets of an ingress"},
    {INGRESS "proxy.connect-udp: ON\nrelays: []\n",
     ":1:1: expected relays: [HOST:PORT, ...], the only targets of an ingress"},
    {EGRESS "debug.observe: maybe\n", ":4:16: [debug.observe] expected ON or OFF"},
    {EGRESS "limits.streams: 0\n", ":4:17: [limits.streams] expected a whole number from 1 to 10000"},
    {EGRESS "limits.streams: 10.5\n", ":4:17: [limits.streams] expected a whole number from 1 to 10000"},
    {EGRESS "limits.streams: [100]\n",
     ":4:17: [limits.streams] expected a whole number from 1 to 10000, not a list"},
    {EGRESS "limits.streams:\n",
     ":4:16: [limits.streams] expected a whole number from 1 to 10000, not nothing"},
    {EGRESS "limits.streams: 99999999999999999999\n",
     ":4:17: [limits.streams] expected a whole number from 1 to 10000"},
    {EGRESS "limits.streams: 2000\n",
     ":4:17: [limits.streams] expected no more than limits.streams-authenticated"},
    {EGRESS "limits.tunnel-memory: 1M\n",
     ":4:23: [limits.tunnel-memory] expected a number of bytes (suffixes K, M, G) from 16M to 1024G"},
    {EGRESS "limits.tunnel-memory: 1T\n",
     ":4:23: [limits.tunnel-memory] expected a number of bytes (suffixes K, M, G) from 16M to 1024G"},
    {EGRESS "limits.head-bytes: 16KB\n",
     ":4:20: [limits.head-bytes] expected a number of bytes (suffixes K, M, G) from 1K to 128K"},
    {EGRESS "limits.window-initial: 1M\nlimits.window-max: 512K\n",
     ":4:24: [limits.window-initial] expected no more than limits.window-max"},
    {EGRESS "limits.window-max: 64K\n",
     ":4:20: [limits.window-max] expected no less than limits.window-initial, which is 128K by default"},
    {EGRESS "limits.streams-authenticated: 50\n",
     ":4:31: [limits.streams-authenticated] expected no less than limits.streams, which is 100 by default"},
    {EGRESS "limits.half-open-max: 99\n",
     ":4:23: [limits.half-open-max] expected no less than limits.half-open-retry, which is 100 by default"},
    {EGRESS "limits.half-open-retry: 2000\n",
     ":4:25: [limits.half-open-retry] expected no more than limits.half-open-max"},
    {EGRESS "limits.head-timeout: 500\n",
     ":4:22: [limits.head-timeout] expected seconds (or milliseconds with ms) from 0.1 to 120"},
    {EGRESS "limits.idle-timeout: 1.\n",
     ":4:22: [limits.idle-timeout] expected seconds (or milliseconds with ms) from 0.1 to 86400"},
};

static void a_wrong_file_is_refused_with_place_and_expectation(void **state)
{
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        struct relay_config *config;
        char why[RELAY_CONFIG_WHY_SIZE], expected[RELAY_CONFIG_WHY_SIZE];
        write_file("relay.yaml", refused[i].text);
        snprintf(expected, sizeof(expected), "relay.yaml%s", refused[i].expected);
        if (relay_config_load("relay.yaml", RELAY_CONFIG_TEST, &config, why, sizeof(why)) == 0)
            fail_msg("row %zu is accepted: %s", i, refused[i].text);
        assert_null(config);
        assert_string_equal(why, expected);
    }
}

static void a_file_that_is_not_there_is_named(void **state)
{
    struct relay_config *config;
    char why[RELAY_CONFIG_WHY_SIZE];
    assert_int_not_equal(relay_config_load("none.yaml", RELAY_CONFIG_TEST, &config, why, sizeof(why)), 0);
    assert_string_equal(why, "none.yaml: No such file or directory");
}

static void a_broken_file_cannot_hurt(void **state)
{
    struct relay_yaml yaml;
    char why[256];
    char *big = malloc(RELAY_YAML_FILE_MAX + 1);
    memset(big, '#', RELAY_YAML_FILE_MAX + 1);
    assert_int_not_equal(relay_yaml_parse(&yaml, "f", big, RELAY_YAML_FILE_MAX + 1, why, sizeof(why)), 0);
    assert_string_equal(why, "f:1:1: expected at most 1 MiB");
    relay_yaml_dispose(&yaml);
    free(big);

    static const char laughs[] =
        "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
        "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
        "e: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n";
    assert_int_not_equal(relay_yaml_parse(&yaml, "f", laughs, strlen(laughs), why, sizeof(why)), 0);
    assert_string_equal(why, "f:5:4: expected at most 100000 values, aliases counted in full");
    relay_yaml_dispose(&yaml);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wrong_file_is_refused_with_place_and_expectation),
        cmocka_unit_test(a_file_that_is_not_there_is_named),
        cmocka_unit_test(a_broken_file_cannot_hurt),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
