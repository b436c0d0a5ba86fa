"""python3-h2 against the HTTP/2 driver: extended CONNECT, rows T17, T35 to T37 and T39 of what a relay must survive."""
import time
import os

import pytest

from harness import capsule, configs, http2, vitals

AUTH = ("proxy-authorization", configs.BEARER)
METHOD, PROTOCOL, SCHEME = (":method", "CONNECT"), (":protocol", "connect-udp"), (":scheme", "https")
HOST, CAPSULES = (":authority", "localhost"), ("capsule-protocol", "?1")
PROTOCOL_ERROR = 1


def path(echo):
    return f"/.well-known/masque/udp/{echo.host.replace(':', '%3A')}/{echo.port}/"


@pytest.fixture
def connection(egress, certificates):
    relay = egress()
    with http2.Connection(relay.at.tls, context=certificates.client_context(["h2"])) as client:
        client.relay = relay
        yield client


@pytest.fixture
def tunnel(connection, udp_echo):
    """A CONNECT-UDP tunnel to udp_echo, and what came out of it so far."""
    class Tunnel:
        def __init__(self):
            self.id = connection.connect_udp(path(udp_echo), AUTH)
            assert connection.response(self.id)[0] == 200
            self.state, self.reader, self.payloads = connection.streams[self.id], capsule.Reader(), []

        def send(self, data, end=False):
            connection.send(self.id, data, end)

        def datagrams(self, count, timeout=10):
            """Waits until there are so many payloads."""
            def there():
                data, self.state.data = self.state.data, b""
                self.payloads += [capsule.payload(value)[1] for kind, value in self.reader.feed(data) if kind == 0]
                return len(self.payloads) >= count or self.state.reset is not None
            connection.wait(there, timeout)
            return self.payloads

        def lives(self):
            """A datagram still comes back."""
            self.send(capsule.datagram(b"alive?"))
            while self.state.reset is None and b"alive?" not in self.datagrams(1):
                self.payloads.clear()
            self.payloads.clear()
            return self.state.reset is None

    return Tunnel()


def test_extended_connect_is_offered(connection):
    import h2.settings
    connection.wait(lambda: connection.h2.remote_settings.get(h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL) == 1)


# ---- T17 ----

def heads(echo):
    at = (":path", path(echo))
    return {
        "complete": ([METHOD, PROTOCOL, SCHEME, HOST, at, CAPSULES, AUTH], 200),
        "without capsule-protocol": ([METHOD, PROTOCOL, SCHEME, HOST, at, AUTH], 200),
        "another order": ([PROTOCOL, at, HOST, METHOD, SCHEME, AUTH, CAPSULES], 200),
        "no path": ([METHOD, PROTOCOL, SCHEME, HOST, CAPSULES, AUTH], None),
        "empty path": ([METHOD, PROTOCOL, SCHEME, HOST, (":path", ""), CAPSULES, AUTH], None),
        "no scheme": ([METHOD, PROTOCOL, HOST, at, CAPSULES, AUTH], None),
        "wrong scheme": ([METHOD, PROTOCOL, (":scheme", "masque"), HOST, at, CAPSULES, AUTH], None),
        "no authority": ([METHOD, PROTOCOL, SCHEME, at, CAPSULES, AUTH], None),
        "content-length": ([METHOD, PROTOCOL, SCHEME, HOST, at, CAPSULES, AUTH, ("content-length", "10")], None),
        "not CONNECT": ([(":method", "GET"), PROTOCOL, SCHEME, HOST, at, CAPSULES, AUTH], None),
        "plain CONNECT with a path": ([METHOD, HOST, at, AUTH], None),
        "another protocol": ([METHOD, (":protocol", "connect-ip"), SCHEME, HOST, at, CAPSULES, AUTH], 501),
        "almost a template": ([METHOD, PROTOCOL, SCHEME, HOST, (":path", path(echo)[:-1]), CAPSULES, AUTH], 400),
        "no token": ([METHOD, PROTOCOL, SCHEME, HOST, at, CAPSULES], 401),
    }


def test_heads_of_extended_connect(connection, udp_echo):
    """Each is accepted, or refused with its status, or reset with PROTOCOL_ERROR; the connection lives on."""
    for name, (head, expected) in heads(udp_echo).items():
        stream = connection.open(head)
        status, _ = connection.response(stream)
        if expected is None:
            assert status == 400 or connection.streams[stream].reset == PROTOCOL_ERROR, name
        else:
            assert status == expected, name
    assert connection.response(connection.get("/index.html"))[0] == 200


def test_end_stream_with_the_head_is_a_half_close(connection, udp_echo):
    stream = connection.open([METHOD, PROTOCOL, SCHEME, HOST, (":path", path(udp_echo)), CAPSULES, AUTH], end=True)
    assert connection.response(stream)[0] == 200


def test_sent_before_the_settings_arrived(egress, certificates, udp_echo):
    """The harness's connection writes preface, SETTINGS and head without having read anything."""
    relay = egress()
    with http2.Connection(relay.at.tls, context=certificates.client_context(["h2"])) as client:
        stream = client.connect_udp(path(udp_echo), AUTH)
        client.send(stream, capsule.datagram(b"early"))
        assert client.response(stream)[0] == 200
        assert client.read(stream, 8) == capsule.datagram(b"early")


