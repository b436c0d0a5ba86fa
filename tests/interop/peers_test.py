"""The peers that are not ours are there, and are the ones the interop tests mean to use."""
import importlib.metadata
import json
import pathlib
import subprocess

import pytest
from harness.ports import free_port

TOP = pathlib.Path(__file__).resolve().parents[2]


def run(*command):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=30)


def test_curl_knows_http2_proxies():
    assert "--proxy-http2" in run(TOP / "build/curl/curl", "--help", "all").stdout


def test_h2spec_has_its_cases():
    assert "Generic tests for HTTP/2 server" in run(TOP / "build/go/bin/h2spec", "--dryrun").stdout


def test_masque_client_says_when_nobody_answers():
    template = f"https://127.0.0.1:{free_port()}/{{target_host}}/{{target_port}}/"
    done = run(TOP / "build/go/bin/masque-client", "-template", template, "-target", "127.0.0.1:9", "-timeout", "1s")
    verdict = json.loads(done.stdout)
    assert done.returncode == 1 and not verdict["ok"] and verdict["echoed"] == 0 and verdict["error"]


@pytest.mark.parametrize("package", ["aioquic", "h2", "dnspython"])
def test_python_peer(package):
    assert importlib.metadata.version(package)
