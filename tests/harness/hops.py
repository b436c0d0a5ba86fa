"""A client, an ingress and an egress, each a host of its own, one link between the first two and one between the last two."""
import re

import yaml

from harness import configs, ports, process, slow_link

CLIENT, INGRESS = "11.0.1.1", "11.0.1.2"
CLIENT6, INGRESS6 = "2a0e:1::1", "2a0e:1::2"
INGRESS_BACK, EGRESS = "11.0.2.1", "11.0.2.2"
INGRESS_BACK6, EGRESS6 = "2a0e:2::1", "2a0e:2::2"
NAMES = ("ingress.test", "egress.test", "127.0.0.1", INGRESS, INGRESS6, EGRESS, EGRESS6)


def authority(host, port):
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Hops:
    """client, ingress, egress: the hosts (netns.Host). front, back: the interfaces of the two links, nearer end first.

    Targets live at the egress, on its loopback. Order of calls: start_relays, then start_client or check.
    """

    def __init__(self, network, relay, client, certificates, folder, front_mtu=1500, back_mtu=1500, front_delay=0, front_rate=None,
                 front_link=slow_link.SlowLink):
        """front_delay: seconds each way; the link is then self.link, to be entered (front_link(ends, delay, rate)); front_rate: its rate."""
        self.client, self.ingress, self.egress = (network.host(name) for name in ("client", "ingress", "egress"))
        ends = (self.client, [f"{CLIENT}/24", f"{CLIENT6}/64"], self.ingress, [f"{INGRESS}/24", f"{INGRESS6}/64"])
        if front_delay:
            self.link = front_link(*ends, front_delay, front_rate)
        else:
            self.front = network.cable(*ends, mtu=front_mtu)
        self.back = network.cable(self.ingress, [f"{INGRESS_BACK}/24", f"{INGRESS_BACK6}/64"],
                                  self.egress, [f"{EGRESS}/24", f"{EGRESS6}/64"], mtu=back_mtu)
        self._relay, self._client, self._certificates, self._folder = relay, client, certificates, folder
        self.egress_at, self.ingress_at = configs.Ports(), configs.Ports()
        self.http, self.socks = ports.free_port(), ports.free_port()

    def start_relays(self, hop2=EGRESS, **ingress_options):
        """hop2: how the ingress and the client call the egress, an address or a name."""
        self.hop2 = authority(hop2, self.egress_at.tls)
        cert, key = self._certificates.issue("hops", NAMES)
        certificates = type("Certificates", (), {"cert": cert, "key": key})
        listen = [one for host in ("0.0.0.0", "::") for one in configs._listen(certificates, self.egress_at, host)]
        self.egress_relay = self._relay(
            configs.egress(certificates, self._folder, self.egress_at, peers=["11.0.2.0/24", "2a0e:2::/64"], listen=listen),
            name="egress", prefix=self.egress.prefix)
        listen = [one for host in ("0.0.0.0", "::") for one in configs._listen(certificates, self.ingress_at, host)]
        self.ingress_relay = self._relay(
            configs.ingress(certificates, self._folder, self.ingress_at, [self.hop2], listen=listen, **ingress_options),
            name="ingress", prefix=self.ingress.prefix)

    def client_config(self, hop1=INGRESS, http="auto", **more):
        common = {"token": configs.TOKEN, "ca": str(self._certificates.ca)}
        chain = [{"url": f"https://{authority(hop1, self.ingress_at.tls)}", "http": http, **common},
                 {"url": f"https://{self.hop2}", **common}]
        return {"chain": chain, "http-proxy": f"127.0.0.1:{self.http}", "socks": f"127.0.0.1:{self.socks}", **more}

    def start_client(self, **options):
        return self._client(self.client_config(**options), name="client", prefix=self.client.prefix)

    def check(self, **options):
        """The output of `check`, which must have found everything well, and the milliseconds that hop 1 took."""
        path = self._folder / "check.yaml"
        path.write_text(yaml.safe_dump(self.client_config(**options)))
        done = self.client.run(process.BUILD / "twohop-client", "check", "-c", path, env=process.environment(), timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout, int(re.search(r"hop 1 .* (\d+) ms", done.stdout)[1])

    def metrics(self, which):
        """{series: value} of self.ingress_relay or self.egress_relay."""
        host = self.ingress if which is self.ingress_relay else self.egress
        with host.inside():
            status, text = which.admin_get("/metrics")
        assert status == 200
        return {series: float(value) for series, value in re.findall(r"^([^#\s]\S*) (\S+)$", text, re.MULTILINE)}
