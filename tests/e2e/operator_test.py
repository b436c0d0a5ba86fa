"""What an operator reads off a relay and asks of it: figures, refusals at start, log files, tokens."""
import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

import pytest
import yaml

from harness import capsule, configs, http1, http2, http3, ports, process, vitals

AUTH_LINE = f"Proxy-Authorization: {configs.BEARER}"


@pytest.fixture
def egress(relay, certificates, tmp_path):
    """start(**more directives): an egress; at: its ports, vitals: its vital signs."""
    def start(build=None, **more):
        at = configs.Ports()
        started = relay(configs.egress(certificates, tmp_path, at, **({"log-level": "debug"} | more)), build=build)
        started.at, started.vitals = at, vitals.Vitals(started)
        return started
    return start


# ---- figures ----

def test_the_bytes_of_tcp_tunnels_are_counted(egress, tcp_echo):
    relay = egress(**{"num-threads": 2})
    with http1.Connection(relay.at.clear) as connection:
        assert connection.connect(tcp_echo.authority, AUTH_LINE)[0] == 200
        for _ in range(10):
            connection.send(bytes(30000))
            assert len(connection.read(30000)) == 30000
        metrics = relay.vitals.metrics()  # while the tunnel is open
    assert metrics['twohop_bytes_total{method="connect",direction="to_target"}'] == 300000
    assert metrics['twohop_bytes_total{method="connect",direction="to_client"}'] == 300000


def dropped(metrics, *reasons):
    return sum(metrics[f'twohop_dropped_total{{reason="{reason}"}}'] for reason in reasons)


def test_each_datagram_is_passed_on_or_counted_as_dropped(egress):
    """A target that floods a client that does not read, and a tunnel that ends over it; then a flood to a silent target."""
    relay, sent = egress(**{"num-threads": 2}), 20000
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target:
        target.bind(("127.0.0.1", 0))
        path = f"/.well-known/masque/udp/127.0.0.1/{target.getsockname()[1]}/"
        with http1.Connection(relay.at.clear) as connection:
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            assert connection.upgrade(path, AUTH_LINE)[0] == 101
            connection.send(capsule.datagram(b"hello"))
            _, peer = target.recvfrom(100)
            for _ in range(sent):
                target.sendto(bytes(1200), peer)
            time.sleep(0.5)
        vitals.wait(lambda: relay.vitals.tunnels() == 0)
        metrics = relay.vitals.metrics()
        out = metrics['twohop_datagrams_total{direction="to_client"}']
        assert out < sent and metrics['twohop_bytes_total{method="connect-udp",direction="to_client"}'] == out * 1200
        assert dropped(metrics, "target_socket_full") > 0
        assert out + dropped(metrics, "target_socket_full", "tunnel_closed", "blocked") == sent, metrics
        with http1.Connection(relay.at.clear) as connection:
            assert connection.upgrade(path, AUTH_LINE)[0] == 101
            connection.send(capsule.datagram(b"12345") * 500 + capsule.datagram(bytes(65520)))
            vitals.wait(lambda: dropped(relay.vitals.metrics(), "unanswered_target") > 0)
            gauge = 'twohop_tunnels{method="connect-udp",version="1.1"}'
            assert relay.vitals.metrics()[gauge] == 1
        vitals.wait(lambda: relay.vitals.tunnels() == 0)
        metrics = relay.vitals.metrics()
        into = metrics['twohop_datagrams_total{direction="to_target"}']
        assert into + dropped(metrics, "unanswered_target", "target_too_big") == 1 + 501, metrics
        assert metrics['twohop_bytes_total{method="connect-udp",direction="to_target"}'] == into * 5


def test_a_target_that_refuses_is_counted(egress):
    relay = egress()
    with http1.Connection(relay.at.clear) as connection:
        assert connection.upgrade("/.well-known/masque/udp/127.0.0.1/9/", AUTH_LINE)[0] == 101
        with contextlib.suppress(OSError):
            for _ in range(20):
                connection.send(capsule.datagram(b"y"))
                time.sleep(0.05)
    vitals.wait(lambda: relay.vitals.metrics()["twohop_udp_targets_refused_total"] == 1)


