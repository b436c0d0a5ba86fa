"""A client that quits tells both relays so, although the first packet that says it is lost or must wait."""
import contextlib
import threading
import time

import pytest

from harness import echo, hops, http1, listener

DELAY, RATE = 0.015, 10_000_000 / 8  # s each way, bytes/s; 50 ms of it wait at the link
GONE = 3  # s; without a word it is an idle timeout of 30


class Sink(listener.Listener):
    """Reads what comes."""

    def serve(self, connection):
        while connection.recv(1 << 16):
            pass


@pytest.fixture
def site(network, relay, client, certificates, tmp_path):
    found = hops.Hops(network, relay, client, certificates, tmp_path, front_delay=DELAY, front_rate=RATE)
    with found.link:
        found.start_relays()
        yield found


def expect_gone(site):
    begun, left = time.monotonic(), None
    while left != [0, 0] and time.monotonic() < begun + GONE:
        time.sleep(0.05)
        left = [site.metrics(which)["twohop_connections"] for which in (site.ingress_relay, site.egress_relay)]
    assert left == [0, 0], left


def test_a_lost_packet(site):
    up = site.start_client(http="3")
    with site.egress.inside():
        target = echo.TcpEcho()
    with target, site.client.inside(), http1.Connection(site.http) as tunnel:
        assert tunnel.connect(target.authority)[0] == 200
        tunnel.send(b"a")
        assert tunnel.read(1) == b"a"
        time.sleep(0.5)  # nothing is under way
        site.link.lose_up = 1
        up.stop()
        assert site.link.lose_up == 0
        expect_gone(site)


def test_full_uplink(site):
    for number in range(4):
        up = site.start_client(http="3")
        with site.egress.inside():
            target = Sink()
        with target, site.client.inside(), http1.Connection(site.http, timeout=20) as tunnel:
            assert tunnel.connect(target.authority)[0] == 200
            thread = threading.Thread(target=fill, args=(tunnel,))
            thread.start()
            time.sleep(2 + number * 0.13)  # wherever in its cycle congestion control is
            up.stop()
            thread.join(10)
            expect_gone(site)


def fill(tunnel):
    with contextlib.suppress(OSError):
        while True:
            tunnel.send(bytes(1 << 14))
