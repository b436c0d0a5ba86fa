"""A NAT between a QUIC client and a relay that can forget its mapping."""
import select
import socket
import threading


class Nat:
    """Forwards datagrams between clients and 127.0.0.1:port. move() makes the relay see all from a new port."""

    def __init__(self, port):
        self._front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._front.bind(("127.0.0.1", 0))
        self.port = self._front.getsockname()[1]
        self._relay = ("127.0.0.1", port)
        self._lock, self._client, self._back = threading.Lock(), None, None
        self._running = True
        self.move()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def move(self):
        back = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        back.connect(self._relay)
        with self._lock:
            old, self._back = self._back, back
        if old:
            old.close()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._running = False
        self._thread.join(5)
        self._front.close()
        self._back.close()

    def _run(self):
        while self._running:
            with self._lock:
                back = self._back
            try:
                readable, _, _ = select.select([self._front, back], [], [], 0.05)
                for one in readable:
                    if one is self._front:
                        data, self._client = self._front.recvfrom(65536)
                        back.send(data)
                    elif self._client:
                        self._front.sendto(back.recv(65536), self._client)
            except (OSError, ValueError):
                continue  # the mapping was closed meanwhile