def test_the_sizes_of_a_udp_tunnel_are_those_of_its_datagrams(egress, certificates, udp_echo):
    """In the debug line of its end, for capsules and for frames."""
    relay = egress()
    path = f"/.well-known/masque/udp/{udp_echo.host}/{udp_echo.port}/"
    with http1.Connection(relay.at.clear) as connection:
        assert connection.upgrade(path, AUTH_LINE)[0] == 101
        connection.send(capsule.datagram(bytes(1000)))
        assert len(connection.read(1000)) == 1000

    async def over_http3():
        async with http3.client(relay.at.tls, certificates.ca) as client:
            stream = client.connect_udp(path, ("proxy-authorization", configs.BEARER))
            assert (await client.response(stream))[0] == 200
            client.send_datagram(stream, b"\0" + bytes(1000))
            await client.until(lambda: client.streams[stream].datagrams)
            client.send(stream, b"", end=True)
            await client.until(lambda: client.streams[stream].ended)

    asyncio.run(over_http3())
    ends = vitals.wait(lambda: len(found := relay.events("tunnel_closed")) == 2 and found, 5, "two ends")
    assert [(end["bytes_in"], end["bytes_out"], end["datagrams_in"], end["datagrams_out"]) for end in ends] == [(1000, 1000, 1, 1)] * 2


def test_lost_log_lines_are_counted(egress):
    """/dev/full takes none."""
    relay = egress(**{"error-log": "/dev/full"})
    lost = relay.vitals.metrics()["twohop_log_lines_dropped_total"]
    assert lost >= 1
    assert json.loads(relay.admin_get("/status.json")[1])["log_lines_dropped"] == lost


@pytest.mark.parametrize("log", ["access-log", "error-log", "standard error"])
def test_nobody_waits_for_a_log_pipe(egress, tcp_echo, tmp_path, log):
    """Its reader stands still (T86): lines are dropped and counted; when it goes on, whole lines come again."""
    pipe, build, more = tmp_path / "pipe", None, {log: str(tmp_path / "pipe")}
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    if log == "standard error":
        build, more = tmp_path, {}
        (tmp_path / "twohop").write_text(f"#!/bin/sh\nexec {process.BUILD}/twohop \"$@\" 2>{pipe}\n")
        (tmp_path / "twohop").chmod(0o755)
    relay = egress(build=build, **more)

    def request():
        with http1.Connection(relay.at.clear) as connection:
            assert connection.request("GET", "/index.html", "User-Agent: " + "u" * 300)[0] == 200
        with http1.Connection(relay.at.clear) as connection:
            assert connection.connect(tcp_echo.authority, AUTH_LINE)[0] == 200

    def lost():
        return relay.vitals.metrics()["twohop_log_lines_dropped_total"]

    with vitals.Bystander(relay.at.clear, tcp_echo) as bystander:
        for _ in range(60):
            request()
        bystander.echo()
        vitals.wait(lambda: lost() > 0)
        text = os.read(reader, 65536)
        request()
        vitals.wait(lambda: select.select([reader], [], [], 0)[0])
        text += os.read(reader, 65536)
    relay.stop()
    os.close(reader)
    assert text.endswith(b"\n")
    for line in text.splitlines():
        if log == "access-log":
            assert line.startswith(b"127.0.0.1 ") and line.endswith(b'u"'), line
        else:
            assert json.loads(line)["event"], line


def test_long_lines_of_the_access_log_are_cut(egress, tmp_path):
    relay = egress(**{"access-log": str(tmp_path / "access")})
    for path in ("/" + "a" * 15000, "/index.html"):
        with http1.Connection(relay.at.clear) as connection:
            connection.request("GET", path)
    log = vitals.wait(lambda: [text for text in [(tmp_path / "access").read_text()] if "index" in text])[0]
    long, short = log.splitlines()
    assert len(long) == 4095 and long.endswith("aaaa...") and " 200 " in short


def test_failed_lines_of_the_access_log_are_counted(egress):
    relay = egress(**{"access-log": "/dev/full"})
    before = relay.vitals.metrics()["twohop_log_lines_dropped_total"]
    with http1.Connection(relay.at.clear) as connection:
        connection.request("GET", "/index.html")
    vitals.wait(lambda: relay.vitals.metrics()["twohop_log_lines_dropped_total"] == before + 1)


