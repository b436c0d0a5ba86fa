"""CONNECT and CONNECT-UDP on the three HTTP versions, against real targets on loopback."""
import asyncio
import hashlib
import os
import socket
import struct
import threading

import pytest

from harness import capsule, configs, http1, http2, http3, ports, vitals

AUTH = ("proxy-authorization", configs.BEARER)
AUTH_LINE = f"Proxy-Authorization: {configs.BEARER}"


@pytest.fixture(params=[1, 2], ids=["1-worker", "2-workers"])
def egress(relay, certificates, tmp_path, request):
    at = configs.Ports()
    process = relay(configs.egress(certificates, tmp_path, at, **{"num-threads": request.param}))
    process.at = at
    return process


def udp_path(echo):
    return f"/.well-known/masque/udp/{echo.host.replace(':', '%3A')}/{echo.port}/"


def resetting_target():
    """A TCP port whose connections are reset after their first byte."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run():
        connection, _ = listener.accept()
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        listener.close()

    threading.Thread(target=run, daemon=True).start()
    return listener.getsockname()[1]


# ---- CONNECT ----

@pytest.mark.parametrize("tls", [False, True])
def test_http1_connect_echo(egress, certificates, tcp_echo, tls):
    context = certificates.client_context(["http/1.1"]) if tls else None
    with http1.Connection(egress.at.tls if tls else egress.at.clear, context=context) as connection:
        status, fields = connection.connect(tcp_echo.authority, AUTH_LINE)
        assert status == 200
        assert "content-length" not in fields and "transfer-encoding" not in fields
        for size in (1, 8191, 8192, 8193, 16383, 16384, 16385, 300_000):
            data = os.urandom(size)
            connection.send(data)
            assert connection.read(size) == data


def test_http1_half_close(egress, tcp_echo):
    with http1.Connection(egress.at.clear) as connection:
        assert connection.connect(tcp_echo.authority, AUTH_LINE)[0] == 200
        connection.send(b"last words")
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.read_all() == b"last words"


def test_http2_connect_echo(egress, certificates, tcp_echo):
    with http2.Connection(egress.at.tls, context=certificates.client_context(["h2"])) as connection:
        streams = [connection.connect(tcp_echo.authority, AUTH) for _ in range(10)]
        for stream in streams:
            assert connection.response(stream)[0] == 200
        for stream in streams:
            data = os.urandom(50_000)
            connection.send(stream, data, end=True)
            assert connection.read(stream, 50_000) == data
            connection.wait(lambda: connection.streams[stream].ended)


def test_http3_connect_echo(egress, certificates, tcp_echo):
    async def run():
        async with http3.client(egress.at.tls, certificates.ca) as connection:
            streams = [connection.connect_tcp(tcp_echo.authority, AUTH) for _ in range(10)]
            for stream in streams:
                assert (await connection.response(stream))[0] == 200
            for stream in streams:
                data = os.urandom(50_000)
                connection.send(stream, data, end=True)
                state = connection.streams[stream]
                await connection.until(lambda: state.ended)
                assert hashlib.sha256(state.data).digest() == hashlib.sha256(data).digest()

    asyncio.run(run())


def test_connect_ipv6_and_name(egress, tcp_echo):
    with http1.Connection(egress.at.clear) as connection:
        assert connection.connect(f"localhost:{tcp_echo.port}", AUTH_LINE)[0] == 200
        connection.send(b"by name")
        assert connection.read(7) == b"by name"


def test_a_reset_of_the_target_is_a_reset(egress, certificates):
    with http1.Connection(egress.at.clear) as connection:
        assert connection.connect(f"127.0.0.1:{resetting_target()}", AUTH_LINE)[0] == 200
        connection.send(b"x")
        with pytest.raises(ConnectionResetError):
            connection.read_all()
    with http2.Connection(egress.at.clear) as connection:
        stream = connection.connect(f"127.0.0.1:{resetting_target()}", AUTH)
        assert connection.response(stream)[0] == 200
        connection.send(stream, b"x")
        connection.wait(lambda: connection.streams[stream].reset is not None)
        assert connection.streams[stream].reset == 10  # CONNECT_ERROR

    async def run():
        async with http3.client(egress.at.tls, certificates.ca) as client:
            stream = client.connect_tcp(f"127.0.0.1:{resetting_target()}", AUTH)
            assert (await client.response(stream))[0] == 200
            client.send(stream, b"x")
            await client.until(lambda: client.streams[stream].reset is not None)
            assert client.streams[stream].reset == 0x10F  # H3_CONNECT_ERROR

    asyncio.run(run())


def test_a_reset_of_the_client_reaches_the_target(egress):
    listener = socket.create_server(("127.0.0.1", 0))
    for kind in ("http1", "http2"):
        if kind == "http1":
            connection = http1.Connection(egress.at.clear)
            assert connection.connect(f"127.0.0.1:{listener.getsockname()[1]}", AUTH_LINE)[0] == 200
        else:
            connection = http2.Connection(egress.at.clear)
            stream = connection.connect(f"127.0.0.1:{listener.getsockname()[1]}", AUTH)
            assert connection.response(stream)[0] == 200
        target, _ = listener.accept()
        target.settimeout(10)
        connection.reset() if kind == "http1" else connection.reset(stream)
        with pytest.raises(ConnectionResetError):
            while target.recv(100):
                pass
            raise AssertionError("a clean end")
        target.close()
    listener.close()


def test_a_refused_connect_has_a_head_and_no_body(egress, certificates):
    closed = ports.free_port()
    with http1.Connection(egress.at.clear) as connection:
        status, fields = connection.connect(f"127.0.0.1:{closed}", AUTH_LINE)
        assert status == 502
        assert "connection_refused" in fields["proxy-status"]
        assert connection.body(fields) == b""
    with http2.Connection(egress.at.clear) as connection:
        stream = connection.connect(f"127.0.0.1:{closed}", AUTH)
        status, fields = connection.response(stream)
        assert status == 502 and "connection_refused" in fields["proxy-status"]
        connection.wait(lambda: connection.streams[stream].ended or connection.streams[stream].reset is not None)
        assert connection.streams[stream].data == b""

    async def run():
        async with http3.client(egress.at.tls, certificates.ca) as client:
            stream = client.connect_tcp(f"127.0.0.1:{closed}", AUTH)
            status, fields = await client.response(stream)
            assert status == 502 and "connection_refused" in fields["proxy-status"]

    asyncio.run(run())


def test_a_stalled_tunnel_does_not_stop_another(egress, tcp_echo):
    """HTTP/2: one stream's target never reads; the other echoes on."""
    listener = socket.create_server(("127.0.0.1", 0))
    with http2.Connection(egress.at.clear) as connection:
        stalled = connection.connect(f"127.0.0.1:{listener.getsockname()[1]}", AUTH)
        assert connection.response(stalled)[0] == 200
        target, _ = listener.accept()
        sent = 0
        while sent < 32 << 20:  # until the window is used up
            size = min(connection.h2.local_flow_control_window(stalled), 16384)
            if size == 0:
                try:
                    connection.step(0.3)
                except TimeoutError:
                    break
                continue
            connection.h2.send_data(stalled, b"x" * size)
            connection.flush()
            sent += size
        assert sent < 32 << 20, "the stalled target never stopped the client"
        flowing = connection.connect(tcp_echo.authority, AUTH)
        assert connection.response(flowing)[0] == 200
        connection.send(flowing, b"y" * 200_000)
        assert connection.read(flowing, 200_000) == b"y" * 200_000
        target.close()
    listener.close()


