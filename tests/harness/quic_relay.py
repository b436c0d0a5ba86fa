"""HTTP/3 relays that are not ours, and do what ours would not: a test says what, on_item or more."""
import asyncio
import contextlib
import threading

from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import HandshakeCompleted


class Granting(QuicConnectionProtocol):
    """Says 200 to every request. on_item: told of every HTTP/3 event."""

    _http = None

    def on_item(self, item):
        pass

    def quic_event_received(self, event):
        if isinstance(event, HandshakeCompleted):
            self._http = H3Connection(self._quic, enable_webtransport=True)
        for item in self._http.handle_event(event) if self._http else ():
            if isinstance(item, HeadersReceived):
                self._http.send_headers(item.stream_id, [(b":status", b"200")])
            self.on_item(item)
        self.transmit()


@contextlib.contextmanager
def serving(protocol, certificates, port):
    """On this port of loopback as long as the context lasts. protocol: makes one such relay for each connection."""
    configuration = QuicConfiguration(is_client=False, alpn_protocols=["h3"], max_datagram_frame_size=65536)
    configuration.load_cert_chain(str(certificates.cert), str(certificates.key))
    loop, ready = asyncio.new_event_loop(), threading.Event()

    async def run():
        await serve("127.0.0.1", port, configuration=configuration, create_protocol=protocol)
        ready.set()

    def turn():
        loop.create_task(run())
        loop.run_forever()

    thread = threading.Thread(target=turn, daemon=True)
    thread.start()
    assert ready.wait(5)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
