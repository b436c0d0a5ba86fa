"""curl 8.14 through the relay: HTTP/1.1 and HTTP/2 proxies, in the clear and over TLS."""
import hashlib
import http.server
import socketserver
import threading

import pytest

from harness import configs, ports, vitals

BASIC = f"alice:{configs.TOKEN}"
BEARER = f"Proxy-Authorization: {configs.BEARER}"
# How curl is told to talk to the proxy. The last two are CONNECT over one HTTP/2 connection.
PROXIES = {"http1": ["-x", "http://127.0.0.1:{clear}"], "http1-tls": ["-x", "https://127.0.0.1:{tls}"],
           "http2-tls": ["--proxy-http2", "-x", "https://127.0.0.1:{tls}"]}


class Handler(http.server.BaseHTTPRequestHandler):
    """GET: /N answers N bytes of a pattern. PUT, POST: answers the body's SHA-256."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = pattern(int(self.path[1:]))
        self._answer(body)

    def do_PUT(self):
        left, digest = int(self.headers["content-length"]), hashlib.sha256()
        while left:
            data = self.rfile.read(min(left, 1 << 16))
            digest.update(data)
            left -= len(data)
        self._answer(digest.hexdigest().encode())

    do_POST = do_PUT

    def _answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 256


def pattern(size):
    block = hashlib.sha512(b"pattern").digest() * 1024
    return (block * (size // len(block) + 1))[:size]


@pytest.fixture(scope="module")
def origin():
    """A web server on loopback: its URL."""
    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join(5)
    server.server_close()


@pytest.fixture
def curl(egress, program, certificates):
    """curl(PROXY, *arguments) through a relay of its own, curl.bare(*arguments) without it. curl.relay: that relay."""
    relay = egress()
    trust = ["--cacert", certificates.ca, "--proxy-cacert", certificates.ca]

    def run(proxy, *arguments, **options):
        return run_bare(*(word.format(clear=relay.at.clear, tls=relay.at.tls) for word in PROXIES[proxy]), "-p", *arguments, **options)

    def run_bare(*arguments, **options):
        return program("curl", "-sS", *trust, *arguments, **options)

    run.relay, run.bare = relay, run_bare
    return run


@pytest.fixture(params=PROXIES)
def proxy(request):
    return request.param


@pytest.mark.parametrize("credential", [["--proxy-user", BASIC], ["--proxy-header", BEARER]], ids=["basic", "bearer"])
def test_tunnel(curl, origin, proxy, credential):
    done = curl(proxy, *credential, "-w", "%{stderr}%{proxy_used}", f"{origin}/100000")
    assert (done.returncode, done.stderr) == (0, b"1")
    assert done.stdout == pattern(100_000)


@pytest.mark.parametrize("proxy", ["http1", "http1-tls"])
def test_the_challenge_is_answered_on_the_same_connection(curl, origin, proxy):
    """--proxy-anyauth: the first CONNECT has no credential. (Over HTTP/2 curl 8.14 gives up at the 407.)"""
    done = curl(proxy, "--proxy-user", BASIC, "--proxy-anyauth", "-w", "%{stderr}%{http_connect} %{num_connects}", f"{origin}/100000")
    assert (done.returncode, done.stderr) == (0, b"200 1")
    assert done.stdout == pattern(100_000)


def test_big_transfers(curl, origin, proxy, tmp_path):
    size = 32 << 20
    data = pattern(size)
    body = tmp_path / "body"
    body.write_bytes(data)
    up = curl(proxy, "--proxy-user", BASIC, "-T", body, f"{origin}/up")
    assert (up.returncode, up.stdout.decode()) == (0, hashlib.sha256(data).hexdigest()), up.stderr
    down = curl(proxy, "--proxy-user", BASIC, f"{origin}/{size}")
    assert down.returncode == 0, down.stderr
    assert hashlib.sha256(down.stdout).digest() == hashlib.sha256(data).digest()


def test_tls_inside(curl, egress, proxy):
    """TLS and HTTP/2 from end to end through the tunnel."""
    other = egress()
    done = curl(proxy, "--proxy-user", BASIC, "--http2", "-w", "%{stderr}%{http_version}",
                f"https://127.0.0.1:{other.at.tls}/large")
    assert (done.returncode, done.stderr) == (0, b"2")
    assert done.stdout == bytes(range(256)) * 4096


def test_refusals_are_told(curl, origin, proxy):
    for url, credential, status in ((f"http://127.0.0.1:{ports.free_port()}/", BASIC, 502), ("http://169.254.169.254/", BASIC, 403),
                                    ("http://nowhere.invalid/", BASIC, 502), (f"{origin}/1", "alice:wrong", 407)):
        done = curl(proxy, "--proxy-user", credential, "-v", "--trace-config", "h2-proxy", url)
        assert done.returncode == 56, (url, done)
        # Over HTTP/2 curl 8.14 tells the status only in its trace.
        said = f"got http status: {status}" if proxy == "http2-tls" else f"CONNECT tunnel failed, response {status}"
        assert said in done.stderr.decode(), (url, done)


def test_parallel(curl, origin, proxy, tmp_path):
    names = [str(index) for index in range(60)]
    arguments = []
    for name in names:
        arguments += [f"{origin}/{200_000 + int(name)}", "-o", tmp_path / name]
    done = curl(proxy, "--proxy-user", BASIC, "--parallel", "--parallel-max", "30", *arguments)
    assert done.returncode == 0, done.stderr
    for name in names:
        assert (tmp_path / name).read_bytes() == pattern(200_000 + int(name)), name


def test_a_cut_transfer_leaves_no_tunnel(curl, origin):
    done = curl("http2-tls", "--proxy-user", BASIC, "--max-time", "0.5", "--limit-rate", "1k", f"{origin}/50000000", "-o", "/dev/null")
    assert done.returncode == 28
    vitals.wait(lambda: vitals.Vitals(curl.relay).tunnels() == 0)


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_files(curl, version):
    """Ordinary requests, without a proxy."""
    where = f"https://127.0.0.1:{curl.relay.at.tls}"
    large = curl.bare(version, f"{where}/large", "-w", "%{stderr}%{http_version}")
    assert large.stdout == bytes(range(256)) * 4096
    assert large.stderr == (b"1.1" if version == "--http1.1" else b"2")
    missing = curl.bare(version, "-w", "%{http_code}", "-o", "/dev/null", f"{where}/nothing-here")
    assert missing.stdout == b"404"
    posted = curl.bare(version, "--data-binary", "@-", "-H", "Expect: 100-continue", "-w", "%{http_code}", "-o", "/dev/null",
                       f"{where}/index.html")
    assert posted.returncode == 0 and posted.stdout in (b"405", b"200"), posted


def test_prior_knowledge(curl):
    done = curl.bare("--http2-prior-knowledge", f"http://127.0.0.1:{curl.relay.at.clear}/index.html", "-w", "%{http_version}")
    assert done.stdout == b"hello from twohop\n2"


def test_upgrade_to_h2c_is_ignored(curl):
    """T01: answered as HTTP/1.1."""
    done = curl.bare("--http2", f"http://127.0.0.1:{curl.relay.at.clear}/index.html", "-w", "%{http_version}")
    assert done.stdout == b"hello from twohop\n1.1"