# ---- CONNECT-UDP ----

def test_http1_connect_udp(egress, certificates, udp_echo):
    for context, port in ((None, egress.at.clear), (certificates.client_context(["http/1.1"]), egress.at.tls)):
        with http1.Connection(port, context=context) as connection:
            status, fields = connection.upgrade(udp_path(udp_echo), AUTH_LINE)
            assert status == 101
            assert fields["upgrade"] == "connect-udp" and fields["capsule-protocol"] == "?1"
            reader, echoed = capsule.Reader(), []
            sizes = (1, 0, 1200, 1472, 9000)
            for size in sizes:
                connection.send(capsule.datagram(b"d" * size))
            while len(echoed) < len(sizes):
                echoed += reader.feed(connection.read(1))
            assert sorted(len(value) - 1 for _, value in echoed) == sorted(sizes)


def test_http2_connect_udp(egress, certificates, udp_echo):
    with http2.Connection(egress.at.tls, context=certificates.client_context(["h2"])) as connection:
        stream = connection.connect_udp(udp_path(udp_echo), AUTH)
        status, fields = connection.response(stream)
        assert status == 200 and fields["capsule-protocol"] == "?1"
        connection.send(stream, capsule.capsule(0x17, b"unknown") + capsule.datagram(b"ctx", context=2) + capsule.datagram(b"hello"))
        assert connection.read(stream, 8) == capsule.datagram(b"hello")


