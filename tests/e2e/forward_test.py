"""The client's HTTP proxy under an application that is busy: http:// URLs, and connections that it drops."""
import contextlib
import threading
import time

import pytest

from harness import hop_chain, http1, vitals, web

MIB = 1 << 20


@pytest.fixture
def chain(relay, client, certificates, tmp_path):
    return lambda **options: hop_chain.Chain(relay, client, certificates, tmp_path, **options)


@contextlib.contextmanager
def beside(up, target):
    """A tunnel that must live on."""
    with http1.Connection(up.http, timeout=30) as connection:
        assert connection.connect(target.authority)[0] == 200
        yield
        connection.send(b"alive")
        assert connection.read(5) == b"alive"
    assert len(up.client.events("hop_ready")) == 2 and not up.client.events("hop_failed"), up.client.log


@pytest.mark.parametrize("quic", [True, False], ids=["http3", "http2"])
def test_many_requests_for_urls_harm_no_tunnel(chain, tcp_echo, quic):
    """Each through a tunnel of its own: the target ends every answer."""
    up = chain(quic=quic)
    with web.Server(lambda request: web.answer(b"x" * 1000, "Connection: close")) as target, beside(up, tcp_echo):
        failures = []

        def fetch():
            for _ in range(300):
                with http1.Connection(up.http, timeout=30) as connection:
                    status, fields = connection.request("GET", f"http://{target.authority}/", "Connection: close")
                    if status != 200 or connection.body(fields) != b"x" * 1000:
                        failures.append(status)

        threads = [threading.Thread(target=fetch) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures


@pytest.mark.parametrize("quic", [True, False], ids=["http3", "http2"])
def test_connections_that_are_dropped_at_once_harm_no_tunnel(chain, tcp_echo, quic):
    """A CONNECT and a RST, as of a browser that cancels or a scan, 1 500 times."""
    up = chain(quic=quic)
    with beside(up, tcp_echo):
        for _ in range(1500):
            with http1.Connection(up.http) as connection:
                connection.send(f"CONNECT {tcp_echo.authority} HTTP/1.1\r\nHost: x\r\n\r\n")
                connection.reset()
        hop_chain.echo_through_http(up, tcp_echo)


def test_answered_tunnels_that_are_reset_harm_no_tunnel(chain, tcp_echo):
    up = chain()
    with beside(up, tcp_echo):
        for _ in range(1000):
            with http1.Connection(up.http) as connection:
                assert connection.connect(tcp_echo.authority)[0] == 200
                connection.reset()
        hop_chain.echo_through_http(up, tcp_echo)


@pytest.mark.parametrize("quic", [True, False], ids=["http3", "http2"])
def test_a_close_by_a_limit_is_explained(relay, client, certificates, tmp_path, tcp_echo, quic):
    up = hop_chain.Chain(relay, client, certificates, tmp_path, quic=quic, egress_options={"limits.reset-burst": 10, "limits.reset-rate": 1})
    hop_chain.echo_through_http(up, tcp_echo)
    deadline = time.monotonic() + 30
    while not up.client.events("hop_failed") and time.monotonic() < deadline:
        with http1.Connection(up.http) as connection:
            connection.send(f"CONNECT {tcp_echo.authority} HTTP/1.1\r\nHost: x\r\n\r\n")
            connection.reset()
    failures = up.client.events("hop_failed")
    assert failures and failures[0]["hop"] == 2 and "closed by the relay: excessive load" in failures[0]["text"], up.client.log
    closed = up.egress.events("connections_closed")
    assert [line["limit"] for line in closed] == ["limits.reset-burst"] and closed[0]["count"] == 1, up.egress.log
    assert not {"127.0.0.1", tcp_echo.authority} & set(map(str, closed[0].values()))
    hop_chain.echo_through_http(up, tcp_echo)


# ---- connections that live on ----

def url(target, path="/"):
    return f"http://{target.authority}{path}"


def echo_request(request):
    return web.answer(request.head + b"\n" + request.body)


def test_requests_for_one_server_share_a_connection(chain):
    up = chain()
    with web.Server(echo_request) as target, web.Server(echo_request) as other, http1.Connection(up.http) as connection:
        for number in range(20):
            status, fields = connection.request("GET", url(target, f"/{number}?q"), "Proxy-Connection: keep-alive", "TE: trailers",
                                                "Connection: x-hop", "X-Hop: 1", "X-End: 2", host=target.authority)
            assert status == 200 and fields["connection"] == "keep-alive"
            head = connection.body(fields).decode()
            assert head.startswith(f"GET /{number}?q HTTP/1.1\r\nHost: {target.authority}\r\n") and "x-end: 2" in head
            assert "x-hop" not in head.lower() and "proxy-" not in head.lower() and "\r\nte:" not in head.lower()
        assert target.connections == 1 and len(target.requests) == 20
        assert connection.body(connection.request("GET", url(other))[1]).startswith(b"GET / ")
        assert connection.body(connection.request("GET", url(target))[1]).startswith(b"GET / ")
        assert other.connections == 1 and target.connections == 2
        assert connection.connect(target.authority)[0] == 200  # and what follows is a tunnel
        connection.send("GET /direct HTTP/1.1\r\nHost: x\r\n\r\n")
        status, fields = connection.head()
        assert status == 200 and connection.body(fields).startswith(b"GET /direct ")


def test_http_1_0(chain):
    up = chain()
    with web.Server(echo_request) as target:
        with http1.Connection(up.http) as connection:
            for _ in range(3):
                connection.send(f"GET {url(target)} HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
                status, fields = connection.head()
                assert status == 200 and fields["connection"] == "keep-alive"
                assert b" HTTP/1.0\r\n" in connection.body(fields)
        with http1.Connection(up.http) as connection:
            connection.send(f"GET {url(target)} HTTP/1.0\r\n\r\n")
            status, fields = connection.head()
            assert status == 200 and fields["connection"] == "close" and connection.body(fields) and connection.ended()


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=1\r\nhello\r\n6\r\n world\r\n0\r\nTrailer: 1\r\n\r\n"


def test_framings(chain):
    """All on one connection of the application, but for the last."""
    answers = {"/head": b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", "/204": b"HTTP/1.1 204 No Content\r\n\r\n",
               "/304": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "/chunked": CHUNKED, "/length": web.answer(b"x" * 300000),
               "/hints": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + web.answer(b"final"),
               "/old": b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nold",
               "/until": (b"HTTP/1.1 200 OK\r\n\r\n" + b"u" * 100000, "close")}
    up = chain()
    with web.Server(lambda request: answers[request.path]) as target, http1.Connection(up.http) as connection:
        for _ in range(2):
            assert connection.request("HEAD", url(target, "/head"))[1]["content-length"] == "500"
            assert connection.request("GET", url(target, "/204"))[0] == 204
            assert connection.request("GET", url(target, "/304"))[0] == 304
            status, fields = connection.request("GET", url(target, "/chunked"))
            assert status == 200
            assert connection.read(len(CHUNKED) - CHUNKED.index(b"5;x")) == CHUNKED[CHUNKED.index(b"5;x"):]
            assert connection.body(connection.request("GET", url(target, "/length"))[1]) == b"x" * 300000
            assert connection.request("GET", url(target, "/hints"))[0] == 103
            assert connection.body(connection.head()[1]) == b"final"
        assert target.connections == 1
        status, fields = connection.request("GET", url(target, "/old"))
        assert fields["connection"] == "keep-alive" and connection.body(fields) == b"old"  # the application's connection lives on
        status, fields = connection.request("GET", url(target, "/until"))
        assert fields["connection"] == "close" and connection.read_all() == b"u" * 100000
        assert target.connections == 2


def test_requests_with_bodies(chain):
    up = chain()
    body = bytes(range(256)) * 4000
    with web.Server(lambda request: web.answer(request.body)) as target, http1.Connection(up.http, timeout=30) as connection:
        for _ in range(3):
            connection.send(f"POST {url(target)} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            assert connection.body(connection.head()[1]) == body
            connection.send(f"POST {url(target)} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
                            + b"5\r\nhello\r\n%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n")
            assert connection.body(connection.head()[1]) == b"hello" + body
        connection.send(f"PUT {url(target)} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nbody")
        assert connection.body(connection.head()[1]) == b"body"
        assert target.connections == 1
    with web.Server(lambda request: web.answer(b"")) as target, http1.Connection(up.http) as connection:
        connection.send(f"POST {url(target)} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloxx\r\n0\r\n\r\n")
        assert connection.head()[0] is None and not target.requests


def test_pipelined_requests(chain):
    """Answered one after the other, also for several servers, and whatever pieces they come in."""
    up = chain()
    with web.Server(echo_request) as one, web.Server(echo_request) as two, http1.Connection(up.http) as connection:
        heads = [f"POST {url(one if i % 3 else two, f'/{i}')} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n{i:03}" for i in range(30)]
        stream = "".join(heads)
        connection.send(stream[:1000])
        time.sleep(0.3)
        connection.send(stream[1000:])
        for i in range(30):
            status, fields = connection.head()
            assert status == 200
            body = connection.body(fields)
            assert body.startswith(b"POST /%d " % i) and body.endswith(b"\n%03d" % i), body


WRONG = {"no HTTP": b"SSH-2.0-x\r\n", "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
         "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
         "folded": b"HTTP/1.1 200 OK\r\nA: 1\r\n b\r\nContent-Length: 0\r\n\r\n",
         "no end of the head": (b"HTTP/1.1 200 OK\r\nA: 1\r\n", "close"), "nothing": (b"", "close"),
         "long": b"HTTP/1.1 200 OK\r\nA: " + b"a" * 40000, "switched": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_answers_are_a_502(chain, wrong):
    up = chain()
    with web.Server(lambda request: WRONG[wrong] if request.path == "/wrong" else web.answer(b"good")) as target:
        with http1.Connection(up.http) as connection:
            assert connection.body(connection.request("GET", url(target))[1]) == b"good"
            status, fields = connection.request("GET", url(target, "/wrong"))
            assert status == 502 and b"server" in connection.body(fields) and connection.ended()
        with http1.Connection(up.http) as connection:
            assert connection.body(connection.request("GET", url(target))[1]) == b"good"


CUT = {"length": (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", "close"),
       "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "close"),
       "bad chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloxx",
       "reset": (b"HTTP/1.1 200 OK\r\n\r\nhello", "reset")}


@pytest.mark.parametrize("cut", CUT)
def test_an_answer_that_is_cut_never_ends_cleanly(chain, cut):
    up = chain()
    with web.Server(lambda request: CUT[cut]) as target, http1.Connection(up.http) as connection:
        with pytest.raises(ConnectionResetError):
            connection.request("GET", url(target))
            target.may_reset.set()  # earlier, the reset would throw away what the relay had not read yet
            connection.read_all()


def test_bytes_behind_an_answer_are_nobodys(chain):
    """Neither a second answer nor the beginning of the next one."""
    up = chain()
    poison = web.answer(b"poison")
    with web.Server(lambda request: web.answer(request.path.encode()) + poison) as target, http1.Connection(up.http) as connection:
        for number in range(5):
            assert connection.body(connection.request("GET", url(target, f"/{number}"))[1]) == b"/%d" % number
            time.sleep(0.05)
        assert target.connections == 5


@pytest.mark.parametrize("method, status", [("GET", 200), ("POST", 502)])
def test_a_server_that_closes_when_the_next_request_comes(chain, method, status):
    """The first connection dies with its second request unanswered: what is harmless is asked again, once."""
    up = chain()
    with web.Server(lambda request: web.answer(b"x") if len(target.requests) != 2 else (b"", "close")) as target, \
            http1.Connection(up.http) as connection:
        assert connection.body(connection.request("GET", url(target))[1]) == b"x"
        assert connection.request(method, url(target), "Content-Length: 0")[0] == status
        assert target.connections == (2 if status == 200 else 1)


def test_a_server_that_closes_while_nobody_asks(chain):
    up = chain()
    with web.Server(lambda request: (web.answer(b"x"), "close")) as target, http1.Connection(up.http) as connection:
        for number in range(3):
            assert connection.body(connection.request("POST", url(target), "Content-Length: 0")[1]) == b"x"
            vitals.wait(lambda: vitals.Vitals(up.egress).tunnels() == 0, what="the end of the tunnel, which the client has heard of")
        assert target.connections == 3


def test_a_slow_reader_stops_the_server(chain):
    """Back-pressure: the server gets rid of what the sockets and windows on the way hold, and not of more; nothing is lost."""
    up = chain()
    size = 48 * MIB
    with web.Server(lambda request: web.answer(b"z" * size)) as target, http1.Connection(up.http, timeout=60) as connection:
        status, fields = connection.request("GET", url(target))
        before = rss(up.client)
        time.sleep(2)
        assert rss(up.client) - before < 40 << 20
        assert int(fields["content-length"]) == size and all(connection.read(MIB) == b"z" * MIB for _ in range(size // MIB))
        assert connection.request("HEAD", url(target))[0] == 200 and target.connections == 1


def rss(process):
    with open(f"/proc/{process.pid}/statm") as file:
        return int(file.read().split()[1]) * 4096
