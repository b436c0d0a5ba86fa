"""twohop-client and two hops: real programs' protocols in, targets out, and what happens when a hop fails."""
import contextlib
import hashlib
import os
import socket
import struct
import subprocess
import time

import pytest

from harness import configs, echo, hop_chain, http1, ports, process, socks, source

UDP_SEGMENT = 103


@pytest.fixture
def chain(relay, client, certificates, tmp_path):
    return lambda **options: hop_chain.Chain(relay, client, certificates, tmp_path, **options)


@pytest.mark.parametrize("quic", [True, False], ids=["http3", "http2"])
def test_tcp_and_udp_by_every_front(chain, tcp_echo, udp_echo, quic):
    up = chain(quic=quic)
    hop_chain.echo_through_http(up, tcp_echo, os.urandom(300_000))
    with http1.Connection(up.http) as connection:  # absolute form
        status, fields = connection.request("GET", f"http://127.0.0.1:{up.egress_at.clear}/index.html")
        assert status in (403, 502)  # the egress refuses its own listeners
    connection, reply = socks.connect(up.socks, "127.0.0.1", tcp_echo.port)
    with connection:
        assert reply == 0
        connection.sendall(b"by socks")
        assert connection.recv(100) == b"by socks"
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""
    connection, reply = socks.connect(up.socks, "localhost", tcp_echo.port)  # the egress resolves it
    with connection:
        assert reply == 0
    with socks.Associate(up.socks) as associate:
        for size in (1, 500, 1100):
            associate.send("127.0.0.1", udp_echo.port, b"u" * size)
            assert associate.receive() == b"u" * size
        associate.send("127.0.0.1", udp_echo.port, b"fragment", fragment=1)
        associate.send("127.0.0.1", udp_echo.port, b"whole")
        assert associate.receive() == b"whole"


def test_one_target_more_than_an_association_holds(chain):
    """The 257th waits until one of the 256 has been quiet for five seconds, and takes its place; that one may come back."""
    up = chain()
    with contextlib.ExitStack() as stack:
        targets = [stack.enter_context(echo.UdpEcho()) for _ in range(257)]
        associate = stack.enter_context(socks.Associate(up.socks))
        for target in targets[:256]:
            associate.send("127.0.0.1", target.port, b"one of many")
            assert associate.receive() == b"one of many"
        for target in targets[:256]:  # all at once: none is quiet for long, however long the opening took
            associate.send("127.0.0.1", target.port, b"again")
        assert [associate.receive() for _ in range(256)] == [b"again"] * 256
        associate.settimeout(0.5)
        associate.send("127.0.0.1", targets[256].port, b"too many")
        with pytest.raises(TimeoutError):
            associate.receive()
        time.sleep(5)
        associate.settimeout(10)
        for target in targets[256], targets[0]:
            associate.send("127.0.0.1", target.port, b"room again")
            assert associate.receive() == b"room again"



def test_the_client_says_goodbye_to_every_hop(chain, tcp_echo):
    up = chain()
    hop_chain.echo_through_http(up, tcp_echo)
    up.client.stop(timeout=5)
    for relay in (up.egress, *up.ingresses):
        relay.stop(timeout=5)  # a connection left behind would hold it for 30 s


def test_large_datagrams_of_a_quiet_client(chain, udp_echo):
    """The sizes that both hops can carry are found without traffic: a second after the first small datagram a large
    one passes, and it is not the small ones in between that made it so."""
    port = ports.free_port()
    chain(forward=[f"udp:127.0.0.1:{port}={udp_echo.authority}"])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as application:
        application.settimeout(5)
        application.connect(("127.0.0.1", port))
        application.send(b"small")
        assert application.recv(2000) == b"small"
        time.sleep(2)
        application.send(b"x" * 1300)
        assert application.recv(2000) == b"x" * 1300


