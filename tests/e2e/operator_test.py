"""What an operator reads off a relay and asks of it: figures, refusals at start, log files, tokens."""
import asyncio
import json
import subprocess

import pytest
import yaml

from harness import configs, http1, http2, http3, ports, process, vitals

AUTH_LINE = f"Proxy-Authorization: {configs.BEARER}"


@pytest.fixture
def egress(relay, certificates, tmp_path):
    """start(**more directives): an egress; at: its ports, vitals: its vital signs."""
    def start(**more):
        at = configs.Ports()
        started = relay(configs.egress(certificates, tmp_path, at, **more))
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
    assert metrics['twohop_bytes_total{direction="to_target"}'] == 300000
    assert metrics['twohop_bytes_total{direction="to_client"}'] == 300000


def test_lost_log_lines_are_counted(egress):
    """/dev/full takes none."""
    relay = egress(**{"error-log": "/dev/full"})
    lost = relay.vitals.metrics()["twohop_log_lines_dropped_total"]
    assert lost >= 1
    assert json.loads(relay.admin_get("/status.json")[1])["log_lines_dropped"] == lost


def test_the_admin_listener(egress):
    relay = egress()
    before = relay.vitals.metrics()
    with http1.Connection(relay.at.admin) as connection:
        for path in ("/metrics", "/status.json", "/healthz", "/nothing"):
            status, fields = connection.request("GET", path)
            body = connection.body(fields)
            assert status == (404 if path == "/nothing" else 200) and body.endswith(b"\n") and b"\n\n" not in body
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

def start_another(folder, config, name="another"):
    """(exit status, what it said) of a process that is expected to end at once."""
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    ended = subprocess.run([process.BUILD / "twohop", "-c", path], env=process.environment(), capture_output=True, text=True,
                           timeout=20)
    assert not process.REPORT.search(ended.stderr), ended.stderr
    return ended.returncode, ended.stderr


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


def test_an_admin_socket_of_the_living_is_not_taken(egress, relay, certificates, tmp_path):
    path = tmp_path / "admin.sock"
    first = egress(**{"admin.listen": str(path)})
    config = configs.egress(certificates, tmp_path, configs.Ports(), **{"admin.listen": str(path)})
    status, said = start_another(tmp_path, config)
    assert status == 1 and "admin.listen" in said and "in use" in said, said
    first.kill()
    assert path.exists()
    relay(config)


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