def test_the_admin_listener(egress):
    relay = egress()
    before = relay.vitals.metrics()
    with http1.Connection(relay.at.admin) as connection:
        for path in ("/metrics", "/metrics?format=x", "/status.json?", "/healthz", "/healthz?x", "/nothing", "/nothing?/metrics", "/"):
            status, fields = connection.request("GET", path)
            body = connection.body(fields)
            assert status == (404 if path.split("?")[0] in ("/nothing", "/") else 200) and body.endswith(b"\n") and b"\n\n" not in body
            assert connection.request("HEAD", path)[0] == status
        assert connection.request("POST", "/healthz", "Content-Length: 0")[0] == 405
    after = relay.vitals.metrics()
    assert after['twohop_requests_total{version="1.1"}'] == before['twohop_requests_total{version="1.1"}'] == 0


# ---- requests that are for another server ----

@pytest.fixture
def two_names(egress, tmp_path):
    """An egress that is relay.test and *.relays.test too."""
    paths = {"paths": {"/": {"file.dir": str(tmp_path / "www")}}}
    (tmp_path / "www").mkdir()
    return egress(hosts={"default": paths, "relay.test": paths, "*.relays.test": paths})


FOREIGN = ["http://page.test/", "http://page.test:8080/index.html", "https://page.test/", "HTTP://192.0.2.7/", "http://relays.test/"]


@pytest.mark.parametrize("tls", [False, True])
def test_http1_urls_of_others_are_refused(two_names, certificates, tls):
    relay, context = two_names, certificates.client_context(["http/1.1"]) if tls else None
    port = relay.at.tls if tls else relay.at.clear
    for target in FOREIGN:
        with http1.Connection(port, context=context) as connection:
            status, fields = connection.request("GET", target, AUTH_LINE, host="localhost")
            assert status == 421, target
            assert b"CONNECT" in connection.body(fields)
    with http1.Connection(port, context=context) as connection:
        connection.send("POST http://page.test/ HTTP/1.1\r\nHost: page.test\r\nContent-Length: 5\r\n\r\n12345")
        assert connection.head()[0] == 421
    ours = ["http://relay.test/index.html", "https://a.relays.test/index.html", f"http://127.0.0.1:{port}/index.html"]
    with http1.Connection(port, context=context) as connection:
        for target in ours:
            status, fields = connection.request("GET", target)
            assert (status, connection.body(fields)) == (200, b"hello from twohop\n"), target
        for host in ("whoever.test", "192.0.2.9:81"):  # health checks, access by address
            status, fields = connection.request("GET", "/index.html", host=host)
            assert (status, connection.body(fields)) == (200, b"hello from twohop\n")


def get2(connection, scheme, authority):
    return connection.open([(":method", "GET"), (":scheme", scheme), (":authority", authority), (":path", "/index.html")], end=True)


def test_http2_urls_of_others_are_refused(two_names, certificates):
    with http2.Connection(two_names.at.tls, context=certificates.client_context(["h2"])) as connection:
        for scheme, authority, status in (("http", "page.test", 421), ("http", "relay.test", 200), ("https", "page.test", 200),
                                          ("http", f"127.0.0.1:{two_names.at.tls}", 200), ("http", "192.0.2.7:80", 421)):
            assert connection.response(get2(connection, scheme, authority))[0] == status, (scheme, authority)
    with http2.Connection(two_names.at.clear) as connection:
        assert connection.response(get2(connection, "http", "page.test"))[0] == 200


def test_http3_urls_of_others_are_refused(two_names, certificates):
    async def run():
        async with http3.client(two_names.at.tls, certificates.ca) as client:
            for scheme, authority, status in (("http", "page.test", 421), ("https", "page.test", 200)):
                stream = client.open([(":method", "GET"), (":scheme", scheme), (":authority", authority),
                                      (":path", "/index.html")], end=True)
                assert (await client.response(stream))[0] == status
    asyncio.run(run())


def test_connect_udp_in_absolute_form(egress, udp_echo):
    """As in the example of RFC 9298 section 3.2: its authority is the template's, whatever our names are."""
    relay = egress()
    with http1.Connection(relay.at.clear) as connection:
        path = f"https://proxy.test/.well-known/masque/udp/{udp_echo.host}/{udp_echo.port}/"
        assert connection.upgrade(path, AUTH_LINE, host="proxy.test")[0] == 101


# ---- a second process ----

def start_another(folder, config, name="another", prefix=()):
    """(exit status, what it said) of a process that is expected to end at once."""
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    ended = subprocess.run([*prefix, process.BUILD / "twohop", "-c", path], env=process.environment(), capture_output=True,
                           text=True, timeout=20)
    assert not process.REPORT.search(ended.stderr), ended.stderr
    return ended.returncode, ended.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("kind", ["tcp", "quic"])
