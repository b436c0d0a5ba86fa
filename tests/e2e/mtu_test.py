"""The way from the relay to an HTTP/3 client comes to carry less: a router says so, nobody says so, or a liar does."""
import asyncio
import contextlib
import hashlib
import os
import socket
import struct
import time

import pytest

from harness import configs, http1, http3, vitals

AUTH = ("proxy-authorization", configs.BEARER)
AUTH_LINE = f"Proxy-Authorization: {configs.BEARER}"
CLIENT, RELAY = {4: "10.1.0.2", 6: "fd00:1::2"}, {4: "10.2.0.2", 6: "fd00:2::2"}
TOLD, HOLE = (f'twohop_quic_path_mtu_reduced_total{{reason="{why}"}}' for why in ("packet_too_big", "black_hole"))
NO_ICMP = """
table inet hole {
    chain out {
        type filter hook output priority 0;
        icmp type destination-unreachable drop
        icmpv6 type packet-too-big drop
    }
}
"""


class Site:
    """client -- router -- relay. The test's process is in the relay's namespace."""

    def __init__(self, network):
        self.client, self.router, self.host = (network.host(name) for name in ("client", "router", "relay"))
        self._link, _ = network.cable(self.router, ["10.1.0.1/24", "fd00:1::1/64"], self.client, ["10.1.0.2/24", "fd00:1::2/64"])
        network.cable(self.router, ["10.2.0.1/24", "fd00:2::1/64"], self.host, ["10.2.0.2/24", "fd00:2::2/64"])
        self.router.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1",
                        "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
        for host, net in ((self.client, 1), (self.host, 2)):
            host.ip("route", "add", "default", "via", f"10.{net}.0.1")
            host.ip("-6", "route", "add", "default", "via", f"fd00:{net}::1")

    def shrink(self):
        """From now on the router passes no more than 1300 bytes on to the client."""
        self.router.ip("link", "set", self._link, "mtu", 1300)


@pytest.fixture
def site(network, relay, certificates, tmp_path):
    found = Site(network)

    def start(host):
        found.at = configs.Ports()
        found.relay = relay(configs.egress(certificates, tmp_path, found.at, host=host, **{"num-threads": 2}))
        found.vitals = vitals.Vitals(found.relay)

    found.start = start
    with found.host.inside():
        yield found
        for one in relay.__self__._started:  # while its namespace is still entered
            one.stop(timeout=5)


class Sender:
    """A UDP target: sends `size` bytes at each pulse."""

    def __init__(self):
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.port, self.size, self._peer = self._socket.getsockname()[1], 1400, None

    def pulse(self):
        with contextlib.suppress(BlockingIOError):
            while True:
                self._peer = self._socket.recvfrom(2000)[1]
        if self._peer:
            self._socket.sendto(bytes(self.size), self._peer)


@contextlib.asynccontextmanager
async def session(site, family, ca):
    """A client in its namespace, and a tunnel to a Sender."""
    sender = Sender()
    client_host, site.names = site.client, site.host
    with client_host.inside():
        connecting = http3.client(site.at.tls, ca, host=RELAY[family])
        client = await connecting.__aenter__()
    try:
        stream = client.connect_udp(f"/.well-known/masque/udp/127.0.0.1/{sender.port}/", AUTH)
        assert (await client.response(stream))[0] == 200
        yield client, stream, sender
    finally:
        await connecting.__aexit__(None, None, None)
        sender._socket.close()


