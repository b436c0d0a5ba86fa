"""A TCP target that sends, slowly enough to be interrupted."""
import hashlib
import os
import time

from harness.listener import Listener

PIECE = 1 << 20


class Source(Listener):
    """Sends `size` bytes (whole MiB) to each client, `rate` bytes per second at most, and ends. digest: their SHA-256."""

    def __init__(self, size, rate=50 << 20, host="127.0.0.1"):
        super().__init__(host)
        self.size, self.rate = size, rate
        self._data = os.urandom(PIECE)
        self.digest = hashlib.sha256(self._data * (size // PIECE)).digest()

    def serve(self, connection):
        for _ in range(self.size // PIECE):
            connection.sendall(self._data)
            time.sleep(PIECE / self.rate)
