"""What stands where a file is expected: a pipe without a writer, a device without an end, a folder. No start hangs on it."""
import os
import shlex
import signal
import subprocess

import pytest
import yaml

from harness import configs, ports, process, vitals


def run(program, *arguments):
    """One that hangs fails."""
    return subprocess.run([process.BUILD / program, *map(str, arguments)], env=process.environment(), stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=20)


@pytest.fixture(params=["a named pipe", "a device", "a folder"])
def other(request, tmp_path):
    """(the path, what it is)"""
    path = tmp_path / "other"
    if request.param == "a named pipe":
        os.mkfifo(path)
    elif request.param == "a device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    return path, request.param


def places(config, value):
    """(its line, from 1, and column of the value) in the file that config becomes."""
    lines = yaml.safe_dump(config, sort_keys=False).splitlines()
    return [(number, line.index(str(value)) + 1) for number, line in enumerate(lines, 1) if line.endswith(str(value))][0]


def refusals(program, path, other, is_configuration):
    for arguments in ["-t", "-c", path], ["-c", path]:
        done = run(program, *arguments)
        assert done.returncode in (1, 2) and len(done.stderr.splitlines()) == 1, done
        assert f", not {other[1]}" in done.stderr and str(other[0]) in done.stderr, done
        place = f"{path}: " if is_configuration else "{}:{}:{}: ".format(path, *places(yaml.safe_load(path.read_text()),
                                                                                      other[0]))
        assert place in done.stderr, (place, done)


def test_a_relay_reads_plain_files(certificates, tmp_path, other):
    def tokens(config):
        config["auth.tokens"] = str(other[0])

    def certificate(config):
        config["listen"][0]["ssl"] = config["listen"][0]["ssl"] | {"certificate-file": str(other[0])}

    def key(config):
        config["listen"][1]["ssl"] = config["listen"][1]["ssl"] | {"key-file": str(other[0])}

    refusals("twohop", other[0], other, True)
    for change in tokens, certificate, key:
        config, path = configs.egress(certificates, tmp_path, configs.Ports()), tmp_path / "relay.yaml"
        change(config)
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        refusals("twohop", path, other, False)


def test_a_client_reads_plain_files(tmp_path, other):
    refusals("twohop-client", other[0], other, True)
    for key in "ca", "token-file":
        path, hop = tmp_path / "client.yaml", {"url": "https://127.0.0.1:9", key: str(other[0])}
        path.write_text(yaml.safe_dump({"chain": [hop], "socks": "127.0.0.1:0"}, sort_keys=False))
        refusals("twohop-client", path, other, False)
        done = run("twohop-client", "-t", "--hop", f"https://127.0.0.1:9,{key}={other[0]}", "--socks", "127.0.0.1:0")
        assert done.returncode == 2 and done.stderr.startswith("twohop-client: --hop: expected "), done
        assert f", not {other[1]}" in done.stderr and str(other[0]) in done.stderr, done


def test_the_shells_own_pipes_are_read(certificates, tmp_path):
    """<(command): a secret need not stand in a file."""
    def test(command):
        done = subprocess.run(["bash", "-c", command], env=process.environment(), capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, done

    relay, hop = tmp_path / "relay.yaml", f"https://127.0.0.1:{ports.free_port()}"
    relay.write_text(yaml.safe_dump(configs.egress(certificates, tmp_path, configs.Ports())))
    test(f"cat {shlex.quote(str(relay))} | {process.BUILD}/twohop -t -c /dev/stdin")
    test(f"{process.BUILD}/twohop-client -t --hop {hop},token-file=<(echo {configs.TOKEN}) --socks 127.0.0.1:0")


def test_a_client_that_reads_again_reads_plain_files(client, certificates, tmp_path):
    """And is not stopped by it, nor does it lose what it has."""
    token, authority = tmp_path / "token", tmp_path / "authority.pem"
    hop = {"url": f"https://127.0.0.1:{ports.free_port()}", "token-file": str(token), "ca": str(authority)}

    def put():
        token.write_text(configs.TOKEN + "\n")
        authority.write_bytes(certificates.ca.read_bytes())

    put()
    started = client({"chain": [hop], "socks": "127.0.0.1:0"})
    for number, path in enumerate((token, authority), 1):
        path.unlink()
        os.mkfifo(path)
        started.signal(signal.SIGHUP)
        vitals.wait(lambda: len(started.events("reload_failed")) == number, 10, "the reload")
        assert f"{path}: " in (reason := started.events("reload_failed")[-1]["reason"]), reason
        assert ", not a named pipe" in reason, reason
        path.unlink()
        put()
