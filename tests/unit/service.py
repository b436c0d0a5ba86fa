#!/usr/bin/env python3
"""The unit that is installed names the program that is. What systemd says of it: nothing is unknown to it, and what the
relay may do there is little.

service.py CMAKE BUILD_FOLDER PROGRAM
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

EXPOSURE_MAX = 20  # tenths; 10.0 is an ordinary service of root


def analyze(*words):
    done = subprocess.run(["systemd-analyze", *words], capture_output=True, text=True)
    # What it does not know it tells, and ignores.
    if done.returncode != 0 or "twohop@" in done.stderr:
        sys.exit(f"systemd-analyze {' '.join(words)}\n{done.stdout}{done.stderr}")


def install(cmake, build, folder):
    """Into a stage, for another prefix than was configured."""
    subprocess.run([cmake, "--install", build, "--prefix", "/opt/twohop"], env=os.environ | {"DESTDIR": folder}, check=True,
                   stdout=subprocess.DEVNULL)
    installed = pathlib.Path(folder) / "opt/twohop"
    assert (installed / "bin/twohop").exists()
    return (installed / "lib/systemd/system/twohop@.service").read_text()


def main(cmake, build, program):
    with tempfile.TemporaryDirectory() as folder:
        unit = install(cmake, build, folder)
        text, count = re.subn(r"^(Exec\w+=)/opt/twohop/bin/twohop ", rf"\g<1>{program} ", unit, flags=re.MULTILINE)
        assert count == 2, f"the start and the reload run twohop by its full path\n{unit}"
        path = pathlib.Path(folder) / "twohop@egress.service"
        path.write_text(text)
        analyze("verify", "--man=no", str(path))
        analyze("security", "--offline=true", f"--threshold={EXPOSURE_MAX}", str(path))


if __name__ == "__main__":
    main(*sys.argv[1:])
