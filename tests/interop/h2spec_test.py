"""h2spec's cases against the HTTP/2 driver, strict ones included."""
import xml.etree.ElementTree

import pytest

# (section, case): why a failure is right. h2spec judges by RFC 7540; RFC 9113 has replaced it.
EXCEPTED = {
    ("http2/5.3.1", "Sends PRIORITY frame that depend on itself"):
        "RFC 9113 section 5.3.2 deprecates the dependency: a receiver ignores what stands in a PRIORITY frame",
}
EXCEPTED_IN_CLEAR = EXCEPTED | {
    ("http2/3.5", "Sends invalid connection preface"):
        "a clear-text listener knows HTTP/2 by its preface: anything else is HTTP/1.1, and answered with 400 as that",
}


@pytest.mark.parametrize("tls", [False, True], ids=["clear", "tls"])
def test_h2spec(egress, program, tmp_path, tls):
    relay = egress()
    report = tmp_path / "h2spec.xml"
    where = ["-t", "-k", "-p", relay.at.tls] if tls else ["-p", relay.at.clear]
    done = program("h2spec", *where, "-h", "127.0.0.1", "-P", "/index.html", "-S", "-j", report)
    cases = xml.etree.ElementTree.parse(report).findall(".//testcase")
    assert len(cases) > 140, done.stdout
    failed = {(case.get("package"), case.get("classname")) for case in cases if len(case)}
    excepted = EXCEPTED if tls else EXCEPTED_IN_CLEAR
    assert failed <= excepted.keys(), done.stdout.decode()
