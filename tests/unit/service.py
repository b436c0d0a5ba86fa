#!/usr/bin/env python3
"""What systemd says of our unit: nothing is unknown to it, and what the relay may do there is little.

service.py UNIT PROGRAM
"""
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


def main(unit, program):
    with tempfile.TemporaryDirectory() as folder:
        text, count = re.subn(r"^(Exec\w+=)/\S*/twohop ", rf"\g<1>{program} ", pathlib.Path(unit).read_text(), flags=re.MULTILINE)
        assert count == 2, "the start and the reload run twohop by its full path"
        path = pathlib.Path(folder) / "twohop@egress.service"
        path.write_text(text)
        analyze("verify", "--man=no", str(path))
        analyze("security", "--offline=true", f"--threshold={EXPOSURE_MAX}", str(path))


if __name__ == "__main__":
    main(*sys.argv[1:])
