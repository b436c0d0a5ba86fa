"""The egress dies while the relays before it live: each way is tried once, and the log says who is dead."""
import time

import pytest

from harness import configs, http1, ports, source, vitals


class Chain:
    """One egress, two ingresses, a client that knows both. has_middle: and a relay between."""

    def __init__(self, relay, client, certificates, folder, has_middle=False):
        egress_at, self.at = configs.Ports(), [configs.Ports(), configs.Ports()]
        self.authority = self.second = f"127.0.0.1:{egress_at.tls}"
        self._relay, self._config = relay, configs.egress(certificates, folder, egress_at, peers=["127.0.0.0/8"])
        self.egress = relay(self._config, name="egress")
        common = {"token": configs.TOKEN, "ca": str(certificates.ca)}
        behind = [{"url": f"https://{self.authority}", **common}]
        if has_middle:
            at = configs.Ports()
            self.second = f"127.0.0.1:{at.tls}"
            relay(configs.ingress(certificates, folder, at, [self.authority], peers=["127.0.0.0/8"]), name="middle")
            behind.insert(0, {"url": f"https://{self.second}", **common})
        self.ingresses = [relay(configs.ingress(certificates, folder, at, [self.second]), name=f"ingress{number}")
                          for number, at in enumerate(self.at)]
        self.port = ports.free_port()
        first = {"urls": [f"https://127.0.0.1:{at.tls}" for at in self.at], **common}
        self.client = client({"chain": [first, *behind], "http-proxy": f"127.0.0.1:{self.port}"})

    def start_egress(self):
        self._relay(self._config, name="successor")

    def kill_egress(self, target):
        """In the middle of a download; returns when its reset has come."""
        with http1.Connection(self.port, timeout=30) as download:
            assert download.connect(target.authority)[0] == 200
            got = 0
            while got < 3 << 20:
                got += len(download.read(1 << 16))
            self.egress.kill()
            with pytest.raises(ConnectionResetError):
                while download.read(1 << 16):
                    pass

    def told(self, text):
        return any(event["text"] == text for event in self.client.events("hop_failed"))

    def ask(self, target):
        with http1.Connection(self.port, timeout=20) as connection:
            status, fields = connection.connect(target.authority)
            return status, connection.body(fields).decode() if status != 200 else ""


def dead(number, authority):
    return f"hop {number} ({authority}): it gives no sign of life, so its tunnels are lost and it is connected anew"


def test_an_egress_that_dies(relay, client, certificates, tmp_path):
    up = Chain(relay, client, certificates, tmp_path)
    reason = dead(2, up.authority)
    with source.Source(256 << 20, rate=8 << 20) as target:
        up.kill_egress(target)
        vitals.wait(lambda: up.told(reason), 10, "the reason")
        status, text = up.ask(target)
        assert status == 502 and f"hop 2 ({up.authority})" in text, text
        moved, failed = up.client.events("hop_moved"), up.client.events("hop_failed")
        assert [event["through"] for event in moved] == [f"127.0.0.1:{at.tls}" for at in up.at]
        assert [event["text"] for event in failed[:2]] == [
            f"hop 2 ({up.authority}): no sign of life through 127.0.0.1:{up.at[0].tls}", reason]
        assert {event["hop"] for event in failed} == {2}, failed
        assert not [event for event in failed if event["error"] == "LIMIT" or "connection ID" in event["text"]], failed
        assert len(up.client.events("hop_ready")) <= 4, up.client.log
        up.start_egress()
        vitals.wait(lambda: up.ask(target)[0] == 200, 20, "the successor")
    for ingress in up.ingresses:
        assert ingress.running()


def test_an_egress_that_dies_in_a_silence(relay, client, certificates, tcp_echo, tmp_path):
    """The client has nothing in flight, and waits. It asks sooner than its keep-alive of 20 s would."""
    up = Chain(relay, client, certificates, tmp_path)
    with http1.Connection(up.port, timeout=10) as tunnel:
        assert tunnel.connect(tcp_echo.authority)[0] == 200
        tunnel.send(b"one")
        assert tunnel.read(3) == b"one"
        time.sleep(0.5)
        up.egress.kill()
        with pytest.raises(ConnectionResetError):
            tunnel.read(1)
    vitals.wait(lambda: up.told(dead(2, up.authority)), 1, "the reason")


def test_an_egress_that_dies_behind_three_hops(relay, client, certificates, tmp_path):
    up = Chain(relay, client, certificates, tmp_path, has_middle=True)
    with source.Source(256 << 20, rate=8 << 20) as target:
        up.kill_egress(target)
        vitals.wait(lambda: up.told(dead(3, up.authority)), 10, "the reason")
        assert [event["through"] for event in up.client.events("hop_moved")] == [up.second]
        assert {event["hop"] for event in up.client.events("hop_failed")} == {3}, up.client.log
        up.start_egress()
        vitals.wait(lambda: up.ask(target)[0] == 200, 20, "the successor")
