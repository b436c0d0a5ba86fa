"""Configurations of relays, as the dictionaries that process.Relay writes as YAML."""
import hashlib

from harness import ports

TOKEN = "correct-horse-battery-staple"
BEARER = f"Bearer {TOKEN}"
LOOPBACK = ["+127.0.0.0/8", "+[::1]"]


def token_file(folder, tokens=(("alice", TOKEN),)):
    """A token file: names and secrets."""
    path = folder / "tokens"
    path.write_text("".join(f"{name} {hashlib.sha256(secret.encode()).hexdigest()}\n" for name, secret in tokens))
    return path


class Ports:
    """Where a relay of `egress` or `ingress` listens: TLS and QUIC on the same number, clear text, admin."""

    def __init__(self):
        self.tls, self.clear, self.admin = ports.free_port(), ports.free_port(), ports.free_port()


def _listen(certificates, at, host):
    ssl = {"certificate-file": str(certificates.cert), "key-file": str(certificates.key)}
    return [{"host": host, "port": at.tls, "ssl": ssl}, {"host": host, "port": at.tls, "type": "quic", "ssl": ssl},
            {"host": host, "port": at.clear}]


def egress(certificates, folder, at, allow=LOOPBACK, host="127.0.0.1", **more):
    """Lets only tokens of token_file(folder) through, to what `allow` says (None: the default policy)."""
    files = folder / "www"
    files.mkdir(exist_ok=True)
    (files / "index.html").write_text("hello from twohop\n")
    (files / "large").write_bytes(bytes(range(256)) * 4096)
    tokens = token_file(folder)
    proxies = {"proxy.connect": allow if allow is not None else "ON", "proxy.connect-udp": allow if allow is not None else "ON"}
    return {"role": "egress", "num-threads": 1, "auth.tokens": str(tokens), "listen": _listen(certificates, at, host),
            "admin.listen": f"127.0.0.1:{at.admin}",
            "hosts": {"default": {"paths": {"/": {"file.dir": str(files), **proxies}}}}} | more


def ingress(certificates, folder, at, relays, host="127.0.0.1", **more):
    """May reach only `relays`, a list of "host:port"."""
    tokens = token_file(folder)
    return {"role": "ingress", "num-threads": 1, "auth.tokens": str(tokens), "listen": _listen(certificates, at, host),
            "admin.listen": f"127.0.0.1:{at.admin}", "relays": relays,
            "hosts": {"default": {"paths": {"/": {"proxy.connect": "ON", "proxy.connect-udp": "ON"}}}}} | more