def test_a_port_that_the_process_may_not_have(certificates, tmp_path, kind):
    """-t cannot tell: it may be run by another user than the start, and with other rights."""
    own_network = ["unshare", "--net", "setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-all"]  # there 1024 is the first
    ssl = {"certificate-file": str(certificates.cert), "key-file": str(certificates.key)}
    listen = [{"host": "0.0.0.0", "port": 443, "type": kind, "ssl": ssl}]
    config = configs.egress(certificates, tmp_path, configs.Ports()) | {"listen": listen}
    status, said = start_another(tmp_path, config, prefix=own_network)
    assert status == 1 and "0.0.0.0:443: Permission denied (ports below 1024 need a start as root or CAP_NET_BIND_SERVICE)" in said, said


@pytest.mark.parametrize("living, second", [("127.0.0.1", "127.0.0.1"), (None, "127.0.0.1"), ("127.0.0.1", None), (None, None),
                                            ("::1", "::1"), (None, "::1")])
@pytest.mark.parametrize("kind", ["tcp", "quic"])
def test_a_second_process_does_not_share_a_port(egress, certificates, tmp_path, living, second, kind):
    """Also without a pid file, and on no admin address."""
    def listen(host):
        ssl = {"certificate-file": str(certificates.cert), "key-file": str(certificates.key)}
        return [{"port": port, "type": kind, "ssl": ssl} | ({"host": host} if host else {})]
    port = ports.free_port()
    relay = egress(**{"num-threads": 2, "listen": listen(living)})
    config = relay.config | {"listen": listen(second)}
    del config["admin.listen"]
    status, said = start_another(tmp_path, config)
    assert status == 1 and f":{port}: Address already in use" in said, said
    assert re.search(rf"{tmp_path}/[^/]+:[0-9]+:[0-9]+: \[listen\] ", said), said


def test_a_failed_start_is_not_silent(egress, tmp_path):
    """Also with error-log, which is the living process's file; once it serves, a process writes to that file alone."""
    log = tmp_path / "error.log"
    relay = egress(**{"error-log": str(log)})
    status, said = start_another(tmp_path, relay.config)
    assert status == 1 and '"cannot_start"' in said and "Address already in use" in said, said
    assert said in log.read_text()
    relay.path.write_text("role: [1, 2]\n")
    relay.signal(signal.SIGHUP)
    vitals.wait(lambda: '"reload_failed"' in log.read_text(), 5, "the failed reload")
    assert relay.log == ""


@pytest.mark.parametrize("directive, value, expected", [
    ("listen", {"host": "192.0.2.99", "port": 444}, "expected an address of this machine"),
    ("listen", {"host": "192.0.2.99", "port": 444, "type": "quic"}, "expected an address of this machine"),
    ("error-log", "/tmp", "expected a file that can be written to: /tmp: Is a directory"),
    ("pid-file", "/nonexistent/pid", "expected a file that can be written to: /nonexistent/pid: No such file or directory"),
    ("admin.listen", "/nonexistent/socket", "expected a file that can be written to: /nonexistent/socket: No such file or directory"),
    ("access-log", "/nonexistent/log", "expected a file that can be written to: /nonexistent/log: No such file or directory"),
])
def test_a_start_says_what_the_test_says(certificates, tmp_path, directive, value, expected):
    config = configs.egress(certificates, tmp_path, configs.Ports())
    ssl = config["listen"][0]["ssl"]
    path = tmp_path / "relay.yaml"
    path.write_text(yaml.safe_dump(config | {directive: value | {"ssl": ssl} if directive == "listen" else value}))
    said = []
    for test in (["-t"], []):
        done = subprocess.run([process.BUILD / "twohop", *test, "-c", path], env=process.environment(), capture_output=True, text=True,
                              timeout=20)
        said.append((done.returncode, done.stderr))
    assert said[0] == said[1], said
    assert re.fullmatch(rf"{path}:[0-9]+:[0-9]+: \[{directive}\] {expected}\n", said[0][1]) and said[0][0] == 1, said


