"""How many round trips a cold chain takes, over a link of 50 ms each way between client and ingress."""
import time

import pytest

from harness import hops, http1, source

pytestmark = pytest.mark.xdist_group("load")  # one after the other: they measure time and load

DELAY = 0.05
TRIP = 2 * DELAY
HOP2_INITIAL = 1200 + 32 + 28  # an Initial of hop 2 in a packet of hop 1, at least: IP and UDP heads


@pytest.fixture
def site(network, relay, client, certificates, tmp_path):
    found = hops.Hops(network, relay, client, certificates, tmp_path, front_delay=DELAY)
    with found.link:
        found.start_relays()
        yield found
        for one in (*client.__self__._started, *relay.__self__._started):  # while the link still carries their farewells
            one.stop(timeout=5)


def test_cold_start(site):
    with site.egress.inside():
        target = source.Source(1 << 20)
    with target, site.client.inside():
        begun = time.monotonic()
        site.start_client()
        with http1.Connection(site.http) as connection:
            assert connection.connect(target.authority)[0] == 200
            assert connection.read(1)
            cold = time.monotonic()
        time.sleep(0.5)  # the first download's packets are gone
        packets = [packet for packet in site.link.seen if begun < packet.at]
        with http1.Connection(site.http) as connection:
            again = time.monotonic()
            assert connection.connect(target.authority)[0] == 200
            assert connection.read(1)
            warm = time.monotonic()
    start = next(packet.at for packet in packets if packet.up)
    print(f"first byte after {(cold - start) / TRIP:.2f} round trips, on a chain that is up {(warm - again) / TRIP:.2f}; "
          f"packets (round trips, up or down, size):",
          *(f"{(one.at - start) / TRIP:.2f}{'^' if one.up else 'v'}{one.size}" for one in packets[:24]))
    assert cold - start < 3.5 * TRIP
    assert warm - again < 1.5 * TRIP
    # Hop 2's Initial leaves with the CONNECT-UDP request, in the answer to the ingress's first flight.
    first_down = next(packet.at for packet in packets if not packet.up) + DELAY
    flight = [packet for packet in packets if packet.up and first_down <= packet.at < first_down + DELAY]
    assert any(packet.size >= HOP2_INITIAL for packet in flight), flight
