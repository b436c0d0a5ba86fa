"""HTTP/1.1 by hand: a socket, TLS if wanted, heads as they are."""
import contextlib
import socket
import struct


class Connection:
    """A context manager. context: an ssl.SSLContext, or None for clear text."""

    def __init__(self, port, host="127.0.0.1", context=None, name="localhost", timeout=10):
        self.socket = socket.create_connection((host, port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context:
            self.socket = context.wrap_socket(self.socket, server_hostname=name)
        self._buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        with contextlib.suppress(OSError):
            self.socket.close()

    def reset(self):
        """A RST instead of a FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode())

    def request(self, method, target, *fields, host="localhost"):
        """Sends a head and returns the answer's (status, {lower-case name: value})."""
        self.send("\r\n".join([f"{method} {target} HTTP/1.1", f"Host: {host}", *fields, "", ""]))
        return self.head()

    def connect(self, authority, *fields):
        return self.request("CONNECT", authority, *fields, host=authority)

    def upgrade(self, path, *fields, host="localhost"):
        """CONNECT-UDP of RFC 9298 section 3.2."""
        return self.request("GET", path, "Connection: Upgrade", "Upgrade: connect-udp", "Capsule-Protocol: ?1", *fields, host=host)

    def head(self):
        """(status, fields) of the next answer; (None, {}) when the connection ends instead."""
        while b"\r\n\r\n" not in self._buffer:
            data = self._recv()
            if not data:
                return None, {}
            self._buffer += data
        head, self._buffer = self._buffer.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = {}
        for line in lines:
            name, _, value = line.partition(":")
            fields[name.strip().lower()] = value.strip()
        return int(first.split()[1]), fields

    def body(self, fields):
        """The body of the answer whose fields these are: content-length or chunked."""
        if "content-length" in fields:
            return self.read(int(fields["content-length"]))
        body = b""
        while True:
            line = b""
            while not line.endswith(b"\r\n"):
                line += self.read(1)
            size = int(line, 16)
            body += self.read(size)
            self.read(2)
            if size == 0:
                return body

    def read(self, size):
        """Exactly size bytes; fewer only at the end of the stream."""
        while len(self._buffer) < size:
            data = self._recv()
            if not data:
                break
            self._buffer += data
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def read_all(self):
        """Until the end of the stream. A reset is the ConnectionResetError it is."""
        while data := self._recv():
            self._buffer += data
        data, self._buffer = self._buffer, b""
        return data

    def ended(self):
        """Whether the peer closes now, cleanly or not, without sending anything more."""
        with contextlib.suppress(ConnectionError, OSError):
            return self._buffer == b"" and self._recv() == b""
        return True

    def _recv(self):
        return self.socket.recv(65536)
