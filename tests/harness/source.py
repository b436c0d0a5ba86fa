"""A TCP target that sends, slowly enough to be interrupted."""
import contextlib
import hashlib
import os
import socket
import threading
import time

PIECE = 1 << 20


class Source:
    """Sends `size` bytes (whole MiB) to each client, `rate` bytes per second at most, and ends. digest: their SHA-256. A context
    manager."""

    def __init__(self, size, rate=50 << 20, host="127.0.0.1"):
        self.size, self.rate = size, rate
        self._data = os.urandom(PIECE)
        self.digest = hashlib.sha256(self._data * (size // PIECE)).digest()
        self._listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.port = self._listener.getsockname()[1]
        self.authority = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._send, args=(self._listener.accept()[0],), daemon=True).start()

    def _send(self, connection):
        with connection, contextlib.suppress(OSError):
            for _ in range(self.size // PIECE):
                connection.sendall(self._data)
                time.sleep(PIECE / self.rate)
