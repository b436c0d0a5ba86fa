#!/usr/bin/env python3
"""Runs `twohop` as an operator does before serving. Usage: command.py TWOHOP SOURCE_ROOT"""
import fcntl
import hashlib
import os
import pathlib
import pty
import re
import signal
import subprocess
import sys
import tempfile
import termios
import time

TWOHOP, ROOT = sys.argv[1], pathlib.Path(sys.argv[2])
failures = []


def run(*arguments):
    done = subprocess.run([TWOHOP, *arguments], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def run_at_terminal(*arguments):
    """What it says to one, where nobody answers."""
    terminal, its_end = pty.openpty()
    process = subprocess.Popen([TWOHOP, *arguments], stdin=its_end, stdout=its_end, stderr=its_end, start_new_session=True,
                               preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
    os.close(its_end)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    said = os.read(terminal, 65536).decode()
    os.close(terminal)
    return said


def check(what, is_good, seen):
    if not is_good:
        failures.append(f"{what}: {seen}")


def interrupted_before_the_secret_is_out(file, own):
    """Nobody reads the pipe that it is printed to. own: what the file says before; None: it is not there."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        try:
            while True:
                os.write(writer, b" ")
        except BlockingIOError:
            os.set_blocking(writer, True)
        process = subprocess.Popen([TWOHOP, "token", "new", "dave", "--append", file], stdout=writer, stderr=subprocess.PIPE,
                                   preexec_fn=lambda number=number: signal.signal(number, signal.SIG_DFL))
        os.close(writer)
        deadline = time.monotonic() + 10
        while not (file.exists() and "dave" in file.read_text()) and time.monotonic() < deadline:
            time.sleep(0.01)
        check("--append before the secret is out", file.exists() and "dave" in file.read_text(), number)
        process.send_signal(number)
        said = process.communicate(timeout=10)[1]
        seen = (number, process.returncode, said, file.exists() and file.read_text())
        check("--append when it is interrupted", seen[1:] == (1, b"twohop: the token could not be written: Interrupted system call\n",
                                                             own if own is not None else False), seen)
        with open(reader, "rb") as pipe:
            check("--append when it is interrupted: the secret", not pipe.read().strip(), number)


os.umask(umask := os.umask(0))

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

    added = folder / "added"
    seen = run("token", "new", "bob", "--append", str(added))
    check("--append makes the file", seen[0] == 0 and seen[2] == "" and added.stat().st_mode & 0o777 == 0o640 & ~umask, seen)
    own = f"bob {hashlib.sha256(seen[1].rstrip(chr(10)).encode()).hexdigest()}\n"
    check("--append prints the secret alone", added.read_text() == own, (seen, added.read_text()))
    added.write_text(own.rstrip("\n"))  # as some editors leave it
    added.chmod(0o604)
    before = added.stat()
    seen = run("token", "new", f"--append={added}", "carol")
    own += f"carol {hashlib.sha256(seen[1].rstrip(chr(10)).encode()).hexdigest()}\n"
    check("--append to a file without an end", seen[0] == 0 and added.read_text() == own, (seen, added.read_text()))
    check("--append keeps the file", (added.stat().st_mode, added.stat().st_ino) == (before.st_mode, before.st_ino), added.stat())
    many = [subprocess.Popen([TWOHOP, "token", "new", f"user{i}", "--append", added], stdout=subprocess.DEVNULL) for i in range(8)]
    check("--append at once", {process.wait() for process in many} == {0} and len(added.read_text().splitlines()) == 10, added.read_text())
    own = added.read_text()
    with open("/dev/full", "w") as full:
        lost = subprocess.run([TWOHOP, "token", "new", "dave", "--append", added], stdout=full, stderr=subprocess.PIPE)
        check("--append when nobody gets the secret", lost.returncode == 1 and added.read_text() == own, lost)
        lost = subprocess.run([TWOHOP, "token", "new", "dave", "--append", folder / "fresh"], stdout=full, stderr=subprocess.PIPE)
        check("--append to a new file then", lost.returncode == 1 and not (folder / "fresh").exists(), lost)
    reader, writer = os.pipe()
    os.close(reader)
    lost = subprocess.run([TWOHOP, "token", "new", "dave", "--append", added], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    check("--append when nobody reads the secret", lost.returncode == 1 and added.read_text() == own, lost)
    interrupted_before_the_secret_is_out(added, own)
    interrupted_before_the_secret_is_out(folder / "fresh", None)
    for i in range(20):
        raced = folder / f"raced{i}"
        many = [subprocess.Popen([TWOHOP, "token", "new", "erin", "--append", raced], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                for _ in range(4)]
        statuses = sorted(process.wait() for process in many)
        check("--append of one name at once", statuses == [0, 1, 1, 1] and len(raced.read_text().splitlines()) == 1, statuses)
    os.mkfifo(folder / "fifo")
    (folder / "link").symlink_to(added)
    os.link(added, folder / "twin")
    for name, said in (("added", "hard links"), ("link", "expected no symbolic link"), ("fifo", "expected a regular file"),
                       ("nowhere/tokens", "No such file"), (".", "Is a directory")):
        seen = run("token", "new", "dave", "--append", str(folder / name))
        check(f"--append to {name}", seen[:2] == (1, "") and said in seen[2] and added.read_text() == own, seen)
    (folder / "twin").unlink()
    for text, said in ((own, "it has a token of this name"), ("none\n", "it says none"), ("a\n", ":1:2: expected 64 hexadecimal digits")):
        added.write_text(text)
        seen = run("token", "new", "bob", "--append", str(added))
        check(f"--append to {text}", seen[:2] == (1, "") and said in seen[2] and added.read_text() == text, seen)

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

    warned = folder / "warned.yaml"
    warned.write_text(text.replace("/etc/twohop/tokens", f"{folder}/few").replace("/etc/twohop/", f"{folder}/"))
    for tokens, said in (("", "has no token"), ("none\n", ""), (f"{line} expires=2020-01-01\n", "have expired"), (line, "")):
        (folder / "few").write_text(tokens)
        seen = run("-t", "-c", str(warned))
        is_said = f"{warned}: warning: " in seen[2] and said in seen[2] if said else seen[2] == ""
        check(f"-t with tokens {tokens}", seen[:2] == (0, f"{warned}: ok\n") and is_said, seen)
    (folder / "few").write_text(f"{line}\n{line.replace('alice', 'bob')}\n")
    seen = run("-t", "-c", str(warned))
    check("-t with one secret twice", seen[0] == 1 and f"{folder}/few:2:5: expected a digest that no line before has" in seen[2], seen)

    rules = ("proxy.connect: ON\n", "proxy.connect-udp: ON\n")
    policies = (((), "OFF"), (("proxy.connect: OFF\n",), "OFF"), (("proxy.connect: []\n", "proxy.connect-udp: ['-*']\n"), "OFF"),
                (("proxy.connect: []\n", rules[1]), ""), (("proxy.connect: ['-*:25', '+*']\n",), ""), (rules[:1], ""))
    for policy, said in policies:
        assert all(rule in text for rule in rules)
        warned.write_text(text.replace(rules[0], "").replace(rules[1], "").replace("/etc/twohop/", f"{folder}/") + "".join(policy))
        seen = run("-t", "-c", str(warned))
        is_said = seen[2].startswith(f"{warned}: warning: neither") and seen[2].count("\n") == 1 if said else seen[2] == ""
        check(f"-t with policy {policy}", seen[:2] == (0, f"{warned}: ok\n") and is_said, seen)

    deep = folder / "deep.yaml"  # libyaml would take minutes
    deep.write_text("a: " + "{a: " * 100000)
    seen = run("-t", "-c", str(deep))
    check("-t with a deep file", seen == (1, "", f"{deep}:1:128: expected at most 32 levels\n"), seen)

    made = folder / "made"
    subprocess.run([ROOT / "deploy" / "make-certificates", made, "localhost"], check=True, capture_output=True)
    modes = {path.name: path.stat().st_mode & 0o777 for path in made.iterdir()}
    check("make-certificates", modes == {"ca.pem": 0o644, "server.pem": 0o644, "server.key": 0o600}, modes)

    locked = folder / "locked.yaml"
    locked.write_text(text.replace("/etc/twohop/key.pem", f"{folder}/locked.pem").replace("/etc/twohop/", f"{folder}/"))
    subprocess.run(["openssl", "pkcs8", "-topk8", "-in", folder / "key.pem", "-out", folder / "locked.pem", "-passout", "pass:secret"],
                   check=True, capture_output=True)
    (folder / "locked.pem").chmod(0o600)
    for option in ("-t", "-c"):
        seen = run_at_terminal(*dict.fromkeys((option, "-c")), str(locked))
        check(f"{option} with an encrypted key", f"{folder}/locked.pem: the key is encrypted" in seen and "pass phrase" not in seen, seen)

    (folder / "tokens").unlink()
    file.write_text(text.replace("/etc/twohop/", f"{folder}/"))
    seen = run("-c", str(file))
    check("-c with a missing file", seen[0] == 1 and "[auth.tokens]" in seen[2], seen)

for option in ("--version", "-V"):
    check(option, run(option)[0] == 0 and run(option)[1].startswith("twohop "), run(option))
check("--help", run("--help")[0] == 0 and "--help-config" in run("--help")[1], run("--help"))
# The same letters as of the client, and the same sentence about them.
spoken = [re.findall(r"^  (-\w, --\w+)", subprocess.run([program, "--help"], capture_output=True, text=True).stdout, re.MULTILINE)
          for program in (TWOHOP, f"{TWOHOP}-client")]
check("--help of both", len(spoken[0]) == 4 and spoken[0] == spoken[1], spoken)
for script in ("deploy/install-packages", "deploy/demo", "deploy/make-certificates", "tests/run"):
    words = ["--help"] if script == "deploy/demo" else ["--strange"] if script == "tests/run" else []
    header = re.match(r"#!.*\n((#.*\n)+)", (ROOT / script).read_text())[1]
    asked = subprocess.run([ROOT / script, *words], capture_output=True, text=True)
    said = asked.stdout + asked.stderr
    check(f"{script} without arguments", said.rstrip("\n") == re.sub(r"^# ?", "", header, flags=re.MULTILINE).rstrip("\n"), said)
for asked in (["token", "--help"], ["token", "new", "--help"], ["token", "new", "-h"]):
    check(f"{asked}", run(*asked)[0] == 0 and "expires=WHEN" in run(*asked)[1], run(*asked))
check("--help-config", "proxy.connect-udp.template:" in run("--help-config")[1], run("--help-config"))
for wrong in ([], ["-x"], ["-t"], ["-c"], ["token"], ["token", "new"], ["token", "old", "a"], ["token", "new", "a b"],
              ["token", "new", "-a"], ["token", "new", "--name"], ["token", "new", "a", "b"], ["token", "new", "a", "--append"],
              ["token", "new", "a", "--append", ""], ["token", "old", "a", "--append", "b"],
              ["-c", "a", "b"]):
    check(f"usage {wrong}", run(*wrong)[0] == 2 and run(*wrong)[2] != "", run(*wrong))

print("\n".join(failures) or "command: ok")
sys.exit(1 if failures else 0)
