"""What an operator does to a running relay, and what a machine without resources does to it (threats H, T29)."""
import asyncio
import contextlib
import hashlib
import os
import pathlib
import pwd
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

import pytest
import yaml
from cryptography.hazmat.primitives import serialization

from harness import configs, dns, http1, http2, http3, pki, process, rebinding, vitals

pytestmark = pytest.mark.xdist_group("load")  # one after the other: they measure time and load

AUTH = ("proxy-authorization", configs.BEARER)
AUTH_LINE = f"Proxy-Authorization: {configs.BEARER}"


@pytest.fixture
def egress(relay, certificates, tmp_path):
    """start(**more directives): an egress with two workers; at: its ports, vitals: its vital signs."""
    def start(prefix=(), **more):
        at = configs.Ports()
        started = relay(configs.egress(certificates, tmp_path, at, **({"num-threads": 2} | more)), prefix=prefix)
        started.at, started.vitals = at, vitals.Vitals(started)
        return started
    return start


def udp_path(echo):
    return f"/.well-known/masque/udp/{echo.host}/{echo.port}/"


# ---- descriptors (T74) ----

@pytest.mark.parametrize("hard, is_warned", [(1024, True), (8192, False)])
def test_the_limit_of_descriptors(egress, hard, is_warned):
    relay = egress(["prlimit", f"--nofile=256:{hard}"])
    with open(f"/proc/{relay.pid}/limits") as file:
        line = next(line for line in file if line.startswith("Max open files"))
    assert line.split()[3:5] == [str(hard), str(hard)]
    assert [event["limit"] for event in relay.events("few_descriptors")] == [hard] * is_warned


def crowd(port, request, count):
    """count clients at once; {status or "closed" or "waiting": how many}, and their sockets."""
    selector, sockets, outcome = selectors.DefaultSelector(), [], {}
    for _ in range(count):
        one = socket.create_connection(("127.0.0.1", port))
        one.setblocking(False)
        one.send(request)
        sockets.append(one)
        selector.register(one, selectors.EVENT_READ)
    deadline = time.monotonic() + 3
    while selector.get_map() and (left := deadline - time.monotonic()) > 0:
        for key, _ in selector.select(left):
            try:
                data = key.fileobj.recv(4096)
            except ConnectionError:
                data = b""
            word = data.split()[1].decode() if data else "closed"
            outcome[word] = outcome.get(word, 0) + 1
            selector.unregister(key.fileobj)
            if word != "200":
                key.fileobj.close()  # else the relay lingers for the end of who got a 503, and his place is taken till then
    outcome["waiting"] = len(selector.get_map() or ())
    selector.close()
    return outcome, sockets


