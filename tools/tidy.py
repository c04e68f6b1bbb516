#!/usr/bin/env python3
"""The code's own budgets and promises, as one test. Prints every breach with its place; fails when there is one.

usage: tools/tidy.py [--root DIR]

- a line has at most 120 columns, a function 70 lines (a test case 120), a file 500 lines;
- banned words, developer machines' paths and backend #ifdefs above kernels/ do not occur;
- every larger .cc of the product has a test.
"""
import argparse
import ast
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MAX_COLUMNS = 120
MAX_FUNCTION_LINES = 70
MAX_TEST_CASE_LINES = 120
MAX_FILE_LINES = 500

CODE = (".h", ".cc", ".cu", ".cuh", ".py", ".sh", ".bzl", ".proto")
CPP = (".h", ".cc", ".cu", ".cuh")
PRODUCT = ("common/", "kernels/", "memory/", "models/", "engine/", "server/")
ABOVE_KERNELS = ("memory/", "models/", "engine/", "server/")

# This file names them, so it leaves itself out.
SELF = "tools/tidy.py"
BANNED = re.compile(r"\b(TODO|FIXME|XXX)\b|\b[Nn]ot (yet )?implemented\b|\bunimplemented\b")
MACHINE_PATH = re.compile(r"/home/\w+/|/Users/\w+/|/root/|(?<![\w.$}])/work/|/mnt/\w+/|\.\./shared\b|/\.library\b")
BACKEND_IFDEF = re.compile(r"^\s*#\s*(if|ifdef|ifndef|elif)\b.*(CUDA|NVCC|HIP)", re.IGNORECASE)

# A .cc of at most this many lines may rely on the tests of what uses it.
SMALL_FILE_LINES = 60
# Parts that are tested through their front: path prefix -> the tests that do it.
TESTED_THROUGH = {
    "engine/": "tests/engine/",
    "common/host_limits": "tests/kernels/cpu_device_test.cc",
    "memory/row_table_check": "tests/sim/memory_sim_test.cc",
    "kernels/cpu/cluster_": "tests/kernels/retroinfer_test.cc",
    "kernels/cpu/cpu_ops": "tests/kernels/",
    "kernels/cpu/isa": "tests/kernels/gemm_test.cc",
    "kernels/cuda/": "tests/twin/",
    "kernels/cpu/paged_attention": "tests/kernels/attention_test.cc",
    "kernels/cpu/prefill_attention": "tests/kernels/attention_test.cc",
    "kernels/cpu/key_products": "tests/kernels/key_factor_test.cc",
    "kernels/cpu/rebuild_keys": "tests/kernels/key_factor_test.cc",
    "kernels/cpu/rotate_back": "tests/kernels/seer_test.cc",
    "kernels/cpu/landmark_index": "tests/kernels/shadowkv_test.cc",
    "kernels/cpu/quest_": "tests/kernels/quest_test.cc",
    "kernels/cpu/ranked_weights": "tests/kernels/sample_test.cc",
    "kernels/cpu/row_math": "tests/kernels/row_kernels_test.cc",
    "kernels/cpu/score_summaries": "tests/kernels/quest_test.cc",
    "kernels/cpu/seer_": "tests/kernels/seer_test.cc",
    "kernels/cpu/select_topk": "tests/kernels/quest_test.cc",
    # One executor, from the folder to the log-probabilities.
    "models/decoder_layer": "tests/models/golden_test.cc",
    "models/executor_shape": "tests/models/golden_test.cc",
    "models/model_folder": "tests/models/golden_test.cc",
    "models/pipeline/": "tests/models/golden_test.cc",
    "models/prefill_run": "tests/models/golden_test.cc",
    "models/rope_table": "tests/models/golden_test.cc",
    "models/workspace": "tests/models/golden_test.cc",
    # An interpreter and a tokenizer: their cases are whole templates and whole texts.
    "models/jinja/": "tests/models/jinja/",
    "models/tokenizer/": "tests/models/tokenizer/",
    "server/app": "tests/e2e/",
    "server/grpc/": "tests/e2e/",
    "server/http/http_session": "tests/server/http_server_test.cc",
    "server/main": "tests/e2e/",
    "server/model_stack": "tests/e2e/",
    "server/openai/": "tests/server/openai_handler_test.cc",
    "server/sparse_request": "tests/server/common_request_test.cc",
    "server/warm_up": "tests/e2e/",
}
# Larger files without any test of their own, and why.
UNTESTED = {
    "common/logging.cc": "writes log lines; nothing to assert that the types do not",
}


def project_files(root):
    out = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=root, check=True,
                         stdout=subprocess.PIPE, text=True).stdout
    return [path for path in out.splitlines() if os.path.isfile(os.path.join(root, path))]


def is_script(text):
    return text.startswith("#!")


