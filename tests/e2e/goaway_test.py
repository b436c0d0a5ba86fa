"""A relay that says good-bye to each connection as soon as it is there: it is asked less and less often."""
import contextlib
import select
import socket
import ssl
import time

import h2.config
import h2.connection
import h2.events
import pytest

from harness import configs, listener, ports, socks, vitals


class Carrier:
    """One connection of an ingress over HTTP/2: one tunnel, and GOAWAY when it is there."""

    GOAWAY = b"\0\0\x08\7" + bytes(5) + b"\0\0\0\1" + bytes(4)  # python3-h2 would take its own for the end
    ENDS = h2.events.ConnectionTerminated, h2.events.StreamEnded, h2.events.StreamReset

    def __init__(self, stream, peer):
        self._stream, self._peer, self._id, self._onward = stream, peer, None, None

    def _begin(self, event):
        host, port = dict(event.headers)[b":authority"].decode().rsplit(":", 1)
        self._id, self._onward = event.stream_id, socket.create_connection((host, int(port)), 5)
        self._peer.send_headers(self._id, [(":status", "200")])
        self._stream.sendall(self._peer.data_to_send() + self.GOAWAY)

    def _take(self, data):
        for event in self._peer.receive_data(data):
            if isinstance(event, h2.events.RequestReceived) and self._id is None:
                self._begin(event)
            elif isinstance(event, h2.events.DataReceived) and event.stream_id == self._id:
                self._onward.sendall(event.data)
                self._peer.acknowledge_received_data(event.flow_controlled_length, self._id)
            elif isinstance(event, self.ENDS):
                raise ConnectionError

    def run(self):
        with contextlib.ExitStack() as stack:
            while True:
                sources = [self._stream] + ([self._onward] if self._onward else [])
                ready = [self._stream] if self._stream.pending() else select.select(sources, [], [], 30)[0]
                if self._stream in ready:
                    if not (data := self._stream.recv(65536)):
                        return
                    self._take(data)
                    if self._onward and len(sources) == 1:
                        stack.enter_context(self._onward)
                if self._onward in ready:
                    if not (data := self._onward.recv(8192)):
                        return
                    self._peer.send_data(self._id, data)  # so little that there is credit
                if not ready:
                    return
                self._stream.sendall(self._peer.data_to_send())


class Farewell(listener.Listener):
    """A relay over HTTP/2. how: "goaway" or "close", what every connection is told at once; "late": an ingress that says GOAWAY when
    it has begun to carry something; None: each tunnel is an echo."""

    def __init__(self, certificates, how):
        super().__init__()
        self.how, self._context = how, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificates.cert, certificates.key)
        self._context.set_alpn_protocols(["h2"])

    def serve(self, connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._context.wrap_socket(connection, server_side=True) as stream:
            peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
            peer.initiate_connection()
            stream.sendall(peer.data_to_send())
            if self.how == "late":
                Carrier(stream, peer).run()
            elif self.how:
                while b"\0\0\0\x04\x01" not in stream.recv(65536):  # it acknowledges the settings: it is there
                    pass
                if self.how == "goaway":
                    peer.close_connection(last_stream_id=0)
                    stream.sendall(peer.data_to_send())
                    while stream.recv(65536):
                        pass
            else:
                self._echo(stream, peer)

    @staticmethod
    def _echo(stream, peer):
        while data := stream.recv(65536):
            for event in peer.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    peer.send_headers(event.stream_id, [(":status", "200")])
                elif isinstance(event, h2.events.DataReceived):
                    peer.send_data(event.stream_id, event.data)
            stream.sendall(peer.data_to_send())


def ask(port):
    """Whether a tunnel echoes."""
    connection, reply = socks.connect(port, "127.0.0.1", 9)
    with connection:
        if reply == 0:
            connection.sendall(b"hello")
        return reply == 0 and connection.recv(5) == b"hello"


@pytest.mark.parametrize("how", ["goaway", "close"])
def test_it_is_asked_less_and_less_often(client, certificates, how):
    with Farewell(certificates, how) as relay:
        front = ports.free_port()
        hop = {"url": f"https://127.0.0.1:{relay.port}", "token": configs.TOKEN, "ca": str(certificates.ca), "http": 2}
        up = client({"chain": [hop], "socks": f"127.0.0.1:{front}"})
        time.sleep(5)  # it is wanted for longer than that
        assert 3 <= relay.connections <= 8, relay.connections
        assert len(up.events("hop_failed")) >= relay.connections - 1, up.log
        at, before, answers = time.monotonic(), relay.connections, 0
        while time.monotonic() < at + 3:
            assert not ask(front)
            answers += 1
            time.sleep(0.05)
        assert answers > 5 and relay.connections - before <= 8, (answers, relay.connections - before)
        relay.how = None
        vitals.wait(lambda: ask(front), 10, "the tunnel")


def test_an_ingress_that_drains_soon_after_each_connect(relay, client, certificates, tmp_path, tcp_echo):
    """What it carries lives on, and another connection is tried less and less often."""
    at, front = configs.Ports(), ports.free_port()
    relay(configs.egress(certificates, tmp_path, at, peers=["127.0.0.0/8"]), name="egress")
    common = {"token": configs.TOKEN, "ca": str(certificates.ca)}
    with Farewell(certificates, "late") as ingress:
        client({"chain": [{"url": f"https://127.0.0.1:{ingress.port}", "http": 2, **common},
                          {"url": f"https://127.0.0.1:{at.tls}", **common}], "socks": f"127.0.0.1:{front}"})
        first, reply = socks.connect(front, tcp_echo.host, tcp_echo.port)
        with first:
            assert reply == 0
            begun = time.monotonic()
            while time.monotonic() < begun + 9:
                connection, reply = socks.connect(front, tcp_echo.host, tcp_echo.port)
                connection.close()
                assert reply == 0
                first.sendall(b"1")
                assert first.recv(1) == b"1"
                time.sleep(0.2)
            assert 2 <= ingress.connections <= 4, ingress.connections
