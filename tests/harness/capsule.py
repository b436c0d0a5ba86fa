"""Capsules and variable-length integers (RFC 9297 section 3.2, RFC 9000 section 16)."""


def varint(value):
    for size, prefix in ((1, 0x00), (2, 0x40), (4, 0x80), (8, 0xC0)):
        if value < 1 << (8 * size - 2):
            data = bytearray(value.to_bytes(size, "big"))
            data[0] |= prefix
            return bytes(data)
    raise ValueError(value)


def read_varint(data):
    """(value, the rest), or (None, data) when it is cut."""
    if not data or len(data) < (size := 1 << (data[0] >> 6)):
        return None, data
    value = int.from_bytes(data[:size], "big") & ((1 << (8 * size - 2)) - 1)
    return value, data[size:]


def capsule(kind, value):
    return varint(kind) + varint(len(value)) + value


def datagram(payload, context=0):
    """A DATAGRAM capsule of CONNECT-UDP."""
    return capsule(0, varint(context) + payload)


class Reader:
    """Feed it bytes; it gives the complete capsules as (type, value)."""

    def __init__(self):
        self._data = b""

    def feed(self, data):
        self._data += data
        found = []
        while True:
            kind, rest = read_varint(self._data)
            length, rest = read_varint(rest) if kind is not None else (None, b"")
            if length is None or len(rest) < length:
                return found
            found.append((kind, rest[:length]))
            self._data = rest[length:]


def payload(value):
    """(context ID, payload) of an HTTP Datagram."""
    return read_varint(value)
