"""Floods and stalled peers: what they cost the relay, and that nobody else waits (T10 to T13, T20, T22, T37, T39, T40, T76)."""
import asyncio
import contextlib
import os
import select
import selectors
import socket
import ssl
import struct
import threading
import time

import h2.settings
import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from harness import capsule, configs, http1, http2, http3, process, vitals
from harness.vitals import LEAN, Watch

pytestmark = pytest.mark.xdist_group("load")  # one after the other: they measure time and load

AUTH = ("proxy-authorization", configs.BEARER)
AUTH_LINE = f"Proxy-Authorization: {configs.BEARER}"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MIB = 1 << 20


@pytest.fixture
def egress(relay, certificates, tmp_path):
    def start(prefix=(), build=process.BUILD, **more):
        at = configs.Ports()
        directives = {"num-threads": 2, "limits.connections-per-source": 5000} | more
        started = relay(configs.egress(certificates, tmp_path, at, **directives), prefix=prefix, build=build)
        started.at, started.vitals = at, vitals.Vitals(started)
        return started
    return start


def is_open(one):
    """Of a socket that the relay says nothing on."""
    one.setblocking(False)
    try:
        return one.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def udp_path(port):
    return f"/.well-known/masque/udp/127.0.0.1/{port}/"


# ---- HTTP/2 floods (T10 to T13) ----

def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + struct.pack("!I", stream) + payload


def literal(name, value):
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def request(authority):
    return b"".join(literal(*pair) for pair in ((b":method", b"CONNECT"), (b":authority", authority.encode()),
                                                  (b"proxy-authorization", configs.BEARER.encode())))


def rapid_reset(target):
    block = request(target)
    for stream in range(1, 40001, 2):
        yield frame(1, 4, stream, block) + frame(3, 0, stream, struct.pack("!I", 8))


def made_you_reset_by_window(target):
    block = request(target)
    for stream in range(1, 8001, 2):
        yield frame(1, 4, stream, block) + frame(8, 0, stream, struct.pack("!I", 0))


def made_you_reset_by_overflow(target):
    block = request(target)
    for stream in range(1, 8001, 2):
        yield frame(1, 4, stream, block) + frame(8, 0, stream, struct.pack("!I", 0x7FFFFFFF))


def made_you_reset_by_priority(target):
    block = request(target)
    for stream in range(1, 8001, 2):
        yield frame(1, 4, stream, block) + frame(2, 0, stream, b"\0")


def continuations(target):
    yield frame(1, 0, 1, literal(b":method", b"GET"))
    for _ in range(50000):
        yield frame(9, 0, 1)


def pings(target):
    for i in range(200000):
        yield frame(6, 0, 0, struct.pack("!Q", i))


def settings(target):
    for _ in range(100000):
        yield frame(4, 0, 0, struct.pack("!HI", 3, 100))


def empty_data(target):
    yield frame(1, 4, 1, request(target))
    for _ in range(200000):
        yield frame(0, 0, 1)


def priorities(target):
    for _ in range(100000):
        yield frame(2, 0, 1, struct.pack("!IB", 0, 16))


def window_updates(target):
    for _ in range(100000):
        yield frame(8, 0, 0, struct.pack("!I", 1))


def unknown_frames(target):
    for _ in range(200000):
        yield frame(0xBB, 0, 0, b"x")


def headers_of_nobody(target):
    yield frame(1, 4, 1, literal(b"bad name", b"x"))
    for _ in range(100000):
        yield frame(1, 4, 1, literal(b"a", b"b"))


def data_of_nobody(target):
    yield frame(1, 4, 1, b"".join(literal(*pair) for pair in ((b":method", b"CONNECT"), (b":authority", target.encode()))))
    for _ in range(200000):
        yield frame(0, 0, 1, b"x")


FLOODS = [rapid_reset, made_you_reset_by_window, made_you_reset_by_overflow, made_you_reset_by_priority, continuations, pings,
          settings, empty_data, priorities, window_updates, unknown_frames, headers_of_nobody, data_of_nobody]


