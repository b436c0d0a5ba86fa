"""Where tunnels may lead to, and what comes of targets that answer badly or not at all (threats E, T38, T41).

The test's process goes into the network namespace of the egress; targets are in another. All addresses that should be
reachable are ones of the public internet, which is not there.
"""
import asyncio
import contextlib
import re
import socket
import threading
import time

import pytest

from harness import capsule, configs, dns, echo, http1, http2, http3, vitals

AUTH = ("proxy-authorization", configs.BEARER)
AUTH_LINE = f"Proxy-Authorization: {configs.BEARER}"
EGRESS, EGRESS6, TARGET, TARGET6 = "11.0.0.1", "2a0e:1::1", "11.0.0.2", "2a0e:1::2"
SPOOFER = "11.0.0.3"


class Site:
    """egress and target: the hosts. start(**directives): the relay in the egress's namespace, with the default policy."""

    def __init__(self, network, relay, certificates, folder):
        self.egress, self.target = network.host("egress"), network.host("target")
        network.cable(self.egress, [f"{EGRESS}/24", f"{EGRESS6}/64"], self.target,
                      [f"{TARGET}/24", f"{SPOOFER}/24", f"{TARGET6}/64"])
        self.egress.ip("route", "add", "default", "via", TARGET)
        self.egress.ip("-6", "route", "add", "default", "via", TARGET6)
        self._relay, self._certificates, self._folder = relay, certificates, folder

    def start(self, allow=None, **more):
        self.at = configs.Ports()
        config = configs.egress(self._certificates, self._folder, self.at, allow=allow, **({"num-threads": 2} | more))
        self.relay = self._relay(config)
        self.vitals = vitals.Vitals(self.relay)
        return self.at

    @contextlib.contextmanager
    def at_target(self, kind, host=TARGET):
        """An echo target on the target host."""
        with self.target.inside():
            target = kind(host)
        with target:
            yield target


@pytest.fixture
def site(network, relay, certificates, tmp_path):
    found = Site(network, relay, certificates, tmp_path)
    with found.egress.inside():
        yield found
        for one in relay.__self__._started:  # while its namespace is still entered
            one.stop(timeout=5)


def path(host, port):
    return f"/.well-known/masque/udp/{host.replace(':', '%3A')}/{port}/"


def bare(host):
    return host.strip("[]")


# ---- the same question in six ways: {method, version} -> (status, fields) ----

def has_template_form(host):
    """Whether a template's expansion can say the same as an authority does: it has no brackets, and is decoded."""
    return not re.search(r"%|\[(?![\da-f:]*:[\da-f:.]*\])", host, re.IGNORECASE)


def ask_http1(at, host, port):
    with http1.Connection(at.clear) as connection:
        yield "connect 1.1", connection.connect(f"{host}:{port}", AUTH_LINE)
    if not has_template_form(host):
        return
    with http1.Connection(at.clear) as connection:
        yield "connect-udp 1.1", connection.upgrade(path(bare(host), port), AUTH_LINE)


def ask_http2(connection, host, port):
    stream = connection.connect(f"{host}:{port}", AUTH)
    yield "connect 2", connection.response(stream)
    if has_template_form(host):
        stream = connection.connect_udp(path(bare(host), port), AUTH)
        yield "connect-udp 2", connection.response(stream)


async def ask_http3(client, host, port):
    stream = client.connect_tcp(f"{host}:{port}", AUTH)
    tcp = await client.response(stream)
    stream = client.connect_udp(path(bare(host), port), AUTH)
    return [("connect 3", tcp), ("connect-udp 3", await client.response(stream))]


def ask_all(site, certificates, targets):
    """(target, way, status, fields) of every (host, port) in each way."""
    answers = []
    with http2.Connection(site.at.clear) as connection:
        for target in targets:
            for way, (status, fields) in [*ask_http1(site.at, *target), *ask_http2(connection, *target)]:
                answers.append((target, way, status, fields))

    async def run():
        async with http3.client(site.at.tls, certificates.ca) as client:
            for target in targets:
                for way, (status, fields) in await ask_http3(client, *target):
                    answers.append((target, way, status, fields))

    asyncio.run(run())
    return answers


# ---- addresses (T45, T46, T49) ----

