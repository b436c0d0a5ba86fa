"""How the client finds hop 1 and the ingress hop 2: literals and names, IPv4 and IPv6, and addresses that do not answer."""
import contextlib

import pytest

from harness import dns, echo, hops, http1, socks

DEAD6, DEAD6_TOO, DEAD4 = "2a0e:dead::1", "2a0e:dead::2", "11.0.3.1"  # routed, and never answered


@pytest.fixture
def site(network, relay, client, certificates, tmp_path):
    found = hops.Hops(network, relay, client, certificates, tmp_path)
    found.client.ip("-6", "route", "add", "2a0e:dead::/64", "via", hops.INGRESS6)
    found.client.ip("route", "add", "11.0.3.0/24", "via", hops.INGRESS)
    found.client.resolve_with("127.0.0.1")
    return found


@contextlib.contextmanager
def named(site, *records):
    """ingress.test has these records."""
    with site.client.inside():
        server = dns.Server({"ingress.test.": records}, port=53)
    with server:
        yield server


def exchange(site):
    """TCP and UDP through the client that runs."""
    with site.egress.inside():
        tcp, udp = echo.TcpEcho(), echo.UdpEcho()
    with tcp, udp, site.client.inside():
        with http1.Connection(site.http) as connection:
            assert connection.connect(tcp.authority)[0] == 200
            connection.send(b"stream")
            assert connection.read(6) == b"stream"
        with socks.Associate(site.socks) as associate:
            for size in (1, 1100):
                associate.send("127.0.0.1", udp.port, b"d" * size)
                assert associate.receive() == b"d" * size


@pytest.mark.parametrize("http", ["3", "2"])
def test_both_hops_by_ipv6_literal(site, http):
    site.start_relays(hop2=hops.EGRESS6)
    up = site.start_client(hop1=hops.INGRESS6, http=http)
    exchange(site)
    assert [event["relay"] for event in up.events("hop_ready")] == [
        f"[{hops.INGRESS6}]:{site.ingress_at.tls}", f"[{hops.EGRESS6}]:{site.egress_at.tls}"]


@pytest.mark.parametrize("http", ["3", "2"])
def test_both_hops_by_name(site, http):
    """The client asks for hop 1's name alone, and prefers IPv6; hop 2's is the ingress's business."""
    with site.ingress.inside():
        at_ingress = dns.Server({"egress.test.": [f"AAAA {hops.EGRESS6}"]})
    with at_ingress, named(site, f"A {hops.INGRESS}", f"AAAA {hops.INGRESS6}") as at_client:
        site.start_relays(hop2="egress.test", **{"resolver.servers": [at_ingress.address]})
        site.ingress.nft("table inet watch { counter v6 {}; chain in { type filter hook input priority 0; "
                         f"ip6 nexthdr {{ tcp, udp }} th dport {site.ingress_at.tls} counter name v6; }}; }}")
        site.start_client(hop1="ingress.test", http=http)
        exchange(site)
        assert site.ingress.counter("v6") > 0
        assert set(at_client.asked) == {"ingress.test."} and set(at_ingress.asked) == {"egress.test."}


@pytest.mark.parametrize("http", ["3", "2"])
def test_both_hops_by_hosts_file(site, http):
    """The client's and the ingress's /etc/hosts name the hops; nobody's DNS answers."""
    site.client.know({"ingress.test": hops.INGRESS})
    site.ingress.know({"egress.test": hops.EGRESS})
    site.start_relays(hop2="egress.test", **{"resolver.servers": ["127.0.0.1:9"]})
    site.start_client(hop1="ingress.test", http=http)
    exchange(site)


def test_targets_are_not_in_the_hosts_file(site):
    """The egress asks DNS alone: what its operator calls a machine is no business of its users."""
    site.egress.know({"target.test": "127.0.0.1"})
    site.start_relays()
    site.start_client()
    with site.egress.inside():
        tcp = echo.TcpEcho()
    with tcp, site.client.inside(), http1.Connection(site.http) as connection:
        assert connection.connect(f"target.test:{tcp.port}")[0] == 502


@pytest.mark.parametrize("http", ["3", "2", "auto"])
@pytest.mark.parametrize("records", [
    [f"AAAA {DEAD6}", f"A {hops.INGRESS}"],
    [f"AAAA {DEAD6}", f"AAAA {DEAD6_TOO}", f"A {hops.INGRESS}"],
    [f"A {DEAD4}", f"AAAA {hops.INGRESS6}"],
    [f"A {DEAD4}", f"A {hops.INGRESS}"],
], ids=["dead-aaaa", "two-dead-aaaa", "dead-a", "first-of-two-a-dead"])
def test_a_dead_address_costs_a_fraction_of_a_second(site, http, records):
    with named(site, *records):
        site.start_relays()
        text, took = site.check(hop1="ingress.test", http=http)
    assert took < 600, text
    assert f"HTTP/{'3' if http == 'auto' else http}," in text.splitlines()[0], text


def test_dead_ipv6_and_no_udp(site):
    """Everything at once: IPv6 silent, UDP silent: HTTP/2 over IPv4 still comes soon."""
    with named(site, f"AAAA {DEAD6}", f"A {hops.INGRESS}"):
        site.start_relays()
        site.ingress.nft("table inet filter { chain in { type filter hook input priority 0; "
                         f"udp dport {site.ingress_at.tls} drop; }}; }}")
        text, took = site.check(hop1="ingress.test")
    assert took < 900 and "HTTP/2" in text.splitlines()[0], text


@pytest.mark.parametrize("http", ["3", "2", "auto"])
@pytest.mark.parametrize("kind, records", [
    ("A", [f"AAAA {DEAD6}", f"A {hops.INGRESS}"]), ("AAAA", [f"A {DEAD4}", f"AAAA {hops.INGRESS6}"]),
    ("A", ["AAAA 2001:db8::1", f"A {hops.INGRESS}"]),
], ids=["dead-aaaa", "dead-a", "unroutable-aaaa"])
def test_the_good_family_is_known_late(site, http, kind, records):
    with site.client.inside():
        server = dns.Server({"ingress.test.": records}, port=53, late={("ingress.test.", kind): 0.4})
    with server:
        site.start_relays()
        text, took = site.check(hop1="ingress.test", http=http)
    assert took < 1200, text
