"""Other clients' ordinary requests, and a web server under load behind CONNECT."""
import contextlib
import hashlib
import os
import re
import socket
import subprocess
import threading

import pytest

from harness import configs, vitals

HELLO = b"hello from twohop\n"
LARGE = bytes(range(256)) * 4096


@pytest.fixture
def web(tmp_path):
    """busybox httpd with files of many sizes: (port, {name: SHA-256})."""
    folder = tmp_path / "web"
    folder.mkdir()
    digests = {}
    for index in range(20):
        data = os.urandom(1 << index)
        (folder / str(index)).write_bytes(data)
        digests[str(index)] = hashlib.sha256(data).hexdigest()
    # One httpd for each connection, as inetd would: its own listener's queue is too short for 200 at once.
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    started = []

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    started.append(subprocess.Popen(["busybox", "httpd", "-i", "-h", str(folder)], stdin=connection, stdout=connection))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1], digests
    listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)
    listener.close()
    for server in started:
        server.kill()
        server.wait(5)


@pytest.mark.parametrize("how", [["-x", "http://127.0.0.1:{clear}"], ["--proxy-http2", "-x", "https://127.0.0.1:{tls}"]],
                         ids=["http1", "http2"])
def test_a_web_server_under_load(egress, program, certificates, web, tmp_path, how):
    """200 transfers at a time."""
    port, digests = web
    relay = egress(**{"num-threads": 2, "peers": ["127.0.0.0/8"]})  # else one address may have 100 connections
    before = vitals.Vitals(relay).descriptors()
    arguments = [word.format(clear=relay.at.clear, tls=relay.at.tls) for word in how]
    names = [str(index % 20) for index in range(600)]
    for number, name in enumerate(names):
        arguments += [f"http://127.0.0.1:{port}/{name}", "-o", tmp_path / f"got{number}"]
    done = program("curl", "-sS", "-p", "--proxy-cacert", certificates.ca, "--proxy-user", f"alice:{configs.TOKEN}",
                   "--parallel", "--parallel-immediate", "--parallel-max", "200", "--fail-early", *arguments)
    assert done.returncode == 0, done.stderr
    for number, name in enumerate(names):
        assert hashlib.sha256((tmp_path / f"got{number}").read_bytes()).hexdigest() == digests[name], name
    vitals.Vitals(relay).wait_quiet(before)


@pytest.mark.parametrize("how", [["https://127.0.0.1:{tls}"], ["http://127.0.0.1:{clear}"], ["--h1", "http://127.0.0.1:{clear}"]],
                         ids=["h2", "h2c", "h1"])
def test_h2load(egress, program, how):
    relay = egress()
    *options, base = [word.format(tls=relay.at.tls, clear=relay.at.clear) for word in how]
    done = program("h2load", *options, "-n", "5000", "-c", "20", "-m", "1" if "--h1" in how else "50", f"{base}/index.html")
    assert b"5000 succeeded, 0 failed, 0 errored, 0 timeout" in done.stdout, done.stdout.decode()


def test_nghttp(egress, program):
    """Many requests on one connection, with its tree of priorities, which RFC 9113 deprecates."""
    relay = egress()
    base = f"https://127.0.0.1:{relay.at.tls}"
    done = program("nghttp", "-n", "-s", "-m", "20", f"{base}/large", f"{base}/index.html", f"{base}/nothing-here")
    lines = [line.split() for line in done.stdout.decode().splitlines() if re.search(r" /(large|index.html|nothing-here)$", line)]
    assert sorted(line[-3] for line in lines) == ["200"] * 40 + ["404"] * 20, done.stdout.decode()


def test_gtlsclient(egress, program, tmp_path):
    """ngtcp2's HTTP/3 client."""
    relay = egress()
    base = f"https://localhost:{relay.at.tls}"
    done = program("gtlsclient", "-q", "--exit-on-all-streams-close", "--download", tmp_path, "127.0.0.1", relay.at.tls,
                   f"{base}/large", f"{base}/index.html")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "large").read_bytes() == LARGE and (tmp_path / "index.html").read_bytes() == HELLO


@pytest.mark.parametrize("trial", [["--change-local-addr=100ms", "--nat-rebinding"], ["--change-local-addr=100ms"], ["--key-update=50ms"]],
                         ids=["nat-rebinding", "migration", "key-update"])
def test_gtlsclient_wanders(egress, program, tmp_path, trial):
    """The request comes after the trial, from the new address or with the new keys."""
    relay = egress(**{"num-threads": 2})
    base = f"https://localhost:{relay.at.tls}"
    done = program("gtlsclient", "-q", *trial, "--delay-stream=300ms", "--exit-on-all-streams-close", "--download", tmp_path,
                   "127.0.0.1", relay.at.tls, f"{base}/large")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "large").read_bytes() == LARGE


def test_wget(egress, program, certificates):
    relay = egress()
    trust = f"--ca-certificate={certificates.ca}"
    done = program("wget", "-q", "-O", "-", trust, f"https://localhost:{relay.at.tls}/large")
    assert (done.returncode, done.stdout) == (0, LARGE)
    other = egress()
    done = program("wget", "-q", "-O", "-", trust, "-e", "use_proxy=yes", "-e", f"https_proxy=http://127.0.0.1:{relay.at.clear}",
                   "--proxy-user=alice", f"--proxy-password={configs.TOKEN}", f"https://localhost:{other.at.tls}/large")
    assert (done.returncode, done.stdout) == (0, LARGE), done.stderr
