"""masque-go's client: CONNECT-UDP with QUIC DATAGRAM frames alone."""
import concurrent.futures
import json

import pytest

from harness import configs, echo, ports

BEARER = f"Authorization: {configs.BEARER}"


@pytest.fixture
def masque(egress, program, certificates):
    """masque(target, *arguments) gives the client's verdict. masque.relay: the relay."""
    def run(target, *arguments, header=BEARER):
        template = f"https://127.0.0.1:{run.relay.at.tls}/.well-known/masque/udp/{{target_host}}/{{target_port}}/"
        done = program("masque-client", "-template", template, "-target", target, "-ca", certificates.ca, "-header", header, *arguments)
        return json.loads(done.stdout)

    run.relay = egress()
    return run


@pytest.mark.parametrize("size", [4, 64, 512, 1000, 1200])
def test_echo(masque, udp_echo, size):
    verdict = masque(udp_echo.authority, "-size", size, "-count", 20)
    assert verdict["ok"] and verdict["status"] == 200 and verdict["echoed"] == 20, verdict


def test_many_datagrams(masque, udp_echo):
    verdict = masque(udp_echo.authority, "-size", "1000", "-count", "3000", "-timeout", "40s")
    assert verdict["ok"] and verdict["echoed"] == 3000 and verdict["sent"] < 3030, verdict


@pytest.mark.parametrize("scheme", ["Bearer {}", "Preshared {}", "PrivacyToken token={}"])
@pytest.mark.parametrize("field", ["Authorization", "Proxy-Authorization"])
def test_tokens(masque, udp_echo, field, scheme):
    assert masque(udp_echo.authority, header=f"{field}: {scheme.format(configs.TOKEN)}")["ok"]


def test_refusals(masque):
    assert masque("127.0.0.1:9", header="Authorization: Bearer wrong")["status"] == 401
    refused = masque("169.254.169.254:99")
    assert refused["status"] == 403 and "destination_ip_prohibited" in refused["proxy_status"], refused
    unknown = masque("nowhere.invalid:99")
    assert unknown["status"] == 502 and "dns_error" in unknown["proxy_status"], unknown


def test_names_and_ipv6(masque):
    """localhost is ::1 first (RFC 6724), and connect() to a UDP port always succeeds."""
    with echo.UdpEcho("::1") as target:
        assert masque(target.authority)["ok"]
        assert masque(f"localhost:{target.port}")["ok"]


def test_many_clients(masque, udp_echo):
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        verdicts = list(pool.map(lambda _: masque(udp_echo.authority, "-count", "50", "-size", "1200"), range(24)))
    assert all(verdict["ok"] for verdict in verdicts), verdicts


def test_an_ingress_reaches_what_it_lists(relay, certificates, program, udp_echo, tmp_path):
    target = ports.free_port()
    at = configs.Ports()
    relay(configs.ingress(certificates, tmp_path, at, [udp_echo.authority]))
    template = f"https://127.0.0.1:{at.tls}/.well-known/masque/udp/{{target_host}}/{{target_port}}/"
    arguments = ["-template", template, "-ca", certificates.ca, "-header", BEARER]
    assert json.loads(program("masque-client", *arguments, "-target", udp_echo.authority).stdout)["ok"]
    assert json.loads(program("masque-client", *arguments, "-target", f"127.0.0.1:{target}").stdout)["status"] == 403
