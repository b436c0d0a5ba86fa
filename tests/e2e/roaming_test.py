"""The client's machine goes to another network: hop 1's connection goes on from its new address, and all tunnels with it. Over HTTP/2
it is soon given up."""
import signal
import time

import pytest

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


def test_another_address_over_tcp(network, relay, client, certificates, tmp_path):
    site = hops.Hops(network, relay, client, certificates, tmp_path)
    site.start_relays()
    up = site.start_client(http="2")
    with site.egress.inside():
        tcp = echo.TcpEcho()
    with tcp, site.client.inside():
        with http1.Connection(site.http, timeout=12) as tunnel:
            assert tunnel.connect(tcp.authority)[0] == 200
            time.sleep(0.5)  # all is acknowledged: what is asked from now on cannot even be sent
            site.client.ip("-4", "address", "flush", "dev", site.front[0])
            site.client.ip("address", "add", "11.0.1.10/24", "dev", site.front[0])
            begun = time.monotonic()
            with pytest.raises(ConnectionResetError):  # HTTP/2 cannot follow; unnoticed it would take 45 s
                tunnel.read(1)
            assert time.monotonic() - begun < 6
        with http1.Connection(site.http, timeout=12) as tunnel:
            assert tunnel.connect(tcp.authority)[0] == 200
            tunnel.send(b"new")
            assert tunnel.read(3) == b"new"
    assert len(up.events("network_changed")) == 1
    site.ingress_relay.kill()  # it would wait for what the client has left behind


def test_a_second_network_harms_no_tcp(network, relay, client, certificates, tmp_path):
    """What would be sent from another address now, but the connection lives, although the relay is too busy to answer."""
    site = hops.Hops(network, relay, client, certificates, tmp_path)
    site.start_relays()
    up = site.start_client(http="2")
    with site.egress.inside():
        tcp = echo.TcpEcho()
    with tcp, site.client.inside(), http1.Connection(site.http, timeout=12) as tunnel:
        assert tunnel.connect(tcp.authority)[0] == 200
        site.client.ip("address", "add", "11.0.1.10/24", "dev", site.front[0])
        site.client.ip("route", "change", "11.0.1.0/24", "dev", site.front[0], "src", "11.0.1.10")
        site.ingress_relay.signal(signal.SIGSTOP)
        time.sleep(4)
        site.ingress_relay.signal(signal.SIGCONT)
        time.sleep(4)
        tunnel.send(b"alive")
        assert tunnel.read(5) == b"alive"
    assert len(up.events("network_changed")) == 1
    assert len(up.events("hop_ready")) == 2 and not up.events("hop_failed")
