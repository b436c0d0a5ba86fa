"""The client's machine goes to another network: hop 1's connection goes on from its new address, and all tunnels with it."""
import time

from harness import echo, hops, http1, socks


def test_another_address(network, relay, client, certificates, tmp_path):
    site = hops.Hops(network, relay, client, certificates, tmp_path)
    site.start_relays()
    up = site.start_client()
    with site.egress.inside():
        tcp, udp = echo.TcpEcho(), echo.UdpEcho()
    with tcp, udp, site.client.inside(), socks.Associate(site.socks) as associate, http1.Connection(site.http, timeout=12) as tunnel:
        assert tunnel.connect(tcp.authority)[0] == 200
        tunnel.send(b"0")
        for number in range(3):
            assert tunnel.read(1) == b"%d" % number
            associate.retry("127.0.0.1", udp.port, b"%d" % number)
            if number < 2:
                site.client.ip("-4", "address", "flush", "dev", site.front[0])
                time.sleep(0.3)
                site.ingress.ip("link", "set", site.front[1], "arp", "off")
                site.client.ip("-4", "neighbour", "flush", "dev", site.front[0])
                site.client.ip("address", "add", f"11.0.1.{10 + number}/24", "dev", site.front[0])
                tunnel.send(b"%d" % (number + 1))
                time.sleep(0.3 if number == 0 else 4)  # the second has an address before anybody is there: EHOSTUNREACH
                site.ingress.ip("link", "set", site.front[1], "arp", "on")
        assert len(tcp.peers) == 1 and len(udp.peers) == 1  # the same tunnels
    assert len(up.events("network_changed")) == 2
    assert len(up.events("hop_ready")) == 2 and not up.events("hop_moved") and not up.events("hop_failed")
