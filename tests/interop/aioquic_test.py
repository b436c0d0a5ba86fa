"""aioquic against the HTTP/3 driver: CONNECT and CONNECT-UDP, and rows T17, T28 to T30, T35, T36 as far as it can send them."""
import asyncio
import hashlib
import os
import signal
import socket

import pytest

from aioquic.buffer import encode_uint_var
from harness import capsule, configs, http3, ports, vitals

AUTH = ("proxy-authorization", configs.BEARER)
METHOD, PROTOCOL, SCHEME = (":method", "CONNECT"), (":protocol", "connect-udp"), (":scheme", "https")
HOST, CAPSULES = (":authority", "localhost"), ("capsule-protocol", "?1")
H3_ID_ERROR, H3_MESSAGE_ERROR, H3_DATAGRAM_ERROR, H3_REQUEST_CANCELLED = 0x108, 0x10E, 0x33, 0x10C


def path(echo):
    return f"/.well-known/masque/udp/{echo.host.replace(':', '%3A')}/{echo.port}/"


@pytest.fixture
def run(egress, certificates):
    """run(scenario) starts a relay and runs scenario(client) with a connected client; client.relay is the relay."""
    def start(scenario, client_options=None, **more):
        relay = egress(**more)

        async def inner():
            async with http3.client(relay.at.tls, certificates.ca, **(client_options or {})) as client:
                client.relay = relay
                await scenario(client)

        asyncio.run(inner())

    return start


async def open_udp(client, echo):
    stream = client.connect_udp(path(echo), AUTH)
    assert (await client.response(stream))[0] == 200
    return stream


async def lives(client, stream):
    """Whether a datagram still comes back on this tunnel."""
    state = client.streams[stream]
    state.datagrams.clear()
    for _ in range(5):
        client.send_datagram(stream, b"\0alive?")
        try:
            await client.until(lambda: b"\0alive?" in state.datagrams, 1)
            return True
        except TimeoutError:
            continue
    return False


async def wait_reset(client, stream):
    state = client.streams[stream]
    await client.until(lambda: state.reset is not None or client.terminated is not None)
    return state.reset


# ---- CONNECT ----

def test_many_streams(run, tcp_echo):
    """60 tunnels on one connection, each with its own bytes."""
    async def scenario(client):
        tunnels = [client.connect_tcp(tcp_echo.authority, AUTH) for _ in range(60)]
        payloads = {stream: os.urandom(30_000) for stream in tunnels}
        for stream in tunnels:
            assert (await client.response(stream))[0] == 200
            client.send(stream, payloads[stream], end=True)
        for stream in tunnels:
            state = client.streams[stream]
            await client.until(lambda: state.ended, 30)
            assert state.data == payloads[stream]

    run(scenario, **{"num-threads": 2})


def test_big_transfer(run, tcp_echo):
    async def scenario(client):
        stream = client.connect_tcp(tcp_echo.authority, AUTH)
        assert (await client.response(stream))[0] == 200
        data = os.urandom(8 << 20)
        client.send(stream, data, end=True)
        state = client.streams[stream]
        await client.until(lambda: state.ended or client.terminated is not None, 40)
        assert hashlib.sha256(state.data).digest() == hashlib.sha256(data).digest()

    run(scenario)


def test_a_reset_of_the_client_reaches_the_target(run):
    listener = socket.create_server(("127.0.0.1", 0))

    async def scenario(client):
        stream = client.connect_tcp(f"127.0.0.1:{listener.getsockname()[1]}", AUTH)
        assert (await client.response(stream))[0] == 200
        target, _ = listener.accept()
        client._quic.reset_stream(stream, H3_REQUEST_CANCELLED)
        client._quic.stop_stream(stream, H3_REQUEST_CANCELLED)
        client.transmit()
        target.settimeout(10)
        with pytest.raises(ConnectionResetError):
            await asyncio.to_thread(target.recv, 1)
            raise AssertionError("a clean end")
        target.close()

    run(scenario)
    listener.close()


