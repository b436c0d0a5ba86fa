"""A stranger's ordinary requests whose answers are not read: little memory, few descriptors, and nobody else waits."""
import asyncio
import contextlib
import time

import pytest

from harness import configs, http1, http2, http3, vitals

pytestmark = pytest.mark.xdist_group("load")

AUTH = ("proxy-authorization", configs.BEARER)
SIZE = 200_000  # more than one piece of a file, more than a stream may queue
CONNECTIONS, REQUESTS = 20, 100
MIB = 1 << 20


@pytest.fixture
def egress(relay, certificates, tmp_path):
    def start(prefix=(), **more):
        at = configs.Ports()
        process = relay(configs.egress(certificates, tmp_path, at, **({"num-threads": 2} | more)), prefix=list(prefix))
        process.at, process.vitals = at, vitals.Vitals(process)
        (process.path.parent / "www" / "large").write_bytes(bytes(SIZE))
        return process

    return start


def without_window(port):
    """A connection of HTTP/2 on which no body may come."""
    connection = http2.Connection(port)
    connection.step()
    connection.h2.update_settings({4: 0})
    connection.flush()
    return connection


def greedy(port):
    """A connection of HTTP/2 with so many requests under way that it has no window for."""
    connection = without_window(port)
    connection.asked = [connection.get("/large") for _ in range(REQUESTS - 2)]
    return connection


def look(connection):
    """What has come, at the end of a while."""
    time.sleep(0.25)
    with contextlib.suppress(TimeoutError):
        connection.step(0.01)


def check_cost(process, before, descriptors):
    """Of CONNECTIONS with REQUESTS each that nobody reads. The sanitizer's red zones are in it."""
    assert process.vitals.descriptors() - descriptors <= CONNECTIONS * 7
    assert process.vitals.rss() - before < 40 * MIB  # a file's piece for each of them would be 250 MiB


def test_http2_answers_that_nobody_reads(egress, tcp_echo):
    process = egress(prefix=vitals.LEAN)
    with vitals.Bystander(process.at.clear, tcp_echo) as bystander, contextlib.ExitStack() as stack:
        before, descriptors = process.vitals.rss(), process.vitals.descriptors()
        held = [stack.enter_context(greedy(process.at.clear)) for _ in range(CONNECTIONS)]
        for connection in held[:3]:  # a tunnel waits for none of them
            tunnel = connection.connect(tcp_echo.authority, AUTH)
            assert connection.response(tunnel)[0] == 200
            connection.h2.increment_flow_control_window(100, tunnel)
            connection.send(tunnel, b"here")
            assert connection.read(tunnel, 4) == b"here"
            connection.reset(tunnel)
        time.sleep(0.5)
        check_cost(process, before, descriptors)
        assert bystander.echo() < 1
        reader = held[0]
        for stream in reader.asked:
            reader.h2.increment_flow_control_window(SIZE, stream)
        reader.h2.increment_flow_control_window(SIZE * REQUESTS)
        reader.flush()
        for stream in reader.asked:
            assert reader.response(stream)[0] == 200 and len(reader.read(stream, SIZE)) == SIZE
    vitals.wait(lambda: process.vitals.descriptors() <= descriptors + 2)


def test_http3_answers_that_nobody_reads(egress, certificates, tcp_echo):
    process = egress(prefix=vitals.LEAN)

    async def run(bystander):
        before, descriptors = process.vitals.rss(), process.vitals.descriptors()
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(CONNECTIONS // 4):
                client = await stack.enter_async_context(
                    http3.client(process.at.tls, certificates.ca, max_stream_data=1000))
                client.widen = client._quic._write_stream_limits
                client._quic._write_stream_limits = lambda *arguments, **options: None
                asked = [client.get("/large") for _ in range(REQUESTS - 2)]
            tunnel = client.connect_tcp(tcp_echo.authority, AUTH)
            assert (await client.response(tunnel))[0] == 200
            client.send(tunnel, b"here")
            await client.until(lambda: client.streams[tunnel].data == b"here")
            check_cost(process, before, descriptors)
            assert bystander.echo() < 1
            client._quic._write_stream_limits = client.widen
            for stream in asked:
                client._quic._streams[stream].max_stream_data_local = 2 * SIZE
            await client.ping()
            await client.until(lambda: all(len(client.streams[stream].data) == SIZE for stream in asked), 30)

    with vitals.Bystander(process.at.clear, tcp_echo) as bystander:
        asyncio.run(run(bystander))


def test_a_reader_that_dribbles_is_given_up(egress):
    """A byte now and then is no progress, 1 KiB in each idle time is."""
    process = egress(**{"limits.idle-timeout": 3})
    with without_window(process.at.clear) as connection:
        dribbling, slow = connection.get("/large"), connection.get("/large")
        at = time.monotonic()
        while time.monotonic() - at < 8:
            for stream, credit in ((dribbling, 1), (slow, 400)):
                if connection.streams[stream].reset is None:
                    connection.h2.increment_flow_control_window(credit, stream)
            connection.flush()
            look(connection)
        assert connection.streams[dribbling].reset is not None
        assert connection.streams[slow].reset is None and len(connection.streams[slow].data) > 4000


def test_a_request_waits_no_longer_than_others_are_idle(egress):
    process = egress(**{"limits.idle-timeout": 3})
    with without_window(process.at.clear) as connection:
        streams = [connection.get("/large") for _ in range(7)]
        at = time.monotonic()
        while connection.streams[streams[-1]].status is None and time.monotonic() - at < 10:
            for stream in streams[:-1]:
                connection.h2.increment_flow_control_window(2000, stream)
            connection.flush()
            look(connection)
        state = connection.streams[streams[-1]]
        assert state.status == 503 and int(state.fields["retry-after"]) > 0


def test_the_answers_of_all_connections_leave_descriptors_to_tunnels(egress, tcp_echo):
    process = egress(prefix=["prlimit", "--nofile=256"])
    with contextlib.ExitStack() as stack:
        for _ in range(15):  # 90 places, of 64 that there are
            stack.enter_context(greedy(process.at.clear))
        vitals.wait(lambda: process.vitals.metrics()['twohop_limited_total{limit="responses"}'] > 0)
        with http1.Connection(process.at.clear) as connection:
            status, fields = connection.request("GET", "/large")
            assert status == 503 and int(fields["retry-after"]) > 0
        with vitals.Bystander(process.at.clear, tcp_echo) as bystander:
            assert bystander.echo() < 1
