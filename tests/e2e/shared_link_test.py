"""Bulk data on a connection leaves room for others on it: on a link that is full, UDP is answered as soon as the link allows."""
import statistics
import threading
import time

import pytest

from harness import echo, hops, http1, listener, socks, source

DELAY, RATE = 0.015, 10_000_000 / 8  # s each way, bytes/s: 10 Mbit/s, 50 ms of which wait at the link
SECONDS = 6


@pytest.fixture(params=["3", "2"])
def site(network, relay, client, certificates, tmp_path, request):
    found = hops.Hops(network, relay, client, certificates, tmp_path, front_delay=DELAY, front_rate=RATE)
    with found.link:
        found.start_relays()
        up = found.start_client(http=request.param)
        yield found
        time.sleep(0.5)  # the link is empty again, and the relays hear of the end
        up.stop()
        time.sleep(0.5)


class Sink(listener.Listener):
    """Reads what comes."""

    def serve(self, connection):
        while connection.recv(1 << 16):
            pass


class Bulk:
    """A download or an upload that goes on until the end of the `with`."""

    def __init__(self, site, target, upload):
        self._connection = http1.Connection(site.http, timeout=20)
        assert self._connection.connect(target.authority)[0] == 200
        self._thread = threading.Thread(target=self._send if upload else self._read)
        self._is_over, self.bytes = False, 0

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._is_over = True
        self._thread.join()
        self._connection.reset()  # what is queued somewhere goes nowhere

    def _read(self):
        while not self._is_over and (data := self._connection.read(1 << 16)):
            self.bytes += len(data)

    def _send(self):
        while not self._is_over:
            self._connection.send(bytes(1 << 14))
            self.bytes += 1 << 14


def ask(associate, port, number):
    """Seconds until the answer; None: it did not come in two."""
    question, begun = b"%d" % number, time.monotonic()
    associate.send("127.0.0.1", port, question)
    while (left := begun + 2 - time.monotonic()) > 0:
        associate.settimeout(left)
        try:
            if associate.receive() == question:
                return time.monotonic() - begun
        except TimeoutError:
            break
    return None


@pytest.mark.parametrize("upload", [False, True], ids=["download", "upload"])
def test_udp_beside_bulk_data(site, upload):
    with site.egress.inside():
        target = Sink() if upload else source.Source(64 << 20, rate=1 << 30)
        udp = echo.UdpEcho()
    with target, udp, site.client.inside(), socks.Associate(site.socks) as associate:
        assert ask(associate, udp.port, 0) is not None
        with Bulk(site, target, upload) as bulk:
            time.sleep(2)  # until the link is full
            begun, before, times = time.monotonic(), bulk.bytes, []
            while time.monotonic() < begun + SECONDS:
                times.append(ask(associate, udp.port, len(times) + 1))
                time.sleep(0.05)
            rate = (bulk.bytes - before) / (time.monotonic() - begun)
    came = [one for one in times if one is not None]
    print(f"{len(came)} of {len(times)} answered, median {statistics.median(came or [0]) * 1000:.0f} ms; {rate * 8e-6:.1f} Mbit/s")
    assert rate > RATE * 0.5
    assert len(came) > len(times) * 0.75, times
    assert statistics.median(came) < 1, times