def test_cancelled_at_once(run, tcp_echo, udp_echo):
    """T28: head and reset in one flight."""
    async def scenario(client):
        for index in range(100):
            stream = (client.connect_tcp(tcp_echo.authority, AUTH) if index % 2 else client.connect_udp(path(udp_echo), AUTH))
            client._quic.reset_stream(stream, H3_REQUEST_CANCELLED)
            client._quic.stop_stream(stream, H3_REQUEST_CANCELLED)
            client.transmit()
            if index % 10 == 0:
                await asyncio.sleep(0.02)
        assert (await client.response(client.get("/index.html")))[0] == 200
        await asyncio.to_thread(vitals.wait, lambda: vitals.Vitals(client.relay).tunnels() == 0)

    run(scenario)


def test_wrong_tokens(run, tcp_echo, udp_echo):
    async def scenario(client):
        wrong = ("proxy-authorization", "Bearer wrong")
        status, fields = await client.response(client.connect_tcp(tcp_echo.authority, wrong))
        assert status == 407 and "proxy-authenticate" in fields
        status, fields = await client.response(client.connect_udp(path(udp_echo), wrong))
        assert status == 401 and "www-authenticate" in fields
        assert (await client.response(client.connect_udp(path(udp_echo))))[0] == 401
        assert await lives(client, await open_udp(client, udp_echo))

    run(scenario)


def test_refusals(run):
    async def scenario(client):
        for target, status, reason in ((f"127.0.0.1:{ports.free_port()}", 502, "connection_refused"),
                                       ("169.254.169.254:80", 403, "destination_ip_prohibited"),
                                       ("nowhere.invalid:80", 502, "dns_error")):
            stream = client.connect_tcp(target, AUTH)
            answer, fields = await client.response(stream)
            assert answer == status and reason in fields["proxy-status"], target
            await client.until(lambda: client.streams[stream].ended)
            assert client.streams[stream].data == b""

    run(scenario)


# ---- CONNECT-UDP ----

def test_datagrams_before_the_response(run, udp_echo):
    """RFC 9298 section 5: they may be sent with the request; eight of them wait for the target's socket."""
    async def scenario(client):
        stream = client.connect_udp(path(udp_echo), AUTH)
        for index in range(8):
            client.send_datagram(stream, b"\0early %d" % index)
        assert (await client.response(stream))[0] == 200
        state = client.streams[stream]
        await client.until(lambda: len(state.datagrams) == 8)
        assert sorted(state.datagrams) == [b"\0early %d" % index for index in range(8)]

    run(scenario)


def test_datagrams_and_capsules_together(run, udp_echo):
    """The answers come as DATAGRAM frames, because the client can take them."""
    async def scenario(client):
        stream = await open_udp(client, udp_echo)
        for size in (0, 1, 1000):
            client.send(stream, capsule.datagram(b"c" * size))
            client.send_datagram(stream, b"\0" + b"d" * size)
        state = client.streams[stream]
        await client.until(lambda: len(state.datagrams) == 6)
        assert sorted(len(datagram) - 1 for datagram in state.datagrams) == [0, 0, 1, 1, 1000, 1000]
        assert state.data == b""

    run(scenario)


def test_without_datagram_frames(run, udp_echo):
    """A client that takes no DATAGRAM frames gets capsules."""
    async def scenario(client):
        stream = await open_udp(client, udp_echo)
        for size in (1, 1200, 9000):
            client.send(stream, capsule.datagram(b"c" * size))
        state, reader, got = client.streams[stream], capsule.Reader(), []

        def there():
            data, state.data = state.data, b""
            got.extend(reader.feed(data))
            return len(got) == 3
        await client.until(there)
        assert sorted(len(value) - 1 for _, value in got) == [1, 1200, 9000]

    run(scenario, client_options={"max_datagram_frame_size": 0})


def test_many_tunnels(run, udp_echo):
    async def scenario(client):
        tunnels = [await open_udp(client, udp_echo) for _ in range(50)]
        for stream in tunnels:
            client.send_datagram(stream, b"\0" + b"%d" % stream)
        for stream in tunnels:
            state = client.streams[stream]
            await client.until(lambda: state.datagrams)
            assert state.datagrams == [b"\0%d" % stream]
        assert len(udp_echo.peers) == 50

    run(scenario)


