"""What an operator reads off a relay and asks of it: figures, refusals at start, log files, tokens."""
import json

import pytest

from harness import configs, http1, vitals

AUTH_LINE = f"Proxy-Authorization: {configs.BEARER}"


@pytest.fixture
def egress(relay, certificates, tmp_path):
    """start(**more directives): an egress; at: its ports, vitals: its vital signs."""
    def start(**more):
        at = configs.Ports()
        started = relay(configs.egress(certificates, tmp_path, at, **more))
        started.at, started.vitals = at, vitals.Vitals(started)
        return started
    return start


# ---- figures ----

def test_the_bytes_of_tcp_tunnels_are_counted(egress, tcp_echo):
    relay = egress(**{"num-threads": 2})
    with http1.Connection(relay.at.clear) as connection:
        assert connection.connect(tcp_echo.authority, AUTH_LINE)[0] == 200
        for _ in range(10):
            connection.send(bytes(30000))
            assert len(connection.read(30000)) == 30000
        metrics = relay.vitals.metrics()  # while the tunnel is open
    assert metrics['twohop_bytes_total{direction="to_target"}'] == 300000
    assert metrics['twohop_bytes_total{direction="to_client"}'] == 300000


def test_lost_log_lines_are_counted(egress):
    """/dev/full takes none."""
    relay = egress(**{"error-log": "/dev/full"})
    lost = relay.vitals.metrics()["twohop_log_lines_dropped_total"]
    assert lost >= 1
    assert json.loads(relay.admin_get("/status.json")[1])["log_lines_dropped"] == lost


def test_the_admin_listener(egress):
    relay = egress()
    before = relay.vitals.metrics()
    with http1.Connection(relay.at.admin) as connection:
        for path in ("/metrics", "/status.json", "/healthz", "/nothing"):
            status, fields = connection.request("GET", path)
            body = connection.body(fields)
            assert status == (404 if path == "/nothing" else 200) and body.endswith(b"\n") and b"\n\n" not in body
            assert connection.request("HEAD", path)[0] == status
        assert connection.request("POST", "/healthz", "Content-Length: 0")[0] == 405
    after = relay.vitals.metrics()
    assert after['twohop_requests_total{version="1.1"}'] == before['twohop_requests_total{version="1.1"}'] == 0
