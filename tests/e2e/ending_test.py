"""What is cut off never looks complete, and nobody holds a socket for nothing."""
import asyncio
import contextlib
import errno
import hashlib
import os
import select
import signal
import socket
import ssl
import threading
import time

import pytest

from harness import configs, http1, http2, http3

pytestmark = pytest.mark.xdist_group("load")  # one after the other: they measure time and load

AUTH = ("proxy-authorization", configs.BEARER)
AUTH_LINE = f"Proxy-Authorization: {configs.BEARER}"
VERSIONS = ["1.1", "1.1-tls", "2", "2-tls", "3"]


@pytest.fixture
def egress(relay, certificates, tmp_path):
    def start(**more):
        at = configs.Ports()
        process = relay(configs.egress(certificates, tmp_path, at, **more))
        process.at = at
        return process

    return start


def slow_target():
    """(listener, port): small receive buffer, so that the relay has to wait for it."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener, listener.getsockname()[1]


def test_an_upload_in_flight_survives_the_drain(egress):
    process = egress()
    listener, port = slow_target()
    data = os.urandom(3 << 20)
    with http1.Connection(process.at.clear) as connection:
        assert connection.connect(f"127.0.0.1:{port}", AUTH_LINE)[0] == 200
        target, _ = listener.accept()
        target.shutdown(socket.SHUT_WR)
        connection.socket.settimeout(0.5)
        sent = 0
        try:
            while sent < len(data):
                sent += connection.socket.send(data[sent:])
        except TimeoutError:
            pass
    process.signal(signal.SIGTERM)  # the client has gone; its last bytes are still in the relay
    time.sleep(0.3)
    target.settimeout(10)
    got = b""
    try:
        while piece := target.recv(1 << 20):
            got += piece
        assert got == data[:sent], "a clean end, but bytes are missing"
    except ConnectionResetError:
        pass  # what cannot be completed is a reset
    target.close()
    listener.close()
    process.wait_end(timeout=10)


def test_a_tunnel_open_at_the_end_of_the_drain_is_reset(egress, tcp_echo):
    process = egress(**{"limits.drain-seconds": 1})
    with http1.Connection(process.at.clear) as connection:
        assert connection.connect(tcp_echo.authority, AUTH_LINE)[0] == 200
        connection.send(b"x")
        assert connection.read(1) == b"x"
        process.signal(signal.SIGTERM)
        with pytest.raises(ConnectionResetError):
            connection.read_all()
    process.wait_end(timeout=5)


def test_bytes_behind_a_refused_connect_are_no_request(egress):
    process = egress()
    with http1.Connection(process.at.clear) as connection:
        connection.send("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\nGET /index.html HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.head()[0] == 400
        assert b"hello from twohop" not in connection.read_all()


def test_a_response_that_nobody_reads_is_given_up(egress):
    process = egress(**{"limits.idle-timeout": 2, "limits.connections-per-source": 20})
    (process.path.parent / "www" / "huge").write_bytes(bytes(24 << 20))
    before = len(os.listdir(f"/proc/{process.pid}/fd"))
    held = []
    for _ in range(20):
        connection = http1.Connection(process.at.clear)
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        connection.send("GET /huge HTTP/1.1\r\nHost: a\r\n\r\n")
        held.append(connection)
    with http1.Connection(process.at.clear) as one_more:  # the limit per source counts them
        assert one_more.ended()
    deadline = time.monotonic() + 15
    while len(os.listdir(f"/proc/{process.pid}/fd")) > before + 2:
        assert time.monotonic() < deadline, "descriptors are still held"
        time.sleep(0.2)
    for connection in held:
        connection.close()


def test_http3_responses_that_nobody_reads_are_given_up(egress, certificates):
    process = egress(**{"limits.idle-timeout": 2})
    (process.path.parent / "www" / "huge").write_bytes(bytes(8 << 20))

    async def run():
        # A stream window that is never widened stands for a client that does not read.
        async with http3.client(process.at.tls, certificates.ca, max_stream_data=16384) as client:
            client._quic._write_stream_limits = lambda *arguments, **options: None
            streams = [client.get("/huge") for _ in range(20)]
            await client.until(lambda: all(client.streams[stream].data for stream in streams))
            pings = asyncio.create_task(ping(client))
            await client.until(lambda: client.terminated is not None, timeout=20)
            pings.cancel()

    async def ping(client):
        while True:
            await client.ping()
            await asyncio.sleep(0.3)

    asyncio.run(run())


# ---- a relay that is told twice to end, or dies ----

class Target:
    """Serves one connection: reads until it ends, and with is_pouring sends without end. A context manager.
    received: how many bytes; end: None while it lives, then b"" (a FIN) or the error. A reset is told once, to who reads or
    who writes."""

    def __init__(self, is_pouring=False):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.authority = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.received, self.end, self._is_pouring, self._write_error = 0, None, is_pouring, None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._reader.join(5)

    def _read(self):
        with contextlib.suppress(OSError):
            self._connection, _ = self._listener.accept()
            self._connection.settimeout(30)
            if self._is_pouring:
                threading.Thread(target=self._pour, daemon=True).start()
            try:
                while data := self._connection.recv(65536):
                    self.received += len(data)
                self.end = b""
            except OSError as error:
                self.end = error
            self._connection.close()

    def _pour(self):
        try:
            while self.end is None:
                self._connection.sendall(bytes(16384))
                time.sleep(0.005)
        except OSError as error:
            self._write_error = error

    def wait(self, condition, timeout=10):
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"received {self.received}, end {self.end!r}"
            time.sleep(0.01)

    def was_reset(self):
        self.wait(lambda: self.end is not None)
        return isinstance(self.end, ConnectionResetError) or isinstance(self._write_error, ConnectionResetError)


def context_of(certificates, version):
    alpn = {"1.1-tls": "http/1.1", "2-tls": "h2"}.get(version)
    return certificates.client_context([alpn]) if alpn else None


def gets_reset(connection):
    """Python's TLS takes a reset for an end."""
    poll = select.poll()
    poll.register(connection.socket, 0)
    assert poll.poll(10000), "neither a reset nor both FINs"
    return connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET


