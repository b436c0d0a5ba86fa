"""What each refusal says: one status and one Proxy-Status (RFC 9209) on the three HTTP versions."""
import asyncio
import signal
import socket

import pytest

from harness import configs, dns, echo, http1, http2, http3

AUTH = ("proxy-authorization", configs.BEARER)
TARGET = "11.0.0.2"
SILENT = "11.0.0.9"  # on the link, and nobody there
UNROUTABLE = "12.0.0.1"
CONNECT, UDP = "connect", "connect-udp"


def template(host, port, before="/.well-known/masque/udp/"):
    return f"{before}{host.replace(':', '%3A')}/{port}/"


def member(error, rcode=None):
    return f"twohop-egress; error={error}" + (f'; rcode="{rcode}"' if rcode else "")


REQUEST, DENIED = member("http_request_error"), member("http_request_denied")
PROHIBITED, LIMIT = member("destination_ip_prohibited"), member("connection_limit_reached")


class Asker:
    """One question on each version, on connections of its own or on ones that are kept."""

    def __init__(self, at, certificates):
        self.at, self.certificates = at, certificates

    def http1(self, way, target, fields):
        with http1.Connection(self.at.clear) as connection:
            lines = [f"{name}: {value}" for name, value in fields]
            return connection.connect(target, *lines) if way == CONNECT else connection.upgrade(target, *lines)

    def http2(self, way, target, fields):
        with http2.Connection(self.at.clear) as connection:
            stream = connection.connect(target, *fields) if way == CONNECT else connection.connect_udp(target, *fields)
            return connection.response(stream)

    def http3(self, way, target, fields):
        async def run():
            async with http3.client(self.at.tls, self.certificates.ca) as client:
                stream = client.connect_tcp(target, *fields) if way == CONNECT else client.connect_udp(target, *fields)
                return await client.response(stream)

        return asyncio.run(run())

    def all(self, way, target, *fields, but=()):
        """{version: (status, Proxy-Status)}"""
        asked = {version: getattr(self, version)(way, target, fields)
                 for version in ("http1", "http2", "http3") if version not in but}
        return {version: (status, fields.get("proxy-status")) for version, (status, fields) in asked.items()}


@pytest.fixture
def start(network, relay, certificates, tmp_path):
    """start(**directives): an egress with the default policy in a namespace, a target beside it; an Asker."""
    egress, target = network.host("egress"), network.host("target")
    link, _ = network.cable(egress, ["11.0.0.1/24"], target, [f"{TARGET}/24"])
    # Else the question for it (ARP) ends after three seconds, and whoever dials then is told that it is unreachable.
    egress.ip("neighbour", "replace", SILENT, "lladdr", "02:00:00:00:00:09", "dev", link)

    def begin(**directives):
        at = configs.Ports()
        process = relay(configs.egress(certificates, tmp_path, at, allow=["-*.denied.example", f"-{TARGET}:81", "-*:82", "+10.1.0.0/16", "+*"],
                                       **directives))
        asker = Asker(at, certificates)
        asker.relay = process
        return asker

    with egress.inside():
        yield begin
        for one in relay.__self__._started:  # while its namespace is still entered
            one.stop(timeout=5)


NAMES = {"broken.example.": "SERVFAIL", "refused.example.": "REFUSED", "slow.example.": None, "empty.example.": []}

ROWS = [
    # way, target, status, Proxy-Status
    (CONNECT, f"{TARGET}:1", 502, member("connection_refused")),
    (CONNECT, f"{SILENT}:1", 504, member("connection_timeout")),
    (CONNECT, f"{UNROUTABLE}:1", 502, member("destination_ip_unroutable")),
    (UDP, template(UNROUTABLE, 1), 502, member("destination_ip_unroutable")),
    (CONNECT, "missing.example:1", 502, member("dns_error", "NXDOMAIN")),
    (UDP, template("missing.example", 1), 502, member("dns_error", "NXDOMAIN")),
    (CONNECT, "broken.example:1", 502, member("dns_error", "SERVFAIL")),
    (CONNECT, "refused.example:1", 502, member("dns_error", "REFUSED")),
    (CONNECT, "empty.example:1", 502, member("dns_error")),
    (CONNECT, "slow.example:1", 504, member("dns_timeout")),
    (UDP, template("slow.example", 1), 504, member("dns_timeout")),
    # policy
    (CONNECT, "a.denied.example:443", 403, DENIED),
    (UDP, template("a.denied.example", 443), 403, DENIED),
    (CONNECT, f"{TARGET}:82", 403, DENIED),
    (UDP, template(TARGET, 82), 403, DENIED),
    (CONNECT, f"{TARGET}:81", 403, PROHIBITED),
    (CONNECT, f"{TARGET}:25", 403, DENIED),
    (UDP, template(TARGET, 53), 403, DENIED),
    (CONNECT, "10.1.0.1:25", 403, DENIED),  # inside a prefix that is allowed without ports
    (UDP, template("10.1.0.1", 53), 403, DENIED),
    (CONNECT, "10.0.0.1:80", 403, PROHIBITED),
    (CONNECT, "10.0.0.1:25", 403, PROHIBITED),
    (CONNECT, "[::ffff:127.0.0.1]:80", 403, PROHIBITED),
    (UDP, template("fe80::1", 80), 403, PROHIBITED),
    # targets that are none
    (CONNECT, "0x7f.1:80", 400, REQUEST),
    (CONNECT, "2130706433:80", 400, REQUEST),
    (CONNECT, "127.1:80", 400, REQUEST),
    (CONNECT, f"{TARGET}:0", 400, REQUEST),
    (CONNECT, f"{TARGET}:65536", 400, REQUEST),
    (CONNECT, TARGET, 400, REQUEST),
    (CONNECT, "a..example:80", 400, REQUEST),
    (CONNECT, "[::1%25lo]:80", 400, REQUEST),
    (UDP, template("0x7f.1", 80), 400, REQUEST),
    (UDP, template(TARGET, 0), 400, REQUEST),
    (UDP, template(TARGET, "http"), 400, REQUEST),
    (UDP, template("127.0.0%252e1", 80), 400, REQUEST),
    (UDP, template(TARGET, 80)[:-1], 400, REQUEST),
    (UDP, template(TARGET, 80) + "x", 400, REQUEST),
    (UDP, template(TARGET, 80, before="/other/"), 400, REQUEST),
]