class Knocking(threading.Thread):
    """Connects all the time until stop(); refused: how often it was closed without an answer. times: of each attempt."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self._port, self._end, self.refused, self.times = port, threading.Event(), 0, []

    def run(self):
        while not self._end.is_set():
            at = time.monotonic()
            data = b""
            with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", self._port), 5) as one:
                one.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                data = one.recv(1)
            self.refused += not data
            self.times.append(time.monotonic() - at)

    def stop(self):
        self._end.set()
        self.join()


@pytest.mark.parametrize("stopped", [0, 0.5])
def test_without_descriptors(egress, tcp_echo, stopped):
    """Who waits is refused at once, nothing spins, and when descriptors are free all is well within a second.

    stopped: seconds that the relay gets no CPU while the crowd comes; then all are there at the same moment."""
    vitals.raise_descriptors()
    num, reserve = 264, 16  # a quarter is for targets alone, without the operator's
    relay = egress(["prlimit", f"--nofile={num}:{num}"], **{"limits.connections-per-source": 5000})
    request = f"CONNECT {tcp_echo.authority} HTTP/1.1\r\nHost: {tcp_echo.authority}\r\n{AUTH_LINE}\r\n\r\n".encode()
    with vitals.Bystander(relay.at.clear, tcp_echo) as bystander:
        cpu = relay.vitals.cpu()
        relay.signal(signal.SIGSTOP)
        threading.Timer(stopped, relay.signal, [signal.SIGCONT]).start()
        outcome, sockets = crowd(relay.at.clear, request, 1000)
        assert outcome.get("200", 0) >= num // 4 - reserve == 50, outcome
        assert outcome.get("closed", 0) >= 500 and outcome["waiting"] == 0, outcome
        assert set(outcome) <= {"200", "503", "closed", "waiting"}, outcome
        assert relay.vitals.cpu() - cpu < 2, "the crowd cost too much"
        assert relay.vitals.load(1) < 0.2, "it spins without descriptors"
        held = [socket.create_connection(("127.0.0.1", relay.at.clear)) for _ in range(150)]  # what a 503 gave back
        places = {str(number) for number in range(num - num // 4)}  # for connections
        vitals.wait(lambda: places <= set(os.listdir(f"/proc/{relay.pid}/fd")), 1, "the end of the last place")
        knocking = [Knocking(relay.at.clear) for _ in range(8)]
        for one in knocking:
            one.start()
        assert relay.vitals.load(2) < 0.5, "those who come again and again cost too much"
        assert bystander.echo() < 1
        for one in knocking:
            one.stop()
        assert sum(one.refused for one in knocking) >= 8 * 5
        assert max(max(one.times) for one in knocking) < 1
        for one in [*sockets, *held]:
            one.close()
        vitals.wait(lambda: relay.vitals.descriptors() < 100, 3, "the end of the crowd")
        def served():
            try:
                with http1.Connection(relay.at.clear, timeout=1) as connection:
                    return connection.connect(tcp_echo.authority, AUTH_LINE)[0] == 200
            except OSError:
                return False
        vitals.wait(served, 1, "recovery")
        assert relay.vitals.metrics()['twohop_limited_total{limit="descriptors"}'] >= 500


def test_one_connection_takes_all_descriptors(egress, tcp_echo):
    relay = egress(["prlimit", "--nofile=256:256"])
    with http2.Connection(relay.at.clear) as connection:
        first = connection.connect(tcp_echo.authority, AUTH)
        assert connection.response(first)[0] == 200
        streams = [connection.connect(tcp_echo.authority, AUTH) for _ in range(400)]
        answers = [connection.response(stream) for stream in streams]
        assert {status for status, _ in answers} == {200, 503}
        assert all("retry-after" in fields for status, fields in answers if status == 503)
        for stream, (status, _) in zip(streams, answers):
            if status == 200:
                connection.reset(stream)
        connection.send(first, b"still here")
        assert connection.read(first, 10) == b"still here"
        time.sleep(0.5)
        again = connection.connect(tcp_echo.authority, AUTH)
        assert connection.response(again)[0] == 200


@pytest.mark.parametrize("is_udp", [False, True], ids=["tcp", "udp"])
def test_the_operator_is_served_without_descriptors(egress, tcp_echo, udp_echo, is_udp):
    """The last 16 are not for tunnels, what they ask of DNS and files: when all others are taken the operator has them."""
    with dns.Server({}) as server, contextlib.ExitStack() as stack:
        relay = egress(["prlimit", "--nofile=256:256"], **{"resolver.servers": [server.address]})
        secrets = [f"secret-of-number-{i}" for i in range(400)]  # one token alone does not get all
        tokens(relay, ("alice", configs.TOKEN), *((f"user{i}", secret) for i, secret in enumerate(secrets)))
        reload(relay)
        readers = [stack.enter_context(http1.Connection(relay.at.clear)) for _ in range(30)]
        assert {reader.request("HEAD", "/large")[0] for reader in readers} == {200}
        with http2.Connection(relay.at.clear) as crowd:
            fields = [("proxy-authorization", f"Bearer {secret}") for secret in secrets]
            streams = [crowd.connect_udp(udp_path(udp_echo), field) if is_udp else crowd.connect(tcp_echo.authority, field)
                       for field in fields]
            assert {crowd.response(stream)[0] for stream in streams} == {200, 503}
            assert relay.vitals.descriptors() == 256 - 16
            for reader in readers[1:]:
                status, fields = reader.request("GET", "/large")
                assert status == 503 and int(fields["retry-after"]) > 0
            status, fields = readers[0].connect("name.example:443", AUTH_LINE)  # as that of a literal address
            assert status == 503 and fields["proxy-status"].endswith("; error=proxy_internal_error"), fields
            assert not server.asked
            assert relay.vitals.descriptors() == 256 - 16
            for _ in range(8):  # whom the operator's own machine watches
                stack.enter_context(http1.Connection(relay.at.admin)).send("GET /metrics HTTP/1.1\r\n")
            assert relay.admin_get("/healthz") == (200, "ok\n")
            assert relay.vitals.metrics()['twohop_limited_total{limit="descriptors"}'] >= 29 + 100
            reload(relay)
        vitals.wait(lambda: relay.vitals.descriptors() < 100, 3, "the end of the crowd")
        with http1.Connection(relay.at.clear) as connection:
            assert connection.connect("name.example:443", AUTH_LINE)[0] == 502 and server.asked
        with http1.Connection(relay.at.clear) as connection:
            assert connection.connect(tcp_echo.authority, AUTH_LINE)[0] == 200


# ---- SIGHUP (T78, T87) ----

def rewrite(relay, change):
    """A new configuration file: change(dictionary) or a text."""
    if isinstance(change, str):
        relay.path.write_text(change)
    else:
        config = yaml.safe_load(yaml.safe_dump(relay.config))
        change(config)
        relay.path.write_text(yaml.safe_dump(config, sort_keys=False))


def reload(relay, result="ok"):
    series = f'twohop_config_reloads_total{{result="{result}"}}'
    before = relay.vitals.metrics()[series]
    relay.signal(signal.SIGHUP)
    vitals.wait(lambda: relay.vitals.metrics()[series] > before, 5, f"a reload that is {result}")


def tokens(relay, *pairs):
    with open(relay.config["auth.tokens"], "w") as file:
        for name, secret in pairs:
            file.write(f"{name} {hashlib.sha256(secret.encode()).hexdigest()}\n")


def served_with(relay, echo, secret):
    with http1.Connection(relay.at.clear) as connection:
        return connection.connect(echo.authority, f"Proxy-Authorization: Bearer {secret}")[0]


def test_a_broken_configuration_changes_nothing(egress, tcp_echo):
    relay = egress()
    def missing_certificate(config):
        config["listen"][0]["ssl"]["certificate-file"] = "/nonexistent/cert.pem"
    def missing_tokens(config):
        config["auth.tokens"] = "/nonexistent/tokens"
    with vitals.Bystander(relay.at.clear, tcp_echo) as bystander:
        for change in ("listen: [\n", "role: egress\nno-such-key: 1\n", "", "role: [1, 2]\n", missing_certificate,
                       missing_tokens, lambda config: config.update({"limits.streams": "many"}),
                       lambda config: config.update({"auth.tokens": None})):
            rewrite(relay, change)
            reload(relay, "failed")
            bystander.echo()
            assert served_with(relay, tcp_echo, configs.TOKEN) == 200
        assert all(event["reason"] for event in relay.events("reload_failed"))
        relay.path.unlink()
        reload(relay, "failed")
        rewrite(relay, lambda config: None)
        reload(relay)


def test_a_reload_waits_for_no_pipe(egress, tmp_path, tcp_echo):
    """Its thread is that of the signals and of admin.listen."""
    relay, pipe = egress(), tmp_path / "pipe"
    os.mkfifo(pipe)
    with vitals.Bystander(relay.at.clear, tcp_echo):
        for change in (lambda config: config.update({"auth.tokens": str(pipe)}),
                       lambda config: config["listen"][0]["ssl"].update({"certificate-file": str(pipe)}),
                       lambda config: config["listen"][0]["ssl"].update({"key-file": str(pipe)})):
            rewrite(relay, change)
            reload(relay, "failed")
            assert "a pipe or a device would be waited for" in relay.events("reload_failed")[-1]["reason"]
        relay.path.unlink()
        os.mkfifo(relay.path)
        reload(relay, "failed")
        relay.path.unlink()
        rewrite(relay, lambda config: None)
        reload(relay)


@contextlib.contextmanager
def locked(path):
    """While it lasts the key has a passphrase."""
    saved = path.read_bytes()
    key = serialization.load_pem_private_key(saved, None)
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                       serialization.BestAvailableEncryption(b"secret")))
    yield
    path.write_bytes(saved)


def test_a_missing_certificate_is_a_failed_reload(egress, certificates, tmp_path, tcp_echo):
    """The same file names, but one file has gone or does not fit its key: the old certificate is served on."""
    cert, key = certificates.issue("vanishing", ["localhost", "127.0.0.1"])
    relay = egress()
    for one in relay.config["listen"]:
        if "ssl" in one:
            one["ssl"] = {"certificate-file": str(cert), "key-file": str(key)}
    rewrite(relay, lambda config: None)
    relay.stop()
    at = relay.at
    again = process.Relay(relay.config, tmp_path, "again")
    again.vitals, again.at = vitals.Vitals(again), at
    try:
        saved = cert.read_bytes()
        cert.unlink()
        reload(again, "failed")
        cert.write_bytes(certificates.cert.read_bytes())  # of another key
        reload(again, "failed")
        cert.write_bytes(b"-----BEGIN CERTIFICATE-----\njunk\n")
        reload(again, "failed")
        cert.write_bytes(saved)
        with locked(key):
            reload(again, "failed")
            vitals.wait(lambda: f"{key}: the key is encrypted" in again.events("reload_failed")[-1]["reason"], 5, "the reason")
        cert.unlink()
        with http1.Connection(at.tls, context=certificates.client_context(["http/1.1"])) as connection:
            assert connection.request("GET", "/index.html")[0] == 200
        cert.write_bytes(saved)
        reload(again)
    finally:
        again.stop()


def test_tokens_change_with_a_reload(egress, tcp_echo):
    """Another secret for the same name: what is open lives on."""
    relay = egress()
    with vitals.Bystander(relay.at.clear, tcp_echo) as bystander:
        tokens(relay, ("alice", "another-secret-of-some-length"))
        assert served_with(relay, tcp_echo, configs.TOKEN) == 200  # not before SIGHUP
        reload(relay)
        assert served_with(relay, tcp_echo, "another-secret-of-some-length") == 200
        assert served_with(relay, tcp_echo, configs.TOKEN) == 407
        bystander.echo()


def serial(port, certificates):
    context = certificates.client_context(["http/1.1"])
    with socket.create_connection(("127.0.0.1", port), 10) as raw, context.wrap_socket(raw, server_hostname="localhost") as tls:
        return tls.getpeercert()["serialNumber"]


def test_a_new_certificate_after_a_reload(relay, certificates, tmp_path, tcp_echo):
    cert, key = certificates.issue("rotating", ["localhost", "127.0.0.1"])
    next_cert, next_key = certificates.issue("rotated", ["localhost", "127.0.0.1"])
    at = configs.Ports()
    config = configs.egress(certificates, tmp_path, at, **{"num-threads": 2})
    for one in config["listen"]:
        if "ssl" in one:
            one["ssl"] = {"certificate-file": str(cert), "key-file": str(key)}
    started = relay(config)
    started.vitals = vitals.Vitals(started)
    before = serial(at.tls, certificates)

    async def quic_serial():
        async with http3.client(at.tls, certificates.ca) as client:
            return format(client._quic.tls._peer_certificate.serial_number, "X")

    with vitals.Bystander(at.clear, tcp_echo):
        assert int(asyncio.run(quic_serial()), 16) == int(before, 16)
        shutil.copy(next_cert, cert)
        shutil.copy(next_key, key)
        reload(started)
        after = {serial(at.tls, certificates) for _ in range(10)}
        assert len(after) == 1 and before not in after
        assert {int(asyncio.run(quic_serial()), 16) for _ in range(4)} == {int(one, 16) for one in after}


def test_a_hundred_reloads_under_load(egress, certificates, tcp_echo):
    relay = egress()
    failures, ended, served = [], threading.Event(), [0]
    def load(context, port):
        while not ended.is_set():
            try:
                with http1.Connection(port, context=context) as connection:
                    status, _ = connection.connect(tcp_echo.authority, AUTH_LINE)
                    connection.send(b"x")
                    if status != 200 or connection.read(1) != b"x":
                        failures.append(status)
                served[0] += 1
            except Exception as failure:
                failures.append(repr(failure))
    with vitals.Bystander(relay.at.clear, tcp_echo):
        reload(relay)
        time.sleep(0.5)
        descriptors = relay.vitals.descriptors()
        threads = [threading.Thread(target=load, args=arguments) for arguments in
                   ((certificates.client_context(["http/1.1"]), relay.at.tls), (None, relay.at.clear))]
        for thread in threads:
            thread.start()
        for i in range(100):
            relay.signal(signal.SIGHUP)
            time.sleep(0.03)
        ended.set()
        for thread in threads:
            thread.join()
        assert not failures, failures[:5]
        assert served[0] > 20
        relay.vitals.wait_quiet(descriptors, tunnels=1)


# ---- SIGTERM (T79) ----

def test_a_storm_of_sighup_is_a_few_reloads(egress):
    """What comes behind it does not wait for as many as there were signals."""
    relay = egress()
    tokens(relay, *((f"user{i}", f"secret-number-{i}") for i in range(100_000)))
    for _ in range(200):
        relay.signal(signal.SIGHUP)
        time.sleep(0.005)
    relay.signal(signal.SIGTERM)
    relay.wait_end(20)
    assert 1 <= len(relay.events("reloaded")) < 100


def test_tunnels_keep_no_old_tokens(egress, tcp_echo):
    """Each has the configuration that it began with, but a list of 50 000 tokens has 5 MB."""
    relay = egress(prefix=vitals.LEAN, **{"num-threads": 2})
    tokens(relay, ("alice", configs.TOKEN), *((f"user{i}", f"secret-number-{i}") for i in range(50_000)))
    with contextlib.ExitStack() as stack:
        for i in range(21):
            reload(relay)
            if i == 1:
                before = relay.vitals.rss()
            stack.enter_context(vitals.Bystander(relay.at.clear, tcp_echo))
        vitals.wait(lambda: relay.vitals.rss() - before < 30 << 20, 5, "memory")


def test_sigterm_tells_http2_and_http3(egress, certificates, tcp_echo):
    relay = egress(**{"limits.drain-seconds": 20})

    async def run():
        async with http3.client(relay.at.tls, certificates.ca) as client:
            stream = client.connect_tcp(tcp_echo.authority, AUTH)
            assert (await client.response(stream))[0] == 200
            with http2.Connection(relay.at.clear) as connection:
                other = connection.connect(tcp_echo.authority, AUTH)
                assert connection.response(other)[0] == 200
                relay.signal(signal.SIGTERM)
                connection.wait(lambda: connection.goaway is not None)
                assert connection.goaway == 0  # NO_ERROR
                await client.until(lambda: client.goaways)
                connection.send(other, b"over http2")
                assert connection.read(other, 10) == b"over http2"
                client.send(stream, b"over http3", end=True)
                await client.until(lambda: client.streams[stream].ended)
                assert client.streams[stream].data == b"over http3"
                with pytest.raises(ConnectionRefusedError):
                    http1.Connection(relay.at.clear)
                assert relay.running()

    asyncio.run(run())
    relay.stop(timeout=5)  # at once: nothing is left


def test_every_worker_refuses_until_all_have_drained(egress, certificates, tcp_echo):
    """The kernel goes on giving new QUIC clients to the worker that has no connection left."""
    relay = egress(**{"num-threads": 2})

    async def knock():
        with pytest.raises(ConnectionError):  # CONNECTION_REFUSED, no silence
            async with http3.client(relay.at.tls, certificates.ca):
                pass

    async def run():
        await asyncio.wait_for(asyncio.gather(*(knock() for _ in range(16))), 5)

    with http1.Connection(relay.at.clear) as connection:
        assert connection.connect(tcp_echo.authority, AUTH_LINE)[0] == 200
        relay.signal(signal.SIGTERM)
        vitals.wait_refused(relay.at.clear)
        asyncio.run(run())
        connection.send(b"still open")
        assert connection.read(10) == b"still open"
    relay.stop(timeout=5)


def test_sigterm_ends_tunnels_after_the_drain_time(egress, tcp_echo):
    relay = egress(**{"limits.drain-seconds": 1})
    with http1.Connection(relay.at.clear) as connection:
        assert connection.connect(tcp_echo.authority, AUTH_LINE)[0] == 200
        at = time.monotonic()
        relay.stop(timeout=6)
        assert 0.9 < time.monotonic() - at < 4


def test_a_second_sigterm_ends_at_once(egress, tcp_echo):
    relay = egress()
    with http1.Connection(relay.at.clear) as connection:
        assert connection.connect(tcp_echo.authority, AUTH_LINE)[0] == 200
        relay.signal(signal.SIGTERM)
        relay.wait_event("draining")
        at = time.monotonic()
        relay.stop(timeout=3)
        assert time.monotonic() - at < 2


# ---- start ----

def test_the_pid_file_is_locked(egress, tmp_path):
    pid_file = tmp_path / "relay.pid"
    relay = egress(**{"pid-file": str(pid_file)})
    assert int(pid_file.read_text()) == relay.pid
    other = subprocess.run([process.BUILD / "twohop", "-c", relay.path], env=process.environment(), capture_output=True,
                           text=True, timeout=20)
    assert other.returncode == 1 and "pid file" in other.stderr
    assert int(pid_file.read_text()) == relay.pid
    relay.stop()
    assert not pid_file.exists()


@pytest.mark.parametrize("user", [None, "nobody"])
def test_a_start_that_fails_leaves_no_pid(egress, tmp_path, user):
    """The file, or what it says where the user may not remove it."""
    pid_file, token_file = tmp_path / "relay.pid", tmp_path / "of root"
    relay = egress()
    more = {"pid-file": str(pid_file)} | ({"user": user, "auth.tokens": str(token_file)} if user else {})
    rewrite(relay, lambda config: config.update(more))
    token_file.touch(0o600)
    relay.stop()
    with socket.create_server(("127.0.0.1", 0 if user else relay.at.clear)):  # user: fails later, with its rights
        ended = subprocess.run([process.BUILD / "twohop", "-c", relay.path], env=process.environment(), capture_output=True,
                               text=True, timeout=20)
    assert ended.returncode == 1 and '"cannot_start"' in ended.stderr, ended
    assert pid_file.read_text() == "" if user else not pid_file.exists()


def test_a_pid_file_is_no_link(egress, tmp_path):
    """It is emptied, by root."""
    others, pid_file = tmp_path / "others", tmp_path / "relay.pid"
    others.write_text("theirs")
    relay = egress()
    rewrite(relay, lambda config: config.update({"pid-file": str(pid_file)}))
    pid_file.symlink_to(others)
    relay.stop()
    ended = subprocess.run([process.BUILD / "twohop", "-c", relay.path], env=process.environment(), capture_output=True, text=True,
                           timeout=20)
    assert ended.returncode == 1 and f"[pid-file] {pid_file}: expected no symbolic link" in ended.stderr, ended
    assert others.read_text() == "theirs"


class Lent:
    """An egress that becomes nobody, in a folder that nobody may enter: key and tokens are root's and lent to its group."""

    def __init__(self, folder, group):
        self.folder, self._group = folder, group
        folder.chmod(0o755)
        self.config = configs.egress(pki.Pki(folder), folder, configs.Ports(), user="nobody")
        self.clear = self.config["listen"][2]["port"]
        for name in ("server.key", "tokens"):
            self.lend(folder / name)

    @staticmethod
    def lend(path):
        os.chown(path, 0, pwd.getpwnam("nobody").pw_gid)
        path.chmod(0o750 if path.is_dir() else 0o640)

    def start(self, **more):
        started = self._group.start(self.config | more)
        started.vitals = vitals.Vitals(started)
        return started


