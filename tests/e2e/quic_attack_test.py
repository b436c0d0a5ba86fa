"""Hostile QUIC: tokens, packets without a connection, frames without end, forged acknowledgements, key updates (T21 to T25, T31)."""
import asyncio
import contextlib
import functools
import os
import select
import socket
import struct
import threading
import time

import pytest
from aioquic.asyncio import connect
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.events import ConnectionTerminated
from aioquic.tls import Epoch

from harness import attack, configs, http3, quic_frames, vitals
from harness.attack import MIB, is_served, unharmed
from harness.quic_frames import Sender

pytestmark = pytest.mark.xdist_group("load")  # one after the other: they measure time and load

AUTH = ("proxy-authorization", configs.BEARER)
PROTOCOL_VIOLATION, CRYPTO_BUFFER_EXCEEDED, INVALID_TOKEN, KEY_UPDATE_ERROR = 0x0A, 0x0D, 0x0B, 0x0E
UNEXPECTED_MESSAGE = 0x100 + 10
KEY_UPDATE = b"\x18\0\0\1\0"  # of TLS, which QUIC forbids


@pytest.fixture
def egress(relay, certificates, tmp_path):
    return functools.partial(attack.start_egress, relay, certificates, tmp_path)


# ---- Retry tokens (T21) ----

class Shaker:
    """One QUIC handshake by hand, over sockets of the test's choice."""

    def __init__(self, relay, certificates, host="127.0.0.1", token=b""):
        self.relay = ("127.0.0.1", relay.at.tls)
        self.socket = self.bind(host)
        self.quic = QuicConnection(configuration=QuicConfiguration(
            is_client=True, alpn_protocols=["h3"], server_name="localhost", cafile=str(certificates.ca), token=token))
        self.quic.connect(self.relay, now=time.monotonic())
        self.first = self.take()

    @staticmethod
    def bind(host):
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.bind((host, 0))
        return one

    def take(self):
        return b"".join(data for data, _ in self.quic.datagrams_to_send(now=time.monotonic())[:1])

    def ask(self, packet, through=None, patience=10):
        """What comes back: "retry", "initial", None; or the transport error of a CONNECTION_CLOSE. patience: seconds, few when it
        may be nothing."""
        one = through or self.socket
        one.settimeout(patience)
        one.sendto(packet, self.relay)
        try:
            answer = one.recv(65536)
        except TimeoutError:
            return None
        kind = {0xC0: "initial", 0xF0: "retry"}[answer[0] & 0xF0]
        self.quic.receive_datagram(answer, self.relay, now=time.monotonic())
        while event := self.quic.next_event():
            if isinstance(event, ConnectionTerminated):
                return event.error_code
        if kind == "initial" and self.quic._close_event is not None:
            return self.quic._close_event.error_code
        return kind


@contextlib.contextmanager
def half_open(relay, certificates):
    """Enough handshakes in progress for every newcomer to be sent a Retry."""
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            one = Shaker(relay, certificates)
            stack.callback(one.socket.close)
            one.socket.sendto(one.first, one.relay)
        vitals.wait(lambda: relay.vitals.metrics()["twohop_quic_retry_total"] > 0)
        yield


def test_retry_tokens(egress, certificates, tcp_echo):
    relay = egress()

    def shaken(change=lambda token: token):
        """One that has got its Retry, and its next Initial, which carries the token."""
        one = Shaker(relay, certificates)
        assert one.ask(one.first) == "retry"
        one.quic._peer_token = change(one.quic._peer_token)
        return one, one.take()

    with unharmed(relay, certificates, tcp_echo, 64 * MIB), half_open(relay, certificates):
        late, late_packet = shaken()
        asked = time.monotonic()
        one, packet = shaken()
        with Shaker.bind("127.0.0.2") as elsewhere:
            assert one.ask(packet, elsewhere, patience=0.5) in ("retry", None, INVALID_TOKEN), "a token of another address"
        with Shaker.bind("127.0.0.1") as other_port:
            assert one.ask(packet, other_port, patience=0.5) in ("retry", None, INVALID_TOKEN), "a token of another port"
        for name, change in {"flipped": lambda t: t[:20] + bytes([t[20] ^ 1]) + t[21:], "cut": lambda t: t[:10] + bytes(len(t) - 10),
                             "rubbish": lambda t: t[:1] + os.urandom(len(t) - 1), "of nobody": lambda t: os.urandom(len(t))}.items():
            one, packet = shaken(change)
            assert one.ask(packet, patience=0.5) in ("retry", None, INVALID_TOKEN), name
        one, packet = shaken()
        assert one.ask(packet) == "initial"  # the good one
        time.sleep(max(0, asked + 10.5 - time.monotonic()))
    with half_open(relay, certificates):
        assert late.ask(late_packet) == INVALID_TOKEN


