"""What logs and metrics give away, and what guessers reach (T66, T70 to T72)."""
import json
import os
import re
import threading

import pytest

from harness import capsule, configs, dns, http1, http2, vitals

AUTH = ("proxy-authorization", configs.BEARER)
AUTH_LINE = f"Proxy-Authorization: {configs.BEARER}"
GUESS = "a-guess-that-is-wrong-4711"


@pytest.fixture
def egress(relay, certificates, tmp_path):
    def start(**more):
        at = configs.Ports()
        started = relay(configs.egress(certificates, tmp_path, at, **({"num-threads": 2, "log-level": "debug"} | more)))
        started.at, started.vitals = at, vitals.Vitals(started)
        return started
    return start


@pytest.fixture
def name_server():
    with dns.Server({}) as server:
        yield server


def udp_path(target):
    return f"/.well-known/masque/udp/{target.host}/{target.port}/"


def udp_path_of(port):
    return f"/.well-known/masque/udp/127.0.0.1/{port}/"


EVIL = [b"a\x1b[31mred", b"a\"b", b"a\\nb", b"a\tb", b"\xff\xfe\x80", "\u202egro".encode(), b"x" * 10000, b"{\"event\":\"ready\"}",
        b"%0d%0aInjected: 1", b"a\rb", b"a\nb", b"a\0b", b"${jndi:ldap://x}", b"%s%n%x"]


def test_nobody_writes_into_the_log(egress, tcp_echo, name_server):
    relay = egress(**{"resolver.servers": [name_server.address]})
    with vitals.Bystander(relay.at.clear, tcp_echo):
        for evil in EVIL:
            for head in (b"CONNECT " + evil + b":443 HTTP/1.1\r\nHost: " + evil + b":443\r\n" + AUTH_LINE.encode() + b"\r\n\r\n",
                         b"GET /" + evil + b" HTTP/1.1\r\nHost: a\r\nUser-Agent: " + evil + b"\r\n\r\n",
                         b"GET / HTTP/1.1\r\nHost: " + evil + b"\r\nProxy-Authorization: Bearer " + evil + b"\r\n\r\n",
                         evil + b" / HTTP/1.1\r\n\r\n"):
                with http1.Connection(relay.at.clear) as connection:
                    connection.send(head)
                    connection.head()
            with http2.Connection(relay.at.clear) as connection:
                try:
                    stream = connection.open([(b":method", b"CONNECT"), (b":authority", evil + b":443"), AUTH, (b"user-agent", evil)])
                    connection.response(stream, 3)
                except (ConnectionError, AssertionError):
                    pass
        relay.signal(1)
        relay.wait_event("reloaded")
    lines = relay.log.splitlines()
    assert lines
    for line in lines:
        assert len(line) <= 4096 and not re.search(r"[\x00-\x1f\x7f]", line), line
        assert isinstance(json.loads(line), dict), line
    assert len(relay.events("ready")) == 1


def test_no_secret_in_the_access_log(egress, certificates, tmp_path):
    """Its format asks for them, and what is refused before any handler is asked is logged too."""
    path = tmp_path / "access"
    relay = egress(**{"access-log": {"path": str(path), "format": '%s "%r" %V %{Proxy-Authorization}i %{Authorization}i %{Host}i'}})
    both = [f"Proxy-Authorization: {configs.BEARER}", f"Authorization: {configs.BEARER}"]
    ways = [("GET", "http://example.org/", 421), ("GET", f"http://u:{configs.TOKEN}@example.org/", 400), ("GET", "/%00x", 400),
            ("POST", "/index.html", 413), ("GET", "/index.html", 200), ("CONNECT", "127.0.0.1:0", 400), ("GET", udp_path_of("0"), 404)]
    for method, target, expected in ways:
        with http1.Connection(relay.at.clear) as connection:
            fields = both + (["Content-Length: 99999999"] if method == "POST" else [])
            assert connection.request(method, target, *fields)[0] == expected, target
    with http2.Connection(relay.at.tls, context=certificates.client_context(["h2"])) as connection:
        for scheme, target in ((b"http", b"/"), (b"https", b"/%00x"), (b"https", b"/index.html")):
            stream = connection.open([(b":method", b"GET"), (b":scheme", scheme), (b":authority", b"example.org"), (b":path", target),
                                      AUTH, ("authorization", configs.BEARER)], end=True)
            connection.response(stream)
    text = vitals.wait(lambda: [text for text in [path.read_text()] if text.count("\n") >= 8])[0]
    assert {line[:3] for line in text.splitlines()} >= {"421", "400", "413", "200", "404"}, text
    assert configs.TOKEN not in text, text


