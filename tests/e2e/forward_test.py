"""The client's HTTP proxy under an application that is busy: http:// URLs, and connections that it drops."""
import contextlib
import json
import threading
import time

import pytest

from harness import http1, web
from chain_test import Chain, echo_through_http


@pytest.fixture
def chain(relay, client, certificates, tmp_path):
    return lambda **options: Chain(relay, client, certificates, tmp_path, **options)


def events(process, name):
    return [line for line in map(json.loads, process.log.splitlines()) if line.get("event") == name]


@contextlib.contextmanager
def beside(up, target):
    """A tunnel that must live on."""
    with http1.Connection(up.http, timeout=30) as connection:
        assert connection.connect(target.authority)[0] == 200
        yield
        connection.send(b"alive")
        assert connection.read(5) == b"alive"
    assert len(events(up.client, "hop_ready")) == 2 and not events(up.client, "hop_failed"), up.client.log


@pytest.mark.parametrize("quic", [True, False], ids=["http3", "http2"])
def test_many_requests_for_urls_harm_no_tunnel(chain, tcp_echo, quic):
    """Each through a tunnel of its own: the target ends every answer."""
    up = chain(quic=quic)
    with web.Server(lambda request: web.answer(b"x" * 1000, "Connection: close")) as target, beside(up, tcp_echo):
        failures = []

        def fetch():
            for _ in range(300):
                with http1.Connection(up.http, timeout=30) as connection:
                    status, fields = connection.request("GET", f"http://{target.authority}/", "Connection: close")
                    if status != 200 or connection.body(fields) != b"x" * 1000:
                        failures.append(status)

        threads = [threading.Thread(target=fetch) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures


@pytest.mark.parametrize("quic", [True, False], ids=["http3", "http2"])
def test_connections_that_are_dropped_at_once_harm_no_tunnel(chain, tcp_echo, quic):
    """A CONNECT and a RST, as of a browser that cancels or a scan, 1 500 times."""
    up = chain(quic=quic)
    with beside(up, tcp_echo):
        for _ in range(1500):
            with http1.Connection(up.http) as connection:
                connection.send(f"CONNECT {tcp_echo.authority} HTTP/1.1\r\nHost: x\r\n\r\n")
                connection.reset()
        echo_through_http(up, tcp_echo)


def test_answered_tunnels_that_are_reset_harm_no_tunnel(chain, tcp_echo):
    up = chain()
    with beside(up, tcp_echo):
        for _ in range(1000):
            with http1.Connection(up.http) as connection:
                assert connection.connect(tcp_echo.authority)[0] == 200
                connection.reset()
        echo_through_http(up, tcp_echo)


@pytest.mark.parametrize("quic", [True, False], ids=["http3", "http2"])
def test_a_close_by_a_limit_is_explained(relay, client, certificates, tmp_path, tcp_echo, quic):
    up = Chain(relay, client, certificates, tmp_path, quic=quic, egress_options={"limits.reset-burst": 10, "limits.reset-rate": 1})
    echo_through_http(up, tcp_echo)
    deadline = time.monotonic() + 30
    while not events(up.client, "hop_failed") and time.monotonic() < deadline:
        with http1.Connection(up.http) as connection:
            connection.send(f"CONNECT {tcp_echo.authority} HTTP/1.1\r\nHost: x\r\n\r\n")
            connection.reset()
    failures = events(up.client, "hop_failed")
    assert failures and failures[0]["hop"] == 2 and "closed by the relay: excessive load" in failures[0]["text"], up.client.log
    closed = events(up.egress, "connections_closed")
    assert [line["limit"] for line in closed] == ["limits.reset-burst"] and closed[0]["count"] == 1, up.egress.log
    assert not {"127.0.0.1", tcp_echo.authority} & set(map(str, closed[0].values()))
    echo_through_http(up, tcp_echo)