def test_a_port_without_brackets_is_warned_of(relay, certificates, tmp_path):
    """`+::1:443` is an address; by -t and at start."""
    allow = ["+127.0.0.0/8", "+::1:443", "+2001:4860:4860::8888", "+::1:443/128"]
    config = configs.egress(certificates, tmp_path, configs.Ports(), allow=allow)
    started = relay(config)
    events = vitals.wait(lambda: len(found := started.events("doubtful_rule")) >= 2 and found)
    warnings = [event["reason"] for event in events]
    tested = subprocess.run([process.BUILD / "twohop", "-t", "-c", started.path], env=process.environment(), capture_output=True, text=True,
                            timeout=20)
    assert tested.returncode == 0 and tested.stderr.splitlines() == warnings, (tested, warnings)
    place = rf"{started.path}:[0-9]+:[0-9]+: "
    assert len(warnings) == 2, warnings
    what = r"warning: \+::1:443 is an address, at every port: expected \+\[::1\]:443 for a port, or \+::1:443/128"
    for directive in ("proxy.connect", "proxy.connect-udp"):
        assert any(re.fullmatch(rf"{place}\[{directive}\] {what}", warning) for warning in warnings), warnings


def test_an_admin_socket_of_the_living_is_not_taken(egress, relay, certificates, tmp_path):
    path = tmp_path / "admin.sock"
    first = egress(**{"admin.listen": str(path)})
    config = configs.egress(certificates, tmp_path, configs.Ports(), **{"admin.listen": str(path)})
    status, said = start_another(tmp_path, config)
    assert status == 1 and f"[admin.listen] {path}: Address already in use" in said, said
    first.kill()
    assert path.exists()
    relay(config)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_a_socket_of_another_type_is_not_taken(certificates, tmp_path, kind):
    path = tmp_path / "other.sock"
    with socket.socket(socket.AF_UNIX, kind) as other:
        other.bind(str(path))
        if kind == socket.SOCK_SEQPACKET:
            other.listen()
        config = configs.egress(certificates, tmp_path, configs.Ports(), **{"admin.listen": str(path)})
        status, said = start_another(tmp_path, config)
        assert status == 1 and f"[admin.listen] {path}: Address already in use" in said, said
        with socket.socket(socket.AF_UNIX, kind) as visitor:
            visitor.connect(str(path))


def test_a_token_that_is_not_written_is_a_failure():
    with open("/dev/full", "w") as full:
        made = subprocess.run([process.BUILD / "twohop", "token", "new", "carol"], env=process.environment(), stdout=full,
                              stderr=subprocess.PIPE, text=True, timeout=20)
    assert made.returncode == 1 and "No space left on device" in made.stderr, made


@pytest.mark.parametrize(("given", "mode"), [({}, 0o660), ({"admin.mode": "0666"}, 0o666)])
def test_the_mode_of_an_admin_socket(egress, tmp_path, given, mode):
    path = tmp_path / "admin.sock"
    egress(**{"admin.listen": str(path)}, **given)
    assert path.stat().st_mode & 0o777 == mode


def test_an_admin_socket_goes_with_its_process(egress, tmp_path):
    """Unless its path has become another's meanwhile."""
    path = tmp_path / "admin.sock"
    first = egress(**{"admin.listen": str(path)})
    assert path.is_socket()
    first.stop()
    assert not path.exists()
    second = egress(**{"admin.listen": str(path)})
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        second.stop()
        assert path.is_socket()


def test_an_admin_address_of_the_living_is_named(egress, certificates, tmp_path):
    config = configs.egress(certificates, tmp_path, configs.Ports(), **{"admin.listen": f"127.0.0.1:{egress().at.admin}"})
    status, said = start_another(tmp_path, config)
    assert status == 1 and f"{config['admin.listen']}: Address already in use" in said, said


def test_a_restart_at_once(egress, relay, tcp_echo):
    """After a death with connections open: what is left of those does not keep the ports."""
    first = egress()
    with http1.Connection(first.at.clear) as connection:
        assert connection.connect(tcp_echo.authority, AUTH_LINE)[0] == 200
        connection.send(b"x")
        first.kill()
        again = relay(first.config)
        with vitals.Bystander(first.at.clear, tcp_echo):
            pass
        again.stop()
        relay(first.config)


# ---- log files ----

def access_log(folder, **more):
    return {"path": str(folder / "access.log"), "format": "%H %s %b %r"} | more


def lines(path, count):
    """That many lines, once they are there."""
    return vitals.wait(lambda: len(found := path.read_text().splitlines()) >= count and found, 5, f"line {count} of {path}")


