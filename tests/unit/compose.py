#!/usr/bin/env python3
"""deploy/compose.yaml, deploy/Dockerfile and this repository agree, as far as can be told without an engine for containers.

compose.py SOURCE-FOLDER TWOHOP TWOHOP-CLIENT
"""
import ipaddress
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import yaml

DRAIN = 30  # seconds, the default of limits.drain-seconds
MOUNT = "/etc/twohop"


def run(*command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout[-3000:]}"
    return done.stdout


class Dockerfile:
    """Its stages, each a list of (instruction, the rest)."""

    def __init__(self, path):
        text = path.read_text().replace("\\\n", " ")
        lines = [line.split(None, 1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
        self.stages = []
        for name, rest in lines:
            if name == "FROM":
                self.stages.append([])
                assert rest.split()[0] == "debian:bookworm-slim", f"the base image is {rest}"
            else:
                self.stages[-1].append((name, rest.strip()))

    def sources(self):
        """What is copied out of the repository by any stage."""
        return [word for stage in self.stages for name, rest in stage if name == "COPY" and not rest.startswith("--from")
                for word in rest.split()[:-1]]

    def programs(self):
        """Files of ours in the last stage: path in the image -> path in the repository."""
        at, found = "/", {}
        for name, rest in self.stages[-1]:
            if name == "WORKDIR":
                at = rest
            elif name == "COPY" and not rest.startswith("--from"):
                *sources, to = rest.split()
                found |= {os.path.join(at, to, os.path.basename(source)): source for source in sources if to.endswith("/")}
        return found

    def last(self, wanted):
        return [rest for name, rest in self.stages[-1] if name == wanted][-1]


def make_context(root, folder):
    """Copies what .dockerignore lets through, which is what a build of the image gets."""
    lines = [line for line in (root / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*", "all but what is named stays out"
    for line in lines[1:]:
        source, to = root / line.removeprefix("!"), folder / line.removeprefix("!")
        assert line.startswith("!") and source.exists(), f".dockerignore: {line}"
        to.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, to)
        else:
            shutil.copy2(source, to)


def check_build(root, image, folder):
    context = folder / "context"
    make_context(root, context)
    for source in image.sources():
        assert (context / source).exists(), f"Dockerfile: COPY {source}: not in the repository, or kept out by .dockerignore"
    text = (root / "CMakeLists.txt").read_text()
    globs, named = re.findall(r"CONFIGURE_DEPENDS (\S+)/\*\.c\)", text), re.findall(r"\{CMAKE_SOURCE_DIR\}/(deploy/[^\\\"\s]+)", text)
    assert globs and named
    for needed in globs + named:
        assert (context / needed).exists(), f"the build needs {needed}: .dockerignore"
    run("cmake", "--preset", "release", cwd=context)
    assert image.last("USER") == "443:443"


def check_runtime_packages(root, binaries):
    """The last stage installs what the programs are linked with."""
    listed = run("bash", "-c", f"source <(sed -n '/^packages()/,/^}}/p' {root}/deploy/install-packages); packages runtime")
    packages = {word.split(">=")[0] for word in listed.split()} | {"libc6", "libgcc-s1"}
    wanted = {name for binary in binaries for name in re.findall(r"\(NEEDED\).*\[(.*)\]", run("readelf", "-dW", binary))}
    wanted = {name for name in wanted if not re.match(r"lib(a|t|ub)san\.", name)}
    owned = {}
    for line in run("dpkg", "-S", *(f"*/{library}" for library in wanted)).splitlines():
        package, path = line.split(": ", 1)
        owned.setdefault(os.path.basename(path), set()).add(package.split(":")[0])
    for library in wanted:
        assert owned[library] & packages, f"install-packages runtime lacks {library}: {owned[library]}"


def is_networked(service, network):
    return network in (service.get("networks") or [])


def address_in(service, network):
    return (service["networks"][network] or {})["ipv4_address"]


def check_networks(compose):
    services, networks = compose["services"], compose["networks"]
    client, ingress, egress = (services[name] for name in ("client", "ingress", "egress"))
    for service in services.values():
        assert set(service.get("networks") or []) <= set(networks)
    for network in ingress["networks"]:
        assert networks[network]["internal"], f"the ingress reaches targets by {network}"
    assert not set(client["networks"]) & set(egress["networks"]), "the egress sees the client"
    assert len(set(ingress["networks"]) & set(egress["networks"])) == 1
    for service in (ingress, egress):
        for network in (name for name in service["networks"] if networks[name].get("internal")):
            subnet = ipaddress.ip_network(networks[network]["ipam"]["config"][0]["subnet"])
            assert ipaddress.ip_address(address_in(service, network)) in subnet
    for port in client["ports"]:
        assert port.startswith("127.0.0.1:"), f"{port}: the fronts ask for no password"


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)([sm])", text).groups()
    return int(number) * {"s": 1, "m": 60}[unit]


def check_rights(compose):
    for name, service in compose["services"].items():
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert seconds(service["stop_grace_period"]) > DRAIN, name
        for volume in service["volumes"]:
            source, _, *options = volume.split(":")
            assert source in compose["volumes"], f"{name}: {source}: a volume, so that no path of the host is needed"
            assert name == "trial" or options == ["ro"], name
        assert name not in ("ingress", "egress") or service.get("hostname") == name, f"{name}: stateless resets need it"
        if name != "trial":
            assert "user" not in service and "cap_add" not in service, name
            assert service["depends_on"]["trial"]["condition"] == "service_completed_successfully", name


def make_trial(root, service, image, folder, bin_folder):
    """Runs what fills the volumes, with the words that compose.yaml gives it. Returns volume -> its folder here."""
    program, at, *words = service["command"]
    assert program in image, f"{program} is not in the image"
    command = [root / image[program], folder, *words]
    environment = os.environ | {"PATH": f"{bin_folder}:{os.environ['PATH']}"}
    run(*command, env=environment)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert "made already" in run(*command, env=environment)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}, "the second run changes nothing"
    volumes = dict(volume.split(":") for volume in service["volumes"])
    for path in volumes.values():
        assert (folder / pathlib.Path(path).relative_to(at)).is_dir(), f"nothing is made in {path}"
    return {name: folder / pathlib.Path(path).relative_to(at) for name, path in volumes.items()}


def check_command(words, service, volumes, binaries):
    """The program exists, and takes these flags and the configuration that its volume holds."""
    program, *rest = words
    assert program in binaries, f"no program {program}"
    here = volumes[next(volume.split(":")[0] for volume in service["volumes"] if volume.split(":")[1] == MOUNT)]
    for file in here.glob("*.yaml"):
        file.write_text(file.read_text().replace(MOUNT + "/", f"{here}/"))
    rest = [word.replace(MOUNT, str(here)) for word in rest if word != "check"]
    run(binaries[program], "-t", *rest)


def check_health(words, image, root):
    program = json.loads(words[words.index("["):])[0]
    assert program in image and os.access(root / image[program], os.X_OK), f"HEALTHCHECK: no program {program}"
    for role in ("ingress", "egress"):
        text = (root / "conf" / f"{role}.yaml").read_text()
        is_found = re.search(r"^admin\.listen: *127\.0\.0\.1:\d+$", text, re.MULTILINE)
        assert is_found, f"healthcheck finds no admin.listen of the {role}"


def check_chain(compose, volumes):
    """The configurations that were made name the addresses that compose.yaml gives."""
    services = compose["services"]
    between = (set(services["ingress"]["networks"]) & set(services["egress"]["networks"])).pop()
    users = (set(services["ingress"]["networks"]) - {between}).pop()
    assert is_networked(services["client"], users)
    ingress, egress = address_in(services["ingress"], users), address_in(services["egress"], between)
    texts = {name: next(folder.glob(f"{name}.yaml")).read_text() for name, folder in volumes.items()}
    assert re.search(rf"^relays:\n  - {re.escape(egress)}:443$", texts["ingress"], re.MULTILINE), "relays: is not the egress"
    peer = address_in(services["ingress"], between)
    assert f"\npeers: [{peer}/32]\n" in texts["egress"], "peers: is not the ingress"
    client = yaml.safe_load(texts["client"])
    assert [hop["url"] for hop in client["chain"]] == [f"https://{ingress}:443", f"https://{egress}:443"]
    inside = [port.split(":")[2] for port in services["client"]["ports"]]
    assert inside == [client[front].rpartition(":")[2] for front in ("http-proxy", "socks")]
    for name, address in (("ingress", ingress), ("egress", egress)):
        run("openssl", "verify", "-CAfile", volumes["client"] / f"{name}-ca.pem", "-verify_ip", address, volumes[name] / "cert.pem")


def main(root, twohop, client):
    root, binaries = pathlib.Path(root), {"twohop": twohop, "twohop-client": client}
    file = root / "deploy" / "compose.yaml"
    compose = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", file.read_text()))
    services = compose["services"]
    builds = {json.dumps(service["build"], sort_keys=True) for service in services.values()}
    assert len(builds) == 1, "all services are one image"
    context = (file.parent / json.loads(builds.pop())["context"]).resolve()
    assert context == root.resolve()
    image = Dockerfile(context / services["trial"]["build"]["dockerfile"])
    check_networks(compose)
    check_rights(compose)
    check_health(image.last("HEALTHCHECK"), image.programs(), root)
    check_runtime_packages(root, binaries.values())
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        check_build(root, image, folder)
        (folder / "trial").mkdir()
        volumes = make_trial(root, services["trial"], image.programs(), folder / "trial", pathlib.Path(twohop).parent)
        check_chain(compose, volumes)
        for service in (services[name] for name in ("egress", "ingress", "client")):
            check_command(service["command"], service, volumes, binaries)
        check_command(services["client"]["healthcheck"]["test"][1:], services["client"], volumes, binaries)


if __name__ == "__main__":
    main(*sys.argv[1:])
