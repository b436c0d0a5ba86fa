"""What the attack tests share: the relay that is attacked, and that nobody else is harmed by it."""
import asyncio
import contextlib

from . import configs, http3, vitals
from .vitals import LEAN, Watch

MIB = 1 << 20


def start_egress(relay, certificates, folder, prefix=LEAN, **more):
    """An egress with two workers and room for many connections of one source; its Ports in at, its Vitals in vitals."""
    at = configs.Ports()
    directives = {"num-threads": 2, "limits.connections-per-source": 5000} | more
    started = relay(configs.egress(certificates, folder, at, **directives), prefix=prefix)
    started.at, started.vitals = at, vitals.Vitals(started)
    return started


async def is_served(relay, certificates):
    """A new client gets a page over HTTP/3."""
    async with http3.client(relay.at.tls, certificates.ca) as client:
        assert (await client.response(client.get("/index.html")))[0] == 200


@contextlib.contextmanager
def unharmed(relay, certificates, tcp_echo, growth=16 * MIB):
    """What happens inside must not keep others waiting, nor grow the relay by more than this."""
    with Watch(relay, tcp_echo) as watch:
        asyncio.run(is_served(relay, certificates))
        rss = relay.vitals.rss()
        yield
        assert relay.running()
        assert relay.vitals.rss() - rss < growth, (relay.vitals.rss() - rss) / MIB
        asyncio.run(is_served(relay, certificates))
        assert watch.worst < 0.5, watch.worst
