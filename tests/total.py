#!/usr/bin/env python3
"""Adds up the JUnit files in a folder. Usage: total.py FOLDER

Prints the line "N passed, N failed, N skipped". Status 1 when something failed, was skipped, or nothing was run. A test
program that failed without saying so in its file (a line in FOLDER/broken) counts as one failure.
"""
import pathlib
import sys
import xml.etree.ElementTree as ElementTree

FAILED, SKIPPED = {"failure", "error"}, {"skipped"}


def verdict(case):
    tags = {child.tag for child in case}
    if tags & FAILED or case.get("status") == "fail":
        return "failed"
    if tags & SKIPPED or case.get("status") in ("notrun", "disabled"):
        return "skipped"
    return "passed"


def main(folder):
    count = dict.fromkeys(("passed", "failed", "skipped"), 0)
    failed_in = set()
    for path in sorted(folder.glob("*.xml")):
        # One case may stand twice: pytest reports a failure of the test and one of its clean-up apart.
        verdicts = {}
        for case in ElementTree.parse(path).iter("testcase"):
            name = case.get("classname"), case.get("name")
            found = verdict(case)
            verdicts[name] = min(verdicts.get(name, found), found, key=("failed", "skipped", "passed").index)
        for name, found in verdicts.items():
            count[found] += 1
            if found == "failed":
                failed_in.add(path.stem)
                print("failed: " + " ".join(filter(None, (path.stem, *name))))
    broken = folder / "broken"
    for line in broken.read_text().splitlines() if broken.exists() else ():
        if line.split(":")[0] not in failed_in:
            print(line)
            count["failed"] += 1
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**count))
    return 0 if count["passed"] and not count["failed"] and not count["skipped"] else 1


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
