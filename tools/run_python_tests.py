#!/usr/bin/env python3
"""Runs unittest files and appends their counts, "passed failed skipped", to a file.

usage: tools/run_python_tests.py --counts FILE TEST.py...

A file that cannot be imported is one failed test; each file gets its own process, so that one that hangs
or crashes does not take the others along.
"""
import argparse
import os
import subprocess
import sys
import unittest

SECONDS_PER_FILE = 1200


def run_file(path):
    """In the child: runs one file, prints its counts as the last line."""
    folder, name = os.path.split(os.path.abspath(path))
    sys.path.insert(0, folder)
    suite = unittest.defaultTestLoader.loadTestsFromName(name.removesuffix(".py"))
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(suite)
    # A failing subTest adds a failure without adding to testsRun: count tests, not assertions.
    failed_tests = {id(getattr(test, "test_case", test)) for test, _ in result.failures + result.errors}
    failed = len(failed_tests) + len(result.unexpectedSuccesses)
    skipped = len(result.skipped)
    print(f"{max(result.testsRun - failed - skipped, 0)} {failed} {skipped}")


def run_in_child(path):
    """The counts line of one file; a crash or a timeout counts as one failure."""
    command = [sys.executable, os.path.abspath(__file__), "--child", path]
    try:
        child = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               timeout=SECONDS_PER_FILE)
        lines = child.stdout.rstrip("\n").split("\n")
        output, counts = "\n".join(lines[:-1]), lines[-1]
        if child.returncode != 0:
            output, counts = child.stdout, "0 1 0"
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"").decode(errors="replace") + f"\nno end after {SECONDS_PER_FILE} s"
        counts = "0 1 0"
    print(f"==== {path}\n{output}", flush=True)
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="+")
    parser.add_argument("--counts", help="file to append a line of counts to for each test file")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        run_file(args.files[0])
        return 0
    failed = False
    for path in args.files:
        counts = run_in_child(path)
        if args.counts:
            with open(args.counts, "a") as f:
                f.write(counts + "\n")
        if counts.split()[1] != "0":
            failed = True
            print(f"FAILED {path}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