SECRET = "secret-target.example"


@pytest.mark.parametrize("role", ["ingress", "egress"])
def test_no_target_in_the_access_log(relay, certificates, tmp_path, role):
    """Not when a tunnel's path comes as an ordinary request, under the default path or a template's, nor as a URL for a proxy."""
    path, at = tmp_path / "access", configs.Ports()
    more = {"access-log": {"path": str(path), "format": '%s "%r" %U %q %V "%{Referer}i" "%{User-Agent}i" "%{Location}o"'},
            "proxy.connect-udp.template": ["/.well-known/masque/udp/{target_host}/{target_port}/", "/other/{target_host}/{target_port}/",
                                           "/asked{?target_host,target_port}"]}
    if role == "egress":
        config = configs.egress(certificates, tmp_path, at, **more)
    else:
        config = configs.ingress(certificates, tmp_path, at, ["127.0.0.1:1"], **more)
    relay(config)
    paths = [f"/.well-known/masque/udp/{SECRET}/443/", f"/.well-known/masque/ip/{SECRET}/17/", f"/other/{SECRET}/443/",
             f"/asked?target_host={SECRET}&target_port=443", f"/asked?target_port=443&target_host={SECRET}",
             f"//x/../.well-known/%6dasque/udp/{SECRET}/443/"]
    fields = [f"Referer: https://{SECRET}/", "User-Agent: a"]
    count = 0
    for target in [*paths, f"http://{SECRET}/{SECRET}"]:
        for method, upgrade in (("GET", []), ("POST", []), ("GET", ["Connection: Upgrade", "Upgrade: connect-ip"])):
            with http1.Connection(at.clear) as connection:
                connection.request(method, target, *fields, *upgrade)
                count += 1
    with http2.Connection(at.tls, context=certificates.client_context(["h2"])) as connection:
        for target in paths:
            connection.response(connection.open([(":method", "GET"), (":scheme", "https"), (":authority", "relay.example"),
                                                 (":path", target), ("referer", f"https://{SECRET}/")], end=True))
        connection.response(connection.open([(":method", "GET"), (":scheme", "https"), (":authority", "relay.example"),
                                             (":path", "/ordinary?page"), ("user-agent", "b")], end=True))
    text = vitals.wait(lambda: [text for text in [path.read_text()] if "ordinary" in text])[0]
    lines = text.splitlines()
    assert SECRET not in text, text
    assert sum('"GET / HTTP/' in line or '"POST / HTTP/' in line for line in lines) == count + len(paths) == len(lines) - 1, text
    assert '"GET /ordinary?page HTTP/2" /ordinary ?page relay.example "-" "b"' in lines[-1], text


def test_tunnels_are_not_in_the_access_log(egress, certificates, tmp_path, tcp_echo):
    """Refused ones neither, which would show their clients' addresses and times."""
    path = tmp_path / "access"
    relay = egress(**{"access-log": str(path)})
    for expected, target, fields in ((407, tcp_echo.authority, []), (403, "192.0.2.1:25", [AUTH_LINE]), (200, tcp_echo.authority, [AUTH_LINE])):
        with http1.Connection(relay.at.clear) as connection:
            assert connection.connect(target, *fields)[0] == expected
    for expected, target, fields in ((401, udp_path(tcp_echo), []), (400, "/ordinary", [AUTH_LINE])):
        with http1.Connection(relay.at.clear) as connection:
            assert connection.upgrade(target, *fields)[0] == expected
    with http2.Connection(relay.at.tls, context=certificates.client_context(["h2"])) as connection:
        assert connection.response(connection.connect(tcp_echo.authority))[0] == 407
        connection.response(connection.get("/last"))
    text = vitals.wait(lambda: [text for text in [path.read_text()] if "/last" in text])[0]
    assert text.count("\n") == 1, text


