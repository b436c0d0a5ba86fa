"""Clients that are slow on purpose: who does not finish is closed, who waits costs nothing (T02, T15, T16)."""
import asyncio
import contextlib
import os
import socket
import ssl
import time

import h2.exceptions
import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from harness import configs, http1, http2, http3, rebinding, vitals

pytestmark = pytest.mark.xdist_group("load")  # one after the other: they measure time and load

AUTH = ("proxy-authorization", configs.BEARER)
AUTH_LINE = f"Proxy-Authorization: {configs.BEARER}"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
LIMIT = 2  # seconds, in place of the 10 of the default
MARGIN = 2.5


@pytest.fixture
def egress(relay, certificates, tmp_path):
    """start(**more directives), with short limits."""
    def start(**more):
        at = configs.Ports()
        short = {"limits.handshake-timeout": LIMIT, "limits.head-timeout": LIMIT, "limits.idle-timeout": 6,
                 "limits.connections-per-source": 5000, "num-threads": 2}
        started = relay(configs.egress(certificates, tmp_path, at, **(short | more)))
        started.at, started.vitals = at, vitals.Vitals(started)
        return started
    return start


class Slow:
    """A connection that has sent `first` and then sends `drip` byte by byte. done: seconds until the relay ended it."""

    def __init__(self, label, port, first, drip=b"", context=None):
        self.label, self.drip, self.sent, self.done = label, drip, 0, None
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        if context:
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        self.began = time.monotonic()
        self.socket.sendall(first)
        self.socket.setblocking(False)

    def turn(self):
        """One more byte, and a look at whether the relay has closed."""
        try:
            while self.socket.recv(4096):
                pass
            self.done = time.monotonic() - self.began
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        except OSError:
            self.done = time.monotonic() - self.began
        with contextlib.suppress(OSError):
            if self.sent < len(self.drip):
                self.socket.send(self.drip[self.sent:self.sent + 1])
                self.sent += 1