def test_forwards(chain, tcp_echo, udp_echo):
    tcp_port, udp_port = ports.free_port(), ports.free_port()
    chain(forward=[f"tcp:127.0.0.1:{tcp_port}={tcp_echo.authority}", f"udp:127.0.0.1:{udp_port}={udp_echo.authority}"])
    with socket.create_connection(("127.0.0.1", tcp_port), 10) as connection:
        connection.sendall(b"forward")
        assert connection.recv(100) == b"forward"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as local:
        local.settimeout(10)
        local.sendto(b"datagram", ("127.0.0.1", udp_port))
        assert local.recv(100) == b"datagram"


def send_run(local, datagrams, to):
    """All of one size (the last may be shorter) in one system call, as QUIC libraries send."""
    local.sendmsg([b"".join(datagrams)], [(socket.SOL_UDP, UDP_SEGMENT, struct.pack("H", len(datagrams[0])))], 0, to)


def test_runs_of_datagrams(chain, udp_echo):
    """Datagrams that come and go in runs, some of them for another target, stay apart and keep their order."""
    port = ports.free_port()
    with echo.UdpEcho() as other, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as local:
        up = chain(forward=[f"udp:127.0.0.1:{port}={udp_echo.authority}"])
        local.settimeout(10)
        wanted = [b"%03d" % number + bytes(997) for number in range(40)] + [b"040 the last is short"]
        local.sendto(b"first", ("127.0.0.1", port))
        assert local.recv(2000) == b"first"
        send_run(local, wanted, ("127.0.0.1", port))
        assert [local.recv(2000) for _ in wanted] == wanted
        with socks.Associate(up.socks) as associate:
            for target in (udp_echo, other):
                associate.send("127.0.0.1", target.port, b"first")
                assert associate.receive() == b"first"
            targets = [other if number % 7 == 3 else udp_echo for number in range(40)]
            heads = [socks.datagram("127.0.0.1", target.port, b"") for target in targets]
            send_run(associate._socket, [head + data for head, data in zip(heads, wanted)], associate._relay)
            came = [associate._socket.recv(2000) for _ in heads]
            for target in (udp_echo, other):
                assert [one for one in came if one.startswith(socks.datagram("127.0.0.1", target.port, b""))] == [
                    head + data for head, data, its in zip(heads, wanted, targets) if its is target]


def test_absolute_form(chain, tmp_path):
    up = chain()
    www = tmp_path / "target"
    www.mkdir()
    (www / "page").write_bytes(b"a page")
    port = ports.free_port()
    with subprocess.Popen(["python3", "-m", "http.server", "--bind", "127.0.0.1", "--directory", www, str(port)],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(100):
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.05)
            with http1.Connection(up.http) as connection:
                status, fields = connection.request("GET", f"http://127.0.0.1:{port}/page", host=f"127.0.0.1:{port}")
                assert status == 200 and connection.body(fields) == b"a page"
        finally:
            server.terminate()


def test_the_ingress_does_not_see_the_target_nor_the_egress_the_user(chain, tcp_echo):
    up = chain()
    hop_chain.echo_through_http(up, tcp_echo)
    assert tcp_echo.authority not in up.ingresses[0].log and tcp_echo.authority not in up.egress.log
    assert configs.TOKEN not in up.ingresses[0].log + up.egress.log + up.client.log


def refused(up, target):
    """(status, the text of the answer) of a CONNECT through the client's HTTP proxy."""
    with http1.Connection(up.http, timeout=30) as connection:
        status, fields = connection.connect(target)
        return status, connection.body(fields).decode()


def test_a_wrong_token_names_the_hop(chain, tcp_echo):
    up = chain(egress_token="wrong")
    status, text = refused(up, tcp_echo.authority)
    assert status == 502 and "hop 2" in text and "token" in text, text


def test_a_dead_hop_names_the_hop(chain, tcp_echo):
    up = chain()
    hop_chain.echo_through_http(up, tcp_echo)
    up.egress.kill()
    status, text = refused(up, tcp_echo.authority)
    assert status == 502 and "hop 2" in text, text
    assert not [peer for peer in tcp_echo.peers[1:]], "a direct connection"


