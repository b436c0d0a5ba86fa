"""Limits that hold for a token or a source, and not for each worker or connection (T51, T66). Four workers."""
import asyncio
import contextlib
import hashlib
import signal
import socket
import threading
import time

import pytest

from harness import capsule, configs, http1, http2, http3, vitals

pytestmark = pytest.mark.xdist_group("load")  # one after the other: they measure time and load

AUTH = ("proxy-authorization", configs.BEARER)
BOB = "bob-secret-bob-secret-bob"
AUTH_LINE = f"Proxy-Authorization: {configs.BEARER}"


@pytest.fixture
def egress(relay, certificates, tmp_path):
    def start(prefix=(), **directives):
        at = configs.Ports()
        started = relay(configs.egress(certificates, tmp_path, at, **{"num-threads": 4, "limits.drain-seconds": 1} | directives),
                        prefix=prefix)
        started.at, started.vitals = at, vitals.Vitals(started)
        return started
    return start


def test_tunnels_of_a_token(egress, tcp_echo):
    relay = egress(**{"limits.tunnels-per-token": 8})
    with contextlib.ExitStack() as stack:
        def ask():
            connection = stack.enter_context(http1.Connection(relay.at.clear))
            return connection, connection.connect(tcp_echo.authority, AUTH_LINE)[0]
        answers = [ask() for _ in range(30)]
        granted = [connection for connection, status in answers if status == 200]
        assert len(granted) == 8 and {status for _, status in answers} == {200, 503}
        assert relay.vitals.metrics()['twohop_limited_total{limit="tunnels"}'] == 22
        for connection in granted[:3]:
            connection.close()
        vitals.wait(lambda: relay.vitals.tunnels() == 5)
        assert [ask()[1] for _ in range(10)].count(200) == 3


def test_descriptors_of_a_token(egress, tcp_echo, udp_echo):
    """Without a limit of tunnels a token gets half of the descriptors, and the others find some, on whatever worker."""
    relay = egress(prefix=["prlimit", "--nofile=512:512"])
    bob = f"Proxy-Authorization: Bearer {BOB}"
    with open(relay.config["auth.tokens"], "a") as file:
        file.write(f"bob {hashlib.sha256(BOB.encode()).hexdigest()}\n")
    relay.signal(signal.SIGHUP)
    vitals.wait(lambda: relay.vitals.metrics()['twohop_config_reloads_total{result="ok"}'] == 1)
    path = f"/.well-known/masque/udp/{udp_echo.host}/{udp_echo.port}/"
    with contextlib.ExitStack() as stack:
        old = stack.enter_context(http1.Connection(relay.at.clear))
        assert old.request("HEAD", "/index.html")[0] == 200
        answers = []
        for _ in range(8):
            connection = stack.enter_context(http2.Connection(relay.at.clear))
            assert connection.response(connection.get("/index.html"))[0] == 200
            streams = [connection.connect_udp(path, AUTH) if i % 2 else connection.connect(tcp_echo.authority, AUTH) for i in range(75)]
            answers += [connection.response(stream) for stream in streams]
        refused = [fields["proxy-status"] for status, fields in answers if status == 503]
        assert [status for status, _ in answers].count(200) == 248 and len(refused) == 600 - 248  # half of 512 but the operator's 16
        assert all("connection_limit_reached" in field for field in refused)
        metrics = relay.vitals.metrics()
        assert metrics['twohop_limited_total{limit="tunnels"}'] == len(refused)
        assert metrics['twohop_limited_total{limit="descriptors"}'] == 0
        assert old.connect(tcp_echo.authority, bob)[0] == 200
        for _ in range(20):
            assert stack.enter_context(http1.Connection(relay.at.clear)).connect(tcp_echo.authority, bob)[0] == 200
    vitals.wait(lambda: relay.vitals.tunnels() == 0)
    with http1.Connection(relay.at.clear) as connection:
        assert connection.connect(tcp_echo.authority, AUTH_LINE)[0] == 200


def test_descriptors_of_a_source(relay, certificates, tmp_path, tcp_echo):
    """The same without tokens, where a source is who asks."""
    at = configs.Ports()
    config = configs.egress(certificates, tmp_path, at, **{"num-threads": 4, "auth": "off"})
    del config["auth.tokens"]
    started = relay(config, prefix=["prlimit", "--nofile=512:512"])
    with contextlib.ExitStack() as stack:
        def ask(count, source):
            connection = stack.enter_context(http2.Connection(at.clear, source=source))
            answers = [connection.response(stream) for stream in [connection.connect(tcp_echo.authority) for _ in range(count)]]
            return [status for status, _ in answers].count(200)
        assert sum(ask(75, "127.0.0.2") for _ in range(8)) == 248
        assert vitals.Vitals(started).metrics()['twohop_limited_total{limit="tunnels"}'] == 600 - 248
        assert ask(20, "127.0.0.3") == 20 and ask(20, "127.0.0.4") == 20
        assert ask(1, "127.0.0.2") == 0


