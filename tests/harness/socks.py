"""A SOCKS5 client (RFC 1928), as small as the tests need it."""
import contextlib
import socket
import struct


def _address(host, port):
    try:
        return b"\x01" + socket.inet_pton(socket.AF_INET, host) + struct.pack("!H", port)
    except OSError:
        name = host.encode()
        return b"\x03" + bytes([len(name)]) + name + struct.pack("!H", port)


def _exactly(connection, size):
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        assert piece, "the SOCKS server closed the connection"
        data += piece
    return data


def _request(port, command, host, target_port):
    connection = socket.create_connection(("127.0.0.1", port), 10)
    connection.sendall(b"\x05\x01\x00")
    assert _exactly(connection, 2) == b"\x05\x00"
    connection.sendall(b"\x05" + bytes([command]) + b"\x00" + _address(host, target_port))
    head = _exactly(connection, 4)
    size = {1: 4, 3: None, 4: 16}[head[3]]
    bound = _exactly(connection, size if size is not None else _exactly(connection, 1)[0])
    bound_port = struct.unpack("!H", _exactly(connection, 2))[0]
    return connection, head[1], (bound, bound_port)


def connect(port, host, target_port):
    """(connection, reply code): 0 is success."""
    connection, reply, _ = _request(port, 1, host, target_port)
    return connection, reply


def datagram(host, port, payload, fragment=0):
    return b"\x00\x00" + bytes([fragment]) + _address(host, port) + payload


class Associate:
    """UDP ASSOCIATE. A context manager."""

    def __init__(self, port):
        self._control, reply, (_, bound_port) = _request(port, 3, "0.0.0.0", 0)
        assert reply == 0
        self._relay = ("127.0.0.1", bound_port)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()
        self._control.close()

    def settimeout(self, seconds):
        self._socket.settimeout(seconds)

    def send(self, host, port, payload, fragment=0):
        self._socket.sendto(datagram(host, port, payload, fragment), self._relay)

    def retry(self, host, port, payload, times=20):
        """Sends until it comes back: datagrams may be lost while the path changes, the tunnel may not."""
        self._socket.settimeout(1)
        for _ in range(times):
            self.send(host, port, payload)
            with contextlib.suppress(TimeoutError):
                assert self.receive() == payload
                break
        else:
            raise AssertionError(f"nothing came back in {times} tries")
        self._socket.settimeout(10)

    def receive(self):
        """The payload of the next datagram."""
        data = self._socket.recv(65536)
        size = {1: 4, 4: 16}.get(data[3]) or 1 + data[4]
        return data[4 + size + 2:]
