"""Hostile HTTP/3: requests that are taken back, streams in crumbs, QPACK, datagrams where none belong (T26, T27, T30)."""
import asyncio
import contextlib
import functools
import struct

import pytest

from harness import attack, capsule, configs, http3, quic_frames, vitals
from harness.attack import MIB, unharmed
from harness.quic_frames import Sender, varint

pytestmark = pytest.mark.xdist_group("load")  # one after the other: they measure time and load

AUTH = ("proxy-authorization", configs.BEARER)
H3_CLOSED_CRITICAL_STREAM, H3_FRAME_UNEXPECTED, H3_EXCESSIVE_LOAD, H3_ID_ERROR = 0x104, 0x105, 0x107, 0x108
H3_STREAM_CREATION_ERROR, H3_SETTINGS_ERROR, H3_DATAGRAM_ERROR = 0x103, 0x109, 0x33
QPACK_DECOMPRESSION_FAILED, QPACK_ENCODER_STREAM_ERROR, QPACK_DECODER_STREAM_ERROR = 0x200, 0x201, 0x202
FLOW_CONTROL_ERROR, STREAM_LIMIT_ERROR, STREAM_STATE_ERROR, FINAL_SIZE_ERROR = 0x03, 0x04, 0x05, 0x06


@pytest.fixture
def egress(relay, certificates, tmp_path):
    return functools.partial(attack.start_egress, relay, certificates, tmp_path)


def literal(name, value):
    """A field line with a literal name (RFC 9204 section 4.5.6)."""
    def prefixed(first, bits, number):
        if number < (1 << bits) - 1:
            return bytes([first | number])
        out, number = [first | (1 << bits) - 1], number - ((1 << bits) - 1)
        while number >= 128:
            out.append(number & 127 | 128)
            number >>= 7
        return bytes([*out, number])
    return prefixed(0x20, 3, len(name)) + name + prefixed(0, 7, len(value)) + value


def frame(kind, payload):
    return varint(kind) + varint(len(payload)) + payload


def section(*fields):
    return b"\0\0" + b"".join(literal(*field) for field in fields)


def connect_head(authority):
    return frame(1, section((b":method", b"CONNECT"), (b":authority", authority.encode()), (b"proxy-authorization", configs.BEARER.encode())))