# ---- T35 to T37, T39 ----

def test_unknown_capsules_and_contexts_are_skipped(connection, tunnel):
    for kind in (0x01, 0x17, 0x29 * 7 + 0x17, 0x3FFF, (1 << 62) - 1):
        tunnel.send(capsule.capsule(kind, os.urandom(3000)))
    tunnel.send(capsule.capsule(0x17, b"") + capsule.datagram(b"ctx", context=2) + capsule.datagram(b"ctx", context=(1 << 62) - 1))
    assert tunnel.lives()


@pytest.fixture
def measurable(monkeypatch):
    """AddressSanitizer keeps freed memory, which would look like buffering."""
    monkeypatch.setenv("ASAN_OPTIONS", f"{os.environ.get('ASAN_OPTIONS', '')}:quarantine_size_mb=1:thread_local_quarantine_size_kb=64")


def test_a_skipped_capsule_is_not_buffered(measurable, connection, tunnel):
    tunnel.send(capsule.capsule(0x21, bytes(1 << 20)))
    before, chunk = vitals.Vitals(connection.relay).rss(), bytes(1 << 18)
    tunnel.send(capsule.varint(0x21) + capsule.varint(64 * len(chunk)))
    for _ in range(64):
        tunnel.send(chunk)
    assert tunnel.lives()
    assert vitals.Vitals(connection.relay).rss() - before < 8 << 20


def test_capsules_come_byte_by_byte(tunnel):
    data = capsule.capsule(0x17, b"skip") + capsule.datagram(b"one") + capsule.datagram(b"") + capsule.datagram(b"two")
    for at in range(len(data)):
        tunnel.send(data[at:at + 1])
    assert tunnel.datagrams(3) == [b"one", b"", b"two"]


def test_non_minimal_integers_are_accepted(tunnel):
    """Type 0 in 2 bytes, length in 8, context ID in 4."""
    tunnel.send(b"\x40\x00" + b"\xc0" + bytes(6) + b"\x09" + b"\x80\0\0\0" + b"hello")
    assert tunnel.datagrams(1) == [b"hello"]


@pytest.mark.parametrize("cut", [b"\x40", b"\x00", b"\x00\x40", b"\x00\x05\x00ab", b"\x17\xc0\0\0", b"\x00" + b"\xff" * 8 + b"\x00a",
                                 b"\x17" + b"\xff" * 8 + b"abc"])
def test_a_capsule_cut_by_the_end_is_malformed(connection, tunnel, cut):
    tunnel.send(cut, end=True)
    connection.wait(lambda: tunnel.state.reset is not None or tunnel.state.ended)
    assert tunnel.state.reset == PROTOCOL_ERROR
    assert connection.response(connection.get("/index.html"))[0] == 200


def test_payloads_up_to_the_limit(connection, tunnel, udp_echo):
    """65507 passes on loopback; up to 65527 is dropped, because no IPv4 packet carries it; above the tunnel is aborted."""
    tunnel.send(capsule.datagram(b"a" * 65507))
    assert [len(payload) for payload in tunnel.datagrams(1)] == [65507]
    for size in (65508, 65527):
        tunnel.send(capsule.datagram(b"b" * size))
    assert tunnel.lives()
    tunnel.send(capsule.datagram(b"c" * 65528))
    connection.wait(lambda: tunnel.state.reset is not None)
    assert connection.response(connection.get("/index.html"))[0] == 200


def test_a_declared_length_allocates_nothing(connection, tunnel):
    before = vitals.Vitals(connection.relay).rss()
    tunnel.send(b"\x17" + b"\xff" * 8 + b"x" * 100)
    assert connection.response(connection.get("/index.html"))[0] == 200
    assert vitals.Vitals(connection.relay).rss() - before < 1 << 20


def test_many_small_capsules(connection, tunnel, tcp_echo):
    """T39: 10 000 capsules in a few DATA frames, and another tunnel meanwhile."""
    other = connection.connect(tcp_echo.authority, AUTH)
    assert connection.response(other)[0] == 200
    assert tunnel.lives()
    tunnel.send(capsule.datagram(b"") * 10_000)
    connection.send(other, b"me too")
    assert connection.read(other, 6, timeout=5) == b"me too"
    count = lambda direction: vitals.Vitals(connection.relay).metrics()[f'twohop_datagrams_total{{direction="{direction}"}}']
    vitals.wait(lambda: count("to_target") == 10_001)
    returned = -1
    while returned != (returned := count("to_client")):
        time.sleep(0.2)  # until it has answered, the target's socket is full
    assert tunnel.lives()


def test_half_close_ends_the_tunnel(connection, tunnel):
    """RFC 9298: the client's END_STREAM ends it; the relay's end comes back."""
    assert tunnel.lives()
    tunnel.send(b"", end=True)
    connection.wait(lambda: tunnel.state.ended or tunnel.state.reset is not None)
    vitals.wait(lambda: vitals.Vitals(connection.relay).tunnels() == 0)