def test_unknown_capsules_and_contexts(run, udp_echo):
    """T35."""
    async def scenario(client):
        stream = await open_udp(client, udp_echo)
        for kind in (0x17, 0x29 * 7 + 0x17, (1 << 62) - 1):
            client.send(stream, capsule.capsule(kind, os.urandom(3000)))
        client.send(stream, b"\x40\x00\x40\x06\x40\x00wide")  # not minimal
        for context in (1, 2, 1 << 61):
            client.send_datagram(stream, capsule.varint(context) + b"unknown")
        assert await lives(client, stream)

    run(scenario)


def test_a_datagram_without_a_context_id(run, udp_echo):
    """Malformed: it ends its stream and no other."""
    async def scenario(client):
        stream, other = await open_udp(client, udp_echo), await open_udp(client, udp_echo)
        client.send_datagram(stream, b"")
        assert await wait_reset(client, stream) in (H3_MESSAGE_ERROR, H3_DATAGRAM_ERROR)
        assert await lives(client, other)

    run(scenario)


@pytest.mark.parametrize("cut", [b"\x40", b"\x00\x05\x00ab", b"\x17" + b"\xff" * 8 + b"abc"])
def test_a_capsule_cut_by_the_end_is_malformed(run, udp_echo, cut):
    """T36."""
    async def scenario(client):
        stream = await open_udp(client, udp_echo)
        client.send(stream, cut, end=True)
        assert await wait_reset(client, stream) in (H3_MESSAGE_ERROR, H3_DATAGRAM_ERROR)
        assert (await client.response(client.get("/index.html")))[0] == 200

    run(scenario)


# ---- T17 ----

def test_heads_of_extended_connect(run, udp_echo):
    at = (":path", path(udp_echo))
    heads = {
        "complete": ([METHOD, PROTOCOL, SCHEME, HOST, at, CAPSULES, AUTH], 200),
        "no path": ([METHOD, PROTOCOL, SCHEME, HOST, CAPSULES, AUTH], None),
        "no scheme": ([METHOD, PROTOCOL, HOST, at, CAPSULES, AUTH], None),
        "wrong scheme": ([METHOD, PROTOCOL, (":scheme", "masque"), HOST, at, CAPSULES, AUTH], None),
        "no authority": ([METHOD, PROTOCOL, SCHEME, at, CAPSULES, AUTH], None),
        "content-length": ([METHOD, PROTOCOL, SCHEME, HOST, at, CAPSULES, AUTH, ("content-length", "10")], None),
        "not CONNECT": ([(":method", "GET"), PROTOCOL, SCHEME, HOST, at, CAPSULES, AUTH], None),
        "plain CONNECT with a path": ([METHOD, HOST, at, AUTH], None),
        "another protocol": ([METHOD, (":protocol", "connect-ip"), SCHEME, HOST, at, CAPSULES, AUTH], 501),
        "no token": ([METHOD, PROTOCOL, SCHEME, HOST, at, CAPSULES], 401),
    }

    async def scenario(client):
        for name, (head, expected) in heads.items():
            stream = client.open(head)
            status, _ = await client.response(stream)
            assert client.terminated is None, name
            if expected is None:
                assert status == 400 or client.streams[stream].reset == H3_MESSAGE_ERROR, (name, status)
            else:
                assert status == expected, name
        assert (await client.response(client.get("/index.html")))[0] == 200

    run(scenario)


# ---- T30 ----

def send_raw_datagram(client, quarter, payload=b"\0x"):
    client._quic.send_datagram_frame(encode_uint_var(quarter) + payload)
    client.transmit()


