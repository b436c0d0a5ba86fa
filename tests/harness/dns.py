"""A name server for tests, which may lie."""
import contextlib
import socket
import threading

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

END = b"\0end of the name server\0"


class Server:
    """A context manager; address: what goes into resolver.servers. names: {"name.": answer}, where an answer is a list of
    records as text ("A 192.0.2.1", "CNAME other."), an rcode's name ("NXDOMAIN"), bytes to send as they are, None (silence),
    or a function that returns one of these. What is not in names is NXDOMAIN. asked: the names, in order.
    late: {("name.", "A"): seconds that this answer takes}."""

    def __init__(self, names, host="127.0.0.1", ttl=0, port=0, late=None):
        self.names, self.ttl, self.asked, self.late = names, ttl, [], late or {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, port))
        self.port = self._socket.getsockname()[1]
        self.address = f"{host}:{self.port}"
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._socket.sendto(END, self._socket.getsockname())
        self._thread.join(5)
        self._socket.close()

    def _run(self):
        while (packet := self._socket.recvfrom(65536))[0] != END:
            query = dns.message.from_wire(packet[0])
            answer = self._answer(query)
            name, kind = query.question[0].name.to_text().lower(), query.question[0].rdtype.name
            if answer is not None:
                threading.Timer(self.late.get((name, kind), 0), self._send, (answer, packet[1])).start()

    def _send(self, answer, to):
        with contextlib.suppress(OSError):
            self._socket.sendto(answer, to)

    def _answer(self, query):
        question = query.question[0]
        name = question.name.to_text().lower()
        self.asked.append(name)
        answer = self.names.get(name, "NXDOMAIN")
        if callable(answer):
            answer = answer()
        if answer is None:
            return None
        if isinstance(answer, bytes):
            return query.to_wire()[:2] + answer
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA
        if isinstance(answer, str):
            reply.set_rcode(dns.rcode.from_text(answer))
            return reply.to_wire()
        wanted = question.rdtype.name if hasattr(question.rdtype, "name") else str(question.rdtype)
        for record in answer:
            kind, value = record.split()
            if kind == "CNAME":
                reply.answer.append(dns.rrset.from_text(question.name, self.ttl, "IN", "CNAME", value))
                for more in self.names.get(value, []):
                    if more.split()[0] == wanted:
                        reply.answer.append(dns.rrset.from_text(value, self.ttl, "IN", *more.split()))
            elif kind == wanted:
                reply.answer.append(dns.rrset.from_text(question.name, self.ttl, "IN", kind, value))
        return reply.to_wire()
