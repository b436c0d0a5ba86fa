"""deploy/healthcheck: what a container engine asks about a relay."""
import signal
import subprocess

import pytest

from harness import configs, http1, process

HEALTHCHECK = process.TOP / "deploy/healthcheck"
PLAIN = ("{}", "   {}   # the operator's")
QUOTED = ('"{}"', "'{}'", "'{}' # the operator's")


@pytest.fixture
def ask(tmp_path):
    """ask(line): (status, what it said) for a configuration with this line."""
    def ask(line):
        path = tmp_path / "asked.yaml"
        path.write_text(f"role: egress\n#admin.listen: 127.0.0.1:1\nhosts: {{}}\n{line}\nnum-threads: 1\n")
        done = subprocess.run([HEALTHCHECK, path], capture_output=True, text=True, timeout=20)
        return done.returncode, done.stdout + done.stderr
    return ask


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", None])
def test_every_way_to_write_admin_listen(relay, certificates, tmp_path, ask, host):
    at = configs.Ports()
    admin = f"{host}:{at.admin}" if host else str(tmp_path / "admin.sock")
    started = relay(configs.egress(certificates, tmp_path, at, **{"admin.listen": admin}))
    for key in ("admin.listen", '"admin.listen"'):
        for way in QUOTED + (() if admin.startswith("[") else PLAIN):
            assert ask(f"{key}: {way.format(admin)}") == (0, ""), way
    started.stop()
    status, said = ask(f'admin.listen: "{admin}"')
    assert status != 0 and said.startswith(f"{admin}: "), said


def test_a_relay_that_drains_is_not_healthy(relay, certificates, tmp_path, tcp_echo):
    at = configs.Ports()
    started = relay(configs.egress(certificates, tmp_path, at))
    with http1.Connection(at.clear) as connection:
        status, _ = connection.connect(f"127.0.0.1:{tcp_echo.port}", f"Proxy-Authorization: {configs.BEARER}")
        assert status == 200
        asked = [HEALTHCHECK, started.path]
        assert subprocess.run(asked, capture_output=True, timeout=20).returncode == 0
        started.signal(signal.SIGTERM)
        started.wait_event("draining")
        done = subprocess.run(asked, capture_output=True, text=True, timeout=20)
        assert done.returncode == 1 and "HTTP/1.1 503" in done.stderr, done
    started.stop()


@pytest.mark.parametrize("words", [["-c", "{}"], ["--config={}"], ["-c{}"]])
def test_the_file_of_the_first_process(relay, certificates, tmp_path, words):
    """In a process namespace of its own, as a container has."""
    started = relay(configs.egress(certificates, tmp_path, configs.Ports()))
    first = tmp_path / "first"
    first.write_text(f"{HEALTHCHECK}\nexit $?\n")
    done = subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "sh", first, *(word.format(started.path) for word in words)],
                          capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done


@pytest.mark.parametrize("line", ["role: egress", "admin.listen:", "admin.listen: 9100", "admin.listen: ''"])
def test_nothing_to_ask(ask, line):
    status, said = ask(line)
    assert status != 0 and "expected" in said, said
