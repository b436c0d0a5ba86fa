"""What the user of twohop-client does to it beside using it."""
import contextlib
import fcntl
import os
import pathlib
import pty
import re
import signal
import subprocess
import termios

import pytest
import yaml

from harness import configs, http1, pki, ports, process, socks, vitals


def test_an_exposed_token_is_warned_of(client, tmp_path):
    """By its place, at start and by -t and check; neither fails for it."""
    exposed, own = tmp_path / "exposed", tmp_path / "own"
    for path, mode in ((exposed, 0o640), (own, 0o600)):
        path.write_text(configs.TOKEN + "\n")
        path.chmod(mode)
    hops = [{"url": f"https://127.0.0.1:{ports.free_port()}", "token-file": str(path)} for path in (exposed, own)]
    started = client({"chain": hops, "socks": "127.0.0.1:0"})
    lines = started.path.read_text().splitlines()
    number = next(i for i, line in enumerate(lines) if line.endswith(str(exposed)))
    place = f"{started.path}:{number + 1}:{lines[number].index(str(exposed)) + 1}"
    warning = f"{place}: warning: others may read this token file: chmod 600"
    assert [event["reason"] for event in started.events("doubtful_config")] == [warning]
    for command, status in (["-t"], 0), (["check"], 1):  # nobody listens there
        done = subprocess.run([process.BUILD / "twohop-client", *command, "-c", started.path], env=process.environment(),
                              capture_output=True, text=True, timeout=20)
        assert (done.returncode, done.stderr) == (status, warning + "\n"), done


def test_a_pin_is_made_as_the_example_says(relay, certificates, tcp_echo, tmp_path):
    example = (pathlib.Path(__file__).parents[2] / "conf/client.yaml").read_text()
    [command] = re.findall(r"^ *# +(openssl x509 -in cert\.pem .*)$", example, re.MULTILINE)
    pin = subprocess.run(command.replace("cert.pem", str(certificates.cert)), shell=True, check=True, capture_output=True,
                         text=True).stdout.strip()
    at = configs.Ports()
    relay(configs.egress(certificates, tmp_path, at))
    for tried, status in ((pin, 0), (("B" if pin[0] == "A" else "A") + pin[1:], 1)):
        hop = f"https://127.0.0.1:{at.tls},token={configs.TOKEN},pin={tried}"
        done = subprocess.run([process.BUILD / "twohop-client", "check", "--hop", hop, "--target", tcp_echo.authority],
                              env=process.environment(), capture_output=True, text=True, timeout=60)
        assert done.returncode == status, (tried, done)


@contextlib.contextmanager
def killed_at_last(started):
    try:
        yield
    finally:
        if started.poll() is None:
            started.kill()
            started.wait()


@contextlib.contextmanager
def unheard(program, config, path, is_closed):
    """A process whose standard descriptors are closed when it starts, or whose output and error are a pipe without a reader."""
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    reader, pipe = os.pipe()
    os.close(reader)
    redirect = "<&- >&- 2>&-" if is_closed else ""
    started = subprocess.Popen(["sh", "-c", f'exec "$@" {redirect}', "sh", process.BUILD / program, "-c", path],
                               env=process.environment(), stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe)
    os.close(pipe)
    with killed_at_last(started):
        yield started
        if is_closed:
            assert [os.readlink(f"/proc/{started.pid}/fd/{fd}") for fd in range(3)] == ["/dev/null"] * 3
        started.terminate()
        assert started.wait(20) == 0


@pytest.mark.parametrize("is_closed", [True, False], ids=["closed", "broken pipe"])
def test_nobody_hears_what_is_logged(certificates, tmp_path, tcp_echo, is_closed):
    """The programs serve all the same, and no socket that got the number of standard error is taken for the log."""
    at, front = configs.Ports(), ports.free_port()
    hop = {"url": f"https://127.0.0.1:{at.tls}", "token": configs.TOKEN, "ca": str(certificates.ca)}

    def echoes():
        with contextlib.suppress(OSError):
            connection, reply = socks.connect(front, tcp_echo.host, tcp_echo.port)
            with connection:
                connection.sendall(b"hello")
                return reply == 0 and connection.recv(5) == b"hello"

    with unheard("twohop", configs.egress(certificates, tmp_path, at), tmp_path / "relay.yaml", is_closed) as egress, \
            unheard("twohop-client", {"chain": [hop], "socks": f"127.0.0.1:{front}", "log-level": "debug"},
                    tmp_path / "client.yaml", is_closed):
        vitals.wait(echoes, 20, "both to serve")
        egress.send_signal(signal.SIGHUP)
        for _ in range(10):
            assert echoes()


# ---- SIGHUP ----

def reload(started, event="reloaded"):
    """The last such event."""
    before = len(started.events(event))
    started.signal(signal.SIGHUP)
    return vitals.wait(lambda: len(found := started.events(event)) > before and found, 10, f"the event {event}")[-1]