def client_hello(certificates):

    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = certificates.client_context(["h2"]).wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def literal(name, value):
    """An HPACK field without indexing and Huffman coding."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def h2_head(certificates):
    block = b"".join(literal(*pair) for pair in ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"),
                                                   (b":authority", b"localhost"), (b"x", b"y" * 100)))
    return len(block).to_bytes(3, "big") + b"\1\5\0\0\0\1" + block


def slow_clients(relay, certificates):
    """Each phase of a TCP connection, left unfinished, with the seconds in which it must end."""
    at, hello, head = relay.at, client_hello(certificates), h2_head(certificates)
    plain, h2 = certificates.client_context(["http/1.1"]), certificates.client_context(["h2"])
    request = b"GET /index.html HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"y" * 500
    yield Slow("nothing", at.clear, b""), LIMIT
    yield Slow("no hello", at.tls, b""), LIMIT
    yield Slow("hello", at.tls, hello[:1], hello[1:]), LIMIT
    yield Slow("half a hello", at.tls, hello[:100]), LIMIT
    yield Slow("a record of nothing", at.tls, b"\x16\x03\x01\x40\x00"), LIMIT
    yield Slow("no finished", at.tls, hello), LIMIT
    yield Slow("half a preface", at.clear, PREFACE[:10], PREFACE[10:12]), LIMIT
    yield Slow("request line", at.clear, request[:1], request[1:]), 2 * LIMIT
    yield Slow("fields", at.clear, request[:45], request[45:]), LIMIT * 2
    yield Slow("fields under TLS", at.tls, request[:45], request[45:], plain), LIMIT
    yield Slow("preface alone", at.clear, PREFACE), 6
    yield Slow("preface under TLS, slowly", at.tls, PREFACE[:1], PREFACE[1:], h2), 6
    yield Slow("HEADERS", at.clear, PREFACE + SETTINGS + head[:12], head[12:]), 6
    yield Slow("no CONTINUATION", at.clear, PREFACE + SETTINGS + head[:4] + b"\1" + head[5:]), 6
    yield Slow("half a PING", at.clear, PREFACE + SETTINGS + b"\0\0\x08\6\0\0\0\0\0abc"), 6


def test_unfinished_connections_are_closed(egress, certificates, tcp_echo):
    relay = egress()
    with vitals.Bystander(relay.at.clear, tcp_echo) as bystander:
        clients = list(slow_clients(relay, certificates))
        crowd = [Slow("crowd", relay.at.tls, b"\x16") for _ in range(300)]
        before, at = relay.vitals.cpu(), time.monotonic()
        while time.monotonic() - at < 9.5:
            for client, _ in clients:
                if client.done is None:
                    client.turn()
            for client in crowd:
                if client.done is None:
                    client.turn()
            if int((time.monotonic() - at) * 10) % 10 == 0:
                assert bystander.echo() < 0.5
                with http1.Connection(relay.at.clear) as connection:
                    assert connection.request("GET", "/index.html")[0] == 200
            time.sleep(0.1)
        assert relay.vitals.cpu() - before < 3
        late = [(client.label, client.done) for client, limit in clients if client.done is None or client.done > limit + MARGIN]
        assert not late, late
        assert all(client.done is not None and client.done < LIMIT + MARGIN for client in crowd)
        for client, _ in clients:
            client.socket.close()
        assert relay.vitals.metrics()['twohop_handshakes_total{result="timeout"}'] >= 300


def test_the_ten_seconds_of_the_default(egress, certificates, tcp_echo):
    """Six hundred slow clients in three phases, at full length; meanwhile a new one is served at once."""
    vitals.raise_descriptors()
    relay = egress(**{"limits.handshake-timeout": 10, "limits.head-timeout": 10})
    hello = client_hello(certificates)
    request = b"GET /index.html HTTP/1.1\r\nHost: localhost\r\nX-Slow: yyyyyyyyyyyyyyyyyyyyy"
    with vitals.Bystander(relay.at.clear, tcp_echo) as bystander:
        clients = [client for i in range(200) for client in (
            Slow("hello", relay.at.tls, hello[:50], hello[50:100]), Slow("request line", relay.at.clear, request[:3], request[3:]),
            Slow("fields", relay.at.clear, request[:45], request[45:]))]
        at, served = time.monotonic(), []
        while time.monotonic() - at < 11.6:
            for client in clients:
                if client.done is None:
                    client.turn()
            began = time.monotonic()
            with http1.Connection(relay.at.clear) as connection:
                assert connection.request("GET", "/index.html")[0] == 200
            served.append(time.monotonic() - began)
            assert bystander.echo() < 0.5
            time.sleep(0.5)
        wrong = {(client.label, client.done) for client in clients if client.done is None or not 9 < client.done < 11.5}
        assert not wrong, wrong
        assert sorted(served)[len(served) // 2] < 0.1 and max(served) < 0.5, served
        for client in clients:
            client.socket.close()


def test_idle_connections_are_closed_and_tunnels_are_not(egress, certificates, tcp_echo):
    relay = egress(**{"limits.idle-timeout": 2})
    with vitals.Bystander(relay.at.clear, tcp_echo), contextlib.ExitStack() as stack:
        idle = []
        for context, port in ((None, relay.at.clear), (certificates.client_context(["http/1.1"]), relay.at.tls)):
            connection = stack.enter_context(http1.Connection(port, context=context))
            status, fields = connection.request("GET", "/index.html")
            connection.body(fields)
            idle.append(connection)
        second = stack.enter_context(http2.Connection(relay.at.clear))
        second.read(second.get("/index.html"), 100)
        with http2.Connection(relay.at.clear) as busy:
            stream = busy.connect(tcp_echo.authority, AUTH)
            assert busy.response(stream)[0] == 200

            async def run():
                async with http3.client(relay.at.tls, certificates.ca) as third, http3.client(relay.at.tls, certificates.ca) as kept:
                    tunnel = kept.connect_tcp(tcp_echo.authority, AUTH)
                    assert (await kept.response(tunnel))[0] == 200
                    assert (await third.response(third.get("/index.html")))[0] == 200
                    await third.until(lambda: third.terminated is not None, 5)
                    assert kept.terminated is None
                    kept.send(tunnel, b"here")
                    await kept.until(lambda: kept.streams[tunnel].data == b"here")

            at = time.monotonic()
            asyncio.run(run())
            for connection in idle:
                assert connection.ended()
            with pytest.raises(ConnectionError):
                while True:
                    second.step(5)
            assert second.goaway == 0 and time.monotonic() - at < 6
            busy.send(stream, b"still here")
            assert busy.read(stream, 10) == b"still here"


def test_requests_that_never_end(egress, certificates):
    """A head without an end, then silence or one byte after the other, on a connection that is busy otherwise."""
    relay = egress(**{"limits.idle-timeout": 2})
    post = [(":method", "POST"), (":scheme", "https"), (":authority", "localhost"), (":path", "/index.html")]
    with http2.Connection(relay.at.clear) as connection:
        stream, at = connection.open(post), time.monotonic()
        state = connection.streams[stream]
        while state.reset is None and time.monotonic() - at < 6:
            connection.send(stream, b"x")
            assert connection.response(connection.get("/index.html"))[0] == 200
            time.sleep(0.1)
        assert state.reset is not None and 1.9 < time.monotonic() - at < 4
    with http2.Connection(relay.at.clear) as connection:
        stream, at = connection.open(post), time.monotonic()
        with pytest.raises((ConnectionError, h2.exceptions.ProtocolError)):
            while time.monotonic() - at < 6:
                connection.send(stream, b"x")
                with contextlib.suppress(TimeoutError):
                    connection.step(0.2)

    async def run():
        async with http3.client(relay.at.tls, certificates.ca) as connection:
            stream, at = connection.open([(":method", "GET"), *post[1:]]), time.monotonic()
            while connection.terminated is None and time.monotonic() - at < 8:
                with contextlib.suppress(ConnectionError, TimeoutError):
                    async with asyncio.timeout(0.2):
                        await connection.ping()
                await asyncio.sleep(0.1)
            assert connection.streams[stream].reset is not None
            assert connection.terminated is not None and 1.9 < time.monotonic() - at < 6

    asyncio.run(run())


def test_partial_frames_cost_no_time(egress, tcp_echo):
    """100 connections hold a cut PING; another 100 wait inside a HEADERS frame: the loop sleeps."""
    relay = egress(**{"limits.head-timeout": 30, "limits.idle-timeout": 30})
    with vitals.Bystander(relay.at.clear, tcp_echo):
        held = [Slow("ping", relay.at.clear, PREFACE + SETTINGS + b"\0\0\x08\6\0\0\0\0\0ab") for _ in range(100)]
        held += [Slow("head", relay.at.clear, PREFACE + SETTINGS + b"\0\1\0\1\5\0\0\0\1ab") for _ in range(100)]
        held += [Slow("goaway", relay.at.clear, PREFACE + SETTINGS + b"\0\0\x08\7" + bytes(13) + b"\xff\xff\xff\x06\0")
                 for _ in range(20)]
        time.sleep(0.5)
        assert relay.vitals.load(2) < 0.05
        for one in held:
            one.socket.close()


def test_quic_handshakes_that_are_never_finished(egress, certificates, tcp_echo):
    """Initials without an end: dropped after the limit, and new clients are served meanwhile."""
    relay = egress()
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["h3"], server_name="localhost", cafile=str(certificates.ca))
    with vitals.Bystander(relay.at.clear, tcp_echo):
        begun = []
        for _ in range(80):  # fewer than what makes the relay send Retry
            quic = QuicConnection(configuration=configuration)
            quic.connect(("127.0.0.1", relay.at.tls), now=0)
            one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            one.connect(("127.0.0.1", relay.at.tls))
            begun.append((one, [data for data, _ in quic.datagrams_to_send(now=0)]))
        for one, packets in begun:
            for packet in packets:
                one.send(packet)

        def seen():
            metrics = relay.vitals.metrics()  # the first ones may be over before the last have begun
            return metrics["twohop_quic_half_open"] + metrics['twohop_handshakes_total{result="timeout"}'] >= 70

        vitals.wait(seen)

        async def run():
            async with http3.client(relay.at.tls, certificates.ca) as client:
                assert (await client.response(client.get("/index.html")))[0] == 200

        asyncio.run(run())
        vitals.wait(lambda: relay.vitals.metrics()["twohop_quic_half_open"] == 0, LIMIT + MARGIN + 2)
        for one, _ in begun:
            one.close()


def test_a_quiet_tunnel_is_kept_alive(egress, certificates, udp_echo):
    """A client that offers 4 s of idle time and says nothing for 7: our PINGs keep the connection (T82)."""
    relay = egress()

    async def run(nat):
        async with http3.client(nat.port, certificates.ca, idle_timeout=4.0) as client:
            stream = client.connect_udp(f"/.well-known/masque/udp/127.0.0.1/{udp_echo.port}/", AUTH)
            assert (await client.response(stream))[0] == 200
            await asyncio.sleep(7)
            assert client.terminated is None
            client.send_datagram(stream, b"\0still here")
            await client.until(lambda: client.streams[stream].datagrams)

    with rebinding.Nat(relay.at.tls) as nat:
        asyncio.run(run(nat))


def test_a_window_of_one_byte(egress, tcp_echo):
    """HTTP/2: INITIAL_WINDOW_SIZE 0, then one byte at a time: slow, whole, and nobody else waits."""
    relay = egress()
    with vitals.Bystander(relay.at.clear, tcp_echo) as bystander, http2.Connection(relay.at.clear) as connection:
        connection.step()
        connection.h2.update_settings({4: 0})
        connection.flush()
        stream = connection.connect(tcp_echo.authority, AUTH)
        assert connection.response(stream)[0] == 200
        data = os.urandom(200)
        connection.send(stream, data)
        assert bystander.echo() < 0.5
        for _ in range(200):
            connection.h2.increment_flow_control_window(1, stream)
            connection.flush()
        assert connection.read(stream, 200) == data
