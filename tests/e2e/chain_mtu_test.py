"""Links that carry little, between client and ingress or between ingress and egress, known to the hosts or not: the chain
comes up, carries a download, and UDP payloads of exactly what is left; what is longer is dropped and counted."""
import hashlib
import time

import pytest

from harness import echo, hops, http1, socks, source

DOWNLOAD = 5 << 20
TOO_BIG = 'twohop_dropped_total{reason="too_big"}'


class Case:
    """front, back: the MTU of the two links; holes: (front, back) beyond which packets vanish without a word; up, down: UDP
    payloads that must pass toward the target and back. A little more may: each time that a hop probes while the one below
    does, it loses two bytes."""

    def __init__(self, name, family=4, front=1500, back=1500, holes=(0, 0), up=0, down=0):
        self.name, self.family, self.front, self.back = name, family, front, back
        self.holes, self.up, self.down = holes, up, down


CASES = [
    Case("1500-IPv4", up=1385, down=1356),
    Case("1500-IPv6", 6, up=1385, down=1356),
    Case("front-1280-IPv4", front=1280, up=1168, down=1168),
    Case("front-1280-IPv6", 6, front=1280, up=1168, down=1168),
    Case("back-1280-IPv4", back=1280, up=1218, down=1168),
    Case("back-1280-IPv6", 6, back=1280, up=1168, down=1168),
    Case("both-1280-IPv6", 6, front=1280, back=1280, up=1168, down=1168),
    Case("front-hole-1400", holes=(1400, 0), up=1286, down=1286),
    Case("back-hole-1400", holes=(0, 1400), up=1333, down=1306),
    Case("front-hole-1300", holes=(1300, 0), up=1168, down=1168),
    Case("back-hole-1300", holes=(0, 1300), up=1218, down=1168),
]


def dig(host, name, limit):
    """From now on packets of over `limit` bytes that come in there vanish."""
    host.nft(f"table netdev hole {{ chain {name} {{ type filter hook ingress device {name} priority 0; "
             f"meta length > {limit} drop; }}; }}")


class Stage(hops.Hops):
    def __init__(self, case, network, *fixtures):
        super().__init__(network, *fixtures, front_mtu=case.front, back_mtu=case.back)
        for host, name in ((self.client, self.front[0]), (self.ingress, self.front[1]), (self.ingress, self.back[0]),
                           (self.egress, self.back[1])):
            host.ip("link", "set", name, "gso_max_segs", 1)  # what the peer gets are packets, not runs of them
        for names, hosts, limit in ((self.front, (self.client, self.ingress), case.holes[0]),
                                    (self.back, (self.ingress, self.egress), case.holes[1])):
            for host, name in zip(hosts, names):
                if limit:
                    dig(host, name, limit)
        self.start_relays(hop2=hops.EGRESS6 if case.family == 6 else hops.EGRESS)
        self.hop1 = hops.INGRESS6 if case.family == 6 else hops.INGRESS


def download(port, target):
    """(seconds to the first byte, seconds in all); asserts that every byte is right."""
    start, first, digester = time.monotonic(), None, hashlib.sha256()
    with http1.Connection(port, timeout=20) as connection:
        assert connection.connect(target.authority)[0] == 200
        while data := connection.read(1 << 18):
            first = first or time.monotonic() - start
            digester.update(data)
    assert digester.digest() == target.digest
    return first, time.monotonic() - start


def passes(associate, port, up, down, patience=0.3):
    """Whether `up` bytes reach the target and `down` come back."""
    associate.settimeout(patience)
    associate.send("127.0.0.1", port, echo.UdpSizer.sized(down, up))
    try:
        while (answer := associate.receive()) and (len(answer), int(answer[:5])) != (down, up):
            pass
        return True
    except TimeoutError:
        return False


def largest(fits, least, seconds=15):
    """The largest size that fits: `least` at last, as probes of one hop and then of the other arrive, and perhaps more."""
    deadline = time.monotonic() + seconds
    while not fits(least):
        assert time.monotonic() < deadline, f"{least} bytes do not pass in {seconds} s"
    low, high = least, 1500
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def test_what_a_link_comes_to_carry(network, relay, client, certificates, tmp_path):
    """Both hops have tried sizes in vain; then the hole of the front link is gone."""
    stage = Stage(Case("front-hole-1400", holes=(1400, 0)), network, relay, client, certificates, tmp_path)
    with stage.egress.inside():
        sizer = echo.UdpSizer()
    with sizer, stage.client.inside():
        stage.start_client(hop1=stage.hop1)
        with socks.Associate(stage.socks) as associate:
            assert largest(lambda size: passes(associate, sizer.port, 100, size), 1286) < 1300
            time.sleep(3)  # the first pauses between two tries are over, too
            assert not passes(associate, sizer.port, 100, 1300)
            for host in (stage.client, stage.ingress):
                host.nft("delete table netdev hole")
            largest(lambda size: passes(associate, sizer.port, 100, size), 1300, 40)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_small_links(case, network, relay, client, certificates, tmp_path):
    stage = Stage(case, network, relay, client, certificates, tmp_path)
    with stage.egress.inside():
        target, sizer = source.Source(DOWNLOAD, rate=1 << 30), echo.UdpSizer()
    with target, sizer, stage.client.inside():
        up = stage.start_client(hop1=stage.hop1)
        first, whole = download(stage.http, target)
        print(f"{case.name}: first byte after {first * 1000:.0f} ms, {DOWNLOAD >> 20} MiB in {whole:.1f} s")
        assert first < 1 and whole < 15, (first, whole)
        assert all(event["http"] == 3 for event in up.events("hop_ready"))
        with socks.Associate(stage.socks) as associate:
            most_up = largest(lambda size: passes(associate, sizer.port, size, 100), case.up)
            most_down = largest(lambda size: passes(associate, sizer.port, 100, size), case.down)
            print(f"{case.name}: UDP payloads of {most_up} up and {most_down} down")
            before = stage.metrics(stage.egress_relay)[TOO_BIG]
            for _ in range(3):
                assert not passes(associate, sizer.port, 1450, 100) and not passes(associate, sizer.port, 100, 1450)
            assert passes(associate, sizer.port, most_up, most_down, patience=10)
            assert stage.metrics(stage.egress_relay)[TOO_BIG] >= before + 3
        assert download(stage.http, target)[1] < 15  # all of it still works
        assert len(up.events("hop_ready")) == 2
        up.stop()
        assert up.events("closed")[0]["dropped"]["too_big"] >= 3
