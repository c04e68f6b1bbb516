#!/usr/bin/env python3
"""Writes models/tokenizer/newer_characters.cc: the characters that Unicode 14 does not know, by category.

The categories are those of the reference implementation itself (PyPI: tokenizers, which carries Oniguruma, and Rust's
own tables for numbers); Python's unicodedata tells which characters are old. Run it with a Python whose
unicodedata.unidata_version is 14.0.0 (Python 3.11):

    python3 tools/make_newer_characters.py > models/tokenizer/newer_characters.cc
"""

import sys
import unicodedata

from tokenizers import Regex, pre_tokenizers

# Category -> an old character of it in three and in four bytes of UTF-8.
LIKE = {
    "Lu": (0x2C00, 0x10400),
    "Ll": (0x2C30, 0x10428),
    "Lm": (0x3005, 0x16B40),
    "Lo": (0x4E00, 0x20000),
    "M": (0x1AB0, 0x101FD),
    "Nd": (0x0966, 0x104A0),
    "N": (0x2460, 0x10107),
    "P": (0x2020, 0x10100),
    "S": (0x2600, 0x1F600),
}


def new_characters():
    return [c for c in range(0x800, 0x110000)
            if not 0xD800 <= c < 0xE000 and unicodedata.category(chr(c)) == "Cn"]


def members(splitter, candidates):
    """The candidates that `splitter` (behaviour: removed) takes out of a text."""
    found = set()
    for i in range(0, len(candidates), 1000):
        chunk = candidates[i:i + 1000]
        kept = set("".join(piece for piece, _ in splitter.pre_tokenize_str("".join(map(chr, chunk)))))
        found.update(c for c in chunk if chr(c) not in kept)
    return found


def numeric(candidates):
    """What Digits splits off."""
    found = set()
    splitter = pre_tokenizers.Digits(individual_digits=True)
    for i in range(0, len(candidates), 1000):
        text = "x" + "x".join(map(chr, candidates[i:i + 1000])) + "x"
        found.update(ord(piece) for piece, _ in splitter.pre_tokenize_str(text) if piece != "x" and len(piece) == 1)
    return found


def main():
    if unicodedata.unidata_version != "14.0.0":
        sys.exit(f"this Python has Unicode {unicodedata.unidata_version}, 14.0.0 is needed")
    candidates = new_characters()
    category = {}
    for name in LIKE:
        for c in members(pre_tokenizers.Split(Regex(r"\p{%s}" % name), "removed"), candidates):
            category.setdefault(c, name)
    # The pattern engine's tables lag behind Rust's by a version; a number that only Rust knows is no number to a
    # pattern, so it gets no entry.
    missing = numeric(candidates) - {c for c, name in category.items() if name in ("Nd", "N")}
    if missing:
        print("numbers known to Digits alone: " + " ".join(f"{c:04X}" for c in sorted(missing)), file=sys.stderr)
    ranges = []
    for c in sorted(category):
        like = LIKE[category[c]][c >= 0x10000]
        if ranges and ranges[-1][1] == c - 1 and ranges[-1][2] == like:
            ranges[-1][1] = c
        else:
            ranges.append([c, c, like])
    print("// Written by tools/make_newer_characters.py; do not edit.")
    print('#include "models/tokenizer/newer_characters.h"\n\nnamespace spin {\nnamespace {\n')
    print("// clang-format off\nconstexpr NewerCharacters kTable[] = {")
    for i in range(0, len(ranges), 4):
        print("    " + " ".join("{0x%04X, 0x%04X, 0x%04X}," % tuple(r) for r in ranges[i:i + 4]))
    print("};\n// clang-format on\n\n}  // namespace\n")
    print("std::span<const NewerCharacters> NewerCharacterTable() { return kTable; }\n\n}  // namespace spin")


if __name__ == "__main__":
    main()
