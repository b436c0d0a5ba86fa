"""What operators run is hardened: builds it as the release preset says, and looks at what came out.

    hardening.py SOURCE-FOLDER BUILD-FOLDER [COMPILER-LAUNCHER]
"""
import json
import pathlib
import platform
import re
import subprocess
import sys

COMPILED = ["-O2", "-D_FORTIFY_SOURCE=3", "-fstack-protector-strong", "-ftrivial-auto-var-init=zero",
            "-Werror=format-security"]
COMPILED_X86 = ["-fcf-protection=full", "-fstack-clash-protection"]


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def build(source, folder, launcher):
    options = [f"-DCMAKE_C_COMPILER_LAUNCHER={launcher}"] if launcher else []
    for command in (["cmake", "--preset", "release", "-B", folder, *options], ["cmake", "--build", folder, "--target", "twohop"]):
        done = subprocess.run(command, cwd=source, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout[-4000:]
    return pathlib.Path(folder) / "twohop"


def check_commands(folder, is_x86):
    for entry in json.loads((pathlib.Path(folder) / "compile_commands.json").read_text()):
        words = entry["command"].split()
        missing = [flag for flag in COMPILED + COMPILED_X86 * is_x86 if flag not in words]
        assert not missing and {"-fPIC", "-fPIE"} & set(words), (entry["file"], missing)


def check_binary(binary):
    assert re.search(r"Type:\s+DYN", output("readelf", "-hW", binary)), "no position-independent executable"
    dynamic = output("readelf", "-dW", binary)
    assert re.search(r"FLAGS\).*BIND_NOW", dynamic) and re.search(r"FLAGS_1.*NOW.*PIE", dynamic), dynamic
    assert "TEXTREL" not in dynamic and "RPATH" not in dynamic and "RUNPATH" not in dynamic, dynamic
    segments = output("readelf", "-lW", binary)
    assert re.search(r"GNU_STACK\s+(0x\w+\s+){5}RW\s", segments), "the stack may be executed"
    assert "GNU_RELRO" in segments
    assert not re.search(r"LOAD\s+(0x\w+\s+){5}RWE", segments), "memory that can be written and executed"
    imported = set(re.findall(r" U (\w+)", output("nm", "-D", binary)))
    assert "__stack_chk_fail" in imported, "no stack protector"
    checked = {"__memcpy_chk", "__snprintf_chk", "__vsnprintf_chk"}
    assert checked <= imported, checked - imported


def check_objects(folder, is_x86):
    objects = sorted(map(str, pathlib.Path(folder).rglob("*.c.o")))
    assert len(objects) > 50, objects
    protected = output("nm", "-A", *objects).count("U __stack_chk_fail")
    assert protected > len(objects) / 3, f"a stack protector in {protected} of {len(objects)} objects"
    if is_x86:  # the C library's own start files lack the note, so the executable has lost it
        notes = output("readelf", "-nW", *objects).split("\nFile: ")[1:]
        bare = [note.split("\n", 1)[0] for note in notes if not re.search(r"IBT, SHSTK", note)]
        assert not bare, f"no control-flow protection: {bare}"


def main(source, folder, launcher=""):
    is_x86 = platform.machine() == "x86_64"
    binary = build(source, folder, launcher)
    check_commands(folder, is_x86)
    check_binary(binary)
    check_objects(folder, is_x86)


main(*sys.argv[1:])