PROHIBITED = """
127.0.0.1 127.255.255.254 0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 172.16.0.1 172.31.255.255 192.168.0.1 192.168.255.255
100.64.0.1 100.127.255.255 169.254.0.1 169.254.169.254 192.0.0.1 192.0.0.170 192.0.2.1 198.18.0.1 198.19.255.255
198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 192.88.99.1
[::] [::1] [fe80::1] [febf::1] [fec0::1] [fc00::1] [fd00:ec2::254] [fdff::1] [ff02::1] [ff0e::1] [2001:db8::1] [2001::1]
[2001:1ff::1] [3fff::1] [5f00::1] [100::1]
[::ffff:127.0.0.1] [::ffff:10.0.0.1] [::ffff:169.254.169.254] [::ffff:7f00:1] [0:0:0:0:0:ffff:192.168.1.1] [::127.0.0.1]
[::10.0.0.1] [64:ff9b::127.0.0.1] [64:ff9b::10.0.0.1] [64:ff9b::a9fe:a9fe] [64:ff9b:1::1] [64:ff9b:1:7f00:1::]
[2002:7f00:1::] [2002:a00:1::1] [2002:b00:2::1] [2001:0:7f00:1::] [2a0e:1::5efe:10.0.0.1] [2a0e:1::200:5efe:127.0.0.1]
[0:0:0:0:0:0:0:1] [0000:0000:0000:0000:0000:0000:0000:0001] [::FFFF:127.0.0.1] 127.0.0.1.
""".split()

NOT_ADDRESSES = """
0x7f.1 0x7f000001 2130706433 127.1 127.0.1 017700000001 0177.0.0.1 127.0.0.01 127.0.0.256 1.2.3 1.2.3.4.5 0x7f.0.0.1
[::1%lo] [::1%25lo] [fe80::1%eth0] [::1 [1::2::3] [127.0.0.1] [v1.x] %31%32%37.0.0.1 a%00b a..b .a -a_/b a@b
""".split()

WATCH = """
table inet watch {
    counter out { }
    chain out { type filter hook output priority 0; meta l4proto { tcp, udp } th dport 4242 counter name out; }
}
"""


def test_no_packet_leaves_to_a_special_purpose_address(site, certificates):
    site.start()
    site.egress.nft(WATCH)
    wrong = [(target[0], way, status, fields.get("proxy-status"))
             for target, way, status, fields in ask_all(site, certificates, [(host, 4242) for host in PROHIBITED])
             if status != 403 or "destination_ip_prohibited" not in fields.get("proxy-status", "")]
    assert not wrong, wrong
    assert site.egress.counter("out") == 0
    with http1.Connection(site.at.clear) as connection:  # the counter counts
        assert connection.connect(f"{TARGET}:4242", AUTH_LINE)[0] == 502
    assert site.egress.counter("out") > 0


def test_spellings_that_are_no_addresses(site, certificates):
    site.start()
    site.egress.nft(WATCH)
    wrong = []
    for host in NOT_ADDRESSES:
        ways = list(ask_http1(site.at, host, 4242))
        with http2.Connection(site.at.clear) as connection:
            ways += ask_http2(connection, host, 4242)
        for way, (status, _) in ways:
            if status != 400 and (way, status) != ("connect 2", None):  # nghttp2 resets what is no authority
                wrong.append((host, way, status))
    assert not wrong, wrong
    assert site.egress.counter("out") == 0


def test_ports(site, certificates):
    site.start(**{"resolver.servers": [f"{TARGET}"]})
    site.egress.nft(WATCH.replace("th dport 4242", f"ip daddr {TARGET}"))
    tcp, udp = (25, 119, *range(135, 140), 445, 563), (19, 123, *range(135, 140), 161, 389, 1900, 11211)
    answers = ask_all(site, certificates, [(TARGET, port) for port in {*tcp, *udp, 465, 587}])
    wrong = [(port, way, status) for (_, port), way, status, fields in answers
             if port in (udp if "udp" in way else tcp) and
             (status != 403 or "http_request_denied" not in fields["proxy-status"])]
    assert not wrong, wrong
    for (_, port), way, status, _ in answers:
        assert status != 403 or port in (udp if "udp" in way else tcp), (port, way)
    for way, (status, _) in [*ask_http1(site.at, "11.0.0.77", 53)]:
        assert status == 403, way
    assert dict(ask_http1(site.at, TARGET, 53))["connect-udp 1.1"][0] == 101  # the configured resolver


