"""Ordinary requests on the three HTTP versions: a file, an error page, and what is no request at all."""
import asyncio
import os
import pathlib
import socket
import ssl

import pytest

from harness import configs, http1, http2, http3, ports, vitals


@pytest.fixture
def egress(relay, certificates, tmp_path):
    at = configs.Ports()
    process = relay(configs.egress(certificates, tmp_path, at))
    process.at = at
    return process


@pytest.mark.parametrize("tls", [False, True])
def test_http1_files(egress, certificates, tls):
    context = certificates.client_context(["http/1.1"]) if tls else None
    with http1.Connection(egress.at.tls if tls else egress.at.clear, context=context) as connection:
        for _ in range(3):  # keep-alive
            status, fields = connection.request("GET", "/index.html")
            assert status == 200
            assert connection.body(fields) == b"hello from twohop\n"
        status, fields = connection.request("GET", "/large")
        assert connection.body(fields) == bytes(range(256)) * 4096
        status, fields = connection.request("GET", "/nothing-here")
        assert status == 404
        connection.body(fields)
        status, fields = connection.request("HEAD", "/index.html")
        assert (status, fields["content-length"]) == (200, "18")
        assert connection.request("GET", "/index.html")[0] == 200


def test_http1_pipelined(egress):
    with http1.Connection(egress.at.clear) as connection:
        connection.send("GET /index.html HTTP/1.1\r\nHost: a\r\n\r\n" * 20)
        for _ in range(20):
            status, fields = connection.head()
            assert status == 200 and connection.body(fields) == b"hello from twohop\n"


def has_read_the_end(port, client):
    """Whether who listens on `port` has read all that this socket sent, and its FIN."""
    state = f":{port:04X} 0100007F:{client.getsockname()[1]:04X} 08 "  # CLOSE_WAIT
    queues = [line.split()[4] for line in pathlib.Path("/proc/net/tcp").read_text().splitlines() if state in line]
    return bool(queues) and queues[0].endswith(":00000000")


def test_a_half_close_behind_pipelined_requests(egress, tmp_path):
    """The first answer takes its time to be read; the others still come, and then the end (RFC 9112 section 9.3.2)."""
    large = os.urandom(16 << 20)  # more than kernels hold
    (tmp_path / "www" / "larger").write_bytes(large)
    with http1.Connection(egress.at.clear) as connection:
        connection.send("GET /larger HTTP/1.1\r\nHost: a\r\n\r\n" + "GET /index.html HTTP/1.1\r\nHost: a\r\n\r\n" * 10)
        connection.socket.shutdown(socket.SHUT_WR)
        vitals.wait(lambda: has_read_the_end(egress.at.clear, connection.socket))
        status, fields = connection.head()
        assert status == 200 and connection.body(fields) == large
        for left in reversed(range(10)):
            status, fields = connection.head()
            assert status == 200 and connection.body(fields) == b"hello from twohop\n"
            assert fields.get("connection") == (None if left else "close")
        assert connection.read_all() == b""


def test_a_fifo_stops_no_worker(egress, tmp_path):
    """Nor does a request for it disturb who waits at its other end."""
    for name in ("fifo", "fifo.html"):
        os.mkfifo(tmp_path / "www" / name)
    (tmp_path / "www" / "link").symlink_to("fifo")
    with socket.socket(socket.AF_UNIX) as listener, http1.Connection(egress.at.clear) as connection:
        listener.bind(str(tmp_path / "www" / "socket"))
        for path in ("/fifo", "/fifo.html", "/link", "/socket"):
            status, fields = connection.request("GET", path)
            assert status == 403
            connection.body(fields)
        with pytest.raises(OSError, match="No such device"):  # nobody holds the other end
            os.open(tmp_path / "www" / "fifo", os.O_WRONLY | os.O_NONBLOCK)
        status, fields = connection.request("GET", "/index.html")
        assert status == 200 and connection.body(fields) == b"hello from twohop\n"


