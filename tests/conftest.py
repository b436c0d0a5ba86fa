"""Fixtures of the end-to-end and interop tests. What they hand out is described in tests/harness/."""
import os

import pytest

from harness import echo, netns, pki, process


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """A pki.Pki: one authority, and the certificate of ingress.test, egress.test and loopback."""
    return pki.Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def tcp_echo():
    with echo.TcpEcho() as target:
        yield target


@pytest.fixture
def udp_echo():
    with echo.UdpEcho() as target:
        yield target


@pytest.fixture
def relay(tmp_path):
    """relay(config, **options) starts a process.Relay. At the end each is stopped and must have been clean."""
    with process.Group(process.Relay, tmp_path) as group:
        yield group.start


@pytest.fixture
def client(tmp_path):
    """client(config, **options) starts a process.Client. At the end each is stopped and must have been clean."""
    with process.Group(process.Client, tmp_path) as group:
        yield group.start


@pytest.fixture
def network():
    """A netns.Network: hosts in network namespaces of their own, removed at the end. Needs root."""
    if os.geteuid() != 0:
        pytest.fail("network namespaces need root; ./tests/run sees to it")
    with netns.Network() as net:
        yield net
