#!/usr/bin/env python3
"""Checks the includes that Bazel's visibility cannot see. Run from anywhere.

usage: tools/layering.py [BAZEL COMMAND...]        e.g. tools/layering.py bazel --output_user_root=/tmp/b

1. A file includes only project headers of targets that its own target lists in `deps` (a header that is reached
   transitively would compile, and the edge would be invisible).
2. Folders look down only: server -> engine -> models -> memory -> kernels -> common.
3. Third-party headers stay where ARCHITECTURE.md allows them.
4. Every C++ file belongs to a target: there are no dead files.
"""
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Folder -> prefixes of project headers it may include. The longest matching key rules a file.
MAY_INCLUDE = {
    "common/": ["common/"],
    "kernels/": ["kernels/", "common/"],
    "kernels/cpu/": ["kernels/", "common/"],
    "kernels/cuda/": ["kernels/", "common/"],
    "memory/": ["memory/", "kernels/", "common/"],
    "models/": ["models/", "memory/", "kernels/", "common/"],
    # Of the kernels the engine sees the parameter structs alone: it fills in the sampler's rows.
    "engine/": ["engine/", "models/", "memory/", "kernels/params.h", "common/"],
    # The package //server is the composition root: it wires all layers. Its front ends below see the engine, and of
    # the models only text: tokenizers and templates are plain functions.
    "server/": ["server/", "engine/", "models/", "memory/", "kernels/", "common/"],
    "server/http/": ["server/", "engine/", "common/", "models/tokenizer/"],
    "server/openai/": ["server/", "engine/", "common/", "models/tokenizer/", "models/jinja/value.h"],
    "server/grpc/": ["server/", "engine/", "common/", "models/tokenizer/", "proto/"],
}
# Only these may see a backend's own headers; tests and tools may see everything.
BACKENDS = {"kernels/cpu/": ["kernels/cpu/", "kernels/backend"],
            "kernels/cuda/": ["kernels/cuda/", "kernels/backend"]}

# Third-party header prefix -> where it may be included (tests/ and tools/ may include all of them).
THIRD_PARTY = {
    "spdlog/": ["common/logging.cc"],
    "fmt/": [],
    "nlohmann/json_fwd.hpp": ["models/", "server/http/", "server/openai/"],
    "nlohmann/": ["models/**.cc", "models/json_reader.h", "server/http/", "server/openai/"],
    "yaml-cpp/": ["server/"],
    "boost/": ["server/http/", "server/openai/"],
    "grpc": ["server/grpc/"],
    "google/protobuf/": ["server/grpc/"],
    "pcre2.h": ["models/tokenizer/"],
    "utf8proc.h": ["models/tokenizer/", "models/jinja/"],
    "cuda": ["kernels/cuda/"],
    "cublas": ["kernels/cuda/"],
    "cudnn": ["kernels/cuda/cudnn_attention.cc"],
    "catch2/": [],
}
UNRULED = ("tests/", "tools/")


def label_path(label):
    package, name = label[2:].split(":")
    return f"{package}/{name}".lstrip("/")


def read_rules(bazel):
    """{label: {"srcs": [...], "hdrs": [...], "textual_hdrs": [...], "deps": [...]}} of every C++ target."""
    query = "kind('cc_(library|binary|test)|_cuda_library|_cc_grpc_library', //... except //tools/bazel/...)"
    out = subprocess.run([*bazel, "query", "--output=xml", query], cwd=ROOT, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True)
    if out.returncode != 0:
        sys.exit(f"bazel query failed:\n{out.stderr[-3000:]}")
    rules = {}
    for rule in ET.fromstring(out.stdout).findall("rule"):
        attributes = {"hdrs": [], "textual_hdrs": [], "srcs": [], "deps": []}
        for node in rule:
            name = node.get("name")
            if name not in attributes:
                continue
            if node.tag == "list":
                attributes[name] = [label.get("value") for label in node.iter("label")]
            elif node.tag == "label":
                attributes[name] = [node.get("value")]
        rules[rule.get("name")] = attributes
    return rules


def includes_of(path):
    """[(line number, header, is_project_style)]"""
    found = []
    with open(os.path.join(ROOT, path)) as f:
        for number, line in enumerate(f, 1):
            if match := re.match(r'\s*#\s*include\s+([<"])([^">]+)', line):
                found.append((number, match[2], match[1] == '"'))
    return found


def unlisted_headers(rules):
    owners = {}
    for name, rule in rules.items():
        for header in rule["hdrs"]:
            owners.setdefault(label_path(header), set()).add(name)
    for name, rule in rules.items():
        for path in map(label_path, rule["srcs"] + rule["hdrs"]):
            if not os.path.isfile(os.path.join(ROOT, path)):
                continue  # generated
            for number, header, is_project in includes_of(path):
                owner = owners.get(header) if is_project else None
                if owner and name not in owner and not owner & set(rule["deps"]):
                    yield f"{path}:{number}: includes {header}, but {name} does not list {min(owner)} in deps"


def dead_files(rules, paths):
    owned = {label_path(label) for rule in rules.values()
             for label in rule["srcs"] + rule["hdrs"] + rule["textual_hdrs"]}
    for path in paths:
        # The build's own helpers are compiled by rules that the query leaves out.
        if path not in owned and not path.startswith("tools/bazel/"):
            yield f"{path}: belongs to no target (dead code?)"


def longest_match(table, path):
    keys = [key for key in table if path.startswith(key)]
    return table[max(keys, key=len)] if keys else None


def allows(pattern, path):
    folder, star, suffix = pattern.partition("**")
    return path.startswith(folder) and (not star or path.endswith(suffix))


def forbidden_edges(paths):
    for path in paths:
        if path.startswith(UNRULED):
            continue
        allowed = longest_match(MAY_INCLUDE, path)
        for number, header, is_project in includes_of(path):
            if is_project:
                if allowed is not None and not header.startswith(tuple(allowed)):
                    yield f"{path}:{number}: this folder may not include {header} (allowed: {', '.join(allowed)})"
                users = longest_match(BACKENDS, header)
                if users is not None and not path.startswith(tuple(users)):
                    yield f"{path}:{number}: only {', '.join(users)} may see a backend's header {header}"
            else:
                users = longest_match(THIRD_PARTY, header)
                if users is not None and not any(allows(user, path) for user in users):
                    where = ", ".join(users) or "tests and tools"
                    yield f"{path}:{number}: <{header}> belongs to {where} alone"


def main():
    bazel = sys.argv[1:] or ["bazel"]
    files = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard",
                            "*.h", "*.cc", "*.cu", "*.cuh"], cwd=ROOT, check=True, stdout=subprocess.PIPE,
                           text=True).stdout.split()
    files = [path for path in files if os.path.isfile(os.path.join(ROOT, path))]
    rules = read_rules(bazel)
    problems = [*forbidden_edges(files), *unlisted_headers(rules), *dead_files(rules, files)]
    print("\n".join(problems + [f"{len(problems)} layering errors in {len(files)} files"]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