@pytest.mark.parametrize("tls", [False, True])
def test_http2_files(egress, certificates, tls):
    context = certificates.client_context(["h2"]) if tls else None
    with http2.Connection(egress.at.tls if tls else egress.at.clear, context=context) as connection:
        streams = [connection.get("/index.html") for _ in range(20)]
        large = connection.get("/large")
        missing = connection.get("/nothing-here")
        for stream in streams:
            assert connection.response(stream)[0] == 200
            assert connection.read(stream, 100) == b"hello from twohop\n"
        assert connection.read(large, 1 << 20) == bytes(range(256)) * 4096
        assert connection.response(missing)[0] == 404


def test_http2_without_alpn(egress, certificates):
    """A real client (INVISV's) sends no ALPN and writes the preface straight away."""
    with http2.Connection(egress.at.tls, context=certificates.client_context()) as connection:
        stream = connection.get("/index.html")
        assert connection.response(stream)[0] == 200


def test_http1_after_alpn_h2(egress, certificates, tcp_echo):
    """Go's net/http offers "h2" to a proxy and writes an HTTP/1.1 CONNECT. Nothing is said before the client has: Firefox drops
    a connection that it made in advance and that was spoken to."""
    with http1.Connection(egress.at.tls, context=certificates.client_context(["h2"])) as connection:
        connection.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.socket.recv(1)
        connection.socket.settimeout(10)
        assert connection.connect(tcp_echo.authority, f"Proxy-Authorization: {configs.BEARER}")[0] == 200
        connection.send(b"through")
        assert connection.read(7) == b"through"


def test_http2_preface_against_negotiated_http1(egress, certificates):
    with http1.Connection(egress.at.tls, context=certificates.client_context(["http/1.1"])) as connection:
        connection.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert connection.head()[0] == 400
        assert connection.ended()


def test_http3_files(egress, certificates):
    async def run():
        async with http3.client(egress.at.tls, certificates.ca) as connection:
            stream, large, missing = connection.get("/index.html"), connection.get("/large"), connection.get("/nothing-here")
            assert (await connection.response(stream))[0] == 200
            await connection.until(lambda: connection.streams[stream].ended)
            assert connection.streams[stream].data == b"hello from twohop\n"
            await connection.until(lambda: connection.streams[large].ended)
            assert connection.streams[large].data == bytes(range(256)) * 4096
            assert (await connection.response(missing))[0] == 404

    asyncio.run(run())


