"""An HTTP/3 client on aioquic. aioquic sends H3_DATAGRAM only with enable_webtransport."""
import asyncio
import contextlib
import ssl

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, DatagramReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StreamReset

from harness.quic_frames import announce


class Stream:
    """What has come on one stream."""

    def __init__(self):
        self.status, self.fields, self.data, self.datagrams, self.ended, self.reset = None, {}, b"", [], False, None


class Client(QuicConnectionProtocol):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.http = H3Connection(self._quic, enable_webtransport=True)
        self.streams, self.terminated, self._changed = {}, None, asyncio.Event()
        self.goaways, self._check_kind = 0, self.http._check_control_frame_type
        self.http._check_control_frame_type = self._note_kind

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated):
            self.terminated = event.error_code
        elif isinstance(event, StreamReset) and event.stream_id in self.streams:
            self.streams[event.stream_id].reset = event.error_code
        for item in self.http.handle_event(event):
            self._note(item)
        self._changed.set()

    def _note_kind(self, kind):
        """aioquic skips GOAWAY, after this."""
        self.goaways += kind == 7
        return self._check_kind(kind)

    def _note(self, item):
        stream = self.streams.get(item.stream_id)
        if stream is None:
            return
        if isinstance(item, HeadersReceived):
            stream.fields = {name.decode(): value.decode() for name, value in item.headers}
            stream.status = int(stream.fields[":status"])
            stream.ended |= item.stream_ended
        elif isinstance(item, DataReceived):
            stream.data += item.data
            stream.ended |= item.stream_ended
        elif isinstance(item, DatagramReceived):
            stream.datagrams.append(item.data)

    def open(self, headers, end=False):
        """Sends a head as it is; the stream's ID."""
        stream = self._quic.get_next_available_stream_id()
        self.streams[stream] = Stream()
        self.http.send_headers(stream, [(n.encode(), v.encode()) for n, v in headers], end_stream=end)
        self.transmit()
        return stream

    def get(self, path, authority="localhost"):
        return self.open([(":method", "GET"), (":scheme", "https"), (":authority", authority), (":path", path)], end=True)

    def connect_tcp(self, authority, *fields):
        return self.open([(":method", "CONNECT"), (":authority", authority), *fields])

    def connect_udp(self, path, *fields, protocol="connect-udp", authority="localhost"):
        return self.open([(":method", "CONNECT"), (":protocol", protocol), (":scheme", "https"), (":authority", authority),
                          (":path", path), ("capsule-protocol", "?1"), *fields])

    def send(self, stream, data, end=False):
        self.http.send_data(stream, data, end_stream=end)
        self.transmit()

    def send_datagram(self, stream, payload):
        """payload: from the context ID on."""
        self.http.send_datagram(stream, payload)
        self.transmit()

    async def until(self, condition, timeout=10):
        async with asyncio.timeout(timeout):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def response(self, stream, timeout=10):
        state = self.streams[stream]
        await self.until(lambda: state.status is not None or state.reset is not None or self.terminated is not None, timeout)
        return state.status, state.fields


@contextlib.asynccontextmanager
async def client(port, ca, host="127.0.0.1", name="localhost", announced=None, **options):
    """A connected Client. announced: {transport parameter: value}, instead of aioquic's own."""
    options = {"max_datagram_frame_size": 65536} | options
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name=name, cafile=str(ca),
                                      verify_mode=ssl.CERT_REQUIRED, **options)

    def create(quic, **more):
        announce(quic, **(announced or {}))
        return Client(quic, **more)

    async with connect(host, port, configuration=configuration, create_protocol=create) as connection:
        yield connection
