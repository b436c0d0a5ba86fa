"""An HTTP/2 client on python3-h2, blocking: one thread, several streams."""
import contextlib
import socket
import time

import h2.config
import h2.connection
import h2.events
import h2.settings


class Stream:
    """What has come on one stream. fields: of the response, once there."""

    def __init__(self):
        self.status, self.fields, self.data, self.ended, self.reset = None, {}, b"", False, None


class Connection:
    """A context manager. context: an ssl.SSLContext with ALPN h2, or None for clear text with prior knowledge. source: our address."""

    def __init__(self, port, host="127.0.0.1", context=None, name="localhost", timeout=10, source=None):
        self.timeout = timeout
        self.socket = socket.create_connection((host, port), timeout, (source, 0) if source else None)
        if context:
            self.socket = context.wrap_socket(self.socket, server_hostname=name)
        config = h2.config.H2Configuration(header_encoding="utf-8", validate_outbound_headers=False,
                                           normalize_outbound_headers=False)
        self.h2 = h2.connection.H2Connection(config)
        # python3-h2 takes a GOAWAY for the end; streams live on, and a notice allows new ones (RFC 9113 section 6.8)
        machine, open_ = self.h2.state_machine, h2.connection.ConnectionState.CLIENT_OPEN
        machine._transitions = machine._transitions | {(open_, h2.connection.ConnectionInputs.RECV_GOAWAY): (None, open_)}
        self.streams, self.goaway, self.closed = {}, None, False
        self.h2.initiate_connection()
        self.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self.socket.close()

    def flush(self):
        if data := self.h2.data_to_send():
            self.socket.sendall(data)

    def open(self, headers, end=False):
        """Sends a head as it is; the stream's ID."""
        stream = self.h2.get_next_available_stream_id()
        self.streams[stream] = Stream()
        self.h2.send_headers(stream, headers, end_stream=end)
        self.flush()
        return stream

    def get(self, path, authority="localhost"):
        return self.open([(":method", "GET"), (":scheme", "https"), (":authority", authority), (":path", path)], end=True)

    def connect(self, authority, *fields):
        return self.open([(":method", "CONNECT"), (":authority", authority), *fields])

    def connect_udp(self, path, *fields, protocol="connect-udp", authority="localhost"):
        return self.open([(":method", "CONNECT"), (":protocol", protocol), (":scheme", "https"), (":authority", authority),
                          (":path", path), ("capsule-protocol", "?1"), *fields])

    def send(self, stream, data, end=False):
        """All of it, waiting for credit."""
        while data:
            size = min(len(data), self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if size == 0:
                self.step()
                continue
            self.h2.send_data(stream, data[:size])
            data = data[size:]
            self.flush()
        if end:
            self.h2.end_stream(stream)
            self.flush()

    def reset(self, stream, code=8):
        self.h2.reset_stream(stream, code)
        self.flush()

    def step(self, timeout=None):
        """Reads once and notes what came."""
        self.socket.settimeout(self.timeout if timeout is None else timeout)
        data = self.socket.recv(65536)
        if not data:
            self.closed = True
            raise ConnectionError("the peer closed the connection")
        for event in self.h2.receive_data(data):
            self._note(event)
        self.flush()

    def _note(self, event):
        stream = self.streams.get(getattr(event, "stream_id", None))
        if isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = event.error_code
        elif stream is None:
            return
        elif isinstance(event, h2.events.ResponseReceived):
            stream.fields = dict(event.headers)
            stream.status = int(stream.fields[":status"])
        elif isinstance(event, h2.events.DataReceived):
            stream.data += event.data
            if event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            stream.ended = True
        elif isinstance(event, h2.events.StreamReset):
            stream.reset = int(event.error_code)

    def wait(self, condition, timeout=10):
        """Reads until the condition holds."""
        deadline = time.monotonic() + timeout
        while not condition():
            left = deadline - time.monotonic()
            assert left > 0, "what the test waits for did not come in time"
            self.step(left)

    def response(self, stream, timeout=10):
        """Waits for the response's head; (status, fields)."""
        state = self.streams[stream]
        self.wait(lambda: state.status is not None or state.reset is not None, timeout)
        return state.status, state.fields

    def read(self, stream, size, timeout=10):
        state = self.streams[stream]
        self.wait(lambda: len(state.data) >= size or state.ended or state.reset is not None, timeout)
        data, state.data = state.data[:size], state.data[size:]
        return data
