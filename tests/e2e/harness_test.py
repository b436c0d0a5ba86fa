"""The harness itself: certificates, targets, namespaces, and that it notices a program which ends badly."""
import ctypes
import os
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest
from harness import attack, echo, process, vitals
from harness.ports import free_port


def handshake(server_context, client_context, name):
    """The peer certificate's names as the client of a TLS handshake over a socket pair sees them."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(10)
        theirs.settimeout(10)

        def serve():
            try:
                server_context.wrap_socket(theirs, server_side=True).unwrap()
            except OSError:
                pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with client_context.wrap_socket(ours, server_hostname=name) as secured:
                return secured.getpeercert()["subjectAltName"]
        finally:
            ours.close()
            thread.join(10)


@pytest.mark.parametrize("name", ["ingress.test", "egress.test", "localhost", "127.0.0.1", "::1"])
def test_certificate_is_good_for(certificates, name):
    assert handshake(certificates.server_context(), certificates.client_context(), name)


def test_certificate_is_not_good_for_another_name(certificates):
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(certificates.server_context(), certificates.client_context(), "other.test")


def test_expired_certificate_is_refused(certificates):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.issue("expired", ["ingress.test"], days=-1))
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        handshake(context, certificates.client_context(), "ingress.test")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_tcp_echo_half_closes(host):
    with echo.TcpEcho(host) as target, socket.create_connection((host, target.port), timeout=10) as connection:
        connection.sendall(b"ping" * 1000)
        connection.shutdown(socket.SHUT_WR)
        assert b"".join(iter(lambda: connection.recv(65536), b"")) == b"ping" * 1000
        assert target.peers[0][1] == connection.getsockname()[1]


def test_udp_echo(udp_echo):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.settimeout(10)
        for payload in (b"", b"ping", b"x" * 60000):
            sender.sendto(payload, (udp_echo.host, udp_echo.port))
            assert sender.recv(65536) == payload


class SlowOutput(process.Output):
    """Its thread never gets a turn."""

    def _keep_empty(self):
        pass


def test_what_a_process_wrote_is_in_its_log_at_once():
    ours, theirs = os.pipe()
    with open(ours, "rb") as pipe, open(theirs, "wb", buffering=0) as writer:
        output = SlowOutput(pipe)
        writer.write(b"one\ntw")
        assert output.text() == "one\n"
        writer.write(b"o\nthr\xff")
        assert output.text() == "one\ntwo\n" and not output.has_ended()
        writer.close()
        assert output.text() == "one\ntwo\nthr\ufffd" and output.has_ended()


def test_a_line_that_came_while_nobody_looked_is_not_waited_for():
    ours, theirs = os.pipe()
    output = process.Output(open(ours, "rb"))
    with open(theirs, "wb", buffering=0) as writer:
        seen = output.num_lines()
        writer.write(b"one\n")
        while not output.text():
            pass
        at = time.monotonic()
        output.wait(seen, 20)
        assert time.monotonic() - at < 10
    output.join(10)


def test_nobody_waits_for_a_log_that_is_not_asked_for():
    ours, theirs = os.pipe()
    output = process.Output(open(ours, "rb"))
    with open(theirs, "wb", buffering=0) as writer:
        for _ in range(100):
            writer.write(b"x" * 9999 + b"\n")
    output.join(10)
    assert output.text() == ("x" * 9999 + "\n") * 100


def test_free_ports_differ():
    assert len({free_port() for _ in range(20)}) == 20


def test_hosts_reach_each_other_by_their_own_addresses(network):
    left, right = network.host("left"), network.host("right")
    network.cable(left, ["192.0.2.1/24", "2001:db8::1/64"], right, ["192.0.2.2/24", "2001:db8::2/64"])
    listen = ("import socket,sys; s=socket.create_server(('::',7000),family=socket.AF_INET6,dualstack_ipv6=True);"
              "print('ready',flush=True)\nfor _ in 1,2: c,a=s.accept(); c.sendall(a[0].encode()); c.close()")
    dial = "import socket,sys; print(socket.create_connection((sys.argv[1],7000),10).recv(99).decode())"

    with subprocess.Popen(right.prefix + ["python3", "-c", listen], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout.readline() == "ready\n"
            assert left.run("python3", "-c", dial, "192.0.2.2").stdout == "::ffff:192.0.2.1\n"
            assert left.run("python3", "-c", dial, "2001:db8::2").stdout == "2001:db8::1\n"
        finally:
            server.kill()


FAKE = """#!/usr/bin/env python3
import signal, sys, time
if "-t" in sys.argv:
    sys.exit(0)
how = open(sys.argv[sys.argv.index("-c") + 1]).read()
def on_term(*_):
    if "leak" in how:
        print("==1==ERROR: LeakSanitizer: detected memory leaks", file=sys.stderr)
    sys.exit(3 if "status" in how else 0)
signal.signal(signal.SIGTERM, on_term)
print('{"event":"ready"}', file=sys.stderr, flush=True)
time.sleep(60)
"""


@pytest.fixture
def fake_program(tmp_path, monkeypatch):
    """Stands where twohop stands, and ends as its configuration says."""
    program = tmp_path / "twohop"
    program.write_text(FAKE)
    program.chmod(0o755)
    monkeypatch.setattr(process, "BUILD", tmp_path)


def test_process_that_ends_well_passes(fake_program, tmp_path):
    with process.Group(process.Relay, tmp_path) as group:
        relay = group.start({"end": "well"})
        assert relay.wait_event("ready") == {"event": "ready"}
    assert not relay.running()


@pytest.mark.parametrize("end, message", [("leak", "LeakSanitizer"), ("status", "ended with 3")])
def test_process_that_ends_badly_fails(fake_program, tmp_path, end, message):
    group = process.Group(process.Relay, tmp_path)
    relay = group.start({"end": end})
    with pytest.raises(AssertionError, match=message):
        group.__exit__(None, None, None)
    assert not relay.running()


def test_a_watch_tells_a_relay_that_stands_still_from_a_machine_that_does(relay, certificates, tmp_path, tcp_echo):
    started = attack.start_egress(relay, certificates, tmp_path, prefix=())

    def stop(still):
        started.signal(signal.SIGSTOP)
        time.sleep(0.2)  # an echo is under way
        still()
        started.signal(signal.SIGCONT)

    with vitals.Watch(started, tcp_echo) as watch:
        stop(lambda: ctypes.PyDLL(None).usleep(700_000))  # a PyDLL lets no other thread of this process run
        vitals.wait(lambda: watch.worst > 0.1)
        assert watch.worst < 0.5
        stop(lambda: time.sleep(0.7))
        vitals.wait(lambda: watch.worst > 0.6)