def test_ports_that_a_literal_rule_opens(site):
    """An address and the port, not a name, a wildcard or the address alone; and only that one."""
    with dns.Server({"mail.example.": [f"A {TARGET}"], "six.example.": [f"AAAA {TARGET6}"]}) as server:
        site.start(allow=[f"+{TARGET}:25", f"+{TARGET}:53", f"+{TARGET6}", "+six.example", "+six.example:25", "+*"],
                   **{"resolver.servers": [server.address]})
        for host, port, tcp, udp in ((TARGET, 25, 502, 101), ("mail.example", 25, 502, 101), (TARGET, 53, 502, 101),
                                     (TARGET, 139, 403, 403), (TARGET, 11211, 502, 403), (SPOOFER, 25, 403, 101),
                                     (SPOOFER, 53, 403, 403), (f"[{TARGET6}]", 25, 403, 101), ("six.example", 25, 403, 101)):
            found = {way: status for way, (status, _) in ask_http1(site.at, host, port)}
            assert found == {"connect 1.1": tcp, "connect-udp 1.1": udp}, (host, port, found)


METADATA, METADATA6 = "169.254.169.254", "fd00:ec2::254"


def test_metadata_behind_an_allowed_name(site):
    """Refused however the name is allowed; a literal address in a rule opens it, by address and by name."""
    for address in (METADATA, METADATA6):
        site.target.ip("address", "add", address, "dev", "eth0", *(["nodad"] if ":" in address else []))
    names = {"meta.example.": [f"A {METADATA}"], "meta6.example.": [f"AAAA {METADATA6}"]}
    with dns.Server(names) as server, site.at_target(echo.TcpEcho, METADATA) as four, site.at_target(echo.TcpEcho, METADATA6) as six:
        def statuses():
            return {status for host, port in (("meta.example", four.port), ("meta6.example", six.port),
                                              (METADATA, four.port), (f"[{METADATA6}]", six.port))
                    for _, (status, _) in ask_http1(site.at, host, port)}
        resolver = {"resolver.servers": [server.address]}
        site.start(allow=["+meta.example", "+*.example", "+meta6.example", "+*"], **resolver)
        assert statuses() == {403}
        assert not four.peers and not six.peers
        site.start(allow=[f"+{METADATA}", f"+[{METADATA6}]", "+*"], **resolver)
        assert statuses() == {200, 101}


def nest(connection, relays, depth):
    """CONNECT to each relay in turn through the tunnel before; how many were opened, and the status of the last."""
    for opened in range(depth):
        status, _ = connection.connect(f"127.0.0.1:{relays[(opened + 1) % 2]}", AUTH_LINE)
        if status != 200:
            return opened, status
    return depth, status


def test_a_loop_of_two_relays_ends(relay, certificates, tmp_path):
    """Each may reach the other: a nest of tunnels costs tunnels of its token, and ends with them (T48). A relay in
    itself ends at once, also over another one's name for it."""
    ports = [configs.Ports(), configs.Ports()]
    relays = []
    for at in ports:
        folder = tmp_path / str(at.clear)
        folder.mkdir()
        relays.append(relay(configs.egress(certificates, folder, at, **{"limits.tunnels-per-token": 10, "limits.drain-seconds": 1})))
    watched = [vitals.Vitals(one) for one in relays]
    with http1.Connection(ports[0].clear) as connection:
        assert connection.connect(f"127.0.0.1:{ports[0].clear}", AUTH_LINE)[0] == 403
    with http1.Connection(ports[0].clear) as connection:
        assert nest(connection, [at.clear for at in ports], 50) == (20, 503)
        assert [one.tunnels() for one in watched] == [10, 10]
        bytes_before = [one.metrics()['twohop_bytes_total{method="connect",direction="to_target"}'] for one in watched]
        assert watched[0].load(1) < 0.1 and watched[1].load(0.2) < 0.3, "the loop goes round by itself"
        assert [one.metrics()['twohop_bytes_total{method="connect",direction="to_target"}'] for one in watched] == bytes_before
    for one in watched:
        vitals.wait(lambda: one.tunnels() == 0)


