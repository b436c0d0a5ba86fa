"""An HTTP/1.1 target whose answers are written by the test, byte for byte."""
import contextlib
import socket
import threading


def answer(body=b"", *fields, status="200 OK"):
    """The bytes of an answer with a length."""
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields, "", ""]).encode() + body


class Request:
    def __init__(self, head, body):
        self.head, self.body = head, body
        self.method, self.path, _ = head.split(b"\r\n")[0].decode().split(" ")
        self.fields = {name.strip().lower(): value.strip() for name, _, value in
                       (line.decode().partition(":") for line in head.split(b"\r\n")[1:])}


class Server:
    """respond(request) gives the bytes to send; the connection ends behind an answer with "Connection: close" in its head, or when
    respond gives a tuple (bytes, "close" or "reset"). connections: how many came; requests: all of them, in order. A context
    manager."""

    def __init__(self, respond, host="127.0.0.1"):
        self.respond, self.connections, self.requests = respond, 0, []
        self._listener = socket.create_server((host, 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        self.authority = f"{host}:{self.port}"
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
                connection = self._listener.accept()[0]
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection, contextlib.suppress(OSError), connection.makefile("rb") as stream:
            while request := self._read(stream):
                self.requests.append(request)
                reply = self.respond(request)
                reply, end = reply if isinstance(reply, tuple) else (reply, None)
                connection.sendall(reply)
                if end == "reset":
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    stream.close()
                if end or b"connection: close" in reply.split(b"\r\n\r\n")[0].lower():
                    return

    @staticmethod
    def _read(stream):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = stream.readline()
            if not line:
                return None
            head += line
        request = Request(head[:-4], b"")
        if "content-length" in request.fields:
            request.body = stream.read(int(request.fields["content-length"]))
        elif "chunked" in request.fields.get("transfer-encoding", ""):
            while size := int(stream.readline(), 16):
                request.body += stream.read(size)
                stream.readline()
            stream.readline()
        return request