GET = frame(1, section((b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", b"/large")))


def error_of(client):
    return client._quic._close_event.error_code if client._quic._close_event is not None else None


async def until_closed(client, timeout=5):
    await client.until(lambda: client._quic._close_event is not None, timeout)
    return error_of(client)


# ---- requests that are taken back (T26) ----

def take_back_by_reset(client, target):
    stream = client.connect_tcp(target, AUTH)
    client._quic.reset_stream(stream, 0x10C)


def take_back_by_stop(client, target):
    """A GET whose answer is not wanted."""
    stream = client.get("/large")
    client._quic.stop_stream(stream, 0x10C)


def take_back_both(client, target):
    stream = client.connect_tcp(target, AUTH)
    client._quic.reset_stream(stream, 0x10C)
    client._quic.stop_stream(stream, 0x10C)


def take_back_unseen(client, target):
    """RESET_STREAM of a stream of which nothing came."""
    stream = client._quic.get_next_available_stream_id()
    client._quic._get_or_create_stream_for_send(stream)
    client._quic.reset_stream(stream, 0x10C)


def malformed(client, target):
    """Makes the relay reset."""
    client.open([(":method", "CONNECT"), (":authority", target), ("connection", "close")])


@pytest.mark.parametrize("take_back", [take_back_by_reset, take_back_by_stop, take_back_both, take_back_unseen, malformed])
def test_rapid_reset(egress, certificates, tcp_echo, take_back):
    relay = egress()

    async def run():
        async with http3.client(relay.at.tls, certificates.ca) as client:
            for i in range(5000):
                if error_of(client) is not None:
                    break
                while client._quic.get_next_available_stream_id() // 4 >= client._quic._remote_max_streams_bidi and error_of(client) is None:
                    await asyncio.sleep(0.002)
                take_back(client, tcp_echo.authority)
                client.transmit()
                if i % 20 == 0:
                    await asyncio.sleep(0.01)
            assert await until_closed(client) == H3_EXCESSIVE_LOAD, i

    with unharmed(relay, certificates, tcp_echo, 40 * MIB):  # a hundred answers that are not read
        before = relay.vitals.metrics()
        asyncio.run(run())
        after = relay.vitals.metrics()
        served = 'twohop_requests_total{version="3"}'
        assert after[served] - before[served] <= 1000
        assert after['twohop_limited_total{limit="resets"}'] - before['twohop_limited_total{limit="resets"}'] == 1
        vitals.wait(lambda: relay.vitals.tunnels() == 1, 5)


# ---- streams in crumbs (T26) ----

async def pour(client, sender, frames):
    """Packets full of these frames, as many as fit, until the relay closes."""
    packet, size, sent = [], 0, 0
    for one in frames:
        if size + len(one) > 1150:
            if error_of(client) is not None:
                return
            sender.send(*packet)
            packet, size, sent = [], 0, sent + 1
            if sent % 10 == 0:
                await asyncio.sleep(0.001)
        packet.append(one)
        size += len(one)
    if error_of(client) is None:
        sender.send(*packet)
    await asyncio.sleep(0.3)


def crumbs(target):
    """A tunnel's bytes, one by one."""
    head = connect_head(target)
    yield quic_frames.stream(0, 0, head)
    for i in range(60000):
        yield quic_frames.stream(0, len(head) + i, b"x" if i else b"\0")


def head_in_crumbs(target):
    for i, byte in enumerate(GET):
        yield quic_frames.stream(0, i, bytes([byte]), i + 1 == len(GET))


def backwards(target):
    for i in range(2000, -1, -1):
        yield quic_frames.stream(0, i, b"x")


def empty_frames(target):
    for _ in range(100000):
        yield quic_frames.stream(0, 0, b"")


def gaps(target):
    """Every second byte of as many streams as there may be."""
    for stream in range(0, 400, 4):
        for i in range(1000):
            yield quic_frames.stream(stream, 1 + 2 * i, b"x")


@pytest.mark.parametrize("frames", [crumbs, head_in_crumbs, backwards, empty_frames, gaps])
def test_streams_in_crumbs(egress, certificates, tcp_echo, frames):
    relay = egress()

    async def run():
        async with http3.client(relay.at.tls, certificates.ca) as client:
            await pour(client, Sender(client), frames(tcp_echo.authority))

    with unharmed(relay, certificates, tcp_echo, 32 * MIB):
        asyncio.run(run())
        assert relay.vitals.load(1) < 0.3


def test_gaps_over_many_connections(egress, certificates, tcp_echo):
    """As many streams as the connection's window lets in, and 900 gaps in each."""
    relay = egress()

    async def run():
        async with contextlib.AsyncExitStack() as stack:
            rss = relay.vitals.rss()
            for _ in range(8):
                client = await stack.enter_async_context(http3.client(relay.at.tls, certificates.ca))
                await pour(client, Sender(client), (quic_frames.stream(4 * s, 2 + 2 * i, b"x") for s in range(46) for i in range(900)))
                assert error_of(client) is None
            assert (relay.vitals.rss() - rss) / 8 < 12 * MIB, (relay.vitals.rss() - rss) / 8 / MIB

    with unharmed(relay, certificates, tcp_echo, 32 * MIB):
        asyncio.run(run())


def test_a_strangers_window_is_small(egress, certificates, tcp_echo):
    """ngtcp2 keeps one byte in 4 KiB of memory, until what is before it comes: as much as the window of the connection,
    which is small until there is a tunnel."""
    relay = egress()

    def sparse(client):
        left, quic = client._quic._remote_max_data, client._quic
        for stream in range(0, 400, 4):
            most = min(left, quic._remote_max_stream_data_bidi_remote)
            yield from (quic_frames.stream(stream, at, b"x") for at in range(1, most, 4096))
            left -= most

    async def run():
        async with contextlib.AsyncExitStack() as stack:
            rss = relay.vitals.rss()
            for _ in range(8):
                client = await stack.enter_async_context(http3.client(relay.at.tls, certificates.ca))
                await pour(client, Sender(client), sparse(client))
                assert error_of(client) is None
            assert (relay.vitals.rss() - rss) / 8 < 4 * MIB, (relay.vitals.rss() - rss) / 8 / MIB

    async def with_a_tunnel():
        async with http3.client(relay.at.tls, certificates.ca) as client:
            assert (await client.response(client.connect_tcp(tcp_echo.authority, AUTH)))[0] == 200
            await client.until(lambda: client._quic._remote_max_data >= 6 * MIB, 5)

    with unharmed(relay, certificates, tcp_echo, 32 * MIB):
        asyncio.run(run())
        asyncio.run(with_a_tunnel())


WRONG = {  # frames, and the transport error that ends the connection
    "above the stream window": ([quic_frames.stream(0, 1 << 20, b"x")], FLOW_CONTROL_ERROR),
    "above the connection's window": ([quic_frames.stream(4 * i, 127 * 1024, b"x") for i in range(60)], FLOW_CONTROL_ERROR),
    "above the number of streams": ([quic_frames.stream(400, 0, b"x")], STREAM_LIMIT_ERROR),
    "another final size": ([quic_frames.reset_stream(0, 0, 10), quic_frames.stream(0, 10, b"x")], FINAL_SIZE_ERROR),
    "reset below the final size": ([quic_frames.stream(0, 0, b"xx"), quic_frames.reset_stream(0, 0, 1)], FINAL_SIZE_ERROR),
    "a stream of the server's": ([quic_frames.stream(1, 0, b"x")], STREAM_STATE_ERROR),
    "STOP_SENDING for a stream of one way": ([quic_frames.stop_sending(2, 0)], STREAM_STATE_ERROR),
    "HANDSHAKE_DONE": ([b"\x1e"], 0x0A),
    "NEW_TOKEN": ([b"\x07\x01x"], 0x0A),
    "unknown frame": ([b"\x21"], 0x07),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_frames(egress, certificates, tcp_echo, name):
    relay = egress()
    frames, code = WRONG[name]

    async def run():
        async with http3.client(relay.at.tls, certificates.ca) as client:
            await client.ping()
            Sender(client).send(*frames)
            assert await until_closed(client) == code

    with unharmed(relay, certificates, tcp_echo):
        asyncio.run(run())


# ---- control streams and QPACK (T27) ----

def indexed(count):
    """A section that needs `count` entries which were never inserted: encoded Required Insert Count, Base, first entry."""
    return bytes([count + 1, 0, 0x80])


# Where the bytes go, what they are, and the error.
STREAMS = {
    "capacity above the limit": ("encoder", b"\x3f\xe2\x1f", QPACK_ENCODER_STREAM_ERROR),  # 4097
    "giant name": ("encoder", b"\x5f" + b"\xff" * 8 + b"\x7f", QPACK_ENCODER_STREAM_ERROR),
    "entry larger than the table": ("encoder", b"\x3f\xe1\x1f\x41a\x7f\xe1\x3e" + bytes(8160), QPACK_ENCODER_STREAM_ERROR),
    "duplicate of nothing": ("encoder", b"\x05", QPACK_ENCODER_STREAM_ERROR),
    "acknowledges what was never sent": ("decoder", b"\x80", QPACK_DECODER_STREAM_ERROR),
    "counts what was never inserted": ("decoder", b"\x3f\x10", QPACK_DECODER_STREAM_ERROR),
    "second control stream": ("new", b"\0\4\0", H3_STREAM_CREATION_ERROR),
    "second encoder stream": ("new", b"\2", H3_STREAM_CREATION_ERROR),
    "push stream": ("new", b"\1\0", H3_STREAM_CREATION_ERROR),
    "second SETTINGS": ("control", frame(4, b""), H3_FRAME_UNEXPECTED),
    "DATA on the control stream": ("control", frame(0, b"x"), H3_FRAME_UNEXPECTED),
    "HTTP/2 setting": ("control", frame(4, b"\2\0"), H3_FRAME_UNEXPECTED),
    "HTTP/2 frame": ("control", frame(6, bytes(8)), H3_FRAME_UNEXPECTED),
    "invalid static index": ("request", frame(1, b"\0\0\xff\x7f"), QPACK_DECOMPRESSION_FAILED),
    "giant literal": ("request", varint(1) + varint(1 << 29) + b"\0\0\x27\xff\xff\xff\xff\x07", H3_EXCESSIVE_LOAD),
    "giant value": ("request", varint(1) + varint(1 << 29) + b"\0\0\x21a\x7f\xff\xff\xff\xff\x07", H3_EXCESSIVE_LOAD),
    "endless number": ("request", varint(1) + varint(1 << 29) + b"\0\0\x27" + b"\xff" * 20, QPACK_DECOMPRESSION_FAILED),
    "base below zero": ("request", frame(1, b"\2\xff\x10"), QPACK_DECOMPRESSION_FAILED),
    "DATA before the head": ("request", frame(0, b"x"), H3_FRAME_UNEXPECTED),
    "SETTINGS on a request": ("request", frame(4, b""), H3_FRAME_UNEXPECTED),
}


@pytest.mark.parametrize("name", STREAMS)
def test_wrong_streams(egress, certificates, tcp_echo, name):
    relay = egress()
    where, data, code = STREAMS[name]

    async def run():
        async with http3.client(relay.at.tls, certificates.ca) as client:
            await client.ping()
            quic, h3 = client._quic, client.http
            stream = {"encoder": h3._local_encoder_stream_id, "decoder": h3._local_decoder_stream_id,
                      "control": h3._local_control_stream_id, "new": None, "request": None}[where]
            if stream is None:
                stream = quic.get_next_available_stream_id(is_unidirectional=where == "new")
            quic.send_stream_data(stream, data)
            client.transmit()
            assert await until_closed(client) == code

    with unharmed(relay, certificates, tcp_echo):
        asyncio.run(run())


def longer(number, size):
    """A number in more bytes than it needs (RFC 9000 section 16)."""
    return (number | {2: 1, 4: 2, 8: 3}[size] << 8 * size - 2).to_bytes(size, "big")


def test_priority_updates_in_pieces(egress, certificates, tcp_echo):
    """Cut at every byte (RFC 9218 section 7.2). nghttp3 does not bear what ends behind the element ID."""
    relay = egress()
    updates = [varint(0) + b"u=1", longer(4, 2) + b"u=2,i", longer(8, 4), longer(12, 8) + b"u=3", varint(16) + b" " * 30 + b"u=1"]

    async def run(cut):
        async with http3.client(relay.at.tls, certificates.ca) as client:
            await client.ping()
            for one in updates:
                data = frame(0xF0700, one)
                for piece in (data[:cut], data[cut:]):
                    client._quic.send_stream_data(client.http._local_control_stream_id, piece)
                    client.transmit()
                    await asyncio.sleep(0)
            assert (await client.response(client.get("/index.html")))[0] == 200
            assert error_of(client) is None

    with unharmed(relay, certificates, tcp_echo, 32 * MIB):
        for cut in range(1, 18):
            asyncio.run(run(cut))


@pytest.mark.parametrize("which", ["control", "encoder", "decoder"])
@pytest.mark.parametrize("how", ["end", "reset"])
def test_a_critical_stream_ends(egress, certificates, tcp_echo, which, how):
    relay = egress()

    async def run():
        async with http3.client(relay.at.tls, certificates.ca) as client:
            await client.ping()
            stream = getattr(client.http, f"_local_{which}_stream_id")
            if how == "end":
                client._quic.send_stream_data(stream, b"", end_stream=True)
            else:
                client._quic.reset_stream(stream, 0)
            client.transmit()
            assert await until_closed(client) == H3_CLOSED_CRITICAL_STREAM

    with unharmed(relay, certificates, tcp_echo):
        asyncio.run(run())


def test_blocked_streams(egress, certificates, tcp_echo):
    """16 may wait for the encoder stream, which says nothing: they end when a head must be complete. One more is an error."""
    relay = egress()

    async def run(count):
        async with http3.client(relay.at.tls, certificates.ca) as client:
            await client.ping()
            client._quic.send_stream_data(client.http._local_encoder_stream_id, b"\x3f\xe1\x1f")  # a table of 4096
            for _ in range(count):
                client._quic.send_stream_data(client._quic.get_next_available_stream_id(), frame(1, indexed(1)))
                client.transmit()
            if count > 16:
                assert await until_closed(client) == QPACK_DECOMPRESSION_FAILED
            else:
                stream = client.get("/index.html")
                assert (await client.response(stream))[0] == 200
                assert error_of(client) is None

    with unharmed(relay, certificates, tcp_echo):
        asyncio.run(run(16))
        asyncio.run(run(17))


class Deaf:
    """aioquic's QPACK encoder, but for what the relay's decoder tells it."""

    def __init__(self, encoder):
        self.encode = encoder.encode

    def feed_decoder(self, data):
        pass


def test_a_head_that_is_too_big(egress, certificates, tcp_echo):
    """431 at 16 KiB decoded or 100 fields, however small on the wire (references to one entry of the table)."""
    relay = egress()
    plain = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/index.html")]

    async def in_full():
        async with http3.client(relay.at.tls, certificates.ca) as client:
            for more in ([("x", "y" * 17000)], [("cookie", "a=b")] * 101):
                assert (await client.response(client.open(plain + more, end=True)))[0] == 431
            assert (await client.response(client.open(plain, end=True)))[0] == 200

    async def by_reference():
        async with http3.client(relay.at.tls, certificates.ca) as client:
            await client.ping()
            client.http._encoder = Deaf(client.http._encoder)  # it does not know what was inserted
            client._quic.send_stream_data(client.http._local_encoder_stream_id,
                                          b"\x3f\xe1\x1f" + b"\x41a\x7f\xa1\x1e" + b"v" * 4000)
            client.transmit()
            await client.ping()
            fields = section(*[(name.encode(), value.encode()) for name, value in plain])[2:]
            for count, status in ((1, 200), (5000, 431)):
                stream = client._quic.get_next_available_stream_id()
                client.streams[stream] = http3.Stream()
                client._quic.send_stream_data(stream, frame(1, b"\2\0" + fields + b"\x80" * count), True)
                client.transmit()
                assert (await client.response(stream))[0] == status

    with unharmed(relay, certificates, tcp_echo):
        asyncio.run(in_full())
        asyncio.run(by_reference())


# ---- datagrams where none belong (T30) ----

def datagram(quarter, payload=b"\0x"):
    return b"\x31" + varint(len(varint(quarter) + payload)) + varint(quarter) + payload


def test_datagrams(egress, certificates, tcp_echo, udp_echo):
    relay = egress()
    dropped = 'twohop_dropped_total{reason="unknown_stream"}'
    path = f"/.well-known/masque/udp/127.0.0.1/{udp_echo.port}/"

    async def closes_with(code, *frames):
        async with http3.client(relay.at.tls, certificates.ca) as client:
            await client.ping()
            Sender(client).send(*frames)
            assert await until_closed(client) == code

    async def is_dropped(count, *frames):
        before = relay.vitals.metrics()[dropped]
        async with http3.client(relay.at.tls, certificates.ca) as client:
            await client.ping()
            for one in frames:
                Sender(client).send(one)
            vitals.wait(lambda: relay.vitals.metrics()[dropped] == before + count, 3)
            udp = client.connect_udp(path, AUTH)
            assert (await client.response(udp))[0] == 200
            assert error_of(client) is None

    async def on_stream(open_one):
        """On a request that has no datagrams: the stream's error, and nobody else's."""
        async with http3.client(relay.at.tls, certificates.ca) as client:
            other = client.connect_tcp(tcp_echo.authority, AUTH)
            stream = open_one(client)
            state = client.streams[stream]
            if open_one is connect:
                assert (await client.response(stream))[0] == 200
            else:
                await client.ping()
            Sender(client).send(datagram(stream // 4))
            await client.until(lambda: state.reset is not None or error_of(client) is not None, 5)
            assert state.reset == H3_DATAGRAM_ERROR
            assert error_of(client) is None
            assert (await client.response(other))[0] == 200
            client.send(other, b"alive")
            await client.until(lambda: client.streams[other].data == b"alive")
            before = relay.vitals.metrics()[dropped]
            Sender(client).send(datagram(stream // 4), datagram(stream // 4))  # closed now: dropped
            vitals.wait(lambda: relay.vitals.metrics()[dropped] == before + 2, 3)

    def connect(client):
        return client.connect_tcp(tcp_echo.authority, AUTH)

    def unfinished(client):
        """A request whose body is still to come."""
        return client.open([(":method", "POST"), (":scheme", "https"), (":authority", "localhost"), (":path", "/index.html")])

    async def without_setting():
        """Our SETTINGS do not allow datagrams (RFC 9297 section 2.1.1): the relay sends capsules."""
        async with http3.client(relay.at.tls, certificates.ca, max_datagram_frame_size=None) as client:
            udp = client.connect_udp(path, AUTH)
            assert (await client.response(udp))[0] == 200
            client.send(udp, capsule.datagram(b"ping"))
            await client.until(lambda: len(client.streams[udp].data) >= 7)
            assert client.streams[udp].data == capsule.datagram(b"ping")

    with unharmed(relay, certificates, tcp_echo):
        asyncio.run(closes_with(H3_DATAGRAM_ERROR, b"\x31\0"))
        asyncio.run(closes_with(H3_DATAGRAM_ERROR, b"\x31\1\x40"))
        asyncio.run(closes_with(H3_DATAGRAM_ERROR, b"\x31\x08" + struct.pack("!Q", 0xD << 60)))
        asyncio.run(closes_with(H3_ID_ERROR, datagram(100)))
        asyncio.run(closes_with(H3_ID_ERROR, datagram((1 << 60) - 1)))
        asyncio.run(is_dropped(12, *[datagram(99)] * 20))  # eight are kept for a stream that may still come
        asyncio.run(on_stream(connect))
        asyncio.run(on_stream(unfinished))
        asyncio.run(without_setting())
