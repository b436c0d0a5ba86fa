"""Ingresses of different operators: each has a token and an authority of its own."""
import asyncio
import contextlib
import hashlib
import queue
import re
import signal
import subprocess
import time

import pytest
import yaml
from aioquic.asyncio import QuicConnectionProtocol
from aioquic.h3.connection import ErrorCode, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted

from harness import configs, http1, pki, ports, process, quic_relay, socks, source, vitals


class Operators:
    """An egress, and two ingresses that share nothing. client_config(**changes): changes to the second ingress's entry."""

    def __init__(self, relay, certificates, folder):
        self.folder = folder
        self.egress_at, self.at = configs.Ports(), [configs.Ports(), configs.Ports()]
        self.egress = relay(configs.egress(certificates, folder, self.egress_at, peers=["127.0.0.0/8"]), name="egress")
        self.authorities, self.tokens, self.ingresses = [], ["token-of-the-first", "token-of-the-second"], []
        for at, token in zip(self.at, self.tokens):
            home = folder / token
            home.mkdir()
            self.authorities.append(pki.Pki(home))
            config = configs.ingress(self.authorities[-1], home, at, [f"127.0.0.1:{self.egress_at.tls}"])
            configs.token_file(home, [("alice", token)])
            self.ingresses.append(relay(config, name=f"ingress-{token}"))
        self.hop2 = {"url": f"https://127.0.0.1:{self.egress_at.tls}", "token": configs.TOKEN, "ca": str(certificates.ca)}
        self.http, self.socks = ports.free_port(), ports.free_port()

    def url(self, number):
        return f"https://127.0.0.1:{self.at[number].tls}"

    def client_config(self, **changes):
        second = {"url": self.url(1), "token": self.tokens[1], "ca": str(self.authorities[1].ca)} | changes
        hop1 = {"urls": [self.url(0), second], "token": self.tokens[0], "ca": str(self.authorities[0].ca)}
        return {"chain": [hop1, self.hop2], "http-proxy": f"127.0.0.1:{self.http}", "socks": f"127.0.0.1:{self.socks}"}

    def check(self, *arguments, **changes):
        """(exit status, output) of `check`, configured by a file unless there are arguments."""
        if not arguments:
            path = self.folder / "check.yaml"
            path.write_text(yaml.safe_dump(self.client_config(**changes)))
            arguments = ["-c", path]
        done = subprocess.run([process.BUILD / "twohop-client", "check", *arguments], env=process.environment(), timeout=60,
                              capture_output=True, text=True)
        assert not process.REPORT.search(done.stderr), done.stderr
        return done.returncode, done.stdout


class Leaving(QuicConnectionProtocol):
    """A relay that says GOAWAY as soon as somebody has come, and stays."""

    def quic_event_received(self, event):
        if isinstance(event, HandshakeCompleted):
            control = H3Connection(self._quic, enable_webtransport=True)._local_control_stream_id
            self._quic.send_stream_data(control, b"\x07\x01\x00")
            self.transmit()


class Closing(quic_relay.Granting):
    """A relay that lets the next hop be begun, leads nowhere, and closes."""

    def on_item(self, item):
        if isinstance(item, HeadersReceived):
            asyncio.get_running_loop().call_later(0.05, self.close)


class Bound(quic_relay.Granting):
    """An egress that lets no connection move (RFC 9000 section 18.2: disable_active_migration). Every target is an echo."""

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        parameters = self._quic._serialize_transport_parameters
        self._quic._serialize_transport_parameters = lambda: parameters() + b"\x0c\x00"

    def on_item(self, item):
        if isinstance(item, DataReceived) and not item.stream_ended:
            self._http.send_data(item.stream_id, item.data, False)


@pytest.fixture
def operators(relay, certificates, tmp_path):
    return Operators(relay, certificates, tmp_path)


def test_a_download_moves_to_another_operators_ingress(operators, client, udp_echo):
    up = client(operators.client_config())
    size, got, digester = 48 << 20, 0, hashlib.sha256()
    with source.Source(size) as target, http1.Connection(operators.http, timeout=30) as download, \
            socks.Associate(operators.socks) as associate:
        assert download.connect(target.authority)[0] == 200
        associate.send("127.0.0.1", udp_echo.port, b"before")
        assert associate.receive() == b"before"
        while data := download.read(1 << 18):
            digester.update(data)
            got += len(data)
            if got > 12 << 20 and operators.ingresses[0].running():
                operators.ingresses[0].kill()
        assert got == size and digester.digest() == target.digest
        associate.retry("127.0.0.1", udp_echo.port, b"after")
    assert [event["relay"] for event in up.events("hop_ready")] == [
        f"127.0.0.1:{operators.at[0].tls}", f"127.0.0.1:{operators.egress_at.tls}", f"127.0.0.1:{operators.at[1].tls}"]
    for token in operators.tokens:
        assert token not in up.log + operators.egress.log
    assert operators.tokens[1] not in operators.ingresses[0].log and operators.tokens[0] not in operators.ingresses[1].log