def test_own_listeners_under_every_address(site):
    """On wildcard listeners, by each address of the machine, by name and by a rule that allows it."""
    with dns.Server({"own.example.": [f"A {EGRESS}"]}) as server:
        at = site.start(allow=["+*", f"+{EGRESS}", "+127.0.0.0/8", "+[::1]", f"+[{EGRESS6}]"], host="0.0.0.0",
                        **{"resolver.servers": [server.address]})
        for port in (at.tls, at.clear, at.admin):
            for host in ("127.0.0.1", "127.9.9.9", EGRESS, "own.example", f"[::ffff:{EGRESS}]"):
                if port == at.admin and host not in ("127.0.0.1",):
                    continue
                with http1.Connection(at.clear) as connection:
                    status, fields = connection.connect(f"{host}:{port}", AUTH_LINE)
                    assert status == 403 and "destination_ip_prohibited" in fields["proxy-status"], (host, port)
        with http1.Connection(at.clear) as connection:
            assert connection.upgrade(path(EGRESS, at.tls), AUTH_LINE)[0] == 403
        assert site.vitals.metrics()['twohop_policy_refused_total{reason="own_listener"}'] > 0


# ---- names (T47, T53) ----

def test_names_that_lead_inside(site, certificates):
    """Rebinding, mixed sets, CNAMEs to localhost: each address is judged, and the judged one is dialled."""
    turns = {"n": 0}
    def rebinding():
        turns["n"] += 1
        return [f"A {TARGET}"] if turns["n"] <= 2 else ["A 127.0.0.1"]  # A and AAAA of the first lookup
    names = {
        "private.example.": ["A 10.0.0.1"], "six.example.": ["AAAA ::1"], "mapped.example.": ["AAAA ::ffff:127.0.0.1"],
        "meta.example.": ["A 169.254.169.254", "AAAA fd00:ec2::254"], "cname.example.": ["CNAME localhost."],
        "localhost.": ["A 127.0.0.1", "AAAA ::1"], "rebinding.example.": rebinding,
        "nat64.example.": ["AAAA 64:ff9b::7f00:1"],
    }
    with site.at_target(echo.TcpEcho) as target, echo.TcpEcho("127.0.0.1") as inside:
        names["mixed.example."] = ["A 127.0.0.1", f"A {TARGET}", "A 10.0.0.1"]
        with dns.Server(names) as server:
            site.start(**{"resolver.servers": [server.address]})
            site.egress.nft(WATCH)
            for name in ("private", "six", "mapped", "meta", "cname", "nat64"):
                for way, (status, fields) in ask_http1(site.at, f"{name}.example", 4242):
                    assert status == 403 and "destination_ip_prohibited" in fields["proxy-status"], (name, way, status)
            assert dict(ask_http1(site.at, "localhost", 4242))["connect 1.1"][0] == 403
            for _ in range(5):
                with http1.Connection(site.at.clear) as connection:
                    assert connection.connect(f"mixed.example:{target.port}", AUTH_LINE)[0] == 200
                    connection.send(b"x")
                    assert connection.read(1) == b"x"
            with http1.Connection(site.at.clear) as connection:
                assert connection.connect(f"rebinding.example:{target.port}", AUTH_LINE)[0] == 200
            vitals.wait(lambda: turns["n"] >= 2)
            time.sleep(1.1)
            statuses = set()
            for _ in range(20):
                with http1.Connection(site.at.clear) as connection:
                    statuses.add(connection.connect(f"rebinding.example:{inside.port}", AUTH_LINE)[0])
            assert statuses <= {403, 502}, statuses
            assert not inside.peers and site.egress.counter("out") == 0


def test_an_address_that_changes_with_every_question(site):
    """TTL 0: half of the answers lead inside, and whatever came is judged and dialled, not asked for again."""
    turns = {"n": 0}
    def changing():
        turns["n"] += 1
        return [f"A {TARGET}"] if turns["n"] % 3 else ["A 127.0.0.1"]
    with site.at_target(echo.TcpEcho) as target, dns.Server({"changing.example.": changing}) as server:
        inside = socket.create_server(("127.0.0.1", target.port))
        inside.setblocking(False)
        site.start(**{"resolver.servers": [server.address], "num-threads": 4})
        statuses = []
        for _ in range(60):
            with http1.Connection(site.at.clear) as connection:
                statuses.append(connection.connect(f"changing.example:{target.port}", AUTH_LINE)[0])
        assert set(statuses) == {200, 403}, statuses
        vitals.wait(lambda: len(target.peers) == statuses.count(200))  # the last is accepted a little later
        with pytest.raises(BlockingIOError):
            inside.accept()
        inside.close()


