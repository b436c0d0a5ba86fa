"""The client at a relay that is an ordinary HTTP/2 proxy: CONNECT, and no extended CONNECT (RFC 8441)."""
import contextlib
import socket
import subprocess
import time

import h2.config
import h2.connection
import h2.events
import yaml

from harness import configs, http1, listener, ports, process


class Proxy(listener.Listener):
    """Answers every CONNECT and echoes what comes in it, or leaves when the first one comes."""

    def __init__(self, certificates, leaves=False):
        super().__init__()
        self.leaves = leaves
        self._context = certificates.server_context()
        self._context.set_alpn_protocols(["h2"])

    def serve(self, connection):
        with self._context.wrap_socket(connection, server_side=True) as tls, contextlib.suppress(OSError):
            proxy = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, validate_inbound_headers=False))
            proxy.initiate_connection()
            tls.sendall(proxy.data_to_send())
            while data := tls.recv(65536):
                for event in proxy.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived) and self.leaves:
                        return
                    elif isinstance(event, h2.events.RequestReceived):
                        proxy.send_headers(event.stream_id, [(":status", "200")])
                    elif isinstance(event, h2.events.DataReceived):
                        proxy.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                        proxy.send_data(event.stream_id, event.data)
                tls.sendall(proxy.data_to_send())


def test_udp_that_is_not_offered_keeps_no_tcp_waiting(client, certificates):
    with Proxy(certificates) as proxy, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as application:
        http, udp = ports.free_port(), ports.free_port()
        started = client({"chain": [{"url": f"https://127.0.0.1:{proxy.port}", "ca": str(certificates.ca), "http": "2",
                                     "token": configs.TOKEN}],
                          "http-proxy": f"127.0.0.1:{http}", "forward": [f"udp:127.0.0.1:{udp}=target.example:9"]}, name="client")
        application.sendto(b"first", ("127.0.0.1", udp))
        failed = started.wait_event("udp_tunnel_failed", timeout=10)
        assert "no UDP over HTTP/2" in failed["text"], failed
        for _ in range(3):
            application.sendto(b"again", ("127.0.0.1", udp))
            at = time.monotonic()
            with http1.Connection(http, timeout=30) as connection:
                assert connection.connect("target.example:443")[0] == 200
                connection.send(b"through")
                assert connection.read(7) == b"through"
            assert time.monotonic() - at < 10


def test_check_of_a_relay_that_leaves_when_it_is_asked(certificates, tmp_path):
    """Between its two questions the connection is gone."""
    with Proxy(certificates, leaves=True) as proxy:
        path = tmp_path / "check.yaml"
        path.write_text(yaml.safe_dump({"chain": [{"url": f"https://127.0.0.1:{proxy.port}", "ca": str(certificates.ca), "http": "2"}]}))
        done = subprocess.run([process.BUILD / "twohop-client", "check", "-c", path], env=process.environment(), timeout=60,
                              capture_output=True, text=True)
    assert done.returncode == 1 and not process.REPORT.search(done.stderr), done.stdout + done.stderr
    assert "CONNECT-UDP at the last hop  FAILED: the connection was lost" in done.stdout, done.stdout
    assert "the chain does not work" in done.stdout