def test_the_access_log(egress, certificates, tmp_path):
    relay = egress(**{"access-log": access_log(tmp_path)})
    path = tmp_path / "access.log"
    with http1.Connection(relay.at.clear) as connection:
        connection.body(connection.request("GET", "/large")[1])
        connection.request("HEAD", "/large")
        connection.body(connection.request("GET", "/none")[1])
    with http2.Connection(relay.at.tls, context=certificates.client_context(["h2"])) as connection:
        connection.read(connection.get("/large"), 1 << 20)

    async def over_http3():
        async with http3.client(relay.at.tls, certificates.ca) as client:
            stream = client.get("/large")
            await client.until(lambda: client.streams[stream].ended)
    asyncio.run(over_http3())
    first, head, missing, *rest = lines(path, 5)
    assert (first, head) == ("HTTP/1.1 200 1048576 GET /large HTTP/1.1", "HTTP/1.1 200 0 HEAD /large HTTP/1.1")
    assert missing.startswith("HTTP/1.1 404 ") and missing.split()[2] != "0"
    assert rest == ["HTTP/2 200 1048576 GET /large HTTP/2", "HTTP/3 200 1048576 GET /large HTTP/3"]
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.fixture
def open_folder():
    """One that every user may enter."""
    with tempfile.TemporaryDirectory() as name:
        pathlib.Path(name).chmod(0o755)
        yield pathlib.Path(name)


@pytest.mark.parametrize("user", [None, "nobody"])
def test_log_files_rotate_with_sighup(certificates, open_folder, user):
    """As root, and as a user to whom the folder belongs."""
    at, access, error = configs.Ports(), open_folder / "access.log", open_folder / "error.log"
    config = configs.egress(certificates, open_folder, at, **{"access-log": access_log(open_folder), "error-log": str(error)})
    if user:
        config["user"] = user
        config["listen"] = config["listen"][2:]  # such a user may not read the key again
        shutil.chown(open_folder, user)

    def get(path):
        with http1.Connection(at.clear) as connection:
            connection.body(connection.request("GET", path)[1])

    with process.Group(process.Relay, open_folder) as group:
        relay = group.start(config)
        get("/one")
        lines(access, 1)
        old = [path.rename(f"{path}.1") for path in (access, error)]
        relay.signal(signal.SIGHUP)
        vitals.wait(lambda: error.exists() and '"reloaded"' in error.read_text(), 5, "rotation")
        get("/two")
        assert lines(access, 1)[0].endswith("GET /two HTTP/1.1")
        assert len(lines(old[0], 1)) == 1 and '"ready"' in old[1].read_text()
        assert {path.stat().st_mode & 0o777 for path in (access, error)} == {0o640}
        assert {path.owner() for path in (access, error, *old)} == {user or "root"}


def test_a_link_does_not_give_a_file_away(certificates, open_folder):
    """The user may have put it where its log was."""
    others, error = open_folder / "others", open_folder / "error.log"
    others.touch()
    shutil.chown(open_folder, "nobody")
    error.symlink_to(others)
    config = configs.egress(certificates, open_folder, configs.Ports(), user="nobody", **{"error-log": str(error)})
    config["listen"] = config["listen"][2:]
    with process.Group(process.Relay, open_folder) as group:
        group.start(config)
        assert others.owner() == "root" and '"log_not_given"' in others.read_text()
        error.unlink()
        os.link(others, error)
    with process.Group(process.Relay, open_folder) as group:
        group.start(config, "again")
        assert others.owner() == "root"


# ---- tokens ----

def write_tokens(relay, *names):
    pathlib.Path(relay.config["auth.tokens"]).write_text(
        "".join(f"{name} {hashlib.sha256((name + '-secret-of-some-length').encode()).hexdigest()}\n" for name in names))


def secret(name):
    return f"Proxy-Authorization: Bearer {name}-secret-of-some-length"


def reload(relay):
    count = len(relay.events("reloaded"))
    relay.signal(signal.SIGHUP)
    vitals.wait(lambda: len(relay.events("reloaded")) > count, 5, "the reload")
    return relay.events("reloaded")[-1]