@pytest.mark.parametrize("hop", ["ingress", "egress"])
def test_a_hop_that_crashed_and_is_back(chain, relay, tcp_echo, hop):
    """It says at once that it knows nothing of the connections of the process before; the request that learns of it
    is sent again."""
    up = chain()
    hop_chain.echo_through_http(up, tcp_echo)
    crashed = up.egress if hop == "egress" else up.ingresses[0]
    crashed.kill()
    relay(crashed.config, name="back")
    begun = time.monotonic()
    hop_chain.echo_through_http(up, tcp_echo)
    assert time.monotonic() - begun < 5


def test_one_tunnel_more_than_a_connection_takes(chain, tcp_echo):
    up = chain(egress_options={"limits.streams": 4, "limits.streams-authenticated": 4})
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            assert stack.enter_context(http1.Connection(up.http)).connect(tcp_echo.authority)[0] == 200
        status, text = refused(up, tcp_echo.authority)
    assert status == 502 and "takes no more tunnels" in text, text


def test_a_refused_target_is_told(chain):
    up = chain()
    status, text = refused(up, f"127.0.0.1:{ports.free_port()}")
    assert status == 502 and "refused" in text, text


def test_an_ingress_dies_and_no_tunnel_is_lost(chain, udp_echo):
    up = chain(ingresses=2)
    got, digester = 0, hashlib.sha256()
    with source.Source(64 << 20) as target, http1.Connection(up.http, timeout=30) as download, \
            socks.Associate(up.socks) as associate:
        assert download.connect(target.authority)[0] == 200
        associate.send("127.0.0.1", udp_echo.port, b"before")
        assert associate.receive() == b"before"
        while data := download.read(1 << 18):
            digester.update(data)
            got += len(data)
            if got > 16 << 20 and up.ingresses[0].running():
                up.ingresses[0].kill()
        assert got == 64 << 20 and digester.digest() == target.digest
        associate.retry("127.0.0.1", udp_echo.port, b"after")


def test_check(chain):
    up = chain()
    path = up.folder / "check.yaml"
    import yaml
    path.write_text(yaml.safe_dump(up.client_config()))
    done = subprocess.run([process.BUILD / "twohop-client", "check", "-c", path], env=process.environment(), timeout=40,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hop 1" in done.stdout.lower() and "hop 2" in done.stdout.lower()
    for target, status, text in ((f"127.0.0.1:{ports.free_port()}", 1, "connection refused"), ("10.0.0.1:80", 1, "prohibited")):
        done = subprocess.run([process.BUILD / "twohop-client", "check", "-c", path, "--target", target],
                              env=process.environment(), timeout=40, capture_output=True, text=True)
        assert done.returncode == status and text in done.stdout, done.stdout + done.stderr
        assert f"\nthe chain works, but not to {target}: " in done.stdout, done.stdout
    # Only an ingress, which opens tunnels to its egress relays and nothing else: not what the user wants.
    config = up.client_config()
    path.write_text(yaml.safe_dump({**config, "chain": config["chain"][:1]}))
    done = subprocess.run([process.BUILD / "twohop-client", "check", "-c", path], env=process.environment(), timeout=40,
                          capture_output=True, text=True)
    assert done.returncode != 0 and "refused by policy" in done.stdout and "--target" in done.stdout, done.stdout
    assert "\nthe chain works, but its last hop refuses what is asked for without --target" in done.stdout, done.stdout
    path.write_text(yaml.safe_dump(up.client_config(egress_token="wrong")))
    done = subprocess.run([process.BUILD / "twohop-client", "check", "-c", path], env=process.environment(), timeout=40,
                          capture_output=True, text=True)
    assert done.returncode != 0 and "token" in done.stdout + done.stderr
