"""Ports that nobody listens on."""
import contextlib
import socket

_given = set()


def free_port():
    """A port free for TCP and UDP, over IPv4 and IPv6 loopback, that no earlier call gave."""
    for _ in range(200):
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            first = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            if port in _given:
                continue
            for family, kind, address in (
                (socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1"),
                (socket.AF_INET6, socket.SOCK_STREAM, "::1"),
                (socket.AF_INET6, socket.SOCK_DGRAM, "::1"),
            ):
                held.enter_context(socket.socket(family, kind)).bind((address, port))
            _given.add(port)
            return port
    raise RuntimeError("no free port in 200 tries")