def test_datagrams_of_other_streams(run, udp_echo):
    """Not yet opened: waits or is dropped. Closed: dropped. The connection and its tunnel live."""
    async def scenario(client):
        stream = await open_udp(client, udp_echo)
        closed = await open_udp(client, udp_echo)
        client._quic.reset_stream(closed, H3_REQUEST_CANCELLED)
        client._quic.stop_stream(closed, H3_REQUEST_CANCELLED)
        for _ in range(20):
            send_raw_datagram(client, closed // 4)
            send_raw_datagram(client, closed // 4 + 10)
        assert await lives(client, stream) and client.terminated is None

    run(scenario)


def test_a_datagram_above_the_stream_limit(run, udp_echo):
    async def scenario(client):
        await open_udp(client, udp_echo)
        send_raw_datagram(client, 100_000)
        await client.until(lambda: client.terminated is not None)
        assert client.terminated == H3_ID_ERROR

    run(scenario)


@pytest.mark.parametrize("data", [b"", b"\x40", b"\xff\xff\xff\xff\xff\xff\xff\xff"], ids=["empty", "cut", "above 2^60"])
def test_a_bad_quarter_stream_id(run, udp_echo, data):
    async def scenario(client):
        await open_udp(client, udp_echo)
        client._quic.send_datagram_frame(data)
        client.transmit()
        await client.until(lambda: client.terminated is not None)
        assert client.terminated in (H3_DATAGRAM_ERROR, H3_ID_ERROR)

    run(scenario)


def test_a_datagram_on_a_plain_connect(run, udp_echo, tcp_echo):
    async def scenario(client):
        tunnel = await open_udp(client, udp_echo)
        plain = client.connect_tcp(tcp_echo.authority, AUTH)
        assert (await client.response(plain))[0] == 200
        send_raw_datagram(client, plain // 4)
        assert await wait_reset(client, plain) == H3_DATAGRAM_ERROR
        assert await lives(client, tunnel)

    run(scenario)


# ---- the connection ----

@pytest.mark.parametrize("workers", [1, 2])
def test_migration(run, udp_echo, tcp_echo, workers):
    """The client's socket changes under both kinds of tunnel, three times, with fresh connection IDs."""
    async def scenario(client):
        udp = await open_udp(client, udp_echo)
        tcp = client.connect_tcp(tcp_echo.authority, AUTH)
        assert (await client.response(tcp))[0] == 200
        for index in range(3):
            fresh = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            fresh.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            fresh.bind(("::", 0))
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: Onward(client), sock=fresh)
            old, client._transport = client._transport, transport
            client._quic.change_connection_id()
            client.transmit()
            assert await lives(client, udp), index
            client.send(tcp, b"moved %d" % index)
            await client.until(lambda: client.streams[tcp].data.endswith(b"moved %d" % index))
            old.close()

    run(scenario, **{"num-threads": workers})


class Onward(asyncio.DatagramProtocol):
    """Hands what a new socket receives to the client."""

    def __init__(self, client):
        self.client = client

    def datagram_received(self, data, address):
        self.client.datagram_received(data, address)


def test_retry(run, udp_echo):
    """limits.half-open-retry: 0 asks every client to show its address."""
    async def scenario(client):
        assert client._quic._retry_source_connection_id is not None
        assert await lives(client, await open_udp(client, udp_echo))

    run(scenario, **{"limits.half-open-retry": 0})


def test_goaway_on_sigterm(run, udp_echo):
    """The tunnel lives on, new requests are refused, and the relay ends with its last tunnel."""
    async def scenario(client):
        tunnel = await open_udp(client, udp_echo)
        client.relay.signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        assert await lives(client, tunnel)
        late = client.get("/index.html")
        assert (await client.response(late))[0] in (None, 200, 503)  # 200: it crossed with the first GOAWAY
        assert await lives(client, tunnel) and client.relay.running()
        client.send(tunnel, b"", end=True)
        await asyncio.to_thread(client.relay.wait_end, 10)

    run(scenario)


def test_a_large_head_is_431(run):
    """16 KiB and 100 fields."""
    async def scenario(client):
        head = [(":method", "GET"), SCHEME, HOST, (":path", "/index.html")]
        for more in ([("x", "y" * 17_000)], [(f"x{index}", "y") for index in range(101)]):
            stream = client.open(head + more, end=True)
            status, _ = await client.response(stream)
            assert status == 431 or client.streams[stream].reset is not None or client.terminated is not None
            if client.terminated is not None:
                return
        assert (await client.response(client.get("/index.html")))[0] == 200

    run(scenario)


def test_another_quic_version_is_negotiated(egress, certificates, udp_echo):
    """An Initial of an unknown version gets a Version Negotiation packet that is smaller."""
    relay = egress()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.settimeout(5)
        probe = b"\xc0\x1a\x2a\x3a\x4a\x08" + os.urandom(8) + b"\x08" + os.urandom(8)
        peer.sendto(probe + bytes(1200 - len(probe)), ("127.0.0.1", relay.at.tls))
        answer = peer.recv(2000)
        assert answer[1:5] == bytes(4) and b"\0\0\0\1" in answer[5:] and len(answer) < 1200