def common(logs):
    """What two logs of JSON lines share by which lines of one tunnel could be found: values that are the same at both, other
    than words of our own and times of a whole minute."""
    values = [set(), set()]
    for log, found in zip(logs, values, strict=True):
        for line in log.splitlines():
            item = json.loads(line)
            if item["event"] in ("ready", "listening", "draining", "ended"):  # of the process
                continue
            found |= {(key, value) for key, value in item.items() if key not in ("time", "level", "event", "method", "reason")}
            found.add(("time", item["time"][:19]))
    return {(key, value) for key, value in values[0] & values[1] if not (key == "time" and value.endswith(":00"))}


def test_two_logs_joined_give_no_pair(relay, certificates, tmp_path, tcp_echo, udp_echo):
    """ingress -> egress -> target, each way: the egress names no client, the ingress no target, neither a token; and no line
    of the one belongs to a line of the other by its time, its sizes or a name."""
    hops = {}
    for role in ("egress", "ingress"):
        folder = tmp_path / role
        folder.mkdir()
        at = configs.Ports()
        if role == "egress":
            config = configs.egress(certificates, folder, at, peers=["127.0.0.0/8"], **{"num-threads": 2})
        else:
            config = configs.ingress(certificates, folder, at, [f"127.0.0.1:{hops['egress'].at.tls}"], **{"num-threads": 2})
        hops[role] = relay(config, name=role)
        hops[role].at, hops[role].vitals = at, vitals.Vitals(hops[role])
    ingress, egress = hops["ingress"], hops["egress"]
    clients = []

    def through(request):
        """TLS to the egress inside a CONNECT at the ingress."""
        with http1.Connection(ingress.at.clear) as outer:
            clients.append(outer.socket.getsockname()[1])
            assert outer.connect(f"127.0.0.1:{egress.at.tls}", AUTH_LINE)[0] == 200
            inner = http1.Connection.__new__(http1.Connection)
            inner.socket = certificates.client_context(["http/1.1"]).wrap_socket(outer.socket, server_hostname="localhost")
            inner._buffer = b""
            request(inner)
            outer.socket = inner.socket

    def tcp(inner):
        assert inner.connect(f"localhost:{tcp_echo.port}", AUTH_LINE)[0] == 200
        inner.send(b"payload-of-the-user")
        assert inner.read(19) == b"payload-of-the-user"

    def udp(inner):
        assert inner.upgrade(udp_path(udp_echo), AUTH_LINE)[0] == 101
        inner.send(capsule.datagram(b"payload-of-the-user"))
        inner.read(4)

    def wrong(inner):
        assert inner.connect(f"localhost:{tcp_echo.port}", f"Proxy-Authorization: Bearer {GUESS}")[0] == 407

    for request in (tcp, udp, wrong):
        through(request)
    with http1.Connection(egress.at.clear) as connection:
        clients.append(connection.socket.getsockname()[1])
        assert connection.connect(f"localhost:{tcp_echo.port}", AUTH_LINE)[0] == 200
    for hop in (ingress, egress):
        vitals.wait(lambda: hop.vitals.tunnels() == 0)
        hop.stop()
    assert not common([ingress.log, egress.log]), (ingress.log, egress.log)
    for hop, secrets in ((ingress, [str(tcp_echo.port), str(udp_echo.port), "localhost"]),
                         (egress, [str(tcp_echo.port), str(udp_echo.port), "localhost:", "127.0.0.1:"])):
        text = "\n".join(line for line in hop.log.splitlines() if '"event":"listening"' not in line)
        for secret in [*secrets, *map(str, clients), configs.TOKEN, GUESS, "alice", "payload-of", "Bearer"]:
            assert not re.search(rf"(?<!\d){re.escape(secret)}(?!\d)", text), (hop.name, secret, text)