class Beginner(threading.Thread):
    """Begins `rate` handshakes a second with ClientHellos that never end, each with the Retry token that it is sent.
    Its sockets take turns. proved: how many tokens it has used."""

    HELLO = b"\x01\0\x01\0\x03\x03" + os.urandom(32)

    def __init__(self, relay, rate, sockets):
        super().__init__(daemon=True)
        self._rate, self._end, self._id, self.proved = rate, threading.Event(), os.urandom(8), 0
        self._sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(sockets)]
        for one in self._sockets:
            one.connect(("127.0.0.1", relay.at.tls))
            one.setblocking(False)

    def _initial(self, server_id, token=b""):
        pair = CryptoPair()
        pair.setup_initial(server_id, is_client=True, version=1)
        ids = bytes([len(server_id)]) + server_id + bytes([len(self._id)]) + self._id
        head = b"\xC3\0\0\0\1" + ids + quic_frames.varint(len(token)) + token
        payload = quic_frames.crypto(0, self.HELLO).ljust(1200 - len(head) - 2 - 4 - 16, b"\0")
        return pair.encrypt_packet(head + struct.pack("!HI", 0x4000 | (4 + len(payload) + 16), 0), payload, 0)

    def _answer(self, one):
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            while packet := one.recv(65536):
                if packet[0] & 0xF0 == 0xF0:
                    at = 6 + packet[5]
                    one.send(self._initial(packet[at + 1:at + 1 + packet[at]], packet[at + 1 + packet[at]:-16]))
                    self.proved += 1

    def run(self):
        begun, at = 0, time.monotonic()
        while not self._end.is_set():
            one = self._sockets[begun % len(self._sockets)]
            with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
                one.send(self._initial(os.urandom(8)))
            self._answer(one)
            begun += 1
            time.sleep(max(0, at + begun / self._rate - time.monotonic()))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self.join()
        for one in self._sockets:
            one.close()


@pytest.mark.parametrize("sockets", [1, 200], ids=["one port", "many ports"])
def test_handshakes_that_are_begun_and_never_ended(egress, certificates, sockets):
    """Where the relay's limit for each source does not hold: behind another relay, whose users come from one address (T20)."""
    relay = egress(**{"num-threads": 1, "peers": ["127.0.0.0/8"], "limits.half-open-retry": 20, "limits.half-open-max": 400})
    count = lambda: relay.vitals.metrics()['twohop_limited_total{limit="half_open"}']

    async def honest():
        async with http3.client(relay.at.tls, certificates.ca) as client:
            return (await client.response(client.get("/index.html")))[0]

    with Beginner(relay, 100, sockets) as beginner:
        vitals.wait(lambda: beginner.proved > 450 and count() > 0, 30, "more handshakes than are allowed")
        for _ in range(8):
            assert asyncio.run(asyncio.wait_for(honest(), 8)) == 200
        metrics = relay.vitals.metrics()
        assert metrics["twohop_quic_half_open"] <= 400
        assert metrics["twohop_connections"] <= 400 + 8, "who has made room is still held"
    vitals.wait(lambda: relay.vitals.metrics()["twohop_quic_half_open"] == 0, 15, "the end of the handshakes")
    vitals.wait(lambda: relay.vitals.metrics()["twohop_connections"] == 0, 5, "the end of the connections")


def test_tokens_of_earlier_connections(egress, certificates, tcp_echo):
    """NEW_TOKEN spares the Retry when the client comes again from its address, and from no other."""
    relay = egress()
    tokens = []

    async def meet():
        configuration = QuicConfiguration(is_client=True, alpn_protocols=["h3"], server_name="localhost", cafile=str(certificates.ca))
        async with connect("127.0.0.1", relay.at.tls, configuration=configuration, token_handler=tokens.append) as client:
            await client.ping()

    with unharmed(relay, certificates, tcp_echo, 64 * MIB):
        for _ in range(2):
            asyncio.run(meet())
        assert len(tokens) == 2 and tokens[0] != tokens[1]
        with half_open(relay, certificates):
            for host, token, answer in (("127.0.0.1", b"", "retry"), ("127.0.0.1", tokens[0], "initial"), ("127.0.0.2", tokens[1], "retry"),
                                        ("127.0.0.1", tokens[1][:-1] + bytes([tokens[1][-1] ^ 1]), "retry"), ("127.0.0.1", tokens[1][:5], "retry"),
                                        ("127.0.0.1", tokens[1], "initial")):
                one = Shaker(relay, certificates, host, token)
                with one.socket:
                    assert one.ask(one.first) == answer, (host, token)