def test_alt_svc_names_the_quic_port_of_the_address(relay, certificates, tmp_path):
    """The listener's own address, else the wildcard, else nothing; over clear text never."""
    at, where = configs.Ports(), {}
    config = configs.egress(certificates, tmp_path, at)
    files = config["listen"][0]["ssl"]
    def listen(host, **more):
        where[host] = ports.free_port()
        config["listen"].append({"host": host, "port": where[host], "ssl": files} | more)
        return where[host]
    first, third = listen("127.0.0.2", type="quic"), listen("127.0.0.3", type="quic")
    listen("127.0.0.2"), listen("127.0.0.3"), listen("127.0.0.4"), listen("::1")
    expected = {"127.0.0.1": at.tls, "127.0.0.2": first, "127.0.0.3": third, "127.0.0.4": None, "::1": None}
    where["127.0.0.1"] = at.tls

    def announced():
        for host, port in where.items():
            for version, connect in ("http/1.1", http1.Connection), ("h2", http2.Connection):
                with connect(port, host=host, context=certificates.client_context([version])) as connection:
                    if version == "h2":
                        fields = connection.response(connection.get("/index.html"))[1]
                    else:
                        fields = connection.request("GET", "/index.html")[1]
                yield host, fields.get("alt-svc")

    started = relay(config)
    with http1.Connection(at.clear) as connection:
        assert "alt-svc" not in connection.request("GET", "/index.html")[1]
    for host, field in announced():
        assert field == (expected[host] and f'h3=":{expected[host]}"; ma=86400'), host
    started.stop()
    wildcard = ports.free_port()
    config["listen"].insert(0, {"host": "0.0.0.0", "port": wildcard, "type": "quic", "ssl": files})
    relay(config)
    expected["127.0.0.4"] = wildcard
    for host, field in announced():
        assert field == (expected[host] and f'h3=":{expected[host]}"; ma=86400'), host


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_has_no_tickets(egress, certificates, version):
    """Their key would open sessions long after (T05)."""
    context, session = certificates.client_context(["http/1.1"]), None
    context.maximum_version = version
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", egress.at.tls), 10) as raw, \
                context.wrap_socket(raw, server_hostname="localhost", session=session) as tls:
            tls.sendall(b"GET /index.html HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert tls.recv(100).startswith(b"HTTP/1.1 200")
            assert not tls.session_reused and not (tls.session and tls.session.has_ticket)
            session = tls.session


@pytest.mark.parametrize("head", [
    "GET / HTTP/1.1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n folded: x\r\n\r\n",
    "GET / HTTP/1.1\nHost: a\n\n",
    "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
    "CONNECT example HTTP/1.1\r\nHost: example\r\n\r\n",
    "G@T / HTTP/1.1\r\nHost: a\r\n\r\n",
])
def test_ambiguous_heads_are_refused_and_closed(egress, head):
    with http1.Connection(egress.at.clear) as connection:
        connection.send(head + "GET /index.html HTTP/1.1\r\nHost: a\r\n\r\n")
        status, _ = connection.head()
        assert status == 400
        assert b"hello from twohop" not in connection.read_all()


def test_many_ranges_are_not_many_bodies(egress):
    with http1.Connection(egress.at.clear) as connection:
        status, fields = connection.request("GET", "/large", "Range: bytes=256-511")
        assert status == 206 and connection.body(fields) == bytes(range(256))
        status, fields = connection.request("GET", "/large", "Range: bytes=" + ",".join(["0-"] * 3000))
        assert (status, fields["content-length"]) == (200, str(1 << 20))


@pytest.mark.parametrize("path", ["/index.html%00", "/%00/index.html", "/index.html%00.txt?%00"])
def test_a_path_with_nul(egress, path):
    with http1.Connection(egress.at.clear) as connection:
        assert connection.request("GET", path)[0] == 400


def test_http1_bodies_are_dropped_and_the_connection_goes_on(egress):
    with http1.Connection(egress.at.clear) as connection:
        connection.send("POST /index.html HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n" + "x" * 60000 +
                        "GET /index.html HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nGET\r\n0\r\n\r\n"
                        "GET /index.html HTTP/1.1\r\nHost: a\r\n\r\n")
        for expected in 405, 200, 200:
            status, fields = connection.head()
            assert status == expected
            connection.body(fields)
    with http1.Connection(egress.at.clear) as connection:  # by its length, then by what comes
        assert connection.request("POST", "/index.html", "Content-Length: 70000")[0] == 413
    with http1.Connection(egress.at.clear) as connection:
        connection.send("POST /index.html HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + ("1000\r\n" + "x" * 4096 + "\r\n") * 20)
        assert connection.head()[0] == 413


def test_bodies_are_not_kept(egress):
    """A stranger's, on a hundred streams at once."""
    watched = vitals.Vitals(egress)
    with http2.Connection(egress.at.clear) as connection:
        post = [(":method", "POST"), (":scheme", "http"), (":authority", "localhost"), (":path", "/index.html")]
        streams = [connection.open(post) for _ in range(99)]
        for stream in streams:
            connection.send(stream, b"x")
        first = connection.get("/index.html")
        assert connection.response(first)[0] == 200
        connection.read(first, 1 << 20)  # to its end: the hundredth stream is free again
        before = watched.rss()
        for stream in streams:
            connection.send(stream, b"x" * 60000)
        assert connection.response(connection.get("/index.html"))[0] == 200
        assert watched.rss() - before < 4_000_000
        connection.send(streams[0], b"", end=True)
        connection.send(streams[1], b"x" * 6000)
        assert connection.response(streams[0])[0] == 405
        assert connection.response(streams[1])[0] == 413