def test_name_servers_that_fail(site, certificates):
    label = b"\x3f" + b"a" * 63
    junk = {
        "nx.example.": "NXDOMAIN", "fail.example.": "SERVFAIL", "refused.example.": "REFUSED", "none.example.": [],
        "silent.example.": None, "header.example.": b"\x81", "labels.example.": b"\x81\x80\0\1\0\1\0\0\0\0" + label * 64,
        "loop.example.": b"\x81\x80\0\1\0\1\0\0\0\0\xc0\x0c\0\1\0\1\xc0\x0c\0\1\0\1",
        "random.example.": bytes(range(256)) * 4, "counts.example.": b"\x81\x80" + b"\xff" * 8,
    }
    with dns.Server(junk) as server, site.at_target(echo.TcpEcho) as target:
        site.start(**{"resolver.servers": [server.address], "resolver.timeout": 2})
        with vitals.Bystander(site.at.clear, target) as bystander:
            for name, rcode in (("nx", "NXDOMAIN"), ("fail", "SERVFAIL"), ("refused", "REFUSED"), ("none", "NOERROR")):
                for way, (status, fields) in ask_http1(site.at, f"{name}.example", 443):
                    value = fields["proxy-status"]
                    assert status == 502 and "dns_error" in value, (name, way, status, value)
                    assert f'rcode="{rcode}"' in value or rcode == "NOERROR", (name, value)
            results = {}
            def ask(name):
                with http1.Connection(site.at.clear, timeout=10) as connection:
                    at = time.monotonic()
                    status, fields = connection.connect(f"{name}.example:443", AUTH_LINE)
                    results[name] = status, fields["proxy-status"], time.monotonic() - at
            bad = ("silent", "header", "labels", "loop", "random", "counts")
            threads = [threading.Thread(target=ask, args=(name,)) for name in bad]
            for thread in threads:
                thread.start()
            assert bystander.echo() < 0.5
            for thread in threads:
                thread.join()
            for name in bad:
                status, value, took = results[name]
                assert (status == 504 and "dns_timeout" in value) or (status == 502 and "dns_error" in value), results
                assert took < 4, results
            assert results["silent"][0] == 504


def test_a_thousand_names_at_a_dead_name_server(site):
    dead = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    dead.bind(("127.0.0.1", 0))
    with site.at_target(echo.TcpEcho) as target:
        site.start(**{"resolver.servers": [f"127.0.0.1:{dead.getsockname()[1]}"], "resolver.timeout": 2,
                      "limits.streams": 1000, "limits.dials-per-connection": 1000, "limits.dials-per-token": 1000})
        with vitals.Bystander(site.at.clear, target) as bystander, http2.Connection(site.at.clear) as connection:
            at = time.monotonic()
            streams = [connection.connect(f"n{i}.example:443", AUTH) for i in range(900)]
            assert bystander.echo() < 1
            answers = [connection.response(stream, 20) for stream in streams]
            assert {status for status, _ in answers} == {504}
            assert time.monotonic() - at < 10
    dead.close()


def test_one_token_cannot_fill_the_resolver(site, tmp_path):
    """More names in a silent zone than the resolver has room for: another user's name is found at once."""
    (tmp_path / "users").mkdir()
    tokens = configs.token_file(tmp_path / "users", (("alice", configs.TOKEN), ("bob", "another-secret")))
    names = {f"n{i}-{k}.example.": None for i in range(68) for k in range(64)} | {f"v{i}.example.": [f"A {TARGET}"] for i in range(8)}
    with site.at_target(echo.TcpEcho) as target, dns.Server(names) as server, contextlib.ExitStack() as stack:
        site.start(**{"num-threads": 1, "resolver.servers": [server.address], "auth.tokens": str(tokens)})
        crowd = [stack.enter_context(http2.Connection(site.at.clear)) for _ in range(68)]
        for i, one in enumerate(crowd):
            for k in range(64):
                one.connect(f"n{i}-{k}.example:80", AUTH)
        for i in range(8):
            with http1.Connection(site.at.clear) as connection:
                at = time.monotonic()
                assert connection.connect(f"v{i}.example:{target.port}", "Proxy-Authorization: Bearer another-secret")[0] == 200
                assert time.monotonic() - at < 2


