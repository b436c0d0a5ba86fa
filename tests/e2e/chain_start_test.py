"""How many round trips a cold chain takes, over a link of 50 ms each way between client and ingress."""
import contextlib
import select
import socket

import pytest

from harness import hops, http1, source, turn_link, vitals

DELAY = 0.05
HOP2_INITIAL = 1200 + 32 + 28  # an Initial of hop 2 in a packet of hop 1, at least: IP and UDP heads


@pytest.fixture
def site(network, relay, client, certificates, tmp_path):
    found = hops.Hops(network, relay, client, certificates, tmp_path, front_delay=DELAY, front_link=turn_link.TurnLink)
    processes = lambda: [*client.__self__._started, *relay.__self__._started]
    found.link.pids = lambda: [one.pid for one in processes() if one.running()]
    with found.link:
        found.start_relays()
        yield found
        for one in processes():  # while the link still carries their farewells
            one.stop(timeout=5)


def turns_to_first_byte(site, target, begin=lambda: None):
    """Of the link, from begin() and a CONNECT through the client to the target's first byte; how many there were before."""
    with contextlib.ExitStack() as stack:
        with site.link.held():
            begun = site.link.turns
            begin()
            connection = stack.enter_context(http1.Connection(site.http))
            connection.send(f"CONNECT {target.authority} HTTP/1.1\r\nHost: {target.authority}\r\n\r\n")

            def is_there():
                readable, _, _ = select.select([connection.socket], [], [], 0)
                return readable and connection.socket.recv(1 << 16, socket.MSG_PEEK).partition(b"\r\n\r\n")[2]

            site.link.watch(is_there)
        vitals.wait(lambda: site.link.answered)
        assert connection.head()[0] == 200 and connection.read(1)
        return site.link.answered - begun, begun


def test_cold_start(site):
    with site.egress.inside():
        target = source.Source(1 << 20)
    with target, site.client.inside():
        cold, start = turns_to_first_byte(site, target, site.start_client)
        vitals.wait(lambda: site.link.is_quiet, 10, "the end of the first download's packets")
        warm, _ = turns_to_first_byte(site, target)
    packets = [packet for packet in site.link.seen if packet[0] > start]
    print(f"first byte after {cold} turns, on a chain that is up {warm}; packets (turn, up or down, size):",
          *(f"{turn - start}{'^' if up else 'v'}{size}" for turn, up, size in packets[:24]))
    assert cold == 2 * 3
    assert warm == 2 * 1
    # Hop 2's Initial leaves with the CONNECT-UDP request, in the answer to the ingress's first flight.
    assert any(up and turn == start + 3 and size >= HOP2_INITIAL for turn, up, size in packets), packets[:24]
