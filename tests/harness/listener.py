"""What targets over TCP that run in threads of the test's process have in common."""
import contextlib
import socket
import threading


class Listener:
    """port, authority: where it listens. connections: how many came. Each is given to serve(connection) in a thread of its own, and
    closed after it; that it breaks is no error. A context manager."""

    def __init__(self, host="127.0.0.1"):
        self.connections = 0
        self._listener = socket.create_server((host, 0), backlog=128, family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.port = self._listener.getsockname()[1]
        self.authority = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def serve(self, connection):
        raise NotImplementedError

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
                connection = self._listener.accept()[0]
                self.connections += 1
                threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection):
        with connection, contextlib.suppress(OSError):
            self.serve(connection)
