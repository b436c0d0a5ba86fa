"""Two hops over a link that loses 2 % of the packets each way: what TCP carries is exact, and nobody is taken for dead."""
import hashlib
import os
import threading
import time

import pytest

from harness import echo, hops, http1, socks, source

LOSS = 2  # per cent, each way
SIZE = 6 << 20


@pytest.fixture
def site(network, relay, client, certificates, tmp_path):
    """Hops over the lossy link; the client knows the ingress by two urls, as if there were two."""
    found = hops.Hops(network, relay, client, certificates, tmp_path)
    for host, name in zip((found.client, found.ingress), found.front):
        host.ip("link", "set", name, "gso_max_segs", 1)  # packets are lost, not runs of them
        host.nft(f"table netdev loss {{ counter lost {{}}; chain out {{ type filter hook egress device {name} priority 0; "
                 f"numgen random mod 100 < {LOSS} counter name lost drop; }}; }}")
    found.start_relays()
    config = found.client_config()
    config["chain"][0]["urls"] = [config["chain"][0].pop("url"), found.client_config(hop1=hops.INGRESS6)["chain"][0]["url"]]
    found.up = client(config, name="client", prefix=found.client.prefix)
    return found


def lost(host):
    return int(host.run("nft", "list", "counter", "netdev", "loss", "lost").stdout.split("packets")[1].split()[0])


def download(port, target):
    digester = hashlib.sha256()
    with http1.Connection(port, timeout=30) as connection:
        assert connection.connect(target.authority)[0] == 200
        while data := connection.read(1 << 18):
            digester.update(data)
    assert digester.digest() == target.digest


def upload_and_back(port, target):
    """Through an echo target: both directions at once."""
    data = os.urandom(SIZE // 2)
    with http1.Connection(port, timeout=30) as connection:
        assert connection.connect(target.authority)[0] == 200
        sender = threading.Thread(target=connection.send, args=(data,))
        sender.start()
        assert connection.read(len(data)) == data
        sender.join()


def test_loss(site):
    with site.egress.inside():
        target, tcp, udp = source.Source(SIZE, rate=1 << 30), echo.TcpEcho(), echo.UdpEcho()
    with target, tcp, udp, site.client.inside():
        begun, rounds, sent, came = time.monotonic(), 0, 0, 0
        with socks.Associate(site.socks) as associate:
            associate.settimeout(0.5)
            while time.monotonic() < begun + 12:
                download(site.http, target)
                upload_and_back(site.http, tcp)
                rounds += 1
                for number in range(50):
                    associate.send("127.0.0.1", udp.port, b"%d" % number)
                    try:
                        associate.receive()
                        came += 1
                    except TimeoutError:
                        pass
                    sent += 1
        seconds = time.monotonic() - begun
        print(f"{rounds} rounds of {2 * SIZE >> 20} MiB in {seconds:.0f} s; {came} of {sent} datagrams came back; "
              f"{len(site.up.events('hop_doubtful'))} doubts, {len(site.up.events('hop_moved'))} moves")
    assert lost(site.client) > 50 and lost(site.ingress) > 50
    assert came > sent * 0.85  # two ways, two links' worth of chances: about 4 % are lost
    failed = [event for kind in ("hop_failed", "udp_tunnel_failed") for event in site.up.events(kind)]
    assert not failed, failed
    moved = site.up.events("hop_moved")
    assert len(moved) <= 1, moved
    assert len(site.up.events("hop_doubtful")) <= 1 + seconds / 5