# ---- dialling (T54) ----

def test_targets_that_cannot_be_reached(site, certificates):
    site.start(**{"proxy.timeout.connect": 1})
    site.egress.ip("route", "add", "unreachable", "12.0.0.0/8")
    site.target.nft("table inet hole { chain in { type filter hook input priority 0; tcp dport 81 drop; }; }")
    expected = {(TARGET, 82): (502, "connection_refused"), (TARGET, 81): (504, "connection_timeout"),
                ("12.0.0.1", 80): (502, "destination_ip_unroutable")}
    for target, way, status, fields in ask_all(site, certificates, expected):
        if "udp" in way and target[0] == TARGET:
            assert status in (101, 200), (target, way)
            continue
        assert (status, expected[target][1] in fields["proxy-status"]) == (expected[target][0], True), (target, way, fields)
        text = str(fields)
        assert not re.search(r"11\.0\.0|12\.0\.0|2a0e|errno|[Nn]o route|timed out", text), text
        assert fields.get("content-length", "0") == "0"
    assert not re.search(r"11\.0\.0\.2|12\.0\.0\.1", site.relay.log)


def test_ipv6_that_leads_nowhere(site):
    """Happy Eyeballs: IPv4 is tried 250 ms later, and answers."""
    site.target.nft("table inet hole { chain in { type filter hook input priority 0; ip6 nexthdr tcp drop; }; }")
    with site.at_target(echo.TcpEcho) as target:
        with dns.Server({"both.example.": [f"A {TARGET}", f"AAAA {TARGET6}"]}) as server:
            site.start(**{"resolver.servers": [server.address]})
            for _ in range(2):
                with http1.Connection(site.at.clear) as connection:
                    at = time.monotonic()
                    assert connection.connect(f"both.example:{target.port}", AUTH_LINE)[0] == 200
                    assert time.monotonic() - at < 1.5
                    connection.send(b"by IPv4")
                    assert connection.read(7) == b"by IPv4"


def test_family_that_is_known_late(site):
    """RFC 8305 sections 3 and 5: who has an address begins, and the other family's joins when it comes."""
    six, four = f"AAAA {TARGET6}", f"A {TARGET}"
    names = {"refused6.example.": [six, four], "silent6.example.": ["AAAA 2a0e:1::99", four], "refused4.example.": [four, six],
             "lost4.example.": [six, four], "private6.example.": ["AAAA fd00::1", four]}
    late = {("refused6.example.", "A"): 0.3, ("silent6.example.", "A"): 0.3, ("refused4.example.", "AAAA"): 0.3,
            ("lost4.example.", "A"): 60, ("private6.example.", "A"): 0.3}
    with site.at_target(echo.TcpEcho) as by4, site.at_target(lambda _: echo.TcpEcho(TARGET6)) as by6, \
            dns.Server(names, late=late, ttl=60) as server:
        site.start(**{"resolver.servers": [server.address]})
        for name, port, least, most in [("refused6", by4.port, 0.29, 1.5), ("silent6", by4.port, 0.29, 1.5),
                                        ("refused4", by6.port, 0.29, 1.5), ("lost4", by6.port, 0, 0.5),
                                        ("private6", by4.port, 0.29, 1.5)]:
            with http1.Connection(site.at.clear) as connection:
                at = time.monotonic()
                answer = connection.connect(f"{name}.example:{port}", AUTH_LINE)
                took = time.monotonic() - at
                assert answer[0] == 200 and least <= took < most, (name, answer, took)
        with http1.Connection(site.at.clear) as connection:  # both fail: the answer is the target's
            assert connection.connect(f"refused6.example:{by6.port + 1}", AUTH_LINE)[0] == 502


# ---- UDP targets (T38, T41, T51) ----

WATCH_FRAGMENTS = """
table inet watch {
    counter fragments { }
    counter may_fragment { }
    chain in {
        type filter hook prerouting priority -450;
        iifname "eth0" ip frag-off & 0x3fff != 0 counter name fragments
        iifname "eth0" meta l4proto udp ip frag-off & 0x4000 == 0 counter name may_fragment
    }
}
"""


