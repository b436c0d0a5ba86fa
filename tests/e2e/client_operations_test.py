"""What the user of twohop-client does to it beside using it."""
import subprocess

import yaml

from harness import configs, ports, process


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
