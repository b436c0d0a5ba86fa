#!/usr/bin/env python3
"""Runs `twohop` as an operator does before serving. Usage: command.py TWOHOP SOURCE_ROOT"""
import hashlib
import pathlib
import subprocess
import sys
import tempfile

TWOHOP, ROOT = sys.argv[1], pathlib.Path(sys.argv[2])
failures = []


def run(*arguments):
    done = subprocess.run([TWOHOP, *arguments], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def check(what, is_good, seen):
    if not is_good:
        failures.append(f"{what}: {seen}")


with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
                    "-subj", "/CN=relay.example", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
                   check=True, capture_output=True)
    (folder / "key.pem").chmod(0o600)

    seen = run("token", "new", "alice")
    lines = seen[1].splitlines()
    check("token new", seen[0] == 0 and len(lines) == 4, seen)
    secret, line = lines[1].strip(), lines[3].strip()
    check("token new: digest", line == "alice " + hashlib.sha256(secret.encode()).hexdigest(), seen)
    (folder / "tokens").write_text(line + "\n")

    for role in ("ingress", "egress"):
        file = folder / f"{role}.yaml"
        text = (ROOT / "conf" / f"{role}.yaml").read_text()
        file.write_text(text.replace("/etc/twohop/", f"{folder}/"))
        seen = run("-t", "-c", str(file))
        check(f"-t {role}", seen == (0, f"{file}: ok\n", ""), seen)
        file.write_text(file.read_text() + "limits.steams: 1\n")
        seen = run("-t", "-c", str(file))
        at = f"{file}:{len(text.splitlines()) + 1}:1: "
        check(f"-t {role}, unknown key", seen[0] == 1 and seen[1] == "" and seen[2].startswith(at), seen)

    (folder / "tokens").unlink()
    file.write_text(text.replace("/etc/twohop/", f"{folder}/"))
    seen = run("-c", str(file))
    check("-c with a missing file", seen[0] == 1 and "[auth.tokens]" in seen[2], seen)

check("--version", run("--version")[0] == 0 and run("--version")[1].startswith("twohop "), run("--version"))
check("--help", run("--help")[0] == 0 and "--help-config" in run("--help")[1], run("--help"))
for asked in (["token", "--help"], ["token", "new", "--help"], ["token", "new", "-h"]):
    check(f"{asked}", run(*asked)[0] == 0 and "expires=WHEN" in run(*asked)[1], run(*asked))
check("--help-config", "proxy.connect-udp.template:" in run("--help-config")[1], run("--help-config"))
for wrong in ([], ["-x"], ["-t"], ["-c"], ["token"], ["token", "new"], ["token", "old", "a"], ["token", "new", "a b"],
              ["token", "new", "-a"], ["token", "new", "--name"],
              ["-c", "a", "b"]):
    check(f"usage {wrong}", run(*wrong)[0] == 2 and run(*wrong)[2] != "", run(*wrong))

print("\n".join(failures) or "command: ok")
sys.exit(1 if failures else 0)
