"""An ingress falls silent, and says not even that it is dead: another takes over. What cannot move there lives on if it comes back."""
import contextlib
import time

import pytest

from harness import configs, http1, ports, vitals


class Chain:
    """Relays of which the client knows some (places) for its first hop, and one behind those, if `versions` names a second hop. versions:
    the HTTP version of each hop."""

    def __init__(self, relay, client, certificates, folder, versions, places=2):
        at, last = [configs.Ports() for _ in range(places)], configs.Ports()
        common = {"token": configs.TOKEN, "ca": str(certificates.ca)}
        first = {"urls": [f"https://127.0.0.1:{each.tls}" for each in at], "http": versions[0], **common}
        if len(versions) > 1:
            relay(configs.egress(certificates, folder, last, peers=["127.0.0.0/8"]), name="egress")
            behind = [{"url": f"https://127.0.0.1:{last.tls}", "http": versions[1], **common}]
            self.relays = [relay(configs.ingress(certificates, folder, each, [f"127.0.0.1:{last.tls}"])) for each in at]
        else:
            behind = []
            self.relays = [relay(configs.egress(certificates, folder, each)) for each in at]
        self.port = ports.free_port()
        self.client = client({"chain": [first, *behind], "http-proxy": f"127.0.0.1:{self.port}"})

    def open(self, target):
        """A tunnel, as soon as there is one."""
        connection = http1.Connection(self.port, timeout=12)
        assert connection.connect(target.authority)[0] == 200
        return connection


def says(connection, text):
    connection.send(text)
    return connection.read(len(text)) == text


@pytest.mark.parametrize("versions", [(2,), (3,), (2, 2), (3, 2)])
def test_new_tunnels_go_another_way(relay, client, certificates, tcp_echo, tmp_path, versions):
    up = Chain(relay, client, certificates, tmp_path, versions)
    with up.open(tcp_echo) as old:
        assert says(old, b"one")
        with up.relays[0].frozen():
            begun = time.monotonic()
            with up.open(tcp_echo) as new:  # its request may have gone to the silent one
                assert says(new, b"two")
            assert time.monotonic() - begun < 8
            with up.open(tcp_echo) as new:
                assert says(new, b"three")
        assert says(old, b"four")
    assert len(up.client.events("hop_stays")) == 1 and not up.client.events("hop_failed"), up.client.log


def test_a_silence_is_noticed_while_nobody_asks(relay, client, certificates, tcp_echo, tmp_path):
    up = Chain(relay, client, certificates, tmp_path, (2, 2))
    with up.open(tcp_echo) as old:
        assert says(old, b"one")
        with up.relays[0].frozen():
            vitals.wait(lambda: up.client.events("hop_stays"), 12, "the other way")
            begun = time.monotonic()
            with up.open(tcp_echo) as new:
                assert says(new, b"two")
            assert time.monotonic() - begun < 1


def test_what_was_left_behind_ends(relay, client, certificates, tcp_echo, tmp_path):
    """As a reset, when the silence lasts."""
    up = Chain(relay, client, certificates, tmp_path, (3, 2))
    with up.open(tcp_echo) as old, up.relays[0].frozen():
        old.socket.settimeout(25)
        with pytest.raises(ConnectionResetError):
            while old.read(1):
                pass
    assert [event["hop"] for event in up.client.events("hop_failed")] == [1], up.client.log


@pytest.mark.parametrize("versions", [(3,), (3, 2)])
def test_no_silence_costs_a_tunnel(relay, client, certificates, tcp_echo, tmp_path, versions):
    """However often: four connections can be left behind. With more tunnels waits where it is what is on the silent one."""
    up = Chain(relay, client, certificates, tmp_path, versions)
    with contextlib.ExitStack() as stack:
        tunnels = []
        for number in range(6):
            tunnels.append(stack.enter_context(up.open(tcp_echo)))
            assert says(tunnels[-1], b"one")
            with up.relays[min(number, 4) % 2].frozen():  # the one in use
                if number < 4:
                    vitals.wait(lambda: len(up.client.events("hop_stays")) > number, 12, "the other way")
                else:
                    time.sleep(3)
            assert all(says(tunnel, b"two") for tunnel in tunnels)
    assert len(up.client.events("hop_stays")) == 4 and not up.client.events("hop_failed"), up.client.log


def test_of_three_two_are_silent(relay, client, certificates, tcp_echo, tmp_path):
    """The one that does not answer is given up after ten seconds, and is not asked again before the third."""
    up = Chain(relay, client, certificates, tmp_path, (2,), places=3)
    with up.open(tcp_echo) as old:
        assert says(old, b"one")
        with up.relays[0].frozen(), up.relays[1].frozen():
            vitals.wait(lambda: up.client.events("hop_stays"), 20, "the other way")
            with up.open(tcp_echo) as new:
                assert says(new, b"two")
        assert says(old, b"three")