def test_hangup_reads_tokens_and_authorities(relay, client, certificates, tmp_path, tcp_echo):
    """For what comes; what is there goes on. What cannot be read stays what it was."""
    at, front, token, authority = configs.Ports(), ports.free_port(), tmp_path / "token", tmp_path / "authority.pem"
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    token.write_text("wrong\n")
    authority.write_bytes(pathlib.Path(certificates.ca).read_bytes())
    config = configs.egress(certificates, tmp_path, at)
    egress = relay(config, name="egress")
    hop = {"url": f"https://127.0.0.1:{at.tls}", "token-file": str(token), "ca": str(authority)}
    up = client({"chain": [hop], "socks": f"127.0.0.1:{front}"})

    def connect():
        return socks.connect(front, tcp_echo.host, tcp_echo.port)

    def is_refused():
        connection, reply = connect()
        connection.close()
        return reply != 0

    token.write_text(configs.TOKEN + "\n")
    assert is_refused()
    reload(up)
    connection, reply = connect()
    with connection:
        assert reply == 0
        token.unlink()
        assert reload(up, "reload_failed")["reason"] == f"{token}: expected a readable file with the token in it"
        token.write_text(configs.TOKEN + "\n")
        authority.write_text("nothing\n")
        assert f"hop 1 (127.0.0.1:{at.tls}): " in reload(up, "reload_failed")["reason"]
        assert not is_refused()
        authority.write_bytes(pathlib.Path(pki.Pki(stranger).ca).read_bytes())
        reload(up)
        connection.sendall(b"hello")
        assert connection.recv(5) == b"hello"
    egress.kill()
    relay(config, name="again")
    assert is_refused() and "CERTIFICATE" in up.events("hop_failed")[-1]["error"]
    authority.write_bytes(pathlib.Path(certificates.ca).read_bytes())
    reload(up)
    vitals.wait(lambda: not is_refused(), 10, "the way through")


@pytest.mark.parametrize("terminal, ends", [("none", False), ("own", True), ("nohup", False)])
def test_hangup_ends_who_was_started_at_a_terminal(tmp_path, terminal, ends):
    """Only when it goes, and without nohup. A service has none."""
    path, log, front = tmp_path / "client.yaml", tmp_path / "log", ports.free_port()
    path.write_text(yaml.safe_dump({"chain": [{"url": f"https://127.0.0.1:{ports.free_port()}"}], "socks": f"127.0.0.1:{front}"}))
    master, slave = pty.openpty()

    def prepare():
        if terminal != "none":
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_IGN if terminal == "nohup" else signal.SIG_DFL)

    with open(log, "wb") as errors:
        started = subprocess.Popen([process.BUILD / "twohop-client", "-c", path], env=process.environment(), stderr=errors,
                                   stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=prepare)
    os.close(slave)
    with killed_at_last(started):
        vitals.wait(lambda: '"ready"' in log.read_text(), 20, "the start")
        started.send_signal(signal.SIGHUP)
        vitals.wait(lambda: '"reloaded"' in log.read_text(), 10, "a reload")
        os.close(master)
        if ends:
            assert started.wait(20) == 0
        else:
            started.send_signal(signal.SIGHUP)
            vitals.wait(lambda: log.read_text().count('"reloaded"') >= 2, 10, "another reload")
            started.terminate()
            assert started.wait(20) == 0
    assert not process.REPORT.search(log.read_text())


def test_check_of_relays_without_auth(relay, certificates, tmp_path):
    """No token was accepted where none was sent."""
    front, back, public = configs.Ports(), configs.Ports(), {"auth": "off"}
    relays = [configs.egress(certificates, tmp_path, back), configs.ingress(certificates, tmp_path, front, [f"127.0.0.1:{back.tls}"])]
    for config in relays:
        del config["auth.tokens"]
        relay(config | public)
    hops = [f"https://127.0.0.1:{at.tls},ca={certificates.ca}" for at in (front, back)]
    done = subprocess.run([process.BUILD / "twohop-client", "check", "--hop", hops[0], "--hop", hops[1]],
                          env=process.environment(), capture_output=True, text=True, timeout=40)
    assert done.returncode == 0 and "accepted" not in done.stdout, done
    assert re.search(rf"^hop 1  127.0.0.1:{front.tls} +ok, no token asked for, lets hop 2 pass$", done.stdout, re.MULTILINE), done.stdout
    assert done.stdout.count(" ok, no token asked for, ") == 3, done.stdout


def test_the_relay_that_refused_is_named(relay, client, certificates, tmp_path):
    """Of several relays of the last hop, not the first of the list."""
    at, front = configs.Ports(), ports.free_port()
    relay(configs.egress(certificates, tmp_path, at))
    urls = [f"https://127.0.0.1:{ports.free_port()}", f"https://127.0.0.1:{at.tls}"]
    client({"chain": [{"urls": urls, "token": configs.TOKEN, "ca": str(certificates.ca)}], "http-proxy": f"127.0.0.1:{front}"})
    with http1.Connection(front, timeout=20) as connection:
        status, fields = connection.connect("10.0.0.1:80")
        assert status in (403, 502)
        text = connection.read(int(fields["content-length"])).decode()
    assert f"127.0.0.1:{at.tls}" in text and urls[0][8:] not in text, text


def test_a_hop_that_is_gone_is_not_the_target(relay, client, certificates, tmp_path):
    at, front = configs.Ports(), ports.free_port()
    started = relay(configs.egress(certificates, tmp_path, at))
    hop = {"url": f"https://127.0.0.1:{at.tls}", "token": configs.TOKEN, "ca": str(certificates.ca)}
    client({"chain": [hop], "socks": f"127.0.0.1:{front}"})

    def reply():
        connection, code = socks.connect(front, "127.0.0.1", ports.free_port())
        connection.close()
        return code

    assert reply() == 5  # "Connection refused": the target's (RFC 1928 section 6)
    started.stop()
    assert reply() == 1  # "general SOCKS server failure"
