"""An egress that drains, and relays that come late: what is open lives on, what is new gets an answer soon."""
import hashlib
import signal
import threading
import time

import pytest

from harness import configs, http1, ports, source, vitals

RATE, SIZE = 4 << 20, 24 << 20  # bytes per second, bytes: six seconds


class Chain:
    """One egress that drains for long, two ingresses, a client that knows both."""

    def __init__(self, relay, client, certificates, folder, http):
        self.egress_at, self.at = configs.Ports(), [configs.Ports(), configs.Ports()]
        self.relay, self.config = relay, configs.egress(certificates, folder, self.egress_at, peers=["127.0.0.0/8"],
                                                        **{"limits.drain-seconds": 60})
        self.egress = relay(self.config, name="egress")
        self.ingresses = [relay(configs.ingress(certificates, folder, at, [f"127.0.0.1:{self.egress_at.tls}"]), name=f"ingress{number}")
                          for number, at in enumerate(self.at)]
        self.port = ports.free_port()
        common = {"token": configs.TOKEN, "ca": str(certificates.ca)}
        hops = [{"urls": [f"https://127.0.0.1:{at.tls}" for at in self.at], **common},
                {"url": f"https://127.0.0.1:{self.egress_at.tls}", "http": http, **common}]
        self.client = client({"chain": hops, "http-proxy": f"127.0.0.1:{self.port}"})


class Download(threading.Thread):
    """Of a Source, through the client's HTTP proxy; got: bytes so far."""

    def __init__(self, port, target):
        super().__init__(daemon=True)
        self._port, self._target, self.got, self._digester = port, target, 0, hashlib.sha256()
        self.start()

    def run(self):
        with http1.Connection(self._port, timeout=30) as connection:
            assert connection.connect(self._target.authority)[0] == 200
            while data := connection.read(1 << 16):
                self._digester.update(data)
                self.got += len(data)

    def wait(self, size):
        vitals.wait(lambda: self.got >= size, 30, f"{size} bytes")

    def finish(self):
        self.join(60)
        assert self.got == self._target.size and self._digester.digest() == self._target.digest, self.got


def ask(port, target):
    """(status, text, seconds) of a new request."""
    begun = time.monotonic()
    with http1.Connection(port, timeout=10) as connection:
        status, fields = connection.connect(target)
        return status, connection.body(fields).decode() if status != 200 else "", time.monotonic() - begun


def drain(up, target):
    """What is asked before the final GOAWAY may still be served."""
    up.egress.signal(signal.SIGTERM)
    vitals.wait(lambda: ask(up.port, target.authority)[0] != 200, 5, "the GOAWAY")


@pytest.mark.parametrize("http", ["3", "2"])
def test_a_draining_egress_serves_what_is_open(relay, client, certificates, tmp_path, http):
    up = Chain(relay, client, certificates, tmp_path, http)
    with source.Source(SIZE, rate=RATE) as target:
        download = Download(up.port, target)
        download.wait(3 << 20)
        drain(up, target)
        answers = []
        while download.is_alive() and len(answers) < 6:
            answers.append(ask(up.port, target.authority))
            time.sleep(0.4)
        download.finish()
    assert len(answers) >= 3
    for status, text, seconds in answers:
        assert status == 502 and "hop 2 (" in text and seconds < 2, answers
    for ingress in up.ingresses:
        assert ingress.running()


def test_an_ingress_dies_while_the_egress_drains(relay, client, certificates, tmp_path):
    up = Chain(relay, client, certificates, tmp_path, "3")
    with source.Source(SIZE, rate=RATE) as target:
        download = Download(up.port, target)
        download.wait(3 << 20)
        drain(up, target)
        up.ingresses[0].kill()
        assert ask(up.port, target.authority)[0] == 502
        download.finish()


def test_the_egress_dies_while_it_drains(relay, client, certificates, tmp_path):
    """Nobody waits for an idle timeout."""
    up = Chain(relay, client, certificates, tmp_path, "3")
    with source.Source(SIZE, rate=RATE) as target, http1.Connection(up.port, timeout=12) as download:
        assert download.connect(target.authority)[0] == 200
        download.read(1 << 16)
        drain(up, target)
        download.read(1 << 16)
        up.egress.kill()
        with pytest.raises(ConnectionResetError):
            while download.read(1 << 16):
                pass
    told = [event["text"] for event in up.client.events("hop_failed") if "so its tunnels are lost" in event["text"]]
    assert told == [f"hop 2 (127.0.0.1:{up.egress_at.tls}): it gives no sign of life through 127.0.0.1:{up.at[0].tls}, so its "
                    "tunnels are lost"], up.client.log
    assert len(up.client.events("hop_moved")) <= 2, up.client.log
    for ingress in up.ingresses:
        assert ingress.running()


def test_the_next_egress_is_found(relay, client, certificates, tmp_path):
    """Sooner than the back-off would, because somebody asks."""
    up = Chain(relay, client, certificates, tmp_path, "auto")
    with source.Source(1 << 20) as target:
        download = Download(up.port, target)
        download.finish()
        up.egress.stop()
        for _ in range(20):
            assert ask(up.port, target.authority)[0] == 502
            time.sleep(0.3)
        up.relay(up.config, name="successor")
        time.sleep(1)
        status, text, _ = ask(up.port, target.authority)
        assert status == 200, text


def test_an_ingress_that_starts_after_the_client(relay, client, certificates, tmp_path):
    at = configs.Ports()
    egress_at = configs.Ports()
    relay(configs.egress(certificates, tmp_path, egress_at, peers=["127.0.0.0/8"]), name="egress")
    port = ports.free_port()
    common = {"token": configs.TOKEN, "ca": str(certificates.ca)}
    client({"chain": [{"url": f"https://127.0.0.1:{at.tls}", **common}, {"url": f"https://127.0.0.1:{egress_at.tls}", **common}],
            "http-proxy": f"127.0.0.1:{port}"})
    with source.Source(1 << 20) as target:
        begun, answers = time.monotonic(), []
        while time.monotonic() < begun + 8:
            answers.append(ask(port, target.authority))
            time.sleep(0.1)
        assert {status for status, _, _ in answers} == {502}
        assert all("hop 1" in text and seconds < 2 for _, text, seconds in answers), answers
        relay(configs.ingress(certificates, tmp_path, at, [f"127.0.0.1:{egress_at.tls}"]), name="ingress")
        time.sleep(1.1)
        assert [ask(port, target.authority)[0] for _ in range(3)] == [200] * 3
