"""A client all of whose descriptors its applications would take: the hops have some of their own."""
import contextlib
import socket

import pytest

from harness import hop_chain, http1

ASSOCIATE = b"\x05\x01\x00\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00"


def open_tunnel(up, target):
    """None: it has no more."""
    connection = http1.Connection(up.http, timeout=20)
    with contextlib.suppress(OSError, ValueError):
        if connection.connect(target.authority)[0] == 200:
            return connection
    connection.close()
    return None


def open_association(up, _):
    connection = socket.create_connection(("127.0.0.1", up.socks), timeout=20)
    with contextlib.suppress(OSError):
        connection.sendall(ASSOCIATE)
        with connection.makefile("rb") as answers:
            if answers.read(4) == b"\x05\x00\x05\x00":
                return connection
    connection.close()
    return None


@pytest.mark.parametrize("open_one", [open_tunnel, open_association])
def test_an_ingress_is_replaced_when_applications_have_all_descriptors(relay, client, certificates, tmp_path, tcp_echo, open_one):
    def short(config, name):
        return client(config, name=name, prefix=["prlimit", "--nofile=100:100"])
    up = hop_chain.Chain(relay, short, certificates, tmp_path, ingresses=2)
    with contextlib.ExitStack() as stack:
        tunnel = stack.enter_context(open_tunnel(up, tcp_echo))
        count = 0
        while (one := open_one(up, tcp_echo)) is not None:
            stack.enter_context(one)
            count += 1
        assert 20 < count < 100
        with up.ingresses[0].frozen():
            tunnel.send(b"alive")
            assert tunnel.read(5) == b"alive"
