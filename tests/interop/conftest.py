"""What the interop tests share: a relay, and the programs that are not ours."""
import pathlib
import subprocess

import pytest

from harness import configs

TOP = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = {"curl": TOP / "build/curl/curl", "h2spec": TOP / "build/go/bin/h2spec", "masque-client": TOP / "build/go/bin/masque-client"}


@pytest.fixture
def egress(relay, certificates, tmp_path):
    """egress(**more) starts one that may reach loopback. Its .at says where it listens."""
    def start(**more):
        at = configs.Ports()
        started = relay(configs.egress(certificates, tmp_path, at, **more))
        started.at = at
        return started

    return start


@pytest.fixture
def program():
    """program(NAME, *arguments) runs it to its end."""
    def run(name, *arguments, timeout=50, **options):
        command = [str(PROGRAMS.get(name, name)), *(str(argument) for argument in arguments)]
        return subprocess.run(command, capture_output=True, timeout=timeout, stdin=subprocess.DEVNULL, **options)

    return run
