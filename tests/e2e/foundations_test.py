"""What must never run below the relay: libh2o's own sockets and protocols (T01), and early data (T06)."""
import asyncio
import pathlib
import re
import subprocess

import pytest

from aioquic.asyncio import connect
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import HandshakeCompleted

from harness import configs, http1, http2, http3

AUTH = ("proxy-authorization", configs.BEARER)
FORBIDDEN = ("h2o_accept", "h2o_http1_accept", "h2o_http2_accept", "h2o_uv_socket_create", "h2o_socket_ssl_handshake")


# ---- libh2o ----

@pytest.fixture
def trap(tmp_path):
    """A library to preload, in whose way nobody may come."""
    source, library = tmp_path / "trap.c", tmp_path / "trap.so"
    source.write_text("#include <stdlib.h>\n" + "".join(f"void {name}(void);\nvoid {name}(void) {{ abort(); }}\n" for name in FORBIDDEN))
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True, timeout=60)
    return library


def test_libh2os_own_protocols_are_never_entered(trap, relay, certificates, tmp_path, tcp_echo, monkeypatch):
    maps = pathlib.Path("/proc/self/maps").read_text()
    assert str(trap) not in maps
    monkeypatch.setenv("LD_PRELOAD", str(trap))
    monkeypatch.setenv("ASAN_OPTIONS", "verify_asan_link_order=0")
    at = configs.Ports()
    process = relay(configs.egress(certificates, tmp_path, at))
    monkeypatch.delenv("LD_PRELOAD")
    maps = pathlib.Path(f"/proc/{process.pid}/maps").read_text()
    assert str(trap) in maps
    libh2o = next(line.split()[-1] for line in maps.splitlines() if "/libh2o.so" in line)
    symbols = subprocess.run(["nm", "-D", "--defined-only", libh2o], capture_output=True, text=True, check=True).stdout
    assert all(re.search(rf" T {name}$", symbols, re.MULTILINE) for name in FORBIDDEN)  # the names are libh2o's

    def both(connection_of):
        with connection_of() as connection:
            stream = connection.get("/index.html")
            assert connection.response(stream)[0] == 200
            assert connection.response(connection.connect(tcp_echo.authority, AUTH))[0] == 200

    for context in (None, certificates.client_context(["http/1.1"])):
        port = at.tls if context else at.clear
        with http1.Connection(port, context=context) as connection:
            assert connection.request("GET", "/index.html", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c",
                                      "HTTP2-Settings: AAMAAABkAAQAAP__")[0] == 200
        with http1.Connection(port, context=context) as connection:
            assert connection.connect(tcp_echo.authority, f"Proxy-Authorization: {configs.BEARER}")[0] == 200
    both(lambda: http2.Connection(at.clear))
    both(lambda: http2.Connection(at.tls, context=certificates.client_context(["h2"])))
    both(lambda: http2.Connection(at.tls, context=certificates.client_context()))

    async def run():
        async with http3.client(at.tls, certificates.ca) as client:
            assert (await client.response(client.get("/index.html")))[0] == 200
            assert (await client.response(client.connect_tcp(tcp_echo.authority, AUTH)))[0] == 200

    asyncio.run(run())
    assert process.admin_get("/status.json")[0] == 200


# ---- early data ----

@pytest.fixture
def egress(relay, certificates, tmp_path):
    at = configs.Ports()
    process = relay(configs.egress(certificates, tmp_path, at))
    process.at = at
    return process


def test_no_early_data_over_tcp(egress, certificates, tmp_path):
    """There is no session to resume, and so no key that early data could be encrypted with."""
    session = tmp_path / "session.pem"
    done = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{egress.at.tls}", "-servername", "localhost", "-tls1_3",
                           "-ign_eof", "-alpn", "http/1.1", "-CAfile", certificates.ca, "-sess_out", session],
                          input="GET /index.html HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                          capture_output=True, text=True, timeout=30)
    assert "hello from twohop" in done.stdout, done.stdout + done.stderr
    assert "New Session Ticket" not in done.stdout and not session.exists(), done.stdout


def test_no_early_data_over_quic(egress, certificates):
    async def visit(ticket=None):
        tickets, completed = [], []
        configuration = QuicConfiguration(is_client=True, alpn_protocols=["h3"], server_name="localhost",
                                          cafile=str(certificates.ca), session_ticket=ticket)
        async with connect("127.0.0.1", egress.at.tls, configuration=configuration, create_protocol=http3.Client,
                           session_ticket_handler=tickets.append, wait_connected=False) as client:
            note = client.quic_event_received

            def see(event):
                if isinstance(event, HandshakeCompleted):
                    completed.append(event)
                note(event)

            client.quic_event_received = see
            stream = client.get("/index.html")
            assert (await client.response(stream))[0] == 200
            await client.until(lambda: client.streams[stream].ended)
        return tickets, completed[0]

    tickets, _ = asyncio.run(visit())
    assert tickets and not any(ticket.max_early_data_size for ticket in tickets)
    tickets[0].max_early_data_size = 0xFFFFFFFF
    _, completed = asyncio.run(visit(tickets[0]))
    assert completed.session_resumed and not completed.early_data_accepted