def test_a_revoked_token_has_no_tunnel(egress, tcp_echo, udp_echo):
    """TCP and UDP tunnels of a token that is not in the file any more end with SIGHUP; those of others live on."""
    relay = egress(**{"num-threads": 2})
    write_tokens(relay, "bob", "eve")
    assert reload(relay)["tokens"] == 2
    udp_path = f"/.well-known/masque/udp/{udp_echo.host}/{udp_echo.port}/"
    with http1.Connection(relay.at.clear) as bob, http1.Connection(relay.at.clear) as eve, \
            http1.Connection(relay.at.clear) as eve_udp, http2.Connection(relay.at.clear) as both:
        assert bob.connect(tcp_echo.authority, secret("bob"))[0] == 200
        assert eve.connect(tcp_echo.authority, secret("eve"))[0] == 200
        assert eve_udp.upgrade(udp_path, secret("eve"))[0] == 101
        streams = [both.connect(tcp_echo.authority, ("proxy-authorization", secret(name).split(": ")[1])) for name in ("bob", "eve")]
        assert [both.response(stream)[0] for stream in streams] == [200, 200]
        write_tokens(relay, "bob")
        event = reload(relay)
        assert event["tokens"] == 1 and "needs_restart" not in event
        assert eve.ended() and eve_udp.ended()
        both.wait(lambda: both.streams[streams[1]].reset is not None)
        both.send(streams[0], b"still here")
        assert both.read(streams[0], 10) == b"still here"
        bob.send(b"still here")
        assert bob.read(10) == b"still here"
    with http1.Connection(relay.at.clear) as eve:
        assert eve.connect(tcp_echo.authority, secret("eve"))[0] == 407
    vitals.wait(lambda: relay.vitals.tunnels() == 0, 5, "the end of the tunnels")
    assert sum(event["reason"] == "UNAUTHORIZED" for event in relay.events("tunnel_closed")) == 3


def test_the_last_token_is_revoked_by_a_line(egress, tcp_echo):
    """A file without any token, or half of one, is a mistake: the old tokens stay, and their tunnels."""
    relay = egress()
    file, path = pathlib.Path(relay.config["auth.tokens"]), tcp_echo.authority
    alice = file.read_text()
    with http1.Connection(relay.at.clear) as open_one:
        assert open_one.connect(path, AUTH_LINE)[0] == 200
        for count, text in enumerate(("", "# nobody\n\n", alice[:20], alice + "none\n"), 1):
            file.write_text(text)
            relay.signal(signal.SIGHUP)
            vitals.wait(lambda: len(relay.events("reload_failed")) == count, 5, "the failed reload")
            reason = relay.events("reload_failed")[-1]["reason"]
            assert re.match(rf"{relay.path}:[0-9]+:[0-9]+: \[auth.tokens\] {file}:[12]:[0-9]+: expected ", reason), reason
            open_one.send(b"still here")
            assert open_one.read(10) == b"still here"
            with http1.Connection(relay.at.clear) as another:
                assert another.connect(path, AUTH_LINE)[0] == 200
        file.write_text("none\n")
        assert reload(relay)["tokens"] == 0
        assert open_one.ended()
    with http1.Connection(relay.at.clear) as late:
        assert late.connect(path, AUTH_LINE)[0] == 407


def test_a_start_without_tokens_is_warned_of(certificates, tmp_path):
    at = configs.Ports()
    config = configs.egress(certificates, tmp_path, at)
    configs.token_file(tmp_path, ())
    with process.Group(process.Relay, tmp_path) as group:
        relay = group.start(config)
        assert relay.wait_event("no_tokens")["level"] == "warning"
        tested = subprocess.run([process.BUILD / "twohop", "-t", "-c", relay.path], capture_output=True, text=True)
        assert tested.returncode == 0 and "says none" in tested.stderr
        pathlib.Path(config["auth.tokens"]).write_text(f"old {'0' * 64} expires=2020-01-01\n")
        assert reload(relay)["tokens"] == 1
        vitals.wait(lambda: len(relay.events("no_tokens")) == 2, 5, "the second warning")
        assert "expired" in relay.events("no_tokens")[1]["reason"]


def test_a_start_without_targets_is_warned_of(relay, certificates, tmp_path):
    """Only when neither directive lets one pass; by -t: tests/unit/command.py."""
    started = relay(configs.egress(certificates, tmp_path, configs.Ports(), allow=[]))
    assert started.wait_event("no_targets")["level"] == "warning"
    config = yaml.safe_load(started.path.read_text())
    started.path.write_text(yaml.safe_dump(config | {"hosts": {"default": {"paths": {"/": {"proxy.connect-udp": "ON"}}}}}))
    reload(started)
    assert len(started.events("no_targets")) == 1