class UdpTunnel:
    """CONNECT-UDP over HTTP/1.1. A context manager."""

    def __init__(self, at, host, port):
        self._connection = http1.Connection(at.clear)
        self._reader = capsule.Reader()
        assert self._connection.upgrade(path(host, port), AUTH_LINE)[0] == 101

    def send(self, *payloads):
        self._connection.send(b"".join(map(capsule.datagram, payloads)))

    def receive(self, timeout=5):
        """The next payload, None when none comes in time; ConnectionError when the tunnel ends."""
        self._connection.socket.settimeout(timeout)
        while True:
            try:
                data = self._connection.read(1)
            except TimeoutError:
                return None
            if not data:
                raise ConnectionError
            if found := self._reader.feed(data):
                return capsule.payload(found[0][1])[1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._connection.close()


def test_a_payload_too_big_for_the_path_is_dropped(site, network):
    """egress -(1500)- router -(1300)- far: what is too big is never fragmented, and the tunnel lives."""
    far = network.host("far")
    network.cable(site.target, "11.1.0.1/24", far, "11.1.0.2/24", mtu=1300)
    site.target.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    far.ip("route", "add", "default", "via", "11.1.0.1")
    for host in (site.target, far):
        host.nft(WATCH_FRAGMENTS)
    site.start()
    with far.inside():
        target = echo.UdpEcho("11.1.0.2")
    with target, UdpTunnel(site.at, target.host, target.port) as tunnel:
        tunnel.send(b"first")
        assert tunnel.receive() == b"first"
        for _ in range(3):
            tunnel.send(b"x" * 1400, b"y" * 9000, b"z" * 60000)
            time.sleep(0.1)
        tunnel.send(b"q" * 1272, b"last")
        assert {tunnel.receive(), tunnel.receive()} == {b"q" * 1272, b"last"}
        assert site.vitals.metrics()['twohop_dropped_total{reason="target_too_big"}'] >= 8
        for host in (site.target, far):
            assert host.counter("fragments") == 0 and host.counter("may_fragment") == 0


def test_a_reply_of_somebody_else_is_discarded(site):
    site.start()
    with site.target.inside():
        true, false = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        true.bind((TARGET, 0))
        false.bind((SPOOFER, true.getsockname()[1]))
    true.settimeout(5)
    with true, false, UdpTunnel(site.at, TARGET, true.getsockname()[1]) as tunnel:
        tunnel.send(b"hello")
        _, peer = true.recvfrom(100)
        false.sendto(b"spoofed", peer)
        assert tunnel.receive(0.5) is None
        true.sendto(b"true", peer)
        assert tunnel.receive() == b"true"


def test_a_closed_udp_port_ends_the_tunnel_after_a_while(site):
    site.start()
    with UdpTunnel(site.at, TARGET, 9) as tunnel:
        tunnel.send(b"1")
        assert tunnel.receive(0.3) is None  # one refusal is no reason
        with pytest.raises(ConnectionError):
            for _ in range(20):
                tunnel.send(b"again")
                tunnel.receive(0.1)
    vitals.wait(lambda: site.vitals.tunnels() == 0)


def test_a_silent_target_is_not_flooded(site):
    site.start()
    with site.target.inside():
        sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        sink.bind((TARGET, 0))
    with sink, UdpTunnel(site.at, TARGET, sink.getsockname()[1]) as tunnel:
        for _ in range(20):
            tunnel.send(*[b"flood"] * 100)
            time.sleep(0.05)
        time.sleep(0.3)
        sink.setblocking(False)
        got = 0
        with contextlib.suppress(BlockingIOError):
            while data := sink.recvfrom(100):
                got, peer = got + 1, data[1]
        assert 32 <= got <= 32 + 200, got
        assert site.vitals.metrics()['twohop_dropped_total{reason="unanswered_target"}'] == 2000 - got
        sink.sendto(b"reply", peer)
        assert tunnel.receive() == b"reply"
        tunnel.send(*[b"after"] * 500)  # it answered: no more bucket
        time.sleep(0.5)
        more = 0
        with contextlib.suppress(BlockingIOError):
            while sink.recvfrom(100):
                more += 1
        assert more == 500
