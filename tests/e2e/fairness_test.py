"""One user must not disturb the others: the end of thousands of tunnels (T77, T85), names asked in vain (T53),
a UDP flow that its proxy takes nothing of."""
import contextlib
import hashlib
import socket
import struct
import threading
import time

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest

from harness import capsule, configs, http1, ports, vitals
from harness import dns as name_server
from harness.attack import start_egress
from harness.vitals import Watch

pytestmark = pytest.mark.xdist_group("load")  # one after the other: they measure time and load

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, HEADERS, DATA = 4, 1, 0
END_HEADERS, ACK = 4, 1
INITIAL_WINDOW_SIZE = 4


@pytest.fixture
def egress(relay, certificates, tmp_path):
    def start(**more):
        return start_egress(relay, certificates, tmp_path, prefix=(), **({"num-threads": 1} | more))
    return start


# ---- HTTP/2 by hand: many requests, of whose answers nothing is read ----

def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + struct.pack("!I", stream) + payload


def literal(name, value):
    """RFC 7541 section 6.2.2; both are shorter than 127 bytes."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def head(**fields):
    return b"".join(literal(name.replace("_", "-") if name.startswith("proxy") else ":" + name, value)
                    for name, value in fields.items())


def udp_head(port):
    return head(method="CONNECT", protocol="connect-udp", scheme="http", authority="localhost",
                path=f"/.well-known/masque/udp/127.0.0.1/{port}/", proxy_authorization=configs.BEARER)


def attack(port, window=65535):
    """A connection that grants each stream so much."""
    one = socket.create_connection(("127.0.0.1", port))
    one.sendall(PREFACE + frame(SETTINGS, 0, 0, struct.pack("!HI", INITIAL_WINDOW_SIZE, window)) + frame(SETTINGS, ACK, 0))
    return one


class Flood(threading.Thread):
    """A UDP target that answers each peer's first datagram with `count` small ones."""

    def __init__(self, count):
        super().__init__(daemon=True)
        self._socket, self._count, self.peers = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), count, set()
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                _, peer = self._socket.recvfrom(2048)
                if peer not in self.peers:
                    for _ in range(self._count):
                        self._socket.sendto(bytes(500), peer)
                    self.peers.add(peer)

    def close(self):
        self._socket.close()


TUNNELS = 200


def test_the_end_of_flooded_tunnels_keeps_nobody_waiting(egress, tcp_echo):
    """Each tunnel's socket is full when the connection of all of them goes."""
    relay = egress()
    flood = Flood(1500)
    flood.start()
    with attack(relay.at.clear, window=0) as one, Watch(relay, tcp_echo) as watch:
        block = udp_head(flood.port)
        one.sendall(frame(HEADERS, END_HEADERS, 1, block) + frame(DATA, 0, 1, capsule.datagram(b"a")))
        vitals.wait(lambda: flood.peers)
        one.sendall(frame(SETTINGS, ACK, 0))  # of the second SETTINGS, which allows a known user more streams
        for stream in range(3, 2 * TUNNELS, 2):
            one.sendall(frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, 0, stream, capsule.datagram(b"a")))
        vitals.wait(lambda: len(flood.peers) == TUNNELS, 40)
        flood.close()
        assert relay.vitals.tunnels() == TUNNELS + 1
        watch.times.clear()
        one.close()
        vitals.wait(lambda: relay.vitals.tunnels() == 1, 30)
        time.sleep(0.1)
        worst = watch.worst
    assert worst < 0.3, worst


# ---- the resolver ----

class Silent(dict):
    """For name_server.Server: no answer to names that are not in it."""

    def get(self, name, default=None):
        return super().get(name)


def test_names_asked_in_vain_leave_the_others_room(egress, tcp_echo, tmp_path):
    """Clients of one token ask for names that nobody answers and go away at once; the queries cannot be cancelled."""
    users = {name: f"the-secret-of-{name}" for name in ("alice", "bob")}
    tokens = tmp_path / "users"
    tokens.write_text("".join(f"{name} {hashlib.sha256(secret.encode()).hexdigest()}\n" for name, secret in users.items()))
    good = {f"good{i}.test.": ["A 127.0.0.1"] for i in range(5)}
    with name_server.Server(Silent(good)) as server:
        relay = egress(**{"auth.tokens": str(tokens), "resolver.servers": [server.address]})
        for i in range(20):  # all within the 5 s of a query
            with contextlib.ExitStack() as connections:
                for j in range(4):
                    one = connections.enter_context(attack(relay.at.clear))
                    one.sendall(b"".join(frame(HEADERS, END_HEADERS, 2 * k + 1, head(
                        method="CONNECT", authority=f"x{i}-{j}-{k}.test:443", proxy_authorization=f"Bearer {users['alice']}"))
                        for k in range(60)))
                time.sleep(0.15)
        for name in good:
            with http1.Connection(relay.at.clear) as connection:
                at = time.monotonic()
                status, fields = connection.connect(f"{name[:-1]}:{tcp_echo.authority.rpartition(':')[2]}",
                                                    f"Proxy-Authorization: Bearer {users['bob']}")
                assert status == 200 and time.monotonic() - at < 3, (status, fields.get("proxy-status"))


# ---- the client's forwards ----

class MiserlyProxy(threading.Thread):
    """An HTTP/2 proxy that echoes datagrams and gives the first stream no more window than it began with."""

    def __init__(self, certificates):
        super().__init__(daemon=True)
        self._context = certificates.server_context()
        self._context.set_alpn_protocols(["h2"])
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.streams = {}

    def run(self):
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.local_settings = h2.settings.Settings(
            client=False, initial_values={h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1})
        with self._context.wrap_socket(self._socket.accept()[0], server_side=True) as peer:
            connection.initiate_connection()
            peer.sendall(connection.data_to_send())
            while data := peer.recv(65536):
                for event in connection.receive_data(data):
                    self._answer(connection, event)
                peer.sendall(connection.data_to_send())

    def _answer(self, connection, event):
        if isinstance(event, h2.events.RequestReceived):
            self.streams[event.stream_id] = 0
            connection.send_headers(event.stream_id, [(":status", "200"), ("capsule-protocol", "?1")])
        elif isinstance(event, h2.events.DataReceived):
            self.streams[event.stream_id] += len(event.data)
            connection.increment_flow_control_window(event.flow_controlled_length)
            if event.stream_id != min(self.streams):
                connection.increment_flow_control_window(event.flow_controlled_length, event.stream_id)
                connection.send_data(event.stream_id, event.data)


def test_a_blocked_flow_of_a_forward_keeps_the_others_waiting_for_a_moment_only(client, certificates):
    proxy, port = MiserlyProxy(certificates), ports.free_port()
    proxy.start()
    hop = {"url": f"https://127.0.0.1:{proxy.port}", "http": "2", "token": configs.TOKEN, "ca": str(certificates.ca)}
    client({"chain": [hop], "forward": [f"udp:127.0.0.1:{port}=192.0.2.1:9"]})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as greedy, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        greedy.connect(("127.0.0.1", port))
        other.connect(("127.0.0.1", port))
        other.settimeout(10)
        for _ in range(200):
            greedy.send(bytes(1000))
            time.sleep(0.002)
        vitals.wait(lambda: proxy.streams and min(proxy.streams.values()) > 60000)
        for i in range(3):
            other.send(b"other %d" % i)
            assert other.recv(100) == b"other %d" % i
        for _ in range(50):  # its queue is full: they are dropped
            greedy.send(bytes(1000))
        at = time.monotonic()
        other.send(b"at once")
        assert other.recv(100) == b"at once" and time.monotonic() - at < 5