def flood(port, frames, reads, seconds=8):
    """Sends until the relay closes. (bytes sent, bytes read, whether it closed)"""
    sent = got = 0
    with socket.create_connection(("127.0.0.1", port)) as one:
        one.settimeout(1)
        one.sendall(PREFACE + frame(4, 0, 0))
        deadline, batch, frames = time.monotonic() + seconds, b"", iter(frames)
        while time.monotonic() < deadline:
            while len(batch) < 32768 and (more := next(frames, None)):
                batch += more
            if not batch:
                reads = True  # all is sent: is this the end of it?
            readable, writable, _ = select.select([one] if reads else [], [one] if batch else [], [], 1)
            try:
                if readable:
                    data = one.recv(65536)
                    if not data:
                        return sent, got, True
                    got += len(data)
                if writable:
                    n = one.send(batch)
                    sent, batch = sent + n, batch[n:]
            except TimeoutError:
                continue
            except OSError:
                return sent, got, True
    return sent, got, False


@pytest.mark.parametrize("frames", FLOODS, ids=lambda frames: frames.__name__)
def test_http2_floods(egress, tcp_echo, frames):
    relay = egress()
    with Watch(relay, tcp_echo) as watch:
        cpu, rss = relay.vitals.cpu(), relay.vitals.rss()
        results = []
        attackers = [threading.Thread(target=lambda reads=reads: results.append(
            flood(relay.at.clear, frames(tcp_echo.authority), reads))) for reads in (True, False)]
        for attacker in attackers:
            attacker.start()
        for attacker in attackers:
            attacker.join()
        assert all(closed for _, _, closed in results), results
        assert relay.vitals.cpu() - cpu < 4
        assert relay.vitals.rss() - rss < 64 * MIB  # the sanitizer keeps what was freed
        assert watch.worst < 0.5, watch.worst
        vitals.wait(lambda: relay.vitals.tunnels() <= 1)
    assert len(tcp_echo.peers) < 1200


# ---- silent sockets (T02) ----

@pytest.mark.parametrize("limit, greeting", [("limits.connections", "TLS"), ("limits.connections", "clear"),
                                             ("limits.half-open-max", "TLS")])
def test_silent_sockets(egress, certificates, tcp_echo, limit, greeting):
    """They count from accept on, also those of an exempt source, and the oldest makes room for who does talk."""
    relay = egress(**{"num-threads": 1, "peers": ["127.0.0.0/8"], "limits.half-open-retry": 10, limit: 16})
    port = relay.at.tls if greeting == "TLS" else relay.at.clear
    with contextlib.ExitStack() as stack:
        tunnel = stack.enter_context(http1.Connection(relay.at.clear))
        assert tunnel.connect(tcp_echo.authority, AUTH_LINE)[0] == 200
        before = relay.vitals.descriptors()
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(300)]
        half_open = 15 if limit == "limits.connections" else 16  # the tunnel's is one, too
        vitals.wait(lambda: relay.vitals.metrics()['twohop_limited_total{limit="half_open"}'] == 300 - half_open)
        assert relay.vitals.metrics()["twohop_tcp_half_open"] == half_open
        assert relay.vitals.descriptors() - before <= half_open + 2
        assert [is_open(one) for one in silent] == [False] * (300 - half_open) + [True] * half_open
        for context in (None, certificates.client_context(["http/1.1"])):
            with http1.Connection(relay.at.tls if context else relay.at.clear, context=context) as connection:
                assert connection.request("GET", "/index.html")[0] == 200
        tunnel.send(b"still there")
        assert tunnel.read(11) == b"still there"
        assert relay.vitals.metrics()['twohop_limited_total{limit="connections"}'] == 0
    vitals.wait(lambda: relay.vitals.metrics()["twohop_tcp_half_open"] == 0)


def test_connections_of_a_worker(egress):
    """Of connections that are complete none makes room; what ends gives its place back."""
    relay = egress(**{"num-threads": 1, "limits.connections": 16})
    with contextlib.ExitStack() as stack:
        for _ in range(16):
            connection = stack.enter_context(http1.Connection(relay.at.clear))
            assert connection.request("GET", "/index.html")[0] == 200
        with socket.create_connection(("127.0.0.1", relay.at.clear)) as one:
            one.settimeout(5)
            assert one.recv(1) == b""
        assert relay.vitals.metrics()['twohop_limited_total{limit="connections"}'] == 1
    def served():
        with contextlib.suppress(AssertionError, OSError), http1.Connection(relay.at.clear) as connection:
            return connection.request("GET", "/index.html")[0] == 200
    vitals.wait(served)