def test_every_target_that_cannot_be_reached(start):
    with dns.Server(NAMES) as server:
        asker = start(**{"resolver.servers": [server.address], "resolver.timeout": 1, "proxy.timeout.connect": 1})
        wrong = [(way, target, version, answer) for way, target, *expected in ROWS
                 for version, answer in asker.all(way, target, AUTH).items() if answer != tuple(expected)]
        assert not wrong, wrong


def test_targets_that_are_malformed_elsewhere(start):
    """HTTP/2 and HTTP/3 reset a stream whose :authority has a byte that no authority has (RFC 9113 section 8.1.1)."""
    asker = start()
    for target in ("[::1%lo]:80", "user@11.0.0.2:80", "http://11.0.0.2/", "/", "*"):
        assert asker.all(CONNECT, target, AUTH, but=("http2", "http3")) == {"http1": (400, REQUEST)}, target
    with http1.Connection(asker.at.clear) as connection:
        connection.send("CONNECT b\u00fccher.example:80 HTTP/1.1\r\nHost: b\u00fccher.example:80\r\n"
                        f"Proxy-Authorization: {configs.BEARER}\r\n\r\n")
        status, fields = connection.head()
        assert (status, fields["proxy-status"]) == (400, REQUEST)
        assert connection.ended()


def test_tokens(start):
    asker = start(peers=["127.0.0.0/8"], **{"auth.failures-per-minute-global": 6})
    for way, target, status in ((CONNECT, f"{TARGET}:1", 407), (UDP, template(TARGET, 1), 401), (CONNECT, "127.1:80", 407)):
        assert set(asker.all(way, target).values()) == {(status, DENIED)}
    wrong = ("proxy-authorization", "Bearer wrong")
    for way, target, status in ((CONNECT, f"{TARGET}:1", 407), (UDP, template(TARGET, 1), 401)):
        assert set(asker.all(way, target, wrong).values()) == {(status, DENIED)}
    assert set(asker.all(CONNECT, f"{TARGET}:1", wrong).values()) == {(429, DENIED)}
    assert set(asker.all(CONNECT, f"{TARGET}:1", AUTH).values()) == {(502, member("connection_refused"))}


def test_unknown_protocols(start):
    asker = start()
    unknown = member("http_protocol_error")
    with http2.Connection(asker.at.clear) as connection:
        status, fields = connection.response(connection.connect_udp("/x", AUTH, protocol="connect-tcp"))
        assert (status, fields["proxy-status"]) == (501, unknown)

    async def run():
        async with http3.client(asker.at.tls, asker.certificates.ca) as client:
            status, fields = await client.response(client.connect_udp("/x", AUTH, protocol="websocket"))
            assert (status, fields["proxy-status"]) == (501, unknown)

    asyncio.run(run())
    with http1.Connection(asker.at.clear) as connection:  # an Upgrade that nobody knows is ignored: RFC 9110 section 7.8
        status, fields = connection.request("GET", "/index.html", "Connection: Upgrade", "Upgrade: websocket")
        assert status == 200 and "proxy-status" not in fields


def test_limits(start, network):
    asker = start(**{"limits.tunnels-per-token": 1})
    with socket.create_server(("11.0.0.1", 0)) as target, http1.Connection(asker.at.clear) as holder:
        authority = f"11.0.0.1:{target.getsockname()[1]}"
        assert holder.connect(authority, f"Proxy-Authorization: {configs.BEARER}")[0] == 200
        for way, asked in ((CONNECT, authority), (UDP, template(TARGET, 1))):
            assert set(asker.all(way, asked, AUTH).values()) == {(503, LIMIT)}