# ---- packets to everybody (T22) ----

def test_packets_to_a_broadcast_or_multicast_address(network, relay, certificates, tmp_path):
    """A relay on a wildcard address gets them; it drops and counts them, and answers what comes to itself."""
    near, far = network.host("near"), network.host("far")
    _, link = network.cable(near, ["10.1.0.1/24", "fd00:1::1/64"], far, ["10.1.0.2/24", "fd00:1::2/64"])
    at = configs.Ports()
    listen = [one for host in ("0.0.0.0", "::") for one in configs._listen(certificates, at, host)]
    started = relay(configs.egress(certificates, tmp_path, at, listen=listen), prefix=near.prefix)

    def answer(family, destination, packet=None):
        """The next packet from the relay, None when there is none in half a second."""
        with far.inside(), socket.socket(family, socket.SOCK_DGRAM) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())
            one.settimeout(0.5)
            quic = QuicConnection(configuration=QuicConfiguration(is_client=True, alpn_protocols=["h3"], server_name="localhost"))
            quic.connect(("127.0.0.1", 1), now=0)
            one.sendto(quic.datagrams_to_send(now=0)[0][0] if packet is None else packet, (destination, at.tls))
            with contextlib.suppress(TimeoutError):
                return one.recv(2000)

    for family, alone, many in ((socket.AF_INET, "10.1.0.1", ("10.1.0.255", "255.255.255.255", "224.0.0.1")),
                                (socket.AF_INET6, "fd00:1::1", ("ff02::1",))):
        assert all(answer(family, destination) is None for destination in many)
        assert answer(family, many[0], b"") is None and answer(family, alone, b"") is None
        assert answer(family, alone) is not None
    with near.inside():
        metrics = vitals.Vitals(started).metrics()
        assert metrics['twohop_dropped_total{reason="bad_packet"}'] == 8
        started.stop(timeout=5)



# ---- packets without a connection (T22) ----

def unknown_version(size=1200):
    return b"\xC3" + struct.pack("!I", 0x1A2A3A4A) + b"\x08" + os.urandom(8) + b"\x08" + os.urandom(8) + bytes(size - 23)


@pytest.mark.parametrize("make", [unknown_version, lambda: b"\x40" + os.urandom(99)], ids=["version", "reset"])
def test_answers_without_a_connection_are_rate_limited(egress, certificates, tcp_echo, make):
    """100 at once and 20 a second to one source, of each of two workers; never more bytes than came. Another source is
    answered all the while."""
    relay = egress()
    with unharmed(relay, certificates, tcp_echo), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect(("127.0.0.1", relay.at.tls))
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * MIB)
        one.setblocking(False)
        at, answers = time.monotonic(), 0
        while time.monotonic() < at + 2:
            packet = make()
            one.send(packet)
            with contextlib.suppress(BlockingIOError):
                while True:
                    assert len(one.recv(65536)) < len(packet)
                    answers += 1
        assert 120 <= answers <= 2 * (100 + 20 * 2.5), answers
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.9", 0))
            other.connect(("127.0.0.1", relay.at.tls))
            other.settimeout(2)
            other.send(make())
            assert other.recv(65536)


def test_a_loop_of_resets_ends(egress, certificates):
    """Whoever answers a stateless reset with one: each is shorter than what it answers."""
    relay = egress()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect(("127.0.0.1", relay.at.tls))
        one.settimeout(0.5)
        packet, rounds = b"\x40" + os.urandom(1199), 0
        with contextlib.suppress(TimeoutError):
            while True:
                one.send(packet)
                answer = one.recv(65536)
                assert len(answer) < len(packet)
                packet, rounds = answer, rounds + 1
        assert 0 < rounds < 30
    asyncio.run(is_served(relay, certificates))


# ---- frames without end (T23, T25) ----