def test_the_ready_line(egress, certificates):
    """It has the port that the kernel chose for port 0."""
    ssl = {"certificate-file": str(certificates.cert), "key-file": str(certificates.key)}
    relay = egress(listen=[{"host": "127.0.0.1", "port": 0}, {"host": "127.0.0.1", "port": 0, "type": "quic", "ssl": ssl},
                           {"host": "::1", "port": 0, "ssl": ssl}])
    event = relay.wait_event("ready")
    clear, quic, tls = event["listeners"]
    assert event["tokens"] == 1
    assert clear.startswith("clear 127.0.0.1:") and quic.startswith("quic 127.0.0.1:") and tls.startswith("tcp [::1]:")
    with http1.Connection(int(clear.rpartition(":")[2])) as connection:
        assert connection.request("GET", "/index.html")[0] == 200


# ---- headers ----

@pytest.mark.parametrize("more, server", [({}, None), ({"send-server-name": "ON"}, "twohop"), ({"send-server-name": "OFF"}, None),
                                          ({"server-name": "relay/1"}, "relay/1")])
def test_the_server_header(egress, more, server):
    relay = egress(**more)
    with http1.Connection(relay.at.clear) as connection:
        assert connection.request("GET", "/index.html")[1].get("server") == server


def test_headers_of_an_error_page_come_once(egress, tmp_path):
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "404.html").write_text("not here\n")
    relay = egress(hosts={"default": {"paths": {"/": {"file.dir": str(tmp_path / "www")}},
                                      "error-doc": {"status": 404, "url": "/404.html"},
                                      "header.add": "X-Once: yes"}})
    with http1.Connection(relay.at.clear) as connection:
        connection.send("GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = b""
        while not head.endswith(b"not here\n"):
            head += connection.read(1)
        assert head.startswith(b"HTTP/1.1 404 ")
        assert head.lower().count(b"x-once: yes\r\n") == 1


# ---- how tunnels end, in the log ----

def reasons(relay, count):
    vitals.wait(lambda: len(relay.events("tunnel_closed")) >= count, 5, "the log lines")
    return [event["reason"] for event in relay.events("tunnel_closed")]


class Target:
    """Accepts one connection at a time; a context manager."""

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(10)
        self.authority = f"127.0.0.1:{self._listener.getsockname()[1]}"
        return self

    def __exit__(self, *_):
        self._listener.close()

    def accept(self):
        connection, _ = self._listener.accept()
        connection.settimeout(10)
        return connection


def test_the_reasons_of_ends_over_http1(egress):
    relay = egress()
    with Target() as target:
        def tunnel():
            client = http1.Connection(relay.at.clear)
            assert client.connect(target.authority, AUTH_LINE)[0] == 200
            return client, target.accept()
        client, server = tunnel()  # both have said all
        client.socket.shutdown(socket.SHUT_WR)
        assert server.recv(10) == b""
        server.close()
        assert client.read_all() == b""
        client.close()
        assert reasons(relay, 1) == ["OK"]
        client, server = tunnel()  # the client has closed its socket, the target says goodbye to nobody
        client.close()
        assert server.recv(10) == b""
        for _ in range(100):
            time.sleep(0.01)
            with contextlib.suppress(OSError):
                server.send(b"bye")
        server.close()
        assert reasons(relay, 2)[1] == "OK"
        client, server = tunnel()
        client.reset()
        with pytest.raises(ConnectionResetError):
            server.recv(10)
        assert reasons(relay, 3)[2] == "CANCELLED"
        client, server = tunnel()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.close()
        with pytest.raises(ConnectionResetError):
            client.read_all()
        assert reasons(relay, 4)[3] == "RESET"


def test_the_reasons_of_ends_over_http2(egress, udp_echo):
    relay = egress()
    with Target() as target, http2.Connection(relay.at.clear) as client:
        stream = client.connect(target.authority, ("proxy-authorization", configs.BEARER))
        assert client.response(stream)[0] == 200
        server = target.accept()
        client.send(stream, b"all", end=True)
        assert server.recv(10) == b"all" and server.recv(10) == b""
        client.reset(stream)
        assert reasons(relay, 1) == ["OK"]
        udp = client.connect_udp(f"/.well-known/masque/udp/{udp_echo.host}/{udp_echo.port}/", ("proxy-authorization", configs.BEARER))
        assert client.response(udp)[0] == 200
        client.reset(udp)
        assert reasons(relay, 2)[1] == "CANCELLED"