# ---- stalled peers (T76) ----

class Pourer:
    """A target that sends `size` bytes on each connection, as fast as it may. A context manager."""

    def __init__(self, size):
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.authority = "127.0.0.1:%d" % self._listener.getsockname()[1]
        self._size, self._open = size, []

    def __enter__(self):
        self._listener.setblocking(False)
        self._running = True
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._running = False
        self._thread.join(5)
        for one in [*self._open, self._listener]:
            one.close()

    def _run(self):
        block, left, selector = bytes(65536), {}, selectors.DefaultSelector()
        selector.register(self._listener, selectors.EVENT_READ)
        while self._running:
            for key, _ in selector.select(0.1):
                one = key.fileobj
                if one is self._listener:
                    one, _ = self._listener.accept()
                    one.setblocking(False)
                    self._open.append(one)
                    left[one] = self._size
                    selector.register(one, selectors.EVENT_WRITE)
                    continue
                try:
                    left[one] -= one.send(block[:left[one]])
                except BlockingIOError:
                    pass
                except OSError:
                    left[one] = 0
                if left[one] == 0:
                    selector.unregister(one)
            time.sleep(0.001)
        selector.close()


COUNT = 60
# Bytes that a tunnel may cost that is stalled from its start; a sanitizer's allocator keeps what was freed on the way.
STALLED = 256 * 1024 if process.RELEASE else 512 * 1024


def memory_per_tunnel(relay, open_stalled):
    """Opens COUNT stalled tunnels and gives the bytes that each added."""
    before = relay.vitals.rss()
    with open_stalled():
        time.sleep(1.5)
        return (relay.vitals.rss() - before) / COUNT