async def pulse_until(client, stream, sender, condition, timeout=10):
    """The target sends, and the client too, so that it is never silent."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for did not come"
        client.send_datagram(stream, b"\0tick")
        sender.pulse()
        await asyncio.sleep(0.005)


def came(client, stream, size):
    return sum(len(one) == size + 1 for one in client.streams[stream].datagrams)


async def fill_path(client, stream, sender):
    """Until packets of the full size arrive."""
    await pulse_until(client, stream, sender, lambda: came(client, stream, 1400) >= 20)


WAYS = [(4, "10.2.0.2"), (6, "::")]


@pytest.mark.parametrize("is_told", [True, False], ids=["told", "hole"])
@pytest.mark.parametrize("family,host", WAYS, ids=["IPv4", "IPv6"])
def test_datagrams_toward_the_client(site, certificates, family, host, is_told):
    site.start(host)
    if not is_told:
        site.router.nft(NO_ICMP)

    async def run():
        async with session(site, family, certificates.ca) as (client, stream, sender):
            await fill_path(client, stream, sender)
            assert site.vitals.metrics()[TOLD] == site.vitals.metrics()[HOLE] == 0
            site.shrink()
            series = TOLD if is_told else HOLE
            await pulse_until(client, stream, sender, lambda: site.vitals.metrics()[series] == 1)
            before = site.vitals.metrics()
            assert before[TOLD] + before[HOLE] == 1
            sender.size = 1190
            await pulse_until(client, stream, sender, lambda: came(client, stream, 1190) >= 100, 5)
            dropped = site.vitals.metrics()['twohop_dropped_total{reason="too_big"}']
            sender.size = 1400
            await pulse_until(client, stream, sender,
                              lambda: site.vitals.metrics()['twohop_dropped_total{reason="too_big"}'] >= dropped + 10, 5)
            assert client.terminated is None

    asyncio.run(run())


@pytest.mark.parametrize("is_told", [True, False], ids=["told", "hole"])
@pytest.mark.parametrize("family,host", WAYS, ids=["IPv4", "IPv6"])
def test_a_download(site, certificates, family, host, is_told):
    site.start(host)
    if not is_told:
        site.router.nft(NO_ICMP)
    data = os.urandom(1 << 21)
    listener = socket.create_server(("127.0.0.1", 0))

    async def run():
        async with session(site, family, certificates.ca) as (client, stream, sender):
            await fill_path(client, stream, sender)
            tcp = client.connect_tcp("127.0.0.1:%d" % listener.getsockname()[1], AUTH)
            assert (await client.response(tcp))[0] == 200
            target, _ = listener.accept()
            target.setblocking(False)
            loop, state = asyncio.get_running_loop(), client.streams[tcp]
            pouring = asyncio.create_task(loop.sock_sendall(target, data))
            await client.until(lambda: len(state.data) > 1 << 18)
            site.shrink()
            at = time.monotonic()
            await pulse_until(client, stream, sender, lambda: len(state.data) == len(data), 20)
            await pouring
            target.close()
            assert hashlib.sha256(state.data).digest() == hashlib.sha256(data).digest()
            assert site.vitals.metrics()[TOLD if is_told else HOLE] >= 1
            assert time.monotonic() - at < 10

    with listener:
        asyncio.run(run())


# ---- forged ICMP ----

def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def icmp(kind, code, word, quote):
    head = struct.pack("!BBHI", kind, code, 0, word)
    return head[:2] + struct.pack("!H", checksum(head + quote)) + head[4:] + quote


def quoted(site, client_port, payload, family):
    """The beginning of a packet from the relay to the client."""
    udp = struct.pack("!HHHH", site.at.tls, client_port, 8 + 1400, 0) + payload
    if family == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + 8 + 1400, 0, 0x4000, 64, 17, 0)
        return head + socket.inet_aton(RELAY[4]) + socket.inet_aton(CLIENT[4]) + udp
    return struct.pack("!IHBB", 6 << 28, 8 + 1400, 17, 64) + socket.inet_pton(socket.AF_INET6, RELAY[6]) + \
        socket.inet_pton(socket.AF_INET6, CLIENT[6]) + udp


def forger(site, family):
    """A socket of the router that sends ICMP messages to the relay."""
    with site.router.inside():
        if family == 4:
            one = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        else:
            one = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    one.connect((RELAY[family], 0))
    return one


@pytest.mark.parametrize("family,host", WAYS, ids=["IPv4", "IPv6"])
def test_forged_icmp(site, certificates, tcp_echo, family, host):
    """A liar who knows all addresses and ports, but not the connection ID, changes nothing. One on the path gets 1200, not less."""
    site.start(host)
    too_big = (3, 4, 68) if family == 4 else (2, 0, 68)
    kinds = [too_big] + ([(3, code, 0) for code in range(16)] + [(11, 0, 0), (12, 0, 0)] if family == 4
                         else [(1, code, 0) for code in range(8)] + [(3, 0, 0), (4, 0, 0)])

    async def run():
        async with session(site, family, certificates.ca) as (client, stream, sender):
            await fill_path(client, stream, sender)
            port = client._transport.get_extra_info("sockname")[1]
            mine = client._quic._host_cids[0].cid
            with forger(site, family) as liar:
                for i in range(20000):
                    payload = bytes([0x40]) + os.urandom(7 + 24) if i % 4 else b""
                    where = port if i % 2 else 1024 + i
                    liar.send(icmp(*kinds[i % len(kinds)], quoted(site, where, payload, family)))
                    if i % 100 == 0:
                        sender.pulse()
                        await asyncio.sleep(0)
                before = came(client, stream, 1400)
                for i in range(200):
                    liar.send(icmp(*kinds[i % len(kinds)], quoted(site, port, bytes([0x40]) + os.urandom(31), family)))
                    sender.pulse()
                    await asyncio.sleep(0.002)
                await client.until(lambda: came(client, stream, 1400) >= before + 200, 2)
                metrics = site.vitals.metrics()
                assert metrics[TOLD] == metrics[HOLE] == 0
                await asyncio.sleep(1)  # the bucket of searches
                liar.send(icmp(*too_big, quoted(site, port, bytes([0x40]) + mine + os.urandom(23), family)))
                vitals.wait(lambda: site.vitals.metrics()[TOLD] == 1, 2)
            sender.size = 1160
            await pulse_until(client, stream, sender, lambda: came(client, stream, 1160) >= 10)
            assert client.terminated is None

    asyncio.run(run())
    with http1.Connection(site.at.clear, RELAY[family]) as connection:
        assert connection.connect(tcp_echo.authority, AUTH_LINE)[0] == 200
