"""What is cut off never looks complete, and nobody holds a socket for nothing."""
import asyncio
import os
import signal
import socket
import time

import pytest

from harness import configs, http1, http3

pytestmark = pytest.mark.xdist_group("load")  # one after the other: they measure time and load

AUTH_LINE = f"Proxy-Authorization: {configs.BEARER}"


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