def test_connections_of_a_source(egress):
    relay = egress(**{"limits.connections-per-source": 8})
    with contextlib.ExitStack() as stack:
        def ask():
            connection = stack.enter_context(http1.Connection(relay.at.clear))
            with contextlib.suppress(ConnectionError):
                return connection, connection.request("GET", "/index.html")[0]
            return connection, None
        answers = [ask() for _ in range(40)]
        granted = [connection for connection, status in answers if status == 200]
        assert len(granted) == 8 and {status for _, status in answers} == {200, None}
        assert relay.vitals.metrics()['twohop_limited_total{limit="connections"}'] == 32
        held = relay.vitals.descriptors()
        for connection in granted[:3]:
            connection.close()
        vitals.wait(lambda: relay.vitals.descriptors() <= held - 3)
        assert [ask()[1] for _ in range(10)].count(200) == 3
    closed = relay.events("connections_closed")
    assert [(line["limit"], line["count"]) for line in closed] == [("limits.connections-per-source", 1)]
    assert "127.0.0.1" not in map(str, closed[0].values())


def test_failed_attempts_of_a_source(egress, tcp_echo):
    relay = egress(**{"auth.failures-per-minute": 20})
    statuses = []
    at = time.monotonic()
    for _ in range(40):
        with http1.Connection(relay.at.clear) as connection:
            statuses.append(connection.connect(tcp_echo.authority, "Proxy-Authorization: Bearer guess")[0])
    earned = int((time.monotonic() - at) / 3) + 1  # one more in three seconds
    assert set(statuses) == {407, 429} and 20 <= statuses.count(407) <= 20 + earned, statuses
    with http1.Connection(relay.at.clear) as connection:
        assert connection.connect(tcp_echo.authority, AUTH_LINE)[0] == 200


class Sink:
    """A UDP target that answers each peer's first datagram and counts all. A context manager."""

    def __init__(self):
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.packets = self.bytes = 0
        self._peers = set()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._socket.sendto(b"end", self._socket.getsockname())
        self._thread.join(5)
        self._socket.close()

    def _run(self):
        while True:
            data, peer = self._socket.recvfrom(65536)
            if data == b"end":
                return
            if peer in self._peers:
                self.packets += 1
                self.bytes += len(data)
            else:
                self._peers.add(peer)
                self._socket.sendto(b"answer", peer)


class Flood(threading.Thread):
    """Sends all the time by one connection; begins at start()."""

    def __init__(self, connection, payload, end):
        super().__init__(daemon=True)
        self.sent = 0
        self._connection, self._payload, self._end = connection, payload, end

    def run(self):
        while not self._end.is_set():
            self._connection.send(capsule.datagram(self._payload) * 20)
            self.sent += 20
            time.sleep(0.005)


def udp_path(port):
    return f"/.well-known/masque/udp/127.0.0.1/{port}/"


@pytest.mark.parametrize("limit, size", [("packets", 100), ("bytes", 1000)])
def test_datagrams_of_a_token(egress, limit, size):
    """Eight connections on four workers send 4000 datagrams a second each: what passes is what one token may."""
    rate = 3000 if limit == "packets" else 3000 * size
    relay = egress(**{f"limits.udp-{limit}-per-token": rate})
    end = threading.Event()
    with Sink() as sink, contextlib.ExitStack() as stack:
        floods = []
        for _ in range(8):
            connection = stack.enter_context(http1.Connection(relay.at.clear))
            assert connection.upgrade(udp_path(sink.port), AUTH_LINE)[0] == 101
            connection.send(capsule.datagram(b"first"))
            assert connection.read(2)
            floods.append(Flood(connection, bytes(size), end))
        time.sleep(0.5)
        at = time.monotonic()
        for flood in floods:
            flood.start()
        time.sleep(3)
        end.set()
        for flood in floods:
            flood.join()
        took = time.monotonic() - at
        sent = sum(flood.sent for flood in floods)
        dropped = 'twohop_dropped_total{reason="token_rate"}'
        series = 'twohop_datagrams_total{direction="to_target"}'
        vitals.wait(lambda: (m := relay.vitals.metrics())[series] + m[dropped] == sent + 8)
        passed = relay.vitals.metrics()[series] - 8
        vitals.wait(lambda: sink.packets == passed, 5, f"{sink.packets} of {passed} datagrams")
        assert sent > 3 * 3000 * (took + 1), "the flood is no flood"
        assert 3000 * (took + 0.5) <= passed <= 3000 * (took + 1) * 1.02, (passed, took)


def test_datagrams_of_a_token_over_http3(egress, certificates):
    """New tunnels and connections, and targets that never answer, give no new allowance."""
    relay = egress(**{"limits.udp-packets-per-token": 200, "limits.udp-unanswered-burst": 1000,
                      "limits.udp-unanswered-rate": 100000})

    async def run(port):
        for _ in range(4):
            async with http3.client(relay.at.tls, certificates.ca) as client:
                streams = [client.connect_udp(udp_path(port), AUTH) for _ in range(3)]
                for stream in streams:
                    assert (await client.response(stream))[0] == 200
                for stream in streams:
                    for _ in range(100):
                        client.send_datagram(stream, bytes(51))
                await asyncio.sleep(0.1)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        at = time.monotonic()
        asyncio.run(run(silent.getsockname()[1]))
        most = 200 * (time.monotonic() - at + 1.1)
        metrics = relay.vitals.metrics()
        passed = metrics['twohop_datagrams_total{direction="to_target"}']
        assert 200 <= passed <= most, (passed, most)
        assert metrics['twohop_dropped_total{reason="token_rate"}'] > 300
