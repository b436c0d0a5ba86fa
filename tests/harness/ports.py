"""Ports that nobody listens on."""
import contextlib
import os
import random
import socket

# Under those that the kernel gives to whoever asks for any, so that nobody's connection takes one between here and its use;
# tests that run side by side have ranges of their own.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 2
_RANGE = range(12000 + 10000 * _WORKER, 22000 + 10000 * _WORKER)
_given = set()


def free_port():
    """A port free for TCP and UDP, over IPv4 and IPv6 loopback, that no earlier call gave."""
    for _ in range(200):
        port = random.choice(_RANGE)
        if port in _given:
            continue
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for family, kind, address in (
                (socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1"),
                (socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1"),
                (socket.AF_INET6, socket.SOCK_STREAM, "::1"),
                (socket.AF_INET6, socket.SOCK_DGRAM, "::1"),
            ):
                held.enter_context(socket.socket(family, kind)).bind((address, port))
            _given.add(port)
            return port
    raise RuntimeError("no free port in 200 tries")