def test_heads_over_the_limits(start):
    """The driver's own refusals: of a request for a tunnel with Proxy-Status, of any other without."""
    asker = start(**{"limits.head-fields": 20, "limits.head-bytes": 2048})
    for more in ([(f"x{i}", "y") for i in range(30)], [("x", "y" * 3000)]):
        for way, target in ((CONNECT, f"{TARGET}:1"), (UDP, template(TARGET, 1))):
            answers = asker.all(way, target, AUTH, *more)
            assert set(answers.values()) == {(431, REQUEST)}, (way, answers)
        with http1.Connection(asker.at.clear) as connection:
            status, fields = connection.request("GET", "/", *[f"{name}: {value}" for name, value in more])
            assert status == 431 and "proxy-status" not in fields
    few = [(f"x{i}", "y" * 50) for i in range(10)]
    assert set(asker.all(CONNECT, f"{TARGET}:1", AUTH, *few).values()) == {(502, member("connection_refused"))}


def test_higher_limits_of_heads(start):
    asker = start(**{"limits.head-fields": 900, "limits.head-bytes": 131072})
    for more in ([(f"x{i}", "y") for i in range(800)], [(f"x{i}", "y" * 6000) for i in range(20)]):
        answers = asker.all(CONNECT, f"{TARGET}:1", AUTH, *more)
        assert set(answers.values()) == {(502, member("connection_refused"))}, answers


def test_a_head_that_comes_too_slowly(start):
    asker = start(**{"limits.head-timeout": 0.3})
    for head, expected in ((f"CONNECT {TARGET}:1 HTTP/1.1\r\nHo", REQUEST), ("GET / HTTP/1.1\r\nHo", None)):
        with http1.Connection(asker.at.clear) as connection:
            connection.send(head)
            status, fields = connection.head()
            assert (status, fields.get("proxy-status")) == (408, expected)


def test_what_is_ambiguous_is_answered_by_400_alone(start):
    asker = start()
    auth = f"Proxy-Authorization: {configs.BEARER}"
    for lines in ([f"Host: {TARGET}:1", f"Host: {TARGET}:1"], ["Host: 127.1:81"], [f"Host: {TARGET}:1", "Content-Length: 4"],
                  [f"Host: {TARGET}:1", "Transfer-Encoding: chunked"]):
        with http1.Connection(asker.at.clear) as connection:
            connection.send("\r\n".join(["CONNECT 127.1:80 HTTP/1.1", *lines, auth, "", ""]))
            status, fields = connection.head()
            assert status == 400 and "proxy-status" not in fields and fields["connection"] == "close", lines
            assert connection.ended()


def test_a_list_at_an_ingress_narrows_its_relays(relay, certificates, tmp_path, tcp_echo):
    """proxy.connect: a list beside relays: opens nothing; what is in both is reached."""
    denied = (403, "twohop-ingress; error=http_request_denied")
    prohibited = (403, "twohop-ingress; error=destination_ip_prohibited")
    with echo.TcpEcho() as other:
        for rules, first, second in ((["+127.0.0.0/8", "+*"], 200, denied), ("ON", 200, denied),
                                     ([f"+{other.authority}"], prohibited, denied)):
            at = configs.Ports()
            config = configs.ingress(certificates, tmp_path, at, [tcp_echo.authority])
            config["hosts"]["default"]["paths"]["/"]["proxy.connect"] = rules
            relay(config)
            asker = Asker(at, certificates)
            for target, expected in ((tcp_echo.authority, first), (other.authority, second)):
                answers = asker.all(CONNECT, target, AUTH)
                expected = (200, None) if expected == 200 else expected
                assert set(answers.values()) == {expected}, (rules, target, answers)


def test_draining(start):
    """HTTP/2 and HTTP/3 connections live on for their tunnels; a new one is refused, and not as if its target had failed."""
    asker = start()
    shutting_down = {(503, member("proxy_internal_response"))}

    async def run(authority):
        async with http3.client(asker.at.tls, asker.certificates.ca) as client:
            assert (await client.response(client.connect_tcp(authority, AUTH)))[0] == 200
            with http2.Connection(asker.at.clear) as connection:
                assert connection.response(connection.connect(authority, AUTH))[0] == 200
                asker.relay.signal(signal.SIGTERM)
                await client.until(lambda: client.goaways)
                # At once: those that come after the last GOAWAY are rejected (RFC 9114 section 5.2).
                late = [client.connect_tcp(authority, AUTH), client.connect_udp(template(TARGET, 1), AUTH)]
                connection.wait(lambda: connection.goaway is not None)
                answers = [connection.response(connection.connect(authority, AUTH)),
                           connection.response(connection.connect_udp(template(TARGET, 1), AUTH))]
                answers += [await client.response(stream) for stream in late]
                assert {(status, fields.get("proxy-status")) for status, fields in answers} == shutting_down, answers
                assert all(fields["retry-after"] for _, fields in answers)

    with socket.create_server(("11.0.0.1", 0)) as target:
        asyncio.run(run(f"11.0.0.1:{target.getsockname()[1]}"))