def warm_up(relay, certificates, echo):
    """Every worker has used its scratch buffers to the full."""
    for i in range(12):
        context = certificates.client_context(["http/1.1"]) if i % 2 else None
        with http1.Connection(relay.at.tls if context else relay.at.clear, context=context) as connection:
            assert connection.connect(echo.authority, AUTH_LINE)[0] == 200
            for _ in range(16):  # no more at once than all buffers on the way take
                connection.send(bytes(MIB // 8))
                assert len(connection.read(MIB // 8)) == MIB // 8


@pytest.mark.parametrize("version", ["1.1", "1.1 TLS", "2", "2 TLS"])
def test_clients_that_do_not_read(egress, certificates, tcp_echo, version):
    relay = egress(LEAN, process.RELEASE or process.BUILD)
    context = certificates.client_context(["h2" if version[0] == "2" else "http/1.1"]) if "TLS" in version else None
    port = relay.at.tls if context else relay.at.clear
    with Pourer(10 * MIB) as target, Watch(relay, tcp_echo) as watch, contextlib.ExitStack() as stack:
        warm_up(relay, certificates, tcp_echo)

        @contextlib.contextmanager
        def stalled():
            if version[0] == "1":
                for _ in range(COUNT):
                    connection = stack.enter_context(http1.Connection(port, context=context))
                    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                    assert connection.connect(target.authority, AUTH_LINE)[0] == 200
            else:
                connection = stack.enter_context(http2.Connection(port, context=context))
                connection.step()
                connection.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0x7FFFFFFF})
                connection.h2.increment_flow_control_window(0x7FFFFFFF - 65535)
                connection.flush()
                for _ in range(COUNT):
                    connection.connect(target.authority, AUTH)  # and nothing is read any more
            yield

        each = memory_per_tunnel(relay, stalled)
        assert each < STALLED, each
        assert relay.vitals.load(1) < 0.5
        assert watch.worst < 0.5, watch.worst


@pytest.fixture
def narrow(network):
    """The test and what it starts are in a namespace whose kernel takes no megabytes for a target that does not read: sixty
    such tunnels would bring the machine's TCP under memory pressure. Must be the first fixture of its test."""
    host = network.host("narrow")
    host.run("sysctl", "-qw", "net.ipv4.tcp_wmem=4096 16384 131072")
    with host.inside():
        yield


@contextlib.contextmanager
def deaf_target():
    """A target that reads nothing; its authority."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(512)
        yield "127.0.0.1:%d" % listener.getsockname()[1]


def pour_http2(connection, streams):
    """Sends until no stream has had any credit for a while."""
    quiet = time.monotonic()
    while time.monotonic() - quiet < 1:
        for stream in streams:
            size = min(connection.h2.local_flow_control_window(stream), 16384)
            if size > 0:
                connection.h2.send_data(stream, bytes(size))
                connection.flush()
                quiet = time.monotonic()
        if select.select([connection.socket], [], [], 0.01)[0]:
            connection.step()


@pytest.mark.parametrize("version", ["1.1", "1.1 TLS", "2", "2 TLS"])
def test_targets_that_do_not_read(narrow, egress, certificates, tcp_echo, version):
    relay = egress(LEAN, process.RELEASE or process.BUILD)
    context = certificates.client_context(["h2" if version[0] == "2" else "http/1.1"]) if "TLS" in version else None
    port = relay.at.tls if context else relay.at.clear
    with deaf_target() as authority, Watch(relay, tcp_echo) as watch, contextlib.ExitStack() as stack:
        warm_up(relay, certificates, tcp_echo)

        @contextlib.contextmanager
        def stalled():
            if version[0] == "1":
                for _ in range(COUNT):
                    connection = stack.enter_context(http1.Connection(port, context=context))
                    assert connection.connect(authority, AUTH_LINE)[0] == 200
                    connection.socket.settimeout(0.05)
                    with contextlib.suppress(TimeoutError, ssl.SSLWantWriteError):
                        for _ in range(320):
                            connection.socket.send(bytes(65536))
            else:
                connection = stack.enter_context(http2.Connection(port, context=context))
                streams = [connection.connect(authority, AUTH) for _ in range(COUNT)]
                for stream in streams:
                    assert connection.response(stream)[0] == 200
                pour_http2(connection, streams)
            yield

        each = memory_per_tunnel(relay, stalled)
        assert each < STALLED, each
        assert relay.vitals.load(1) < 0.5
        assert watch.worst < 0.5, watch.worst


def test_http3_clients_that_do_not_read(egress, certificates, tcp_echo):
    relay = egress(LEAN, process.RELEASE or process.BUILD)

    async def run(target):
        warm_up(relay, certificates, tcp_echo)
        async with http3.client(relay.at.tls, certificates.ca, max_data=1 << 30) as client:
            grant, client._quic._write_stream_limits = client._quic._write_stream_limits, lambda **_: None
            before = relay.vitals.rss()
            streams = [client.connect_tcp(target.authority, AUTH) for _ in range(COUNT)]
            for stream in streams:
                assert (await client.response(stream))[0] == 200
            await asyncio.sleep(3)
            each = (relay.vitals.rss() - before) / COUNT
            assert each < STALLED, each
            flowing = client.connect_tcp(tcp_echo.authority, AUTH)
            assert (await client.response(flowing))[0] == 200
            client.send(flowing, b"flows")
            await client.until(lambda: client.streams[flowing].data == b"flows")
            client._quic._write_stream_limits = grant

    with Pourer(10 * MIB) as target, Watch(relay, tcp_echo) as watch:
        asyncio.run(run(target))
        assert watch.worst < 0.5, watch.worst


def test_http3_targets_that_do_not_read(narrow, egress, certificates, tcp_echo):
    relay = egress(LEAN, process.RELEASE or process.BUILD)

    async def run(authority):
        warm_up(relay, certificates, tcp_echo)
        async with http3.client(relay.at.tls, certificates.ca, max_data=1 << 30) as client:
            before = relay.vitals.rss()
            streams = [client.connect_tcp(authority, AUTH) for _ in range(COUNT)]
            for stream in streams:
                assert (await client.response(stream))[0] == 200
            for stream in streams:
                client.send(stream, bytes(MIB))
            credit = -1
            while credit != (credit := sum(client._quic._streams[stream].max_stream_data_remote for stream in streams)):
                await asyncio.sleep(1)
            assert credit < COUNT * MIB, "the streams do not stall"
            each = (relay.vitals.rss() - before) / COUNT
            assert each < STALLED, each
            flowing = client.connect_tcp(tcp_echo.authority, AUTH)
            assert (await client.response(flowing))[0] == 200
            client.send(flowing, b"flows")
            await client.until(lambda: client.streams[flowing].data == b"flows")

    with deaf_target() as authority, Watch(relay, tcp_echo) as watch:
        asyncio.run(run(authority))
        assert watch.worst < 0.5, watch.worst


# ---- datagrams and capsules (T37, T39, T40) ----

@pytest.mark.parametrize("payload", [b"", b"x"], ids=["empty", "one-byte"])
def test_a_hundred_thousand_tiny_datagrams(egress, tcp_echo, udp_echo, payload):
    relay = egress()
    with Watch(relay, tcp_echo) as watch, http1.Connection(relay.at.clear) as connection, \
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target:
        target.bind(("127.0.0.1", 0))
        target.settimeout(5)
        assert connection.upgrade(udp_path(target.getsockname()[1]), AUTH_LINE)[0] == 101
        connection.send(capsule.datagram(b"first"))
        target.sendto(b"answer", target.recvfrom(100)[1])
        connection.read(2)
        one = capsule.datagram(payload)
        for _ in range(10):
            connection.send(one * 10000)
        series = 'twohop_datagrams_total{direction="to_target"}'
        vitals.wait(lambda: relay.vitals.metrics()[series] == 100001, 10)
        assert watch.worst < 0.5, watch.worst
        got, _ = target.recvfrom(100)
        assert got == payload
        assert relay.vitals.load(0.5) < 0.2


def test_payload_sizes_at_the_limit(egress, udp_echo):
    relay = egress()
    for size, lives in ((65507, True), (65508, True), (65527, True), (65528, False), (100000, False)):
        with http1.Connection(relay.at.clear) as connection:
            assert connection.upgrade(udp_path(udp_echo.port), AUTH_LINE)[0] == 101
            connection.send(capsule.datagram(bytes(size)) + (capsule.datagram(b"after") if lives else b""))
            reader, found = capsule.Reader(), []
            with contextlib.suppress(ConnectionError):
                while not any(capsule.payload(value)[1] == b"after" for _, value in found):
                    data = connection.read(1)
                    if not data:
                        break
                    found += reader.feed(data)
            lengths = [len(value) - 1 for _, value in found]
            assert lengths == ([65507, 5] if size == 65507 else [5] if lives else []), (size, lengths)
    assert relay.vitals.metrics()['twohop_dropped_total{reason="target_too_big"}'] == 2


TINY = {"empty": b"\0\1\0", "one byte": b"\0\2\0x", "unknown": b"\x21\0"}


def pour_capsules_http1(port, path, target, capsules, count, end):
    """Sends on `count` tunnels as fast as the relay takes it."""
    with contextlib.ExitStack() as stack:
        left = {}
        for _ in range(count):
            connection = stack.enter_context(http1.Connection(port))
            assert connection.upgrade(path, AUTH_LINE)[0] == 101
            connection.send(capsule.datagram(b"first"))
            target.sendto(b"answer", target.recvfrom(100)[1])
            connection.socket.setblocking(False)
            left[connection.socket] = b""
        while time.monotonic() < end:
            for one in select.select([], left, [], 0.1)[1]:
                left[one] = left[one] or memoryview(capsules)
                left[one] = left[one][one.send(left[one]):]


def pour_capsules_http2(port, path, target, capsules, count, end):
    with http2.Connection(port) as connection:
        streams = [connection.connect_udp(path, AUTH) for _ in range(count)]
        for stream in streams:
            assert connection.response(stream)[0] == 200
            connection.send(stream, capsule.datagram(b"first"))
            target.sendto(b"answer", target.recvfrom(100)[1])
        while time.monotonic() < end:
            for stream in streams:
                size = min(connection.h2.local_flow_control_window(stream), 16380) // 12 * 12
                if size > 0:
                    connection.h2.send_data(stream, capsules[:size])
                    connection.flush()
            while select.select([connection.socket], [], [], 0.001)[0]:
                connection.step()


@pytest.mark.parametrize("version, count, kind", [("1.1", 1, "empty"), ("1.1", 20, "empty"), ("1.1", 20, "one byte"),
                                                  ("1.1", 20, "unknown"), ("2", 1, "empty"), ("2", 20, "one byte")])
def test_tiny_capsules(egress, tcp_echo, version, count, kind):
    """They cost their sender next to nothing, and a system call or the time of a datagram each here (T39)."""
    relay = egress(**{"num-threads": 1})
    pour = pour_capsules_http1 if version == "1.1" else pour_capsules_http2
    with Watch(relay, tcp_echo) as watch, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target:
        target.bind(("127.0.0.1", 0))
        target.settimeout(5)
        path, end = udp_path(target.getsockname()[1]), time.monotonic() + 4
        pour(relay.at.clear, path, target, TINY[kind] * 60000, count, end)
        times = sorted(watch.times)
        assert len(times) > 8 and times[len(times) // 2] < 0.3, times


def test_a_fast_target_and_a_slow_client(egress, tcp_echo):
    """200 MB of datagrams for a client that does not read: dropped in the kernel, RSS stays, the tunnel lives."""
    relay = egress(LEAN)
    with Watch(relay, tcp_echo) as watch, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target, \
            http2.Connection(relay.at.clear) as connection:
        target.bind(("127.0.0.1", 0))
        target.settimeout(5)
        udp = connection.connect_udp(udp_path(target.getsockname()[1]), AUTH)
        tcp = connection.connect(tcp_echo.authority, AUTH)
        assert connection.response(udp)[0] == 200 and connection.response(tcp)[0] == 200
        connection.send(udp, capsule.datagram(b"hello"))
        _, peer = target.recvfrom(100)
        rss = relay.vitals.rss()
        for _ in range(100):
            for _ in range(1000):
                target.sendto(bytes(1200), peer)
        assert relay.vitals.rss() - rss < 16 * MIB
        assert relay.vitals.load(1) < 0.2
        assert watch.worst < 0.5, watch.worst
        connection.send(tcp, b"alive")  # the datagrams' stream is stalled, the other is not
        assert connection.read(tcp, 5) == b"alive"


# ---- QUIC floods (T20, T22) ----

def initial(certificates):
    quic = QuicConnection(configuration=QuicConfiguration(is_client=True, alpn_protocols=["h3"], server_name="localhost",
                                                          cafile=str(certificates.ca)))
    quic.connect(("127.0.0.1", 1), now=0)
    return quic.datagrams_to_send(now=0)[0][0]


def test_a_flood_of_initials(egress, certificates, tcp_echo):
    """Retry from the 100th half-open handshake on; never more than three times the bytes that came."""
    relay = egress()
    with Watch(relay, tcp_echo) as watch, contextlib.ExitStack() as stack:
        template, sockets = initial(certificates), []
        packets = [initial(certificates) for _ in range(300)]
        for packet in packets:
            one = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            one.connect(("127.0.0.1", relay.at.tls))
            one.setblocking(False)
            one.send(packet)
            sockets.append(one)
        async def honest():
            async with http3.client(relay.at.tls, certificates.ca) as client:
                assert (await client.response(client.get("/index.html")))[0] == 200
        at = time.monotonic()
        asyncio.run(honest())
        assert time.monotonic() - at < 2
        metrics = relay.vitals.metrics()
        assert metrics["twohop_quic_retry_total"] >= 50
        assert metrics["twohop_quic_half_open"] <= 250  # 100 of each worker, and what was on its way
        time.sleep(3)  # with the repetitions of what was not acknowledged
        for one, packet in zip(sockets, packets):
            got = 0
            with contextlib.suppress(BlockingIOError):
                while data := one.recv(65536):
                    got += len(data)
            assert got <= 3 * len(packet), (got, len(packet))
        assert watch.worst < 0.5, watch.worst
        assert len(template) >= 1200


def test_initials_in_the_name_of_somebody(egress, certificates):
    """What others write in a client's name does not count against it, with the limits as they are shipped (T20)."""
    relay = egress(**{"num-threads": 1, "limits.connections-per-source": 100})
    with contextlib.ExitStack() as stack:
        for _ in range(130):
            one = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            one.connect(("127.0.0.1", relay.at.tls))
            one.send(initial(certificates))
        vitals.wait(lambda: relay.vitals.metrics()["twohop_quic_half_open"] == 100)
        assert relay.vitals.metrics()["twohop_connections"] == 0

        async def honest():
            async with http3.client(relay.at.tls, certificates.ca) as client:
                assert (await client.response(client.get("/index.html")))[0] == 200
                assert relay.vitals.metrics()["twohop_connections"] == 1

        asyncio.run(asyncio.wait_for(honest(), 5))
        with http1.Connection(relay.at.clear) as connection:
            assert connection.request("GET", "/index.html")[0] == 200
        assert relay.vitals.metrics()['twohop_limited_total{limit="connections"}'] == 0


@pytest.mark.parametrize("half_open", [0, 100], ids=["after Retry", "after the handshake"])
def test_quic_connections_of_a_source(egress, certificates, half_open):
    """An address that is proved counts, however it was."""
    relay = egress(**{"num-threads": 1, "limits.connections-per-source": 2, "limits.half-open-retry": half_open})

    async def get():
        with contextlib.suppress(ConnectionError):
            async with http3.client(relay.at.tls, certificates.ca) as client:
                return (await client.response(client.get("/index.html")))[0]

    async def run():
        async with http3.client(relay.at.tls, certificates.ca) as first:
            async with http3.client(relay.at.tls, certificates.ca):
                assert await get() is None
            assert (await first.response(first.get("/index.html")))[0] == 200
        vitals.wait(lambda: relay.vitals.metrics()["twohop_connections"] == 0)
        assert await get() == 200

    asyncio.run(asyncio.wait_for(run(), 10))
    assert relay.vitals.metrics()['twohop_limited_total{limit="connections"}'] == 1


def test_datagrams_that_are_no_quic(egress, certificates, tcp_echo):
    relay = egress()
    good = initial(certificates)
    def long_header(version, size, first=0xC3):
        return bytes([first]) + struct.pack("!I", version) + b"\x08" + os.urandom(8) + b"\x08" + os.urandom(8) + bytes(max(0, size - 23))
    cases = {  # what is sent, and the most that may come back to it
        "short Initial": (good[:1199], 0), "tiny Initial": (good[:50], 0), "empty": (b"", 0), "zeros": (bytes(1200), 0),
        "version 0": (long_header(0, 1200), 0), "VN to us": (long_header(0, 40), 0),
        "unknown version": (long_header(0x1A2A3A4A, 1200), 100), "small unknown version": (long_header(0x1A2A3A4A, 100), 0),
        "unknown ID": (b"\x40" + os.urandom(199), 199), "small unknown ID": (b"\x40" + os.urandom(20), 0),
        "Retry": (long_header(1, 100, 0xF0), 0), "Handshake": (long_header(1, 1200, 0xE0), 1199),
        "0-RTT": (long_header(1, 1200, 0xD0), 0), "ends in the ID": (b"\xC0\0\0\0\1\x14abc", 0),
        "ID of 255": (b"\xC0\0\0\0\1\xFF" + bytes(1300), 0), "broken Initial": (good[:100] + bytes(1100), 0),
    }
    with Watch(relay, tcp_echo) as watch:
        for name, (packet, most) in cases.items():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                one.connect(("127.0.0.1", relay.at.tls))
                one.send(packet)
                one.settimeout(0.15)
                try:
                    answer = one.recv(65536)
                except TimeoutError:
                    answer = b""
                assert len(answer) <= most, (name, len(answer))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.connect(("127.0.0.1", relay.at.tls))
            one.setblocking(False)
            sent = received = 0
            for i in range(30000):
                packet = (os.urandom(1200), b"\x40" + os.urandom(199), long_header(0x1A2A3A4A, 1200))[i % 3]
                with contextlib.suppress(BlockingIOError):
                    sent += one.send(packet)
                with contextlib.suppress(BlockingIOError):
                    received += len(one.recv(65536))
            assert received < sent / 20, (received, sent)

        async def run():
            async with http3.client(relay.at.tls, certificates.ca) as client:
                assert (await client.response(client.get("/index.html")))[0] == 200

        asyncio.run(run())
        assert watch.worst < 0.5, watch.worst
