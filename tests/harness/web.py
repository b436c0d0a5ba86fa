"""An HTTP/1.1 target whose answers are written by the test, byte for byte."""
import socket
import threading

from harness.listener import Listener


def answer(body=b"", *fields, status="200 OK"):
    """The bytes of an answer with a length."""
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields, "", ""]).encode() + body


class Request:
    def __init__(self, head, body):
        self.head, self.body = head, body
        self.method, self.path, _ = head.split(b"\r\n")[0].decode().split(" ")
        self.fields = {name.strip().lower(): value.strip() for name, _, value in
                       (line.decode().partition(":") for line in head.split(b"\r\n")[1:])}


class Server(Listener):
    """respond(request) gives the bytes to send; the connection ends behind an answer with "Connection: close" in its head, or when
    respond gives a tuple (bytes, "close" or "reset"); a reset waits for may_reset. requests: all that came, in order."""

    def __init__(self, respond):
        super().__init__()
        self.respond, self.requests, self.may_reset = respond, [], threading.Event()

    def serve(self, connection):
        with connection.makefile("rb") as stream:
            while request := self._read(stream):
                self.requests.append(request)
                reply = self.respond(request)
                reply, end = reply if isinstance(reply, tuple) else (reply, None)
                connection.sendall(reply)
                if end == "reset":
                    assert self.may_reset.wait(10)
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