@pytest.mark.parametrize("form", ["datagram", "capsule"])
def test_http3_connect_udp(egress, certificates, udp_echo, form):
    async def run():
        async with http3.client(egress.at.tls, certificates.ca) as client:
            stream = client.connect_udp(udp_path(udp_echo), AUTH)
            status, fields = await client.response(stream)
            assert status == 200 and fields["capsule-protocol"] == "?1"
            state = client.streams[stream]
            for size in (1, 100, 1000):
                if form == "datagram":
                    client.send_datagram(stream, b"\0" + b"q" * size)
                else:
                    client.send(stream, capsule.datagram(b"q" * size))
            await client.until(lambda: len(state.datagrams) == 3)
            assert sorted(len(d) for d in state.datagrams) == [2, 101, 1001]

    asyncio.run(run())


def test_an_unknown_protocol_is_501(egress, certificates):
    with http2.Connection(egress.at.clear) as connection:
        stream = connection.connect_udp("/", AUTH, protocol="connect-teapot")
        assert connection.response(stream)[0] == 501

    async def run():
        async with http3.client(egress.at.tls, certificates.ca) as client:
            stream = client.connect_udp("/", AUTH, protocol="connect-teapot")
            assert (await client.response(stream))[0] == 501

    asyncio.run(run())


@pytest.mark.parametrize("path", [
    "/.well-known/masque/udp/127.0.0.1/0/", "/.well-known/masque/udp/127.0.0.1/65536/", "/.well-known/masque/udp//53/",
    "/.well-known/masque/udp/127.0.0.1//", "/.well-known/masque/udp/{target_host}/53/", "/.well-known/masque/udp/127.0.0.1/53",
    "/.well-known/masque/udp/%253A%253A1/53/", "/.well-known/masque/udp/0x7f.1/53/", "/.well-known/masque/udp/127.1/53/",
])
def test_templates_match_only_exactly(egress, path):
    with http2.Connection(egress.at.clear) as connection:
        stream = connection.connect_udp(path, AUTH)
        assert connection.response(stream)[0] == 400


# ---- who may, and where to ----

def test_tokens(egress, tcp_echo, udp_echo):
    import base64
    basic = base64.b64encode(f"alice:{configs.TOKEN}".encode()).decode()
    good = [f"Bearer {configs.TOKEN}", f"bearer {configs.TOKEN}", f"Basic {basic}", f"Preshared {configs.TOKEN}",
            f"PrivacyToken token={configs.TOKEN}", f'PrivacyToken token="{configs.TOKEN}"']
    for value in good:
        for name in ("Proxy-Authorization", "Authorization"):
            with http1.Connection(egress.at.clear) as connection:
                assert connection.connect(tcp_echo.authority, f"{name}: {value}")[0] == 200, (name, value)
    with http1.Connection(egress.at.clear) as connection:
        status, fields = connection.connect(tcp_echo.authority)
        assert status == 407 and "proxy-authenticate" in fields
        assert connection.connect(tcp_echo.authority, AUTH_LINE)[0] == 200  # on the same connection, as curl does
    with http1.Connection(egress.at.clear) as connection:
        assert connection.connect(tcp_echo.authority)[0] == 407
        connection.send("GET /index.html HTTP/1.1\r\nHost: localhost\r\n\r\n")  # for the target, by a client that did not wait
        assert connection.ended()
    with http1.Connection(egress.at.clear) as connection:
        status, fields = connection.upgrade(udp_path(udp_echo))
        assert status == 401 and "www-authenticate" in fields
    for value in ("Bearer wrong", "Digest x", "Bearer"):
        with http1.Connection(egress.at.clear) as connection:
            assert connection.connect(tcp_echo.authority, f"Proxy-Authorization: {value}")[0] == 407
    assert tcp_echo.peers and not [e for e in egress.events() if configs.TOKEN in str(e)]