async def flood(client, sender, frames, packets):
    """Sends until all is sent or the relay has closed. frames(i): of the i-th packet."""
    for i in range(packets):
        if client.terminated is not None or client._quic._close_event is not None:
            break
        sender.send(*frames(i))
        if i % 20 == 0:
            await asyncio.sleep(0)
    await asyncio.sleep(0.3)


def deafen(client):
    """Acknowledges nothing any more."""
    client._quic._write_ack_frame = lambda **_: None


def new_ids(i):
    """Each frame retires all IDs before its own."""
    return [quic_frames.new_connection_id(n, n, struct.pack("!Q", n), os.urandom(16)) for n in range(20 + 20 * i, 40 + 20 * i)]


FLOODS = {
    "challenges": lambda i: [quic_frames.path_challenge(os.urandom(8)) for _ in range(100)],
    "new IDs": new_ids,
    "more IDs than allowed": lambda i: [quic_frames.new_connection_id(20 + i, 0, struct.pack("!Q", i), os.urandom(16))],
    "retired IDs": lambda i: [quic_frames.retire_connection_id(i)],
    "blocked": lambda i: [b"\x14" + quic_frames.varint(i), b"\x16" + quic_frames.varint(i), b"\x17" + quic_frames.varint(i)] * 50,
    "pings": lambda i: [quic_frames.PING] * 500,
    "CRYPTO gaps": lambda i: [quic_frames.crypto(2 + 4 * (100 * i + k), b"xx") for k in range(100)],
    "far CRYPTO": lambda i: [quic_frames.crypto(1 << 30, b"x")],
    "TLS KeyUpdate": lambda i: [quic_frames.crypto(0, KEY_UPDATE)],
    "endless TLS message": lambda i: [quic_frames.crypto(1000 * i, (b"\x04\xff\xff\xff" if i == 0 else bytes(4)) + bytes(996))],
}
MUST_CLOSE = {"more IDs than allowed": None, "CRYPTO gaps": None, "far CRYPTO": CRYPTO_BUFFER_EXCEEDED,
              "TLS KeyUpdate": UNEXPECTED_MESSAGE, "endless TLS message": UNEXPECTED_MESSAGE}


@pytest.mark.parametrize("is_deaf", [False, True], ids=["", "without ACKs"])
@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_of(egress, certificates, tcp_echo, name, is_deaf):
    relay = egress()

    async def run():
        async with http3.client(relay.at.tls, certificates.ca) as client:
            assert (await client.response(client.get("/index.html")))[0] == 200
            sender = Sender(client)
            if is_deaf:
                deafen(client)
            await flood(client, sender, FLOODS[name], 3000 if name == "challenges" else 6000)
            event = client._quic._close_event
            if name in MUST_CLOSE:
                assert event is not None, "it is still open"
                assert MUST_CLOSE[name] in (None, event.error_code), event

    with unharmed(relay, certificates, tcp_echo):
        asyncio.run(run())
        assert relay.vitals.load(1) < 0.3


def test_a_key_update_of_tls_behind_finished(egress, certificates, tcp_echo, monkeypatch):
    relay = egress()
    push = QuicConnection._push_crypto_data

    def push_more(self):
        if self._crypto_buffers[Epoch.HANDSHAKE].tell() > 0:
            self._crypto_buffers[Epoch.HANDSHAKE].push_bytes(KEY_UPDATE)
        push(self)

    async def run():
        with contextlib.suppress(ConnectionError):
            async with http3.client(relay.at.tls, certificates.ca) as client:
                await client.until(lambda: client._quic._close_event is not None, 5)

    with unharmed(relay, certificates, tcp_echo), monkeypatch.context() as patch:
        patch.setattr(QuicConnection, "_push_crypto_data", push_more)
        asyncio.run(run())
        patch.undo()


# ---- transport parameters ----

# ms. The second is a few ns for whoever counts in ns and forgets that a number has an end.
@pytest.mark.parametrize("idle", [1, pow(15625, -1, 1 << 58)], ids=["short", "huge"])
def test_an_idle_timeout_does_not_make_a_flood_of_pings(egress, certificates, tcp_echo, idle):
    """A tunnel is kept alive, but not a thousand times a second."""
    relay = egress()

    async def run():
        async with http3.client(relay.at.tls, certificates.ca, announced={"max_idle_timeout": idle}) as client:
            stream = client.connect_tcp(tcp_echo.authority, AUTH)
            assert (await client.response(stream))[0] == 200
            await asyncio.sleep(0.5)
            received = client._quic._spaces[Epoch.ONE_RTT]
            before = received.largest_received_packet
            await asyncio.sleep(2)
            assert received.largest_received_packet - before <= 60

    with unharmed(relay, certificates, tcp_echo):
        asyncio.run(run())


