"""Clients that vanish in every state, and targets of which one half ends: nothing is left behind (T28, T83)."""
import asyncio
import contextlib
import socket
import struct
import threading
import time

import pytest

from harness import configs, dns, http1, http2, http3, vitals

pytestmark = pytest.mark.xdist_group("load")  # one after the other: they measure time and load

AUTH = ("proxy-authorization", configs.BEARER)
AUTH_LINE = f"Proxy-Authorization: {configs.BEARER}"


class Fountain:
    """A target that sends without end. open: how many of its connections live. A context manager."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self._listener.getsockname()[1]
        self.open, self.accepted, self._lock = 0, 0, threading.Lock()

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                one, _ = self._listener.accept()
                with self._lock:
                    self.open += 1
                    self.accepted += 1
                threading.Thread(target=self._pour, args=(one,), daemon=True).start()

    def _pour(self, one):
        one.settimeout(20)
        with contextlib.suppress(OSError):
            while True:
                one.sendall(bytes(4096))
                time.sleep(0.01)
        one.close()
        with self._lock:
            self.open -= 1


class Wall:
    """A port whose SYNs are never answered: its queue is full. A context manager."""

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.port = self._listener.getsockname()[1]
        self._held = []
        for _ in range(3):
            one = socket.socket()
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                one.connect(("127.0.0.1", self.port))
            self._held.append(one)
        time.sleep(0.1)
        return self

    def __exit__(self, *_):
        for one in [*self._held, self._listener]:
            one.close()


@pytest.fixture
def stage(relay, certificates, tmp_path):
    """An egress, and a target for each state; targets: {state: (host, port)}."""
    names = {"silent.example.": None}
    with dns.Server(names) as server, Fountain() as fountain, Wall() as wall:
        at = configs.Ports()
        started = relay(configs.egress(certificates, tmp_path, at, **{
            "num-threads": 2, "resolver.servers": [server.address], "limits.connections-per-source": 5000,
            "limits.quic-idle-timeout": 5, "limits.handshake-timeout": 2}))
        started.at, started.vitals, started.fountain, started.ca = at, vitals.Vitals(started), fountain, certificates.ca
        started.targets = {"dns": ("silent.example", 443), "dialling": ("127.0.0.1", wall.port),
                           "at once": ("127.0.0.1", fountain.port), "mid-body": ("127.0.0.1", fountain.port)}
        yield started


def path(target):
    return "/.well-known/masque/udp/%s/%d/" % target


def vanish_http1(relay, target, is_open, count):
    connections = []
    for i in range(count):
        connection = http1.Connection(relay.at.clear)
        authority = "%s:%d" % target
        if i % 4 == 3 and not is_open:
            connection.send(f"GET {path(target)} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: connect-udp\r\n"
                            f"Capsule-Protocol: ?1\r\n{AUTH_LINE}\r\n\r\n")
        else:
            connection.send(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{AUTH_LINE}\r\n\r\n")
        connections.append(connection)
    if is_open:
        for connection in connections:
            assert connection.head()[0] == 200
    for i, connection in enumerate(connections):
        (connection.reset if i % 2 else connection.close)()


def vanish_http2(relay, target, is_open, count):
    for i in range(4):
        connection = http2.Connection(relay.at.clear)
        streams = []
        for k in range(count // 4):
            udp = k % 4 == 3 and not is_open
            streams.append(connection.connect_udp(path(target), AUTH) if udp else connection.connect("%s:%d" % target, AUTH))
        if is_open:
            for stream in streams:
                assert connection.response(stream)[0] == 200
        if i % 2:
            for stream in streams:
                connection.reset(stream)
            connection.socket.close()
        else:
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", i // 2, 0))
            connection.socket.close()


def vanish_http3(relay, target, is_open, count):
    async def one(i):
        async with http3.client(relay.at.tls, relay.ca) as client:
            streams = []
            for k in range(count // 4):
                udp = k % 4 == 3 and not is_open
                streams.append(client.connect_udp(path(target), AUTH) if udp else client.connect_tcp("%s:%d" % target, AUTH))
            if is_open:
                for stream in streams:
                    assert (await client.response(stream))[0] == 200
            if i % 2:
                for stream in streams:
                    client._quic.reset_stream(stream, 0x10C)
                    client._quic.stop_stream(stream, 0x10C)
                client.transmit()
                await asyncio.sleep(0.05)
            if i == 2 and is_open:  # silence in place of a CONNECTION_CLOSE
                client._transport.abort()
                client._transport.sendto = lambda *_: None

    async def run():
        await asyncio.gather(*(one(i) for i in range(4)))

    asyncio.run(run())


VANISH = {"1.1": vanish_http1, "2": vanish_http2, "3": vanish_http3}


@pytest.mark.parametrize("version", VANISH)
def test_clients_that_vanish_leave_nothing(stage, tcp_echo, version):
    with vitals.Bystander(stage.at.clear, tcp_echo) as bystander:
        VANISH[version](stage, stage.targets["at once"], True, 40)  # warm up: pools and resolver sockets
        time.sleep(0.5)
        stage.vitals.wait_quiet(stage.vitals.descriptors(), tunnels=1)
        vitals.wait(lambda: stage.fountain.open == 0)
        descriptors = stage.vitals.descriptors() + 4  # a resolver may keep a socket
        for state, target in stage.targets.items():
            VANISH[version](stage, target, state == "mid-body", 200)
            assert bystander.echo() < 1, state
            stage.vitals.wait_quiet(descriptors, tunnels=1, timeout=12 if version == "3" else 2)
            vitals.wait(lambda: stage.fountain.open == 0, 3, f"the end of the target's connections after {state}")
        metrics = stage.vitals.metrics()
        assert all(value == 0 for series, value in metrics.items() if series.startswith('twohop_tunnels{method="connect-udp"'))


def test_the_target_is_closed_at_once(stage):
    """Within 100 ms of the client's end, on one tunnel at a time."""
    for kind in ("close", "reset"):
        with http1.Connection(stage.at.clear) as connection:
            assert connection.connect("127.0.0.1:%d" % stage.fountain.port, AUTH_LINE)[0] == 200
            connection.read(4096)
            getattr(connection, kind)()
        vitals.wait(lambda: stage.fountain.open == 0, 1)


