"""A client and its hops, all on loopback; for hosts of their own see hops.py."""
from harness import configs, http1, ports


class Chain:
    """One egress, some ingresses, a client in front of them."""

    def __init__(self, relay, client, certificates, folder, ingresses=1, quic=True, egress_options=None,
                 **client_options):
        self.certificates, self.folder = certificates, folder
        self.egress_at, self.ingress_at = configs.Ports(), [configs.Ports() for _ in range(ingresses)]
        self.egress = relay(configs.egress(certificates, folder, self.egress_at, peers=["127.0.0.0/8"], **(egress_options or {})),
                            name="egress")
        self.ingresses = []
        for number, at in enumerate(self.ingress_at):
            config = configs.ingress(certificates, folder, at, [f"127.0.0.1:{self.egress_at.tls}"])
            if not quic:
                config["listen"] = [one for one in config["listen"] if one.get("type") != "quic"]
            self.ingresses.append(relay(config, name=f"ingress{number}"))
        self.http, self.socks, self.tcp, self.udp = (ports.free_port() for _ in range(4))
        self.client = client(self.client_config(**client_options), name="client")

    def client_config(self, token=configs.TOKEN, egress_token=configs.TOKEN, forward=(), egress_port=None):
        common = {"ca": str(self.certificates.ca)}
        hop1 = {"urls": [f"https://127.0.0.1:{at.tls}" for at in self.ingress_at], "token": token, **common}
        hop2 = {"url": f"https://127.0.0.1:{egress_port or self.egress_at.tls}", "token": egress_token, **common}
        return {"chain": [hop1, hop2], "http-proxy": f"127.0.0.1:{self.http}", "socks": f"127.0.0.1:{self.socks}",
                **({"forward": list(forward)} if forward else {})}


def echo_through_http(chain, target, data=b"through two hops"):
    with http1.Connection(chain.http) as connection:
        status, fields = connection.connect(target.authority)
        assert status == 200, (status, connection.body(fields) if fields else None)
        connection.send(data)
        assert connection.read(len(data)) == data