# ---- acknowledgements (T24) ----

@pytest.mark.parametrize("name", ["far", "next"])
def test_acknowledgements_of_what_was_never_sent(egress, certificates, tcp_echo, name):
    relay = egress()

    async def run():
        async with http3.client(relay.at.tls, certificates.ca) as client:
            assert (await client.response(client.get("/index.html")))[0] == 200
            await asyncio.sleep(0.3)
            largest = client._quic._spaces[Epoch.ONE_RTT].largest_received_packet
            Sender(client).send(quic_frames.ack(1 << 20 if name == "far" else largest + 100, 0))
            await client.until(lambda: client._quic._close_event is not None, 3)
            assert client._quic._close_event.error_code == PROTOCOL_VIOLATION

    with unharmed(relay, certificates, tcp_echo):
        asyncio.run(run())


# ---- keys and bits (T31) ----

def test_key_updates(egress, certificates, tcp_echo):
    """A hundred orderly ones, and the tunnel lives."""
    relay = egress()

    async def run():
        async with http3.client(relay.at.tls, certificates.ca) as client:
            stream = client.connect_tcp(tcp_echo.authority, AUTH)
            assert (await client.response(stream))[0] == 200
            for i in range(100):
                client._quic.request_key_update()
                await client.ping()
                client.send(stream, b"%4d" % i)
                await client.until(lambda: client.streams[stream].data.endswith(b"%4d" % i))
            assert client.terminated is None

    with unharmed(relay, certificates, tcp_echo):
        asyncio.run(run())


def test_a_storm_of_key_updates(egress, certificates, tcp_echo):
    """New keys with every packet, without waiting for an answer: ignored or closed, and cheap."""
    relay = egress()

    async def run():
        async with http3.client(relay.at.tls, certificates.ca) as client:
            assert (await client.response(client.get("/index.html")))[0] == 200
            sender, pair = Sender(client), client._quic._cryptos[Epoch.ONE_RTT]
            for i in range(5000):
                if client._quic._close_event is not None:
                    break
                pair._update_key("storm")
                sender.send(quic_frames.PING)
                if i % 20 == 0:
                    await asyncio.sleep(0)
            event = client._quic._close_event
            assert event is None or event.error_code == KEY_UPDATE_ERROR

    with unharmed(relay, certificates, tcp_echo):
        asyncio.run(run())
        assert relay.vitals.load(1) < 0.3


class Flipper(threading.Thread):
    """Between a client and the relay: every twentieth packet has a bit flipped. A context manager."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self._front, self._back = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        self._front.bind(("127.0.0.1", 0))
        self._back.connect(("127.0.0.1", port))
        self.port, self.flipped, self._running = self._front.getsockname()[1], 0, True
        self.is_on = False

    def run(self):
        client, count = None, 0
        while self._running:
            for one in select.select([self._front, self._back], [], [], 0.05)[0]:
                if one is self._front:
                    data, client = one.recvfrom(65536)
                else:
                    data = one.recv(65536)
                count += 1
                if self.is_on and count % 20 == 0:
                    bit = int.from_bytes(os.urandom(4), "big") % (8 * len(data))
                    changed = bytearray(data)
                    changed[bit // 8] ^= 1 << bit % 8
                    data, self.flipped = bytes(changed), self.flipped + 1
                if one is self._front:
                    self._back.send(data)
                else:
                    self._front.sendto(data, client)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._running = False
        self.join()
        self._front.close()
        self._back.close()


def test_flipped_bits(egress, certificates, tcp_echo):
    relay = egress()
    data = os.urandom(MIB)

    async def run(flipper):
        async with http3.client(flipper.port, certificates.ca) as client:
            stream = client.connect_tcp(tcp_echo.authority, AUTH)
            assert (await client.response(stream))[0] == 200
            flipper.is_on = True
            client.send(stream, data)
            state = client.streams[stream]
            await client.until(lambda: len(state.data) == len(data) or client.terminated is not None, 40)
            flipper.is_on = False
            assert client.terminated is None and state.data == data

    with unharmed(relay, certificates, tcp_echo), Flipper(relay.at.tls) as flipper:
        asyncio.run(run(flipper))
        assert flipper.flipped > 20