def through_http1(process, context, target, uploaded, end):
    with http1.Connection(process.at.tls if context else process.at.clear, context=context) as connection:
        assert connection.connect(target.authority, AUTH_LINE)[0] == 200
        connection.send(uploaded)
        target.wait(lambda: target.received == len(uploaded))
        end()
        assert gets_reset(connection)


def through_http2(process, context, target, uploaded, end):
    with http2.Connection(process.at.tls if context else process.at.clear, context=context) as connection:
        stream = connection.connect(target.authority, AUTH)
        assert connection.response(stream)[0] == 200
        connection.send(stream, uploaded)
        target.wait(lambda: target.received == len(uploaded))
        end()
        with pytest.raises((ConnectionError, ssl.SSLError)):
            connection.wait(lambda: False)
        assert not connection.streams[stream].ended


async def through_http3(process, certificates, target, uploaded, end, is_told):
    async with http3.client(process.at.tls, certificates.ca) as client:
        stream = client.connect_tcp(target.authority, AUTH)
        assert (await client.response(stream))[0] == 200
        client.send(stream, uploaded)
        await asyncio.to_thread(target.wait, lambda: target.received == len(uploaded))
        await asyncio.to_thread(end)
        if is_told:
            await client.until(lambda: client.terminated is not None)
        assert not client.streams[stream].ended


def cut(process, certificates, version, is_pouring, end, is_told=True):
    """An open tunnel, both of its ways incomplete, while `end` ends the relay: nobody may see a clean end."""
    with Target(is_pouring) as target:
        if version == "3":
            asyncio.run(through_http3(process, certificates, target, bytes(200000), end, is_told))
        else:
            through = through_http1 if version.startswith("1.1") else through_http2
            through(process, context_of(certificates, version), target, bytes(200000), end)
        assert target.was_reset(), target.end


