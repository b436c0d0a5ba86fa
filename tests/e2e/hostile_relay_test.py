"""Relays that speak correct QUIC and HTTP/3, and mean ill: what twohop-client bears."""
import os
import struct
import subprocess

import pytest
import yaml
from aioquic.tls import Epoch

from harness import configs, ports, process, quic_frames, quic_relay


# What a relay may do when the handshake is confirmed.
EARLY = {
    "its first connection ID is retired": quic_frames.new_connection_id(9, 9, os.urandom(8), os.urandom(16)),
    "the handshake is confirmed": b"\x1e".ljust(20, b"\0"),
}


def hasty(frames):
    """A relay that says so while the client has not yet ended the handshake."""
    class Hasty(quic_relay.Granting):
        def __init__(self, *arguments, **more):
            super().__init__(*arguments, **more)
            self._take, self._is_done = self._quic.datagrams_to_send, False
            self._quic.datagrams_to_send = self._send

        def _send(self, now):
            datagrams, quic = self._take(now=now), self._quic
            pair = quic._cryptos[Epoch.ONE_RTT] if datagrams else None
            if pair is not None and pair.send.is_valid() and not self._is_done:
                self._is_done = True
                head = b"\x41" + quic._peer_cid.cid + struct.pack("!H", quic._packet_number)
                # First: it waits at the client until the keys are there, and is read together with the end of the handshake.
                datagrams.insert(0, (pair.encrypt_packet(head, frames, quic._packet_number), datagrams[0][1]))
                quic._packet_number += 1
            return datagrams

    return Hasty


@pytest.mark.parametrize("name", EARLY)
def test_a_relay_that_is_ahead_of_the_handshake(certificates, tmp_path, name):
    port = ports.free_port()
    path = tmp_path / "check.yaml"
    path.write_text(yaml.safe_dump({"chain": [{"url": f"https://127.0.0.1:{port}", "token": configs.TOKEN, "ca": str(certificates.ca),
                                               "http": "3"}]}))
    with quic_relay.serving(hasty(EARLY[name]), certificates, port):
        done = subprocess.run([process.BUILD / "twohop-client", "check", "-c", path], env=process.environment(), timeout=60,
                              capture_output=True, text=True)
    assert done.returncode == 1 and "the peer broke the protocol" in done.stdout, done
