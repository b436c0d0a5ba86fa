"""Targets that send back what they get, in threads of the test's process."""
import contextlib
import socket
import threading


def _family(host):
    return socket.AF_INET6 if ":" in host else socket.AF_INET


class _Target:
    """host, port: where it listens. peers: the address of each client, in order of arrival. A context manager."""

    kind = None

    def __init__(self, host="127.0.0.1"):
        self.host = host
        self.peers = []
        self._socket = socket.socket(_family(host), self.kind)
        self._socket.bind((host, 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def authority(self):
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __enter__(self):
        if self.kind == socket.SOCK_STREAM:
            self._socket.listen(128)  # before anyone may connect
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop()
        self._thread.join(5)
        self._socket.close()
        assert not self._thread.is_alive(), "the echo target did not stop"


class TcpEcho(_Target):
    """Echoes each connection, and ends its own direction when the client has ended the other (half-close)."""

    kind = socket.SOCK_STREAM

    def _run(self):
        self._connections = set()
        while True:
            try:
                connection, peer = self._socket.accept()
            except OSError:
                return
            self.peers.append(peer)
            self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with contextlib.suppress(OSError):
            while data := connection.recv(65536):
                connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        self._connections.discard(connection)
        connection.close()

    def _stop(self):
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        for connection in list(getattr(self, "_connections", ())):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class UdpSizer(_Target):
    """Answers a datagram of sized(answer, length) with `answer` bytes, the first 5 of which tell how long the datagram was."""

    kind = socket.SOCK_DGRAM

    @staticmethod
    def sized(answer, length):
        return b"%05d" % answer + bytes(length - 5)

    def _run(self):
        while True:
            try:
                data, peer = self._socket.recvfrom(65536)
            except ConnectionRefusedError:
                continue
            if len(data) < 5:
                return
            self._socket.sendto(b"%05d" % len(data) + bytes(int(data[:5]) - 5), peer)

    def _stop(self):
        self._socket.sendto(b"end", (self.host, self.port))


class UdpEcho(_Target):
    """Echoes each datagram to its sender."""

    kind = socket.SOCK_DGRAM
    _END = b"\0end of the echo target\0"

    def _run(self):
        while True:
            try:
                data, peer = self._socket.recvfrom(65536)
            except ConnectionRefusedError:
                continue
            if data == self._END:
                return
            if peer not in self.peers:
                self.peers.append(peer)
            with contextlib.suppress(OSError):
                self._socket.sendto(data, peer)

    def _stop(self):
        self._socket.sendto(self._END, (self.host, self.port))