def test_no_secret_in_metrics_and_no_series_from_a_peer(egress, tcp_echo, name_server):
    relay = egress(**{"resolver.servers": [name_server.address], "auth.failures-per-minute": 100000, "auth.failures-per-minute-global": 100000})
    with vitals.Bystander(relay.at.clear, tcp_echo):
        before = set(relay.vitals.metrics())
        with http2.Connection(relay.at.clear) as connection:
            connection.step()
            for block in range(20):
                streams = [connection.open([(":method", "CONNECT"), (":authority", f"odd-{block}-{i}.invalid.:{i + 1}"), AUTH,
                                            ("user-agent", os.urandom(8).hex())]) for i in range(50)]
                streams += [connection.open([(":method", f"M{i}"), (":scheme", "http"), (":path", f"/{block}/{i}"),
                                             (":authority", f"h{i}")], end=True) for i in range(40)]
                for stream in streams:
                    connection.response(stream)
        for i in range(20):
            with http1.Connection(relay.at.clear) as connection:
                connection.connect(tcp_echo.authority, f"Proxy-Authorization: Bearer {GUESS}{i}")
        assert set(relay.vitals.metrics()) == before
        for page in ("/metrics", "/status.json"):
            text = relay.admin_get(page)[1]
            for secret in (configs.TOKEN, GUESS, "alice", "odd-", str(tcp_echo.port), "127.0.0.1"):
                assert not re.search(rf"(?<!\d){secret}(?!\d)", text), (page, secret)
    with open(f"/proc/{relay.pid}/cmdline") as file:
        assert configs.TOKEN not in file.read()
    assert GUESS not in relay.log and configs.TOKEN not in relay.log


def test_one_guesser_behind_an_ingress_disturbs_nobody(relay, certificates, tmp_path, tcp_echo):
    """At the egress all come from one address: peers. One guesses, the others' good tokens always pass (T66)."""
    users = [(f"user{i}", f"the-secret-of-user-{i}-is-long") for i in range(50)]
    at = configs.Ports()
    config = configs.egress(certificates, tmp_path, at, peers=["127.0.0.0/8"],
                            **{"num-threads": 2, "auth.failures-per-minute-global": 100})
    configs.token_file(tmp_path, users)
    started = relay(config)
    started.vitals = vitals.Vitals(started)
    guesses, ended, wrong = [], threading.Event(), []

    def guess():
        while not ended.is_set():
            with http1.Connection(at.clear) as connection:
                guesses.append(connection.connect(tcp_echo.authority, f"Proxy-Authorization: Bearer {GUESS}")[0])

    guesser = threading.Thread(target=guess)
    guesser.start()
    for round in range(6):
        for _, secret in users:
            with http1.Connection(at.clear) as connection:
                status, _ = connection.connect(tcp_echo.authority, f"Proxy-Authorization: Bearer {secret}")
                if status != 200:
                    wrong.append((secret, status))
    # who forgot the token, or lost it, is still told so and not locked out for the guesser's sake
    with http1.Connection(at.clear) as connection:
        assert connection.connect(tcp_echo.authority)[0] == 407
    ended.set()
    guesser.join()
    assert not wrong, wrong[:5]
    assert guesses[0] == 407 and guesses[-1] == 429, (guesses[0], guesses[-1], len(guesses))
    assert started.vitals.metrics()['twohop_auth_total{result="ok"}'] >= 300
    assert GUESS not in started.log


def test_observations_are_announced_and_a_reload_ends_them(egress, tcp_echo):
    relay = egress(**{"debug.observe": "ON"})
    assert relay.wait_event("observing")["seconds_left"] in range(3590, 3601)

    def tunnel():
        with http1.Connection(relay.at.clear) as connection:
            assert connection.connect(tcp_echo.authority, AUTH_LINE)[0] == 200

    tunnel()
    assert relay.wait_event("observe")["target"] == tcp_echo.authority
    relay.path.write_text(relay.path.read_text().replace("debug.observe: 'ON'", "debug.observe: 'OFF'"))
    relay.signal(1)
    relay.wait_event("reloaded")
    seen = len(relay.events("observe"))
    vitals.wait(lambda: relay.vitals.tunnels() == 0)
    tunnel()
    assert len(relay.events("observe")) == seen
