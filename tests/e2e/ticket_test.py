"""QUIC's session tickets: good for the relay and the name that they came from, and never for a token (T05)."""
import asyncio

import pytest
from aioquic.asyncio import connect
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import HandshakeCompleted

from harness import configs, http3

AUTH = ("proxy-authorization", configs.BEARER)


@pytest.fixture
def chain(relay, certificates, tmp_path):
    """The ports of an ingress and of an egress, each with two listeners for QUIC, with the same certificate."""
    at = {}
    for role in ("ingress", "egress"):
        folder = tmp_path / role
        folder.mkdir()
        at[role] = configs.Ports()
        more = {"num-threads": 2, "limits.drain-seconds": 1}
        if role == "ingress":
            relay(configs.ingress(certificates, folder, at[role], ["127.0.0.1:9"], **more))
        else:
            relay(configs.egress(certificates, folder, at[role], **more))
    return at


async def visit(at, certificates, echo, ticket=None, name="localhost", fields=()):
    """The tickets, whether the session was resumed, and the status of a CONNECT with these fields."""
    tickets, resumed = [], []
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["h3"], server_name=name, cafile=str(certificates.ca),
                                      session_ticket=ticket)
    async with connect("127.0.0.1", at.tls, configuration=configuration, create_protocol=http3.Client,
                       session_ticket_handler=tickets.append, wait_connected=False) as client:
        note = client.quic_event_received

        def see(event):
            if isinstance(event, HandshakeCompleted):
                resumed.append(event.session_resumed)
            note(event)

        client.quic_event_received = see
        status, _ = await client.response(client.connect_tcp(echo.authority, *fields))
        await asyncio.sleep(0.1)
    return tickets, resumed[0], status


def test_a_ticket_carries_no_token(chain, certificates, tcp_echo):
    async def run():
        tickets, _, status = await visit(chain["egress"], certificates, tcp_echo, fields=[AUTH])
        assert tickets and status == 200
        _, resumed, status = await visit(chain["egress"], certificates, tcp_echo, tickets[0])
        assert resumed and status == 407

    asyncio.run(run())


@pytest.mark.parametrize("to, name", [("egress", "localhost"), ("ingress", "egress.test"), ("egress", "egress.test")])
def test_a_ticket_elsewhere_is_a_full_handshake(chain, certificates, tcp_echo, to, name):
    async def run():
        tickets, _, _ = await visit(chain["ingress"], certificates, tcp_echo, fields=[AUTH])
        _, resumed, status = await visit(chain["ingress"], certificates, tcp_echo, tickets[0])
        assert resumed and status == 407  # the ticket is good
        _, resumed, status = await visit(chain[to], certificates, tcp_echo, tickets[-1], name)
        assert not resumed and status == 407

    asyncio.run(run())