def blank_literals(text):
    """C++ text with comments and literals blanked out, line structure kept."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|R"([^(\s]*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"'
                         r"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'", re.DOTALL)
    return pattern.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


SCOPE = re.compile(r"\b(namespace|class|struct|union|enum|extern)\b")
CONTROL = re.compile(r"^\s*(if|for|while|switch|do|else|try|catch)\b")


def cpp_functions(text):
    """(first line, last line, head) of every function body at namespace or class scope."""
    code = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", lambda m: re.sub(r"[^\n]", " ", m[0]), blank_literals(text),
                  flags=re.MULTILINE)
    stack, head, head_line, line = [], "", 1, 1
    for char in code:
        if char == "\n":
            line += 1
        if char == "{":
            outer = all(kind == "scope" for kind, _, _ in stack)
            if outer and SCOPE.search(head.split("(")[0]) and not head.rstrip().endswith(")"):
                kind = "scope"
            else:
                kind = "function" if outer and "(" in head and not CONTROL.match(head) else "block"
            stack.append((kind, head_line, " ".join(head.split())))
            head = ""
        elif char == "}":
            if stack:
                kind, first, name = stack.pop()
                if kind == "function":
                    yield first, line, name
            head = ""
        elif char == ";":
            head = ""
        else:
            if not head.strip() and not char.isspace():
                head, head_line = "", line
            head += char


def python_functions(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.lineno, node.end_lineno, node.name


def check_budgets(path, text):
    lines = text.splitlines()
    if len(lines) > MAX_FILE_LINES:
        yield f"{path}: {len(lines)} lines (at most {MAX_FILE_LINES})"
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_COLUMNS and "/testdata/" not in path:  # templates and texts stand there as they are
            yield f"{path}:{number}: {len(line)} columns (at most {MAX_COLUMNS})"
    if path.endswith(CPP):
        functions = cpp_functions(text)
    elif path.endswith(".py") or text.startswith("#!/usr/bin/env python"):
        functions = python_functions(text)
    else:
        functions = ()
    for first, last, name in functions:
        limit = MAX_TEST_CASE_LINES if "TEST_CASE" in name else MAX_FUNCTION_LINES
        if last - first + 1 > limit:
            yield f"{path}:{first}: function of {last - first + 1} lines (at most {limit}): {name[:60]}"


def check_words(path, text):
    for number, line in enumerate(text.splitlines(), 1):
        if match := BANNED.search(line):
            yield f"{path}:{number}: banned word '{match[0]}'"
        if match := MACHINE_PATH.search(line):
            yield f"{path}:{number}: path of a machine '{match[0]}'"
        if path.startswith(ABOVE_KERNELS) and BACKEND_IFDEF.match(line):
            yield f"{path}:{number}: backend #ifdef above kernels/"


def check_tests_exist(root, files):
    """A larger .cc needs STEM_test.cc, a test that includes its header, or a line in the tables above."""
    tests = [path for path in files if path.startswith("tests/")]
    stems = {os.path.basename(path) for path in tests}
    included = set()
    for path in tests:
        if path.endswith(CPP):
            with open(os.path.join(root, path)) as f:
                included.update(re.findall(r'^#include "([^"]+)"', f.read(), re.MULTILINE))
    for path in files:
        if not path.startswith(PRODUCT) or not path.endswith(".cc") or path in UNTESTED:
            continue
        with open(os.path.join(root, path)) as f:
            num_lines = sum(1 for _ in f)
        stem = path.removesuffix(".cc")
        fronts = [test for prefix, test in TESTED_THROUGH.items() if path.startswith(prefix)]
        if (num_lines > SMALL_FILE_LINES and os.path.basename(stem) + "_test.cc" not in stems
                and stem + ".h" not in included
                and not any(test.startswith(front) for front in fronts for test in tests)):
            yield f"{path}: no {os.path.basename(stem)}_test.cc under tests/, and no test includes its header"
    for path in sorted(UNTESTED.keys() - set(files) if root == ROOT else ()):
        yield f"{SELF}: UNTESTED names {path}, which does not exist"


def problems_in(root):
    files = project_files(root)
    for path in files:
        try:
            with open(os.path.join(root, path), encoding="utf-8") as f:
                text = f.read()
        except UnicodeDecodeError:
            continue  # binary test data
        is_code = path.endswith(CODE) or is_script(text)
        if is_code:
            yield from check_budgets(path, text)
        if (is_code or path.endswith((".md", ".bazel", ".yaml", ".in"))) and path != SELF:
            yield from check_words(path, text)
    yield from check_tests_exist(root, files)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", default=ROOT)
    root = parser.parse_args().root
    problems = list(problems_in(root))
    print("\n".join([*problems, f"{len(problems)} tidy errors"]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