def test_wrong_tokens_become_429_and_good_ones_still_pass(egress, tcp_echo):
    statuses = []
    for _ in range(40):
        with http1.Connection(egress.at.clear) as connection:
            statuses.append(connection.connect(tcp_echo.authority, "Proxy-Authorization: Bearer guess")[0])
    assert statuses[0] == 407 and statuses[-1] == 429
    with http1.Connection(egress.at.clear) as connection:
        assert connection.connect(tcp_echo.authority, AUTH_LINE)[0] == 200


def test_own_listeners_are_refused(egress):
    for port in (egress.at.tls, egress.at.clear, egress.at.admin):
        with http1.Connection(egress.at.clear) as connection:
            status, fields = connection.connect(f"127.0.0.1:{port}", AUTH_LINE)
            assert status == 403 and "destination_ip_prohibited" in fields["proxy-status"]


def test_the_default_policy_refuses_special_addresses(relay, certificates, tmp_path, tcp_echo):
    at = configs.Ports()
    relay(configs.egress(certificates, tmp_path, at, allow=None))
    for target in (tcp_echo.authority, f"localhost:{tcp_echo.port}", "10.0.0.1:80", "[::1]:80", "[::ffff:127.0.0.1]:80",
                   "169.254.169.254:80", "[fe80::1]:80", "[64:ff9b::7f00:1]:80", "0.0.0.0:80", "[2002:7f00:1::]:80"):
        with http1.Connection(at.clear) as connection:
            status, fields = connection.connect(target, AUTH_LINE)
            assert status == 403, target
            assert "destination_ip_prohibited" in fields["proxy-status"], target
    assert not tcp_echo.peers


def test_an_ingress_reaches_only_its_relays(relay, certificates, tmp_path, tcp_echo):
    at = configs.Ports()
    relay(configs.ingress(certificates, tmp_path, at, [tcp_echo.authority]))
    with http1.Connection(at.clear) as connection:
        assert connection.connect(tcp_echo.authority, AUTH_LINE)[0] == 200
    for target in (f"127.0.0.1:{ports.free_port()}", "www.example.com:443", f"localhost:{tcp_echo.port}"):
        with http1.Connection(at.clear) as connection:
            assert connection.connect(target, AUTH_LINE)[0] == 403, target


# ---- observability and ends ----

def test_admin_pages(egress, tcp_echo):
    import json
    with http1.Connection(egress.at.clear) as connection:
        assert connection.connect(tcp_echo.authority, AUTH_LINE)[0] == 200
        connection.send(b"12345")
        assert connection.read(5) == b"12345"
        status, text = egress.admin_get("/metrics")
        assert status == 200
        assert 'twohop_tunnels_total{method="connect",version="1.1"} 1' in text
        assert 'twohop_tunnels{method="connect",version="1.1"} 1' in text
        status, text = egress.admin_get("/status.json")
        assert json.loads(text)["role"] == "egress"
    assert egress.admin_get("/healthz") == (200, "ok\n")
    with http1.Connection(egress.at.clear) as connection:
        assert connection.request("GET", "/metrics")[0] == 404  # on admin.listen only


def test_sigterm_drains(egress, tcp_echo):
    import signal
    with http1.Connection(egress.at.clear) as connection:
        assert connection.connect(tcp_echo.authority, AUTH_LINE)[0] == 200
        egress.signal(signal.SIGTERM)
        vitals.wait_refused(egress.at.clear)
        assert egress.running()
        connection.send(b"still here")
        assert connection.read(10) == b"still here"
    egress.wait_end(timeout=10)


def test_the_end_of_the_drain_closes_what_is_left(relay, certificates, tmp_path, tcp_echo):
    import signal
    at = configs.Ports()
    process = relay(configs.egress(certificates, tmp_path, at, **{"limits.drain-seconds": 1}))

    async def run():
        async with http3.client(at.tls, certificates.ca) as client:
            stream = client.connect_tcp(tcp_echo.authority, AUTH)
            assert (await client.response(stream))[0] == 200
            with http1.Connection(at.clear) as connection:
                assert connection.connect(tcp_echo.authority, AUTH_LINE)[0] == 200
                process.signal(signal.SIGTERM)
                assert connection.ended()
            await client.until(lambda: client.terminated is not None)

    asyncio.run(run())
    process.wait_end(timeout=5)