# ---- half-open (T83) ----

class Half:
    """A target that says b"last" and FIN, then reads until the client's end. got: what it read, once it ended."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.authority = "127.0.0.1:%d" % self._listener.getsockname()[1]
        self.got, self.ended = b"", threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        one, _ = self._listener.accept()
        one.sendall(b"last")
        one.shutdown(socket.SHUT_WR)
        while data := one.recv(65536):
            self.got += data
        one.close()
        self._listener.close()
        self.ended.set()


def test_half_open_targets(stage):
    """The target's end comes first; the client goes on sending for as long as it likes."""
    data = bytes(range(256)) * 1000
    half = Half()
    with http1.Connection(stage.at.clear) as connection:
        assert connection.connect(half.authority, AUTH_LINE)[0] == 200
        assert connection.read_all() == b"last"
        for i in range(0, len(data), 64000):
            connection.send(data[i:i + 64000])
            time.sleep(0.05)
        connection.socket.shutdown(socket.SHUT_WR)
        assert half.ended.wait(5) and half.got == data
    half = Half()
    with http2.Connection(stage.at.clear) as connection:
        stream = connection.connect(half.authority, AUTH)
        assert connection.response(stream)[0] == 200
        connection.wait(lambda: connection.streams[stream].ended)
        assert connection.streams[stream].data == b"last"
        connection.send(stream, data, end=True)
        assert half.ended.wait(5) and half.got == data
    half = Half()

    async def run():
        async with http3.client(stage.at.tls, stage.ca) as client:
            stream = client.connect_tcp(half.authority, AUTH)
            assert (await client.response(stream))[0] == 200
            await client.until(lambda: client.streams[stream].ended)
            client.send(stream, data, end=True)
            await asyncio.to_thread(half.ended.wait, 5)
            assert half.got == data

    asyncio.run(run())
    vitals.wait(lambda: stage.vitals.tunnels() == 0)