def terminate_twice(process):
    process.signal(signal.SIGTERM)
    process.wait_event("draining")
    process.signal(signal.SIGTERM)
    process.wait_event("ended_at_once")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("is_pouring", [False, True], ids=["up", "up-and-down"])
def test_a_second_sigterm_tells_everybody(egress, certificates, version, is_pouring):
    process = egress()
    cut(process, certificates, version, is_pouring, lambda: terminate_twice(process))
    process.wait_end(timeout=5)
    assert process.events("ended")


def test_a_second_sigterm_with_a_crowd(egress, tcp_echo):
    process = egress(**{"limits.connections-per-source": 400, "limits.tunnels-per-token": 400})
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(http1.Connection(process.at.clear)) for _ in range(300)]
        for connection in crowd:
            assert connection.connect(tcp_echo.authority, AUTH_LINE)[0] == 200
        terminate_twice(process)
        assert all(gets_reset(connection) for connection in crowd)
    process.wait_end(timeout=5)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("is_pouring", [False, True], ids=["up", "up-and-down"])
def test_a_killed_relay_is_a_reset(egress, certificates, version, is_pouring):
    process = egress()
    cut(process, certificates, version, is_pouring, process.kill, is_told=False)


def test_a_killed_relay_after_the_clients_end(egress):
    """Half-closed: the way down is cut off."""
    process = egress()
    with socket.create_server(("127.0.0.1", 0)) as listener, http1.Connection(process.at.clear) as connection:
        assert connection.connect(f"127.0.0.1:{listener.getsockname()[1]}", AUTH_LINE)[0] == 200
        target, _ = listener.accept()
        with target:
            connection.socket.shutdown(socket.SHUT_WR)
            assert target.recv(1) == b""
            target.sendall(b"not all")
            assert connection.read(7) == b"not all"
            process.kill()
            assert gets_reset(connection)


def is_fin_on_its_way(port):
    """Whether a socket connected to this port of loopback is in FIN-WAIT-1."""
    with open("/proc/net/tcp", encoding="ascii") as table:
        return any(line.split()[2] == f"0100007F:{port:04X}" and line.split()[3] == "04" for line in list(table)[1:])


def test_what_was_complete_survives_a_killed_relay(egress):
    process = egress()
    listener, port = slow_target()
    data = os.urandom(100000)
    with http1.Connection(process.at.clear) as connection:
        assert connection.connect(f"127.0.0.1:{port}", AUTH_LINE)[0] == 200
        target, _ = listener.accept()
        connection.send(data)
        connection.socket.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + 10
        while not is_fin_on_its_way(port):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    with listener, target:
        target.settimeout(10)
        got = b""
        while piece := target.recv(65536):
            got += piece
    assert got == data


# ---- what ends in order is no reset ----

SIZE = 8 << 20


def read_slowly(one):
    """The SHA-256 and the length of what comes up to the end."""
    digest, length = hashlib.sha256(), 0
    while piece := one.recv(65536):
        if length < 1 << 20:
            time.sleep(0.01)
        digest.update(piece)
        length += len(piece)
    return digest.hexdigest(), length


def serve(act):
    """A target: act(connection) on a thread; (authority, results: a list that gets act's)."""
    listener = socket.create_server(("127.0.0.1", 0))
    results = []

    def run():
        with listener:
            one, _ = listener.accept()
            with one:
                one.settimeout(20)
                try:
                    results.append(act(one))
                except OSError as error:
                    results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return f"127.0.0.1:{listener.getsockname()[1]}", thread, results