@pytest.fixture
def lent():
    if os.geteuid() != 0:
        pytest.fail("needs root; ./tests/run sees to it")
    # Not pytest's folder, which is closed to others again by every other run.
    with tempfile.TemporaryDirectory() as folder, process.Group(process.Relay, pathlib.Path(folder)) as group:
        yield Lent(pathlib.Path(folder), group)


def test_the_user_is_dropped(lent, tcp_echo):
    relay = lent.start()
    with open(f"/proc/{relay.pid}/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    nobody = str(pwd.getpwnam("nobody").pw_uid)
    assert status["Uid"].split() == [nobody] * 4
    assert "0" not in status["Gid"].split() and "0" not in status["Groups"].split()
    assert int(status["CapEff"], 16) == 0 and int(status["CapPrm"], 16) == 0
    assert status["NoNewPrivs"].strip() == "1"
    with vitals.Bystander(lent.clear, tcp_echo):
        pass


def test_the_user_can_reload(lent, tcp_echo):
    """The pid file lies where the user may not write: it is emptied."""
    pid_file = lent.folder / "relay.pid"
    relay = lent.start(**{"pid-file": str(pid_file)})
    assert int(pid_file.read_text()) == relay.pid
    secret = "another-secret-of-some-length"
    configs.token_file(lent.folder, (("bob", secret),))
    reload(relay)
    with http1.Connection(lent.clear) as connection:
        assert connection.connect(tcp_echo.authority, f"Proxy-Authorization: Bearer {secret}")[0] == 200
    relay.stop()
    assert pid_file.read_text() == ""


@pytest.mark.parametrize("which", ["tokens", "server.key", "server.pem", "egress.yaml", "."])
def test_a_user_that_could_not_reload(lent, which):
    path, closed = lent.folder / "egress.yaml", lent.folder / which
    path.write_text(yaml.safe_dump(lent.config, sort_keys=False))
    os.chown(closed, 0, 0)
    closed.chmod(0o700 if which == "." else 0o600)
    for test in ([], ["-t"]):
        ended = subprocess.run([process.BUILD / "twohop", *test, "-c", path], env=process.environment(), capture_output=True,
                               text=True, timeout=20)
        assert ended.returncode == 1 and "user nobody cannot read" in ended.stderr, ended.stderr
        assert f"chgrp nogroup {closed} && chmod" in ended.stderr, ended.stderr
    lent.lend(closed)
    subprocess.run([process.BUILD / "twohop", "-t", "-c", path], env=process.environment(), timeout=20, check=True)


@pytest.mark.parametrize(("owner", "mode", "said"), [(0, 0o644, "root's, lent to its group (chown root:GROUP, chmod 640)"),
                                                     (1, 0o640, "root's, lent to its group (chown root:GROUP, chmod 640)"),
                                                     (1, 0o600, "chown root:nogroup {key} && chmod 640 {key} would let it")])
def test_what_is_said_of_a_key_lets_the_user_start(lent, owner, mode, said):
    path, key = lent.folder / "egress.yaml", lent.folder / "server.key"
    path.write_text(yaml.safe_dump(lent.config, sort_keys=False))
    os.chown(key, owner, owner)
    key.chmod(mode)

    def test():
        return subprocess.run([process.BUILD / "twohop", "-t", "-c", path], env=process.environment(), capture_output=True,
                              text=True, timeout=20)
    refused = test()
    assert refused.returncode == 1 and said.format(key=key) in refused.stderr, refused.stderr
    subprocess.run(f"chown root:nogroup {key} && chmod 640 {key}", shell=True, check=True)
    accepted = test()
    assert accepted.returncode == 0, accepted.stderr


# ---- workers (T29, steering) ----

def test_tunnels_survive_ten_moves_of_the_client(egress, certificates, tcp_echo, udp_echo):
    relay = egress()

    async def run(nat):
        async with http3.client(nat.port, certificates.ca) as client:
            tcp = client.connect_tcp(tcp_echo.authority, AUTH)
            udp = client.connect_udp(udp_path(udp_echo), AUTH)
            assert (await client.response(tcp))[0] == 200 and (await client.response(udp))[0] == 200
            state, datagrams = client.streams[tcp], client.streams[udp].datagrams
            for move in range(10):
                nat.move()
                block = os.urandom(100_000)
                state.data = b""
                client.send(tcp, block)
                await client.until(lambda: len(state.data) == len(block))
                assert state.data == block, move
                for _ in range(50):  # the first may be lost with the old mapping
                    client.send_datagram(udp, b"\0move %d" % move)
                    try:
                        await client.until(lambda: b"\0move %d" % move in datagrams, 0.3)
                        break
                    except TimeoutError:
                        pass
                assert b"\0move %d" % move in datagrams, move

    with rebinding.Nat(relay.at.tls) as nat, vitals.Bystander(relay.at.clear, tcp_echo):
        asyncio.run(run(nat))
        assert relay.vitals.metrics()["twohop_quic_migrations_total"] >= 10


def test_two_hundred_connections_on_four_workers(egress, certificates, udp_echo):
    relay = egress(**{"num-threads": 4, "limits.connections-per-source": 1000})

    async def one(gate):
        async with gate, http3.client(relay.at.tls, certificates.ca) as client:
            stream = client.connect_udp(udp_path(udp_echo), AUTH)
            assert (await client.response(stream))[0] == 200
            client.send_datagram(stream, b"\0ping")
            await client.until(lambda: client.streams[stream].datagrams)
            assert client.streams[stream].datagrams[0] == b"\0ping"

    async def run():
        gate = asyncio.Semaphore(20)
        await asyncio.gather(*(one(gate) for _ in range(200)))

    asyncio.run(run())
    metrics = relay.vitals.metrics()
    assert metrics['twohop_connections_total{version="3"}'] == 200
    assert metrics['twohop_dropped_total{reason="worker_ring_full"}'] == 0