def line_of(text, number, at):
    """What check says of hop `number` at these ports."""
    return next(line for line in text.splitlines() if line.startswith(f"hop {number}  127.0.0.1:{at.tls} "))


def test_check_tries_every_ingress(operators):
    status, text = operators.check()
    assert status == 0 and text.endswith("the chain works\n"), text
    for at in operators.at:
        assert " ok," in line_of(text, 1, at)
        assert re.search(rf"^hop 1  127.0.0.1:{at.tls} +ok, token accepted, lets hop 2 pass$", text, re.MULTILINE), text
    keys = [f"token={operators.tokens[0]},ca={operators.authorities[0].ca}",
            f"url={operators.url(1)},token={operators.tokens[1]},ca={operators.authorities[1].ca}"]
    hop2 = operators.hop2
    status, text = operators.check("--hop", f"{operators.url(0)},{','.join(keys)}",
                                   "--hop", f"{hop2['url']},token={hop2['token']},ca={hop2['ca']}")
    assert status == 0 and text.endswith("the chain works\n"), text


def test_check_names_the_ingress_that_does_not_work(operators):
    second = f"127.0.0.1:{operators.at[1].tls}"
    status, text = operators.check(token="a-wrong-one")
    assert status == 1 and "the chain works through 1 of 2 ingresses" in text, text
    assert re.search(rf"^hop 1  {second} +FAILED .*: hop 1 \({second}\): no way to hop 2 .*: the token was refused \(401\)$", text,
                     re.MULTILINE), text
    assert re.search(rf"^hop 2  127.0.0.1:{operators.egress_at.tls} +not reached$", text, re.MULTILINE), text
    status, text = operators.check(ca=str(operators.authorities[0].ca))
    assert status == 1 and "the chain works through 1 of 2 ingresses" in text, text
    assert "FAILED" in line_of(text, 1, operators.at[1]) and "certificate" in line_of(text, 1, operators.at[1]), text
    operators.ingresses[1].kill()
    status, text = operators.check()
    assert status == 1 and "refused" in line_of(text, 1, operators.at[1]), text
    operators.ingresses[0].kill()
    status, text = operators.check()
    assert status == 1 and text.endswith("the chain does not work\n"), text


def test_an_ingress_that_takes_no_requests_is_left(operators, client, tcp_echo):
    port = ports.free_port()
    config = operators.client_config()
    config["chain"][0]["urls"][0] = f"https://127.0.0.1:{port}"
    with quic_relay.serving(Leaving, operators.authorities[0], port):
        up = client(config)
        with http1.Connection(operators.http, timeout=10) as connection:
            assert connection.connect(tcp_echo.authority)[0] == 200
        assert [event["text"] for event in up.events("hop_failed")] == [f"hop 1 (127.0.0.1:{port}): it takes no new requests"]
        assert up.events("hop_ready")[1]["relay"] == f"127.0.0.1:{operators.at[1].tls}"
        up.stop()


def test_an_ingress_that_refuses_the_move_says_why(operators, client, tcp_echo):
    up = client(operators.client_config(token="a-wrong-one"))
    with http1.Connection(operators.http, timeout=15) as connection:
        assert connection.connect(tcp_echo.authority)[0] == 200
        connection.send(b"one")
        assert connection.read(3) == b"one"
        operators.ingresses[0].kill()
        connection.send(b"two")
        with pytest.raises(ConnectionResetError):
            connection.read(1)
    failed = up.events("hop_failed")
    assert failed and {event["hop"] for event in failed} == {1}, failed
    assert (f"hop 1 (127.0.0.1:{operators.at[1].tls}): no way to hop 2 (127.0.0.1:{operators.egress_at.tls}): the token was "
            "refused (401)") in [event["text"] for event in failed]
    assert len(up.events("hop_moved")) <= 2
    operators.egress.kill()  # it would wait for a connection that cannot say goodbye


def test_a_connection_that_may_not_move_is_told_of(operators, client, certificates, tcp_echo):
    """Its tunnels are lost with the ingress; the log says why, and the next one finds another connection."""
    operators.egress.kill()
    egress = f"127.0.0.1:{operators.egress_at.tls}"
    with quic_relay.serving(Bound, certificates, operators.egress_at.tls):
        up = client(operators.client_config())
        with http1.Connection(operators.http, timeout=15) as connection:
            assert connection.connect(tcp_echo.authority)[0] == 200
            connection.send(b"one")
            assert connection.read(3) == b"one"
            operators.ingresses[0].kill()
            with pytest.raises(ConnectionResetError):
                connection.read(1)
        failed = vitals.wait(lambda: [event for event in up.events("hop_failed") if event["hop"] == 2])
        assert [event["text"] for event in failed] == [
            f"hop 2 ({egress}): it cannot go on through 127.0.0.1:{operators.at[1].tls}, so its tunnels are lost and it is "
            "connected anew: its relay lets no QUIC connection move"]
        with http1.Connection(operators.http, timeout=15) as connection:
            assert connection.connect(tcp_echo.authority)[0] == 200
        up.stop()