@pytest.mark.parametrize("version", ["1.1", "1.1-tls"])
@pytest.mark.parametrize("is_target_first", [False, True])
def test_a_last_write_before_a_close_arrives_at_the_target(egress, certificates, version, is_target_first):
    """The application closes right behind its last write, and the target reads later."""
    process, data = egress(), os.urandom(SIZE)

    def act(one):
        if is_target_first:
            one.shutdown(socket.SHUT_WR)
        return read_slowly(one)

    authority, thread, results = serve(act)
    context = context_of(certificates, version)
    with http1.Connection(process.at.tls if context else process.at.clear, context=context) as connection:
        assert connection.connect(authority, AUTH_LINE)[0] == 200
        connection.send(data)
        if context:
            connection.socket = connection.socket.unwrap()  # close_notify
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.read_all() == b""
    thread.join(30)
    assert results == [(hashlib.sha256(data).hexdigest(), SIZE)]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_last_write_before_a_close_arrives_at_the_client(egress, certificates, version):
    """The target closes right behind its last write, and the client reads later."""
    process, data = egress(), os.urandom(SIZE if version != "3" else SIZE // 8)
    authority, _, _ = serve(lambda one: one.sendall(data))
    digest = hashlib.sha256(data).hexdigest()
    context = context_of(certificates, version)
    port = process.at.tls if context else process.at.clear

    async def over_http3():
        async with http3.client(process.at.tls, certificates.ca) as client:
            stream = client.connect_tcp(authority, AUTH)
            state = client.streams[stream]
            await client.until(lambda: state.ended or state.reset is not None, timeout=30)
            assert state.ended and hashlib.sha256(state.data).hexdigest() == digest

    if version == "3":
        asyncio.run(over_http3())
    elif version.startswith("2"):
        with http2.Connection(port, context=context) as connection:
            stream = connection.connect(authority, AUTH)
            state = connection.streams[stream]
            connection.wait(lambda: state.ended or state.reset is not None, timeout=30)
            assert state.ended and hashlib.sha256(state.data).hexdigest() == digest
    else:
        with http1.Connection(port, context=context) as connection:
            assert connection.connect(authority, AUTH_LINE)[0] == 200
            first = connection.read(1)
            time.sleep(0.5)
            assert hashlib.sha256(first + connection.read_all()).hexdigest() == digest
            if context:
                connection.socket = connection.socket.unwrap()
            connection.socket.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("version", ["1.1", "2", "2-tls", "3"])  # Python's TLS cannot end one half alone
def test_a_request_and_a_response_arrive_whole(egress, certificates, version):
    """Half-closes both ways: the client ends, then the target answers and closes; all of it while the relay drains."""
    process = egress()
    data, answer = os.urandom(1 << 20), os.urandom(1 << 20)
    digest = hashlib.sha256(data).hexdigest()

    def act(one):
        got = read_slowly(one)
        one.sendall(answer)
        return got

    authority, thread, results = serve(act)
    context = context_of(certificates, version)
    port = process.at.tls if context else process.at.clear

    async def over_http3():
        async with http3.client(process.at.tls, certificates.ca) as client:
            stream = client.connect_tcp(authority, AUTH)
            assert (await client.response(stream))[0] == 200
            process.signal(signal.SIGTERM)
            client.send(stream, data, end=True)
            state = client.streams[stream]
            await client.until(lambda: state.ended or state.reset is not None, timeout=30)
            assert state.ended and state.data == answer

    if version == "3":
        asyncio.run(over_http3())
    elif version.startswith("2"):
        with http2.Connection(port, context=context) as connection:
            stream = connection.connect(authority, AUTH)
            state = connection.streams[stream]
            assert connection.response(stream)[0] == 200
            process.signal(signal.SIGTERM)
            connection.send(stream, data, end=True)
            connection.wait(lambda: state.ended or state.reset is not None, timeout=30)
            assert state.ended and state.data == answer
    else:
        with http1.Connection(port) as connection:
            assert connection.connect(authority, AUTH_LINE)[0] == 200
            process.signal(signal.SIGTERM)
            connection.send(data)
            connection.socket.shutdown(socket.SHUT_WR)
            time.sleep(0.5)  # the relay has both FINs and closes; its kernel still has bytes
            assert connection.read_all() == answer
    thread.join(30)
    assert results == [(digest, len(data))]
    process.wait_end(timeout=10)
