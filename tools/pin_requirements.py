#!/usr/bin/env python3
"""Resolves tools/requirements.in and writes tools/requirements.txt with the SHA-256 of every wheel.

usage: tools/pin_requirements.py   (with Python 3.11, the one of Debian 12)

Wheels for Python 3.11 on Linux, x86_64 and aarch64. Run it to move to newer versions.
"""
import json
import os
import re
import subprocess
import sys

TOOLS = os.path.dirname(os.path.abspath(__file__))
PLATFORMS = {arch: [f"manylinux_2_{minor}_{arch}" for minor in (28, 27, 26, 17, 12, 5)] +
             [f"manylinux2014_{arch}"] for arch in ("x86_64", "aarch64")}


def read_inputs():
    """(requirements with dependencies, requirements without)"""
    groups = ([], [])
    with open(os.path.join(TOOLS, "requirements.in")) as f:
        for line in f:
            name, _, comment = line.strip().partition("#")
            if name:
                groups["no-deps" in comment].append(name.strip())
    return groups


def resolve(requirements, arch, no_deps):
    """{name: (version, sha256)} as pip would install them on that architecture."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet",
               "--report", "-", "--target", "/nonexistent", "--only-binary=:all:",
               "--python-version", "3.11", *requirements]
    for platform in PLATFORMS[arch]:
        command += ["--platform", platform]
    if no_deps:
        command.append("--no-deps")
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = {}
    for item in json.loads(out)["install"]:
        name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
        found[name] = (item["metadata"]["version"],
                       item["download_info"]["archive_info"]["hash"].removeprefix("sha256="))
    return found


def main():
    with_deps, without_deps = read_inputs()
    versions, hashes = {}, {}
    for arch in PLATFORMS:
        found = resolve(with_deps, arch, False) | resolve(without_deps, arch, True)
        for name, (version, sha256) in found.items():
            if versions.setdefault(name, version) != version:
                sys.exit(f"{name}: {versions[name]} and {version} on different architectures")
            hashes.setdefault(name, set()).add(sha256)
    with open(os.path.join(TOOLS, "requirements.txt"), "w") as f:
        f.write("# Written by tools/pin_requirements.py from requirements.in; install with\n"
                "# pip install --require-hashes --no-deps -r tools/requirements.txt\n")
        for name in sorted(versions):
            pins = " \\\n".join(f"    --hash=sha256:{sha256}" for sha256 in sorted(hashes[name]))
            f.write(f"{name}=={versions[name]} \\\n{pins}\n")
    print(f"pinned {len(versions)} packages")


if __name__ == "__main__":
    main()