class Echo:
    """A tunnel to an echo through the client."""

    def __init__(self, port, target):
        self._connection = http1.Connection(port, timeout=15)
        assert self._connection.connect(target.authority)[0] == 200

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._connection.close()

    def reset(self):
        self._connection.reset()

    def says(self, text):
        self._connection.send(text)
        return self._connection.read(len(text)) == text


@pytest.mark.parametrize("form", ["bound", "HTTP/2"])
def test_a_connection_that_may_not_move_stays_while_its_ingress_drains(operators, client, certificates, tcp_echo, form):
    """New tunnels go through the other ingress. It ends with the one that it is on."""
    with contextlib.ExitStack() as stack:
        if form == "bound":
            operators.egress.kill()
            stack.enter_context(quic_relay.serving(Bound, certificates, operators.egress_at.tls))
        else:
            operators.hop2["http"] = 2
        up = client(operators.client_config())
        old = stack.enter_context(Echo(operators.http, tcp_echo))
        assert old.says(b"one")
        operators.ingresses[0].signal(signal.SIGTERM)
        vitals.wait(lambda: len(up.events("hop_ready")) == 4, 15, "two new hops")
        assert up.events("hop_ready")[2]["relay"] == f"127.0.0.1:{operators.at[1].tls}"
        new = stack.enter_context(Echo(operators.http, tcp_echo))
        for _ in range(10):
            assert old.says(b"two") and new.says(b"three")
            time.sleep(0.1)
        assert [event["hop"] for event in up.events("hop_stays")] == [2]
        assert not up.events("hop_moved") and not [event for event in up.events("hop_failed") if event["hop"] == 2]
        operators.ingresses[0].kill()
        with pytest.raises((ConnectionResetError, AssertionError)):
            old.says(b"four")
        assert new.says(b"five") and len(up.events("hop_ready")) == 4
        up.stop()


@pytest.mark.parametrize("end", ["tunnel", "client"])
def test_a_kept_ingress_carries_the_farewell_of_the_hop_on_it(operators, client, certificates, tcp_echo, end):
    """It is closed after that: else the last hop would wait for its idle timeout."""
    operators.egress.kill()
    farewells = queue.SimpleQueue()

    class Left(Bound):
        def quic_event_received(self, event):
            super().quic_event_received(event)
            if isinstance(event, ConnectionTerminated):
                farewells.put((event.error_code, event.reason_phrase))

    with contextlib.ExitStack() as stack:
        stack.enter_context(quic_relay.serving(Left, certificates, operators.egress_at.tls))
        up = client(operators.client_config())
        old = stack.enter_context(Echo(operators.http, tcp_echo))
        assert old.says(b"one")
        operators.ingresses[0].signal(signal.SIGTERM)
        vitals.wait(lambda: len(up.events("hop_ready")) == 4, 15, "two new hops")
        new = stack.enter_context(Echo(operators.http, tcp_echo))
        assert old.says(b"two") and new.says(b"three") and len(up.events("hop_stays")) == 1
        if end == "client":
            up.stop()
        else:
            old.reset()
        assert farewells.get(timeout=10) == (ErrorCode.H3_NO_ERROR, "")
        operators.ingresses[0].wait_end(10)  # nothing is left on it
        if end == "tunnel":
            assert new.says(b"four") and farewells.empty()
            up.stop()
        assert farewells.get(timeout=10) == (ErrorCode.H3_NO_ERROR, "")


def test_check_of_an_ingress_that_closes_while_the_next_hop_is_connected(certificates, tmp_path):
    """What is connected through it ends with it."""
    port = ports.free_port()
    hop = {"url": f"https://127.0.0.1:{port}", "ca": str(certificates.ca)}
    path = tmp_path / "check.yaml"
    path.write_text(yaml.safe_dump({"chain": [hop, hop]}))
    with quic_relay.serving(Closing, certificates, port):
        done = subprocess.run([process.BUILD / "twohop-client", "check", "-c", path], env=process.environment(), timeout=60,
                              capture_output=True, text=True)
    assert done.returncode == 1 and not process.REPORT.search(done.stderr), done.stdout + done.stderr
    assert re.search(fr"hop 1 .* FAILED after \d+ ms: hop 1 \(127.0.0.1:{port}\): the connection was lost", done.stdout), done.stdout
