"""QUIC frames put together by hand, and a way to send them over a connection that aioquic has made."""
import struct

from aioquic.buffer import Buffer
from aioquic.quic.packet import pull_quic_transport_parameters, push_quic_transport_parameters
from aioquic.quic.stream import StreamFinishedError
from aioquic.tls import Epoch


def varint(value):
    """RFC 9000 section 16."""
    for size, tag in ((1, 0), (2, 1), (4, 2), (8, 3)):
        if value < 1 << (8 * size - 2):
            return (value | tag << (8 * size - 2)).to_bytes(size, "big")
    raise ValueError(value)


PING = b"\x01"


def ack(largest, first_range=0):
    return b"\x02" + varint(largest) + varint(0) + varint(0) + varint(first_range)


def reset_stream(stream, code, final_size):
    return b"\x04" + varint(stream) + varint(code) + varint(final_size)


def stop_sending(stream, code):
    return b"\x05" + varint(stream) + varint(code)


def crypto(offset, data):
    return b"\x06" + varint(offset) + varint(len(data)) + data


def stream(stream_id, offset, data, fin=False):
    return bytes([0x0E | fin]) + varint(stream_id) + varint(offset) + varint(len(data)) + data


def new_connection_id(sequence, retire_prior_to, cid, token):
    return b"\x18" + varint(sequence) + varint(retire_prior_to) + bytes([len(cid)]) + cid + token


def retire_connection_id(sequence):
    return b"\x19" + varint(sequence)


def path_challenge(data):
    return b"\x1a" + data


def close(code):
    return b"\x1d" + varint(code) + varint(0)


def announce(quic, **changes):
    """Transport parameters that a connection of aioquic announces instead of its own, before it begins."""
    serialize = quic._serialize_transport_parameters

    def changed():
        parameters, buffer = pull_quic_transport_parameters(Buffer(data=serialize())), Buffer(capacity=1024)
        for name, value in changes.items():
            setattr(parameters, name, value)
        push_quic_transport_parameters(buffer, parameters)
        return buffer.data
    quic._serialize_transport_parameters = changed


class Sender:
    """Sends packets of hand-made frames over a connected http3.Client, past aioquic's own state. What the server answers
    to streams that aioquic does not know is ignored."""

    def __init__(self, client):
        self._client, self._quic = client, client._quic
        self._address = self._quic._network_paths[0].addr
        self.sent = 0
        self._quic._get_or_create_stream = self._tolerate(self._quic._get_or_create_stream)

    def _tolerate(self, function):
        def get(frame_type, stream_id):
            if stream_id not in self._quic._streams and stream_id % 2 == 0:
                raise StreamFinishedError
            return function(frame_type, stream_id)
        return get

    @property
    def next_packet_number(self):
        return self._quic._packet_number

    def packet(self, payload):
        crypto_pair, number = self._quic._cryptos[Epoch.ONE_RTT], self._quic._packet_number
        self._quic._packet_number += 1
        payload += bytes(max(0, 4 - len(payload)))
        head = bytes([0x41 | crypto_pair.key_phase << 2]) + self._quic._peer_cid.cid + struct.pack("!H", number & 0xFFFF)
        return crypto_pair.encrypt_packet(head, payload, number)

    def send(self, *frames):
        """One packet."""
        packet = self.packet(b"".join(frames))
        self.sent += len(packet)
        self._client._transport.sendto(packet, self._address)
